//! A hub in front of the hub: it fails for one device alone, and checks every write before it is made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use geminid::emulator::{SimHub, SimOperation};
use geminid::hub::{Continuation, HubError, Paced, QueryPage, ReadTwins, WriteTwins};
use geminid::plan::{DeclaredState, Leaf, Mode, PathHash, SEAL_KEY, SealState};
use geminid::twin::{DeviceId, ETag, MergePatch, Object, Path, Section, Twin, TwinRef, Value};
use tokio::time::Instant;

use crate::fleet::scope;
use crate::owned::Settings;
use crate::repository::{DEVICES, number};

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

/// What one process did, and what it may do.
#[derive(Debug)]
pub(crate) struct Deeds {
    settings: Settings,
    /// Twins that lost a leaf or their seal.
    losers: BTreeSet<TwinRef>,
    /// Twins in which a value was set.
    updated: BTreeSet<TwinRef>,
    created: BTreeSet<TwinRef>,
    calls: Vec<(SimOperation, Instant)>,
}

/// What S1 lets happen in a second, and for how many seconds unused turns are kept (`iot-hub.md` 6.1): a minute's
/// allowance is kept for half of one.
const S1: [(SimOperation, f64, f64); 4] = [
    (SimOperation::Read, 100.0, 1.0),
    (SimOperation::Patch, 50.0, 1.0),
    (SimOperation::Create, 100.0 / 60.0, 30.0),
    (SimOperation::Query, 20.0 / 60.0, 30.0),
];

impl Deeds {
    pub(crate) fn new(settings: Settings) -> Arc<Mutex<Self>> {
        let none = BTreeSet::new;
        let (losers, updated, created) = (none(), none(), none());
        Arc::new(Mutex::new(Self { settings, losers, updated, created, calls: Vec::new() }))
    }

    #[expect(clippy::disallowed_methods, reason = "the paused clock of a test")]
    fn call(&mut self, operation: SimOperation) {
        self.calls.push((operation, Instant::now()));
    }

    fn write(&mut self, twin: &TwinRef) {
        assert_ne!(self.settings.mode, Mode::Observe, "{twin} is written in mode observe");
    }

    /// Panics when more was done than guards and budget allow.
    pub(crate) fn assert_allowed(&mut self) {
        let guards = self.settings.guards;
        for (what, limit, twins) in [
            ("lost something", guards.of_removals(), &self.losers),
            ("were changed", guards.of_updates(), &self.updated),
            ("were registered", guards.of_creates(), &self.created),
        ] {
            assert!(twins.len() <= limit.allowed(DEVICES), "more {what} than {limit:?}: {twins:?}");
        }
        let Some(share) = self.settings.share else { return self.calls.clear() };
        let minute = Duration::from_secs(60);
        for (operation, per_second, kept) in S1 {
            let times: Vec<Instant> =
                self.calls.iter().filter(|(called, _)| *called == operation).map(|(_, at)| *at).collect();
            let allowed = per_second * share * (minute.as_secs_f64() + kept) + 1.0;
            for (n, start) in times.iter().enumerate() {
                let inside = times[n..].iter().take_while(|at| **at < *start + minute).count();
                assert!(number(inside) <= allowed, "{inside} x {operation:?} in a minute, {allowed} are allowed");
            }
        }
        // A minute may begin before this look and end after it.
        let last = self.calls.last().map(|(_, at)| *at);
        self.calls.retain(|(_, at)| last.is_none_or(|last| last.duration_since(*at) < minute));
    }
}

/// What a patch does to a twin, beside its seal.
#[derive(Debug, Default)]
struct Effect {
    removes: bool,
    sets: bool,
}

/// Sees every write of one process. The states are those the loop may plan on: the present one and the one before.
#[derive(Debug, Clone)]
pub(crate) struct Witness {
    pub(crate) hub: SimHub,
    pub(crate) owner: &'static str,
    pub(crate) states: Arc<Mutex<[Arc<DeclaredState>; 2]>>,
    pub(crate) deeds: Arc<Mutex<Deeds>>,
}

