//! All instruments together.

use prometheus::Registry;

use super::{BudgetMetrics, ClientMetrics, ControllerMetrics, OpsMetrics, ProcessMetrics, SourceMetrics};

/// Every instrument of the process, a field a subsystem. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The reconcile loops.
    pub controller: ControllerMetrics,
    /// The hub clients.
    pub client: ClientMetrics,
    /// The budgets of the hubs.
    pub budget: BudgetMetrics,
    /// Loading manifests.
    pub source: SourceMetrics,
    /// Our own port.
    pub ops: OpsMetrics,
    /// Version, log and tasks.
    pub process: ProcessMetrics,
}

impl Metrics {
    /// Makes every instrument in `registry`, and every series of the hubs named.
    ///
    /// # Errors
    /// When the registry already holds a family of one of the names: only one set belongs into a registry.
    pub fn register(registry: &Registry, hubs: &[&str]) -> Result<Self, prometheus::Error> {
        let process = ProcessMetrics::register(registry)?;
        let metrics = Self {
            controller: ControllerMetrics::register(registry, &process)?,
            client: ClientMetrics::register(registry)?,
            budget: BudgetMetrics::register(registry)?,
            source: SourceMetrics::register(registry)?,
            ops: OpsMetrics::register(registry)?,
            process,
        };
        for hub in hubs {
            let _ = metrics.controller.hub(hub);
            let _ = metrics.client.hub(hub);
            let _ = metrics.budget.hub(hub);
            let _ = metrics.source.hub(hub);
        }
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::{Duration, UNIX_EPOCH};

    use prometheus::TextEncoder;

    use super::super::{Code, Guard, ManifestKind, ManifestState, Operation, Reason, Target, TwinKind, TwinState};
    use super::super::{budget, client, controller, ops, process, source, sweep};
    use super::*;

    fn text(registry: &Registry) -> String {
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    fn has(registry: &Registry, line: &str) {
        let text = text(registry);
        assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
    }

    /// Labels in the order in which their values are hashed, of every family of ours made by a `*Vec` or alone.
    fn declared() -> BTreeMap<String, &'static [&'static str]> {
        [
            controller::Instruments::DECLARED,
            client::Instruments::DECLARED,
            budget::Instruments::DECLARED,
            source::Instruments::DECLARED,
            sweep::Instruments::DECLARED,
            ops::Instruments::DECLARED,
            process::Instruments::DECLARED,
        ]
        .concat()
        .into_iter()
        .map(|(name, labels)| (format!("geminid_{name}"), labels))
        .collect()
    }

    #[test]
    fn no_closed_combination_of_a_family_is_a_suffix_of_another_one() {
        let registry = Registry::new();
        let _metrics = Metrics::register(&registry, &["prod"]).unwrap();
        let declared = declared();
        let mut judged = BTreeSet::new();
        for family in registry.gather().iter().filter(|family| declared.contains_key(family.name())) {
            let labels = declared[family.name()];
            let open = matches!(labels.first(), Some(&("hub" | "queue")));
            assert!(!labels.iter().skip(1).any(|label| matches!(*label, "hub" | "queue")), "{}", family.name());
            let tails: Vec<String> = family
                .get_metric()
                .iter()
                .map(|metric| {
                    let value = |name: &&str| {
                        metric.get_label().iter().find(|pair| pair.name() == *name).unwrap().value().to_owned()
                    };
                    labels.iter().skip(usize::from(open)).map(value).collect()
                })
                .collect();
            for (index, one) in tails.iter().enumerate() {
                for (other_index, other) in tails.iter().enumerate() {
                    let clash = if open { one.ends_with(other.as_str()) } else { one == other };
                    assert!(index == other_index || !clash, "{}: {one} and {other}", family.name());
                }
            }
            judged.insert(family.name().to_owned());
        }
        // A family that is missing here has no series at the start: some closed combination was forgotten.
        let missing: Vec<&String> = declared.keys().filter(|name| !judged.contains(*name)).collect();
        assert_eq!(missing, Vec::<&String>::new());
    }

    #[test]
    fn every_closed_combination_exists_with_zero_from_the_start() {
        let registry = Registry::new();
        let _metrics = Metrics::register(&registry, &["prod", "test"]).unwrap();
        for line in [
            r#"geminid_reconcile_failures_total{hub="test",kind="module",reason="quota"} 0"#,
            r#"geminid_twins{hub="prod",state="in_sync"} 0"#,
            r#"geminid_twin_patches_total{hub="prod",target="seal"} 0"#,
            r#"geminid_guard_tripped{guard="empty",hub="prod"} 0"#,
            r#"geminid_hub_requests_total{code="none",hub="test",operation="create"} 0"#,
            r#"geminid_hub_up{hub="prod"} 0"#,
            r#"geminid_manifests{kind="TwinQuery",state="invalid"} 0"#,
            r#"geminid_task_panics_total{task="exporter"} 0"#,
            r#"geminid_log_messages_total{level="warn"} 0"#,
            r#"geminid_workqueue_depth{queue="test"} 0"#,
            "geminid_source_last_reload_successful 0",
        ] {
            has(&registry, line);
        }
        assert!(text(&registry).contains("process_open_fds "), "the process collector is in the same registry");
        assert!(!text(&registry).contains("geminid_source_revision_info{"), "no revision is known yet");
    }

    #[test]
    fn a_second_set_does_not_fit_into_one_registry() {
        let registry = Registry::new();
        let _metrics = Metrics::register(&registry, &[]).unwrap();
        assert!(Metrics::register(&registry, &[]).is_err());
    }

    #[test]
    fn what_a_reconcile_loop_tells_stands_in_the_exposition() {
        let registry = Registry::new();
        let hub = Metrics::register(&registry, &["prod"]).unwrap().controller.hub("prod");
        hub.reconciled(TwinKind::Device, Duration::from_millis(300));
        hub.failed(TwinKind::Device, Reason::of("network"));
        hub.failed(TwinKind::Device, Reason::of("no such category"));
        hub.pass_ended(TwinKind::Module, UNIX_EPOCH + Duration::from_secs(7));
        hub.set_twins(TwinState::Drifted, 3);
        hub.patched(Target::Seal);
        hub.set_guard(Guard::Empty, true);
        hub.queue().set_workers(1, 8);
        for line in [
            r#"geminid_reconciles_total{hub="prod",kind="device"} 1"#,
            r#"geminid_reconcile_duration_seconds_bucket{hub="prod",kind="device",le="0.25"} 0"#,
            r#"geminid_reconcile_duration_seconds_bucket{hub="prod",kind="device",le="0.5"} 1"#,
            r#"geminid_reconcile_failures_total{hub="prod",kind="device",reason="network"} 1"#,
            r#"geminid_reconcile_failures_total{hub="prod",kind="device",reason="other"} 1"#,
            r#"geminid_reconcile_last_success_timestamp_seconds{hub="prod",kind="module"} 7"#,
            r#"geminid_twins{hub="prod",state="drifted"} 3"#,
            r#"geminid_twin_patches_total{hub="prod",target="seal"} 1"#,
            r#"geminid_seal_writes_total{hub="prod"} 1"#,
            r#"geminid_guard_tripped{guard="empty",hub="prod"} 1"#,
            r#"geminid_workers_max{queue="prod"} 8"#,
        ] {
            has(&registry, line);
        }
    }

    #[test]
    fn a_request_is_in_flight_until_its_guard_is_dropped() {
        let registry = Registry::new();
        let hub = Metrics::register(&registry, &["prod"]).unwrap().client.hub("prod");
        let flight = hub.started();
        has(&registry, r#"geminid_hub_requests_in_flight{hub="prod"} 1"#);
        drop(flight);
        has(&registry, r#"geminid_hub_requests_in_flight{hub="prod"} 0"#);
        hub.finished(Operation::Get, Code::of_status(429), Duration::from_secs(1));
        hub.finished(Operation::Get, Code::of_status(7), Duration::from_secs(1));
        has(&registry, r#"geminid_hub_throttled_total{hub="prod",operation="get"} 1"#);
        has(&registry, r#"geminid_hub_requests_total{code="429",hub="prod",operation="get"} 1"#);
        has(&registry, r#"geminid_hub_requests_total{code="none",hub="prod",operation="get"} 1"#);
    }

    #[test]
    fn gauges_without_a_hub_speak_of_the_hub_that_is_worst_off() {
        let registry = Registry::new();
        let source = Metrics::register(&registry, &["prod", "test"]).unwrap().source;
        let (prod, test) = (source.hub("prod"), source.hub("test"));
        prod.reloaded("rev-\"1\"", UNIX_EPOCH + Duration::from_secs(20));
        has(&registry, "geminid_source_last_reload_successful 0");
        test.reloaded("rev-2", UNIX_EPOCH + Duration::from_secs(10));
        prod.set_manifests(ManifestKind::DeviceTwin, ManifestState::Valid, 2);
        test.set_manifests(ManifestKind::DeviceTwin, ManifestState::Valid, 3);
        for line in [
            "geminid_source_last_reload_successful 1",
            "geminid_source_last_reload_success_timestamp_seconds 10",
            r#"geminid_manifests{kind="DeviceTwin",state="valid"} 5"#,
            r#"geminid_source_revision_info{hub="prod",revision="rev-\"1\""} 1"#,
        ] {
            has(&registry, line);
        }
        prod.reloaded("rev-3", UNIX_EPOCH + Duration::from_secs(30));
        prod.reload_failed();
        has(&registry, "geminid_source_last_reload_successful 0");
        has(&registry, "geminid_source_reload_failures_total 1");
        let revisions = text(&registry).matches("geminid_source_revision_info{hub=\"prod\"").count();
        assert_eq!(revisions, 1, "exactly one revision a hub");
    }
}
