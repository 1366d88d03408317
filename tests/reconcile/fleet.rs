//! What the loop is given: a fleet that wants one power level, options, and a look at a metric.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use geminid::controller::{AuditLog, Journal, Options};
use geminid::plan::{DeclaredState, FileSpan, Owner, Policy, SealScope, TwinManifest, Wanted};
use geminid::twin::{DeviceId, TwinRef, Value};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

pub(crate) fn twin(number: usize) -> TwinRef {
    TwinRef::device(DeviceId::new(&format!("device-{number:05}")).unwrap())
}

pub(crate) fn declared(count: usize, power: i64) -> Arc<DeclaredState> {
    let desired: BTreeMap<String, Value> = BTreeMap::from([("power".to_owned(), Value::from(power))]);
    let manifest = Arc::new(TwinManifest {
        wanted: Wanted { desired, ..Wanted::default() }.into(),
        ..TwinManifest::empty(FileSpan { file: "fleet.yaml".into(), line: 1, column: 1 })
    });
    let twins = (0..count).map(|number| (twin(number), Arc::clone(&manifest))).collect();
    Arc::new(DeclaredState { revision: format!("power {power}"), twins, ..DeclaredState::default() })
}

/// A daemon's options; `sweep` and `verify` in seconds.
pub(crate) fn daemon(sweep: u64, verify: u64) -> Options {
    Options {
        hub: "sim".to_owned(),
        scope: SealScope::new(Owner::new("demo").unwrap(), "sim"),
        sweep: Duration::from_secs(sweep),
        verify: Duration::from_secs(verify),
        policy: Policy::default(),
        workers: 32,
        single_pass: false,
        first_contact: CancellationToken::new(),
        audit: AuditLog::off(),
        journal: Journal::default(),
        wall_clock: || SystemTime::UNIX_EPOCH,
    }
}

/// What a scrape would show of a series, which must be there.
pub(crate) fn value(registry: &Registry, series: &str) -> f64 {
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(series));
    line.unwrap_or_else(|| panic!("no {series}")).split(' ').nth(1).unwrap().parse().unwrap()
}
