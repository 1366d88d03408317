//! `geminid check`.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value as Json, json};

use super::args::{Access, LogArgs, SettingsArgs, log_options};
use super::output::{Output, Style, counted};
use super::validate::errors;
use crate::app::{Check, HubParts, Needs, Progress, Standing, check_hub, hub_parts, start_logging};
use crate::controller::AuditTarget;
use crate::ops::api::token_problem;
use crate::ops::{self, AccessFiles};
use crate::plan::Mode;
use crate::settings::Settings;
use crate::source::Loader;

/// The version of the JSON.
const FORMAT_VERSION: u32 = 1;

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Only this hub
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// Folder of manifests, with one hub [default: that of the settings]
    #[arg(long, value_name = "FOLDER")]
    manifests: Option<std::path::PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    log: LogArgs,
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// How the result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// For people: a line for each thing that was looked at
    #[default]
    Text,
    /// One JSON document
    Json,
}

/// What was found out about one hub.
struct Checked {
    name: String,
    host: String,
    found: Vec<(Check, Standing)>,
}

/// Looks at settings, manifests, login and rights, and changes nothing: 0 when all is there, 1 when something is missing.
pub(super) async fn run(args: CheckArgs) -> anyhow::Result<u8> {
    let settings = args.settings.load(args.manifests.as_ref(), Access::Owner)?;
    let log = log_options(&settings, &args.log)?;
    start_logging(&log, &Progress::stderr(), None)?;
    let mut parts = hub_parts(&settings)?;
    if let Some(name) = &args.hub {
        let names: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
        parts.retain(|part| part.name == *name);
        anyhow::ensure!(!parts.is_empty(), "no such hub; configured are {}", names.join(", "));
    }
    let process = check_process(&settings);
    let mut all = Vec::new();
    for part in parts {
        all.push(check(part).await?);
    }
    let of_hubs = all.iter().flat_map(|hub| &hub.found).map(|(_, found)| found);
    let missing = process.iter().map(|(_, found)| found).chain(of_hubs).filter(|found| is_missing(found)).count();
    let mut out = Output::coloured_stdout(log.colour);
    match args.output {
        Format::Json => out.json(&document(&process, &all, missing)),
        Format::Text => {
            if !process.is_empty() {
                out.styled(Style::Heading, "this process");
                process.iter().for_each(|(what, standing)| tell_one(what, standing, &mut out));
            }
            all.iter().for_each(|hub| tell(hub, &mut out));
            out.line(&match missing {
                0 => format!("{}: nothing is missing", counted(all.len(), "hub")),
                _ => format!("{}: {missing} missing", counted(all.len(), "hub")),
            });
        }
    }
    Ok(u8::from(missing > 0))
}

const fn is_missing(found: &Standing) -> bool {
    matches!(found, Standing::Missing(_))
}

async fn check(parts: HubParts) -> anyhow::Result<Checked> {
    let (name, host) = (parts.name.clone(), parts.scope.host.clone());
    let (manifests, registers) = check_manifests(&parts);
    let needs = Needs { writes: parts.mode != Mode::Observe, registers };
    let hub = parts.paced_alone().with_context(|| format!("hub {name}"))?;
    let mut found = vec![(Check::Manifests, manifests)];
    found.extend(check_hub(&hub, needs).await);
    Ok(Checked { name, host, found })
}

/// The files of the settings that concern no hub: what `run` would stumble over, or refuse actions for.
fn check_process(settings: &Settings) -> Vec<(&'static str, Standing)> {
    let mut found = Vec::new();
    if let Some(file) = &settings.api_token_file {
        let problem = token_problem(file).map(|error| format!("api_token_file: {}: {error}", file.display()));
        found.push(("api token", standing(problem)));
    }
    if settings.web_config.is_some() || settings.metrics_token_file.is_some() {
        let files = AccessFiles { web_config: settings.web_config.clone(), token: settings.metrics_token_file.clone() };
        found.push(("metrics", standing(ops::Access::load(files).err().map(|error| format!("{error:#}")))));
    }
    let audit = settings.audit_log.as_deref().map(AuditTarget::parse);
    if let Some(AuditTarget::File(file)) = audit {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_there = fs::metadata(folder).is_ok_and(|folder| folder.is_dir());
        let problem = (!is_there).then(|| format!("audit_log: there is no folder {}; make it", folder.display()));
        found.push(("audit log", standing(problem)));
    }
    found
}

fn standing(problem: Option<String>) -> Standing {
    problem.map_or_else(|| Standing::Good(String::new()), Standing::Missing)
}

/// How the manifests stand, and whether one of them registers devices.
fn check_manifests(parts: &HubParts) -> (Standing, bool) {
    let folder = &parts.settings.manifests;
    if folder.as_os_str().is_empty() {
        return (Standing::Skipped("no folder is named; use --manifests".to_owned()), false);
    }
    let snapshot = match Loader::new(folder.clone()).within(parts.rules.clone()).load() {
        Ok(snapshot) => snapshot,
        Err(error) => return (Standing::Missing(format!("{error:#}")), false),
    };
    let registers = snapshot.state.twins.iter().any(|(_, manifest)| manifest.create);
    let standing = match errors(&snapshot) {
        0 => Standing::Good(format!(
            "{}, {} in {}",
            counted(snapshot.files, "file"),
            counted(snapshot.state.twins.len(), "twin"),
            folder.display()
        )),
        errors => Standing::Missing(format!(
            "{} in {}; `geminid validate {}` shows them",
            counted(errors, "error"),
            folder.display(),
            folder.display()
        )),
    };
    (standing, registers)
}

fn tell<W: std::io::Write>(hub: &Checked, out: &mut Output<W>) {
    out.styled(Style::Heading, &format!("hub {} ({})", hub.name, hub.host));
    hub.found.iter().for_each(|(check, standing)| tell_one(check.as_str(), standing, out));
}

fn tell_one<W: std::io::Write>(what: &str, standing: &Standing, out: &mut Output<W>) {
    let (style, word, text) = match standing {
        Standing::Good(text) => (Style::Plain, "ok", text),
        Standing::Missing(text) => (Style::Trouble, "MISSING", text),
        Standing::Skipped(text) => (Style::Plain, "skipped", text),
    };
    out.styled(style, format!("  {what:<10} {word:<8} {text}").trim_end());
}

fn document(process: &[(&str, Standing)], all: &[Checked], missing: usize) -> Json {
    let one = |what: &str, standing: &Standing| {
        let (word, text) = match standing {
            Standing::Good(text) => ("ok", text),
            Standing::Missing(text) => ("missing", text),
            Standing::Skipped(text) => ("skipped", text),
        };
        json!({ "check": what, "state": word, "message": text })
    };
    let checks = |hub: &Checked| -> Vec<Json> {
        hub.found.iter().map(|(check, standing)| one(check.as_str(), standing)).collect()
    };
    let hubs = all.iter().map(|hub| json!({ "name": hub.name, "host": hub.host, "checks": checks(hub) }));
    let process: Vec<Json> = process.iter().map(|(what, standing)| one(what, standing)).collect();
    let hubs: Vec<Json> = hubs.collect();
    json!({ "formatVersion": FORMAT_VERSION, "allGood": missing == 0, "process": process, "hubs": hubs })
}
