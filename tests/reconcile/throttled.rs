//! A hub in memory that throttles, counts and notes when it was asked what.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use geminid::emulator::SimHub;
use geminid::emulator::throttle::{Throttle, Tier, Verdict};
use geminid::emulator::traffic::Traffic;
use geminid::hub::{Continuation, HubError, Paced, QueryPage, ReadTwins, WriteTwins};
use geminid::twin::{DeviceId, ETag, MergePatch, Section, Twin, TwinRef, Value};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Query,
    Patch,
    Create,
}

impl Call {
    fn traffic(self) -> Traffic {
        match self {
            Self::Read => Traffic::TwinRead,
            Self::Query => Traffic::Query,
            Self::Patch => Traffic::TwinWrite,
            Self::Create => Traffic::RegistryWrite,
        }
    }
}

#[derive(Debug)]
struct State {
    throttle: Option<Throttle>,
    calls: Vec<(Call, Duration)>,
    refused: usize,
    messages: f64,
    no_messages: Option<Call>,
    asked: usize,
    hangs: bool,
    weight: u32,
}

/// The hub. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Throttled {
    hub: SimHub,
    state: Arc<Mutex<State>>,
    started: Instant,
}

impl Throttled {
    pub(crate) fn new(tier: Option<(Tier, u32)>) -> Self {
        let throttle = tier.map(|(tier, units)| Throttle::new(tier, units));
        let state = State {
            throttle,
            calls: Vec::new(),
            refused: 0,
            messages: 0.0,
            no_messages: None,
            asked: 0,
            hangs: false,
            weight: 1,
        };
        #[expect(clippy::disallowed_methods, reason = "the paused clock of a test")]
        Self { hub: SimHub::new(), state: Arc::new(Mutex::new(state)), started: Instant::now() }
    }

    pub(crate) fn create(&self, twin: &TwinRef) {
        self.hub.create(&twin.device).unwrap();
    }

    /// When calls of this kind were carried out, in order.
    pub(crate) fn times(&self, call: Call) -> Vec<Duration> {
        self.state().calls.iter().filter(|(made, _)| *made == call).map(|(_, at)| *at).collect()
    }

    /// Somebody else edits the twin.
    pub(crate) fn edit(&self, twin: &TwinRef, power: i64) {
        let mut patch = MergePatch::default();
        patch.set(Section::Desired, &["power".to_owned()], Value::from(power));
        self.hub.edit(&twin.device, &patch).unwrap();
    }

    /// Forgets what was asked so far.
    pub(crate) fn forget_calls(&self) {
        let mut state = self.state();
        state.calls.clear();
        state.asked = 0;
    }

    /// Whether such calls are refused because the day's messages are used up.
    pub(crate) fn refuse_for_quota(&self, call: Call, refuse: bool) {
        self.state().no_messages = Some(call).filter(|_| refuse);
    }

    /// Takes every call and answers none.
    pub(crate) fn hang(&self) {
        self.state().hangs = true;
    }

    /// Counts every call so many times.
    pub(crate) fn weigh(&self, weight: u32) {
        self.state().weight = weight;
    }

    /// How often anything was asked, whatever the answer.
    pub(crate) fn asked(&self) -> usize {
        self.state().asked
    }

    /// How often the answer was 429.
    pub(crate) fn refused(&self) -> usize {
        self.state().refused
    }

    /// The messages that a hub would have counted.
    pub(crate) fn messages(&self) -> f64 {
        self.state().messages
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What becomes of a call; `None` when it is never answered.
    fn verdict(&self, call: Call, at: Timestamp) -> Option<Verdict> {
        let mut state = self.state();
        state.asked += 1;
        if state.hangs {
            return None;
        }
        if state.no_messages == Some(call) {
            return Some(Verdict::Quota);
        }
        let weight = state.weight;
        let verdict = state.throttle.as_mut().map(|throttle| throttle.admit(call.traffic(), weight, at));
        Some(verdict.unwrap_or(Verdict::After(Duration::ZERO)))
    }

    async fn admit(&self, call: Call) -> Result<(), HubError> {
        let now = self.started.elapsed();
        let at = Timestamp::UNIX_EPOCH + SignedDuration::try_from(now).unwrap();
        let verdict = self.verdict(call, at);
        let Some(verdict) = verdict else { return std::future::pending().await };
        match verdict {
            Verdict::After(wait) => tokio::time::sleep(wait).await,
            Verdict::Backlog => {
                self.state().refused += 1;
                return Err(HubError::Throttled { code: "ThrottlingBacklogTimeout".to_owned(), retry_after: None });
            }
            Verdict::Quota => return Err(HubError::Quota),
        }
        let mut state = self.state();
        state.calls.push((call, self.started.elapsed()));
        // Twins and pages of these tests are one message each; a page of full rows would be more.
        state.messages += match call {
            Call::Read | Call::Query => 1.0,
            // The write, and what the device is told.
            Call::Patch => 2.0,
            Call::Create => 0.0,
        };
        Ok(())
    }
}

impl Paced for Throttled {}

impl ReadTwins for Throttled {
    async fn get_twin(&self, twin: &TwinRef) -> Result<Twin, HubError> {
        self.admit(Call::Read).await?;
        self.hub.get_twin(twin).await
    }

    async fn query_page(&self, query: &str, size: usize, from: Option<&Continuation>) -> Result<QueryPage, HubError> {
        self.admit(Call::Query).await?;
        self.hub.query_page(query, size, from).await
    }
}

impl WriteTwins for Throttled {
    async fn patch_twin(&self, twin: &TwinRef, patch: &MergePatch, etag: &ETag) -> Result<Twin, HubError> {
        self.admit(Call::Patch).await?;
        self.hub.patch_twin(twin, patch, etag).await
    }

    async fn create_device(&self, device: &DeviceId) -> Result<(), HubError> {
        self.admit(Call::Create).await?;
        self.hub.create_device(device).await
    }
}
