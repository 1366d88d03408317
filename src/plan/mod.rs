//! Declared state and live twin to a plan: what would be done, what is held, and why.
//!
//! Invariant: floor 2, pure. A plan is data; applying it makes no decision.

mod declared;

pub use declared::{DeclaredState, FileSpan, Frozen, Profile, RemovalPolicy, TwinManifest};
