//! The registry as a hub without a socket: for tests of everything above the two traits.
//!
//! Invariant: the same rules as over HTTPS, since it is the same registry. Each call gives way once before it takes
//! effect and once after, so that a test can stop its caller at either point. Time and keys are the same in every run on
//! a paused clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::error::Refusal;
use super::identity::IdentitySpec;
use super::if_match::IfMatch;
use super::lag::LaggingView;
use super::query::{self, Rows};
use super::registry::{Change, Device, Kept, Registry};
use super::wire;
use crate::hub::{Continuation, HubError, Paced, QueryPage, ReadTwins, WriteTwins};
use crate::twin::{DeviceId, ETag, MergePatch, ModuleId, Object, Twin, TwinRef, Value};

/// When time begins, in seconds since 1970.
const CLOCK_START: i64 = 1_800_000_000;
/// How far the clock moves with each change.
const CLOCK_STEP: SignedDuration = SignedDuration::from_millis(1);
const SEED: u64 = 0;

/// The calls of the two traits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimOperation {
    /// `get_twin`.
    Read,
    /// `query_page`.
    Query,
    /// `patch_twin`.
    Patch,
    /// `create_device`.
    Create,
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has no effect.
    ErrorBefore(HubError),
    /// It takes effect, and the caller gets a time-out.
    LostAnswer,
}

/// How often each call was made, failed ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SimCalls {
    /// `get_twin`.
    pub reads: u64,
    /// `query_page`.
    pub queries: u64,
    /// `patch_twin`.
    pub patches: u64,
    /// `create_device`.
    pub creates: u64,
}

/// A write through [`WriteTwins`] that took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// A patch.
    Patch(TwinRef, MergePatch),
    /// A creation.
    Create(DeviceId),
}

/// A hub in memory. Clones are the same hub.
#[derive(Debug, Clone)]
pub struct SimHub(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    registry: Registry,
    rng: fastrand::Rng,
    clock: Timestamp,
    calls: SimCalls,
    applied: Vec<Applied>,
    faults: BTreeMap<SimOperation, VecDeque<Fault>>,
    index: Option<Index>,
}

/// What queries see, when that is not the present.
#[derive(Debug)]
struct Index {
    view: LaggingView,
    begun: Instant,
}

impl Index {
    fn now(&self) -> Timestamp {
        let age = SignedDuration::try_from(self.begun.elapsed()).unwrap_or(SignedDuration::MAX);
        Timestamp::constant(CLOCK_START, 0).saturating_add(age).unwrap_or(Timestamp::MAX)
    }
}

impl Default for SimHub {
    fn default() -> Self {
        Self::new()
    }
}

impl SimHub {
    /// An empty hub.
    #[must_use]
    pub fn new() -> Self {
        Self::with_index(None)
    }

    /// An empty hub whose queries lag behind its twins by `lag`, and show deleted devices ten times longer
    /// (`iot-hub.md` 5.6). To be made inside a tokio runtime, whose clock it goes by.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "goes by the clock of the test's runtime, which is paused")]
    pub fn lagging(lag: Duration) -> Self {
        let view = LaggingView::of(&Registry::default(), lag);
        Self::with_index(Some(Index { view, begun: Instant::now() }))
    }

    fn with_index(index: Option<Index>) -> Self {
        Self(Arc::new(Mutex::new(State {
            index,
            registry: Registry::default(),
            rng: fastrand::Rng::with_seed(SEED),
            clock: Timestamp::constant(CLOCK_START, 0),
            calls: SimCalls::default(),
            applied: Vec::new(),
            faults: BTreeMap::new(),
        })))
    }

    /// Has the next call of `operation` that has no fault yet meet `fault`.
    pub fn inject(&self, operation: SimOperation, fault: Fault) {
        self.lock().faults.entry(operation).or_default().push_back(fault);
    }

    /// How often each call was made so far.
    #[must_use]
    pub fn calls(&self) -> SimCalls {
        self.lock().calls
    }

    /// Every write through [`WriteTwins`] that took effect so far, in order.
    #[must_use]
    pub fn applied(&self) -> Vec<Applied> {
        self.lock().applied.clone()
    }

    /// A device's twin as it is now, without counting as a call.
    #[must_use]
    pub fn twin(&self, device: &DeviceId) -> Option<Twin> {
        self.lock().registry.device(device).ok().map(|device| twin(&device))
    }

