//! Our own port: `/metrics`, `/livez`, `/readyz`, and the status API beneath `/api/v1`.
//!
//! Invariant: beside those of `api`, no answer asks a hub or reads a file; [`Access`] reads its own when told to. `/metrics` shows what is in
//! memory and is 200 as long as the process lives; a hub's own state is a metric, never readiness (`DESIGN.md` 4.11).

mod access;
#[cfg(test)]
mod access_tests;
pub mod api;
mod body;
mod digest;
#[cfg(test)]
mod doc_tests;
mod listener;
mod readiness;
mod router;
mod serve;
mod tls;
mod web_config;

pub use access::{Access, AccessFiles};
pub use readiness::Readiness;
pub use router::{Ops, router};
pub use serve::serve;
pub use web_config::WebConfigError;
