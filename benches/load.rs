//! Loading manifests, as ratios taken in one run: against the YAML crate alone, and of a reload against a full load.
//!
//! `cargo bench --bench load [COUNT...]` prints them for 1,000, 10,000 and 100,000 manifests of one device twin each,
//! a file each. `cargo bench --bench load fleet` prints the memory of a million twins in 10,000 files. Rounds are interleaved and their median counts, since the same program runs up to a third faster or
//! slower from one minute to the next.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and stops where it cannot go on")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::cast_precision_loss, reason = "ratios of small counts and times")]

mod machine;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use geminid::manifest::{LastGood, ParsedFile, lower, parse_file};
use geminid::source::{Hint, Loader};
use sha2::{Digest, Sha256};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const COUNTS: [usize; 3] = [1_000, 10_000, 100_000];
const ROUNDS: usize = 5;
/// Reloads of one nominated file whose median counts.
const RELOADS: usize = 21;
/// One file in so many changes with a flip.
const FLIP_STEP: usize = 100;
/// The argument that makes this program load a folder and print what memory that took.
const MEMORY: &str = "--memory-of";
/// The argument that asks for the memory of a whole fleet.
const FLEET: &str = "fleet";
/// The fleet of DESIGN section 7, and its targets in bytes.
const FLEET_FILES: usize = 10_000;
const FLEET_TWINS_A_FILE: usize = 100;
const FLEET_PROFILES: usize = 50;
const FLEET_LOADED_MAX: f64 = 500e6;
const FLEET_PEAK_MAX: f64 = 1e9;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [flag, folder] = arguments.as_slice()
        && flag == MEMORY
    {
        return memory_of(Path::new(folder));
    }
    let counts: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    println!("{}", machine::machine());
    if arguments.iter().any(|argument| argument == FLEET) {
        return fleet();
    }
    for count in if counts.is_empty() { COUNTS.to_vec() } else { counts } {
        println!("\n{count} manifests of {} bytes", manifest(0, 0).len());
        full_load_in_memory(count);
        let folder = tempfile::tempdir().unwrap();
        reload_of_one_file(count, &folder.path().join("plain"));
        memory(count, &folder.path().join("plain"));
        reload_after_a_flip(count, &folder.path().join("flips"));
    }
}

