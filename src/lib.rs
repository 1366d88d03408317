//! geminid: GitOps for Azure IoT Hub device twins.
//!
//! The modules are floors; a module imports only from floors below it, and `tests/architecture.rs` keeps it so.
//!
//! ```text
//!   8  app                      wiring: settings -> parts -> tasks -> drain   (cli and main sit on it)
//!   7  ops                      /metrics /livez /readyz
//!   6  controller   exporter   emulator   device
//!   5  hub          source
//!   4  metrics      settings
//!   3  manifest                 text -> declared state           |
//!   2  plan         series      declared + live -> plan          |  pure: no I/O, no clock,
//!   1  query                    the twin query language          |  no randomness, no logging
//!   0  twin                     ids, values, patches, limits     |
//! ```

pub mod app;
pub mod cli;
pub mod controller;
pub mod device;
pub mod emulator;
pub mod exporter;
pub mod hub;
pub mod manifest;
pub mod metrics;
pub mod ops;
pub mod plan;
pub mod query;
pub mod series;
pub mod settings;
pub mod source;
pub mod twin;
