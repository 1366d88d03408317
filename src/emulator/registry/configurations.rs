//! The configurations of a hub and their effect on its twins, some twins at a time (`iot-hub.md` 2.10 and 10).
//!
//! Invariant: configurations are written by the rules of their column in the table of `If-Match` (2.4); what an
//! evaluation does with a twin is planned by [`Ranked`] alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::configuration::{Configuration, ConfigurationId, ConfigurationSpec, ConfigurationStatus, Counts};
use super::super::error::Refusal;
use super::super::evaluation::{Ranked, source_of};
use super::super::if_match::IfMatch;
use super::super::twin_record::tick;
use super::{Device, Kept, Registry};
use crate::query::Source;

/// The most configurations of a hub (`iot-hub.md` 6.3); the free tier has fewer.
pub const CONFIGURATIONS_MAX: usize = 100;

/// The configurations, and what the last evaluation counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Configurations {
    all: BTreeMap<ConfigurationId, Arc<Configuration>>,
    counts: BTreeMap<ConfigurationId, Counts>,
    /// Whether one was deleted since the last evaluation. Not kept: after a restart the next evaluation, due when
    /// there is a configuration, cleans up.
    left: bool,
}

/// An evaluation in the making: all twins of devices, then all of modules.
#[derive(Debug, Clone)]
pub struct Evaluation {
    ranked: Ranked,
    source: Source,
    /// The key of the twin looked at last.
    last: Option<String>,
    counts: BTreeMap<ConfigurationId, Counts>,
}

impl Registry {
    /// Takes in a configuration that the store kept.
    pub fn restore_configuration(&mut self, configuration: Configuration) {
        self.configurations.all.insert(configuration.id.clone(), Arc::new(configuration));
    }

    /// The first configurations by id, at most `top`, each with what the last evaluation counted.
    #[must_use]
    pub fn list_configurations(&self, top: Option<usize>) -> Vec<(Arc<Configuration>, Counts)> {
        let all = self.configurations.all.values().take(top.unwrap_or(CONFIGURATIONS_MAX));
        all.map(|configuration| self.counted(configuration)).collect()
    }

    /// One configuration, with what the last evaluation counted.
    ///
    /// # Errors
    /// [`Refusal::ConfigurationNotFound`].
    pub fn configuration(&self, id: &ConfigurationId) -> Result<(Arc<Configuration>, Counts), Refusal> {
        let found = self.configurations.all.get(id).ok_or_else(|| Refusal::ConfigurationNotFound(id.clone()))?;
        Ok(self.counted(found))
    }

    /// Creates or replaces a configuration, of which there may be `count_max`. Only a quoted etag or a star replaces
    /// (`iot-hub.md` 2.4).
    ///
    /// # Errors
    /// [`Refusal::ConfigurationAlreadyExists`], [`Refusal::ConfigurationNotFound`], [`Refusal::ConfigurationChanged`],
    /// [`Refusal::TooManyConfigurations`], or what is wrong with `spec`.
    pub fn put_configuration(
        &mut self,
        id: &ConfigurationId,
        spec: ConfigurationSpec,
        if_match: &IfMatch,
        count_max: usize,
        now: Timestamp,
    ) -> Result<(Arc<Configuration>, Counts), Refusal> {
        let before = self.configurations.all.get(id);
        let after = match (before, if_match) {
            (Some(_), IfMatch::Absent | IfMatch::Unquoted(_)) => {
                return Err(Refusal::ConfigurationAlreadyExists(id.clone()));
            }
            (None, IfMatch::Any | IfMatch::Quoted(_)) => return Err(Refusal::ConfigurationNotFound(id.clone())),
            (None, IfMatch::Absent | IfMatch::Unquoted(_)) => {
                if self.configurations.all.len() >= count_max {
                    return Err(Refusal::TooManyConfigurations(count_max));
                }
                Configuration::new(id.clone(), spec, tick(now))?
            }
            (Some(before), IfMatch::Any | IfMatch::Quoted(_)) => {
                check_etag(before, if_match)?;
                before.replaced(spec, tick(now))?
            }
        };
        let after = Arc::new(after);
        self.configurations.all.insert(id.clone(), Arc::clone(&after));
        self.kept(Kept::Configuration { id: id.clone(), after: Some(Arc::clone(&after)) });
        Ok(self.counted(&after))
    }

