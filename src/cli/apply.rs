//! `geminid apply`.

mod kept;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use serde_json::{Value as Json, json};

use super::approval::{ApprovalArgs, with_flag};
use super::args::{Access, FleetArgs, Opened};
use super::output::{Output, Style, counted};
use super::stop::until_stopped;
use super::validate::load;
use super::writing::{Format, WritingArgs, confirmed, progress};
use crate::app::{apply_once, wall_clock};
use crate::controller::{AuditTarget, Statuses, Surveyed, TwinStatus, survey};
use crate::plan::{DeclaredState, Mode, Outcome, SealAction, Synced, TwinFilter, TwinState};

/// The version of the JSON.
const FORMAT_VERSION: u32 = 1;

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// A plan of `geminid plan --out FILE`: exactly that is applied, but for twins written or suspended since
    #[arg(value_name = "FILE")]
    plan: Option<PathBuf>,
    #[command(flatten)]
    fleet: FleetArgs,
    /// Settle twins whose manifest is gone, too: take the seal away, and what it owns where the policy is `clear`
    #[arg(long, conflicts_with = "plan")]
    prune: bool,
    #[command(flatten)]
    approvals: ApprovalArgs,
    /// Remove without asking; nobody is asked where standard input is no terminal
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    writing: WritingArgs,
}

/// Makes one pass: 0 when every twin is in sync, 1 when not.
pub(super) async fn run(args: ApplyArgs) -> anyhow::Result<u8> {
    args.writing.check()?;
    let opened = args.fleet.open(Access::Owner)?;
    let audit = args.writing.audit(&opened)?;
    let asks = !args.yes && std::io::stdin().is_terminal();
    match &args.plan {
        Some(file) => kept::run(file, opened, &args.approvals, audit.as_ref(), asks, args.writing.output).await,
        None => run_pass(&args, opened, audit.as_ref(), asks).await,
    }
}

async fn run_pass(args: &ApplyArgs, opened: Opened, audit: Option<&AuditTarget>, asks: bool) -> anyhow::Result<u8> {
    let (snapshot, problems) = load(&opened.parts)?;
    let rules = opened.parts.rules();
    if asks && rules.mode == Mode::Sync && rules.suspend.is_none() {
        let removing = removing(args, &opened, &snapshot.state).await?;
        if removing > 0 && !confirmed(&losing(removing))? {
            bail!("nothing was applied; look at `geminid plan`, or say --yes");
        }
    }
    let progress = progress(&opened, audit);
    let about = [("owner", opened.parts.scope.owner.to_string()), ("host", opened.parts.scope.host.clone())];
    let approvals = args.approvals.parse(&opened.parts.name, &snapshot.state.revision)?;
    let state = snapshot.state.clone();
    let pass = async |cancel| apply_once(opened.parts, state, args.prune, approvals, audit, &progress, cancel).await;
    let (result, stopped) = until_stopped(pass).await?;
    let statuses = result?.statuses;
    if stopped {
        bail!("stopped before every twin was tried; apply again to go on");
    }
    let in_sync = statuses.count(TwinState::InSync) == statuses.len();
    let mut out = Output::coloured_stdout(opened.colour).beside_the_work();
    match args.writing.output {
        Format::Text => tell(&statuses, &mut out),
        Format::Json => {
            let mut document = json!({
                "formatVersion": FORMAT_VERSION, "revision": snapshot.state.revision, "manifestErrors": problems,
                "inSync": in_sync && problems == 0,
                "twins": statuses.iter().map(|(twin, status)| {
                    let condition = status.outcome.condition();
                    json!({
                        "twin": twin.to_string(), "message": message_of(status),
                        "reason": condition.map(|condition| condition.reason),
                        "state": condition.map(|condition| condition.state.as_str()),
                    })
                }).collect::<Vec<Json>>(),
            });
            about.into_iter().for_each(|(name, value)| document[name] = Json::from(value));
            out.json(&document);
        }
    }
    Ok(u8::from(!in_sync || problems > 0))
}

/// How many declared twins would lose a leaf.
async fn removing(args: &ApplyArgs, opened: &Opened, state: &Arc<DeclaredState>) -> anyhow::Result<usize> {
    let parts = args.fleet.one.parts(&opened.settings)?;
    let now = wall_clock().as_second();
    let hub = opened.progress.work("looking for removals", state.twins.len()).reading(parts.paced_alone()?);
    let plans = survey(Arc::new(hub), &opened.parts.scope, state, &TwinFilter::default(), None, now).await?;
    let loses = |surveyed: &&Surveyed| match surveyed {
        Surveyed::Plan(planned) => {
            let plan = &planned.plan;
            plan.loses() && (plan.seal != SealAction::Remove || args.prune)
        }
        Surveyed::Create(_) | Surveyed::Missing | Surveyed::Failed(_) => false,
    };
    Ok(plans.values().filter(loses).count())
}

/// What is asked before twins lose something.
pub(super) fn losing(twins: usize) -> String {
    let verb = if twins == 1 { "loses" } else { "lose" };
    format!("{} {verb} values that are declared no more", counted(twins, "twin"))
}

/// What is told of a twin, with what lets it pass here.
fn message_of(status: &TwinStatus) -> String {
    match &status.outcome {
        Outcome::Held(reason) => with_flag(&status.message, reason.approval()),
        Outcome::InSync
        | Outcome::Applied
        | Outcome::Drifted
        | Outcome::Kept
        | Outcome::Pending
        | Outcome::Conflict
        | Outcome::Throttled
        | Outcome::Missing
        | Outcome::Rejected
        | Outcome::Unauthorized
        | Outcome::Quota
        | Outcome::Failed
        | Outcome::Released => status.message.clone(),
    }
}

/// The twins that are not in sync, and the counts.
fn tell<W: std::io::Write>(statuses: &Statuses, out: &mut Output<W>) {
    for (twin, status) in statuses.iter() {
        if let Some(condition) = status.outcome.condition().filter(|condition| condition.synced != Synced::True) {
            out.styled(Style::Trouble, &format!("{twin}: {}: {}", condition.reason, message_of(status)));
        }
    }
    let in_sync = statuses.count(TwinState::InSync);
    out.line(&format!("{} in sync, {} not", counted(in_sync, "twin"), statuses.len() - in_sync));
}
