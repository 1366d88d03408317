//! What people ask of a running loop.
//!
//! Invariants: a command changes only what the loop itself would come to: it puts twins into the queue, lets a guard
//! pass what was looked at, or is written into the seal. The line of commands is bounded; every command is answered,
//! or its asker is told that the loop has ended.

use tokio::sync::{mpsc, oneshot, watch};

use super::answer::{Approved, Overview, Page, Refused};
use super::asked::Request;
use super::explain::Explained;
use crate::hub::SweepAlong;
use crate::plan::{Approval, DeclaredState};
use crate::twin::TwinRef;

/// Commands that wait for the loop at one time; whoever comes later waits for room.
const WAITING_MAX: usize = 64;
/// Something asked of the loop.
#[derive(Debug)]
pub enum Command {
    /// Let a guard pass what was looked at.
    Approve {
        /// What was looked at.
        approval: Approval,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Approved, Refused>>,
    },
    /// Reconcile this twin now, or sweep now.
    Reconcile {
        /// The twin; `None` for a sweep.
        twin: Option<TwinRef>,
        /// What its asker knows the request by.
        token: String,
        /// Told once it is in the queue.
        reply: oneshot::Sender<Result<(), Refused>>,
    },
    /// How a request to reconcile stands.
    Request {
        /// What its asker knows it by.
        token: String,
        /// Where the answer goes; `None` for one that is not remembered.
        reply: oneshot::Sender<Option<Request>>,
    },
    /// One twin leaf by leaf, from a read of it.
    Explain {
        /// The twin.
        twin: TwinRef,
        /// Where the answer goes: what was found out, or what stopped the read.
        reply: oneshot::Sender<Result<Result<Explained, String>, Refused>>,
    },
    /// Leave this twin alone from now on, recorded in its seal; or, without a reason, no longer.
    Suspend {
        /// The twin.
        twin: TwinRef,
        /// Why; `None` to go on with it.
        reason: Option<String>,
        /// Told once the seal says so.
        reply: oneshot::Sender<Result<(), Refused>>,
    },
    /// How the hub and some of its twins stand.
    Overview {
        /// Which twins.
        page: Page,
        /// Where the answer goes.
        reply: oneshot::Sender<Overview>,
    },
}

/// The loop has ended; nobody follows commands any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the loop of this hub has ended")]
pub struct LoopEnded;

/// The end of the line that people hold. Clones share it.
#[derive(Debug, Clone)]
pub struct Commands(mpsc::Sender<Command>);

impl Commands {
    /// A line with its other end, for [`Inputs`].
    #[must_use]
    pub fn line() -> (Self, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Lets a guard pass what was looked at.
    ///
    /// # Errors
    /// [`LoopEnded`]; the inner one when the approval is about something else than what is held now.
    pub async fn approve(&self, approval: Approval) -> Result<Result<Approved, Refused>, LoopEnded> {
        self.ask(|reply| Command::Approve { approval, reply }).await
    }

    /// Reconciles a twin now, or sweeps now; `token` names the request.
    ///
    /// # Errors
    /// [`LoopEnded`]; the inner one for a twin that is not managed.
    pub async fn reconcile(&self, twin: Option<TwinRef>, token: String) -> Result<Result<(), Refused>, LoopEnded> {
        self.ask(|reply| Command::Reconcile { twin, token, reply }).await
    }

    /// How a request to reconcile stands; `None` for one that is not remembered.
    ///
    /// # Errors
    /// [`LoopEnded`].
    pub async fn request(&self, token: &str) -> Result<Option<Request>, LoopEnded> {
        self.ask(|reply| Command::Request { token: token.to_owned(), reply }).await
    }

    /// One twin leaf by leaf, from a read of it; the innermost error is what stopped the read.
    ///
    /// # Errors
    /// [`LoopEnded`]; the inner one when too many twins are being explained.
    pub async fn explain(&self, twin: TwinRef) -> Result<Result<Result<Explained, String>, Refused>, LoopEnded> {
        self.ask(|reply| Command::Explain { twin, reply }).await
    }

    /// Leaves a twin alone from now on, in this process and in every later one: its seal says so, and why.
    ///
    /// # Errors
    /// [`LoopEnded`]; the inner one when it could not be written.
    pub async fn suspend(&self, twin: TwinRef, reason: String) -> Result<Result<(), Refused>, LoopEnded> {
        self.ask(|reply| Command::Suspend { twin, reason: Some(reason), reply }).await
    }

    /// Goes on with a twin that [`suspend`](Self::suspend) stopped. What manifest or settings suspend stays so.
    ///
    /// # Errors
    /// [`LoopEnded`]; the inner one when it could not be written.
    pub async fn resume(&self, twin: TwinRef) -> Result<Result<(), Refused>, LoopEnded> {
        self.ask(|reply| Command::Suspend { twin, reason: None, reply }).await
    }

    /// How the hub and some of its twins stand.
    ///
    /// # Errors
    /// [`LoopEnded`].
    pub async fn overview(&self, page: Page) -> Result<Overview, LoopEnded> {
        self.ask(|reply| Command::Overview { page, reply }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, LoopEnded> {
        let (reply, answer) = oneshot::channel();
        self.0.send(command(reply)).await.map_err(|_| LoopEnded)?;
        answer.await.map_err(|_| LoopEnded)
    }
}

/// What a loop follows.
#[derive(Debug)]
pub struct Inputs {
    /// The declared state; holds a loaded one from the start.
    pub declared: watch::Receiver<std::sync::Arc<DeclaredState>>,
    /// Commands of people; `None` where nobody can give any.
    pub commands: Option<mpsc::Receiver<Command>>,
    /// Who reads along with the sweeps; `None` where nobody does.
    pub along: Option<SweepAlong>,
}

impl From<watch::Receiver<std::sync::Arc<DeclaredState>>> for Inputs {
    fn from(declared: watch::Receiver<std::sync::Arc<DeclaredState>>) -> Self {
        Self { declared, commands: None, along: None }
    }
}
