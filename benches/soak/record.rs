//! What was seen, over time.
//!
//! Invariant: every time is seconds of the run.

use std::collections::BTreeMap;

use crate::troubles::Trouble;

/// What one look at both processes gave; `None` where a process was not there to be looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// When.
    pub(crate) at: f64,
    /// Resident memory in megabytes: daemon, hub.
    pub(crate) resident_mb: [Option<f64>; 2],
    /// Open descriptors: daemon, hub.
    pub(crate) descriptors: [Option<f64>; 2],
    /// How many threads of the whole machine wanted a processor, on the average of a minute.
    pub(crate) machine_load: Option<f64>,
    /// Twins waiting in the queue that are due.
    pub(crate) queue: Option<f64>,
    /// Declared twins that the daemon does not know to be in sync.
    pub(crate) behind: Option<f64>,
}

/// A saved level that reached the hub.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    /// When it was saved.
    pub(crate) at: f64,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
    /// Whether something was wrong, or had just been, when it was saved.
    pub(crate) troubled: bool,
}

/// What a life of a process left behind.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said {
    /// Lines of standard error.
    pub(crate) lines: usize,
    /// Warnings and errors among them.
    pub(crate) complaints: usize,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Looks at the processes.
    pub(crate) samples: Vec<Sample>,
    /// Saved levels.
    pub(crate) latencies: Vec<Latency>,
    /// Troubles: from, to, what.
    pub(crate) troubles: Vec<(f64, f64, Trouble)>,
    /// When the quiet at the beginning ended, and the one at the end began.
    pub(crate) quiet: [f64; 2],
    /// How long it took until all twins were in sync after the last trouble.
    pub(crate) settled_s: f64,
    /// Requests of the daemon by operation and status, over all its lives.
    pub(crate) requests: BTreeMap<String, f64>,
    /// What daemon and hub said.
    pub(crate) said: [Said; 2],
    /// Lives of daemon and hub that ended by SIGKILL.
    pub(crate) killed: [usize; 2],
    /// Edits saved, writes of others acknowledged, levels whose way to the hub no line tells.
    pub(crate) edits: u64,
    /// Writes of others that the hub acknowledged.
    pub(crate) foreign: u64,
    /// Levels saved of which no line of the audit log tells: overtaken by the next, or the line died with its process.
    pub(crate) untold: usize,
    /// Connections of devices, and desired changes that they heard of.
    pub(crate) devices: [u64; 2],
    /// How many devices there were.
    pub(crate) device_count: usize,
    /// Lines of the audit log.
    pub(crate) audit_lines: u64,
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The value that so many percent do not exceed.
pub(crate) fn percentile(values: &mut [f64], percent: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get((values.len() * percent / 100).min(values.len().saturating_sub(1))).copied()
}

impl Record {
    /// The middle of what `of` is in the samples between `from` and `to`.
    pub(crate) fn level(&self, from: f64, to: f64, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let within = self.samples.iter().filter(|sample| (from..to).contains(&sample.at));
        median(within.filter_map(of).collect())
    }
}
