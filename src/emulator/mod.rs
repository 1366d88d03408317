//! The embedded IoT Hub: devices and twins behind the hub's own protocols, small and honest.
//!
//! ```text
//!   server     folder, certificate, store, front door: start and stop
//!   http       request -> token (auth) -> operation (route) -> body (wire) -> answer
//!   handle     one registry behind a lock; changes in order to the store; nothing told before it is kept
//!   registry   identities, twins, counters, limits (identity, twin_record, if_match, query): no I/O
//!              bulk, modules, configurations and jobs beneath it; evaluation plans what configurations make of a twin
//!   background evaluates configurations, and job_runner runs jobs, some twins at a time
//!   store      one redb file behind a journal with group commit (stored: the form of a record, and patches of its text;
//!              part: a section in the forms it was asked for)
//!   mqtt       devices: the protocol, who is connected, what they are told, direct methods
//!   sim        the same registry without a socket, with faults, for tests
//! ```
//!
//! Invariant: it knows nothing of the controller and shares no wire type with the client. It follows `iot-hub.md`
//! where that is certain, and answers 501 to what it does not implement, never a lenient 200.

pub mod auth;
pub mod background;
pub mod bearer;
pub mod configuration;
pub mod error;
pub mod evaluation;
pub mod faults;
pub mod fill;
pub mod handle;
pub mod http;
pub mod identity;
pub mod if_match;
pub mod index;
pub mod job;
pub mod job_runner;
pub mod lag;
pub mod mqtt;
pub mod options;
pub mod part;
pub mod query;
pub mod quick_ack;
pub mod records;
pub mod registry;
pub mod route;
pub mod server;
pub mod sim;
pub mod state_dir;
pub mod store;
pub mod stored;
pub mod throttle;
pub mod tls;
pub mod traffic;
pub mod trial;
pub mod twin_record;
mod verified;
pub mod wire;

pub use handle::HubHandle;
pub use options::ServiceOptions;
pub use server::{ConnectionInfo, EmbeddedHub, HubOptions, StartError};
pub use sim::{Applied, Fault, SimCalls, SimHub, SimOperation};
