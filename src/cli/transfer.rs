//! What `adopt` and `release` have in common: choose twins, show, ask, do, tell.
//!
//! Invariant: nothing is written that was not shown before, and without `--yes` nothing that nobody confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value as Json, json};

use super::args::{Access, FilterArgs, FleetArgs, Opened};
use super::output::{Output, Style, counted};
use super::stop::until_stopped;
use super::validate::load;
use super::writing::{self, Format, WritingArgs, check_writable, confirmed};
use crate::app::{transfer_once, wall_clock};
use crate::controller::{TransferOrder, Written, survey_transfer};
use crate::hub::HubError;
use crate::plan::{DeclaredState, Leaf, Transfer, TransferPlan};
use crate::twin::TwinRef;

/// The version of the JSON.
const FORMAT_VERSION: u32 = 1;

/// Arguments of both verbs.
#[derive(Debug, Args)]
pub(super) struct TransferArgs {
    /// The twins: DEVICE or DEVICE/MODULE; without any, those of the flags below
    #[arg(value_name = "TWIN", conflicts_with_all = ["labels", "devices"])]
    twins: Vec<String>,
    #[command(flatten)]
    fleet: FleetArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Do it without asking; where standard input is no terminal nothing is done without this
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    writing: WritingArgs,
}

impl TransferArgs {
    /// Whether somebody said which twins are meant.
    pub(super) fn chooses(&self) -> anyhow::Result<bool> {
        Ok(!self.twins.is_empty() || !self.filter.filter()?.admits_all())
    }
}

/// How the twins of the survey stand.
struct Shown {
    plans: BTreeMap<TwinRef, TransferPlan>,
    failed: BTreeMap<TwinRef, HubError>,
}

/// Shows the plan and does it: 0 when all of it is done or there is nothing to do, 1 when a twin was left out.
pub(super) async fn run(args: TransferArgs, transfer: Transfer) -> anyhow::Result<u8> {
    args.writing.check()?;
    let opened = args.fleet.open(Access::Service)?;
    let audit = args.writing.audit(&opened)?;
    check(&opened)?;
    let order = order(&args, &opened, transfer)?;
    let reader = args.fleet.one.parts(&opened.settings)?.paced_alone()?;
    let mut shown = Shown { plans: BTreeMap::new(), failed: BTreeMap::new() };
    for (twin, surveyed) in survey_transfer(Arc::new(reader), &order).await? {
        match surveyed {
            Ok(plan) => drop(shown.plans.insert(twin, plan)),
            Err(error) => drop(shown.failed.insert(twin, error)),
        }
    }
    let mut out = Output::coloured_stdout(opened.colour).beside_the_work();
    if args.writing.output == Format::Text {
        tell_plan(&order, &shown, &mut out);
    }
    let changing = shown.plans.values().filter(|plan| plan.plan.patch.is_some()).count();
    if changing > 0 && !args.yes && !agreed(changing)? {
        bail!("nothing was written; say --yes to go on without being asked");
    }
    let (host, plans) = (opened.parts.scope.host.clone(), shown.plans.clone());
    let work = async |cancel| transfer_once(opened.parts, &order, plans, audit.as_ref(), cancel).await;
    let (written, _) = until_stopped(work).await?;
    let written = written?;
    let all_good = changing == shown.plans.len()
        && shown.failed.is_empty()
        && written.values().all(|written| *written == Written::Applied);
    match args.writing.output {
        Format::Text => tell_result(&order, &written, changing, &mut out),
        Format::Json => out.json(&document(&order, &host, &shown, &written, all_good)),
    }
    Ok(u8::from(!all_good))
}

/// Whether anything may be written at all.
fn check(opened: &Opened) -> anyhow::Result<()> {
    if !opened.parts.scope.seals {
        bail!("`ownership = \"none\"` keeps no seals; there is nothing to adopt or release");
    }
    check_writable(&opened.parts.rules())
}

fn order(args: &TransferArgs, opened: &Opened, transfer: Transfer) -> anyhow::Result<TransferOrder> {
    if matches!(&transfer, Transfer::Adopt { from, .. } if *from == opened.parts.scope.owner) {
        bail!("{} cannot adopt from itself; name the other owner with --from", opened.parts.scope.owner);
    }
    let filter = args.filter.filter()?;
    let none = opened.parts.settings.manifests.as_os_str().is_empty();
    let needed = args.filter.has_labels() || matches!(transfer, Transfer::Adopt { undeclared: false, .. });
    if none && needed {
        bail!("the manifests say which paths and labels are meant; name their folder with --manifests");
    }
    let state = if none { Arc::new(DeclaredState::default()) } else { load(&opened.parts)?.0.state };
    let twin = |text: &String| TwinRef::parse(text).with_context(|| format!("{text:?} is no twin"));
    let twins = args.twins.iter().map(twin).collect::<anyhow::Result<BTreeSet<TwinRef>>>()?;
    let unix_now = wall_clock().as_second();
    Ok(TransferOrder { scope: opened.parts.scope.clone(), transfer, state, twins, filter, unix_now })
}

