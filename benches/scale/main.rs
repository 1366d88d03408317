//! A whole fleet: load, sweep, memory and requests at 10,000, 100,000 and 1,000,000 twins, as ratios within one run.
//!
//! ```text
//! cargo bench --bench scale                     the fleets of DESIGN section 7 in process, growth, queue and pace
//! cargo bench --bench scale -- 10000 100000     other sizes in process
//! cargo bench --bench scale -- https [COUNT]    over HTTPS against the embedded hub in a process of its own
//! cargo bench --bench scale -- queue [COUNT]    the queue's memory
//! cargo bench --bench scale -- pace             achieved over allowed rate under S1 and S3, on a paused clock
//! ```
//!
//! In process the hub is a file of page bodies as the embedded hub sends them, so that what is measured is geminid's
//! own work: taking in bodies, judging rows, keeping status. Beside it the same bodies are parsed into a typed struct by
//! `serde_json`, in the same process. Each size is measured in a process of its own, so that memory is its alone.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and stops where it cannot go on")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock, and starts its tasks")]
#![expect(clippy::cast_precision_loss, reason = "ratios of counts, sizes and times")]

#[expect(dead_code, reason = "the benchmark of the hub needs more of it")]
#[path = "../ceiling/mod.rs"]
mod ceiling;
mod fleet;
mod https;
#[path = "../machine/mod.rs"]
mod machine;
mod measure;
mod memory_hub;
mod pace;
mod queue;
mod sweeping;
#[expect(dead_code, reason = "the tests of the pace need more of it")]
#[path = "../../tests/reconcile/throttled.rs"]
mod throttled;

use std::path::Path;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fleets in process: the last one is DESIGN's.
const COUNTS: [usize; 3] = [10_000, 100_000, 1_000_000];
/// The fleet over HTTPS.
const HTTPS_COUNT: usize = 100_000;
/// Entries of the queue.
const QUEUE_COUNT: usize = 1_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let count = |text: &str| text.parse::<usize>().unwrap_or_else(|_| panic!("{text} is no count"));
    match arguments.as_slice() {
        // Children of this very program.
        [sweeping::CHILD, folder, twins] => return sweeping::child(Path::new(folder), count(twins)),
        [queue::CHILD, entries] => return queue::child(count(entries)),
        [https::HUB_CHILD, folder, twins] => return https::hub_child(Path::new(folder), count(twins)),
        [https::CHILD, folder, twins] => return https::child(Path::new(folder), count(twins)),
        _ => println!("{}", machine::machine()),
    }
    match arguments.as_slice() {
        [] => {
            sweeping::sizes(&COUNTS);
            queue::memory(QUEUE_COUNT);
            pace::shares();
        }
        ["https"] => https::fleet(HTTPS_COUNT),
        ["https", twins] => https::fleet(count(twins)),
        ["queue"] => queue::memory(QUEUE_COUNT),
        ["queue", entries] => queue::memory(count(entries)),
        ["pace"] => pace::shares(),
        counts => sweeping::sizes(&counts.iter().map(|text| count(text)).collect::<Vec<_>>()),
    }
}
