//! The reconcile loop on hubs in memory, on a paused clock: its pace, and what becomes of one bad twin.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up fails")]

mod fleet;
mod pace;
mod throttled;
mod workers;
