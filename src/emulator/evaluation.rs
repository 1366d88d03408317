//! What the configurations of a hub make of one twin (`iot-hub.md` 10).
//!
//! Invariant: pure, and a plan that was carried out makes the next plan empty. Of two configurations that set one path
//! the one with the higher priority wins, of two alike the newer; what a configuration set goes when the twin leaves
//! its scope, and stays when the configuration is deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::configuration::{Configuration, ConfigurationId, ConfigurationStatus, Setting, value_at};
use super::registry::Device;
use super::twin_record::{LeafWrite, StampNode, WrittenBy};
use crate::query::Source;
use crate::twin::{Path, Value};

/// What is to be done with one twin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TwinPlan {
    /// The leaves of its desired properties to write, no two of which overlap.
    pub writes: Vec<LeafWrite>,
    /// How each configuration that targets it will stand to it.
    pub statuses: BTreeMap<ConfigurationId, ConfigurationStatus>,
}

impl TwinPlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_done(&self, record: &Device) -> bool {
        self.writes.is_empty() && self.statuses == record.twin.configurations
    }
}

/// Configurations in the order in which they win.
#[derive(Debug, Clone, Default)]
pub struct Ranked(Vec<Arc<Configuration>>);

impl Ranked {
    /// Puts configurations in their order.
    #[must_use]
    pub fn new(mut configurations: Vec<Arc<Configuration>>) -> Self {
        configurations.sort_by(|a, b| {
            b.priority.cmp(&a.priority).then_with(|| b.created.cmp(&a.created)).then_with(|| a.id.cmp(&b.id))
        });
        Self(configurations)
    }

    /// The configurations, the winning one first.
    #[must_use]
    pub fn as_slice(&self) -> &[Arc<Configuration>] {
        &self.0
    }

    /// What they make of `record`.
    #[must_use]
    pub fn plan(&self, record: &Device) -> TwinPlan {
        let source = source_of(record);
        let targeting: Vec<&Arc<Configuration>> = self
            .0
            .iter()
            .filter(|configuration| configuration.content.of == source && configuration.condition.targets(record))
            .collect();
        let mut wanted = Wanted::default();
        let mut plan = TwinPlan::default();
        for configuration in &targeting {
            let won =
                configuration.content.settings.iter().filter(|setting| wanted.take(configuration, setting)).count();
            let applied = won > 0 || configuration.content.settings.is_empty();
            let status = if applied { ConfigurationStatus::Applied } else { ConfigurationStatus::Targeted };
            plan.statuses.insert(configuration.id.clone(), status);
        }
        let mut removals = Vec::new();
        let left = |by: &WrittenBy| {
            self.0.iter().any(|known| known.id == by.configuration) && !plan.statuses.contains_key(&by.configuration)
        };
        removed(&Path::root(), &record.twin.desired.stamps, &left, &mut removals);
        for path in removals.into_iter().filter(|path| !wanted.overlaps(path)) {
            plan.writes.push(LeafWrite { path, value: None, by: None });
        }
        wanted.writes(record, &mut plan.writes);
        plan
    }
}

/// The collection that a record is of.
#[must_use]
pub fn source_of(record: &Device) -> Source {
    if record.identity.module.is_some() { Source::Modules } else { Source::Devices }
}

/// The leaves that were set by a configuration whose scope the twin left.
fn removed(above: &Path, node: &StampNode, left: &impl Fn(&WrittenBy) -> bool, found: &mut Vec<Path>) {
    for (key, child) in node.children.iter() {
        let path = above.child(key);
        // An empty object that somebody else filled since is theirs.
        if child.children.is_empty() && child.stamp.by.as_deref().is_some_and(left) {
            found.push(path);
        } else {
            removed(&path, child, left, found);
        }
    }
}

/// The leaves that are to be, each with the configuration that won it.
#[derive(Default)]
struct Wanted<'a>(BTreeMap<&'a str, Branch<'a>>);

enum Branch<'a> {
    Leaf(&'a Configuration, &'a Setting),
    Below(Wanted<'a>),
}

impl<'a> Wanted<'a> {
    /// Whether `configuration` gets its setting: nobody before it set this path, one above or one below.
    fn take(&mut self, configuration: &'a Configuration, setting: &'a Setting) -> bool {
        let Some((last, above)) = setting.path.keys().split_last() else { return false };
        let mut tree = self;
        for key in above {
            let branch = tree.0.entry(key).or_insert_with(|| Branch::Below(Wanted::default()));
            match branch {
                Branch::Leaf(..) => return false,
                Branch::Below(below) => tree = below,
            }
        }
        if tree.0.contains_key(last.as_str()) {
            return false;
        }
        tree.0.insert(last, Branch::Leaf(configuration, setting));
        true
    }

