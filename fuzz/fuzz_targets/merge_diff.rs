//! Any twin, and any two declarations for it one after the other: a plan brings about what is declared, moves nothing
//! else, fits its section, and the next plan is empty.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use geminid::plan::{
    Declaration, DeclaredState, FileSpan, Owner, Permits, Profile, ProfileTarget, RemovalPolicy, SealScope, Selector,
    TwinManifest, Wanted, declare, leaves_of, next_etag, plan_twin,
};
use geminid::twin::{DeviceId, ETag, Object, Path, Section, Twin, TwinRef, Value, merge, section_size, size_max};
use libfuzzer_sys::fuzz_target;

const DEPTH_MAX: usize = 4;
const KEYS: [&str; 6] = ["a", "b", "c", "d", "ü", "geminid"];

/// Bytes as choices; at the end every choice is the first.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self, below: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first % below
    }

    /// A section; `nulls` as a manifest may have them and a live twin has none.
    fn object(&mut self, depth: usize, nulls: bool) -> Object {
        let count = self.next(4);
        // The seal's own key is for nobody else at the top.
        let keys = if depth == 0 { &KEYS[..5] } else { &KEYS[..] };
        (0..count)
            .map(|_| {
                let key = keys[usize::from(self.next(keys.len() as u8))];
                (key.to_owned(), self.value(depth + 1, nulls))
            })
            .collect()
    }

    fn value(&mut self, depth: usize, nulls: bool) -> Value {
        match self.next(9) {
            0 | 1 if depth < DEPTH_MAX => Value::Object(self.object(depth, nulls)),
            2 if nulls => Value::Null,
            3 => Value::Array((0..self.next(3)).map(|_| Value::from(i64::from(self.next(3)))).collect()),
            4 => Value::Bool(self.next(2) == 0),
            5 => Value::from("x".repeat(usize::from(self.next(4)) * 1300)),
            6 => Value::empty_object(),
            7 => Value::parse_json("1.0").expect("a number"),
            _ => Value::from(i64::from(self.next(3))),
        }
    }

    fn wanted(&mut self) -> Wanted {
        Wanted { tags: self.object(0, true), desired: self.object(0, true), ..Wanted::default() }
    }

    /// What a manifest, or none, and up to three profiles declare.
    fn state(&mut self, twin: &TwinRef) -> DeclaredState {
        let place = FileSpan { file: "f".into(), line: 1, column: 1 };
        let mut state = DeclaredState::default();
        if self.next(5) > 0 {
            let policy = if self.next(2) == 0 { RemovalPolicy::Orphan } else { RemovalPolicy::Clear };
            let manifest = TwinManifest { wanted: self.wanted().into(), removal_policy: policy, ..TwinManifest::empty(place.clone()) };
            state.twins = [(twin.clone(), Arc::new(manifest))].into_iter().collect();
        }
        state.profiles = (0..self.next(4))
            .map(|index| {
                let selector = Selector { match_labels: BTreeMap::new(), ..Selector::default() };
                Arc::new(Profile {
                    name: format!("p{index}"),
                    target: ProfileTarget::Devices,
                    priority: i64::from(index),
                    selector,
                    removal_policy: None,
                    wanted: self.wanted(),
                    source: place.clone(),
                })
            })
            .collect();
        state
    }
}

fn leaves(twin: &Twin) -> BTreeMap<(Section, Path), Value> {
    Section::ALL
        .into_iter()
        .flat_map(|section| leaves_of(twin.section(section)).into_iter().map(move |(path, value)| ((section, path), value.clone())))
        .filter(|((section, path), _)| !(*section == Section::Tags && path.keys().first().is_some_and(|key| key == "geminid")))
        .collect()
}

/// Plans, does what the hub would do, and checks that this was all.
fn step(scope: &SealScope, declaration: &Declaration, live: &Twin, ours: &BTreeSet<(Section, Path)>) -> Twin {
    let plan = plan_twin(scope, declaration, live, &Permits::ALL);
    assert_eq!(plan, plan_twin(scope, declaration, live, &Permits::ALL), "planning twice gives the same");
    let Some(patch) = &plan.patch else { return live.clone() };
    assert!(!patch.is_empty());
    let mut after = live.clone();
    after.tags = live.section_after(Section::Tags, patch);
    after.desired = live.section_after(Section::Desired, patch);
    after.etag = next_etag(&live.etag).expect("a counter");
    for section in Section::ALL {
        if let Some(change) = patch.section(section) {
            assert!(section_size(after.section(section)) <= size_max(section), "what is sent fits");
            let merged = Value::Object(after.section(section).clone());
            assert_eq!(merge(merged.clone(), change), merged, "a patch applied twice is applied once");
        }
    }
    let declared = declaration.declared();
    let kept = leaves(&after);
    for (leaf, value) in leaves(live) {
        let related = |section: Section, path: &Path| {
            section == leaf.0 && (path.covers(&leaf.1) || leaf.1.covers(path))
        };
        let is_declared = declared.is_some_and(|declared| declared.leaves.keys().any(|want| related(want.section, &want.path)));
        if !is_declared && !ours.contains(&leaf) && value != Value::empty_object() {
            assert_eq!(kept.get(&leaf), Some(&value), "{leaf:?} is somebody else's");
        }
    }
    if plan.held.is_empty() {
        let next = plan_twin(scope, declaration, &after, &Permits::ALL);
        assert_eq!((next.patch, next.held.len()), (None, 0), "the second plan is empty");
    }
    after
}

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let twin = TwinRef::device(DeviceId::new("d").expect("an id"));
    let scope = SealScope::new(Owner::new("demo").expect("an owner"), "hub.example");
    let mut live = Twin {
        twin_ref: twin.clone(),
        etag: ETag::new("AAAAAAAAAAE=").expect("an etag"),
        device_etag: None,
        version: 2,
        tags: choices.object(0, false),
        desired: choices.object(0, false),
        reported: Object::new(),
        system: Object::new(),
    };
    let mut ours = BTreeSet::new();
    for _ in 0..3 {
        let state = choices.state(&twin);
        let declaration = declare(&state, &twin, Some(&live));
        live = step(&scope, &declaration, &live, &ours);
        if let Some(declared) = declaration.declared() {
            ours.extend(declared.leaves.keys().map(|leaf| (leaf.section, leaf.path.clone())));
        }
    }
});
