//! The hub's JSON: bodies in, bodies out, a file a subject.
//!
//! Invariant: the only folder of the emulator that knows a field's name on the wire, and it shares nothing with the
//! client's. Fields stand in the order of `iot-hub.md` 1.1; what a hub leaves out is left out.

mod bulk;
mod configuration;
mod device_side;
mod identity;
mod job;
mod json;
mod metadata;
mod method;
mod query_body;
mod refusal;
mod statistics;
mod twin;

pub use bulk::{bulk_items, bulk_result};
pub use configuration::{ConfigurationBody, configuration_write, test_queries};
pub use device_side::{device_twin, report};
pub use identity::{IdentityBody, ModuleBody, identity_write, module_write};
pub use job::{JobBody, UnknownJobBody, job_write};
pub use json::{connection_state, count, date, date_or_never, exposed, json, parse};
pub use method::{method_answer, method_call, method_outcome};
pub use query_body::query;
pub use refusal::{fault, numbered_fault, numbered_refusal, refusal};
pub use statistics::{device_statistics, service_statistics};
pub use twin::{configurations, properties, stamps, twin, twin_value, twin_write, twins, whole_twin};
