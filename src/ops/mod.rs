//! Our own port: `/metrics`, `/livez`, `/readyz`.
//!
//! Invariant: nothing in here asks a hub or reads a file. `/metrics` shows what is in memory and is 200 as long as the
//! process lives; a hub's own state is a metric, never readiness (`DESIGN.md` 4.11).

mod listener;
mod readiness;
mod router;
mod serve;

pub use readiness::Readiness;
pub use router::{Ops, router};
pub use serve::serve;
