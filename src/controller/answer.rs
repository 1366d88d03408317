//! What the loop answers to the people who ask it something.
//!
//! Invariant: plain data; an answer holds no more than [`REPORTS_MAX`] twins.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::hub::Allowance;
use crate::plan::{Approval, Condition, DeclaredHash, GuardKind, TwinState};
use crate::twin::TwinRef;

/// Twins in one [`Overview`].
pub const REPORTS_MAX: usize = 1_000;

/// Which twins an [`Overview`] is about; in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The first ones after this twin; `None` from the beginning.
    pub after: Option<TwinRef>,
    /// This twin alone.
    pub only: Option<TwinRef>,
    /// At most this many, and never more than [`REPORTS_MAX`].
    pub limit: usize,
}

/// A guard lets pass what was approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approved {
    /// The guard.
    pub guard: GuardKind,
    /// How many may pass.
    pub count: usize,
    /// When the approval ends.
    pub until: SystemTime,
}

/// Why a command was not followed: one sentence, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// How a hub stands, with some of its twins.
#[derive(Debug, Clone, PartialEq)]
pub struct Overview {
    /// The hub's name in the settings.
    pub hub: String,
    /// The revision of the declared state.
    pub revision: String,
    /// Whether the hub answers.
    pub up: bool,
    /// What may be asked of the hub now; all of it without a limit where no tier is set.
    pub allowance: Allowance,
    /// What guards hold now, each with why, and with what would let it pass if an approval can.
    pub holds: Vec<GuardHold>,
    /// Twins managed.
    pub total: usize,
    /// Twins by state; states without twins are left out.
    pub states: BTreeMap<TwinState, usize>,
    /// Twins that wait for a worker or for their next try.
    pub queue: usize,
    /// When the last complete sweep ended.
    pub last_sweep: Option<SystemTime>,
    /// How long until the next sweep; `None` while one runs.
    pub next_sweep: Option<Duration>,
    /// The token of the last request to reconcile that was acted on: for the one twin asked for, or else for all.
    pub handled: Option<String>,
    /// Those asked for, in order.
    pub twins: Vec<TwinReport>,
}

/// What one guard holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardHold {
    /// The guard.
    pub guard: GuardKind,
    /// Twins that wait for it.
    pub twins: usize,
    /// Why, in one sentence.
    pub message: String,
    /// What would let it pass.
    pub approve: Option<Approval>,
}

/// The `Synced` condition of one twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinReport {
    /// The twin.
    pub twin: TwinRef,
    /// Status, reason and state.
    pub condition: Condition,
    /// One sentence; empty when the reason says it all.
    pub message: String,
    /// The hash of what was declared when the twin was last known to have it; `None` before, or while something is
    /// held.
    pub observed: Option<DeclaredHash>,
    /// When the reason last changed.
    pub last_transition: SystemTime,
    /// Failed tries in a row.
    pub failures: u32,
    /// How long until it is tried again, if it waits in the queue.
    pub next_try: Option<Duration>,
}
