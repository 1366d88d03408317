//! The declared hash of every twin of a fleet, kept from sweep to sweep.
//!
//! Invariant: a hash is kept exactly as long as the manifest is the same object, and the profiles and the scope are
//! equal to those it was made with. What is frozen, and who is in a profile with a condition, is not in it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use super::declare::unconditional_hash;
use super::{DeclaredHash, DeclaredState, DeclaredTwins, Profile, SealScope, TwinManifest};
use crate::twin::{Chunk, ModuleId, Near, TwinRef};

/// So many names out of order are searched for before a table of all pays.
const SEARCHED_MAX: usize = 1_000;

type Manifests = Chunk<TwinRef, Arc<TwinManifest>>;

/// What is known of one twin.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// Nobody has asked yet.
    Unasked,
    /// Its profiles contradict one another.
    Tied,
    Hash(DeclaredHash),
}

/// One twin's hash, with what must be looked at beside it.
#[derive(Debug, Clone)]
struct Entry {
    known: Known,
    /// Whether its manifest says anything of a suspension.
    may_be_suspended: bool,
}

/// The hashes of one declared state, each made when it is first asked for.
#[derive(Debug, Clone, Default)]
pub struct DeclaredHashes {
    scope: Option<SealScope>,
    profiles: Vec<Arc<Profile>>,
    twins: DeclaredTwins,
    /// As the chunks of `twins`.
    known: Vec<Box<[Entry]>>,
    /// The number of each chunk's first twin.
    first: Vec<usize>,
    names: NameTable,
    /// Names that were not where they were expected, before the table was made.
    searched: usize,
    /// Whether the last name was not the one after the name before.
    out_of_order: bool,
}

impl DeclaredHashes {
    /// Takes over `state` in `scope`, keeping what is still so.
    pub fn follow(&mut self, scope: &SealScope, state: &DeclaredState) {
        let before = std::mem::take(self);
        let same = before.scope.as_ref() == Some(scope) && before.profiles == state.profiles;
        let (mut first, mut old, mut near) = (0, 0, Near::default());
        for chunk in state.twins.chunks() {
            self.first.push(first);
            first += chunk.len();
            // What lies before this chunk altogether is gone.
            while before.twins.chunks().get(old).is_some_and(|gone| is_before(gone, chunk)) {
                old += 1;
            }
            let known = match before.twins.chunks().get(old) {
                Some(kept) if same && Arc::ptr_eq(kept, chunk) => before.known[old].clone(),
                Some(_) if same => chunk.iter().map(|entry| before.kept(&mut near, entry)).collect(),
                Some(_) | None => chunk.iter().map(|(_, manifest)| Entry::new(Known::Unasked, manifest)).collect(),
            };
            self.known.push(known);
        }
        self.scope = Some(scope.clone());
        self.profiles.clone_from(&state.profiles);
        self.twins = state.twins.clone();
    }

    /// What is known of a twin if its manifest is still the same object.
    fn kept(&self, near: &mut Near, (twin, manifest): &(TwinRef, Arc<TwinManifest>)) -> Entry {
        let module = twin.module.as_ref().map(ModuleId::as_str);
        let place = self.twins.find_near(near, twin.device.as_str(), module);
        let same = place.filter(|place| self.twins.at(*place).is_some_and(|(_, old)| Arc::ptr_eq(old, manifest)));
        let known = same.map_or(Known::Unasked, |place| self.known[place.chunk][place.index].known.clone());
        Entry::new(known, manifest)
    }

    /// How many twins are declared.
    #[must_use]
    pub fn len(&self) -> usize {
        self.twins.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.twins.is_empty()
    }

