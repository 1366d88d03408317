//! What the kernel says of this process, and how it is told from one to the other.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// CPU time of the whole process so far, threads that ended included.
pub(crate) fn cpu() -> Duration {
    /// Ticks of the kernel's clock a second, the same on every Linux.
    const TICKS: u64 = 100;
    let text = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// CPU time of this thread so far, to the nanosecond.
pub(crate) fn thread_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// What is resident now, in bytes.
pub(crate) fn resident() -> u64 {
    status("VmRSS")
}

/// The most that was ever resident, in bytes.
pub(crate) fn peak() -> u64 {
    status("VmHWM")
}

fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Runs this program with these arguments and gives the figures that it prints, one a word.
pub(crate) fn figures<const N: usize>(arguments: &[&str], folder: Option<&Path>) -> [f64; N] {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(arguments[0]).args(folder).args(&arguments[1..]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<f64> = text.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    figures.try_into().unwrap_or_else(|_| panic!("{N} figures: {text} {errors}"))
}

/// Says whether a figure holds its target, or by how much it does not.
pub(crate) fn judged(figure: f64, target: f64) -> String {
    if figure <= target { "met".to_owned() } else { format!("MISSED by {:.0} %", (figure / target - 1.0) * 100.0) }
}
