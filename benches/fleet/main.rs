//! The fleet side by side: one command that measures geminid against Microsoft's own SDKs and writes
//! `docs/performance.md`.
//!
//! ```text
//! cargo bench --profile dist --bench fleet                everything; the page at target/fleet/performance.md
//! cargo bench --profile dist --bench fleet -- --write     the page at docs/performance.md (`just fleet`)
//! cargo bench --profile dist --bench fleet -- --quick     whether it works, within a minute
//! ```
//!
//! Profile `dist` is what is handed out; another one measures what it builds, and the page says which.
//!
//! One machine, one run: the embedded hub is a process of its own, each contender too, and they take turns. What each
//! figure means stands in `page.md` beside this file, which the command fills in.
//!
//! Invariant: no process outlives the command, and no figure is printed of a contender that did not bring every twin to
//! what was wanted; the hub is asked after each turn.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and stops where it cannot go on")]
#![expect(clippy::print_stderr, reason = "how far it is must not stand in the page")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock, and starts its tasks")]
#![expect(clippy::cast_precision_loss, reason = "ratios of counts, sizes and times")]

mod arguments;
mod contender;
mod daemon;
mod figures;
mod hub;
mod kernel;
#[path = "../machine/mod.rs"]
mod machine;
mod page;
mod pairs;
mod process;
mod quiet;
mod race;
mod saves;
mod tables;
mod tiers;
mod twins;
mod wire;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use self::arguments::Arguments;
use self::page::Measured;

/// As the program has it, so that the ceiling is not lower for its allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Longer than anything takes that is not a contender's work.
const PATIENCE: Duration = Duration::from_secs(120);
/// Who is interrupted ends with this.
const INTERRUPTED: u8 = 130;

/// The program that is measured, without what the environment of the benchmark says to it.
fn geminid() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_geminid"));
    command.env_clear();
    command
}

/// How far it is.
fn say(line: &str) {
    eprintln!("{line}");
}

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let Some((pairs::CHILD, arguments)) = given.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        pairs::child(arguments);
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::parse(given.into_iter()) {
        Ok(arguments) => arguments,
        Err(trouble) => {
            eprintln!("{trouble}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt()).unwrap(), signal(SignalKind::terminate()).unwrap());
        // What is dropped ends its processes and removes its folder.
        tokio::select! {
            () = whole(&arguments) => ExitCode::SUCCESS,
            _ = interrupt.recv() => ExitCode::from(INTERRUPTED),
            _ = terminate.recv() => ExitCode::from(INTERRUPTED),
        }
    })
}

/// Measures everything and writes the page.
async fn whole(arguments: &Arguments) {
    let begun = Instant::now();
    contender::set_up();
    let target = Path::new(ROOT).join("target/fleet");
    fs::create_dir_all(&target).unwrap();
    let folder = tempfile::tempdir_in(&target).unwrap();
    let load_before = kernel::load();
    let mut races = Vec::new();
    for count in &arguments.sizes {
        races.push(race::race(folder.path(), arguments, *count).await);
    }
    let counts = race::count(folder.path(), arguments.counted).await;
    let quiet = quiet::quiet(folder.path(), arguments).await;
    let saves = saves::saves(folder.path(), arguments).await;
    let tiers = tiers::tiers(folder.path(), arguments).await;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let measured = Measured { races, counts, quiet, saves, tiers, load_before, minutes };
    let page = page::page(arguments, &measured);
    println!("{page}");
    let paths = [target.join("performance.md"), Path::new(ROOT).join("docs/performance.md")];
    for path in paths.iter().take(1 + usize::from(arguments.write)) {
        fs::write(path, &page).unwrap();
        say(&format!("written: {}", path.display()));
    }
}
