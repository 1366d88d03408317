//! What the budget of a hub counts.
//!
//! Invariant: a request that had not to wait counts too, with no time, so that the mean is that of all requests.

use std::time::Duration;

use prometheus::{GaugeVec, HistogramVec, IntGaugeVec, Registry};

use super::instrument::{instruments, seconds};
use super::label::{Label, Operation};

/// Buckets of waiting for a turn, in seconds.
const WAIT_BUCKETS: [f64; 9] = [0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0];

instruments! {
    /// The instruments of all hubs' budgets.
    struct Instruments {
        /// Time a request waited for its turn before it was sent; only where the hub's tier is known.
        waits: HistogramVec = "hub_ratelimit_wait_seconds", ["hub", "operation"], WAIT_BUCKETS;
        /// Requests that could be sent at once; 0 where the hub's tier is not known.
        tokens: GaugeVec = "hub_ratelimit_available_tokens", ["hub", "operation"];
        /// Messages of the hub's daily quota that we used since 00:00 UTC or since the start, by size.
        messages: IntGaugeVec = "quota_messages_estimated", ["hub"];
    }
}

/// The budgets' instruments.
#[derive(Debug, Clone)]
pub struct BudgetMetrics {
    instruments: Instruments,
}

impl BudgetMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self { instruments: Instruments::register(registry)? })
    }

    /// The handle of one hub's budget. All its series exist from then on.
    #[must_use]
    pub fn hub(&self, hub: &str) -> BudgetHub {
        let all = &self.instruments;
        for operation in Operation::ALL {
            let _ = all.waits.with_label_values(&[hub, operation.as_str()]);
            let _ = all.tokens.with_label_values(&[hub, operation.as_str()]);
        }
        let _ = all.messages.with_label_values(&[hub]);
        BudgetHub { hub: hub.to_owned(), instruments: all.clone() }
    }
}

/// One hub's budget. Clones share the counts.
#[derive(Debug, Clone)]
pub struct BudgetHub {
    hub: String,
    instruments: Instruments,
}

impl BudgetHub {
    /// A request waited this long for its turn.
    pub fn waited(&self, operation: Operation, time: Duration) {
        self.instruments.waits.with_label_values(&[&self.hub, operation.as_str()]).observe(seconds(time));
    }

    /// How many requests could be sent at once.
    pub fn set_tokens(&self, operation: Operation, tokens: f64) {
        self.instruments.tokens.with_label_values(&[&self.hub, operation.as_str()]).set(tokens);
    }

    /// How many messages of the day are used.
    pub fn set_messages(&self, messages: u64) {
        let messages = i64::try_from(messages).unwrap_or(i64::MAX);
        self.instruments.messages.with_label_values(&[&self.hub]).set(messages);
    }
}