impl Witness {
    /// Panics when `patch` moves a leaf that is neither declared nor ours, or a twin that is to be left alone.
    fn check(&self, before: &Twin, patch: &MergePatch) -> Effect {
        assert!(!self.is_suspended(&before.twin_ref), "{} is suspended: {patch:?}", before.twin_ref);
        let declared = self.declared(&before.twin_ref);
        let seal = SealState::read(before, self.owner);
        let mut effect = Effect::default();
        for section in Section::ALL {
            let (old, new) = (before.section(section), before.section_after(section, patch));
            let (old, new) = (leaves(old), leaves(&new));
            let is_seal = |path: &Path| section == Section::Tags && path.keys()[0] == SEAL_KEY;
            // An object that only lost what was in it was not set.
            let emptied = |path: &Path, value: &Value| {
                *value == Value::empty_object() && old.keys().any(|other| other != path && path.covers(other))
            };
            let is_set = |path: &Path, value: &Value| old.get(path) != Some(value) && !emptied(path, value);
            effect.sets |= new.iter().any(|(path, value)| !is_seal(path) && is_set(path, value));
            for (path, value) in old {
                if new.get(&path) == Some(&value) {
                    continue;
                }
                let leaf = Leaf { section, path };
                if is_seal(&leaf.path) {
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
                effect.removes |= gone && !filled;
            }
        }
        let sealed = |tags: &Object| tags.get(SEAL_KEY).is_some_and(|seals| seals.get([self.owner]).is_some());
        effect.removes |= sealed(&before.tags) && !sealed(&before.section_after(Section::Tags, patch));
        effect
    }

    /// Whether every state that may be planned on wants the twin left alone, whatever the wall clock says.
    fn is_suspended(&self, twin: &TwinRef) -> bool {
        let states = self.states.lock().unwrap();
        states.iter().all(|state| {
            let suspend = state.twins.get(twin).and_then(|manifest| manifest.suspend.as_ref());
            suspend.is_some_and(|suspend| suspend.until.is_none())
        })
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
        self.deeds.lock().unwrap().call(SimOperation::Read);
        self.hub.get_twin(twin).await
    }

    async fn query_page(&self, query: &str, size: usize, from: Option<&Continuation>) -> Result<QueryPage, HubError> {
        self.deeds.lock().unwrap().call(SimOperation::Query);
        self.hub.query_page(query, size, from).await
    }
}

/// Whether a write with this answer may have taken effect.
fn may_have_happened<T>(answer: &Result<T, HubError>) -> bool {
    matches!(answer, Ok(_) | Err(HubError::Transport { timeout: true, .. }))
}

impl WriteTwins for Witness {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        // With another etag the hub refuses.
        let before = self.hub.twin(&twin.device).filter(|before| before.etag == *etag);
        let effect = before.map(|before| self.check(&before, patch)).unwrap_or_default();
        {
            let mut deeds = self.deeds.lock().unwrap();
            deeds.call(SimOperation::Patch);
            deeds.write(twin);
            assert!(deeds.settings.mode == Mode::Sync || !effect.removes, "{twin} loses something: {patch:?}");
        }
        let answer = self.hub.patch_twin(twin, patch, etag).await;
        if may_have_happened(&answer) {
            let mut deeds = self.deeds.lock().unwrap();
            deeds.losers.extend(effect.removes.then(|| twin.clone()));
            deeds.updated.extend(effect.sets.then(|| twin.clone()));
        }
        answer
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        let twin = TwinRef::device(device.clone());
        {
            let mut deeds = self.deeds.lock().unwrap();
            deeds.call(SimOperation::Create);
            deeds.write(&twin);
        }
        let answer = self.hub.create_device(device).await;
        if may_have_happened(&answer) {
            self.deeds.lock().unwrap().created.insert(twin);
        }
        answer
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
