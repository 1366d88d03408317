//! What our own port counts, and how the runtime under it stands.
//!
//! Invariant: scrapes are not counted, Prometheus does that itself (`metrics.md` section 7).

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::instrument::{gauge_value, instruments};
use super::label::{Code, Handler, Label};

/// The statuses our own port answers with; these exist with 0 from the start.
const STATUSES: [u16; 5] = [200, 401, 404, 405, 503];

instruments! {
    /// The instruments of our own port.
    struct Instruments {
        /// Series in the last exposition.
        series: IntGauge = "exposition_series", [];
        /// Bytes of the last exposition.
        bytes: IntGauge = "exposition_bytes", [];
        /// Requests to our own port, by path and HTTP status; scrapes are not counted.
        requests: IntCounterVec = "http_requests_total", ["handler", "code"];
        /// Threads that run tasks.
        workers: IntGauge = "tokio_workers", [];
        /// Tasks that have not ended.
        tasks: IntGauge = "tokio_alive_tasks", [];
        /// Tasks that wait for any thread.
        queue: IntGauge = "tokio_global_queue_depth", [];
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

    /// How the runtime stands, read when somebody scrapes.
    pub fn set_runtime(&self, workers: usize, tasks: usize, queue: usize) {
        self.instruments.workers.set(gauge_value(workers));
        self.instruments.tasks.set(gauge_value(tasks));
        self.instruments.queue.set(gauge_value(queue));
    }

    /// A request was answered.
    pub fn answered(&self, handler: Handler, code: Code) {
        self.instruments.requests.with_label_values(&[handler.as_str(), &code.text()]).inc();
    }
}
