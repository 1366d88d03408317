//! What the workers and the sweep of one hub share, and what a worker is given.
//!
//! Invariant: a lock is held for a look or a note, never over a request. A worker that panicked while it held one leaves
//! what is still good.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::audit::Auditor;
use super::gate::Gate;
use super::queue::Lane;
use super::wish::Wish;
use crate::hub::{AlongColumns, HubError, Paced, SweepAlong, SweepNews};
use crate::plan::{Declaration, DeclaredHashes, DeclaredState, Restraint, SealScope, Verified, declare_since};
use crate::twin::{Twin, TwinMap, TwinRef};

/// Everything a reconcile needs; shared by the workers of one hub.
#[derive(Debug)]
pub(super) struct Context<H> {
    pub(super) hub: H,
    pub(super) scope: SealScope,
    /// What is recorded of every write.
    pub(super) audit: Auditor,
    pub(super) gate: Mutex<Gate>,
    /// What this process last saw of each twin.
    pub(super) memory: Mutex<TwinMap<Verified>>,
    /// What is declared of each twin as a hash, for the next sweep; the one under way holds it.
    pub(super) hashes: Mutex<DeclaredHashes>,
    pub(super) started: Instant,
    /// Seconds since 1970 at that time.
    pub(super) started_unix: i64,
    /// Rows that the present sweep has read so far.
    pub(super) rows_swept: AtomicUsize,
    /// Who reads along with the sweeps.
    pub(super) along: Option<SweepAlong>,
    /// The wall clock, for suspensions that end.
    pub(super) wall_clock: fn() -> SystemTime,
}

impl<H> Context<H> {
    /// Seconds since 1970.
    pub(super) fn unix_now(&self) -> i64 {
        unix_seconds((self.wall_clock)())
    }

    /// The age of the process.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The columns that who reads along wants of the next sweep.
    pub(super) fn along(&self) -> Arc<AlongColumns> {
        self.along.as_ref().map(SweepAlong::wanted).unwrap_or_default()
    }

    /// Tells who reads along, if somebody does.
    pub(super) async fn tell(&self, news: SweepNews) {
        if let Some(along) = &self.along {
            along.tell(news).await;
        }
    }

    /// The declared state to plan on.
    pub(super) fn state(&self) -> Arc<DeclaredState> {
        self.gate().state()
    }

    /// The state to plan on, and what it declares for a twin just read.
    pub(super) fn declare(&self, live: &Twin) -> (Arc<DeclaredState>, Declaration) {
        let (state, former) = {
            let gate = self.gate();
            (gate.state(), gate.former(&live.twin_ref))
        };
        let declaration = declare_since(&state, former.as_deref(), &live.twin_ref, live);
        self.gate().judged(&live.twin_ref, &state, &declaration);
        (state, declaration)
    }

    /// The memory; see [`gate`](Self::gate) for a panicked worker.
    pub(super) fn memory(&self) -> MutexGuard<'_, TwinMap<Verified>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hashes; a sweep that was stopped or panicked leaves none, and the next one makes them anew.
    pub(super) fn hashes(&self) -> MutexGuard<'_, DeclaredHashes> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gate; a worker that panicked while it held it leaves counts that are still good.
    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Paced> Context<H> {
    /// The hub as it is asked for a twin of `lane`.
    pub(super) fn hub(&self, lane: Lane) -> H {
        self.hub.in_lane(lane.of_budget())
    }
}

/// Seconds since 1970 at `time`.
pub(super) fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// What a worker is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) twin: TwinRef,
    pub(super) lane: Lane,
    /// Whether this process has seen the twin since its manifest last changed: then it is not created again.
    pub(super) seen: bool,
    /// What the hub said when it refused the last write: the same write is not sent again.
    pub(super) rejection: Option<HubError>,
    /// What is left alone because of others.
    pub(super) restraint: Restraint,
    /// A suspension that somebody wants recorded, or ended.
    pub(super) wish: Option<Wish>,
}
