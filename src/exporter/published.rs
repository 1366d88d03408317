//! What the exporters of all hubs have published: the text after our own instruments.
//!
//! Invariant: reading it does no I/O and waits for no query. Sample lines are rendered once, when a run ends, and
//! shared from then on; the lock is held to swap or to order pointers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::series::{FamilyText, Piece, pieces};

/// What one query gave, rendered.
pub(super) type Snapshot = Arc<[FamilyText]>;

/// What one hub's exporter publishes: the snapshots of its queries and the series about the queries.
pub(super) type HubView = Vec<Snapshot>;

/// The exposition of all hubs at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exposition {
    /// Its text, piece by piece; empty, or ending with a newline.
    pub pieces: Vec<Piece>,
    /// Its series.
    pub series: usize,
    /// Its bytes.
    pub bytes: usize,
}

/// What all exporters have published. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Published(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    views: BTreeMap<String, HubView>,
    /// Made when somebody asks, dropped when a hub publishes anew.
    joined: Option<Arc<Exposition>>,
}

impl Published {
    /// The exposition of all hubs as of now. The same one until a hub publishes something.
    #[must_use]
    pub fn exposition(&self) -> Arc<Exposition> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(joined) = &state.joined {
            return Arc::clone(joined);
        }
        let families = || state.views.values().flatten().flat_map(|snapshot| snapshot.iter());
        let pieces = pieces(families());
        let bytes = pieces.iter().map(|piece| piece.as_str().len()).sum();
        let joined = Arc::new(Exposition { series: families().map(FamilyText::series).sum(), bytes, pieces });
        state.joined = Some(Arc::clone(&joined));
        joined
    }

    /// Swaps what a hub publishes.
    pub(super) fn swap(&self, hub: &str, view: HubView) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.views.insert(hub.to_owned(), view);
        state.joined = None;
    }
}
