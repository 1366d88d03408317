//! `geminid apply`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value as Json, json};

use super::approval::{ApprovalArgs, with_flag};
use super::args::{Access, FleetArgs, Opened};
use super::output::{Output, Style, counted};
use super::plan_file::PlanFile;
use super::stop::until_stopped;
use super::validate::load;
use crate::app::{Progress, apply_once, wall_clock};
use crate::controller::{AuditTarget, PlannedWrite, Statuses, Surveyed, TwinStatus, Written, apply_planned, survey};
use crate::plan::{
    Approval, DeclaredState, GuardKind, GuardLimits, Mode, Outcome, SealAction, Synced, TwinFilter, TwinState,
};
use crate::settings::parse_audit_log;
use crate::twin::TwinRef;

/// The version of the JSON.
const FORMAT_VERSION: u32 = 1;

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// A plan of `geminid plan --out FILE`: exactly that is applied, but for twins that somebody wrote since
    #[arg(value_name = "FILE", conflicts_with = "manifests")]
    plan: Option<PathBuf>,
    #[command(flatten)]
    fleet: FleetArgs,
    /// Where to record every write, one JSON line each: stdout or a file [default: nowhere]
    #[arg(long, value_name = "FILE")]
    audit_log: Option<String>,
    /// Settle twins whose manifest is gone, too: take the seal away, and what it owns where the policy is `clear`
    #[arg(long, conflicts_with = "plan")]
    prune: bool,
    #[command(flatten)]
    approvals: ApprovalArgs,
    /// Remove without asking; nobody is asked where standard input is no terminal
    #[arg(short, long)]
    yes: bool,
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// What is not in sync, and counts
    #[default]
    Text,
    /// One JSON document with every twin
    Json,
}

/// Makes one pass: 0 when every twin is in sync, 1 when not.
pub(super) async fn run(args: ApplyArgs) -> anyhow::Result<u8> {
    let given = args.audit_log.clone().map(|text| parse_audit_log("--audit-log", text)).transpose()?;
    let opened = args.fleet.open(Access::Owner)?;
    let audit = given.or_else(|| opened.settings.audit_log.clone()).map(|text| AuditTarget::parse(&text));
    let asks = !args.yes && std::io::stdin().is_terminal();
    match &args.plan {
        Some(_) if audit.is_some() => {
            bail!("the writes of a kept plan are not recorded in an audit log; leave the log out, or apply manifests")
        }
        Some(file) => run_plan(&args, opened, file, asks).await,
        None => run_pass(&args, opened, audit.as_ref(), asks).await,
    }
}

async fn run_pass(args: &ApplyArgs, opened: Opened, audit: Option<&AuditTarget>, asks: bool) -> anyhow::Result<u8> {
    let (snapshot, problems) = load(&opened.parts)?;
    if asks {
        let removing = removing(args, &opened, &snapshot.state).await?;
        if removing > 0 && !confirmed(removing)? {
            bail!("nothing was applied; look at `geminid plan`, or say --yes");
        }
    }
    // Audit lines on the same terminal would run through a bar.
    let crowded = audit == Some(&AuditTarget::Stdout) && std::io::stdout().is_terminal();
    let progress = if crowded { Progress::hidden() } else { opened.progress.clone() };
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
    let mut out = Output::coloured_stdout(opened.colour);
    match args.output {
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
            let removes = plan.changes.iter().any(|change| change.to.is_none());
            if plan.seal == SealAction::Remove { args.prune } else { removes }
        }
        Surveyed::Create(_) | Surveyed::Missing | Surveyed::Failed(_) => false,
    };
    Ok(plans.values().filter(loses).count())
}

