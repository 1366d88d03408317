//! What verbs that write by themselves have in common: `apply`, of manifests or of a kept plan, `adopt` and `release`.
//!
//! Invariant: nothing is written while a suspension or the mode says so, and what was asked and not confirmed is not
//! done.

use std::io::IsTerminal as _;

use anyhow::{Context as _, bail};
use clap::Args;

use super::args::Opened;
use super::output::Output;
use crate::app::Progress;
use crate::controller::{AuditTarget, Written};
use crate::plan::{Mode, Policy};
use crate::settings::parse_audit_log;

/// Where writes are told of.
#[derive(Debug, Args)]
pub(super) struct WritingArgs {
    /// Where to record every write, one JSON line each: stdout or a file [default: that of the settings, or nowhere]
    #[arg(long, value_name = "FILE")]
    audit_log: Option<String>,
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// For people: what was not done or is not in sync, and counts
    #[default]
    Text,
    /// One JSON document with every twin
    Json,
}

impl WritingArgs {
    /// Refuses a place that is none, before anything else is done.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.given().map(drop)
    }

    /// Where the writes are recorded.
    pub(super) fn audit(&self, opened: &Opened) -> anyhow::Result<Option<AuditTarget>> {
        let text = self.given()?.or_else(|| opened.settings.audit_log.clone());
        Ok(text.map(|text| AuditTarget::parse(&text)))
    }

    fn given(&self) -> anyhow::Result<Option<String>> {
        Ok(self.audit_log.clone().map(|text| parse_audit_log("--audit-log", text)).transpose()?)
    }
}

/// Where long work is shown; audit lines on the same terminal would run through a bar.
pub(super) fn progress(opened: &Opened, audit: Option<&AuditTarget>) -> Progress {
    let crowded = audit == Some(&AuditTarget::Stdout) && std::io::stdout().is_terminal();
    if crowded { Progress::hidden() } else { opened.progress.clone() }
}

/// Whether `rules` let anybody write at all.
pub(super) fn check_writable(rules: &Policy) -> anyhow::Result<()> {
    if let Some(reason) = &rules.suspend {
        bail!("the hub is suspended by {reason}; nothing was written");
    }
    if rules.mode == Mode::Observe {
        bail!("mode observe writes nothing; set another mode first");
    }
    Ok(())
}

/// Whether the person at the terminal says yes to what `question` tells.
pub(super) fn confirmed(question: &str) -> anyhow::Result<bool> {
    Output::stderr().line(&format!("{question}. Go on? [y/N]"));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer; say --yes to go on without one")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// How a write ended, as a sentence. `moved` says since when somebody else was faster and what to do then, `again` what
/// to do where it may succeed later.
pub(super) fn sentence(written: &Written, moved: &str, again: &str) -> String {
    match written {
        Written::Applied => "applied".to_owned(),
        Written::Before => "applied before".to_owned(),
        Written::Moved => format!("refused: it changed since {moved}"),
        Written::Held(reason) => format!("held: {reason}"),
        Written::Stopped => format!("not tried: stopped before; {again}"),
        Written::Failed(error) => format!("failed: {error}; {again}"),
    }
}
