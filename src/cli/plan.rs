//! `geminid plan`.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;

use super::args::{Access, FleetArgs, Opened};
use super::output::{Output, Style, counted};
use super::validate::load;
use crate::app::wall_clock;
use crate::controller::{Surveyed, survey};
use crate::plan::{Cause, Change, SealAction, TwinPlan};
use crate::twin::TwinRef;

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    fleet: FleetArgs,
}

/// Shows the plan: 0 no change, 1 changes, 2 when not everything could be planned.
pub(super) async fn run(args: PlanArgs) -> anyhow::Result<u8> {
    let Opened { parts, colour, .. } = args.fleet.open(Access::Service)?;
    let (snapshot, problems) = load(&parts.settings.manifests)?;
    let scope = parts.scope.clone();
    let plans = survey(Arc::new(parts.paced_alone()?), &scope, &snapshot.state, wall_clock().as_second()).await?;
    let counts = show(&plans, &mut Output::coloured_stdout(colour));
    Ok(if counts.failed > 0 || problems > 0 { 2 } else { u8::from(counts.changes()) })
}

/// Twins by what would happen to them; one twin may be in several.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    create: usize,
    change: usize,
    release: usize,
    held: usize,
    missing: usize,
    failed: usize,
    seal: usize,
    in_sync: usize,
}

impl Counts {
    fn changes(&self) -> bool {
        self.create + self.change + self.release + self.held + self.missing > 0
    }
}

fn show<W: std::io::Write>(plans: &BTreeMap<TwinRef, Surveyed>, out: &mut Output<W>) -> Counts {
    let mut counts = Counts::default();
    for (twin, surveyed) in plans {
        match surveyed {
            Surveyed::Plan(plan) => show_plan(twin, plan, &mut counts, out),
            Surveyed::Create(plan) => {
                counts.create += 1;
                out.styled(Style::Heading, &format!("{twin}: would be registered"));
                let added = |change| out.styled(Style::Added, &format!("  {change}{}", from_where(change)));
                plan.changes.iter().for_each(added);
            }
            Surveyed::Missing => {
                counts.missing += 1;
                out.styled(Style::Trouble, &format!("{twin}: is not registered; register it, or set `create: true`"));
            }
            Surveyed::Failed(error) => {
                counts.failed += 1;
                out.styled(Style::Trouble, &format!("{twin}: cannot be planned: {error}"));
            }
        }
    }
    let listed = [
        (counts.create, "to register"),
        (counts.change, "to change"),
        (counts.release, "to release"),
        (counts.held, "held"),
        (counts.missing, "missing"),
        (counts.failed, "not planned"),
        (counts.seal, "to seal"),
        (counts.in_sync, "in sync"),
    ];
    let shown: Vec<String> =
        listed.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let summary = if shown.is_empty() { String::new() } else { format!(": {}", shown.join(", ")) };
    out.line(&format!("{}{summary}", counted(plans.len(), "twin")));
    counts
}

/// The manifest or profile that wants a change.
fn from_where(change: &Change) -> String {
    change.source.as_ref().map_or_else(String::new, |place| format!("  ({}:{})", place.file, place.line))
}

fn show_plan<W: std::io::Write>(twin: &TwinRef, plan: &TwinPlan, counts: &mut Counts, out: &mut Output<W>) {
    if plan.in_sync() {
        counts.in_sync += 1;
        counts.seal += usize::from(plan.seal == SealAction::Write);
        return;
    }
    let why = if plan.cause == Cause::Drift && !plan.changes.is_empty() { " (changed outside)" } else { "" };
    out.styled(Style::Heading, &format!("{twin}{why}"));
    for change in &plan.changes {
        let style = match (&change.from, &change.to) {
            (None, _) => Style::Added,
            (Some(_), Some(_)) => Style::Changed,
            (Some(_), None) => Style::Removed,
        };
        out.styled(style, &format!("  {change}{}", from_where(change)));
    }
    plan.held.iter().for_each(|held| out.styled(Style::Trouble, &format!("  {held}")));
    if plan.seal == SealAction::Remove {
        counts.release += 1;
        out.styled(Style::Removed, "  its manifest is gone: the seal would be removed");
    }
    counts.change += usize::from(!plan.changes.is_empty() && plan.seal != SealAction::Remove);
    counts.held += usize::from(!plan.held.is_empty());
}
