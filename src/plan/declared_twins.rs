//! Each twin's own manifest, by twin: a sorted map made for fleets that change a little at a time.
//!
//! Invariant: keys ascend, within each chunk and from one to the next; no chunk is empty.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::TwinManifest;
use crate::twin::TwinRef;

/// Twins of a chunk when it is made; one is split at twice as many.
const CHUNK_SIZE: usize = 256;

type Entry = (TwinRef, Arc<TwinManifest>);

/// The manifests of a fleet. Clones share their chunks, and a change copies only the chunk that it falls into: the
/// states before and after a change of one file differ in little memory, and are compared in little time.
#[derive(Debug, Clone, Default)]
pub struct DeclaredTwins {
    chunks: Vec<Arc<Vec<Entry>>>,
    len: usize,
}

impl DeclaredTwins {
    /// The manifest of `twin`.
    #[must_use]
    pub fn get(&self, twin: &TwinRef) -> Option<&Arc<TwinManifest>> {
        let chunk = self.chunks.get(self.chunk_of(twin))?;
        let index = chunk.binary_search_by(|(key, _)| key.cmp(twin)).ok()?;
        Some(&chunk[index].1)
    }

    /// Whether `twin` has a manifest.
    #[must_use]
    pub fn contains_key(&self, twin: &TwinRef) -> bool {
        self.get(twin).is_some()
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

    /// All, by twin.
    pub fn iter(&self) -> impl Iterator<Item = (&TwinRef, &Arc<TwinManifest>)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(twin, manifest)| (twin, manifest))
    }

    /// The twins, in order.
    pub fn keys(&self) -> impl Iterator<Item = &TwinRef> {
        self.iter().map(|(twin, _)| twin)
    }

    /// The manifests, in the order of their twins.
    pub fn values(&self) -> impl Iterator<Item = &Arc<TwinManifest>> {
        self.iter().map(|(_, manifest)| manifest)
    }

    /// Gives `twin` this manifest; answers the one it had.
    pub fn insert(&mut self, twin: TwinRef, manifest: Arc<TwinManifest>) -> Option<Arc<TwinManifest>> {
        if self.last().is_none_or(|last| *last < twin) {
            self.append(twin, manifest);
            return None;
        }
        let at = self.chunk_of(&twin).min(self.chunks.len().saturating_sub(1));
        let chunk = Arc::make_mut(self.chunks.get_mut(at)?);
        match chunk.binary_search_by(|(key, _)| key.cmp(&twin)) {
            Ok(index) => Some(std::mem::replace(&mut chunk[index].1, manifest)),
            Err(index) => {
                chunk.insert(index, (twin, manifest));
                self.len += 1;
                if chunk.len() >= 2 * CHUNK_SIZE {
                    let second = chunk.split_off(CHUNK_SIZE);
                    self.chunks.insert(at + 1, Arc::new(second));
                }
                None
            }
        }
    }

    /// Takes the manifest of `twin` away.
    pub fn remove(&mut self, twin: &TwinRef) -> Option<Arc<TwinManifest>> {
        let at = self.chunk_of(twin);
        let chunk = self.chunks.get_mut(at)?;
        let index = chunk.binary_search_by(|(key, _)| key.cmp(twin)).ok()?;
        let (_, manifest) = Arc::make_mut(chunk).remove(index);
        self.len -= 1;
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
        Some(manifest)
    }

    /// Takes all away.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Every twin that only one of both has, or whose manifest is another object: what may be declared otherwise.
    #[must_use]
    pub fn differing<'s>(&'s self, other: &'s Self) -> Vec<&'s TwinRef> {
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

    fn last(&self) -> Option<&TwinRef> {
        Some(&self.chunks.last()?.last()?.0)
    }

    /// Adds a twin behind all others: a fleet in order needs no memory but its own.
    fn append(&mut self, twin: TwinRef, manifest: Arc<TwinManifest>) {
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK_SIZE) {
            Some(chunk) => Arc::make_mut(chunk).push((twin, manifest)),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK_SIZE);
                chunk.push((twin, manifest));
                self.chunks.push(Arc::new(chunk));
            }
        }
        self.len += 1;
    }

    /// The first chunk that may hold `twin`: the first whose last key is not below it.
    fn chunk_of(&self, twin: &TwinRef) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|(last, _)| last < twin))
    }
}

