//! What Git says, what others wrote, and so what every twin must be.
//!
//! Invariant: a manifest is saved and remembered together; nothing here is read back from the hub.

use std::collections::BTreeMap;

use geminid::twin::{Section, Twin};
use serde_json::{Value as Json, json};

use crate::support::World;

/// The fewest twins of which each trouble meets enough.
pub(crate) const TWINS_MIN: u32 = 50;
/// Plants, each with a profile of its own.
const PLANTS: usize = 3;
/// Of so many twins one may be without its manifest at a time.
const WITHDRAWN_PART: usize = 20;
/// How often one twin's value may be changed behind the daemon's back within an hour: three times is a contest, from
/// which the daemon rightly retires.
const DRIFTS_AN_HOUR: usize = 2;
const HOUR_S: f64 = 3600.0;
/// The value that nobody declares.
const DRIFTED: u64 = 1_000_000;
/// Where others keep what is theirs.
const FOREIGN: &str = "foreign";

/// One declared twin.
#[derive(Debug, Clone, Default)]
struct Member {
    level: u64,
    /// A leaf that comes and goes, by which removals happen.
    mode: Option<u64>,
    /// Whether its manifest is there.
    withdrawn: bool,
    others: Others,
}

/// What somebody else did to a twin.
#[derive(Debug, Clone, Default)]
pub(crate) struct Others {
    /// Writes that were tried, acknowledged or not.
    pub(crate) tried: u64,
    /// Writes that were acknowledged.
    pub(crate) acknowledged: u64,
    /// The last value tried of the leaves that are theirs, and the last acknowledged.
    own_tried: u64,
    own_acknowledged: u64,
    /// Seconds of the run at which a value of ours was changed.
    drifts: Vec<f64>,
}

/// Something that was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit {
    /// The level of a twin rose to this.
    Level(String, u64),
    /// Anything else.
    Other,
}

/// What a foreign writer is about to write.
#[derive(Debug, Clone)]
pub(crate) struct ForeignWrite {
    /// Whose twin.
    pub(crate) name: String,
    /// Section, key and value.
    pub(crate) leaves: Vec<(Section, &'static str, u64)>,
    /// The value that is theirs, when it is no drift.
    own: Option<u64>,
}

/// The declared fleet and its others.
#[derive(Debug)]
pub(crate) struct Fleet {
    members: Vec<Member>,
    intervals: [u64; PLANTS],
    /// How many edits were saved.
    pub(crate) edits: u64,
    /// Whose level was saved last.
    latest: usize,
}

impl Fleet {
    /// So many twins, saved.
    pub(crate) fn new(world: &World, twins: usize) -> Self {
        let members = vec![Member { level: 1, ..Member::default() }; twins];
        let fleet = Self { members, intervals: [60; PLANTS], edits: 0, latest: 0 };
        (0..twins).for_each(|index| fleet.save(world, index));
        (0..PLANTS).for_each(|plant| fleet.save_profile(world, plant));
        world.write("manifests/queries.yaml", QUERIES);
        fleet
    }

    /// How many twins are declared now.
    pub(crate) fn declared(&self) -> usize {
        self.members.iter().filter(|member| !member.withdrawn).count()
    }

    /// The names of all, those without a manifest too.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        (0..self.members.len()).map(name)
    }

    /// What others did to the twins, in the order of [`Self::names`].
    pub(crate) fn others(&self) -> impl Iterator<Item = &Others> {
        self.members.iter().map(|member| &member.others)
    }

    /// Saves something.
    pub(crate) fn edit(&mut self, world: &World, rng: &mut fastrand::Rng) -> Edit {
        self.edits += 1;
        let index = rng.usize(..self.members.len());
        match rng.u32(..100) {
            0..3 => {
                let plant = rng.usize(..PLANTS);
                self.intervals[plant] += 1;
                self.save_profile(world, plant);
                Edit::Other
            }
            3..18 => {
                let edits = self.edits;
                let member = &mut self.members[index];
                member.mode = if member.mode.is_some() { None } else { Some(edits) };
                self.save(world, index);
                Edit::Other
            }
            18..26 => {
                let withdrawn = self.members.len() - self.declared();
                let may = withdrawn * WITHDRAWN_PART < self.members.len();
                let member = &mut self.members[index];
                member.withdrawn = !member.withdrawn && may;
                self.save(world, index);
                Edit::Other
            }
            _ => {
                let member = &mut self.members[index];
                member.level += 1;
                let level = member.level;
                let declared = !member.withdrawn;
                self.save(world, index);
                self.latest = index;
                if declared { Edit::Level(name(index), level) } else { Edit::Other }
            }
        }
    }

    /// Saves a manifest that is none, in the place of a good one; [`Self::mend`] takes it back.
    pub(crate) fn break_one(&self, world: &World) {
        world.write(&place(0), "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: [\n");
    }

    /// Saves the good one again.
    pub(crate) fn mend(&self, world: &World) {
        self.save(world, 0);
    }

    /// What somebody else is about to write, at `now` seconds of the run.
    pub(crate) fn foreign_write(&mut self, rng: &mut fastrand::Rng, now: f64) -> ForeignWrite {
        // Often the twin that the daemon is about to write as well: that is what etags are for.
        let index = if rng.bool() { self.latest } else { rng.usize(..self.members.len()) };
        let declared = !self.members[index].withdrawn;
        let others = &mut self.members[index].others;
        others.drifts.retain(|at| now - at < HOUR_S);
        others.tried += 1;
        if declared && others.drifts.len() < DRIFTS_AN_HOUR && rng.u32(..3) == 0 {
            others.drifts.push(now);
            let value = DRIFTED + others.tried;
            return ForeignWrite {
                name: name(index),
                leaves: vec![(Section::Desired, "power_level", value)],
                own: None,
            };
        }
        others.own_tried += 1;
        let value = others.own_tried;
        let leaves = vec![(Section::Tags, FOREIGN, value), (Section::Desired, FOREIGN, value)];
        ForeignWrite { name: name(index), leaves, own: Some(value) }
    }

