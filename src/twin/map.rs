//! A sorted map made for fleets: little more memory than its entries, and cheap to copy and compare.
//!
//! Invariant: keys ascend, within each chunk and from one to the next; no chunk is empty.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::TwinRef;

/// Entries of a chunk when it is made; one is split at twice as many.
const CHUNK_SIZE: usize = 64;
/// A chunk of fewer is put together with the next one, if there is room.
const CHUNK_SIZE_MIN: usize = CHUNK_SIZE / 4;

/// A piece of a [`SortedMap`].
pub type Chunk<K, V> = Arc<Vec<(K, V)>>;
/// A map by twin.
pub type TwinMap<V> = SortedMap<TwinRef, V>;

/// Entries by key, usually something of each twin of a fleet. Clones share their chunks, and a change copies only the chunk that it falls into:
/// states before and after a change of one file differ in little memory, and are compared in little time. A fleet that
/// is put in by order fills its chunks.
#[derive(Debug, Clone)]
pub struct SortedMap<K, V> {
    chunks: Vec<Chunk<K, V>>,
    len: usize,
}

/// Where a twin was found last in a [`TwinMap`]: who asks for twins in order finds each by one comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Near {
    /// The chunk.
    pub chunk: usize,
    /// The place in it.
    pub index: usize,
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<K: Ord, V> SortedMap<K, V> {
    /// What `key` has.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        let at = self.find(key)?;
        Some(&self.chunks[at.chunk][at.index].1)
    }

    /// Whether `key` is in the map.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_some()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(key, value)| (key, value))
    }

    /// Those after `key` in order, or all.
    pub fn after(&self, key: Option<&K>) -> impl Iterator<Item = (&K, &V)> {
        let first = key.map_or(0, |key| self.chunk_of(key));
        let skipped = move |(entry, _): &&(K, V)| key.is_some_and(|key| entry <= key);
        let entries = self.chunks[first.min(self.chunks.len())..].iter().flat_map(|chunk| chunk.iter());
        entries.skip_while(skipped).map(|(key, value)| (key, value))
    }

    /// The first in order.
    #[must_use]
    pub fn first(&self) -> Option<(&K, &V)> {
        self.chunks.first()?.first().map(|(key, value)| (key, value))
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(twin, _)| twin)
    }

    /// What they have, in the order of the keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The pieces the map is made of, in order. A piece that is one object in two maps is the same in both.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk<K, V>] {
        &self.chunks
    }

    /// The entry at a place that [`find_near`](Self::find_near) gave.
    #[must_use]
    pub fn at(&self, place: Near) -> Option<(&K, &V)> {
        self.chunks.get(place.chunk)?.get(place.index).map(|(key, value)| (key, value))
    }

    /// The place after this one.
    #[must_use]
    pub fn next_place(&self, near: Near) -> Near {
        match self.chunks.get(near.chunk) {
            Some(chunk) if near.index + 1 >= chunk.len() => Near { chunk: near.chunk + 1, index: 0 },
            Some(_) | None => Near { index: near.index + 1, ..near },
        }
    }

    fn find(&self, key: &K) -> Option<Near> {
        self.find_by(|entry| entry.cmp(key))
    }

    fn find_by(&self, order: impl Fn(&K) -> Ordering) -> Option<Near> {
        let is_below = |chunk: &Chunk<K, V>| chunk.last().is_some_and(|(last, _)| order(last).is_lt());
        let chunk = self.chunks.partition_point(is_below);
        let index = self.chunks.get(chunk)?.binary_search_by(|(key, _)| order(key)).ok()?;
        Some(Near { chunk, index })
    }

    fn last(&self) -> Option<&K> {
        Some(&self.chunks.last()?.last()?.0)
    }

    /// The first chunk that may hold `key`: the first whose last key is not below it.
    fn chunk_of(&self, key: &K) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|(last, _)| last < key))
    }

    /// Takes all away.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl<V> TwinMap<V> {
    /// The place of the twin of this name; `near` is where the last one was found, and is moved there.
    pub fn find_near(&self, near: &mut Near, device: &str, module: Option<&str>) -> Option<Near> {
        let next = self.find_next(near, device, module);
        if next.is_some() {
            return next;
        }
        let at = self.find_by(|key| key.order_of_names(device, module))?;
        *near = at;
        Some(at)
    }

    /// The same if it is the twin found last, or the next one in order.
    pub fn find_next(&self, near: &mut Near, device: &str, module: Option<&str>) -> Option<Near> {
        for candidate in [self.next_place(*near), *near] {
            let entry = self.chunks.get(candidate.chunk).and_then(|chunk| chunk.get(candidate.index));
            if entry.is_some_and(|(key, _)| key.order_of_names(device, module).is_eq()) {
                *near = candidate;
                return Some(candidate);
            }
        }
        None
    }
}

