//! Manifest and profiles of one twin, laid over one another leaf by leaf.
//!
//! Invariant: a higher layer takes a path with all above and below it; the twin's own manifest is the highest. Two
//! profiles of one priority never decide anything by their order: equal values agree, different ones are a [`Tie`].

use std::collections::BTreeMap;
use std::ops::Bound;

use super::declare::{DeclaredLeaf, Leaf, Tie, declare};
use super::{Declaration, DeclaredState, Profile, Subtree, TwinManifest, Wanted};
use crate::twin::{Path, TwinRef};

/// Who put a leaf into [`Layers`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum Layer<'a> {
    Manifest,
    Profile(&'a Profile),
}

impl Layer<'_> {
    fn same_rank(&self, other: &Profile) -> bool {
        match self {
            Self::Manifest => false,
            Self::Profile(profile) => profile.priority == other.priority,
        }
    }
}

/// Leaves merged so far, from the highest layer down.
#[derive(Debug, Default)]
pub(super) struct Layers<'a> {
    leaves: BTreeMap<Leaf, (DeclaredLeaf, Layer<'a>)>,
}

impl<'a> Layers<'a> {
    /// The twin's own manifest; before every profile.
    pub(super) fn add_manifest(&mut self, manifest: &TwinManifest) {
        for (leaf, declared) in declared_leaves(&manifest.wanted.unpack(), &manifest.source) {
            self.leaves.insert(leaf, (declared, Layer::Manifest));
        }
    }

    /// A profile; those of higher priority first.
    pub(super) fn add_profile(&mut self, profile: &'a Profile) -> Result<(), Box<Tie>> {
        for (leaf, declared) in declared_leaves(&profile.wanted, &profile.source) {
            let related: Vec<_> = self.related(&leaf).collect();
            if related.iter().any(|(_, _, layer)| !layer.same_rank(profile)) {
                continue;
            }
            let own = |layer: &Layer<'_>| matches!(layer, Layer::Profile(other) if other.name == profile.name);
            let rival = related
                .iter()
                .find(|(other, wanted, layer)| !own(layer) && (**other != leaf || wanted.value != declared.value));
            if let Some((other, wanted, Layer::Profile(rival))) = rival {
                let one = (rival.name.clone(), (*other).clone(), wanted.source.clone());
                let other = (profile.name.clone(), leaf, declared.source);
                return Err(Box::new(Tie { priority: profile.priority, one, other }));
            }
            if related.is_empty() {
                self.leaves.insert(leaf, (declared, Layer::Profile(profile)));
            }
        }
        Ok(())
    }

    /// The merged leaves.
    pub(super) fn finish(self) -> BTreeMap<Leaf, DeclaredLeaf> {
        self.leaves.into_iter().map(|(leaf, (declared, _))| (leaf, declared)).collect()
    }

    /// What stands at `leaf`, above it or below it.
    fn related<'s>(&'s self, leaf: &Leaf) -> impl Iterator<Item = (&'s Leaf, &'s DeclaredLeaf, &'s Layer<'a>)> {
        let keys = leaf.path.keys();
        let above = (1..keys.len()).filter_map(|depth| {
            let path = Path::new(keys[..depth].iter().cloned());
            self.leaves.get_key_value(&Leaf { section: leaf.section, path })
        });
        let (section, path) = (leaf.section, leaf.path.clone());
        let within = move |(below, _): &(&Leaf, _)| below.section == section && path.covers(&below.path);
        let here_and_below = self.leaves.range((Bound::Included(leaf.clone()), Bound::Unbounded)).take_while(within);
        let found: Vec<_> = above.chain(here_and_below).collect();
        found.into_iter().map(|(leaf, (declared, layer))| (leaf, declared, layer))
    }
}

fn declared_leaves<'a>(
    wanted: &'a Wanted,
    source: &'a super::FileSpan,
) -> impl Iterator<Item = (Leaf, DeclaredLeaf)> + 'a {
    wanted.leaves(source).map(|(leaf, value, source)| {
        let initial_only = wanted.initial_only.iter().any(|subtree: &Subtree| subtree.covers(&leaf));
        (leaf, DeclaredLeaf { value: value.clone(), initial_only, source })
    })
}

/// Every contradiction of profiles that shows without any live twin, each with the first twin it concerns and how many
/// there are. Only pairs of profiles that could contradict one another cost a look at the twins.
#[must_use]
pub fn find_ties(state: &DeclaredState) -> Vec<(Tie, TwinRef, usize)> {
    let mut found: BTreeMap<Tie, (TwinRef, usize)> = BTreeMap::new();
    let suspects = suspects(&state.profiles);
    if suspects.is_empty() {
        return Vec::new();
    }
    for (twin, manifest) in state.twins.iter() {
        let both = |(one, other): &(&Profile, &Profile)| {
            one.selects(twin, Some(manifest)) && other.selects(twin, Some(manifest))
        };
        if !suspects.iter().any(both) {
            continue;
        }
        if let Declaration::Tied(tie) = declare(state, twin, None) {
            found.entry(*tie).or_insert_with(|| (twin.clone(), 0)).1 += 1;
        }
    }
    found.into_iter().map(|(tie, (twin, count))| (tie, twin, count)).collect()
}

