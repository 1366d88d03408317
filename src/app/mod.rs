//! The composition root: settings to parts to tasks to drain. All wiring, and nothing else.
//!
//! Invariants: every task lives in a `JoinSet` that is awaited; one token ends them all, and the order of ending is
//! the order of need: loops drain before the embedded hub under them stops.

mod check;
mod connect;
mod daemon;
mod descriptors;
mod logging;
mod pass;
mod progress;
mod shutdown;
mod source;
mod started;
mod trial;

pub use check::{Check, Needs, Standing, check_hub};
pub use connect::{
    HubParts, NO_HUB, PacedHub, default_rules, hub_file, hub_parts, manifest_rules, secret_file, wall_clock,
};
pub use daemon::{Announcement, EmbeddedAddresses, run_daemon};
pub use descriptors::allow_connections;
pub use logging::{Colour, LogOptions, start_logging};
pub use pass::{apply_once, apply_plan_once, run_hub, transfer_once};
pub use progress::{Counted, Progress, Work};
pub use shutdown::StopSignals;
pub use trial::try_queries;
