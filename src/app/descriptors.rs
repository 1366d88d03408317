//! How many files and connections the system lets this process have open.
//!
//! Invariant: the limit is only ever raised, and never above what the system allows this user.

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that a process needs beside its connections.
const OWN_FILES: u64 = 64;

/// Lets this process have `connections` open.
///
/// # Errors
/// When the system allows fewer.
pub fn allow_connections(connections: u64) -> anyhow::Result<()> {
    let wanted = connections.saturating_add(OWN_FILES);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if let Some(most) = maximum.filter(|most| *most < wanted) {
        bail!(
            "{connections} connections need {wanted} open files, and this process may have {most}; raise `ulimit -n`"
        );
    }
    let raised = Rlimit { current: Some(wanted), maximum };
    setrlimit(Resource::Nofile, raised).context("cannot raise the number of open files; try `ulimit -n`")
}
