//! Twin queries on their own schedule, and what they gave last.
//!
//! Invariant: a scrape never causes a query (`metrics.md` section 2). A run is all or nothing: its series are swapped
//! whole after the last page. A failed run leaves the last good series until they are stale, then withdraws them;
//! it never zeroes them. Every hub has an exporter of its own, and a hub that is down costs the others nothing.

mod along;
mod health;
mod once;
mod published;
mod read;
mod rendered;
mod run;
mod schedule;
mod state;

pub use along::wanted_columns;
pub use once::{Trial, run_once};
pub use published::{Exposition, Published};
pub use run::{Inputs, run};

#[cfg(test)]
mod tests;
