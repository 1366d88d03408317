//! The embedded IoT Hub.

pub mod error;
pub mod identity;
pub mod if_match;
pub mod query;
pub mod registry;
pub mod twin_record;
pub mod wire;
