//! Ordinary life and trouble for as long as asked: `cargo bench --bench soak -- [--minutes N]`, or `just soak MINUTES`.
//!
//! ```text
//! --minutes N   how long  [default: 30]; one minute is a trial of the bench itself
//! --twins N     how many twins are declared  [default: 1000]
//! --seed N      what edits and troubles are drawn from  [default: 1]
//! --write       keep the picture and the figures: docs/soak.svg, docs/soak.md
//! ```
//!
//! The real daemon and the real hub, each a process of its own, some devices over MQTT, somebody who edits manifests,
//! somebody who writes twins behind the daemon's back, and troubles one after the other: refusals, late and lost
//! answers, deaths of either process, a hub that hangs, broken manifests. The first sixth is quiet, and gives the level
//! that memory and descriptors are held to; the last sixth is quiet again. Then the account is made ([`verdict`]): the
//! program ends with 1 and the reasons when something is wrong. The picture is in `target/soak/`.
//!
//! Invariant: what the twins must be is known from the edits alone; nothing that the daemon says of itself is believed
//! without the hub's own word.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and stops where it cannot go on")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock, and starts its tasks")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod account;
mod devices;
mod fleet;
mod lives;
#[path = "../machine/mod.rs"]
mod machine;
mod page;
mod picture;
mod record;
mod stage;
#[expect(dead_code, reason = "the tests of the real binary need more of it")]
#[path = "../../tests/e2e/support.rs"]
mod support;
mod troubles;
mod verdict;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use stage::Stage;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// How long.
    pub(crate) time: Duration,
    /// How many twins are declared.
    pub(crate) twins: usize,
    /// Of edits and troubles.
    pub(crate) seed: u64,
    /// Whether picture and figures go into `docs/`.
    pub(crate) write: bool,
}

impl Wish {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wish = Self { time: Duration::from_secs(30 * 60), twins: 1000, seed: 1, write: false };
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        while let Some(name) = arguments.next() {
            let mut number = || {
                let text = arguments.next().ok_or_else(|| format!("{name} wants a number"))?;
                text.parse::<u32>().map_err(|error| format!("{name} {text}: {error}"))
            };
            match name.as_str() {
                "--minutes" => wish.time = Duration::from_secs(u64::from(number()?.max(1)) * 60),
                "--twins" => wish.twins = number()?.max(fleet::TWINS_MIN) as usize,
                "--seed" => wish.seed = number()?.into(),
                "--write" => wish.write = true,
                _ => return Err(format!("there is no {name}; there are --minutes, --twins, --seed and --write")),
            }
        }
        Ok(wish)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let wish = match Wish::parse(std::env::args().skip(1)) {
        Ok(wish) => wish,
        Err(error) => {
            println!("{error}");
            return ExitCode::from(2);
        }
    };
    let machine = machine::machine();
    println!("{machine}");
    let stage = Stage::set_up(wish).await;
    let (record, verdict) = stage.play().await;
    let text = page::figures(&wish, &machine, &record, &verdict);
    println!("\n{text}");

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("target/soak");
    fs::create_dir_all(&folder).unwrap();
    let picture = picture::draw(&wish, &record);
    fs::write(folder.join("soak.svg"), &picture).unwrap();
    println!("picture: {}", folder.join("soak.svg").display());
    if !verdict.wrong.is_empty() {
        verdict.wrong.iter().for_each(|wrong| println!("WRONG: {wrong}"));
        return ExitCode::FAILURE;
    }
    if wish.write {
        fs::write(root.join("docs/soak.svg"), &picture).unwrap();
        fs::write(root.join("docs/soak.md"), page::page(&wish, &text)).unwrap();
        println!("written: docs/soak.svg, docs/soak.md");
    }
    ExitCode::SUCCESS
}