/// Asks the person at the terminal.
fn confirmed(removing: usize) -> anyhow::Result<bool> {
    let verb = if removing == 1 { "loses" } else { "lose" };
    Output::stderr()
        .line(&format!("{} {verb} values that are declared no more. Go on? [y/N]", counted(removing, "twin")));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer; say --yes to go on without one")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
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

/// Applies a kept plan: 0 when everything declared is at the hub, 1 when a twin was refused or the plan left one out.
async fn run_plan(args: &ApplyArgs, opened: Opened, file: &Path, asks: bool) -> anyhow::Result<u8> {
    let plan = PlanFile::read(file)?;
    plan.check_scope(&opened.parts.scope)?;
    let rules = opened.parts.rules();
    if let Some(reason) = rules.suspend {
        bail!("the hub is suspended by {reason}; nothing was applied");
    }
    if rules.mode == Mode::Observe {
        bail!("mode observe writes nothing; set another mode to apply the plan");
    }
    if rules.mode == Mode::Upsert && plan.removing > 0 {
        bail!(
            "the plan removes from {}, and mode upsert removes nothing; plan again in that mode",
            counted(plan.removing, "twin")
        );
    }
    ask_guards(&plan, &rules.guards, &args.approvals.parse(&opened.parts.name, &plan.revision)?)?;
    if asks && plan.removing > 0 && !confirmed(plan.removing)? {
        bail!("nothing was applied; say --yes to apply the plan with its removals");
    }
    let hub = Arc::new(opened.parts.paced_alone()?);
    let writes: Vec<PlannedWrite> = plan.writes.clone();
    let each = |twin: &TwinRef, written: &Written| match written {
        Written::Applied => tracing::info!(%twin, revision = plan.revision, "applied as planned"),
        Written::Before | Written::Moved | Written::Stopped | Written::Failed(_) => {
            tracing::debug!(%twin, revision = plan.revision, "{}", sentence(written));
        }
    };
    let work = async |cancel| apply_planned(hub, writes, each, &cancel).await;
    let (results, _) = until_stopped(work).await?;
    let good = |written: &Written| matches!(written, Written::Applied | Written::Before);
    let all_good = plan.left.is_empty() && results.values().all(good);
    let mut out = Output::coloured_stdout(opened.colour);
    match args.output {
        Format::Text => tell_plan(&plan, &results, &mut out),
        Format::Json => out.json(&plan_json(&plan, &results, all_good)),
    }
    Ok(u8::from(!all_good))
}

/// Refuses a plan that does more than the guards of these settings let pass: it is applied whole or not at all.
fn ask_guards(plan: &PlanFile, limits: &GuardLimits, approvals: &[Approval]) -> anyhow::Result<()> {
    let registering = plan.writes.iter().filter(|write| write.create).count();
    for (guard, limit, count, verb) in [
        (GuardKind::Removals, limits.of_removals(), plan.removing, "lose something"),
        (GuardKind::Creates, limits.of_creates(), registering, "be registered"),
        (GuardKind::Updates, limits.of_updates(), plan.updating, "be changed"),
    ] {
        let empty = guard == GuardKind::Removals && plan.fleet == 0;
        let (guard, allowed) = if empty { (GuardKind::Empty, 0) } else { (guard, limit.allowed(plan.fleet)) };
        // A guard of all the fleet holds nothing, as in the daemon.
        let open = limit.share >= 1.0 && guard != GuardKind::Removals && guard != GuardKind::Empty;
        let approved = approvals.iter().filter(|approval| approval.guard == guard).map(|approval| approval.count).max();
        if !open && count > allowed.max(approved.unwrap_or_default()) {
            let revision = &plan.revision;
            bail!(
                "{} would {verb} and the guard {guard} lets {allowed} pass; nothing was applied; \
                 --approve '{guard}/{revision}/{count}' lets it pass",
                counted(count, "twin")
            );
        }
    }
    Ok(())
}

fn sentence(written: &Written) -> String {
    match written {
        Written::Applied => "applied".to_owned(),
        Written::Before => "applied before".to_owned(),
        Written::Moved => "refused: it changed since it was planned; plan again".to_owned(),
        Written::Stopped => "not tried: stopped before; apply the same file again".to_owned(),
        Written::Failed(error) => format!("failed: {error}; apply the same file again"),
    }
}

const fn word(written: &Written) -> &'static str {
    match written {
        Written::Applied => "applied",
        Written::Before => "applied_before",
        Written::Moved => "refused",
        Written::Stopped => "stopped",
        Written::Failed(_) => "failed",
    }
}

fn tell_plan<W: std::io::Write>(plan: &PlanFile, results: &BTreeMap<TwinRef, Written>, out: &mut Output<W>) {
    for (twin, written) in results {
        match written {
            Written::Applied | Written::Before => {}
            Written::Moved | Written::Stopped | Written::Failed(_) => {
                out.styled(Style::Trouble, &format!("{twin}: {}", sentence(written)));
            }
        }
    }
    plan.left.iter().for_each(|(twin, reason)| {
        out.styled(Style::Trouble, &format!("{twin}: not in the plan, because {reason}"));
    });
    let count = |wanted: &str| results.values().filter(|written| word(written) == wanted).count();
    let kinds = [
        ("applied", "applied"),
        ("applied_before", "applied before"),
        ("refused", "refused"),
        ("failed", "failed"),
        ("stopped", "not tried"),
    ];
    let mut counts: Vec<String> = kinds
        .into_iter()
        .filter(|(wanted, _)| *wanted == "applied" || count(wanted) > 0)
        .map(|(wanted, words)| format!("{} {words}", count(wanted)))
        .collect();
    if !plan.left.is_empty() {
        counts.push(format!("{} not in the plan", plan.left.len()));
    }
    out.line(&format!("{}: {}", counted(results.len(), "planned write"), counts.join(", ")));
}

fn plan_json(plan: &PlanFile, results: &BTreeMap<TwinRef, Written>, in_sync: bool) -> Json {
    let twin_json = |(twin, written): (&TwinRef, &Written)| json!({ "twin": twin.to_string(), "result": word(written), "message": sentence(written) });
    let left = |(twin, reason): (&TwinRef, &String)| json!({ "twin": twin.to_string(), "reason": reason });
    json!({
        "formatVersion": FORMAT_VERSION,
        "owner": plan.owner,
        "host": plan.host,
        "revision": plan.revision,
        "inSync": in_sync,
        "twins": results.iter().map(twin_json).collect::<Vec<Json>>(),
        "left": plan.left.iter().map(left).collect::<Vec<Json>>(),
    })
}
