use proptest::prelude::*;

use super::super::index::Index;
use super::*;
use crate::emulator::wire;
use crate::twin::check_section;

fn object(json: &str) -> Object {
    Value::parse_json(json).unwrap().as_object().unwrap().clone()
}

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + second, 0).unwrap()
}

fn text(object: &Object) -> String {
    Value::Object(object.clone()).to_string()
}

/// What patches make of a section, once over texts and once over trees.
struct Both {
    texts: Part<Properties>,
    trees: Properties,
}

impl Both {
    fn new() -> Self {
        let new = Properties::new(at(0));
        Self { texts: new.clone().into(), trees: new }
    }

    fn patch(&mut self, patch: &Object, has_versions: bool, now: Timestamp) {
        self.texts = self.texts.patched(patch, "n", has_versions, now).unwrap();
        let version = has_versions.then_some(self.trees.version + 1);
        self.trees = self.trees.patched(patch, "n", &Stamp { at: tick(now), version, by: None }).unwrap();
    }

    fn check(&self) {
        let written = Part::from(self.trees.clone());
        assert_eq!(
            std::str::from_utf8(self.texts.stored().values.bytes()),
            std::str::from_utf8(written.stored().values.bytes())
        );
        assert_eq!((&*self.texts, text(&self.texts.values)), (&self.trees, text(&self.trees.values)));
        assert_eq!(shown(&self.texts), wire::properties(&self.trees));
    }
}

/// The section as an answer shows it.
fn shown(section: &Part<Properties>) -> Value {
    let identity = {
        use super::super::identity::{Identity, IdentitySpec};
        let id = crate::twin::DeviceId::new("d").unwrap();
        Identity::new(id, None, 1, IdentitySpec::default(), &mut |bytes| bytes.fill(1))
    };
    let twin = TwinRecord { desired: section.clone(), ..TwinRecord::new(at(0)) };
    let body = wire::twin_value(&super::super::registry::Device { identity: identity.into(), twin, change: 0 });
    body.get(["properties", "desired"]).unwrap().clone()
}

/// A patch, with names and values of every kind that text could be read wrongly in.
fn patches() -> impl Strategy<Value = Object> {
    let name =
        prop_oneof![8 => "[abc]", 1 => Just("a\"}".to_owned()), 1 => Just("ä".to_owned()), 1 => Just(String::new())];
    let leaf = prop_oneof![
        3 => Just(Value::Null),
        3 => (-3_i64..3).prop_map(Value::from),
        1 => Just(Value::Bool(true)),
        1 => Just(Value::parse_json("1.0").unwrap()),
        1 => Just(Value::from("x,\"}]\\\n\u{1}")),
        1 => Just(Value::parse_json(r#"[1,{"a":"]"},[]]"#).unwrap()),
    ];
    let value = leaf.prop_recursive(3, 24, 4, {
        let name = name.clone();
        move |inner| prop::collection::btree_map(name.clone(), inner, 0..4).prop_map(Value::Object)
    });
    prop::collection::btree_map(name, value, 0..4)
}

proptest! {
    #[test]
    fn texts_are_patched_as_trees_are(
        patches in prop::collection::vec((patches(), 0_i64..2), 1..6), has_versions in any::<bool>(), repacked in 0_usize..6,
    ) {
        let (mut both, mut now) = (Both::new(), 0);
        for (number, (patch, later)) in patches.iter().enumerate() {
            // Nothing that a hub would refuse; two writes may have one time.
            prop_assume!(check_section(Section::Desired, patch).is_empty());
            now += later;
            both.patch(patch, has_versions, at(now));
            both.check();
            if number == repacked {
                // Goes on as from a store, which wrote the trees.
                both.texts = Part::of_stored(Part::from(both.trees.clone()).stored().clone());
            }
        }
    }

    #[test]
    fn the_index_follows_texts_as_it_follows_trees(patches in prop::collection::vec(patches(), 1..6)) {
        let (mut by_texts, mut by_trees, key) = (Index::default(), Index::default(), Arc::from("k"));
        let mut tags = Part::from(Object::new());
        for patch in patches {
            let after = patched_tags(Some(&tags), &patch).unwrap();
            if let Some((gone, new)) = stored::difference(tags.stored().bytes(), after.stored().bytes()) {
                by_texts.change(&key, Some(&gone), Some(&new));
            } else {
                by_texts.change(&key, Some(&tags), Some(&after));
            }
            by_trees.change(&key, Some(&tags), Some(&after));
            prop_assert_eq!(format!("{by_texts:?}"), format!("{by_trees:?}"));
            tags = after;
        }
    }
}

#[test]
fn what_a_configuration_wrote_keeps_its_mark_when_others_write_beside_it() {
    let by = Arc::new(WrittenBy { configuration: ConfigurationId::new("c").unwrap(), digest: 637 });
    let write = LeafWrite { path: Path::new(["a", "b"]), value: Some(Value::from(1)), by: Some(by) };
    let twin = TwinRecord::new(at(0)).configured(&[write], BTreeMap::new(), at(1)).unwrap();
    let mut both = Both { trees: Properties::clone(&twin.desired), texts: twin.desired };
    for (patch, second) in [(r#"{"x":1}"#, 2), (r#"{"a":{"c":2}}"#, 3), (r#"{"a":{}}"#, 4), (r#"{"a":{"b":2}}"#, 5)] {
        both.patch(&object(patch), true, at(second));
        both.check();
        assert_eq!(shown(&both.texts).to_string().contains(r#""$lastUpdatedByDigest":"637""#), second < 5);
    }
}

#[test]
fn usual_patches_make_no_tree_and_what_may_break_a_limit_is_left_to_the_trees() {
    let before = Part::from(Properties::new(at(0)));
    let stamp = Stamp { at: at(1), version: Some(2), by: None };
    let is_by_text = |patch: &Object| stored::patched_section(before.stored(), patch, &stamp).is_some();
    assert!(is_by_text(&object(r#"{"a":{"b":[1,2]},"c":null}"#)));
    assert!(!is_by_text(&object(r#"{"a b":null}"#)), "no tree has that name");
    let long =
        |length: usize| Object::from(["a", "b", "c"].map(|name| (name.to_owned(), Value::from("x".repeat(length)))));
    assert!(is_by_text(&long(2000)) && !is_by_text(&long(4000)), "by far, and near the limit");
    // Many numbers count more than their text is long.
    let numbers = (0..4095).map(|_| Value::from(1)).collect();
    let mut patch = Object::from([("a".to_owned(), Value::Array(numbers))]);
    assert!(before.patched(&patch, "n", true, at(1)).is_ok());
    patch.insert("b".to_owned(), Value::from(1));
    assert!(!is_by_text(&patch));
    assert!(before.patched(&patch, "n", true, at(1)).is_err());
}