impl<K: Ord + Clone, V: Clone> SortedMap<K, V> {
    /// What `key` has, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key)?;
        Some(&mut Arc::make_mut(&mut self.chunks[at.chunk])[at.index].1)
    }

    /// Gives `key` this; answers what it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.last().is_none_or(|last| *last < key) {
            self.append(key, value);
            return None;
        }
        let at = self.chunk_of(&key).min(self.chunks.len().saturating_sub(1));
        let chunk = Arc::make_mut(self.chunks.get_mut(at)?);
        match chunk.binary_search_by(|(entry, _)| entry.cmp(&key)) {
            Ok(index) => Some(std::mem::replace(&mut chunk[index].1, value)),
            Err(index) => {
                chunk.insert(index, (key, value));
                self.len += 1;
                if chunk.len() >= 2 * CHUNK_SIZE {
                    let second = chunk.split_off(CHUNK_SIZE);
                    self.chunks.insert(at + 1, Arc::new(second));
                }
                None
            }
        }
    }

    /// Takes what `key` has away.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key)?;
        self.take(at).map(|(_, value)| value)
    }

    /// Takes the first entry away.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        self.take(Near::default())
    }

    fn take(&mut self, at: Near) -> Option<(K, V)> {
        let chunk = Arc::make_mut(self.chunks.get_mut(at.chunk)?);
        let entry = chunk.remove(at.index);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(at.chunk);
        } else if chunk.len() < CHUNK_SIZE_MIN {
            self.put_together(at.chunk);
            at.chunk.checked_sub(1).into_iter().for_each(|before| self.put_together(before));
        }
        Some(entry)
    }

    /// Makes one chunk of this one and the next, if one of them is small and there is room.
    fn put_together(&mut self, at: usize) {
        let [one, next, ..] = &self.chunks[at..] else { return };
        let is_small = one.len().min(next.len()) < CHUNK_SIZE_MIN;
        if is_small && one.len() + next.len() <= CHUNK_SIZE {
            let next = Arc::unwrap_or_clone(self.chunks.remove(at + 1));
            Arc::make_mut(&mut self.chunks[at]).extend(next);
        }
    }

    /// Adds an entry behind all others: a fleet in order needs no memory but its own.
    fn append(&mut self, key: K, value: V) {
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK_SIZE) {
            Some(chunk) => Arc::make_mut(chunk).push((key, value)),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK_SIZE);
                chunk.push((key, value));
                self.chunks.push(Arc::new(chunk));
            }
        }
        self.len += 1;
    }
}

impl<K: Ord, T> SortedMap<K, Arc<T>> {
    /// Every twin that only one of both has, or that has another object: what may be declared otherwise.
    #[must_use]
    pub fn differing<'s>(&'s self, other: &'s Self) -> Vec<&'s K> {
        let (mut one, mut two) = (Cursor::new(self), Cursor::new(other));
        let mut found = Vec::new();
        loop {
            if let (Some(chunk), Some(same)) = (one.whole_chunk(), two.whole_chunk())
                && Arc::ptr_eq(chunk, same)
            {
                one.skip_chunk();
                two.skip_chunk();
                continue;
            }
            let (left, right) = (one.entry(), two.entry());
            let order = match (left, right) {
                (None, None) => return found,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(left), Some(right)) => left.0.cmp(&right.0),
            };
            let is_same =
                matches!((left, right), (Some(left), Some(right)) if order.is_eq() && Arc::ptr_eq(&left.1, &right.1));
            if !is_same {
                found.extend(if order.is_le() { left } else { right }.map(|(twin, _)| twin));
            }
            if order.is_le() {
                one.advance();
            }
            if order.is_ge() {
                two.advance();
            }
        }
    }
}

/// A place in the order of a [`SortedMap`].
struct Cursor<'a, K, V> {
    chunks: &'a [Chunk<K, V>],
    index: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn new(twins: &'a SortedMap<K, V>) -> Self {
        Self { chunks: &twins.chunks, index: 0 }
    }

    /// The chunk that begins here.
    fn whole_chunk(&self) -> Option<&'a Chunk<K, V>> {
        self.chunks.first().filter(|_| self.index == 0)
    }

    fn skip_chunk(&mut self) {
        self.chunks = self.chunks.get(1..).unwrap_or_default();
        self.index = 0;
    }

    fn entry(&self) -> Option<&'a (K, V)> {
        self.chunks.first()?.get(self.index)
    }

    fn advance(&mut self) {
        self.index += 1;
        if self.chunks.first().is_some_and(|chunk| self.index == chunk.len()) {
            self.skip_chunk();
        }
    }
}