/// Pairs of profiles with one target and priority that disagree somewhere.
fn suspects(profiles: &[std::sync::Arc<Profile>]) -> Vec<(&Profile, &Profile)> {
    let mut pairs = Vec::new();
    for (index, one) in profiles.iter().enumerate() {
        for other in &profiles[index + 1..] {
            if one.target == other.target && one.priority == other.priority {
                let mut layers = Layers::default();
                let agree = layers.add_profile(one).and_then(|()| layers.add_profile(other));
                pairs.extend(agree.err().map(|_| (one.as_ref(), other.as_ref())));
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::{FileSpan, ProfileTarget, Selector};
    use crate::twin::{DeviceId, Value};

    fn place(file: &str) -> FileSpan {
        FileSpan { file: file.into(), line: 1, column: 1 }
    }

    fn wanted(tags: &str) -> Wanted {
        let tags = Value::parse_json(tags).unwrap().as_object().unwrap().clone();
        Wanted { tags, ..Wanted::default() }
    }

    fn profile(name: &str, priority: i64, tags: &str) -> Arc<Profile> {
        Arc::new(Profile {
            name: name.to_owned(),
            target: ProfileTarget::Devices,
            priority,
            selector: Selector {
                match_labels: BTreeMap::from([("p".to_owned(), "1".to_owned())]),
                ..Selector::default()
            },
            removal_policy: None,
            wanted: wanted(tags),
            source: place(name),
        })
    }

    fn state(own: &str, profiles: Vec<Arc<Profile>>) -> DeclaredState {
        let manifest = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            Arc::new(TwinManifest { wanted: wanted(own).into(), labels, ..TwinManifest::empty(place("own")) })
        };
        let id = |id: &str| TwinRef::device(DeviceId::new(id).unwrap());
        let twins = [(id("a"), manifest(&[("p", "1"), ("q", "2")])), (id("b"), manifest(&[("p", "2")]))];
        DeclaredState { twins: twins.into(), profiles, ..DeclaredState::default() }
    }

    fn shown(state: &DeclaredState, id: &str) -> String {
        match declare(state, &TwinRef::device(DeviceId::new(id).unwrap()), None) {
            Declaration::Declared(declared) => {
                let show = |(leaf, want): (&Leaf, &DeclaredLeaf)| format!("{leaf}={} {}", want.value, want.source.file);
                declared.leaves.iter().map(show).collect::<Vec<_>>().join("; ")
            }
            Declaration::Tied(tie) => tie.to_string(),
            other @ (Declaration::Kept(..)
            | Declaration::Broken(_)
            | Declaration::Incomplete(_)
            | Declaration::Left(_)
            | Declaration::Absent) => format!("{other:?}"),
        }
    }

    #[test]
    fn a_higher_layer_takes_a_path_with_all_above_and_below() {
        for (own, high, low, expected) in [
            (r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3,"b":3}"#, "tags.a=1 own; tags.b=3 low"),
            ("{}", r#"{"a":{"x":1}}"#, r#"{"a":2,"b":2}"#, "tags.a.x=1 high; tags.b=2 low"),
            ("{}", r#"{"a":1}"#, r#"{"a":{"x":2}}"#, "tags.a=1 high"),
            ("{}", r#"{"a":{"x":1}}"#, r#"{"a":{"y":2}}"#, "tags.a.x=1 high; tags.a.y=2 low"),
            (r#"{"a":null}"#, r#"{"a":{"x":1}}"#, "{}", "tags.a=null own"),
            (r#"{"a":{}}"#, r#"{"a":{"x":1}}"#, r#"{"aa":1}"#, "tags.a={} own; tags.aa=1 low"),
        ] {
            let state = state(own, vec![profile("high", 2, high), profile("low", 1, low)]);
            assert_eq!(shown(&state, "a"), expected, "{own} {high} {low}");
            assert!(!shown(&state, "b").contains("high"), "another label selects nothing");
        }
    }

    #[test]
    fn a_tie_is_an_error_only_where_nothing_higher_decides() {
        let tie = "the profiles one (one:1:1) and two (two:1:1) disagree on tags.a with one priority, 5";
        for (own, one, two, expected) in [
            ("{}", r#"{"a":1}"#, r#"{"a":2}"#, tie),
            ("{}", r#"{"a":1}"#, r#"{"a":{"x":1}}"#, tie),
            ("{}", r#"{"a":1}"#, r#"{"a":1.0,"b":2}"#, "tags.a=1 one; tags.b=2 two"),
            (r#"{"a":3}"#, r#"{"a":1}"#, r#"{"a":2}"#, "tags.a=3 own"),
            (r#"{"a":{"x":3}}"#, r#"{"a":1}"#, r#"{"a":2}"#, "tags.a.x=3 own"),
        ] {
            let state = state(own, vec![profile("one", 5, one), profile("two", 5, two)]);
            assert_eq!(shown(&state, "a"), expected, "{own} {one} {two}");
            let ties: Vec<String> =
                find_ties(&state).iter().map(|(tie, twin, count)| format!("{tie} {twin} {count}")).collect();
            let found = if expected == tie { vec![format!("{tie} a 1")] } else { Vec::new() };
            assert_eq!(ties, found, "{own} {one} {two}");
        }
    }

    #[test]
    fn a_profile_for_modules_is_not_for_devices() {
        let mut modules = profile("m", 1, r#"{"a":1}"#).as_ref().clone();
        modules.target = ProfileTarget::Modules;
        assert_eq!(shown(&state("{}", vec![Arc::new(modules)]), "a"), "");
    }
}
