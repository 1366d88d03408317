//! The account in the end: is everything as declared, was nothing written that is not ours, and did nothing grow?

use std::time::Duration;

use crate::fleet::Others;
use crate::lives::{SWEEP, series};
use crate::record::{Record, Sample};
use crate::stage::{SYNC_TIME_MAX, Stage};
use crate::support::service_writes;

/// Memory may be so many times what it was after the warm-up, and so many megabytes more.
const RESIDENT_RATIO_MAX: f64 = 1.5;
const RESIDENT_SLACK_MB: f64 = 48.0;
/// Descriptors may be so many more: connections of devices and of questions come and go.
const DESCRIPTORS_SLACK: f64 = 24.0;
/// Lines of the audit log that may die with a process that is killed: writes under way and lines not yet in the file.
const LINES_LOST_A_KILL: u64 = 64;
/// Warnings and errors that one trouble may bring, each process; and those of starts and ends.
const COMPLAINTS_A_TROUBLE: usize = 40;
const COMPLAINTS_BASE: usize = 20;
/// Lines beside those of writes: an edit is said once and loaded once, a sweep begins, goes on and ends.
const LINES_AN_EDIT: u64 = 2;
const LINES_A_SWEEP: u64 = 4;
/// How many wrong twins are named.
const WRONG_MAX: usize = 5;

/// What is wrong, and what was measured on the way to saying so.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Reasons to fail.
    pub(crate) wrong: Vec<String>,
    /// Service writes of all twins, by their etags.
    pub(crate) writes: u64,
    /// Of these, how many no line of the audit log and no other writer accounts for, at most.
    pub(crate) unaccounted: u64,
    /// Memory in megabytes after the warm-up and in the end: daemon, hub.
    pub(crate) resident_mb: [[f64; 2]; 2],
    /// Descriptors likewise.
    pub(crate) descriptors: [[f64; 2]; 2],
}

/// Waits until all is as declared, and judges twins, writes and metrics while both processes run.
pub(crate) async fn pass(stage: &Stage) -> Verdict {
    let mut verdict = Verdict::default();
    let begun = stage.now();
    let mut wrong = Vec::new();
    while stage.now() - begun < SYNC_TIME_MAX.as_secs_f64() {
        wrong = wrong_twins(stage).await;
        if wrong.is_empty() {
            wrong = wrong_metrics(stage).await;
        }
        if wrong.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stage.record.borrow_mut().settled_s = stage.now() - begun;
    verdict.wrong.extend(wrong);
    let (code, out, err) = stage.world.run(&["plan", "--settings", "settings.toml"]).await;
    if code != 0 {
        verdict.wrong.push(format!("plan ends with {code}, where nothing is to be done: {out}{err}"));
    }
    stage.read_account();
    count_writes(stage, &mut verdict).await;
    verdict
}

/// Judges what was seen over time, and ends both processes.
pub(crate) async fn end(stage: &Stage, verdict: &mut Verdict) {
    for (which, process) in [&stage.daemon, &stage.hub].into_iter().enumerate() {
        let process = process.borrow_mut().take().unwrap();
        stage.end_life(which, process, false).await;
    }
    verdict.wrong.append(&mut stage.wrong.borrow_mut());
    verdict.wrong.append(&mut stage.account.borrow_mut().wrong);
    let record = stage.record.borrow();
    growth(&record, stage.wish.time.as_secs_f64(), verdict);
    // Each leaf that is written is said once, and each write once; all the rest comes with edits and with time.
    let account = stage.account.borrow();
    let sweeps = stage.wish.time.as_secs() / SWEEP.as_secs();
    let edits = stage.fleet.borrow().edits;
    let lines_of_work = account.leaves + account.lines + LINES_AN_EDIT * edits + LINES_A_SWEEP * sweeps;
    for (name, said) in ["daemon", "hub"].into_iter().zip(record.said) {
        let complaints_max = COMPLAINTS_BASE + COMPLAINTS_A_TROUBLE * record.troubles.len();
        if said.complaints > complaints_max {
            verdict.wrong.push(format!("the {name} complained {} times, not {complaints_max}", said.complaints));
        }
        let lines_max = complaints_max as u64 + lines_of_work;
        if said.lines as u64 > lines_max {
            verdict.wrong.push(format!("the {name} wrote {} lines, not {lines_max}", said.lines));
        }
    }
}

async fn wrong_twins(stage: &Stage) -> Vec<String> {
    let names: Vec<String> = stage.fleet.borrow().names().collect();
    let mut wrong = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let Some(twin) = stage.twin(name).await else {
            wrong.push(format!("{name}: the hub does not answer"));
            continue;
        };
        wrong.extend(stage.fleet.borrow().wrong(index, &twin));
        if wrong.len() >= WRONG_MAX {
            break;
        }
    }
    wrong
}

