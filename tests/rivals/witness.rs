//! A hub in front of the hub: it fails for one device alone, and checks every write before it is made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use geminid::emulator::SimHub;
use geminid::hub::{Continuation, HubError, Paced, QueryPage, ReadTwins, WriteTwins};
use geminid::plan::{DeclaredState, Leaf, PathHash, SEAL_KEY, SealState};
use geminid::twin::{DeviceId, ETag, MergePatch, Object, Path, Section, Twin, TwinRef, Value};

use crate::fleet::scope;

/// Reads of `device` fail with `error`, or panic when there is none.
#[derive(Debug, Clone)]
pub(crate) struct Poisoned {
    pub(crate) hub: SimHub,
    pub(crate) device: DeviceId,
    pub(crate) error: Option<HubError>,
}

impl Paced for Poisoned {}

impl ReadTwins for Poisoned {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        tokio::task::yield_now().await;
        if twin.device == self.device {
            return Err(self.error.clone().expect("this device is poison"));
        }
        self.hub.get_twin(twin).await
    }

    async fn query_page(&self, query: &str, size: usize, from: Option<&Continuation>) -> Result<QueryPage, HubError> {
        self.hub.query_page(query, size, from).await
    }
}

impl WriteTwins for Poisoned {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        self.hub.patch_twin(twin, patch, etag).await
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        self.hub.create_device(device).await
    }
}

/// Sees every write of one owner. The states are those the loop may plan on: the present one and the one before.
#[derive(Debug, Clone)]
pub(crate) struct Witness {
    pub(crate) hub: SimHub,
    pub(crate) owner: &'static str,
    pub(crate) states: Arc<Mutex<[Arc<DeclaredState>; 2]>>,
    /// Twins that lost a leaf or their seal while this process ran.
    pub(crate) losers: Arc<Mutex<BTreeSet<TwinRef>>>,
}

impl Witness {
    /// Panics when `patch` moves a leaf that is neither declared nor ours. Answers whether it takes anything away.
    fn check(&self, before: &Twin, patch: &MergePatch) -> bool {
        let declared = self.declared(&before.twin_ref);
        let seal = SealState::read(before, self.owner);
        let mut removes = false;
        for section in Section::ALL {
            let (old, new) = (before.section(section), before.section_after(section, patch));
            let new = leaves(&new);
            for (path, value) in leaves(old) {
                if new.get(&path) == Some(&value) {
                    continue;
                }
                let leaf = Leaf { section, path };
                if section == Section::Tags && leaf.path.keys()[0] == SEAL_KEY {
                    assert_eq!(leaf.path.keys()[1], self.owner, "only our own seal is ours");
                    continue;
                }
                let hash = PathHash::of(self.owner, &scope(self.owner).host, &before.twin_ref, section, &leaf.path);
                let ours = seal.seal().is_some_and(|seal| seal.owned.contains(&hash));
                let named = declared.contains(&leaf);
                // An empty object is no value: a declared leaf below it fills it.
                let filled = value == Value::empty_object()
                    && declared.iter().any(|other| other.section == section && leaf.path.covers(&other.path));
                assert!(ours || named || filled, "{leaf} of {before:?} is not ours: {patch:?}");
                let gone = !new.contains_key(&leaf.path);
                removes |= gone && !filled;
            }
        }
        let sealed = |tags: &Object| tags.get(SEAL_KEY).is_some_and(|seals| seals.get([self.owner]).is_some());
        removes || (sealed(&before.tags) && !sealed(&before.section_after(Section::Tags, patch)))
    }

    fn declared(&self, twin: &TwinRef) -> BTreeSet<Leaf> {
        let states = self.states.lock().unwrap();
        let wanted = states.iter().filter_map(|state| Some(state.twins.get(twin)?.wanted.unpack()));
        let sections = wanted.flat_map(|wanted| [(Section::Tags, wanted.tags), (Section::Desired, wanted.desired)]);
        sections
            .flat_map(|(section, object)| leaves(&object).into_keys().map(move |path| Leaf { section, path }))
            .collect()
    }
}

impl Paced for Witness {}

impl ReadTwins for Witness {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        self.hub.get_twin(twin).await
    }

    async fn query_page(&self, query: &str, size: usize, from: Option<&Continuation>) -> Result<QueryPage, HubError> {
        self.hub.query_page(query, size, from).await
    }
}

impl WriteTwins for Witness {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        // With another etag the hub refuses.
        let before = self.hub.twin(&twin.device).filter(|before| before.etag == *etag);
        let removes = before.is_some_and(|before| self.check(&before, patch));
        let answer = self.hub.patch_twin(twin, patch, etag).await;
        if removes && matches!(answer, Ok(_) | Err(HubError::Transport { timeout: true, .. })) {
            self.losers.lock().unwrap().insert(twin.clone());
        }
        answer
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        self.hub.create_device(device).await
    }
}

/// The leaves of a section: scalars, whole arrays, nulls and empty objects.
fn leaves(object: &Object) -> BTreeMap<Path, Value> {
    let mut found = BTreeMap::new();
    walk(&Path::root(), object, &mut found);
    found
}

fn walk(above: &Path, object: &Object, found: &mut BTreeMap<Path, Value>) {
    for (key, value) in object {
        match value.as_object().filter(|inner| !inner.is_empty()) {
            Some(inner) => walk(&above.child(key), inner, found),
            None => {
                found.insert(above.child(key), value.clone());
            }
        }
    }
}
