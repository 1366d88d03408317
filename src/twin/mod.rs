//! The vocabulary of twins: identities, values, paths, merge patches and the hub's limits.
//!
//! Invariant: floor 0. Nothing here does I/O, logs, reads a clock or draws a random number, and nothing here
//! imports another module of geminid.

mod document;
mod id;
mod json;
mod limits;
mod map;
mod patch;
mod path;
mod value;

pub use document::{Section, Twin, TwinTrace};
pub use id::{DeviceId, ETag, IdError, ModuleId, TwinRef};
pub use limits::{Rule, SECTION_DEPTH_MAX, Violation, check_key, check_section, section_size, size_max};
pub use map::{Chunk, Near, SortedMap, TwinMap};
pub use patch::{MergePatch, merge};
pub use path::Path;
pub use value::{Number, Object, Value, ValueError};