    /// Deletes a configuration. What it set stays (`iot-hub.md` 10).
    ///
    /// # Errors
    /// [`Refusal::ConfigurationNotFound`] or [`Refusal::ConfigurationChanged`].
    pub fn delete_configuration(&mut self, id: &ConfigurationId, if_match: &IfMatch) -> Result<(), Refusal> {
        check_etag(&self.configuration(id)?.0, if_match)?;
        self.configurations.all.remove(id);
        self.configurations.counts.remove(id);
        self.configurations.left = true;
        self.kept(Kept::Configuration { id: id.clone(), after: None });
        Ok(())
    }

    /// An evaluation, when there is anything to evaluate: a configuration, or what a deleted one left in twins.
    #[must_use]
    pub fn due_evaluation(&mut self) -> Option<Evaluation> {
        let due = !self.configurations.all.is_empty() || self.configurations.left;
        self.configurations.left = false;
        due.then(|| self.begin_evaluation())
    }

    /// Begins an evaluation of the configurations there are.
    #[must_use]
    pub fn begin_evaluation(&self) -> Evaluation {
        let ranked = Ranked::new(self.configurations.all.values().cloned().collect());
        let zero = |configuration: &Arc<Configuration>| {
            let metrics = configuration.metrics.keys().map(|name| (name.clone(), 0)).collect();
            (configuration.id.clone(), Counts { metrics, ..Counts::default() })
        };
        let counts = ranked.as_slice().iter().map(zero).collect();
        Evaluation { ranked, source: Source::Devices, last: None, counts }
    }

    /// Goes on with an evaluation, over at most `count` twins; whether it is finished. What was counted is told when
    /// it is.
    pub fn evaluate(&mut self, evaluation: &mut Evaluation, count: usize, now: Timestamp) -> bool {
        let Some(records) = self.records(evaluation.source) else { return true };
        let chunk: Vec<Arc<Device>> = records.after(evaluation.last.as_deref()).take(count).collect();
        for record in &chunk {
            let after = self.configure(&evaluation.ranked, record, now);
            evaluation.count(&after);
        }
        if let Some(last) = chunk.last() {
            evaluation.last = Some(last.identity.twin_ref().to_string());
            return false;
        }
        if evaluation.source == Source::Devices {
            (evaluation.source, evaluation.last) = (Source::Modules, None);
            return false;
        }
        self.configurations.counts = std::mem::take(&mut evaluation.counts);
        self.configurations.counts.retain(|id, _| self.configurations.all.contains_key(id));
        true
    }

    /// Carries out what the configurations make of one twin, and gives the twin then.
    fn configure(&mut self, ranked: &Ranked, record: &Arc<Device>, now: Timestamp) -> Arc<Device> {
        let plan = ranked.plan(record);
        if plan.is_done(record) {
            return Arc::clone(record);
        }
        let twin = record.twin.configured(&plan.writes, plan.statuses.clone(), now).or_else(|_| {
            // No room for it: nothing of it is written, and the twin is targeted only.
            let targeted = plan.statuses.into_keys().map(|id| (id, ConfigurationStatus::Targeted)).collect();
            record.twin.configured(&[], targeted, now)
        });
        let Ok(twin) = twin else { return Arc::clone(record) };
        if twin == record.twin {
            return Arc::clone(record);
        }
        let change = self.changed(Device { identity: Arc::clone(&record.identity), twin, change: 0 });
        change.after.unwrap_or_else(|| Arc::clone(record))
    }

    fn counted(&self, configuration: &Arc<Configuration>) -> (Arc<Configuration>, Counts) {
        let counts = self.configurations.counts.get(&configuration.id).cloned().unwrap_or_default();
        (Arc::clone(configuration), counts)
    }
}

impl Evaluation {
    fn count(&mut self, record: &Device) {
        let source = source_of(record);
        for configuration in self.ranked.as_slice() {
            let Some(counts) = self.counts.get_mut(&configuration.id) else { continue };
            if let Some(status) = record.twin.configurations.get(&configuration.id) {
                counts.targeted += 1;
                counts.applied += u64::from(*status == ConfigurationStatus::Applied);
            }
            for (name, metric) in &configuration.metrics {
                if metric.counts(source, record) {
                    *counts.metrics.entry(name.clone()).or_default() += 1;
                }
            }
        }
    }
}

