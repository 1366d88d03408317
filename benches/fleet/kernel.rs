//! What the kernel says of a process, by `/proc`.
//!
//! Invariant: nothing here waits for a process or ends it; of one that is gone there are no figures.

use std::fs;

/// Ticks of the kernel's clock a second, the same on every Linux.
const TICKS: f64 = 100.0;

/// CPU time so far, all threads, in seconds; also of a process that ended and that nobody has waited for.
pub(crate) fn cpu_s(process: u32) -> Option<f64> {
    let fields = stat(process)?;
    // The 14th and the 15th field of all; the name, which is the second, and what is before it are cut off.
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

/// Whether it ended and waits for its parent to ask.
pub(crate) fn has_ended(process: u32) -> bool {
    stat(process).is_none_or(|fields| fields.first().is_none_or(|state| state == "Z" || state == "X"))
}

/// The most that was resident so far, in bytes.
pub(crate) fn peak_bytes(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// How many processes wanted a processor over the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|figure| figure.parse().ok()).unwrap_or(f64::NAN)
}

fn stat(process: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}
