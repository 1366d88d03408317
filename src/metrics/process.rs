//! What the process counts: its version, its log, its tasks.
//!
//! Invariant: revision and compiler are told by the build (`GEMINID_REVISION`, `GEMINID_RUSTC`) or said to be unknown.

use prometheus::process_collector::ProcessCollector;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::instrument::instruments;
use super::label::{Label, Level, Task};

instruments! {
    /// The instruments of the process.
    struct Instruments {
        /// 1; which geminid this is.
        build_info: IntGaugeVec = "build_info", ["version", "revision", "rustc"];
        /// Log messages, by level.
        log_messages: IntCounterVec = "log_messages_total", ["level"];
        /// Tasks that ended by a panic.
        task_panics: IntCounterVec = "task_panics_total", ["task"];
    }
}

/// The process's instruments. Clones share the counts.
#[derive(Debug, Clone)]
pub struct ProcessMetrics {
    instruments: Instruments,
}

impl ProcessMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let instruments = Instruments::register(registry)?;
        let revision = option_env!("GEMINID_REVISION").unwrap_or("unknown");
        let rustc = option_env!("GEMINID_RUSTC").unwrap_or("unknown");
        instruments.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), revision, rustc]).set(1);
        for level in Level::ALL {
            let _ = instruments.log_messages.with_label_values(&[level.as_str()]);
        }
        for task in Task::ALL {
            let _ = instruments.task_panics.with_label_values(&[task.as_str()]);
        }
        Ok(Self { instruments })
    }

    /// A message was logged.
    pub fn logged(&self, level: Level) {
        self.instruments.log_messages.with_label_values(&[level.as_str()]).inc();
    }

    /// A task ended by a panic.
    pub fn panicked(&self, task: Task) {
        self.instruments.task_panics.with_label_values(&[task.as_str()]).inc();
    }
}
