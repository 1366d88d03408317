//! The reconcile loop among others who write: people, other owners, a hub that fails, and Git changing under it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up fails")]

mod approving;
mod biting;
mod fleet;
mod guarding;
mod histories;
mod modes;
mod owned;
mod ownership;
mod quarrels;
mod repository;
mod witness;
