//! The reconcile loop: a queue of names, bounded workers, a periodic sweep.
//!
//! Invariants: a queue entry is a `TwinRef`; no event carries state into a reconcile, every reconcile reads anew.
//! All retries live in the queue. Dropping the loop at any await loses nothing: the next one converges from the live
//! twins alone.

mod access;
mod answer;
mod asked;
mod audit;
mod backoff;
mod change;
mod chorus;
mod command;
mod context;
mod events;
mod explain;
mod gate;
mod health;
mod in_turn;
mod journal;
mod loop_state;
mod marks;
mod obey;
mod options;
mod pacing;
mod permit;
mod planned;
mod queue;
mod reconcile;
mod report;
mod rivals;
mod run;
mod status;
mod survey;
mod sweep;
mod sweeping;
mod transfer;
mod wish;

pub use answer::{Approved, GuardHold, Overview, Page, REPORTS_MAX, Refused, TwinReport};
pub use asked::{Request, RequestState};
pub use audit::{AuditLog, AuditTarget, AuditWriter, Recording};
pub use backoff::{Circumstances, Requeue, next as next_try};
pub use command::{Command, Commands, Inputs, LoopEnded};
pub use explain::{Explained, ExplainedLeaf, Holder};
pub use journal::{Event, Journal};
pub use options::Options;
pub use planned::{PlannedLeaf, PlannedOrder, PlannedWrite, Written, apply_planned};
pub use queue::{Lane, Queue, Taken};
pub use reconcile::Reconciled;
pub use run::{Ended, observe, run};
pub use status::{Statuses, TwinStatus};
pub use survey::{Judge, PlannedTwin, Surveyed, survey};
pub use transfer::{TransferOrder, survey_transfer, transfer};