    /// Another client registers `device`.
    ///
    /// # Errors
    /// [`HubError::AlreadyExists`].
    pub fn create(&self, device: &DeviceId) -> Result<Twin, HubError> {
        let change = self.lock().create(device);
        changed(change, &TwinRef::device(device.clone()))
    }

    /// Another client registers `module` of `device`.
    ///
    /// # Errors
    /// [`HubError::Unauthorized`] when the device is not there; [`HubError::Rejected`] when the module is.
    pub fn create_module(&self, device: &DeviceId, module: &ModuleId) -> Result<Twin, HubError> {
        let change = self.lock().create_module(device, module);
        changed(change, &TwinRef::module(device.clone(), module.clone()))
    }

    /// Another client merges `patch` into a device's twin, whatever its etag.
    ///
    /// # Errors
    /// [`HubError::NotFound`], or [`HubError::Rejected`] when the result breaks a limit.
    pub fn edit(&self, device: &DeviceId, patch: &MergePatch) -> Result<Twin, HubError> {
        let own = TwinRef::device(device.clone());
        let change = self.lock().change(|registry, now| registry.patch_twin(&own, patch, &IfMatch::Any, now));
        changed(change, &own)
    }

    /// The device reports.
    ///
    /// # Errors
    /// As [`SimHub::edit`].
    pub fn report(&self, device: &DeviceId, reported: &Object) -> Result<Twin, HubError> {
        let own = TwinRef::device(device.clone());
        let change = self.lock().change(|registry, now| registry.report(&own, reported, now));
        changed(change, &own)
    }

    /// Another client deletes `device`.
    ///
    /// # Errors
    /// [`HubError::NotFound`].
    pub fn delete(&self, device: &DeviceId) -> Result<(), HubError> {
        let change = self.lock().change(|registry, _| registry.delete_identity(device, &IfMatch::Any));
        change.map(|_| ()).map_err(|refusal| hub_error(refusal, &TwinRef::device(device.clone())))
    }

    /// One call: gives way, meets its fault or takes effect, gives way, answers.
    async fn call<T>(
        &self,
        operation: SimOperation,
        effect: impl FnOnce(&mut State) -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        tokio::task::yield_now().await;
        let answer = self.lock().meet(operation, effect);
        tokio::task::yield_now().await;
        answer
    }

    /// A panic of one test's task leaves the registry whole: it changes by one insertion or removal at a time.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn meet<T>(
        &mut self,
        operation: SimOperation,
        effect: impl FnOnce(&mut Self) -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let count = match operation {
            SimOperation::Read => &mut self.calls.reads,
            SimOperation::Query => &mut self.calls.queries,
            SimOperation::Patch => &mut self.calls.patches,
            SimOperation::Create => &mut self.calls.creates,
        };
        *count += 1;
        match self.faults.get_mut(&operation).and_then(VecDeque::pop_front) {
            None => effect(self),
            Some(Fault::ErrorBefore(error)) => Err(error),
            Some(Fault::LostAnswer) => {
                // Whatever the answer is, it does not arrive.
                let _lost = effect(self);
                Err(HubError::Transport { message: "the answer was lost".to_owned(), timeout: true })
            }
        }
    }

    fn change(
        &mut self,
        change: impl FnOnce(&mut Registry, Timestamp) -> Result<Change, Refusal>,
    ) -> Result<Change, Refusal> {
        self.clock = self.clock.saturating_add(CLOCK_STEP).unwrap_or(Timestamp::MAX);
        let changed = change(&mut self.registry, self.clock);
        let log = self.registry.take_log();
        if let Some(index) = &mut self.index {
            let now = index.now();
            for kept in log {
                if let Kept::Twin(change) = kept {
                    index.view.push(&change, now);
                }
            }
        }
        changed
    }

    fn create(&mut self, device: &DeviceId) -> Result<Change, Refusal> {
        let mut rng = self.rng.fork();
        let mut random = |bytes: &mut [u8]| rng.fill(bytes);
        let spec = IdentitySpec::default();
        self.change(|registry, now| registry.put_identity(device, spec, &IfMatch::Absent, &mut random, now))
    }

    fn create_module(&mut self, device: &DeviceId, module: &ModuleId) -> Result<Change, Refusal> {
        let mut rng = self.rng.fork();
        let mut random = |bytes: &mut [u8]| rng.fill(bytes);
        let spec = IdentitySpec::default();
        self.change(|registry, now| registry.put_module(device, module, spec, &IfMatch::Absent, &mut random, now))
    }

    fn read(&self, twin_ref: &TwinRef) -> Result<Twin, HubError> {
        self.registry.record(twin_ref).map(|record| twin(&record)).map_err(|refusal| hub_error(refusal, twin_ref))
    }

    fn patch(&mut self, twin_ref: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        let if_match = IfMatch::Quoted(etag.as_str().to_owned());
        let change = self.change(|registry, now| registry.patch_twin(twin_ref, patch, &if_match, now));
        let twin = changed(change, twin_ref)?;
        self.applied.push(Applied::Patch(twin_ref.clone(), patch.clone()));
        Ok(twin)
    }
}

