//! How one hub is reconciled.
//!
//! Invariant: plain data, set once before the loop begins.

use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::audit::AuditLog;
use super::journal::Journal;
use crate::plan::{Policy, SealScope};

/// How one hub is reconciled.
#[derive(Debug, Clone)]
pub struct Options {
    /// The hub's name in logs and labels.
    pub hub: String,
    /// Our seals.
    pub scope: SealScope,
    /// Time from one sweep to the next.
    pub sweep: Duration,
    /// Every sealed twin is read again within this time.
    pub verify: Duration,
    /// What may be done at all: mode, guards, suspension.
    pub policy: Policy,
    /// The most reconciles at one time.
    pub workers: usize,
    /// One pass only: end when every twin was tried.
    pub single_pass: bool,
    /// Cancelled once the hub has been asked something, whatever it said.
    pub first_contact: CancellationToken,
    /// What is recorded of every write.
    pub audit: AuditLog,
    /// What happened lately, for people who ask.
    pub journal: Journal,
    /// The wall clock, for the daily quota.
    pub wall_clock: fn() -> SystemTime,
}