/// What the daemon says of itself must be what the hub says.
async fn wrong_metrics(stage: &Stage) -> Vec<String> {
    let Some(metrics) = stage.addresses.metrics().await else {
        return vec!["the daemon does not answer".to_owned()];
    };
    let mut wrong = Vec::new();
    let declared = stage.fleet.borrow().declared() as f64;
    for (labels, value) in series(&metrics, "geminid_twins") {
        let expected = if labels.contains(r#"state="in_sync""#) { declared } else { 0.0 };
        if value != expected {
            wrong.push(format!("geminid_twins{{{labels}}} is {value}, not {expected}"));
        }
    }
    for (plant, count) in stage.fleet.borrow().by_plant() {
        let label = format!("plant=\"{plant}\"");
        let seen = series(&metrics, "twinquery_soak_plant_devices").find(|(labels, _)| labels.contains(&label));
        if seen.is_none_or(|(_, value)| value != count as f64) {
            wrong.push(format!("the query counts {seen:?} twins of {plant}, not {count}"));
        }
    }
    wrong
}

/// Each service write raises a twin's etag by one, so it tells how many there were (`iot-hub.md` 1.4).
async fn count_writes(stage: &Stage, verdict: &mut Verdict) {
    let others: Vec<(String, Others)> = {
        let fleet = stage.fleet.borrow();
        fleet.names().zip(fleet.others().cloned()).collect()
    };
    for (name, others) in others {
        let Some(twin) = stage.twin(&name).await else { continue };
        let writes = service_writes(&twin.etag);
        verdict.writes += writes;
        let account = stage.account.borrow();
        let ours = account.writes.get(&name);
        let sure = ours.map_or(0, |ours| ours.sure.len() as u64) + others.acknowledged;
        let possible = ours.map_or(0, |ours| ours.possible.len() as u64) + others.tried;
        if writes < sure && verdict.wrong.len() < WRONG_MAX {
            verdict.wrong.push(format!("{name} was written {writes} times, and {sure} writes were acknowledged"));
        }
        verdict.unaccounted += writes.saturating_sub(possible);
    }
    let kills = stage.record.borrow().killed[0] as u64;
    let most = kills * LINES_LOST_A_KILL;
    if verdict.unaccounted > most {
        let count = verdict.unaccounted;
        verdict.wrong.push(format!("{count} writes stand in no line, and {kills} kills explain {most}"));
    }
}

/// Memory and descriptors in the end against those after the warm-up.
fn growth(record: &Record, time: f64, verdict: &mut Verdict) {
    let [warm, calm] = record.quiet;
    let level = |of: &dyn Fn(&Sample) -> Option<f64>| {
        let before = record.level(warm / 2.0, warm, of).unwrap_or_default();
        [before, record.level(calm + (time - calm) / 2.0, f64::INFINITY, of).unwrap_or_default()]
    };
    for (which, name) in ["daemon", "hub"].into_iter().enumerate() {
        let resident = level(&|sample| sample.resident_mb[which]);
        let descriptors = level(&|sample| sample.descriptors[which]);
        verdict.resident_mb[which] = resident;
        verdict.descriptors[which] = descriptors;
        if resident[1] > resident[0] * RESIDENT_RATIO_MAX + RESIDENT_SLACK_MB || resident[1] == 0.0 {
            verdict
                .wrong
                .push(format!("memory of the {name} in megabytes, after the warm-up and in the end: {resident:?}"));
        }
        if descriptors[1] > descriptors[0] + DESCRIPTORS_SLACK {
            verdict.wrong.push(format!("descriptors of the {name}, after the warm-up and in the end: {descriptors:?}"));
        }
    }
}
