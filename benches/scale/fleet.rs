//! The fleet: three leaves a twin, one of them inside desired, and one profile each; a hundred twins a file.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use geminid::controller::{AuditLog, Journal, Options};
use geminid::plan::{DeclaredState, GuardLimits, Owner, Policy, SealScope};
use geminid::source::Loader;
use geminid::twin::{DeviceId, TwinRef};
use tokio_util::sync::CancellationToken;

const TWINS_A_FILE: usize = 100;
const PROFILES: usize = 50;
/// The hub of the fleet.
pub(crate) const HUB: &str = "sim";

pub(crate) fn id(index: usize) -> String {
    format!("device-{index}")
}

pub(crate) fn twin(index: usize) -> TwinRef {
    TwinRef::device(DeviceId::new(&id(index)).unwrap())
}

pub(crate) fn scope(host: &str) -> SealScope {
    SealScope::new(Owner::new("bench").unwrap(), host)
}

/// Writes the manifests of `count` twins into `folder`.
pub(crate) fn write(folder: &Path, count: usize) {
    let profile = |index: usize| {
        format!(
            "apiVersion: geminid.dev/v1alpha1\nkind: TwinProfile\nmetadata: {{name: plant-{index}}}\nspec:\n  selector:\n    \
             matchLabels: {{plant: redmond{index}}}\n  properties: {{desired: {{telemetry: {{interval_s: 60}}}}}}\n---\n"
        )
    };
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("profiles.yaml"), (0..PROFILES).map(profile).collect::<String>()).unwrap();
    for file in 0..count.div_ceil(TWINS_A_FILE) {
        let document = |number: usize| {
            format!(
                "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata:\n  name: {}\n  labels: {{plant: redmond{}}}\n\
                 spec:\n  tags:\n    location: {{plant: Redmond{}}}\n    serial: SN-{number:07}\n  properties:\n    desired:\n      \
                 power_level: {}\n---\n",
                id(number),
                number % PROFILES,
                number % PROFILES,
                number % 9
            )
        };
        let group = folder.join(format!("group-{:03}", file / 100));
        fs::create_dir_all(&group).unwrap();
        let numbers = file * TWINS_A_FILE..count.min((file + 1) * TWINS_A_FILE);
        fs::write(group.join(format!("{file:05}.yaml")), numbers.map(document).collect::<String>()).unwrap();
    }
}

pub(crate) fn load(folder: &Path, count: usize) -> Arc<DeclaredState> {
    let state = Loader::new(folder.to_owned()).load().unwrap().state;
    assert_eq!(state.twins.len(), count);
    state
}

pub(crate) fn options(host: &str, sweep: Duration) -> Options {
    Options {
        hub: HUB.to_owned(),
        scope: scope(host),
        sweep,
        // Nothing falls due while the benchmark runs, so that a sweep with nothing to do has nothing to do.
        verify: Duration::from_secs(10 * 365 * 24 * 3600),
        policy: Policy { guards: GuardLimits { creates: 1.0, ..GuardLimits::default() }, ..Policy::default() },
        workers: 32,
        single_pass: false,
        first_contact: CancellationToken::new(),
        audit: AuditLog::off(),
        journal: Journal::default(),
        wall_clock: SystemTime::now,
    }
}
