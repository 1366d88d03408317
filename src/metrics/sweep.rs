//! What the sweeps of a hub show.
//!
//! Invariant: a gauge holds what was true at the last sweep, or at the last look while one is under way.

use std::time::Duration;

use prometheus::{GaugeVec, IntGauge, IntGaugeVec, Registry};

use super::instrument::{gauge_value, instruments, seconds};
use super::label::{Label, SweepKind};

instruments! {
    /// The instruments of all hubs' sweeps.
    struct Instruments {
        /// Time from one sweep to the next: the setting, or what rate and daily messages allow.
        interval: GaugeVec = "sweep_interval_effective_seconds", ["hub"];
        /// Time that one sweep of this kind takes at our rate; 0 where the hub's tier is not known.
        cost: GaugeVec = "sweep_cost", ["hub", "mode"];
        /// Messages of the daily quota that one sweep of this kind uses.
        cost_messages: IntGaugeVec = "sweep_cost_messages", ["hub", "mode"];
        /// Twins that the present sweep has still to look at.
        remaining: IntGaugeVec = "sweep_remaining", ["hub"];
        /// Time until the present sweep is done, at its pace so far; 0 when there is none.
        eta: GaugeVec = "sweep_eta_seconds", ["hub"];
        /// Devices of the hub that nobody declares here, by the count of the last sweep.
        undeclared: IntGaugeVec = "undeclared_twins", ["hub"];
    }
}

/// The sweeps' instruments.
#[derive(Debug, Clone)]
pub(super) struct SweepMetrics {
    instruments: Instruments,
}

impl SweepMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self { instruments: Instruments::register(registry)? })
    }

    /// The handle of one hub's sweeps. All its series exist from then on.
    pub(super) fn hub(&self, hub: &str) -> SweepHandle {
        let all = &self.instruments;
        let interval = all.interval.with_label_values(&[hub]);
        let of_kinds = SweepKind::ALL.iter().map(|kind| {
            let labels = &[hub, kind.as_str()];
            (all.cost.with_label_values(labels), all.cost_messages.with_label_values(labels))
        });
        SweepHandle {
            interval,
            costs: of_kinds.collect(),
            remaining: all.remaining.with_label_values(&[hub]),
            eta: all.eta.with_label_values(&[hub]),
            undeclared: all.undeclared.with_label_values(&[hub]),
        }
    }
}

/// One hub's sweeps. Clones share the counts.
#[derive(Debug, Clone)]
pub struct SweepHandle {
    interval: prometheus::Gauge,
    /// In the order of the kinds.
    costs: Vec<(prometheus::Gauge, IntGauge)>,
    remaining: IntGauge,
    eta: prometheus::Gauge,
    undeclared: IntGauge,
}

impl SweepHandle {
    /// Twins that the present sweep has still to look at.
    #[must_use]
    pub fn remaining(&self) -> usize {
        usize::try_from(self.remaining.get()).unwrap_or_default()
    }

    /// How often sweeps are made.
    pub fn set_interval(&self, interval: Duration) {
        self.interval.set(seconds(interval));
    }

    /// What a sweep of `kind` costs.
    pub fn set_cost(&self, kind: SweepKind, time: Duration, messages: u64) {
        let index = SweepKind::ALL.iter().position(|known| *known == kind);
        if let Some((cost, count)) = index.and_then(|index| self.costs.get(index)) {
            cost.set(seconds(time));
            count.set(i64::try_from(messages).unwrap_or(i64::MAX));
        }
    }

    /// How far the present sweep is.
    pub fn set_progress(&self, remaining: usize, eta: Duration) {
        self.remaining.set(gauge_value(remaining));
        self.eta.set(seconds(eta));
    }

    /// How many devices nobody declares.
    pub fn set_undeclared(&self, devices: usize) {
        self.undeclared.set(gauge_value(devices));
    }
}
