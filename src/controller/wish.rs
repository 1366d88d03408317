//! Suspensions at run time that somebody wants, until they were tried.
//!
//! Invariant: whoever asked is answered once, by the worker that took the wish.

use tokio::sync::oneshot;

use super::answer::Refused;

/// A suspension at run time: why, or `None` for its end.
pub(super) type Wish = Option<String>;

/// Where the answer goes.
pub(super) type Reply = oneshot::Sender<Result<(), Refused>>;

/// A suspension, or its end, that is to be written.
#[derive(Debug)]
pub(super) struct PendingWish {
    pub(super) reason: Wish,
    /// Whether a worker has taken it.
    pub(super) begun: bool,
    pub(super) reply: Reply,
}

impl PendingWish {
    /// Hands the wish to a worker.
    pub(super) fn begin(&mut self) -> Wish {
        self.begun = true;
        self.reason.clone()
    }
}
