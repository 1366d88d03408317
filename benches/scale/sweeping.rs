//! Load and sweeps in process, beside typed parsing of the same bodies.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use geminid::controller;
use geminid::hub::PAGE_SIZE_MAX;
use geminid::metrics::Metrics;
use geminid::plan::DeclaredState;
use prometheus::Registry;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::memory_hub::{MemoryHub, write_bodies};
use super::{fleet, measure};

/// The argument of the process that loads and sweeps.
pub(crate) const CHILD: &str = "--sweep-in-process";
/// Sweeps whose median counts, after the first one.
const SWEEPS: usize = 5;
/// DESIGN section 7.
const LOADED_MAX: f64 = 500e6;
const PEAK_MAX: f64 = 1e9;
const CPU_RATIO_MAX: f64 = 2.0;
/// The fleet for which the targets are.
const TARGET_COUNT: usize = 1_000_000;
/// What grows by no more than this, twin for twin, from one size to the next counts as linear.
const LINEAR: f64 = 1.25;

/// A row, typed as anybody would.
#[derive(Deserialize)]
struct Row {
    d: String,
    t: String,
    y: Option<String>,
    h: Option<String>,
    e: Option<String>,
    i: Option<String>,
}

/// The same without a copy of any text.
#[derive(Deserialize)]
struct BorrowedRow<'a> {
    d: &'a str,
    t: &'a str,
    y: Option<&'a str>,
    h: Option<&'a str>,
    e: Option<&'a str>,
    i: Option<&'a str>,
}

/// Figures of one fleet, in seconds and bytes.
struct Figures {
    count: usize,
    load: f64,
    base: f64,
    loaded: f64,
    peak: f64,
    first: f64,
    sweep: f64,
    sweep_wall: f64,
    shuffled: f64,
    typed: f64,
    borrowed: f64,
    pages: f64,
    reads: f64,
}

/// Measures fleets of these sizes and prints what they cost.
pub(crate) fn sizes(counts: &[usize]) {
    let mut all = Vec::new();
    for count in counts {
        let folder = tempfile::tempdir().unwrap();
        fleet::write(&folder.path().join("fleet"), *count);
        let text = count.to_string();
        let [load, base, loaded, peak, first, sweep, sweep_wall, shuffled, typed, borrowed, pages, reads] =
            measure::figures(&[CHILD, &text], Some(folder.path()));
        let figures = Figures {
            count: *count,
            load,
            base,
            loaded,
            peak,
            first,
            sweep,
            sweep_wall,
            shuffled,
            typed,
            borrowed,
            pages,
            reads,
        };
        print(&figures);
        all.push(figures);
    }
    growth(&all);
}

fn print(it: &Figures) {
    let count = it.count as f64;
    println!("\n{} twins in {} files, in process", it.count, it.count.div_ceil(100));
    println!("  load {:8.2} s CPU", it.load);
    for (what, bytes, target) in [("after load", it.loaded, LOADED_MAX), ("at the peak", it.peak, PEAK_MAX)] {
        let per_twin = (bytes - it.base) / count;
        let verdict = if it.count == TARGET_COUNT { measure::judged(bytes, target) } else { String::new() };
        println!("  resident {what:12} {:6.0} MB   {per_twin:5.0} B a twin   {verdict}", bytes / 1e6);
    }
    let least = count / PAGE_SIZE_MAX as f64;
    println!("  requests of a sweep {:.0} (pages {least:.0}, one more to count), GETs {:.0}", it.pages, it.reads);
    println!(
        "  typed serde_json of the same bodies {:8.3} s CPU ({:.3} s without copying texts)",
        it.typed, it.borrowed
    );
    for (what, cpu) in [
        ("sweep", it.sweep),
        ("sweep, rows in no order", it.shuffled),
        ("first sweep after load, which hashes all", it.first),
    ] {
        let ratio = cpu / it.typed;
        println!("  {what:<42} {cpu:8.3} s CPU   ratio {ratio:5.2}   {}", measure::judged(ratio, CPU_RATIO_MAX));
    }
    println!("  sweep, wall clock {:.3} s", it.sweep_wall);
}

/// What each size costs a twin, beside the size before.
fn growth(all: &[Figures]) {
    println!("\ngrowth, a twin's cost beside that of the size before (linear: at most {LINEAR})");
    for pair in all.windows(2) {
        let [one, two] = pair else { continue };
        let grown = |of: fn(&Figures) -> f64| (of(two) / two.count as f64) / (of(one) / one.count as f64);
        let (load, sweep, memory) = (grown(|it| it.load), grown(|it| it.sweep), grown(|it| it.loaded - it.base));
        let worst = load.max(sweep).max(memory);
        let verdict = measure::judged(worst, LINEAR);
        println!(
            "  {:>9} -> {:>9}   load {load:.2}   sweep CPU {sweep:.2}   memory {memory:.2}   {verdict}",
            one.count, two.count
        );
    }
}