/// One device twin, 444 bytes or a few more: two values are its own, one of them inside desired.
fn manifest(index: usize, value: usize) -> String {
    format!(
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata:\n  name: device-{index:07}\n  labels:\n    \
         plant: redmond{}\n    line: assembly\nspec:\n  removalPolicy: orphan\n  tags:\n    location:\n      region: US\n      \
         plant: Redmond{}\n      hall: {}\n    serial: SN-{index:07}\n  properties:\n    desired:\n      power_level: {value}\n      \
         telemetry:\n        interval_s: 60\n        channels: [temperature, humidity, vibration]\n      \
         firmware: {{track: stable, window: \"02:00-04:00\"}}\n",
        index % 50,
        index % 50,
        index % 7,
    )
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// The same in the time this thread was at work, whatever else the machine does meanwhile.
fn worked<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let at_work = || {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    let start = at_work();
    let result = work();
    (at_work().saturating_sub(start), result)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// One thread and its own time, text in memory: parse and lower, against the YAML crate parsing the same texts to its own values.
fn full_load_in_memory(count: usize) {
    let names: Vec<String> = (0..count).map(|index| format!("{index}.yaml")).collect();
    let texts: Vec<String> = (0..count).map(|index| manifest(index, 1)).collect();
    let (mut ratios, mut ours_ms, mut theirs_ms) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (theirs, values) = worked(|| {
            let parse = |text: &String| serde_yaml::from_str::<serde_yaml::Value>(text).unwrap();
            texts.iter().map(parse).collect::<Vec<_>>()
        });
        drop(values);
        let (ours, lowered) = worked(|| {
            let parse = |(name, text): (&String, &String)| (Arc::from(name.as_str()), Arc::new(parse_file(name, text)));
            let files: BTreeMap<Arc<str>, Arc<ParsedFile>> = names.iter().zip(&texts).map(parse).collect();
            let lowered = lower(&files, &LastGood::default());
            (files, lowered)
        });
        assert_eq!((lowered.1.state.twins.len(), lowered.1.diagnostics.len()), (count, 0));
        ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
        ours_ms.push(milliseconds(ours));
        theirs_ms.push(milliseconds(theirs));
    }
    let (ours, theirs) = (median(ours_ms), median(theirs_ms));
    println!("  load, text in memory, one thread   {ours:9.1} ms   YAML crate alone {theirs:9.1} ms");
    println!("    ratio {:.2} (target <= 1.60; rounds {ratios:.2?})", median(ratios.clone()));
}

/// Fills `folder` with a file a twin, 100 files a folder.
fn write_tree(folder: &Path, count: usize, value: impl Fn(usize) -> usize) {
    for index in 0..count {
        let path = folder.join(place(index));
        if index % 100 == 0 {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::write(path, manifest(index, value(index))).unwrap();
    }
}

fn place(index: usize) -> String {
    format!("group-{:04}/{index}.yaml", index / 100)
}

fn reload_of_one_file(count: usize, folder: &Path) {
    write_tree(folder, count, |_| 1);
    let (mut loader, mut full, mut polls) = (None, Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut fresh = Loader::new(folder.to_owned());
        full.push(milliseconds(timed(|| fresh.load().unwrap()).0));
        polls.push(milliseconds(timed(|| fresh.load().unwrap()).0));
        loader = Some(fresh);
    }
    let mut loader = loader.unwrap();
    let mut reloads = Vec::new();
    for round in 0..RELOADS {
        let index = round * 7919 % count;
        let path = folder.join(place(index));
        fs::write(&path, manifest(index, 2 + round)).unwrap();
        let hint = Hint::Entries([path].into());
        let (time, snapshot) = timed(|| loader.reload(&hint).unwrap());
        assert_eq!(snapshot.files, count);
        reloads.push(milliseconds(time));
    }
    let (full, poll, reload) = (median(full), median(polls), median(reloads));
    println!("  load of a folder                   {full:9.1} ms   again, nothing changed {poll:9.1} ms");
    println!("  reload of one nominated file       {reload:9.2} ms");
    println!("    ratio {:.2} % (target < 1 %)", 100.0 * reload / full);
}

/// What a loader must do at least after a flip: read and hash everything, and parse what changed.
fn least(folder: &Path, hashes: &mut BTreeMap<PathBuf, [u8; 32]>) -> usize {
    let mut parsed = 0;
    for group in fs::read_dir(folder).unwrap() {
        for entry in fs::read_dir(group.unwrap().path()).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let hash: [u8; 32] = Sha256::digest(&text).into();
            let name = path.strip_prefix(folder).unwrap().to_owned();
            if hashes.insert(name, hash) != Some(hash) {
                parsed += usize::from(parse_file("a.yaml", &text).diagnostics().is_empty());
            }
        }
    }
    parsed
}

fn reload_after_a_flip(count: usize, folder: &Path) {
    write_tree(&folder.join("a"), count, |_| 1);
    write_tree(&folder.join("b"), count, |index| 1 + usize::from(index % FLIP_STEP == 0));
    let flip = |target: &str| {
        symlink(target, folder.join("new")).unwrap();
        fs::rename(folder.join("new"), folder.join("current")).unwrap();
    };
    flip("a");
    let mut loader = Loader::new(folder.join("current"));
    loader.load().unwrap();
    let mut hashes = BTreeMap::new();
    least(&folder.join("a"), &mut hashes);
    let (mut ratios, mut ours_ms, mut least_ms) = (Vec::new(), Vec::new(), Vec::new());
    for target in ["b", "a", "b", "a", "b"] {
        flip(target);
        let (baseline, parsed) = timed(|| least(&folder.join(target), &mut hashes));
        assert_eq!(parsed, count.div_ceil(FLIP_STEP));
        let (ours, snapshot) = timed(|| loader.load().unwrap());
        assert_eq!(snapshot.revision.split('+').next(), Some(target));
        ratios.push(ours.as_secs_f64() / baseline.as_secs_f64());
        ours_ms.push(milliseconds(ours));
        least_ms.push(milliseconds(baseline));
    }
    let (ours, baseline) = (median(ours_ms), median(least_ms));
    println!("  load after a flip, 1 % changed     {ours:9.1} ms   read + hash + parse of those {baseline:9.1} ms");
    println!("    ratio {:.2} (target <= 1.30; rounds {ratios:.2?})", median(ratios.clone()));
}

/// A million twins in 10,000 files: three leaves of their own, one of them inside desired, and one profile each.
fn fleet() {
    let folder = tempfile::tempdir().unwrap();
    let profile = |index: usize| {
        format!(
            "apiVersion: geminid.dev/v1alpha1\nkind: TwinProfile\nmetadata: {{name: plant-{index}}}\nspec:\n  selector:\n    \
             matchLabels: {{plant: redmond{index}}}\n  properties: {{desired: {{telemetry: {{interval_s: 60}}}}}}\n---\n"
        )
    };
    fs::write(folder.path().join("profiles.yaml"), (0..FLEET_PROFILES).map(profile).collect::<String>()).unwrap();
    for file in 0..FLEET_FILES {
        let twin = |index: usize| {
            let number = file * FLEET_TWINS_A_FILE + index;
            format!(
                "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata:\n  name: device-{number:07}\n  labels: {{plant: redmond{}}}\n\
                 spec:\n  tags:\n    location: {{plant: Redmond{}}}\n    serial: SN-{number:07}\n  properties:\n    desired:\n      \
                 power_level: {}\n---\n",
                number % FLEET_PROFILES,
                number % FLEET_PROFILES,
                number % 9
            )
        };
        let group = folder.path().join(format!("group-{:03}", file / 100));
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join(format!("{file:05}.yaml")), (0..FLEET_TWINS_A_FILE).map(twin).collect::<String>())
            .unwrap();
    }
    let count = FLEET_FILES * FLEET_TWINS_A_FILE;
    let [before, after, peak] = resident(folder.path());
    println!("\n{count} twins in {FLEET_FILES} files, {FLEET_PROFILES} profiles");
    for (what, bytes, target) in [("after load", after, FLEET_LOADED_MAX), ("at the peak", peak, FLEET_PEAK_MAX)] {
        let per_twin = (bytes - before) / count as f64;
        println!(
            "  resident {what:12} {:6.0} MB   target < {:5.0} MB   {per_twin:5.0} B a twin",
            bytes / 1e6,
            target / 1e6
        );
    }
}

/// What is resident before and after a load of `folder`, and at its peak, in bytes. A process of its own loads, so that
/// nothing else is in the figure.
fn resident(folder: &Path) -> [f64; 3] {
    let output = Command::new(std::env::current_exe().unwrap()).arg(MEMORY).arg(folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<f64> = text.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
    figures.try_into().unwrap_or_else(|_| panic!("three figures: {text}"))
}

fn memory(count: usize, folder: &Path) {
    let [before, after, peak] = resident(folder);
    let per_twin = |bytes: f64| (bytes - before) / count as f64;
    println!(
        "  memory per twin                    {:9.0} B    at the peak {:9.0} B (resident, by the kernel)",
        per_twin(after),
        per_twin(peak)
    );
}

/// Prints what is resident before and after a load, and at its peak, in bytes.
fn memory_of(folder: &Path) {
    let field = |name: &str| -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    let before = field("VmRSS");
    let mut loader = Loader::new(folder.to_owned());
    let snapshot = loader.load().unwrap();
    println!("{before} {} {}", field("VmRSS"), field("VmHWM"));
    assert!(snapshot.files > 0);
    drop(loader);
}