    /// The place of the twin of this name, if it has a manifest; `near` is where the last one was found. Names that
    /// come in the order of the twins cost a comparison; once they do not, a table of all is made and asked.
    pub fn find(&mut self, near: &mut Near, device: &str, module: Option<&str>) -> Option<Near> {
        if !self.out_of_order
            && let Some(place) = self.twins.find_next(near, device, module)
        {
            return Some(place);
        }
        if !self.names.is_for(&self.twins) {
            if self.searched < SEARCHED_MAX {
                self.searched += 1;
                return self.twins.find_near(near, device, module);
            }
            self.names = NameTable::of(&self.twins);
        }
        let twins = &self.twins;
        let found = self.names.candidates(device, module).find_map(|number| {
            let chunk = self.first.partition_point(|first| *first <= number) - 1;
            let place = Near { chunk, index: number - self.first[chunk] };
            let is_it = twins.at(place).is_some_and(|(twin, _)| twin.order_of_names(device, module).is_eq());
            is_it.then_some(place)
        });
        let place = found?;
        self.out_of_order = place != twins.next_place(*near);
        *near = place;
        Some(place)
    }

    /// Whether the manifest of the twin at `place` says anything of a suspension, over or not.
    #[must_use]
    pub fn may_be_suspended(&self, place: Near) -> bool {
        self.known.get(place.chunk).and_then(|chunk| chunk.get(place.index)).is_none_or(|entry| entry.may_be_suspended)
    }

    /// The twin at `place` with its manifest.
    #[must_use]
    pub fn at(&self, place: Near) -> Option<(&TwinRef, &Arc<TwinManifest>)> {
        self.twins.at(place)
    }

    /// The number of the twin at `place`: from 0, in the order of the twins.
    #[must_use]
    pub fn number(&self, place: Near) -> usize {
        self.first.get(place.chunk).map_or(usize::MAX, |first| first + place.index)
    }

    /// The twins with their numbers, in order.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &TwinRef)> {
        self.twins.keys().enumerate()
    }

    /// The hash of what manifest and profiles without a condition declare for the twin at `place` of `state`, which is
    /// the one followed last; `None` when profiles contradict one another.
    pub fn hash(&mut self, state: &DeclaredState, place: Near) -> Option<&DeclaredHash> {
        let (scope, entry) = (self.scope.as_ref()?, self.known.get_mut(place.chunk)?.get_mut(place.index)?);
        let known = &mut entry.known;
        if *known == Known::Unasked {
            let (twin, manifest) = self.twins.at(place)?;
            *known = unconditional_hash(state, scope, twin, manifest).map_or(Known::Tied, Known::Hash);
        }
        match known {
            Known::Hash(hash) => Some(hash),
            Known::Tied | Known::Unasked => None,
        }
    }
}

impl Entry {
    fn new(known: Known, manifest: &TwinManifest) -> Self {
        Self { known, may_be_suspended: manifest.suspend.is_some() }
    }
}

/// Where each name stands, by a hash of it: open addressing, at most half full.
#[derive(Debug, Clone, Default)]
struct NameTable {
    /// Numbers of twins, from 1; 0 is an empty slot.
    slots: Vec<u32>,
    len: usize,
}

impl NameTable {
    fn of(twins: &DeclaredTwins) -> Self {
        let size = (2 * twins.len()).next_power_of_two();
        let mut table = Self { slots: vec![0; size], len: twins.len() };
        for (number, twin) in (1_u32..).zip(twins.keys()) {
            let mut slot = table.slot(twin.device.as_str(), twin.module.as_ref().map(ModuleId::as_str));
            while table.slots[slot] != 0 {
                slot = (slot + 1) % size;
            }
            table.slots[slot] = number;
        }
        table
    }

    /// Whether this is a table of `twins`: it lives no longer than they do, so their number tells.
    fn is_for(&self, twins: &DeclaredTwins) -> bool {
        !self.slots.is_empty() && self.len == twins.len()
    }

    /// The numbers of the twins that the name may be of.
    fn candidates(&self, device: &str, module: Option<&str>) -> impl Iterator<Item = usize> {
        let (first, size) = (self.slot(device, module), self.slots.len());
        let slots = (0..size).map(move |step| self.slots[(first + step) % size]);
        slots.take_while(|number| *number != 0).map(|number| number as usize - 1)
    }

    fn slot(&self, device: &str, module: Option<&str>) -> usize {
        let mut hasher = DefaultHasher::new();
        (device, module).hash(&mut hasher);
        let place = usize::try_from(hasher.finish() & u64::from(u32::MAX)).expect("32 bits fit");
        place % self.slots.len()
    }
}

