//! What the hub client counts.
//!
//! Invariant: a request is in flight exactly as long as its [`InFlight`] lives, dropped futures included.

use std::time::{Duration, SystemTime};

use prometheus::{Gauge, GaugeVec, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::instrument::{instruments, seconds, unix_seconds};
use super::label::{Code, Label, Operation};

/// Buckets of request durations, in seconds; as Kubernetes' `rest_client`.
const REQUEST_BUCKETS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

/// The operation of asking Entra ID for a token; no request to the hub, so it has no budget.
const TOKEN: &str = "token";

instruments! {
    /// The instruments of all hubs' clients.
    struct Instruments {
        /// 1 while the hub answers with our credentials; 0 before the first answer.
        up: IntGaugeVec = "hub_up", ["hub"];
        /// Requests to the hub, and to Entra ID for a token, by operation and HTTP status; none when no answer arrived.
        requests: IntCounterVec = "hub_requests_total", ["hub", "operation", "code"];
        /// Time from a request to its answer.
        durations: HistogramVec = "hub_request_duration_seconds", ["hub", "operation"], REQUEST_BUCKETS;
        /// Answers 429.
        throttled: IntCounterVec = "hub_throttled_total", ["hub", "operation"];
        /// Requests that wait for their answer.
        in_flight: IntGaugeVec = "hub_requests_in_flight", ["hub"];
        /// Unix time at which the credential ends; 0 when it does not end or the end is unknown.
        credential_expiry: GaugeVec = "hub_credential_expiry_timestamp_seconds", ["hub"];
    }
}

/// The hub clients' instruments.
#[derive(Debug, Clone)]
pub struct ClientMetrics {
    instruments: Instruments,
}

impl ClientMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self { instruments: Instruments::register(registry)? })
    }

    /// The handle of one hub's client. All its series exist from then on.
    #[must_use]
    pub fn hub(&self, hub: &str) -> ClientHub {
        let all = &self.instruments;
        for operation in Operation::ALL.iter().map(|operation| operation.as_str()).chain([TOKEN]) {
            let _ = all.durations.with_label_values(&[hub, operation]);
            let _ = all.throttled.with_label_values(&[hub, operation]);
            for code in Code::KNOWN {
                let _ = all.requests.with_label_values(&[hub, operation, &code.text()]);
            }
        }
        ClientHub {
            hub: hub.to_owned(),
            instruments: all.clone(),
            up: all.up.with_label_values(&[hub]),
            in_flight: all.in_flight.with_label_values(&[hub]),
            credential_expiry: all.credential_expiry.with_label_values(&[hub]),
        }
    }
}

/// One hub's client. Clones share the counts.
#[derive(Debug, Clone)]
pub struct ClientHub {
    hub: String,
    instruments: Instruments,
    up: IntGauge,
    in_flight: IntGauge,
    credential_expiry: Gauge,
}

impl ClientHub {
    /// A request is sent; it is in flight until what is returned is dropped.
    #[must_use]
    pub fn started(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// A request ended after `took`, with this status or without an answer.
    pub fn finished(&self, operation: Operation, code: Code, took: Duration) {
        self.count(operation.as_str(), code, took);
    }

    /// A request for a token ended after `took`, with this status or without an answer. It went to Entra ID, not to the
    /// hub, so it is never in flight there.
    pub fn token_asked(&self, code: Code, took: Duration) {
        self.count(TOKEN, code, took);
    }

    fn count(&self, operation: &str, code: Code, took: Duration) {
        self.instruments.requests.with_label_values(&[&self.hub, operation, &code.text()]).inc();
        self.instruments.durations.with_label_values(&[&self.hub, operation]).observe(seconds(took));
        if code == Code::of_status(429) {
            self.instruments.throttled.with_label_values(&[&self.hub, operation]).inc();
        }
    }

    /// Whether the hub answers with our credentials.
    pub fn set_up(&self, up: bool) {
        self.up.set(i64::from(up));
    }

    /// When the credential ends; `None` when it does not end or the end is unknown.
    pub fn set_credential_expiry(&self, at: Option<SystemTime>) {
        self.credential_expiry.set(at.map_or(0.0, unix_seconds));
    }
}

/// A request that waits for its answer; counted until dropped.
#[derive(Debug)]
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
