//! The embedded IoT Hub.

pub mod error;
pub mod identity;
pub mod if_match;
pub mod query;
pub mod registry;
pub mod state_dir;
pub mod store;
pub mod stored;
pub mod twin_record;
pub mod wire;
