//! Our own port: `/metrics`, `/livez`, `/readyz`, and the status API beneath `/api/v1`.
//!
//! Invariant: beside `api`, nothing in here asks a hub or reads a file. `/metrics` shows what is in memory and is 200 as long as the
//! process lives; a hub's own state is a metric, never readiness (`DESIGN.md` 4.11).

pub mod api;
mod listener;
mod readiness;
mod router;
mod serve;

pub use readiness::Readiness;
pub use router::{Ops, router};
pub use serve::serve;
