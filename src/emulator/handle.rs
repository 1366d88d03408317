//! The running hub as its front doors see it: one registry, guarded, and the way to the store.
//!
//! Invariant: changes go to the store in the order the registry made them, because they are sent while the registry
//! is locked, through a place reserved before. No answer, read or write, tells of a change that is not kept yet.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot, watch};

use super::error::Refusal;
use super::identity::{Random, SharedKey};
use super::lag::LaggingView;
use super::mqtt::{Presence, SessionRecord};
use super::query::{Page, Run};
use super::registry::{Device, Kept, Registry};
use super::store::{Durable, Waiting};
use crate::twin::{DeviceId, TwinRef};

/// Between the numbers of two requests: odd, so that none comes again, and large, so that they look nothing alike.
const NUMBER_STEP: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// Fills a buffer with random bytes.
pub type Randomness = Box<dyn FnMut(&mut [u8]) + Send>;

/// A running hub, shared by whoever serves it.
#[derive(Clone)]
pub struct HubHandle(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// `None` keeps nothing.
    store: Option<mpsc::Sender<Waiting>>,
    durable: watch::Receiver<Durable>,
    changes: watch::Sender<u64>,
    messages: AtomicU64,
    /// What requests are told apart by: a random start, and how many numbers were drawn.
    numbers: (u128, AtomicU64),
    documents: watch::Sender<Documents>,
    now: fn() -> Timestamp,
}

/// How often configurations and jobs were written, for those who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Documents {
    /// Writes of configurations.
    pub configurations: u64,
    /// Writes of jobs.
    pub jobs: u64,
}

struct State {
    registry: Registry,
    presence: Presence,
    random: Randomness,
    /// What queries see, when that is not the registry.
    view: Option<LaggingView>,
}

impl fmt::Debug for HubHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubHandle").field("changes", &*self.0.changes.borrow()).finish_non_exhaustive()
    }
}

impl HubHandle {
    /// A hub over `registry` and the sessions in `presence`. Changes go to `store`, whose progress is `durable`.
    #[must_use]
    pub fn new(
        registry: Registry,
        presence: Presence,
        random: Randomness,
        now: fn() -> Timestamp,
        store: mpsc::Sender<Waiting>,
        durable: watch::Receiver<Durable>,
    ) -> Self {
        Self::make((registry, presence), random, now, Some(store), durable)
    }

    /// A hub that keeps nothing.
    #[must_use]
    pub fn ephemeral(random: Randomness, now: fn() -> Timestamp) -> Self {
        Self::forgetful(Registry::default(), random, now)
    }

    /// A hub over `registry` that keeps nothing of what changes.
    #[must_use]
    pub fn forgetful(registry: Registry, random: Randomness, now: fn() -> Timestamp) -> Self {
        let (_, durable) = watch::channel(Durable::UpTo(u64::MAX));
        Self::make((registry, Presence::default()), random, now, None, durable)
    }

    /// Has queries see what is written only after `lag`, from now on.
    #[must_use]
    pub fn with_query_lag(self, lag: Duration) -> Self {
        {
            let mut state = self.lock();
            state.view = (!lag.is_zero()).then(|| LaggingView::of(&state.registry, lag));
        }
        self
    }

    fn make(
        (registry, presence): (Registry, Presence),
        random: Randomness,
        now: fn() -> Timestamp,
        store: Option<mpsc::Sender<Waiting>>,
        durable: watch::Receiver<Durable>,
    ) -> Self {
        let (mut random, mut start) = (random, [0; 16]);
        random(&mut start);
        let (changes, _) = watch::channel(registry.changes());
        let (documents, _) = watch::channel(Documents::default());
        Self(Arc::new(Shared {
            state: Mutex::new(State { registry, presence, random, view: None }),
            store,
            durable,
            changes,
            documents,
            messages: AtomicU64::new(0),
            numbers: (u128::from_be_bytes(start), AtomicU64::new(0)),
            now,
        }))
    }

