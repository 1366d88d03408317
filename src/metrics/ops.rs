//! What our own port counts.
//!
//! Invariant: scrapes are not counted, Prometheus does that itself (`metrics.md` section 7).

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::instrument::{gauge_value, instruments};
use super::label::{Code, Handler, Label};

/// The statuses our own port answers with; these exist with 0 from the start.
const STATUSES: [u16; 4] = [200, 404, 405, 503];

instruments! {
    /// The instruments of our own port.
    struct Instruments {
        /// Series in the last exposition.
        series: IntGauge = "exposition_series", [];
        /// Bytes of the last exposition.
        bytes: IntGauge = "exposition_bytes", [];
        /// Requests to our own port, by path and HTTP status; scrapes are not counted.
        requests: IntCounterVec = "http_requests_total", ["handler", "code"];
    }
}

/// The instruments of our own port. Clones share the counts.
#[derive(Debug, Clone)]
pub struct OpsMetrics {
    instruments: Instruments,
}

impl OpsMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let instruments = Instruments::register(registry)?;
        for handler in Handler::ALL {
            for status in STATUSES {
                let code = Code::of_status(status).text();
                let _ = instruments.requests.with_label_values(&[handler.as_str(), &code]);
            }
        }
        Ok(Self { instruments })
    }

    /// An exposition was made.
    pub fn exposed(&self, series: usize, bytes: usize) {
        self.instruments.series.set(gauge_value(series));
        self.instruments.bytes.set(gauge_value(bytes));
    }

    /// A request was answered.
    pub fn answered(&self, handler: Handler, code: Code) {
        self.instruments.requests.with_label_values(&[handler.as_str(), &code.text()]).inc();
    }
}