fn check_etag(configuration: &Configuration, if_match: &IfMatch) -> Result<(), Refusal> {
    match if_match {
        IfMatch::Absent | IfMatch::Any => Ok(()),
        IfMatch::Quoted(given) if *given == configuration.etag() => Ok(()),
        // Only quoted etags count, and what does not count guards nothing: refused, rather than gone through.
        IfMatch::Quoted(_) | IfMatch::Unquoted(_) => Err(Refusal::ConfigurationChanged(configuration.id.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::configuration::Content;
    use super::super::super::identity::IdentitySpec;
    use super::*;
    use crate::twin::{DeviceId, MergePatch, ModuleId, Object, TwinRef, Value};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn id(text: &str) -> ConfigurationId {
        ConfigurationId::new(text).unwrap()
    }

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    fn spec(target: &str, shape: &str, desired: &str) -> ConfigurationSpec {
        let document = object(&format!(r#"{{"{shape}":{{"properties.desired":{desired}}}}}"#));
        ConfigurationSpec {
            schema_version: None,
            labels: BTreeMap::new(),
            content: Content::new(document).unwrap(),
            target_condition: target.to_owned(),
            priority: 1,
            metrics: BTreeMap::from([(
                "set".to_owned(),
                "SELECT deviceId FROM devices WHERE properties.desired.x = 1".to_owned(),
            )]),
        }
    }

    fn code<T>(result: Result<T, Refusal>) -> &'static str {
        result.map_or_else(|refusal| refusal.code(), |_| "")
    }

    fn evaluate(registry: &mut Registry) {
        let mut evaluation = registry.begin_evaluation();
        while !registry.evaluate(&mut evaluation, 2, at(9)) {}
    }

    /// Five devices, of which d0 and d1 have the tag `n`, and a module of d0.
    fn registry() -> Registry {
        let mut registry = Registry::default();
        for number in 0..5 {
            let device = DeviceId::new(&format!("d{number}")).unwrap();
            let mut random = |bytes: &mut [u8]| bytes.fill(1);
            registry.put_identity(&device, IdentitySpec::default(), &IfMatch::Absent, &mut random, at(0)).unwrap();
            if number < 2 {
                let tags = MergePatch { tags: Some(object(r#"{"n":1}"#)), desired: None };
                registry.patch_twin(&TwinRef::device(device.clone()), &tags, &IfMatch::Absent, at(0)).unwrap();
            }
            if number == 0 {
                let (module, spec) = (ModuleId::new("m").unwrap(), IdentitySpec::default());
                registry.put_module(&device, &module, spec, &IfMatch::Absent, &mut random, at(0)).unwrap();
            }
        }
        registry.take_log();
        registry
    }

    #[test]
    fn if_match_on_configurations_follows_its_column() {
        let plain = || spec("*", "deviceContent", r#"{"x":1}"#);
        for (header, on_existing, on_missing, delete) in [
            (None, "ConfigurationAlreadyExists", "", ""),
            (Some("*"), "", "ConfigurationNotFound", ""),
            (Some("\"*\""), "", "ConfigurationNotFound", ""),
            (Some("\"MQ==\""), "", "ConfigurationNotFound", ""),
            (Some("\"Mg==\""), "PreconditionFailed", "ConfigurationNotFound", "PreconditionFailed"),
            (Some("MQ=="), "ConfigurationAlreadyExists", "", "PreconditionFailed"),
            (Some("Mg=="), "ConfigurationAlreadyExists", "", "PreconditionFailed"),
        ] {
            let if_match = IfMatch::parse(header);
            let mut registry = Registry::default();
            assert_eq!(
                code(registry.clone().put_configuration(&id("c"), plain(), &if_match, CONFIGURATIONS_MAX, at(0))),
                on_missing,
                "{header:?}"
            );
            let made =
                registry.put_configuration(&id("c"), plain(), &IfMatch::Absent, CONFIGURATIONS_MAX, at(0)).unwrap();
            assert_eq!(made.0.etag(), "MQ==");
            assert_eq!(
                code(registry.clone().put_configuration(&id("c"), plain(), &if_match, CONFIGURATIONS_MAX, at(0))),
                on_existing,
                "{header:?}"
            );
            assert_eq!(code(registry.delete_configuration(&id("c"), &if_match)), delete, "{header:?}");
        }
        assert_eq!(code(Registry::default().delete_configuration(&id("c"), &IfMatch::Any)), "ConfigurationNotFound");
    }

    #[test]
    fn all_but_the_content_of_a_configuration_can_be_replaced() {
        let mut registry = Registry::default();
        let made = registry.put_configuration(
            &id("c"),
            spec("*", "deviceContent", r#"{"x":1}"#),
            &IfMatch::Absent,
            CONFIGURATIONS_MAX,
            at(0),
        );
        let other = ConfigurationSpec { priority: 7, ..spec("deviceId = 'd'", "deviceContent", r#"{"x":2}"#) };
        let (after, _) = registry.put_configuration(&id("c"), other, &IfMatch::Any, CONFIGURATIONS_MAX, at(5)).unwrap();
        assert_eq!(after.content, made.unwrap().0.content, "silently");
        assert_eq!(
            (after.priority, after.condition.text.as_str(), after.etag().as_str()),
            (7, "deviceId = 'd'", "Mg==")
        );
        assert_eq!((after.created, after.updated), (at(0), at(5)));
    }

    #[test]
    fn a_hub_has_as_many_configurations_as_it_may_and_can_replace_them_then() {
        let plain = || spec("*", "deviceContent", "{}");
        for count_max in [10, CONFIGURATIONS_MAX] {
            let mut registry = Registry::default();
            let mut put = |number: usize, if_match: &IfMatch| {
                let id = id(&format!("c{number}"));
                code(registry.put_configuration(&id, plain(), if_match, count_max, at(0)))
            };
            assert!((0..count_max).all(|number| put(number, &IfMatch::Absent).is_empty()));
            assert_eq!(put(count_max, &IfMatch::Absent), "ConfigurationCountLimitExceeded");
            assert_eq!((put(0, &IfMatch::Any), put(0, &IfMatch::Absent)), ("", "ConfigurationAlreadyExists"));
        }
    }

    #[test]
    fn an_evaluation_writes_what_differs_counts_and_is_then_quiet() {
        let mut registry = registry();
        let configuration = spec("tags.n = 1", "deviceContent", r#"{"x":1}"#);
        registry.put_configuration(&id("c"), configuration, &IfMatch::Absent, CONFIGURATIONS_MAX, at(1)).unwrap();
        let of_modules = spec("*", "moduleContent", r#"{"y":1}"#);
        registry.put_configuration(&id("m"), of_modules, &IfMatch::Absent, CONFIGURATIONS_MAX, at(1)).unwrap();
        registry.take_log();
        evaluate(&mut registry);
        let written: Vec<String> = registry
            .take_log()
            .into_iter()
            .filter_map(|kept| match kept {
                Kept::Twin(change) => Some(change.twin.to_string()),
                Kept::Configuration { .. } | Kept::Job { .. } | Kept::JobRows { .. } => None,
            })
            .collect();
        assert_eq!(written, ["d0", "d1", "d0/m"]);
        let metrics = BTreeMap::from([("set".to_owned(), 2)]);
        let counts = registry.configuration(&id("c")).unwrap().1;
        assert_eq!(counts, Counts { targeted: 2, applied: 2, metrics: metrics.clone() });
        assert_eq!(registry.configuration(&id("m")).unwrap().1, Counts { targeted: 1, applied: 1, metrics });
        evaluate(&mut registry);
        assert!(registry.take_log().is_empty(), "nothing is written twice");
        registry.delete_configuration(&id("c"), &IfMatch::Absent).unwrap();
        evaluate(&mut registry);
        let twin = registry.device(&DeviceId::new("d0").unwrap()).unwrap().twin.clone();
        assert_eq!((&twin.desired.values, &twin.configurations), (&object(r#"{"x":1}"#), &BTreeMap::new()));
    }

    #[test]
    fn a_twin_without_room_is_targeted_and_left_alone() {
        let mut registry = registry();
        let twin = TwinRef::device(DeviceId::new("d0").unwrap());
        let full: Vec<String> = (0..8).map(|n| format!(r#""k{n}":"{}""#, "x".repeat(4050))).collect();
        let full = MergePatch { tags: None, desired: Some(object(&format!("{{{}}}", full.join(",")))) };
        let before = registry.patch_twin(&twin, &full, &IfMatch::Absent, at(1)).unwrap().after.unwrap();
        let large = spec("tags.n = 1", "deviceContent", &format!(r#"{{"big":"{}"}}"#, "y".repeat(1000)));
        registry.put_configuration(&id("c"), large, &IfMatch::Absent, CONFIGURATIONS_MAX, at(1)).unwrap();
        evaluate(&mut registry);
        let after = registry.record(&twin).unwrap();
        assert_eq!((&after.twin.desired, after.twin.version), (&before.twin.desired, before.twin.version));
        assert_eq!(after.twin.configurations[&id("c")], ConfigurationStatus::Targeted);
        let counts = registry.configuration(&id("c")).unwrap().1;
        assert_eq!((counts.targeted, counts.applied), (2, 1));
        registry.take_log();
        evaluate(&mut registry);
        assert!(registry.take_log().is_empty(), "it is not tried to the store again and again");
    }
}
