//! The device's side of the embedded hub: MQTT 3.1.1 over TLS (`iot-hub.md` section 8).
//!
//! ```text
//!   server      the port: TLS, bounds, one task a connection
//!   connection  one device's loop: bytes, notices, deadlines -> session -> registry
//!   session     the rules of MQTT and of the hub; sans I/O          topics      what a topic means
//!   door        who may connect
//!   presence    who is connected, what they are told, which sessions are kept
//! ```
//!
//! Invariant: a device is told of a change only after the change is kept, in the order of the changes; one that does
//! not keep up is let go and reads its twin again.

pub mod connection;
pub mod door;
pub mod presence;
pub mod server;
pub mod session;
pub mod topics;

pub use connection::Desk;
pub use presence::{Presence, SessionRecord};
pub use server::MqttServer;
