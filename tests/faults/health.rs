//! How a process does: memory, descriptors, and what it complained of.
//!
//! Invariant: everything is read from the system, nothing is asked of the process itself.

use std::fs;

use crate::support::{Process, eventually};

/// Descriptors that may come and go by themselves: connections of the test's own questions.
const DESCRIPTORS_SLACK: usize = 8;
/// Memory that an allocator keeps for the next time, in kilobytes.
const RESIDENT_SLACK_KB: u64 = 48 * 1024;

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footprint {
    /// Resident memory in kilobytes.
    pub(crate) resident_kb: u64,
    /// Open descriptors.
    pub(crate) descriptors: usize,
}

impl Footprint {
    /// What `process` holds now.
    pub(crate) fn of(process: &Process) -> Self {
        let id = process.id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident_kb = line.split_whitespace().next().unwrap().parse().unwrap();
        Self { resident_kb, descriptors: fs::read_dir(format!("/proc/{id}/fd")).unwrap().count() }
    }

    /// Waits until `process` holds no more than it did, by its connections to others `connections` more.
    pub(crate) async fn assert_back(self, process: &Process, connections: usize) {
        let descriptors_max = self.descriptors + connections + DESCRIPTORS_SLACK;
        let resident_max = self.resident_kb + RESIDENT_SLACK_KB;
        let is_back = async || {
            let now = Self::of(process);
            (now.descriptors <= descriptors_max && now.resident_kb <= resident_max).then_some(())
        };
        let back = eventually(is_back).await;
        assert!(back.is_some(), "{:?} after {self:?}\n{}", Self::of(process), process.stderr());
    }
}

/// What a process complained of: warnings and errors.
pub(crate) fn complaints(process: &Process) -> Vec<String> {
    let is_one = |line: &&str| line.contains(" ERROR ") || line.contains(" WARN ");
    process.stderr().lines().filter(is_one).map(str::to_owned).collect()
}

/// That the complaints since `before` are at most `most`.
pub(crate) fn assert_few_complaints(process: &Process, before: usize, most: usize) {
    let all = complaints(process);
    assert!(all.len() - before <= most, "{} complaints, not {most}: {:#?}", all.len() - before, &all[before..]);
}

/// That no complaint since `before` was made twice.
pub(crate) fn assert_said_once(process: &Process, before: usize) {
    let all = complaints(process);
    let without_time = |line: &str| line.split_once(' ').map(|(_, text)| text.to_owned()).unwrap_or_default();
    let mut texts: Vec<String> = all[before..].iter().map(|line| without_time(line)).collect();
    texts.sort();
    let twice: Vec<&[String]> = texts.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "said twice: {twice:#?}");
}
