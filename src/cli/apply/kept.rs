//! `geminid apply FILE`: a plan that was kept.
//!
//! Invariants: applied is what was looked at, and nothing else, whatever the manifests declare by now. What people use
//! to have a twin left alone counts as it stands when the plan is applied.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::{Value as Json, json};

use super::{FORMAT_VERSION, losing};
use crate::app::{apply_plan_once, wall_clock};
use crate::cli::approval::ApprovalArgs;
use crate::cli::args::Opened;
use crate::cli::output::{Output, Style, counted};
use crate::cli::plan_file::PlanFile;
use crate::cli::stop::until_stopped;
use crate::cli::validate::load;
use crate::cli::writing::{self, Format, check_writable, confirmed, progress};
use crate::controller::{AuditTarget, PlannedOrder, Written};
use crate::plan::{Approval, DeclaredState, GuardKind, GuardLimits, Mode};
use crate::twin::TwinRef;

/// Applies a kept plan: 0 when everything declared is at the hub, 1 when a twin was refused or held, or the plan left
/// one out.
pub(super) async fn run(
    file: &Path,
    opened: Opened,
    approvals: &ApprovalArgs,
    audit: Option<&AuditTarget>,
    asks: bool,
    output: Format,
) -> anyhow::Result<u8> {
    let plan = PlanFile::read(file)?;
    plan.check_scope(&opened.parts.scope)?;
    let rules = opened.parts.rules();
    check_writable(&rules)?;
    if rules.mode == Mode::Upsert && plan.removing > 0 {
        bail!(
            "the plan removes from {}, and mode upsert removes nothing; plan again in that mode",
            counted(plan.removing, "twin")
        );
    }
    ask_guards(&plan, &rules.guards, &approvals.parse(&opened.parts.name, &plan.revision)?)?;
    let state = declared_now(&opened)?;
    if asks && plan.removing > 0 && !confirmed(&losing(plan.removing))? {
        bail!("nothing was applied; say --yes to apply the plan with its removals");
    }
    let order = PlannedOrder {
        scope: opened.parts.scope.clone(),
        revision: plan.revision.clone(),
        writes: plan.writes.clone(),
        state,
        unix_now: wall_clock().as_second(),
    };
    let (progress, colour) = (progress(&opened, audit), opened.colour);
    let work = async |cancel| apply_plan_once(opened.parts, order, audit, &progress, cancel).await;
    let (results, _) = until_stopped(work).await?;
    let results = results?;
    let good = |written: &Written| matches!(written, Written::Applied | Written::Before);
    let all_good = plan.left.is_empty() && results.values().all(good);
    let mut out = Output::coloured_stdout(colour).beside_the_work();
    match output {
        Format::Text => tell(&plan, &results, &mut out),
        Format::Json => out.json(&document(&plan, &results, all_good)),
    }
    Ok(u8::from(!all_good))
}

/// The manifests as they are by now, for what they suspend; nothing where no folder of them is known.
fn declared_now(opened: &Opened) -> anyhow::Result<Arc<DeclaredState>> {
    if opened.parts.settings.manifests.as_os_str().is_empty() {
        return Ok(Arc::default());
    }
    let (snapshot, _) = load(&opened.parts).context(
        "nothing was applied: the manifests say which twins are suspended by now; name their folder with --manifests",
    )?;
    Ok(snapshot.state)
}

/// Refuses a plan that does more than the guards of these settings let pass: it is applied whole or not at all. An
/// approval that lets nothing pass is a mistake worth telling.
fn ask_guards(plan: &PlanFile, limits: &GuardLimits, approvals: &[Approval]) -> anyhow::Result<()> {
    if approvals.iter().any(|approval| approval.guard == GuardKind::Shape) {
        bail!(
            "--approve: what a kept plan does to the leaves of others was settled when it was made; give the approval \
             of shape to `geminid plan --out FILE`"
        );
    }
    let registering = plan.writes.iter().filter(|write| write.create).count();
    let mut needed = Vec::new();
    for (guard, limit, count, verb) in [
        (GuardKind::Removals, limits.of_removals(), plan.removing, "lose something"),
        (GuardKind::Creates, limits.of_creates(), registering, "be registered"),
        (GuardKind::Updates, limits.of_updates(), plan.updating, "be changed"),
    ] {
        let empty = guard == GuardKind::Removals && plan.fleet == 0;
        let (guard, allowed) = if empty { (GuardKind::Empty, 0) } else { (guard, limit.allowed(plan.fleet)) };
        // A guard of all the fleet holds nothing, as in the daemon.
        let open = limit.share >= 1.0 && guard != GuardKind::Removals && guard != GuardKind::Empty;
        if open || count <= allowed {
            continue;
        }
        needed.push(guard);
        let approved = approvals.iter().filter(|approval| approval.guard == guard).map(|approval| approval.count).max();
        if count > approved.unwrap_or_default() {
            let revision = &plan.revision;
            bail!(
                "{} would {verb} and the guard {guard} lets {allowed} pass; nothing was applied; \
                 --approve '{guard}/{revision}/{count}' lets it pass",
                counted(count, "twin")
            );
        }
    }
    match approvals.iter().find(|approval| !needed.contains(&approval.guard)) {
        Some(Approval { guard, .. }) => {
            bail!("--approve: the guard {guard} holds nothing of this plan; leave its approval out")
        }
        None => Ok(()),
    }
}

fn sentence(written: &Written) -> String {
    writing::sentence(written, "it was planned; plan again", "apply the same file again")
}

fn tell<W: std::io::Write>(plan: &PlanFile, results: &BTreeMap<TwinRef, Written>, out: &mut Output<W>) {
    for (twin, written) in results {
        match written {
            Written::Applied | Written::Before => {}
            Written::Moved | Written::Held(_) | Written::Stopped | Written::Failed(_) => {
                out.styled(Style::Trouble, &format!("{twin}: {}", sentence(written)));
            }
        }
    }
    plan.left.iter().for_each(|(twin, reason)| {
        out.styled(Style::Trouble, &format!("{twin}: not in the plan, because {reason}"));
    });
    let count = |wanted: &str| results.values().filter(|written| written.as_str() == wanted).count();
    let kinds = [
        ("applied", "applied"),
        ("applied_before", "applied before"),
        ("refused", "refused"),
        ("held", "held"),
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

fn document(plan: &PlanFile, results: &BTreeMap<TwinRef, Written>, in_sync: bool) -> Json {
    let one = |(twin, written): (&TwinRef, &Written)| json!({ "twin": twin.to_string(), "result": written.as_str(), "message": sentence(written) });
    let left = |(twin, reason): (&TwinRef, &String)| json!({ "twin": twin.to_string(), "reason": reason });
    json!({
        "formatVersion": FORMAT_VERSION,
        "owner": plan.owner,
        "host": plan.host,
        "revision": plan.revision,
        "inSync": in_sync,
        "twins": results.iter().map(one).collect::<Vec<Json>>(),
        "left": plan.left.iter().map(left).collect::<Vec<Json>>(),
    })
}
