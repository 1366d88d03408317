//! The audit log: one JSON line a write.
//!
//! ```text
//!   reconcile -> Auditor::patch() -> Attempt -- answered --> line: applied | refused | unknown
//!                                        `----- dropped ---> line: unknown
//!   the next read of that twin -> Auditor::read() ---------> line: landed | not_landed | gone
//! ```
//!
//! Invariants: a write that was sent has a line, whatever becomes of its answer; a line says only what is known when it
//! is written, and what is found out later is a line of its own that names the write. Sensitive values are hashed before
//! they get here. The log never stops a write: lines that cannot be written are counted and told.

mod file;
mod line;
mod log;
mod unanswered;

pub use log::{AuditLog, AuditTarget, AuditWriter};

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use line::{Found, Line, Outcome};
use unanswered::{Sent, Unanswered};

use super::queue::Lane;
use crate::hub::HubError;
use crate::plan::{SealScope, Transfer, TransferPlan, TwinPlan};
use crate::twin::{MergePatch, Twin, TwinRef, TwinTrace};

/// What the loop of one hub records.
#[derive(Debug)]
pub(super) struct Auditor {
    hub: String,
    owner: String,
    log: AuditLog,
    wall_clock: fn() -> SystemTime,
    /// Writes without an answer, until a read of the twin tells what became of them.
    unanswered: Mutex<BTreeMap<TwinRef, Unanswered>>,
}

/// Where the writes of a command are recorded.
#[derive(Debug, Clone)]
pub struct Recording {
    /// The hub's name in the lines.
    pub hub: String,
    /// The lines' place.
    pub log: AuditLog,
    /// The clock of the lines.
    pub wall_clock: fn() -> SystemTime,
}

/// Why a write is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Occasion<'a> {
    /// The revision of the manifests planned on.
    pub(super) revision: &'a str,
    /// What the twin waited for.
    pub(super) lane: Lane,
}

impl Recording {
    /// Who records the writes of the owner of `scope`.
    pub(super) fn auditor(self, scope: &SealScope) -> Auditor {
        Auditor::new(&self.hub, scope, self.log, self.wall_clock)
    }
}

impl Auditor {
    pub(super) fn new(hub: &str, scope: &SealScope, log: AuditLog, wall_clock: fn() -> SystemTime) -> Self {
        let (hub, owner) = (hub.to_owned(), scope.owner.to_string());
        Self { hub, owner, log, wall_clock, unanswered: Mutex::default() }
    }

    /// A patch is about to be sent, planned on `live`. The attempt records itself when it is answered or dropped.
    pub(super) fn patch<'a>(
        &'a self,
        occasion: Occasion<'a>,
        live: &'a Twin,
        plan: &'a TwinPlan,
        patch: &'a MergePatch,
    ) -> Attempt<'a> {
        self.attempt(&live.twin_ref, || {
            let sent = Sent::Patch { before: live.etag.clone(), after: plan.etag_after.clone(), patch: patch.clone() };
            (Line::patch(&self.owner, occasion, live, plan), sent)
        })
    }

    /// A patch is about to be sent that moves paths of `live` from one seal to another, or gives ours up.
    pub(super) fn transfer<'a>(
        &'a self,
        revision: &str,
        transfer: &Transfer,
        live: &'a Twin,
        plan: &TransferPlan,
        patch: &MergePatch,
    ) -> Attempt<'a> {
        self.attempt(&live.twin_ref, || {
            let (before, after) = (live.etag.clone(), plan.plan.etag_after.clone());
            let line = Line::transfer(&self.owner, revision, transfer, live, plan);
            (line, Sent::Patch { before, after, patch: patch.clone() })
        })
    }

    /// A device is about to be registered.
    pub(super) fn create<'a>(&'a self, occasion: Occasion<'a>, twin: &'a TwinRef) -> Attempt<'a> {
        self.attempt(twin, || (Line::create(&self.owner, occasion, twin), Sent::Create))
    }

    /// The twin was read, or does not exist: what became of writes to it that were not answered.
    pub(super) fn read(&self, twin: &TwinRef, live: Option<&Twin>) {
        let mut unanswered = self.unanswered();
        let Some(known) = unanswered.get_mut(twin) else { return };
        let (found, settled) = known.found(live, &self.owner);
        if let Some(found) = found {
            self.log.write(|| self.line_of(twin, known, found, live).text(&self.hub, (self.wall_clock)()));
        }
        if settled {
            unanswered.remove(twin);
        }
    }

    /// Where nothing is recorded, nothing is made to be.
    fn attempt<'a>(&'a self, twin: &'a TwinRef, made: impl FnOnce() -> (Line, Sent)) -> Attempt<'a> {
        let line = self.log.next_write().map(|write| {
            let (line, sent) = made();
            (line.about(vec![write]), sent)
        });
        Attempt { auditor: self, twin, line }
    }

    fn line_of(&self, twin: &TwinRef, known: &Unanswered, found: Found, live: Option<&Twin>) -> Line {
        Line::found(&self.owner, twin, found, live).about(known.writes.clone())
    }

    fn record(&self, twin: &TwinRef, mut line: Line, sent: Sent, answer: &Answer<'_>) {
        let outcome = match answer {
            Answer::Applied(_) => Outcome::Applied,
            Answer::Failed(error) => match Outcome::of_error(error) {
                Some(outcome) => outcome,
                // Nothing was written and the queue tries again: 412, 429, a quota.
                None => return,
            },
            Answer::None => Outcome::Unknown,
        };
        line.answered(outcome, answer);
        let mut unanswered = self.unanswered();
        if outcome == Outcome::Unknown {
            let write = line.writes.first().cloned().unwrap_or_default();
            match unanswered.get_mut(twin) {
                Some(known) => known.again(write, sent),
                None => drop(unanswered.insert(twin.clone(), Unanswered::new(write, sent))),
            }
        } else if outcome == Outcome::Applied
            && let Some(earlier) = unanswered.remove(twin).filter(|earlier| !earlier.is_told())
        {
            // The etag still was the one before the earlier write, so that had not landed.
            self.log
                .write(|| self.line_of(twin, &earlier, Found::NotLanded, None).text(&self.hub, (self.wall_clock)()));
        }
        drop(unanswered);
        self.log.write(|| line.text(&self.hub, (self.wall_clock)()));
    }

    fn unanswered(&self) -> MutexGuard<'_, BTreeMap<TwinRef, Unanswered>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a write once it was sent.
pub(super) enum Answer<'a> {
    /// The hub took it; a patch answers the trace of the twin after it.
    Applied(Option<&'a TwinTrace>),
    /// The hub, or the way to it, failed.
    Failed(&'a HubError),
    /// Nobody waited for the answer.
    None,
}

/// A write under way.
pub(super) struct Attempt<'a> {
    auditor: &'a Auditor,
    twin: &'a TwinRef,
    line: Option<(Line, Sent)>,
}

impl Attempt<'_> {
    /// The hub answered, or did not.
    pub(super) fn answered<T>(mut self, result: &Result<T, HubError>, after: impl FnOnce(&T) -> Option<&TwinTrace>) {
        let Some((line, sent)) = self.line.take() else { return };
        let answer = match result {
            Ok(done) => Answer::Applied(after(done)),
            Err(error) => Answer::Failed(error),
        };
        self.auditor.record(self.twin, line, sent, &answer);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some((line, sent)) = self.line.take() {
            self.auditor.record(self.twin, line, sent, &Answer::None);
        }
    }
}
