//! Limits of a running process, set from outside as an operator's or a container's limits are.

use std::process::Command;

use crate::support::{Process, World};

/// Becomes the binary, for which a file that may not grow is an error and not its end.
const WITH_ERRORS_FOR_A_FULL_DISK: &str = "trap '' XFSZ; exec \"$0\" \"$@\"";

/// A process that is told when a file may not grow.
pub(crate) fn start_on_a_small_disk(world: &World, arguments: &[&str]) -> Process {
    let mut shell = Command::new("sh");
    shell.args(["-c", WITH_ERRORS_FOR_A_FULL_DISK, env!("CARGO_BIN_EXE_geminid")]);
    world.spawn(&mut shell, arguments, &[])
}

/// A limit by its name in `prlimit`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// The size that a file may grow to, in bytes.
    FileSize,
    /// Open descriptors.
    Descriptors,
}

/// Sets the soft limit of `process`; `None` lifts it again.
pub(crate) fn limit(process: &Process, what: Limit, most: Option<u64>) {
    let id = process.id().to_string();
    let name = match what {
        Limit::FileSize => "--fsize",
        Limit::Descriptors => "--nofile",
    };
    let hard = Command::new("prlimit").args(["--pid", &id, name, "--output=HARD", "--noheadings"]).output().unwrap();
    let hard = String::from_utf8(hard.stdout).unwrap().trim().to_owned();
    let soft = most.map_or(hard, |most| most.to_string());
    let set = Command::new("prlimit").args(["--pid", &id, &format!("{name}={soft}:")]).status().unwrap();
    assert!(set.success(), "the limit is set");
}
