//! `geminid validate`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::diagnostics::{self, Drawing, Format};
use super::output::{Output, counted};
use crate::manifest::Severity;
use crate::plan::Subtree;
use crate::source::{Loader, Snapshot};

/// Arguments of `validate`.
#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// Folder of manifests
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// How problems are written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Checks manifests offline: 0 when all are good, 1 when one is not.
pub(super) fn run(args: &ValidateArgs) -> anyhow::Result<u8> {
    let snapshot = Loader::new(args.folder.clone()).load()?;
    let problems = errors(&snapshot);
    let mut out = Output::stdout();
    match args.output {
        Format::Json => {
            out.line(&diagnostics::json(&snapshot.diagnostics, snapshot.files));
            return Ok(u8::from(problems > 0));
        }
        Format::Github => {
            snapshot.diagnostics.iter().for_each(|found| out.line(&diagnostics::github(found, &args.folder)));
        }
        Format::Text => {
            let last_key = |place: &Subtree| place.path.keys().last().cloned();
            let hidden = snapshot.state.sensitive.iter().filter_map(last_key).collect();
            let (mut drawing, mut err) = (Drawing::new(&args.folder, hidden), Output::stderr());
            for found in &snapshot.diagnostics {
                err.line(&found.to_string());
                if let Some(drawn) = drawing.draw(found) {
                    err.line(&drawn);
                }
            }
        }
    }
    let mut counts = vec![counted(snapshot.files, "file"), counted(snapshot.state.twins.len(), "twin")];
    if !snapshot.state.profiles.is_empty() {
        counts.push(counted(snapshot.state.profiles.len(), "profile"));
    }
    counts.push(counted(snapshot.queries.len(), "quer").replace("quers", "queries").replace("quer ", "query "));
    counts.push(counted(problems, "error"));
    out.line(&counts.join(", "));
    Ok(u8::from(problems > 0))
}

/// Loads a folder once and prints every problem; answers how many errors there are.
pub(super) fn load(folder: &Path) -> anyhow::Result<(Snapshot, usize)> {
    let snapshot = Loader::new(folder.to_path_buf()).load()?;
    let mut err = Output::stderr();
    snapshot.diagnostics.iter().for_each(|diagnostic| err.line(&diagnostic.to_string()));
    let problems = errors(&snapshot);
    Ok((snapshot, problems))
}

fn errors(snapshot: &Snapshot) -> usize {
    snapshot.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
}