impl Paced for SimHub {}

impl ReadTwins for SimHub {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        self.call(SimOperation::Read, |state| state.read(twin)).await
    }

    async fn query_page(
        &self,
        query: &str,
        page_size: usize,
        from: Option<&Continuation>,
    ) -> Result<QueryPage, HubError> {
        let token = from.map(|continuation| continuation.0.as_str());
        self.call(SimOperation::Query, |state| {
            let seen = match &mut state.index {
                Some(index) => {
                    let now = index.now();
                    index.view.at(now)
                }
                None => &state.registry,
            };
            let page = query::run_page(seen, query, Some(page_size), token).map_err(rejected)?;
            let rows = match page.rows {
                Rows::Twins(devices) => devices.iter().map(|device| wire::twin_value(device)).collect(),
                Rows::Raw(rows) | Rows::Jobs(rows) => rows.into_iter().map(Value::Object).collect(),
            };
            Ok(QueryPage { rows, next: page.next.map(Continuation) })
        })
        .await
    }
}

impl WriteTwins for SimHub {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        self.call(SimOperation::Patch, |state| state.patch(twin, patch, etag)).await
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        self.call(SimOperation::Create, |state| {
            changed(state.create(device), &TwinRef::device(device.clone()))?;
            state.applied.push(Applied::Create(device.clone()));
            Ok(())
        })
        .await
    }
}

fn twin(device: &Device) -> Twin {
    let (identity, twin) = (&device.identity, &device.twin);
    Twin {
        twin_ref: identity.twin_ref(),
        etag: ETag::new(&twin.etag()).expect("base64 of eight bytes is an etag"),
        device_etag: Some(identity.etag()),
        version: twin.version,
        tags: twin.tags.as_deref().cloned().unwrap_or_default(),
        desired: twin.desired.values.clone(),
        reported: twin.reported.values.clone(),
        system: Object::from([
            ("status".to_owned(), Value::from(identity.status.as_str())),
            ("connectionState".to_owned(), Value::from("Disconnected")),
        ]),
    }
}

fn changed(change: Result<Change, Refusal>, twin_ref: &TwinRef) -> Result<Twin, HubError> {
    match change {
        Ok(Change { after: Some(device), .. }) => Ok(twin(&device)),
        Ok(Change { after: None, .. }) => Err(HubError::NotFound(twin_ref.clone())),
        Err(refusal) => Err(hub_error(refusal, twin_ref)),
    }
}

