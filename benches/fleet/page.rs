//! The page: `page.md` with its places filled in.
//!
//! Invariant: every place is filled and every figure has a place, or the command ends without a page.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::arguments::Arguments;
use super::contender::{Contender, versions};
use super::figures::{grouped, megabytes, seconds, short};
use super::machine::machine;
use super::quiet::{Quiet, Scenario};
use super::race::Race;
use super::saves::{DEBOUNCE_MS, Saves};
use super::tables::{of_quiet, of_tiers, of_wire};
use super::tiers::UnderTier;
use super::wire::Counts;
use super::{hub, kernel};

const TEMPLATE: &str = include_str!("page.md");

/// DESIGN section 7.
const CPU_OF_PYTHON: f64 = 50.0;
const CPU_OF_NODE: f64 = 3.0;
const WALL_OF_PYTHON: f64 = 30.0;
const WALL_OF_NODE: f64 = 2.0;
const SHARE_LEAST: f64 = 0.97;
const BURST_S: f64 = 1.0;
const BEYOND_DEBOUNCE_MS: f64 = 100.0;

/// Everything that was measured.
pub(crate) struct Measured {
    pub(crate) races: Vec<Race>,
    pub(crate) counts: BTreeMap<Contender, Counts>,
    pub(crate) quiet: Vec<Quiet>,
    pub(crate) saves: Saves,
    pub(crate) tiers: Vec<UnderTier>,
    pub(crate) load_before: f64,
    pub(crate) minutes: f64,
}

/// The page of one run.
pub(crate) fn page(arguments: &Arguments, measured: &Measured) -> String {
    let mut text = TEMPLATE.to_owned();
    for (place, content) in places(arguments, measured) {
        let place = format!("{{{{{place}}}}}");
        assert!(text.contains(&place), "page.md has no place {place}");
        text = text.replace(&place, content.trim_end());
    }
    assert!(!text.contains("{{"), "page.md has a place that nothing fills: {text}");
    text
}

fn places(arguments: &Arguments, measured: &Measured) -> Vec<(&'static str, String)> {
    let last = measured.races.last().expect("there is a fleet at least");
    vec![
        ("machine", machine()),
        ("system", system()),
        ("versions", named_versions()),
        ("minutes", format!("{:.0}", measured.minutes.max(1.0))),
        ("load_before", format!("{:.2}", measured.load_before)),
        ("load_after", format!("{:.2}", kernel::load())),
        ("rounds", arguments.rounds.to_string()),
        ("rounds_of_slow", arguments.rounds_of_slow.to_string()),
        ("targets", targets(measured, last)),
        ("races", races(&measured.races)),
        ("limit", limit(last)),
        ("counted", grouped(arguments.counted as f64)),
        ("wire", of_wire(&measured.counts, arguments.counted)),
        ("swept", grouped(arguments.swept as f64)),
        ("quiet", of_quiet(&measured.quiet)),
        ("saves", saves(&measured.saves)),
        ("window", format!("{:.0}", measured.tiers[0].window_s)),
        ("tiers", of_tiers(&measured.tiers)),
    ]
}

fn races(races: &[Race]) -> String {
    let section = |race: &Race| {
        let repeated = match race.repeated.as_slice() {
            [] => String::new(),
            whose => format!("\nDone again after an end that was no good one: {}.\n", whose.join(", ")),
        };
        format!("### {} twins\n\n{}{repeated}", grouped(race.count as f64), race.table())
    };
    races.iter().map(section).collect::<Vec<_>>().join("\n")
}

/// Where the time of the machine went while geminid worked.
fn limit(race: &Race) -> String {
    let of = |contender| {
        let (client, hub) = (race.median(contender, |cost| cost.cpu_s), race.median(contender, |cost| cost.hub_cpu_s));
        let wall = race.median(contender, |cost| cost.wall_s);
        let used = 100.0 * (client + hub) / (wall * threads());
        (short(wall), short(client), short(hub), format!("{used:.0}"))
    };
    let rows = race.costs.keys().map(|contender| {
        let (wall, client, hub, used) = of(*contender);
        format!("| {} | {wall} s | {client} s | {hub} s | {used} % |\n", contender.name())
    });
    let head = format!(
        "Of {} twins, the middle of the rounds:\n\n| | wall | CPU of the client | CPU of the hub | both, of all \
         processors |\n|---|---|---|---|---|\n",
        grouped(race.count as f64)
    );
    head + &rows.collect::<String>()
}

fn threads() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |threads| threads.get() as f64)
}

fn saves(saves: &Saves) -> String {
    let beyond = |percent| saves.percentile(percent) - DEBOUNCE_MS;
    format!(
        "| manifests | saves | p50 | p99 | most | p50 beyond the debounce | p99 beyond it | requests | CPU of the daemon a \
         save | peak memory |\n|---|---|---|---|---|---|---|---|---|---|\n\
         | {} | {} | {:.0} ms | {:.0} ms | {:.0} ms | {:.0} ms | {:.0} ms | {} | {} | {} |",
        grouped(saves.manifests as f64),
        saves.taken_ms.len(),
        saves.percentile(50),
        saves.percentile(99),
        saves.percentile(100),
        beyond(50),
        beyond(99),
        saves.requests,
        seconds(saves.cpu_s / saves.taken_ms.len() as f64),
        megabytes(saves.peak_bytes)
    )
}

