//! A simulated device: MQTT over TLS, as a device's SDK would speak it (`iot-hub.md` section 8).
//!
//! ```text
//!   credentials   connection string -> where to connect, and the token
//!   tls           whom to trust
//!   session       the device's side of MQTT; sans I/O
//!   pace          when to connect, and when again
//!   run           the loop: connect, read the twin, report, listen, connect again with backoff
//!   fleet         many of them, by a template
//!   tally         how a fleet stands, in numbers
//! ```
//!
//! Invariant: it knows nothing of the hub it talks to but the protocol, and never prints its key.

mod credentials;
mod fleet;
mod pace;
mod run;
mod session;
mod tally;
mod tls;

pub use credentials::{ConnectionStringError, DeviceConnection};
pub use fleet::{COUNT_MAX, FleetError, FleetOptions, Member, PLACEHOLDER, members, run_fleet};
pub use pace::Turns;
pub use run::{DeviceError, DeviceEvent, DeviceOptions, run_device};
pub use tally::{Tally, Totals};
pub use tls::{Connector, Trust, TrustError};
