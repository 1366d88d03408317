//! What the exporters of all hubs have published: the text after our own instruments.
//!
//! Invariant: reading it does no I/O and waits for no query; the lock is held to swap or to copy pointers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::series::{FamilyText, append};

/// What one query gave, rendered.
pub(super) type Snapshot = Arc<[FamilyText]>;

/// What one hub's exporter publishes: the snapshots of its queries and the series about the queries.
pub(super) type HubView = Vec<Snapshot>;

/// What all exporters have published. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Published(Arc<Mutex<BTreeMap<String, Arc<HubView>>>>);

impl Published {
    /// Appends the exposition of all hubs as of now, a copy of what was rendered when each run ended, and returns the
    /// number of its series. What is appended is empty or ends with a newline.
    pub fn append(&self, text: &mut String) -> usize {
        let views: Vec<Arc<HubView>> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        let families = || views.iter().flat_map(|view| view.iter()).flat_map(|snapshot| snapshot.iter());
        append(text, families());
        families().map(FamilyText::series).sum()
    }

    /// Swaps what a hub publishes.
    pub(super) fn swap(&self, hub: &str, view: HubView) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(hub.to_owned(), Arc::new(view));
    }
}
