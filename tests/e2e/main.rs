//! The real binary, from the outside: processes, files, HTTP, signals.
//!
//! Invariants: free ports only, temporary folders only, and every process is ended by its own id.

#![expect(clippy::unwrap_used, reason = "a test unwraps, and so do its helpers")]

mod api;
mod bad_input;
mod canary;
mod checks;
mod credentials;
mod devices;
mod docs;
mod drain;
mod exports;
mod fleet;
mod flips;
mod forms;
mod hubs;
mod kill;
mod mistakes;
mod pictures;
mod plans;
mod readme;
mod stranger;
mod support;
mod terminal;
mod transfers;
mod verbs;
