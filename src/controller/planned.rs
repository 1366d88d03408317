//! A plan made before, applied as it is: no new decision, twin by twin.
//!
//! Invariants: every write is guarded by the etag that the plan was made on, so a twin that somebody wrote since is
//! refused, never merged into. What was applied already is found so, and not written again: applying twice is applying
//! once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::hub::{HubError, WriteTwins};
use crate::twin::{ETag, MergePatch, Section, Twin, TwinRef};

/// Writes under way at one time.
const WRITES_MAX: usize = 16;

/// One write of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedWrite {
    /// Whose twin.
    pub twin: TwinRef,
    /// Whether the device is registered first.
    pub create: bool,
    /// The etag the patch was planned on; for a device to register, the one of its first twin.
    pub etag: ETag,
    /// What is written.
    pub patch: MergePatch,
}

/// How one write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The hub took it.
    Applied,
    /// The twin holds it already: this plan was applied before.
    Before,
    /// Somebody wrote the twin, or registered or deleted the device, since it was planned.
    Moved,
    /// Nothing was tried: the whole was stopped.
    Stopped,
    /// The hub did not take it.
    Failed(HubError),
}

/// Applies the writes, a bounded number at a time, and tells `each` of every one as it ends.
pub async fn apply_planned<H: WriteTwins + 'static>(
    hub: Arc<H>,
    writes: Vec<PlannedWrite>,
    mut each: impl FnMut(&TwinRef, &Written),
    cancel: &CancellationToken,
) -> BTreeMap<TwinRef, Written> {
    let mut results = BTreeMap::new();
    let mut tasks: JoinSet<(TwinRef, Written)> = JoinSet::new();
    let mut collect = |ended: (TwinRef, Written)| {
        each(&ended.0, &ended.1);
        results.insert(ended.0, ended.1);
    };
    for write in writes {
        if cancel.is_cancelled() {
            collect((write.twin, Written::Stopped));
            continue;
        }
        if tasks.len() == WRITES_MAX {
            next(&mut tasks).await.into_iter().for_each(&mut collect);
        }
        let hub = Arc::clone(&hub);
        tasks.spawn(async move { (write.twin.clone(), apply_one(&*hub, &write).await) });
    }
    while !tasks.is_empty() {
        next(&mut tasks).await.into_iter().for_each(&mut collect);
    }
    results
}

async fn next(tasks: &mut JoinSet<(TwinRef, Written)>) -> Option<(TwinRef, Written)> {
    match tasks.join_next().await? {
        Ok(ended) => Some(ended),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

async fn apply_one<H: WriteTwins>(hub: &H, write: &PlannedWrite) -> Written {
    if write.create {
        match hub.create_device(&write.twin.device).await {
            // A device that is there by now may be the one that this plan registered before.
            Ok(()) | Err(HubError::AlreadyExists(_)) => {}
            Err(error) => return Written::Failed(error),
        }
    }
    match hub.patch_twin(&write.twin, &write.patch, &write.etag).await {
        Ok(_) => Written::Applied,
        Err(HubError::NotFound(_)) => Written::Moved,
        Err(HubError::PreconditionFailed) => match hub.get_twin(&write.twin).await {
            Ok(live) if holds(&live, &write.patch) => Written::Before,
            Ok(_) | Err(HubError::NotFound(_)) => Written::Moved,
            Err(error) => Written::Failed(error),
        },
        Err(error) => Written::Failed(error),
    }
}

/// Whether the patch would change nothing: the seal in it included, so only this very plan can have been here.
fn holds(live: &Twin, patch: &MergePatch) -> bool {
    Section::ALL.into_iter().all(|section| live.section_after(section, patch) == *live.section(section))
}
