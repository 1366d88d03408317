//! A write whose answer was lost, and what a later read tells of it.
//!
//! Invariant: pure. The etag tells whether anything was written, the seal whose write it was.

use super::line::Found;
use crate::plan::SealState;
use crate::twin::{ETag, MergePatch, Object, Section, Twin, Value, merge};

/// Unanswered writes of one twin that are told of together; later ones only have their own lines.
const WRITES_MAX: usize = 32;

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    /// A patch, guarded by `before` and foretold to produce `after`.
    Patch { before: ETag, after: Option<ETag>, patch: MergePatch },
    /// The registration of a device.
    Create,
}

impl Sent {
    fn guard(&self) -> Option<&ETag> {
        match self {
            Self::Patch { before, .. } => Some(before),
            Self::Create => None,
        }
    }
}

/// The writes of one twin of which nothing is known yet. All but the last were guarded by the same etag as the last, so
/// at most one of them can have landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unanswered {
    /// The names of the writes.
    pub(super) writes: Vec<String>,
    sent: Sent,
    /// Whether it was said already that they had not landed.
    told: bool,
}

impl Unanswered {
    pub(super) fn new(write: String, sent: Sent) -> Self {
        Self { writes: vec![write], sent, told: false }
    }

    /// One more write without an answer. Earlier ones that had another etag to guard them can land no more.
    pub(super) fn again(&mut self, write: String, sent: Sent) {
        if self.sent.guard() != sent.guard() {
            self.writes.clear();
        }
        if self.writes.len() < WRITES_MAX {
            self.writes.push(write);
        }
        self.sent = sent;
        self.told = false;
    }

    /// Whether it was said that they had not landed.
    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// What a read tells, unless it was told already, and whether that is the last word: a write guarded by an etag that
    /// still stands may yet arrive.
    pub(super) fn found(&mut self, live: Option<&Twin>, owner: &str) -> (Option<Found>, bool) {
        let (found, settled) = match (&self.sent, live) {
            (Sent::Create, Some(_)) => (Found::Landed, true),
            (Sent::Create, None) => (Found::NotLanded, false),
            (Sent::Patch { .. }, None) => (Found::Gone, true),
            (Sent::Patch { before, .. }, Some(live)) if live.etag == *before => (Found::NotLanded, false),
            (Sent::Patch { after, patch, .. }, Some(live)) => match landed(live, after.as_ref(), patch, owner) {
                true => (Found::Landed, true),
                false => (Found::NotLanded, true),
            },
        };
        let news = found != Found::NotLanded || !self.told;
        self.told |= found == Found::NotLanded;
        (news.then_some(found), settled)
    }
}

/// Whether the twin, written by somebody since, has what was sent: our seal foretells the etag of its own write, and no
/// other write puts that one there.
fn landed(live: &Twin, after: Option<&ETag>, patch: &MergePatch, owner: &str) -> bool {
    let seal = SealState::read(live, owner);
    let foretold = seal.seal().and_then(|seal| seal.etag.as_deref());
    let sealed = after.is_some_and(|after| foretold == Some(after.as_str()));
    sealed || Section::ALL.into_iter().all(|section| has(live.section(section), patch.section(section)))
}

/// Whether `patch` would change nothing of `object`.
fn has(object: &Object, patch: Option<&Object>) -> bool {
    let whole = Value::Object(object.clone());
    patch.is_none_or(|patch| merge(whole.clone(), patch) == whole)
}
