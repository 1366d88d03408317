//! `geminid plan`.
//!
//! Invariant: what is asked of the hub goes through a reader of twins; this command has no way to write.

mod json;
mod markdown;
mod text;
mod view;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;

use super::approval::ApprovalArgs;
use super::args::{Access, FilterArgs, FleetArgs, Opened};
use super::output::Output;
use super::plan_file::PlanFile;
use super::validate::load;
use crate::app::wall_clock;
use crate::controller::{Judge, survey};
use crate::manifest::to_yaml;
use crate::plan::{Mode, Policy, TwinFilter};
use crate::twin::Value;
use view::{About, View};

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    fleet: FleetArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    approvals: ApprovalArgs,
    /// Every twin, also those in sync and those that only get their seal, and values at full length
    #[arg(long)]
    detailed: bool,
    /// How the plan is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Keep the plan in a file that `geminid apply FILE` applies exactly; it holds sensitive values, readable by you alone
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How a plan is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON document
    Json,
    /// For a comment of a pull request
    Markdown,
    /// The JSON document as YAML
    Yaml,
    /// The names of twins that are not in sync, one a line
    Name,
}

/// Shows the plan: 0 no change, 1 changes, 2 when not everything could be planned.
pub(super) async fn run(args: PlanArgs) -> anyhow::Result<u8> {
    let filter = args.filter.filter()?;
    let Opened { parts, colour, progress, .. } = args.fleet.open(Access::Service)?;
    let (snapshot, problems) = load(&parts)?;
    let now = wall_clock().as_second();
    let scope = parts.scope.clone();
    let whole = filter == TwinFilter::default();
    if !whole && !args.approvals.is_empty() {
        bail!("--approve is for the whole fleet, and guards are not asked about a part of it; leave the filter out");
    }
    let (name, mut policy) = (parts.name.clone(), parts.rules());
    policy.approvals = args.approvals.parse(&name, &snapshot.state.revision)?;
    let notices = notices(&policy, whole);
    if policy.mode == Mode::Observe {
        // What would be done is shown, under the notice that it is not.
        policy.mode = Mode::Sync;
    }
    let judge = whole.then_some(Judge { hub: &name, policy: &policy });
    let hub = progress.work("reading twins", snapshot.state.twins.len()).reading(parts.paced_alone()?);
    let plans = survey(Arc::new(hub), &scope, &snapshot.state, &filter, judge, now).await?;
    if let Some(file) = &args.out {
        PlanFile::of(&scope, &snapshot.state, &plans).write(file)?;
    }
    let (owner, revision) = (scope.owner.to_string(), snapshot.state.revision.clone());
    let about = About { owner, host: scope.host, revision, problems, notices };
    let view = View::new(&plans, about, args.detailed);
    let mut out = Output::coloured_stdout(colour);
    match args.output {
        Format::Text => text::write(&view, &mut out),
        Format::Json => out.json(&json::document(&view)),
        Format::Yaml => out.line(to_yaml(&Value::from_json(json::document(&view))).trim_end()),
        Format::Markdown => out.line(markdown::document(&view).trim_end()),
        Format::Name => view.names().for_each(|twin| out.line(&twin.to_string())),
    }
    if let (Some(file), Format::Text) = (&args.out, args.output) {
        out.line(&format!("kept in {}; apply exactly this with `geminid apply {0}`", file.display()));
    }
    Ok(view.exit_code())
}

/// What stands over the whole plan: what a daemon with these settings would not do at all.
fn notices(policy: &Policy, whole: bool) -> Vec<String> {
    let mut notices = Vec::new();
    if let Some(reason) = &policy.suspend {
        notices.push(format!("nothing of this is done: suspended by {reason}; set it to false to go on"));
    }
    match policy.mode {
        Mode::Sync => {}
        Mode::Upsert => notices.push("nothing is removed in mode upsert".to_owned()),
        Mode::Observe => notices.push("nothing of this is done in mode observe; `mode = \"sync\"` writes".to_owned()),
    }
    if !whole {
        notices.push("guards were not asked: this is a part of the fleet".to_owned());
    }
    notices
}
