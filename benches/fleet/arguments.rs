//! What the command takes.

use std::time::Duration;

const USAGE: &str = "cargo bench --profile dist --bench fleet -- [--n COUNT].. [--rounds COUNT] [--quick | --write]

--n COUNT       twins of a fleet, again for another; without it 1,000 and 20,000
--rounds COUNT  rounds of each contender, 5 without it
--quick         everything once and small, within a minute: whether it works, not how fast it is
--write         put the page at docs/performance.md; without it only at target/fleet/performance.md";

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    /// Twins of each fleet that the contenders bring in sync.
    pub(crate) sizes: Vec<usize>,
    /// Rounds of each contender.
    pub(crate) rounds: usize,
    /// Rounds of a contender that is slow on fleets of [`Arguments::LARGE`] and more.
    pub(crate) rounds_of_slow: usize,
    /// Twins of the fleet that is swept, drifts by a hundredth and meets a restarted daemon.
    pub(crate) swept: usize,
    /// Manifests, a file each, of the fleet whose files are saved; and how many saves.
    pub(crate) manifests: usize,
    pub(crate) saves: usize,
    /// How long geminid may need at least under a tier.
    pub(crate) under_tier: Duration,
    /// Twins of the fleet whose requests and bytes are counted.
    pub(crate) counted: usize,
    pub(crate) quick: bool,
    pub(crate) write: bool,
}

impl Arguments {
    /// Fleets so large that slow contenders get fewer rounds.
    pub(crate) const LARGE: usize = 10_000;

    /// Reads the command line.
    ///
    /// # Errors
    /// What is wrong with it, and how it is used.
    pub(crate) fn parse(given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self::whole();
        let (mut sizes, mut rounds) = (Vec::new(), None);
        // Cargo says so to every benchmark.
        let mut given = given.filter(|argument| argument != "--bench");
        while let Some(flag) = given.next() {
            let mut count = || {
                let text = given.next().unwrap_or_default();
                text.parse().ok().filter(|count| *count > 0).ok_or(format!("{flag} {text:?} is no count\n\n{USAGE}"))
            };
            match flag.as_str() {
                "--n" => sizes.push(count()?),
                "--rounds" => rounds = Some(count()?),
                "--quick" => arguments.quick = true,
                "--write" => arguments.write = true,
                _ => return Err(format!("unknown argument {flag:?}\n\n{USAGE}")),
            }
        }
        if arguments.quick && arguments.write {
            return Err("a quick run says nothing about speed and is not written".to_owned());
        }
        if arguments.quick {
            arguments = Self { quick: true, ..Self::quick() };
        }
        if !sizes.is_empty() {
            arguments.sizes = sizes;
        }
        arguments.rounds = rounds.unwrap_or(arguments.rounds);
        arguments.rounds_of_slow = arguments.rounds_of_slow.min(arguments.rounds);
        Ok(arguments)
    }

    fn whole() -> Self {
        Self {
            sizes: vec![1_000, 20_000],
            rounds: 5,
            rounds_of_slow: 1,
            swept: 20_000,
            manifests: 10_000,
            saves: 200,
            under_tier: Duration::from_secs(80),
            counted: 1_000,
            quick: false,
            write: false,
        }
    }

    fn quick() -> Self {
        Self {
            sizes: vec![100],
            rounds: 1,
            rounds_of_slow: 1,
            swept: 300,
            manifests: 100,
            saves: 5,
            under_tier: Duration::from_secs(4),
            counted: 50,
            ..Self::whole()
        }
    }
}
