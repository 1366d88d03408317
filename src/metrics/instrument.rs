//! Declaring instruments: the doc comment of a field is its HELP.
//!
//! Invariant: every name begins with [`PREFIX`], and an instrument is registered exactly once, when it is made.

use prometheus::core::Collector;
use prometheus::{CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

/// What every name of ours begins with.
pub const PREFIX: &str = "geminid_";

/// What can be declared with [`instruments!`].
pub(super) trait Instrument: Collector + Clone + 'static {
    /// A new instrument; `buckets` counts for histograms alone.
    fn create(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Result<Self, prometheus::Error>;
}

macro_rules! plain {
    ($($kind:ty),+) => {$(
        impl Instrument for $kind {
            fn create(name: &str, help: &str, _: &[&str], _: &[f64]) -> Result<Self, prometheus::Error> {
                Self::with_opts(Opts::new(name, help))
            }
        }
    )+};
}

macro_rules! labelled {
    ($($kind:ty),+) => {$(
        impl Instrument for $kind {
            fn create(name: &str, help: &str, labels: &[&str], _: &[f64]) -> Result<Self, prometheus::Error> {
                Self::new(Opts::new(name, help), labels)
            }
        }
    )+};
}

plain!(IntCounter, IntGauge, Gauge);
labelled!(CounterVec, IntCounterVec, GaugeVec, IntGaugeVec);

impl Instrument for Histogram {
    fn create(name: &str, help: &str, _: &[&str], buckets: &[f64]) -> Result<Self, prometheus::Error> {
        Self::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
    }
}

impl Instrument for HistogramVec {
    fn create(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Result<Self, prometheus::Error> {
        Self::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
    }
}

/// Makes an instrument and registers it.
pub(super) fn register<T: Instrument>(
    registry: &Registry,
    name: &str,
    help: &[&str],
    labels: &[&str],
    buckets: &[f64],
) -> Result<T, prometheus::Error> {
    let help: Vec<&str> = help.iter().map(|line| line.trim()).collect();
    let instrument = T::create(&format!("{PREFIX}{name}"), &help.join(" "), labels, buckets)?;
    registry.register(Box::new(instrument.clone()))?;
    Ok(instrument)
}

/// Declares a struct of instruments, each field as `name: Type = "name_without_prefix", ["label"], buckets;`.
macro_rules! instruments {
    ($(#[$doc:meta])* struct $name:ident {
        $($(#[doc = $help:literal])+ $field:ident: $kind:ty = $metric:literal, [$($label:literal),*] $(, $buckets:expr)?;)+
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(super) struct $name {
            $($(#[doc = $help])+ $field: $kind,)+
        }

        impl $name {
            /// Names without prefix, and labels in the order in which the crate hashes their values.
            #[cfg(test)]
            pub(super) const DECLARED: &'static [(&'static str, &'static [&'static str])] =
                &[$(($metric, &[$($label),*]),)+];

            fn register(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
                Ok(Self {
                    $($field: $crate::metrics::instrument::register(
                        registry, $metric, &[$($help),+], &[$($label),*], &[$(&$buckets[..],)? &[] as &[f64]].concat(),
                    )?,)+
                })
            }
        }
    };
}
pub(super) use instruments;

/// A duration as seconds.
pub(super) fn seconds(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64()
}

/// A moment as Unix seconds; moments before 1970 count as 0.
pub(super) fn unix_seconds(at: std::time::SystemTime) -> f64 {
    at.duration_since(std::time::UNIX_EPOCH).map_or(0.0, seconds)
}

/// A count as a gauge takes it.
pub(super) fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
