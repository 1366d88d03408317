//! What Git says in a history: small trees over few keys, so that everybody's paths meet, and what becomes of them.

use std::sync::Arc;

use geminid::plan::{DeclaredState, RemovalPolicy, Suspend, TwinManifest, Wanted};
use geminid::twin::{Object, Value};

use crate::fleet::{place, twin};

/// Devices of a history, registered or not.
pub(crate) const DEVICES: usize = 6;

/// A small count, to be held against gauges and rates.
pub(crate) fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

pub(crate) fn id(n: usize) -> String {
    format!("d{n}")
}

pub(crate) fn tree(rng: &mut fastrand::Rng, depth: usize, with_null: bool) -> Object {
    let keys = ["a", "b", "c"].into_iter().filter(|_| rng.bool()).collect::<Vec<_>>();
    let mut value = |depth: usize| match rng.usize(..8) {
        0 | 1 if depth > 0 => Value::Object(tree(rng, depth - 1, with_null)),
        2 => Value::empty_object(),
        3 => Value::Array(vec![Value::from(rng.i64(0..2))]),
        4 if with_null => Value::Null,
        _ => Value::from(rng.i64(0..3)),
    };
    keys.into_iter().map(|key| (key.to_owned(), value(depth))).collect()
}

pub(crate) fn fleet(rng: &mut fastrand::Rng, unix_now: i64) -> DeclaredState {
    let mut state = DeclaredState { revision: "r".to_owned(), ..DeclaredState::default() };
    for n in (0..DEVICES).filter(|_| rng.u8(..8) > 0).collect::<Vec<_>>() {
        declare_one(&mut state, n, rng, unix_now);
    }
    state
}

fn declare_one(state: &mut DeclaredState, n: usize, rng: &mut fastrand::Rng, unix_now: i64) {
    let tags = tree(rng, 2, true);
    let desired = if rng.bool() { tree(rng, 1, true) } else { Object::new() };
    let suspend = (rng.u8(..12) == 0).then(|| {
        let until = rng.bool().then(|| (unix_now + rng.i64(100..5000), "soon".to_owned()));
        Box::new(Suspend { reason: "bench test".to_owned(), until })
    });
    let manifest = TwinManifest {
        wanted: Wanted { tags, desired, ..Wanted::default() }.into(),
        create: true,
        removal_policy: if rng.bool() { RemovalPolicy::Clear } else { RemovalPolicy::Orphan },
        suspend,
        ..TwinManifest::empty(place())
    };
    state.twins.insert(twin(&id(n)), Arc::new(manifest));
}

/// What Git says next: another manifest, one less, a broken file, everything anew, or nothing at all.
pub(crate) fn next_state(state: &DeclaredState, rng: &mut fastrand::Rng, unix_now: i64) -> DeclaredState {
    let mut next = DeclaredState { frozen: Default::default(), ..state.clone() };
    let n = rng.usize(..DEVICES);
    match rng.usize(..9) {
        0 => {
            next.twins.remove(&twin(&id(n)));
        }
        1 => next.twins.clear(),
        2 => next = fleet(rng, unix_now),
        3 if next.twins.contains_key(&twin(&id(n))) => {
            next.frozen.kept.insert(twin(&id(n)), place());
            next.frozen.broken.insert(place());
        }
        4 => {
            next.frozen.unknown.insert(place());
            next.frozen.broken.insert(place());
        }
        _ => declare_one(&mut next, n, rng, unix_now),
    }
    next
}

/// The same with every file whole, nothing suspended, and something declared.
pub(crate) fn mended(state: &DeclaredState) -> DeclaredState {
    let mut whole = DeclaredState { frozen: Default::default(), ..state.clone() };
    let manifests: Vec<_> = whole.twins.iter().map(|(twin, manifest)| (twin.clone(), Arc::clone(manifest))).collect();
    for (twin, manifest) in manifests {
        whole.twins.insert(twin, Arc::new(TwinManifest { suspend: None, ..TwinManifest::clone(&manifest) }));
    }
    if !whole.twins.contains_key(&twin(&id(0))) {
        let policy = RemovalPolicy::Clear;
        let empty = TwinManifest { create: true, removal_policy: policy, ..TwinManifest::empty(place()) };
        whole.twins.insert(twin(&id(0)), Arc::new(empty));
    }
    whole
}
