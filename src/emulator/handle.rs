//! The running hub as its front doors see it: one registry, guarded, and the way to the store.
//!
//! Invariant: changes go to the store in the order the registry made them, because they are sent while the registry
//! is locked, through a place reserved before. No answer, read or write, tells of a change that is not kept yet.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::error::Refusal;
use super::identity::Random;
use super::query::{self, Page};
use super::registry::{Change, Device, Registry};
use super::store::{Durable, Waiting};
use crate::twin::DeviceId;

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
    now: fn() -> Timestamp,
}

struct State {
    registry: Registry,
    random: Randomness,
}

impl fmt::Debug for HubHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubHandle").field("changes", &*self.0.changes.borrow()).finish_non_exhaustive()
    }
}

impl HubHandle {
    /// A hub over `registry`. Changes go to `store`, whose progress is `durable`.
    #[must_use]
    pub fn new(
        registry: Registry,
        random: Randomness,
        now: fn() -> Timestamp,
        store: mpsc::Sender<Waiting>,
        durable: watch::Receiver<Durable>,
    ) -> Self {
        Self::make(registry, random, now, Some(store), durable)
    }

    /// A hub that keeps nothing.
    #[must_use]
    pub fn ephemeral(random: Randomness, now: fn() -> Timestamp) -> Self {
        let (_, durable) = watch::channel(Durable::UpTo(u64::MAX));
        Self::make(Registry::default(), random, now, None, durable)
    }

    fn make(
        registry: Registry,
        random: Randomness,
        now: fn() -> Timestamp,
        store: Option<mpsc::Sender<Waiting>>,
        durable: watch::Receiver<Durable>,
    ) -> Self {
        let (changes, _) = watch::channel(registry.changes());
        Self(Arc::new(Shared { state: Mutex::new(State { registry, random }), store, durable, changes, now }))
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

    /// Random bytes of the hub.
    #[must_use]
    pub fn draw(&self) -> u128 {
        let mut bytes = [0; 16];
        (self.lock().random)(&mut bytes);
        u128::from_be_bytes(bytes)
    }

    /// Changes the registry and waits until the change is kept.
    ///
    /// # Errors
    /// What `change` refused; [`Refusal::Unavailable`] when the store failed or was closed.
    pub async fn write(
        &self,
        change: impl FnOnce(&mut Registry, Random<'_>, Timestamp) -> Result<Change, Refusal>,
    ) -> Result<Change, Refusal> {
        let place = match &self.0.store {
            Some(store) => Some(store.reserve().await.map_err(|_| self.stopped())?),
            None => None,
        };
        let (result, number) = {
            let mut state = self.lock();
            let State { registry, random } = &mut *state;
            let result = change(registry, random, (self.0.now)());
            if let (Ok(change), Some(place)) = (&result, place) {
                place.send(Waiting::Change(change.clone()));
            }
            let number = registry.changes();
            self.0.changes.send_if_modified(|last| std::mem::replace(last, number) != number);
            (result, number)
        };
        // A refusal waits too: it may rest on a change that a crash would still undo.
        self.kept(result.as_ref().map_or(number, |change| change.number)).await?;
        result
    }

    /// One device, as it is kept.
    ///
    /// # Errors
    /// [`Refusal::DeviceNotFound`]; [`Refusal::Unavailable`] when the store failed.
    pub async fn device(&self, id: &DeviceId) -> Result<Arc<Device>, Refusal> {
        let (found, number) = {
            let state = self.lock();
            let found = state.registry.device(id);
            let number = found.as_ref().map_or(state.registry.changes(), |device| device.change);
            (found, number)
        };
        self.kept(number).await?;
        found
    }

    /// The first devices by id, as they are kept.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when the store failed.
    pub async fn list(&self, top: Option<usize>) -> Result<Vec<Arc<Device>>, Refusal> {
        let (found, number) = {
            let state = self.lock();
            (state.registry.list(top), state.registry.changes())
        };
        self.kept(number).await?;
        Ok(found)
    }

    /// One page of a query, over what is kept.
    ///
    /// # Errors
    /// As [`query::run_page`]; [`Refusal::Unavailable`] when the store failed.
    pub async fn query(&self, text: &str, page_size: Option<usize>, token: Option<&str>) -> Result<Page, Refusal> {
        let (page, number) = {
            let state = self.lock();
            (query::run_page(&state.registry, text, page_size, token), state.registry.changes())
        };
        self.kept(number).await?;
        page
    }

    /// Has the store keep what was changed so far and take nothing more.
    pub async fn close(&self) {
        if let Some(store) = &self.0.store {
            // When nobody takes it, the store is closed already.
            store.send(Waiting::Close).await.ok();
        }
    }

    /// Waits until the change of this number is kept.
    async fn kept(&self, number: u64) -> Result<(), Refusal> {
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
