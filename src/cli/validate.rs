//! `geminid validate`.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::Args;

use super::diagnostics::{self, Drawing, Format};
use super::output::{Output, counted};
use crate::app::{HubParts, default_rules, manifest_rules};
use crate::manifest::{Diagnostic, Rules, Severity};
use crate::settings;
use crate::source::{Loader, Snapshot};

/// Arguments of `validate`.
#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// Folder of manifests [default: that of the settings]
    #[arg(value_name = "FOLDER", required_unless_present = "settings")]
    folder: Option<PathBuf>,
    /// Settings file (TOML) of the hub: what it allows, its owner, tier and prefix of metrics
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// The hub, when several are configured
    #[arg(long, value_name = "NAME", requires = "settings")]
    hub: Option<String>,
    /// How problems are written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl ValidateArgs {
    /// The folder, and what its manifests must keep to.
    fn folder_and_rules(&self) -> anyhow::Result<(PathBuf, Rules)> {
        let Some(file) = &self.settings else { return Ok((self.folder.clone().unwrap_or_default(), default_rules()?)) };
        let settings = settings::load(Some(file))?;
        let hub = match (&self.hub, settings.hubs.len()) {
            (Some(name), _) => settings.hubs.get_key_value(name),
            (None, 0 | 1) => settings.hubs.first_key_value(),
            (None, _) => bail!("several hubs are configured; name one with --hub"),
        };
        let Some((name, hub)) = hub else {
            let known: Vec<&str> = settings.hubs.keys().map(String::as_str).collect();
            bail!("{} configures no such hub; known are: {}", file.display(), known.join(", "));
        };
        let rules = manifest_rules(&settings, hub).map_err(|error| anyhow!("hub {name}: {error}"))?;
        Ok((self.folder.clone().unwrap_or_else(|| hub.manifests.clone()), rules))
    }
}

/// Checks manifests offline: 0 when all are good, 1 when one is not.
pub(super) fn run(args: &ValidateArgs) -> anyhow::Result<u8> {
    let (folder, rules) = args.folder_and_rules()?;
    let mut snapshot = Loader::new(folder.clone()).within(rules).load()?;
    if snapshot.files == 0 {
        snapshot.diagnostics.push(no_files());
    }
    let problems = errors(&snapshot);
    let mut out = Output::stdout();
    match args.output {
        Format::Json => {
            out.line(&diagnostics::json(&snapshot.diagnostics, snapshot.files));
            return Ok(u8::from(problems > 0));
        }
        Format::Github => {
            snapshot.diagnostics.iter().for_each(|found| out.line(&diagnostics::github(found, &folder)));
        }
        Format::Text => {
            let (mut drawing, mut err) = (Drawing::new(&folder, &snapshot.state.sensitive), Output::stderr());
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
    counts.push(match snapshot.queries.len() {
        1 => "1 query".to_owned(),
        queries => format!("{queries} queries"),
    });
    counts.push(counted(problems, "error"));
    out.line(&counts.join(", "));
    Ok(u8::from(problems > 0))
}

/// A check that checked nothing should not look like one that found nothing.
fn no_files() -> Diagnostic {
    Diagnostic {
        file: ".".into(),
        line: 0,
        column: 0,
        severity: Severity::Warning,
        path: String::new(),
        rule: "no-files",
        message: "no file in this folder ends in .yaml or .yml; is it the right folder?".to_owned(),
    }
}

/// Loads the manifests of a hub once and prints every problem; answers how many errors there are.
pub(super) fn load(parts: &HubParts) -> anyhow::Result<(Snapshot, usize)> {
    let snapshot = Loader::new(parts.settings.manifests.clone()).within(parts.rules.clone()).load()?;
    let mut err = Output::stderr();
    snapshot.diagnostics.iter().for_each(|diagnostic| err.line(&diagnostic.to_string()));
    let problems = errors(&snapshot);
    Ok((snapshot, problems))
}

/// How many of what was found are errors.
pub(super) fn errors(snapshot: &Snapshot) -> usize {
    snapshot.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
}