impl<K: Ord, T: PartialEq> PartialEq for SortedMap<K, Arc<T>> {
    fn eq(&self, other: &Self) -> bool {
        // What is one object is equal to itself; the rest is compared by value.
        let equal = |twin| matches!((self.get(twin), other.get(twin)), (Some(one), Some(two)) if one == two);
        self.len == other.len && self.differing(other).into_iter().all(equal)
    }
}

impl<K: Ord, T: Eq> Eq for SortedMap<K, Arc<T>> {}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SortedMap<K, V> {
    /// Of two entries of one key the later stays.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut twins = Self::default();
        twins.extend(entries);
        twins
    }
}

impl<K: Ord + Clone, V: Clone> From<BTreeMap<K, V>> for SortedMap<K, V> {
    fn from(twins: BTreeMap<K, V>) -> Self {
        twins.into_iter().collect()
    }
}

impl<K: Ord + Clone, V: Clone, const N: usize> From<[(K, V); N]> for SortedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Clone, V: Clone> IntoIterator for SortedMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.chunks.into_iter().flat_map(Arc::unwrap_or_clone).collect::<Vec<_>>().into_iter()
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SortedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (twin, manifest) in entries {
            self.insert(twin, manifest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::twin::DeviceId;

    fn twin(number: u16) -> TwinRef {
        TwinRef::device(DeviceId::new(&format!("d{number:05}")).unwrap())
    }

    fn manifest(line: usize) -> Arc<usize> {
        Arc::new(line)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// A B-tree is the oracle; `differing` is checked against a look at every twin.
        #[test]
        fn it_is_a_map_and_finds_every_difference(
            start in proptest::collection::vec(0_u16..3_000, 0..2_000),
            edits in proptest::collection::vec((0_u16..3_000, any::<bool>()), 0..600),
        ) {
            let mut model: BTreeMap<_, _> = start.iter().map(|number| (twin(*number), manifest(1))).collect();
            let before = TwinMap::from(model.clone());
            let (old, mut after) = (model.clone(), before.clone());
            for (line, (number, is_there)) in edits.into_iter().enumerate() {
                let (twin, manifest) = (twin(number), manifest(line));
                if is_there {
                    prop_assert_eq!(after.insert(twin.clone(), Arc::clone(&manifest)), model.insert(twin, manifest));
                } else {
                    prop_assert_eq!(after.remove(&twin), model.remove(&twin));
                }
            }
            prop_assert!(after.iter().eq(model.iter()) && after.len() == model.len());
            prop_assert!(after.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() < 2 * CHUNK_SIZE));
            let small = |pair: &[Chunk<TwinRef, Arc<usize>>]| pair[0].len() + pair[1].len() < CHUNK_SIZE_MIN;
            prop_assert!(!after.chunks.windows(2).any(small), "a fleet that shrinks gives its memory back");
            prop_assert!((0..3_000).all(|number| after.get(&twin(number)) == model.get(&twin(number))));
            let same = |twin: &TwinRef| match (old.get(twin), model.get(twin)) {
                (Some(one), Some(two)) => Arc::ptr_eq(one, two),
                (one, two) => one.is_none() && two.is_none(),
            };
            let differing: BTreeSet<&TwinRef> = old.keys().chain(model.keys()).filter(|twin| !same(twin)).collect();
            prop_assert_eq!(before.differing(&after), differing.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(before == after, old == model);
            let mut near = Near::default();
            for number in (0..3_000).chain([7, 5, 2_999, 0]) {
                let name = twin(number);
                let found = after.find_near(&mut near, name.device.as_str(), None).and_then(|place| after.at(place));
                prop_assert_eq!(found, model.get_key_value(&name));
                prop_assert_eq!(after.get_mut(&name).cloned(), model.get(&name).cloned());
            }
            for start in [0, 1, 1_500, 2_999] {
                let later = model.range(twin(start)..).filter(|(key, _)| **key != twin(start));
                prop_assert!(after.after(Some(&twin(start))).eq(later), "{}", start);
            }
            prop_assert!(after.after(None).eq(model.iter()));
            prop_assert_eq!(TwinMap::from(model.clone()), after.clone());
            while let Some(first) = model.pop_first() {
                prop_assert_eq!(after.pop_first(), Some(first));
            }
            prop_assert!(after.pop_first().is_none() && after.is_empty() && after.chunks.is_empty());
        }
    }
}
