//! A simulated device: MQTT over TLS, as a device's SDK would speak it (`iot-hub.md` section 8).
//!
//! ```text
//!   credentials   connection string -> where to connect, and the token
//!   tls           whom to trust
//!   session       the device's side of MQTT; sans I/O
//!   run           the loop: connect, read the twin, report, listen, connect again with backoff
//! ```
//!
//! Invariant: it knows nothing of the hub it talks to but the protocol, and never prints its key.

mod credentials;
mod run;
mod session;
mod tls;

pub use credentials::{ConnectionStringError, DeviceConnection};
pub use run::{DeviceError, DeviceEvent, DeviceOptions, run_device};
pub use tls::{Trust, TrustError};