/// Whether all of `one` comes before all of `other`.
fn is_before(one: &Manifests, other: &Manifests) -> bool {
    one.last().zip(other.first()).is_some_and(|((last, _), (first, _))| last < first)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::plan::{
        Declaration, FileSpan, Members, Owner, ProfileTarget, Selector, Wanted, declare, declare_presumed,
    };
    use crate::twin::{DeviceId, Value};

    fn place() -> FileSpan {
        FileSpan { file: "a.yaml".into(), line: 1, column: 1 }
    }

    fn wanted(value: u16) -> Wanted {
        let tags = Value::parse_json(&format!(r#"{{"v{}":{value}}}"#, value % 3)).unwrap();
        Wanted { tags: tags.as_object().unwrap().clone(), ..Wanted::default() }
    }

    fn manifest(value: u16) -> Arc<TwinManifest> {
        let labels = [("odd".to_owned(), (value % 2).to_string())].into();
        Arc::new(TwinManifest { wanted: wanted(value).into(), labels, ..TwinManifest::empty(place()) })
    }

    fn profile(name: &str, value: u16) -> Arc<Profile> {
        let match_labels = BTreeMap::from([("odd".to_owned(), "1".to_owned())]);
        let selector = Selector { match_labels, ..Selector::default() };
        let target = ProfileTarget::Devices;
        let (wanted, name) = (wanted(value), name.to_owned());
        Arc::new(Profile { name, target, priority: 1, selector, removal_policy: None, wanted, source: place() })
    }

    fn twin(number: u16) -> TwinRef {
        TwinRef::device(DeviceId::new(&format!("d{number:05}")).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever Git does in between, the kept hashes are those of a look at every twin.
        #[test]
        fn kept_hashes_are_those_of_a_fresh_look(
            steps in proptest::collection::vec(
                (proptest::collection::vec((0_u16..900, proptest::option::of(0_u16..50)), 0..400), 0_u16..3, any::<bool>()),
                1..5,
            ),
        ) {
            let scopes = ["demo", "other"].map(|owner| SealScope::new(Owner::new(owner).unwrap(), "h"));
            let mut state = DeclaredState::default();
            let mut hashes = DeclaredHashes::default();
            for (edits, profiles, rebuilt) in steps {
                for (number, value) in edits {
                    match value {
                        Some(value) => drop(state.twins.insert(twin(number), manifest(value))),
                        None => drop(state.twins.remove(&twin(number))),
                    }
                }
                if rebuilt {
                    // As after a flip: the same manifests in other chunks.
                    state.twins = state.twins.clone().into_iter().collect();
                }
                // Two profiles of one priority tie for some twins.
                state.profiles = (0..profiles).map(|value| profile(&format!("p{value}"), 3 * value)).collect();
                let scope = &scopes[usize::from(profiles == 2)];
                hashes.follow(scope, &state);
                let mut near = Near::default();
                hashes.searched = SEARCHED_MAX - 7;
                for (number, (twin, _)) in state.twins.iter().enumerate() {
                    let place = hashes.find(&mut near, twin.device.as_str(), None).unwrap();
                    prop_assert_eq!((hashes.number(place), hashes.at(place).unwrap().0), (number, twin));
                    let of = |it: &Declaration| it.declared().map(|declared| DeclaredHash::of(scope, twin, declared));
                    let presumed = declare_presumed(&state, twin, &Members::new());
                    prop_assert_eq!(hashes.hash(&state, place).cloned(), of(&declare(&state, twin, None)));
                    prop_assert_eq!(hashes.hash(&state, place).cloned(), of(&presumed));
                }
                // The second time by the table.
                for number in [899, 3, 500, 4, 5, 6, 0, 899, 3, 500, 4, 5, 6, 0] {
                    let found = hashes.find(&mut near, twin(number).device.as_str(), None);
                    let found = found.and_then(|place| hashes.at(place)).map(|(twin, _)| twin.clone());
                    prop_assert_eq!(found, state.twins.contains_key(&twin(number)).then(|| twin(number)), "in no order");
                }
                prop_assert!(hashes.find(&mut near, "nobody", None).is_none());
                prop_assert!(hashes.find(&mut near, "d00003", Some("m")).is_none());
            }
        }
    }
}
