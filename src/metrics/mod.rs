//! Our own instruments: what geminid says about itself (`metrics.md` section 7), a struct a subsystem.
//!
//! Invariant: floor 4, imports nothing of ours, and there is no global registry. The crate `prometheus` keys the
//! series of a `*Vec` by a hash of the label values without a separator (`metrics.md` 1.3), so a `*Vec` has at most
//! one label with open values, that label stands first, and no combination of the closed values behind it is a suffix
//! of another one. Every closed combination exists with 0 from the start.
//!
//! Cheap handles are made once and kept by who counts: `metrics.controller.hub("prod").patched(Target::Tags)`.
//! Where a text says when something happened, the time is an argument.

mod budget;
mod client;
mod controller;
mod instrument;
mod label;
mod ops;
mod process;
mod register;
mod source;
mod sweep;

pub use budget::{BudgetHub, BudgetMetrics};
pub use client::{ClientHub, ClientMetrics, InFlight};
pub use controller::{ControllerHub, ControllerMetrics, QueueHandle};
pub use instrument::PREFIX;
pub use label::{AuditResult, SweepKind, Target, Task, TwinKind, TwinState};
pub use label::{Code, Guard, Handler, Label, Level, ManifestKind, ManifestState, Operation, Reason};
pub use ops::OpsMetrics;
pub use process::ProcessMetrics;
pub use register::Metrics;
pub use source::{SourceHub, SourceMetrics};
pub use sweep::SweepHandle;
