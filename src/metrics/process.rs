//! What the process counts: its version, its log, its tasks.
//!
//! Invariant: revision and compiler are told by the build (`GEMINID_REVISION`, `GEMINID_RUSTC`) or said to be unknown.

use prometheus::process_collector::ProcessCollector;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::instrument::instruments;
use super::label::{AuditResult, Label, Level, Task};

instruments! {
    /// The instruments of the process.
    struct Instruments {
        /// 1; which geminid this is.
        build_info: IntGaugeVec = "build_info", ["version", "revision", "rustc"];
        /// Log messages, by level.
        log_messages: IntCounterVec = "log_messages_total", ["level"];
        /// Tasks that ended by a panic.
        task_panics: IntCounterVec = "task_panics_total", ["task"];
        /// Lines of the audit log, by whether they could be written.
        audit_lines: IntCounterVec = "audit_lines_total", ["result"];
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
        for result in AuditResult::ALL {
            let _ = instruments.audit_lines.with_label_values(&[result.as_str()]);
        }
        Ok(Self { instruments })
    }

    /// A message was logged.
    pub fn logged(&self, level: Level) {
        self.instruments.log_messages.with_label_values(&[level.as_str()]).inc();
    }

    /// Lines of the audit log were written.
    pub fn audit_written(&self, lines: u64) {
        self.audit(AuditResult::Written, lines);
    }

    /// Lines of the audit log could not be written.
    pub fn audit_lost(&self, lines: u64) {
        self.audit(AuditResult::Lost, lines);
    }

    fn audit(&self, result: AuditResult, lines: u64) {
        self.instruments.audit_lines.with_label_values(&[result.as_str()]).inc_by(lines);
    }

    /// A task ended by a panic.
    pub fn panicked(&self, task: Task) {
        self.instruments.task_panics.with_label_values(&[task.as_str()]).inc();
    }
}
