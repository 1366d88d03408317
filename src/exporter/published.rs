//! What the exporters of all hubs have published: the text after our own instruments.
//!
//! Invariant: reading it does no I/O and waits for no query; the lock is held to swap or to copy pointers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::series::{FamilyText, join};

/// What one query gave, rendered.
pub(super) type Snapshot = Arc<[FamilyText]>;

/// What one hub's exporter publishes: the snapshots of its queries and the series about the queries.
pub(super) type HubView = Vec<Snapshot>;

/// The exposition of all queries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exposition {
    /// Exposition text; empty, or with a newline at its end.
    pub text: String,
    /// Number of series in it.
    pub series: usize,
}

/// What all exporters have published. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Published(Arc<Mutex<BTreeMap<String, Arc<HubView>>>>);

impl Published {
    /// The exposition of all hubs, as of now: a copy of what was rendered when each run ended.
    #[must_use]
    pub fn exposition(&self) -> Exposition {
        let views: Vec<Arc<HubView>> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        let families = || views.iter().flat_map(|view| view.iter()).flat_map(|snapshot| snapshot.iter());
        Exposition { text: join(families()), series: families().map(FamilyText::series).sum() }
    }

    /// Swaps what a hub publishes.
    pub(super) fn swap(&self, hub: &str, view: HubView) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(hub.to_owned(), Arc::new(view));
    }
}
