//! `geminid apply`.

use anyhow::bail;
use clap::Args;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::args::{Access, FleetArgs};
use super::output::{Output, counted};
use super::validate::load;
use crate::app::{StopSignals, apply_once};
use crate::controller::{AuditTarget, Statuses};
use crate::plan::{Synced, TwinState};
use crate::settings::parse_audit_log;

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// Where to record every write, one JSON line each: stdout or a file [default: nowhere]
    #[arg(long, value_name = "FILE")]
    audit_log: Option<String>,
    #[command(flatten)]
    fleet: FleetArgs,
}

/// Makes one pass: 0 when every twin is in sync, 1 when not.
pub(super) async fn run(args: ApplyArgs) -> anyhow::Result<u8> {
    let given = args.audit_log.map(|text| parse_audit_log("--audit-log", text)).transpose()?;
    let opened = args.fleet.open(Access::Owner)?;
    let audit = given.or(opened.audit_log).map(|text| AuditTarget::parse(&text));
    let parts = opened.parts;
    let (snapshot, problems) = load(&parts.settings.manifests)?;
    let (cancel, ended) = (CancellationToken::new(), CancellationToken::new());
    let mut obeying = JoinSet::new();
    obeying.spawn(StopSignals::catch()?.obey(cancel.clone(), ended.clone()));
    let result = apply_once(parts, snapshot.state, audit.as_ref(), cancel.clone()).await;
    ended.cancel();
    while obeying.join_next().await.is_some() {}
    let statuses = result?.statuses;
    if cancel.is_cancelled() {
        bail!("stopped before every twin was tried; apply again to go on");
    }
    let in_sync = tell(&statuses);
    Ok(u8::from(!in_sync || problems > 0))
}

/// The twins that are not in sync, and the counts. Answers whether all are.
fn tell(statuses: &Statuses) -> bool {
    let mut out = Output::stdout();
    for (twin, status) in statuses.iter() {
        if let Some(condition) = status.outcome.condition().filter(|condition| condition.synced != Synced::True) {
            out.line(&format!("{twin}: {}: {}", condition.reason, status.message));
        }
    }
    let in_sync = statuses.count(TwinState::InSync);
    out.line(&format!("{} in sync, {} not", counted(in_sync, "twin"), statuses.len() - in_sync));
    in_sync == statuses.len()
}
