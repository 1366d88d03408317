//! The device's side of the embedded hub: MQTT 3.1.1 over TLS and over WebSocket (`iot-hub.md` section 8).
//!
//! ```text
//!   server      the port: TLS, bounds, one task a connection        websocket   the same on the HTTPS port
//!   connection  one device's loop: bytes, notices, deadlines -> session -> registry
//!   session     the rules of MQTT and of the hub; sans I/O          topics      what a topic means
//!   door        who may connect
//!   presence    who is connected, what they are told, which sessions are kept
//!   requests    reads and reports, carried out
//!   methods     a direct method, from the caller to the device and back
//! ```
//!
//! Invariant: a device is told of a change only after the change is kept, in the order of the changes; one that does
//! not keep up is let go and reads its twin again.

pub mod connection;
pub mod door;
pub mod methods;
pub mod presence;
mod requests;
pub mod server;
pub mod session;
pub mod topics;
pub mod websocket;

pub use connection::Desk;
pub use methods::MethodCall;
pub use presence::{MethodAnswer, Presence, SessionRecord};
pub use server::MqttServer;
pub use websocket::WebSocketDoor;

#[cfg(test)]
mod tests;