/// A refusal as the client would understand the hub's answer.
fn hub_error(refusal: Refusal, twin: &TwinRef) -> HubError {
    match (refusal.status(), refusal.code()) {
        (401, _) => HubError::Unauthorized { message: refusal.to_string() },
        (403, "IotHubQuotaExceeded") => HubError::Quota,
        (404, "DeviceNotFound" | "ModuleNotFound") => HubError::NotFound(twin.clone()),
        (409, "DeviceAlreadyExists") => HubError::AlreadyExists(twin.device.clone()),
        (412, _) => HubError::PreconditionFailed,
        (429, code) => HubError::Throttled { code: code.to_owned(), retry_after: None },
        (status @ 500.., _) => HubError::Server { status: Some(status), message: refusal.to_string() },
        _ => rejected(refusal),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn rejected(refusal: Refusal) -> HubError {
    HubError::Rejected { status: refusal.status(), code: refusal.code().to_owned(), message: refusal.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).unwrap()
    }

    fn own(text: &str) -> TwinRef {
        TwinRef::device(id(text))
    }

    fn tags(json: &str) -> MergePatch {
        MergePatch { tags: Value::parse_json(json).unwrap().as_object().cloned(), desired: None }
    }

    fn lost() -> HubError {
        HubError::Transport { message: "the answer was lost".to_owned(), timeout: true }
    }

    #[tokio::test]
    async fn a_guarded_write_loses_against_another_client() {
        let hub = SimHub::new();
        hub.create_device(&id("d")).await.unwrap();
        assert_eq!(hub.create_device(&id("d")).await, Err(HubError::AlreadyExists(id("d"))));
        let read = hub.get_twin(&own("d")).await.unwrap();
        let edited = hub.edit(&id("d"), &tags(r#"{"theirs":1}"#)).unwrap();
        let refused = hub.patch_twin(&own("d"), &tags(r#"{"ours":1}"#), &read.etag).await;
        assert_eq!(refused, Err(HubError::PreconditionFailed));
        let written = hub.patch_twin(&own("d"), &tags(r#"{"ours":1}"#), &edited.etag).await.unwrap();
        assert_eq!(Value::Object(written.tags.clone()).to_string(), r#"{"ours":1,"theirs":1}"#);
        assert_eq!(hub.twin(&id("d")), Some(written));
        let patch = Applied::Patch(own("d"), tags(r#"{"ours":1}"#));
        assert_eq!(hub.applied(), [Applied::Create(id("d")), patch]);
        assert_eq!(hub.calls(), SimCalls { reads: 1, queries: 0, patches: 2, creates: 2 });
    }

    #[tokio::test]
    async fn faults_meet_the_next_calls_in_their_order() {
        let hub = SimHub::new();
        hub.create(&id("d")).unwrap();
        let before = hub.get_twin(&own("d")).await.unwrap();
        hub.inject(SimOperation::Patch, Fault::ErrorBefore(HubError::Quota));
        hub.inject(SimOperation::Patch, Fault::LostAnswer);
        let write = async || hub.patch_twin(&own("d"), &tags(r#"{"a":1}"#), &before.etag).await;
        assert_eq!(write().await, Err(HubError::Quota));
        assert_eq!(hub.twin(&id("d")), Some(before.clone()), "nothing happened");
        assert_eq!(write().await, Err(lost()));
        assert_ne!(hub.twin(&id("d")), Some(before.clone()), "the write happened");
        assert_eq!(write().await, Err(HubError::PreconditionFailed), "no fault is left");
        assert_eq!(hub.applied().len(), 1);
        assert!(hub.get_twin(&own("d")).await.is_ok(), "other calls meet none");
    }

    #[tokio::test]
    async fn a_caller_can_be_stopped_before_and_after_the_effect() {
        for (polls, happened) in [(1, false), (2, true)] {
            let hub = SimHub::new();
            let device = id("d");
            {
                let mut call = std::pin::pin!(hub.create_device(&device));
                for _ in 0..polls {
                    let pending = std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context)));
                    assert!(pending.await.is_pending());
                }
            }
            assert_eq!(hub.twin(&device).is_some(), happened, "{polls} polls");
        }
    }

    #[tokio::test]
    async fn queries_give_rows_and_missing_things_their_errors() {
        let hub = SimHub::new();
        for device in ["d1", "d2"] {
            hub.create(&id(device)).unwrap();
        }
        hub.report(&id("d2"), &Object::from([("up".to_owned(), Value::from(true))])).unwrap();
        let first = hub.query_page("SELECT * FROM devices", 1, None).await.unwrap();
        assert_eq!(first.rows[0].get(["etag"]), Some(&Value::from("AAAAAAAAAAE=")));
        let second = hub.query_page("SELECT * FROM devices", 1, first.next.as_ref()).await.unwrap();
        assert_eq!(second.rows[0].get(["properties", "reported", "up"]), Some(&Value::from(true)));
        assert_eq!(second.next, None);
        let refused = hub.query_page("SELECT nothing", 1, None).await.unwrap_err();
        assert!(matches!(refused, HubError::Rejected { status: 400, .. }));
        hub.delete(&id("d1")).unwrap();
        assert_eq!(hub.delete(&id("d1")), Err(HubError::NotFound(own("d1"))));
        assert_eq!(hub.get_twin(&own("d1")).await, Err(HubError::NotFound(own("d1"))));
        let module = TwinRef::module(id("d2"), ModuleId::new("m").unwrap());
        assert_eq!(hub.get_twin(&module).await, Err(HubError::NotFound(module.clone())));
        let made = hub.create_module(&id("d2"), &ModuleId::new("m").unwrap()).unwrap();
        assert_eq!(hub.get_twin(&module).await, Ok(made));
        let twice = hub.create_module(&id("d2"), &ModuleId::new("m").unwrap()).unwrap_err();
        assert!(matches!(twice, HubError::Rejected { status: 409, .. }));
        let nowhere = hub.create_module(&id("d9"), &ModuleId::new("m").unwrap()).unwrap_err();
        assert_eq!(nowhere.category(), "unauthorized");
    }
}