    /// The hub's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0.now)()
    }

    /// The number of the last change, and a notice of each later one.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// How often configurations and jobs were written, and a notice of each later time.
    #[must_use]
    pub fn documents(&self) -> watch::Receiver<Documents> {
        self.0.documents.subscribe()
    }

    /// A number that a request is known by: no other of this hub has it, and hardly one of another.
    #[must_use]
    pub fn draw(&self) -> u128 {
        let (start, drawn) = &self.0.numbers;
        start.wrapping_add(u128::from(drawn.fetch_add(1, Ordering::Relaxed)).wrapping_mul(NUMBER_STEP))
    }

    /// Changes the registry and waits until all that was changed is kept, in one commit.
    ///
    /// # Errors
    /// What `change` refused; [`Refusal::Unavailable`] when the store failed or was closed.
    pub async fn write<T>(
        &self,
        change: impl FnOnce(&mut Registry, Random<'_>, Timestamp) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.write_and(change, |changed| changed).await
    }

    /// As [`HubHandle::write`]; `answer` makes what is told of the change while it is on its way to the store.
    ///
    /// # Errors
    /// As [`HubHandle::write`].
    pub async fn write_and<T, A>(
        &self,
        change: impl FnOnce(&mut Registry, Random<'_>, Timestamp) -> Result<T, Refusal>,
        answer: impl FnOnce(T) -> A,
    ) -> Result<A, Refusal> {
        let place = match &self.0.store {
            Some(store) => Some(store.reserve().await.map_err(|_| self.stopped())?),
            None => None,
        };
        let (told, given_back) = oneshot::channel();
        let (result, number, is_sent) = {
            let mut state = self.lock();
            let State { registry, presence, random, view } = &mut *state;
            let now = (self.0.now)();
            let result = change(registry, random, now);
            let kept = registry.take_log();
            for one in &kept {
                if let Kept::Twin(change) = one {
                    presence.tell(change);
                    if let Some(view) = view {
                        view.push(change, now);
                    }
                }
            }
            let number = registry.changes();
            self.notice(&kept);
            let place = place.filter(|_| !kept.is_empty());
            let is_sent = place.is_some();
            if let Some(place) = place {
                place.send(Waiting::Changes { kept, up_to: number, told });
            }
            self.0.changes.send_if_modified(|last| std::mem::replace(last, number) != number);
            (result, number, is_sent)
        };
        let answer = result.map(answer);
        // Only those whose changes were kept are woken. One who is not told learns below what became of the store.
        if !(is_sent && given_back.await.is_ok()) {
            // A refusal waits too: it may rest on a change that a crash would still undo.
            self.kept(number).await?;
        }
        answer
    }

    /// One device, as it is kept.
    ///
    /// # Errors
    /// [`Refusal::DeviceNotFound`]; [`Refusal::Unavailable`] when the store failed.
    pub async fn device(&self, id: &DeviceId) -> Result<Arc<Device>, Refusal> {
        self.read_record(|registry| registry.device(id)).await
    }

    /// One device or module, as it is kept.
    ///
    /// # Errors
    /// [`Refusal::DeviceNotFound`]; [`Refusal::Unavailable`] when the store failed.
    pub async fn record(&self, twin: &TwinRef) -> Result<Arc<Device>, Refusal> {
        self.read_record(|registry| registry.record_and_keep(twin)).await
    }

    /// What `look` finds in the registry, as it is kept.
    ///
    /// # Errors
    /// What `look` refused; [`Refusal::Unavailable`] when the store failed.
    pub async fn read<T>(&self, look: impl FnOnce(&Registry) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let (found, number) = {
            let state = self.lock();
            (look(&state.registry), state.registry.changes())
        };
        self.kept(number).await?;
        found
    }

    /// The primary key of a device, for one simulated in this process; `None` while it is not registered.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when the store failed.
    pub async fn device_key(&self, id: &DeviceId) -> Result<Option<SharedKey>, Refusal> {
        match self.device(id).await {
            Ok(device) => Ok(device.identity.authentication.keys().map(|[primary, _]| primary.clone())),
            Err(Refusal::DeviceNotFound(_)) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The first devices by id, as they are kept.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when the store failed.
    pub async fn list(&self, top: Option<usize>) -> Result<Vec<Arc<Device>>, Refusal> {
        self.read(|registry| Ok(registry.list(top))).await
    }

    /// One page of a query, over what is kept.
    ///
    /// # Errors
    /// As [`super::query::run_page`]; [`Refusal::Unavailable`] when the store failed.
    pub async fn query(&self, text: &str, page_size: Option<usize>, token: Option<&str>) -> Result<Page, Refusal> {
        let mut run = Run::new(text, page_size, token)?;
        loop {
            let (page, number) = {
                let mut state = self.lock();
                let State { registry, view, .. } = &mut *state;
                let number = registry.changes();
                let view = view.as_mut().filter(|_| run.may_lag());
                let seen = view.map_or(&*registry, |view| view.at((self.0.now)()));
                (run.step(seen), number)
            };
            if let Some(page) = page.transpose() {
                self.kept(number).await?;
                return page;
            }
            // Others get their turn at the registry, and their tasks at this thread.
            tokio::task::yield_now().await;
        }
    }

    /// Has the store keep what was changed so far and take nothing more.
    pub async fn close(&self) {
        if let Some(store) = &self.0.store {
            // When nobody takes it, the store is closed already.
            store.send(Waiting::Close).await.ok();
        }
    }

    /// How many messages devices sent to the cloud since the start; they are counted and not kept.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.0.messages.load(Ordering::Relaxed)
    }

    /// Counts one.
    pub(super) fn count_message(&self) {
        self.0.messages.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks at who is connected, or changes it, with nothing to keep.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Presence, &mut Registry, Timestamp) -> T) -> T {
        let mut state = self.lock();
        let State { registry, presence, .. } = &mut *state;
        look(presence, registry, (self.0.now)())
    }

    /// Changes who is connected, and waits until the session that `change` gives is kept.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when the store failed or was closed.
    pub(super) async fn attend<T>(
        &self,
        change: impl FnOnce(&mut Presence, &mut Registry, Timestamp) -> (T, Option<SessionRecord>),
    ) -> Result<T, Refusal> {
        let place = match &self.0.store {
            Some(store) => Some(store.reserve().await.map_err(|_| self.stopped())?),
            None => None,
        };
        let (kept, told) = oneshot::channel();
        let (result, waits) = self.look(|presence, registry, now| {
            let (result, record) = change(presence, registry, now);
            let write = record.zip(place);
            let waits = write.is_some();
            if let Some((record, place)) = write {
                place.send(Waiting::Session(record, kept));
            }
            (result, waits)
        });
        if waits {
            told.await.map_err(|_| self.stopped())?;
        }
        Ok(result)
    }

    /// Tells who waits for configurations or jobs.
    fn notice(&self, kept: &[Kept]) {
        for one in kept {
            match one {
                Kept::Twin(_) | Kept::JobRows { .. } => {}
                Kept::Configuration { .. } => self.0.documents.send_modify(|documents| documents.configurations += 1),
                Kept::Job { .. } => self.0.documents.send_modify(|documents| documents.jobs += 1),
            }
        }
    }

    /// One record, which waits for no later change than its own.
    async fn read_record(
        &self,
        look: impl FnOnce(&mut Registry) -> Result<Arc<Device>, Refusal>,
    ) -> Result<Arc<Device>, Refusal> {
        let (found, number) = {
            let mut state = self.lock();
            let found = look(&mut state.registry);
            let number = found.as_ref().map_or(state.registry.changes(), |record| record.change);
            (found, number)
        };
        self.kept(number).await?;
        found
    }

    /// Waits until the change of this number is kept.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when the store failed or was closed.
    pub(super) async fn kept(&self, number: u64) -> Result<(), Refusal> {
        if matches!(&*self.0.durable.borrow(), Durable::UpTo(kept) if *kept >= number) {
            return Ok(());
        }
        let mut durable = self.0.durable.clone();
        let reached = |durable: &Durable| match durable {
            Durable::UpTo(kept) => *kept >= number,
            Durable::Failed(_) => true,
        };
        match durable.wait_for(reached).await.as_deref() {
            Ok(Durable::UpTo(_)) => Ok(()),
            Ok(Durable::Failed(reason)) => Err(Refusal::Unavailable(reason.to_string())),
            Err(_) => Err(self.stopped()),
        }
    }

    fn stopped(&self) -> Refusal {
        match &*self.0.durable.borrow() {
            Durable::UpTo(_) => Refusal::Unavailable("the hub is stopping".to_owned()),
            Durable::Failed(reason) => Refusal::Unavailable(reason.to_string()),
        }
    }

    /// A panic elsewhere leaves the registry whole: it changes by one insertion or removal at a time.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::pin::Pin;
    use std::task::Poll;

    use tokio::task::JoinSet;

    use super::super::identity::IdentitySpec;
    use super::super::if_match::IfMatch;
    use super::super::registry::Change;
    use super::super::state_dir::StateDir;
    use super::super::store::{Store, run_committer};
    use super::*;
    use crate::twin::{MergePatch, Object, Value};

    fn id(text: &str) -> DeviceId {
        DeviceId::new(text).unwrap()
    }

    fn random() -> Randomness {
        Box::new(|bytes| bytes.fill(4))
    }

    fn hub(places: usize) -> (HubHandle, mpsc::Receiver<Waiting>, watch::Sender<Durable>) {
        let (sender, receiver) = mpsc::channel(places);
        let (durable, progress) = watch::channel(Durable::UpTo(0));
        let clock = || Timestamp::UNIX_EPOCH;
        (HubHandle::new(Registry::default(), Presence::default(), random(), clock, sender, progress), receiver, durable)
    }

    async fn create(hub: &HubHandle, device: DeviceId) -> Result<Change, Refusal> {
        hub.write(|registry, random, now| {
            registry.put_identity(&device, IdentitySpec::default(), &IfMatch::Absent, random, now)
        })
        .await
    }

    /// Whether one look at `future` finds it unfinished.
    async fn waits<F: Future>(future: &mut Pin<&mut F>) -> bool {
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn nothing_is_told_before_it_is_kept() {
        let (hub, mut receiver, durable) = hub(8);
        let device = id("d");
        let mut write = std::pin::pin!(create(&hub, device.clone()));
        assert!(waits(&mut write).await, "the write");
        let mut read = std::pin::pin!(hub.device(&device));
        assert!(waits(&mut read).await, "a read of it");
        let mut query = std::pin::pin!(hub.query("SELECT * FROM devices", None, None));
        assert!(waits(&mut query).await, "a query that finds it");
        let mut again = std::pin::pin!(create(&hub, device.clone()));
        assert!(waits(&mut again).await, "a refusal that rests on it");
        let Some(Waiting::Changes { up_to: 1, told, .. }) = receiver.recv().await else { panic!("the change") };
        durable.send_replace(Durable::UpTo(1));
        told.send(Vec::new()).unwrap();
        assert!(write.await.is_ok());
        assert!(read.await.is_ok());
        assert!(query.await.is_ok());
        assert_eq!(again.await, Err(Refusal::DeviceAlreadyExists(device.clone())));
    }

    #[tokio::test]
    async fn a_failed_store_refuses_reads_and_writes_and_says_why() {
        let (hub, mut receiver, durable) = hub(8);
        let refused = Refusal::Unavailable("disk full".to_owned());
        {
            let mut write = std::pin::pin!(create(&hub, id("d")));
            assert!(waits(&mut write).await);
            durable.send_replace(Durable::Failed("disk full".into()));
            drop(receiver.recv().await);
            assert_eq!(write.await, Err(refused.clone()));
        }
        assert_eq!(hub.device(&id("d")).await, Err(refused.clone()));
        drop(receiver);
        assert_eq!(create(&hub, id("e")).await, Err(refused));
    }

    #[tokio::test]
    async fn a_closed_hub_takes_no_write() {
        let (hub, receiver, durable) = hub(8);
        drop((receiver, durable));
        assert_eq!(create(&hub, id("d")).await, Err(Refusal::Unavailable("the hub is stopping".to_owned())));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_writers_at_once_leave_in_the_store_what_is_in_the_registry() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Store::open(&StateDir::open(&folder.path().join("state")).unwrap()).unwrap();
        // Few places, so that writers also wait for one.
        let (hub, receiver, durable) = hub(3);
        let store = open();
        let committer = tokio::task::spawn_blocking(|| run_committer(store, receiver, durable));
        let mut writers = JoinSet::new();
        for writer in 0..40_i64 {
            let hub = hub.clone();
            writers.spawn(async move {
                let device = id(&format!("d{}", writer % 4));
                // All but the first of each device are refused.
                create(&hub, device.clone()).await.ok();
                for round in 0..5 {
                    let tags = Object::from([(format!("w{writer}"), Value::from(round))]);
                    let patch = MergePatch { tags: Some(tags), desired: None };
                    hub.write(|registry, _, now| {
                        registry.patch_twin(&TwinRef::device(device.clone()), &patch, &IfMatch::Absent, now)
                    })
                    .await
                    .unwrap();
                }
            });
        }
        writers.join_all().await;
        hub.close().await;
        committer.await.unwrap();
        let in_registry = hub.list(None).await.unwrap();
        assert_eq!(in_registry.iter().map(|device| device.twin.etag_number).sum::<u64>(), 4 + 40 * 5);
        let content = |device: &Device| (device.identity.device.clone(), device.twin.clone());
        let in_store = open().registry().unwrap();
        let in_store: BTreeMap<_, _> = in_store.devices_after(None).map(|device| content(&device)).collect();
        assert_eq!(in_store, in_registry.iter().map(|device| content(device)).collect::<BTreeMap<_, _>>());
    }
}
