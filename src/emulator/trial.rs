//! What is set for trials: a tier's throttles, and faults on purpose.
//!
//! Invariant: with nothing set, no request waits here and nothing is counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::error::Refusal;
use super::faults::{FaultPlan, Faults};
use super::fill::FillOptions;
use super::throttle::{Throttle, Tier, Verdict};
use super::traffic::Traffic;

/// How long one who waits as long as it takes waits before the next try.
const PATIENCE: Duration = Duration::from_secs(1);

/// What can be set; by default nothing is.
#[derive(Debug, Clone, Default)]
pub struct TrialOptions {
    /// Fill the hub before it serves (`--fill-devices`, `--fill-template`).
    pub fill: Option<FillOptions>,
    /// The tier and its units whose limits are kept (`--tier`, `--units`).
    pub tier: Option<(Tier, u32)>,
    /// How far queries lag behind (`--query-lag`).
    pub query_lag: Duration,
    /// The faults to begin with, and the switch of `/_geminid/faults` (`--hub-faults`, `--fault-seed`).
    pub faults: Option<FaultPlan>,
}

/// Throttles and faults of a running hub. Clones are the same.
#[derive(Debug, Clone)]
pub struct Trial {
    throttle: Option<Arc<Mutex<Throttle>>>,
    faults: Option<Arc<Mutex<FaultPlan>>>,
}

impl Trial {
    /// The throttles and faults that `options` set.
    #[must_use]
    pub fn new(options: &TrialOptions) -> Self {
        let throttle = options.tier.map(|(tier, units)| Arc::new(Mutex::new(Throttle::new(tier, units))));
        Self { throttle, faults: options.faults.clone().map(|plan| Arc::new(Mutex::new(plan))) }
    }

    /// Whether a tier's limits are kept.
    #[must_use]
    pub fn has_tier(&self) -> bool {
        self.throttle.is_some()
    }

    /// Waits for the turn of a request that counts `weight` times.
    ///
    /// # Errors
    /// [`Refusal::Throttled`] when it would wait too long, [`Refusal::QuotaExceeded`].
    pub async fn admit(&self, kind: Traffic, weight: u32, now: Timestamp) -> Result<(), Refusal> {
        let Some(throttle) = &self.throttle else { return Ok(()) };
        let verdict = lock(throttle).admit(kind, weight, now);
        match verdict {
            Verdict::After(Duration::ZERO) => Ok(()),
            Verdict::After(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            Verdict::Backlog => Err(Refusal::Throttled(kind)),
            Verdict::Quota => Err(Refusal::QuotaExceeded),
        }
    }

    /// The same for one who waits as long as it takes; `now` is the hub's clock.
    ///
    /// # Errors
    /// [`Refusal::QuotaExceeded`].
    pub async fn admit_patiently(
        &self,
        kind: Traffic,
        weight: u32,
        now: impl Fn() -> Timestamp,
    ) -> Result<(), Refusal> {
        loop {
            match self.admit(kind, weight, now()).await {
                Err(Refusal::Throttled(_)) => tokio::time::sleep(PATIENCE).await,
                admitted => return admitted,
            }
        }
    }

    /// Counts a request carried out, as [`Throttle::charge`].
    pub fn charge(&self, kind: Traffic, bytes: usize, now: Timestamp) {
        if let Some(throttle) = &self.throttle {
            lock(throttle).charge(kind, bytes, now);
        }
    }

    /// What goes wrong with the next request.
    #[must_use]
    pub fn draw(&self, kind: Traffic) -> Faults {
        self.faults.as_ref().map(|faults| lock(faults).draw(kind)).unwrap_or_default()
    }

    /// The faults as JSON; `None` when they are switched off.
    #[must_use]
    pub fn fault_plan(&self) -> Option<Vec<u8>> {
        self.faults.as_ref().map(|faults| lock(faults).to_json())
    }

    /// Puts other faults in the place of those before.
    ///
    /// # Errors
    /// As [`FaultPlan::replaced`]; [`Refusal::AddressNotFound`] when faults are switched off.
    pub fn put_fault_plan(&self, json: &[u8]) -> Result<(), Refusal> {
        let mut plan = lock(self.faults.as_ref().ok_or(Refusal::AddressNotFound)?);
        *plan = plan.replaced(json)?;
        Ok(())
    }
}

/// A panic elsewhere leaves both whole: they change by one assignment at a time.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
