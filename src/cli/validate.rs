//! `geminid validate`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{Output, counted};
use crate::manifest::Severity;
use crate::source::{Loader, Snapshot};

/// Arguments of `validate`.
#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// Folder of manifests
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Checks manifests offline: 0 when all are good, 1 when one is not.
pub(super) fn run(args: &ValidateArgs) -> anyhow::Result<u8> {
    let (snapshot, problems) = load(&args.folder)?;
    let mut counts = vec![counted(snapshot.files, "file"), counted(snapshot.state.twins.len(), "twin")];
    if !snapshot.state.profiles.is_empty() {
        counts.push(counted(snapshot.state.profiles.len(), "profile"));
    }
    counts.push(counted(snapshot.queries.len(), "quer").replace("quers", "queries").replace("quer ", "query "));
    counts.push(counted(problems, "error"));
    Output::stdout().line(&counts.join(", "));
    Ok(u8::from(problems > 0))
}

/// Loads a folder once and prints every problem; answers how many errors there are.
pub(super) fn load(folder: &Path) -> anyhow::Result<(Snapshot, usize)> {
    let snapshot = Loader::new(folder.to_path_buf()).load()?;
    let mut err = Output::stderr();
    snapshot.diagnostics.iter().for_each(|diagnostic| err.line(&diagnostic.to_string()));
    let problems = snapshot.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    Ok((snapshot, problems))
}