    /// Whether there is a leaf at `path`, above it or below it.
    fn overlaps(&self, path: &Path) -> bool {
        let mut tree = self;
        for key in path.keys() {
            match tree.0.get(key.as_str()) {
                None => return false,
                Some(Branch::Leaf(..)) => return true,
                Some(Branch::Below(below)) => tree = below,
            }
        }
        true
    }

    /// The leaves that `record` does not have yet, or not from the one that won them.
    fn writes(&self, record: &Device, writes: &mut Vec<LeafWrite>) {
        for branch in self.0.values() {
            match branch {
                Branch::Below(below) => below.writes(record, writes),
                Branch::Leaf(configuration, setting) => writes.extend(write(record, configuration, setting)),
            }
        }
    }
}

fn write(record: &Device, configuration: &Configuration, setting: &Setting) -> Option<LeafWrite> {
    let desired = &record.twin.desired;
    let live = value_at(&desired.values, &setting.path);
    let path = setting.path.clone();
    if setting.value == Value::Null {
        return live.is_some().then_some(LeafWrite { path, value: None, by: None });
    }
    let as_wanted = match (&setting.value, live) {
        // An empty object is there when any object is.
        (Value::Object(_), Some(Value::Object(_))) => return None,
        (wanted, live) => live == Some(wanted),
    };
    let mut nodes = setting.path.keys().iter();
    let stamp = nodes.try_fold(&desired.stamps, |node, key| node.children.get(key)).map(|node| &node.stamp);
    let by_winner = stamp.and_then(|stamp| stamp.by.as_ref()).is_some_and(|by| by.configuration == configuration.id);
    if as_wanted && by_winner {
        return None;
    }
    let by = Some(Arc::new(WrittenBy::new(configuration)));
    Some(LeafWrite { path, value: Some(setting.value.clone()), by })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::super::configuration::{ConfigurationSpec, Content};
    use super::super::identity::{Identity, IdentitySpec};
    use super::super::twin_record::TwinRecord;
    use super::*;
    use crate::twin::{DeviceId, MergePatch, Object};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    fn configuration(id: &str, priority: i64, created: i64, target: &str, desired: &str) -> Arc<Configuration> {
        let document = object(&format!(r#"{{"deviceContent":{{"properties.desired":{desired}}}}}"#));
        let spec = ConfigurationSpec {
            schema_version: None,
            labels: BTreeMap::new(),
            content: Content::new(document).unwrap(),
            target_condition: target.to_owned(),
            priority,
            metrics: BTreeMap::new(),
        };
        Arc::new(Configuration::new(ConfigurationId::new(id).unwrap(), spec, at(created)).unwrap())
    }

    fn device(tags: &str, desired: &str) -> Device {
        let id = DeviceId::new("d").unwrap();
        let identity = Identity::new(id, None, 1, IdentitySpec::default(), &mut |bytes| bytes.fill(1));
        let patch = MergePatch { tags: Some(object(tags)), desired: Some(object(desired)) };
        Device { identity: identity.into(), twin: TwinRecord::new(at(0)).patched(&patch, at(0)).unwrap(), change: 0 }
    }

    /// Carries the plan out and gives the desired properties; the next plan is empty.
    fn settle(configurations: &[&Arc<Configuration>], device: &mut Device) -> String {
        let ranked = Ranked::new(configurations.iter().map(|one| Arc::clone(one)).collect());
        let plan = ranked.plan(device);
        device.twin = device.twin.configured(&plan.writes, plan.statuses.clone(), at(9)).unwrap();
        assert!(ranked.plan(device).is_done(device), "{plan:?}");
        Value::Object(device.twin.desired.values.clone()).to_string()
    }

    fn status(device: &Device, id: &str) -> &'static str {
        let status = device.twin.configurations.get(&ConfigurationId::new(id).unwrap());
        status.map_or("", |status| status.as_str())
    }

    #[test]
    fn the_higher_priority_takes_a_path_and_of_two_alike_the_newer() {
        let low = configuration("low", 1, 0, "*", r#"{"x":{"a":1,"b":1},"y":1,"z":1}"#);
        let high = configuration("high", 2, 0, "*", r#"{"x":{"a":2},"y":{"deep":2}}"#);
        let newer = configuration("newer", 2, 5, "*", r#"{"x":{"a":3}}"#);
        let hidden = configuration("hidden", 0, 9, "*", r#"{"z":0}"#);
        let mut device = device("{}", r#"{"mine":1}"#);
        let before = device.twin.clone();
        let settled = settle(&[&low, &hidden, &high, &newer], &mut device);
        assert_eq!(settled, r#"{"mine":1,"x":{"a":3,"b":1},"y":{"deep":2},"z":1}"#);
        let twin = &device.twin;
        assert_eq!((twin.etag_number, twin.version), (before.etag_number + 1, before.version + 1), "one write");
        assert_eq!(twin.desired.version, before.desired.version + 1);
        for (id, expected) in [("low", "Applied"), ("high", "Applied"), ("newer", "Applied"), ("hidden", "Targeted")] {
            assert_eq!(status(&device, id), expected, "{id}");
        }
        let by = |path: [&str; 2]| {
            let node = &device.twin.desired.stamps.children[path[0]].children[path[1]];
            node.stamp.by.as_ref().map(|by| by.configuration.to_string())
        };
        assert_eq!((by(["x", "a"]), by(["x", "b"])), (Some("newer".to_owned()), Some("low".to_owned())));
        assert_eq!(device.twin.desired.stamps.children["mine"].stamp.by, None);
    }

    #[test]
    fn a_twin_that_leaves_the_scope_loses_the_settings_or_gets_the_next() {
        let site = configuration("site", 2, 0, "tags.site = 'a'", r#"{"x":{"a":2,"b":2},"gone":null}"#);
        let base = configuration("base", 1, 0, "*", r#"{"x":{"a":1}}"#);
        let mut device = device(r#"{"site":"a"}"#, r#"{"gone":1,"mine":{"k":1}}"#);
        assert_eq!(settle(&[&site, &base], &mut device), r#"{"mine":{"k":1},"x":{"a":2,"b":2}}"#);
        device.twin.tags = Some(object(r#"{"site":"b"}"#).into());
        assert_eq!(settle(&[&site, &base], &mut device), r#"{"mine":{"k":1},"x":{"a":1}}"#);
        assert_eq!((status(&device, "site"), status(&device, "base")), ("", "Applied"));
    }

    #[test]
    fn the_values_of_a_deleted_configuration_stay_until_another_takes_them() {
        let first = configuration("first", 2, 0, "*", r#"{"x":1,"y":1}"#);
        let second = configuration("second", 1, 0, "*", r#"{"x":2}"#);
        let mut device = device("{}", "{}");
        assert_eq!(settle(&[&first], &mut device), r#"{"x":1,"y":1}"#);
        assert_eq!(settle(&[], &mut device), r#"{"x":1,"y":1}"#);
        assert_eq!(status(&device, "first"), "");
        assert_eq!(settle(&[&second], &mut device), r#"{"x":2,"y":1}"#);
    }

    #[test]
    fn a_value_changed_by_hand_is_set_again_and_an_equal_one_is_taken_over() {
        let one = configuration("one", 1, 0, "*", r#"{"x":1,"l":[1,2],"e":{}}"#);
        let mut device = device("{}", r#"{"x":1}"#);
        assert_eq!(settle(&[&one], &mut device), r#"{"e":{},"l":[1,2],"x":1}"#);
        let by_hand = MergePatch { tags: None, desired: Some(object(r#"{"x":7,"l":null,"e":{"k":1}}"#)) };
        device.twin = device.twin.patched(&by_hand, at(10)).unwrap();
        assert_eq!(settle(&[&one], &mut device), r#"{"e":{"k":1},"l":[1,2],"x":1}"#);
    }

    proptest! {
        #[test]
        fn a_plan_that_was_carried_out_makes_the_next_one_empty_and_leaves_other_leaves_alone(
            shapes in prop::collection::vec((0_i64..3, 0_usize..3, 0_usize..6), 0..6),
            rounds in prop::collection::vec(0_usize..3, 1..5),
        ) {
            let targets = ["*", "tags.n = 0", "tags.n = 1"];
            let contents = [
                r#"{"a":1}"#, r#"{"a":{"b":1}}"#, r#"{"a":{"b":{"c":2}},"k":[1]}"#, r#"{"a":null}"#, r#"{"a":{}}"#,
                r#"{"a":{"b":null},"k":2}"#,
            ];
            let all: Vec<_> = shapes.iter().enumerate().map(|(number, (priority, target, content))| {
                configuration(&format!("c{number}"), *priority, 0, targets[*target], contents[*content])
            }).collect();
            let mut device = device("{}", r#"{"mine":{"k":1}}"#);
            for round in rounds {
                device.twin.tags = Some(object(&format!(r#"{{"n":{round}}}"#)).into());
                settle(&all.iter().collect::<Vec<_>>(), &mut device);
                prop_assert_eq!(device.twin.desired.values.get("mine"), Some(&Value::Object(object(r#"{"k":1}"#))));
            }
        }
    }
}
