//! What loading manifests counts.
//!
//! Invariant: a process has one answer to "is Git loaded", though every hub has a folder of its own: the gauges
//! without a hub label speak of the hub that is worst off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge as GaugeProto, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Gauge, IntCounter, IntGauge, IntGaugeVec, Registry};

use super::instrument::{PREFIX, gauge_value, instruments, unix_seconds};
use super::label::{Label, ManifestKind, ManifestState};

instruments! {
    /// The instruments of all sources.
    struct Instruments {
        /// 1 when the last load of every source succeeded; 0 before the first.
        successful: IntGauge = "source_last_reload_successful", [];
        /// Unix time of the last load that succeeded, of the source where that is longest ago; 0 before the first.
        success_time: Gauge = "source_last_reload_success_timestamp_seconds", [];
        /// Loads of manifests, failed ones included.
        reloads: IntCounter = "source_reloads_total", [];
        /// Loads of manifests that failed; the last good state stays.
        failures: IntCounter = "source_reload_failures_total", [];
        /// Manifests of the last load, by kind and state; those of which it cannot be told what they are about count as a device's.
        manifests: IntGaugeVec = "manifests", ["kind", "state"];
    }
}

/// What is known of one hub's source.
#[derive(Debug, Clone, Default)]
struct SourceState {
    good: bool,
    success_time: f64,
    revision: Option<String>,
    manifests: BTreeMap<(ManifestKind, ManifestState), usize>,
}

type States = Arc<Mutex<BTreeMap<String, SourceState>>>;

/// The sources' instruments.
#[derive(Debug, Clone)]
pub struct SourceMetrics {
    instruments: Instruments,
    states: States,
}

impl SourceMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let states = States::default();
        registry.register(Box::new(RevisionInfo::new(Arc::clone(&states))?))?;
        let instruments = Instruments::register(registry)?;
        for kind in ManifestKind::ALL {
            for state in ManifestState::ALL {
                let _ = instruments.manifests.with_label_values(&[kind.as_str(), state.as_str()]);
            }
        }
        Ok(Self { instruments, states })
    }

    /// The handle of one hub's source, which counts as not loaded from then on.
    #[must_use]
    pub fn hub(&self, hub: &str) -> SourceHub {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).entry(hub.to_owned()).or_default();
        SourceHub { hub: hub.to_owned(), metrics: self.clone() }
    }
}

/// One hub's source. Clones share the counts.
#[derive(Debug, Clone)]
pub struct SourceHub {
    hub: String,
    metrics: SourceMetrics,
}

impl SourceHub {
    /// A load succeeded: this revision is declared now.
    pub fn reloaded(&self, revision: &str, at: SystemTime) {
        self.metrics.instruments.reloads.inc();
        self.update(|state| {
            state.good = true;
            state.success_time = unix_seconds(at);
            state.revision = Some(revision.to_owned());
        });
    }

    /// A load failed; what was declared stays.
    pub fn reload_failed(&self) {
        self.metrics.instruments.reloads.inc();
        self.metrics.instruments.failures.inc();
        self.update(|state| state.good = false);
    }

    /// How many manifests of this kind are in this state after the last load.
    pub fn set_manifests(&self, kind: ManifestKind, manifest_state: ManifestState, count: usize) {
        self.update(|state| {
            state.manifests.insert((kind, manifest_state), count);
        });
    }

    fn update(&self, change: impl FnOnce(&mut SourceState)) {
        let mut states = self.metrics.states.lock().unwrap_or_else(PoisonError::into_inner);
        change(states.entry(self.hub.clone()).or_default());
        let instruments = &self.metrics.instruments;
        instruments.successful.set(i64::from(states.values().all(|state| state.good)));
        instruments.success_time.set(states.values().map(|state| state.success_time).fold(f64::INFINITY, f64::min));
        for kind in ManifestKind::ALL {
            for state in ManifestState::ALL {
                let count = states.values().filter_map(|source| source.manifests.get(&(*kind, *state))).sum();
                instruments.manifests.with_label_values(&[kind.as_str(), state.as_str()]).set(gauge_value(count));
            }
        }
    }
}

/// `geminid_source_revision_info`: hub and revision are both open, so it is written from state (`metrics.md` 1.3).
struct RevisionInfo {
    desc: Desc,
    states: States,
}

const REVISION_HELP: &str = "1 for the revision of the manifests that each hub's declared state is made of.";

impl RevisionInfo {
    fn new(states: States) -> Result<Self, prometheus::Error> {
        let labels = vec!["hub".to_owned(), "revision".to_owned()];
        let name = format!("{PREFIX}source_revision_info");
        let desc = Desc::new(name, REVISION_HELP.to_owned(), labels, [].into())?;
        Ok(Self { desc, states })
    }
}

impl Collector for RevisionInfo {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = states.iter().filter_map(|(hub, state)| {
            let mut one = GaugeProto::default();
            one.set_value(1.0);
            let mut metric = Metric::from_gauge(one);
            metric.set_label(vec![label_pair("hub", hub), label_pair("revision", state.revision.as_deref()?)]);
            Some(metric)
        });
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

fn label_pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
