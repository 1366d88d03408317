//! The folder of manifests: reading one whole revision of it, and noticing that there may be another.
//!
//! ```text
//!   Watcher::changed  ->  Loader::reload  ->  Snapshot {revision, state, queries, diagnostics}
//!   (a Hint)              (the truth)         or LoadError: the last good state stays with the caller
//! ```
//!
//! Invariant: a snapshot never mixes two revisions, and a folder that cannot be read is an error, never an empty
//! state (DESIGN section 3).

mod beneath;
mod known;
mod layout;
mod load;
mod read;
mod watch;

pub use load::{LoadError, Loader, Snapshot};
pub use watch::{Hint, WatchOptions, Watcher};