/// A row for each target that is measured here.
fn targets(measured: &Measured, race: &Race) -> String {
    let mut rows = against_sdks(race);
    for tier in &measured.tiers {
        let ([least, most], window) = (tier.windows, tier.window_s);
        rows.push(Target {
            what: format!("write rate under {}, any {window:.0} s after the beginning", tier.tier),
            target: format!("{SHARE_LEAST} to 1.0 of the share and one second of burst, no 429"),
            figure: format!("{least:.3} to {most:.3}, {} x 429", tier.refused),
            is_met: least >= SHARE_LEAST && most <= 1.0 + BURST_S / window && tier.refused == 0,
            cause: "latencies of a busy machine lower the rate on purpose",
        });
    }
    let swept = measured.quiet.iter().find(|quiet| quiet.scenario == Scenario::Nothing).expect("it is measured");
    let pages = swept.twins.div_ceil(hub::PAGE);
    let (queries, gets) = (swept.counts.queries, swept.counts.gets);
    rows.push(Target {
        what: "requests of a sweep with nothing to do, by a new process".to_owned(),
        target: format!("{} ({pages} pages and one), no GET", pages + 1),
        figure: format!("{queries} queries, {gets} GETs"),
        is_met: queries <= pages + 1 && gets == 0,
        cause: "twins were read whose seal should have sufficed",
    });
    let beyond = measured.saves.percentile(99) - DEBOUNCE_MS;
    rows.push(Target {
        what: "file saved to patched, p99 beyond the debounce".to_owned(),
        target: format!("< {BEYOND_DEBOUNCE_MS:.0} ms"),
        figure: format!("{beyond:.0} ms"),
        is_met: beyond < BEYOND_DEBOUNCE_MS,
        cause: "the target is of an idle machine; others' work and the disk's flush stand in between",
    });
    let lines = rows.iter().map(Target::line).collect::<String>();
    format!("| what | target | measured | |\n|---|---|---|---|\n{lines}")
}

/// One thing that this project holds itself to.
struct Target {
    what: String,
    target: String,
    figure: String,
    is_met: bool,
    /// Why it is missed when it is.
    cause: &'static str,
}

impl Target {
    fn line(&self) -> String {
        let verdict = if self.is_met { "met".to_owned() } else { format!("**missed**: {}", self.cause) };
        format!("| {} | {} | {} | {verdict} |\n", self.what, self.target, self.figure)
    }
}

fn against_sdks(race: &Race) -> Vec<Target> {
    let twins = grouped(race.count as f64);
    let of = |contender: Contender, cpu: f64, wall: f64| {
        let name = contender.name();
        let cpu_ratio = race.times_geminid(contender, |cost| cost.cpu_s);
        let wall_ratio = race.times_geminid(contender, |cost| cost.wall_s);
        [
            Target {
                what: format!("{twins} drifted twins: client CPU, {name}"),
                target: format!("{cpu:.0} x geminid's or more"),
                figure: format!("{} x", short(cpu_ratio)),
                is_met: cpu_ratio >= cpu,
                cause: "beside the SDK's work geminid reads YAML, asks for the seals, plans, logs each leaf and writes a \
                        seal; on few twins weigh its start and 32 TLS handshakes too. Where its CPU goes stands below",
            },
            Target {
                what: format!("the same: wall, {name}"),
                target: format!("{wall:.0} x geminid's or more"),
                figure: format!("{} x", short(wall_ratio)),
                is_met: wall_ratio >= wall,
                cause: "the hub shares the processors: its own CPU a twin is in geminid's wall, and on a busy machine so \
                        is everybody else's; the ceiling below has the same",
            },
        ]
    };
    let python = of(Contender::Python(16), CPU_OF_PYTHON, WALL_OF_PYTHON);
    python.into_iter().chain(of(Contender::Node(16), CPU_OF_NODE, WALL_OF_NODE)).collect()
}

fn named_versions() -> String {
    let rustc = said("rustc", &["--version"]);
    let program = Path::new(env!("CARGO_BIN_EXE_geminid"));
    let profile = program.parent().and_then(Path::file_name).map(|name| name.to_string_lossy()).unwrap_or_default();
    let mut named = vec![format!("geminid {} (profile {profile})", env!("CARGO_PKG_VERSION")), rustc];
    named.extend(versions().into_iter().map(|(name, version)| format!("{name} {version}")));
    named.join(", ")
}

/// Kernel and memory.
fn system() -> String {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let bytes = kilobytes.and_then(|text| text.parse::<f64>().ok()).unwrap_or_default() * 1024.0;
    format!("Linux {}, {:.0} GB of memory", said("uname", &["-r"]), bytes / 1e9)
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