    /// The hub acknowledged it.
    pub(crate) fn acknowledged(&mut self, write: &ForeignWrite) {
        let index: usize = write.name.trim_start_matches('d').parse().unwrap();
        let others = &mut self.members[index].others;
        others.acknowledged += 1;
        if let Some(value) = write.own {
            others.own_acknowledged = value;
        }
    }

    /// What is wrong with the twin of the `index`th member: everything in it must be declared or another's, and
    /// everything that is declared or another's must be in it.
    pub(crate) fn wrong(&self, index: usize, twin: &Twin) -> Option<String> {
        let member = &self.members[index];
        let mut tags = object(twin, Section::Tags);
        let mut desired = object(twin, Section::Desired);
        let sealed = tags.remove("geminid").is_some();
        let theirs = [tags.remove(FOREIGN), desired.remove(FOREIGN)];
        let others = &member.others;
        for their in theirs {
            let value = their.as_ref().map_or(Some(0), Json::as_u64);
            if !value.is_some_and(|value| (others.own_acknowledged..=others.own_tried).contains(&value)) {
                let range = others.own_acknowledged..=others.own_tried;
                return Some(format!("{}: another's leaf is {their:?}, and was {range:?}", name(index)));
            }
        }
        let (expected_tags, expected_desired) =
            if member.withdrawn { (json!({}), json!({})) } else { self.declared_of(index) };
        let (tags, desired) = (json!(tags), json!(desired));
        let fits = tags == expected_tags && desired == expected_desired && sealed != member.withdrawn;
        (!fits).then(|| {
            format!(
                "{}: tags {tags} and desired {desired}, sealed {sealed}, where {expected_tags} and {expected_desired} \
                 are declared",
                name(index)
            )
        })
    }

    fn declared_of(&self, index: usize) -> (Json, Json) {
        let member = &self.members[index];
        let tags = json!({ "plant": plant(index), "serial": format!("SN-{index:06}") });
        let mut desired = json!({
            "power_level": member.level,
            "telemetry": { "interval_s": self.intervals[index % PLANTS] },
        });
        if let Some(mode) = member.mode {
            desired["mode"] = mode.into();
        }
        (tags, desired)
    }

    fn save(&self, world: &World, index: usize) {
        let member = &self.members[index];
        if member.withdrawn {
            // Where it never was there is nothing to take away.
            let _ = std::fs::remove_file(world.path(&place(index)));
            return;
        }
        let mode = member.mode.map_or_else(String::new, |mode| format!(", mode: {mode}"));
        let text = format!(
            "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata:\n  name: {}\n  labels: {{plant: {}}}\nspec:\n  \
             create: true\n  removalPolicy: clear\n  tags: {{plant: {}, serial: SN-{index:06}}}\n  properties:\n    \
             desired: {{power_level: {}{mode}}}\n",
            name(index),
            plant(index),
            plant(index),
            member.level,
        );
        world.write(&place(index), &text);
    }

    fn save_profile(&self, world: &World, plant: usize) {
        let text = format!(
            "apiVersion: geminid.dev/v1alpha1\nkind: TwinProfile\nmetadata: {{name: plant-{plant}}}\nspec:\n  target: \
             devices\n  priority: 10\n  selector: {{matchLabels: {{plant: plant-{plant}}}}}\n  properties: {{desired: \
             {{telemetry: {{interval_s: {}}}}}}}\n",
            self.intervals[plant],
        );
        world.write(&format!("manifests/plant-{plant}.yaml"), &text);
    }

    /// How many declared twins each plant has.
    pub(crate) fn by_plant(&self) -> BTreeMap<String, usize> {
        let mut plants = BTreeMap::new();
        for index in (0..self.members.len()).filter(|index| !self.members[*index].withdrawn) {
            *plants.entry(plant(index)).or_default() += 1;
        }
        plants
    }
}

/// The paths that manifests declare here: nothing else may ever be written.
pub(crate) const DECLARED_PATHS: [&str; 5] = [
    "tags.plant",
    "tags.serial",
    "properties.desired.power_level",
    "properties.desired.mode",
    "properties.desired.telemetry.interval_s",
];
/// The path of a twin's level.
pub(crate) const LEVEL_PATH: &str = DECLARED_PATHS[2];

/// One question, asked again and again.
const QUERIES: &str = "apiVersion: geminid.dev/v1alpha1
kind: TwinQuery
metadata: {name: plants}
spec:
  query: SELECT * FROM devices WHERE IS_DEFINED(tags.plant)
  interval: 5s
  timeout: 4s
  metrics:
  - name: twinquery_soak_plant_devices
    help: Twins with a plant.
    labels: {plant: {column: tags.plant}}
    value: {count: true}
";

fn name(index: usize) -> String {
    format!("d{index}")
}

fn plant(index: usize) -> String {
    format!("plant-{}", index % PLANTS)
}

fn place(index: usize) -> String {
    format!("manifests/d{index}.yaml")
}

/// A section without what the hub adds to it.
fn object(twin: &Twin, section: Section) -> serde_json::Map<String, Json> {
    let section = twin.section(section);
    section.iter().filter(|(key, _)| !key.starts_with('$')).map(|(key, value)| (key.clone(), value.to_json())).collect()
}