/// Whether the person at the terminal agrees; nobody there has said no.
fn agreed(changing: usize) -> anyhow::Result<bool> {
    let verb = if changing == 1 { "is" } else { "are" };
    Ok(std::io::stdin().is_terminal() && confirmed(&format!("{} {verb} written", counted(changing, "seal")))?)
}

fn tell_plan<W: std::io::Write>(order: &TransferOrder, shown: &Shown, out: &mut Output<W>) {
    let (doing, nothing) = match &order.transfer {
        Transfer::Adopt { from, .. } => (format!("To adopt from {from}"), format!("nothing to adopt from {from}")),
        Transfer::Release => ("To release".to_owned(), "nothing to release".to_owned()),
    };
    if shown.plans.is_empty() && shown.failed.is_empty() {
        out.line(&nothing);
        return;
    }
    if !shown.plans.is_empty() {
        out.styled(Style::Heading, &format!("{doing} ({})", counted(shown.plans.len(), "twin")));
    }
    for (twin, plan) in &shown.plans {
        out.line(&format!("  {twin}"));
        let is_declared = |leaf: &Leaf| is_declared(order, twin, leaf);
        for leaf in &plan.moved {
            let later = match &order.transfer {
                Transfer::Adopt { undeclared: true, .. } if !is_declared(leaf) => {
                    " (declared by nobody here: the next pass removes it)"
                }
                Transfer::Adopt { .. } | Transfer::Release => "",
            };
            out.styled(Style::Changed, &format!("    > {leaf}{later}"));
        }
        plan.kept.iter().for_each(|leaf| out.line(&format!("      {leaf} stays: nobody declares it here")));
        plan.plan.held.iter().for_each(|held| out.styled(Style::Trouble, &format!("    ! {held}")));
    }
    for (twin, error) in &shown.failed {
        out.styled(Style::Trouble, &format!("  {twin}: {error}"));
    }
}

/// Whether a manifest or an unconditional profile declares something at `leaf`, above or below it.
fn is_declared(order: &TransferOrder, twin: &TwinRef, leaf: &Leaf) -> bool {
    let declaration = crate::plan::declare(&order.state, twin, None);
    declaration.declared().is_some_and(|declared| declared.concerns(leaf))
}

fn tell_result<W: std::io::Write>(
    order: &TransferOrder,
    written: &BTreeMap<TwinRef, Written>,
    changing: usize,
    out: &mut Output<W>,
) {
    for (twin, written) in written {
        if *written != Written::Applied {
            out.styled(Style::Trouble, &format!("{twin}: {}", sentence(written)));
        }
    }
    if changing > 0 {
        let done = written.values().filter(|written| **written == Written::Applied).count();
        let (did, after) = match &order.transfer {
            Transfer::Adopt { .. } => ("adopted in", "the next pass brings about what the manifests declare"),
            Transfer::Release => ("released in", "whoever still declares these twins as this owner seals them again"),
        };
        out.line(&format!("{did} {done} of {}; {after}", counted(changing, "twin")));
    }
}

fn sentence(written: &Written) -> String {
    writing::sentence(written, "it was shown; look again", "do the same again")
}

fn document(
    order: &TransferOrder,
    host: &str,
    shown: &Shown,
    written: &BTreeMap<TwinRef, Written>,
    all_done: bool,
) -> Json {
    let (action, from) = match &order.transfer {
        Transfer::Adopt { from, .. } => ("adopt", Some(from.as_str())),
        Transfer::Release => ("release", None),
    };
    let names = |leaves: &[Leaf]| leaves.iter().map(ToString::to_string).collect::<Vec<String>>();
    let planned = shown.plans.iter().map(|(twin, plan)| {
        let result = written.get(twin);
        let held = plan.plan.held.first();
        json!({
            "twin": twin.to_string(), "moved": names(&plan.moved), "kept": names(&plan.kept),
            "result": result.map_or("held", Written::as_str),
            "message": result.map(sentence).or_else(|| held.map(ToString::to_string)),
        })
    });
    let failed = shown.failed.iter().map(|(twin, error)| {
        json!({ "twin": twin.to_string(), "moved": [], "kept": [], "result": "failed", "message": error.to_string() })
    });
    json!({
        "formatVersion": FORMAT_VERSION, "action": action, "from": from, "owner": order.scope.owner.as_str(),
        "host": host, "allDone": all_done, "twins": planned.chain(failed).collect::<Vec<Json>>(),
    })
}