/// Loads the folder, sweeps, and prints the figures in the order of [`Figures`].
pub(crate) fn child(folder: &Path, count: usize) {
    let base = measure::resident();
    let state = fleet::load(&folder.join("fleet"), count);
    let load = measure::cpu();
    let loaded = measure::resident();
    let scope = fleet::scope(fleet::HUB);
    let in_order: Vec<usize> = (0..count).collect();
    let (ordered, shuffled) = (folder.join("ordered"), folder.join("shuffled"));
    let ends = write_bodies(&ordered, &state, &scope, &in_order);
    let sweeps = |path: &Path, ends: Vec<u64>| {
        let (hub, marks) = MemoryHub::new(path, ends);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(sweep(hub, marks, Arc::clone(&state)))
    };
    let swept = sweeps(&ordered, ends.clone());
    let peak = measure::peak();
    let mut order = in_order;
    fastrand::Rng::with_seed(7).shuffle(&mut order);
    let shuffled_ends = write_bodies(&shuffled, &state, &scope, &order);
    let unordered = sweeps(&shuffled, shuffled_ends);
    let (typed, borrowed) = typed(&MemoryHub::new(&ordered, ends).0);
    let figures = [
        load.as_secs_f64(),
        base as f64,
        loaded as f64,
        peak as f64,
        swept.first.as_secs_f64(),
        swept.later.as_secs_f64(),
        swept.wall.as_secs_f64(),
        unordered.later.as_secs_f64(),
        typed.as_secs_f64(),
        borrowed.as_secs_f64(),
        swept.pages as f64,
        swept.reads as f64,
    ];
    println!("{}", figures.map(|figure| figure.to_string()).join(" "));
}

/// What sweeps took.
struct Sweeps {
    /// CPU of the first.
    first: Duration,
    /// CPU of a later one: the median.
    later: Duration,
    /// Its wall clock, to the end of the pause before the next one.
    wall: Duration,
    /// Requests of it, the count of the devices among them.
    pages: usize,
    /// GETs of all.
    reads: usize,
}

/// Runs the real loop until it has swept some times. All its work is this thread's, from the first page of one sweep to
/// the first of the next.
async fn sweep(
    hub: MemoryHub,
    mut marks: tokio::sync::mpsc::UnboundedReceiver<super::memory_hub::Mark>,
    state: Arc<DeclaredState>,
) -> Sweeps {
    const PAUSE: Duration = Duration::from_millis(10);
    let metrics = Metrics::register(&Registry::new(), &[fleet::HUB]).unwrap();
    let (_sender, receiver) = watch::channel(state);
    let cancel = CancellationToken::new();
    let options = fleet::options(fleet::HUB, PAUSE);
    let mut task = JoinSet::new();
    let (handle, rng) = (metrics.controller.hub(fleet::HUB), fastrand::Rng::with_seed(1));
    task.spawn(controller::run(options, hub, receiver, handle, cancel.clone(), rng));
    let mut seen = Vec::new();
    while seen.len() < SWEEPS + 2 {
        seen.push(marks.recv().await.unwrap());
    }
    cancel.cancel();
    while task.join_next().await.is_some() {}
    let cpu: Vec<Duration> = seen.windows(2).map(|pair| pair[1].cpu - pair[0].cpu).collect();
    let mut later: Vec<(Duration, Duration)> =
        seen.windows(2).zip(&cpu).skip(1).map(|(pair, cpu)| (*cpu, pair[1].at - pair[0].at - PAUSE)).collect();
    later.sort_unstable();
    let (middle, wall) = later[later.len() / 2];
    let last = seen[seen.len() - 1];
    let pages = last.pages - seen[seen.len() - 2].pages;
    Sweeps { first: cpu[0], later: middle, wall, pages, reads: last.reads }
}

/// CPU of parsing all bodies into typed rows, with and without copies of their texts: medians.
fn typed(hub: &MemoryHub) -> (Duration, Duration) {
    /// Pages that are parsed between two looks at the clock.
    const BLOCK: usize = 100;
    let (mut owned, mut borrowed) = (Vec::new(), Vec::new());
    for _ in 0..SWEEPS {
        let (mut owned_time, mut borrowed_time, mut sum) = (Duration::ZERO, Duration::ZERO, 0);
        for first in (0..hub.pages()).step_by(BLOCK) {
            let bodies: Vec<Vec<u8>> = (first..hub.pages().min(first + BLOCK)).map(|index| hub.body(index)).collect();
            let before = measure::thread_cpu();
            for body in &bodies {
                let rows: Vec<Row> = serde_json::from_slice(body).unwrap();
                sum += rows.iter().map(owned_size).sum::<usize>();
            }
            let between = measure::thread_cpu();
            for body in &bodies {
                let rows: Vec<BorrowedRow<'_>> = serde_json::from_slice(body).unwrap();
                sum += rows.iter().map(borrowed_size).sum::<usize>();
            }
            borrowed_time += measure::thread_cpu() - between;
            owned_time += between - before;
        }
        assert!(std::hint::black_box(sum) > 0);
        owned.push(owned_time);
        borrowed.push(borrowed_time);
    }
    owned.sort_unstable();
    borrowed.sort_unstable();
    (owned[SWEEPS / 2], borrowed[SWEEPS / 2])
}

fn owned_size(row: &Row) -> usize {
    let optional = [&row.y, &row.h, &row.e, &row.i].map(|text| text.as_ref().map_or(0, String::len));
    row.d.len() + row.t.len() + optional.iter().sum::<usize>()
}

fn borrowed_size(row: &BorrowedRow<'_>) -> usize {
    let optional = [row.y, row.h, row.e, row.i].map(|text| text.map_or(0, str::len));
    row.d.len() + row.t.len() + optional.iter().sum::<usize>()
}
