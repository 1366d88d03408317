//! What every benchmark says of where its figures come from.

use std::fs;
use std::process::Command;

/// The commit, and the machine's processors.
pub(crate) fn machine() -> String {
    let read = |command: &mut Command| {
        command.output().map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().into())
    };
    let commit: String =
        read(Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(["describe", "--always", "--dirty"]));
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("commit {commit}, {threads} x {}", model.trim_start_matches(['\t', ' ', ':']))
}
