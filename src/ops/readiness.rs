//! Whether the daemon is ready.
//!
//! Invariant: it latches. What was loaded or contacted once stays so, and a hub that fails later changes nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Whether every hub's manifests were loaded and the hub was contacted, with or without success. Clones share it.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, HubReadiness>>>);

#[derive(Debug, Default)]
struct HubReadiness {
    revision: Option<String>,
    contacted: bool,
}

impl Readiness {
    /// Not ready, until every one of these hubs is.
    #[must_use]
    pub fn new(hubs: &[&str]) -> Self {
        let hubs = hubs.iter().map(|hub| ((*hub).to_owned(), HubReadiness::default())).collect();
        Self(Arc::new(Mutex::new(hubs)))
    }

    /// The hub's manifests were loaded; this revision is declared now.
    pub fn loaded(&self, hub: &str, revision: &str) {
        self.update(hub, |state| state.revision = Some(revision.to_owned()));
    }

    /// The hub was asked something; it need not have answered.
    pub fn contacted(&self, hub: &str) {
        self.update(hub, |state| state.contacted = true);
    }

    /// Whether everything is there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let hubs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hubs.values().all(|hub| hub.revision.is_some() && hub.contacted)
    }

    /// A line a thing, missing things and revisions; ends with a newline.
    #[must_use]
    pub fn report(&self) -> String {
        let hubs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = hubs.iter().flat_map(|(name, hub)| {
            let revision = match &hub.revision {
                Some(revision) => format!("hub {name}: revision {}\n", printable(revision)),
                None => format!("hub {name}: its manifests were not loaded yet\n"),
            };
            [Some(revision), (!hub.contacted).then(|| format!("hub {name}: it was not contacted yet\n"))]
        });
        lines.flatten().collect()
    }

    fn update(&self, hub: &str, change: impl FnOnce(&mut HubReadiness)) {
        let mut hubs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(hubs.entry(hub.to_owned()).or_default());
    }
}

/// A revision is the name of a folder; it must not fake a line.
fn printable(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_every_hub_was_loaded_and_contacted() {
        let readiness = Readiness::new(&["prod", "test"]);
        readiness.loaded("prod", "7f1c\nx");
        readiness.contacted("test");
        assert!(!readiness.is_ready());
        insta::assert_snapshot!(readiness.report(), @r"
        hub prod: revision 7f1c\nx
        hub prod: it was not contacted yet
        hub test: its manifests were not loaded yet
        ");
        readiness.contacted("prod");
        readiness.loaded("test", "b2");
        assert!(readiness.is_ready());
        readiness.loaded("test", "b3");
        insta::assert_snapshot!(readiness.report(), @r"
        hub prod: revision 7f1c\nx
        hub test: revision b3
        ");
    }
}