/// A place in the order of a [`DeclaredTwins`].
struct Cursor<'a> {
    chunks: &'a [Arc<Vec<Entry>>],
    index: usize,
}

impl<'a> Cursor<'a> {
    fn new(twins: &'a DeclaredTwins) -> Self {
        Self { chunks: &twins.chunks, index: 0 }
    }

    /// The chunk that begins here.
    fn whole_chunk(&self) -> Option<&'a Arc<Vec<Entry>>> {
        self.chunks.first().filter(|_| self.index == 0)
    }

    fn skip_chunk(&mut self) {
        self.chunks = self.chunks.get(1..).unwrap_or_default();
        self.index = 0;
    }

    fn entry(&self) -> Option<&'a Entry> {
        self.chunks.first()?.get(self.index)
    }

    fn advance(&mut self) {
        self.index += 1;
        if self.chunks.first().is_some_and(|chunk| self.index == chunk.len()) {
            self.skip_chunk();
        }
    }
}

impl PartialEq for DeclaredTwins {
    fn eq(&self, other: &Self) -> bool {
        // What is one object is equal to itself; the rest is compared by value.
        let equal = |twin| matches!((self.get(twin), other.get(twin)), (Some(one), Some(two)) if one == two);
        self.len == other.len && self.differing(other).into_iter().all(equal)
    }
}

impl Eq for DeclaredTwins {}

impl FromIterator<Entry> for DeclaredTwins {
    /// Of two manifests of one twin the later stays.
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut twins = Self::default();
        twins.extend(entries);
        twins
    }
}

impl From<BTreeMap<TwinRef, Arc<TwinManifest>>> for DeclaredTwins {
    fn from(twins: BTreeMap<TwinRef, Arc<TwinManifest>>) -> Self {
        twins.into_iter().collect()
    }
}

impl<const N: usize> From<[Entry; N]> for DeclaredTwins {
    fn from(entries: [Entry; N]) -> Self {
        entries.into_iter().collect()
    }
}

impl IntoIterator for DeclaredTwins {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.chunks.into_iter().flat_map(Arc::unwrap_or_clone).collect::<Vec<_>>().into_iter()
    }
}

impl Extend<Entry> for DeclaredTwins {
    fn extend<I: IntoIterator<Item = Entry>>(&mut self, entries: I) {
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
    use crate::plan::FileSpan;
    use crate::twin::DeviceId;

    fn twin(number: u16) -> TwinRef {
        TwinRef::device(DeviceId::new(&format!("d{number:05}")).unwrap())
    }

    fn manifest(line: usize) -> Arc<TwinManifest> {
        Arc::new(TwinManifest::empty(FileSpan { file: "a.yaml".into(), line, column: 1 }))
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
            let before = DeclaredTwins::from(model.clone());
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
            prop_assert!((0..3_000).all(|number| after.get(&twin(number)) == model.get(&twin(number))));
            let same = |twin: &TwinRef| match (old.get(twin), model.get(twin)) {
                (Some(one), Some(two)) => Arc::ptr_eq(one, two),
                (one, two) => one.is_none() && two.is_none(),
            };
            let differing: BTreeSet<&TwinRef> = old.keys().chain(model.keys()).filter(|twin| !same(twin)).collect();
            prop_assert_eq!(before.differing(&after), differing.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(before == after, old == model);
            prop_assert_eq!(DeclaredTwins::from(model), after);
        }
    }
}
