//! Whole sources, loaded again and again.

use super::*;
use crate::manifest::parse_file;

/// A source that is loaded again and again, as the daemon does.
#[derive(Default)]
struct Source {
    last_good: LastGood,
}

impl Source {
    /// Loads these files and answers what they make: each twin with its `create`, `tags.v` and state, then what
    /// is held, unknown and broken, and the queries with their help.
    fn load(&mut self, files: &[(&str, &str)]) -> String {
        let files: BTreeMap<Arc<str>, Arc<ParsedFile>> =
            files.iter().map(|(name, text)| ((*name).into(), Arc::new(parse_file(name, text)))).collect();
        let lowered = lower(&files, &self.last_good);
        assert_eq!(lower(&files, &lowered.last_good).state, lowered.state, "loading again changes nothing");
        self.last_good = lowered.last_good.clone();
        show(&lowered)
    }
}

fn show(lowered: &Lowered) -> String {
    let frozen = &lowered.state.frozen;
    let twins = lowered.state.twins.iter().map(|(twin, manifest)| {
        let kept = frozen.kept.get(twin).map(|span| format!(" kept by {span}")).unwrap_or_default();
        let value = manifest.wanted.unpack().tags.get("v").map(ToString::to_string).unwrap_or_default();
        format!("{twin}={value}{kept}")
    });
    let profiles = lowered.state.profiles.iter().map(|profile| {
        let kept = frozen.kept_profiles.get(&profile.name).map(|span| format!(" kept by {span}"));
        format!("profile {}={}{}", profile.name, profile.wanted.tags["v"], kept.unwrap_or_default())
    });
    let held = frozen.held.iter().map(|(twin, span)| format!("held {twin} by {span}"));
    let unknown = frozen.unknown.iter().map(|span| format!("unknown {span}"));
    let broken = frozen.broken.iter().map(|span| format!("broken {span}"));
    let queries = lowered.queries.iter().map(|query| {
        let metrics: Vec<String> =
            query.spec.metrics.iter().map(|metric| format!("{} {}", metric.name, metric.help)).collect();
        format!("query {}: {}", query.spec.name, metrics.join(", "))
    });
    twins.chain(profiles).chain(held).chain(unknown).chain(broken).chain(queries).collect::<Vec<_>>().join("; ")
}

fn twin(name: &str, value: &str) -> String {
    format!(
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {{name: {name}}}\nspec: {{tags: {{v: {value}}}}}\n---\n"
    )
}

fn query(name: &str, metric: &str, help: &str) -> String {
    format!(
        "apiVersion: geminid.dev/v1alpha1\nkind: TwinQuery\nmetadata: {{name: {name}}}\nspec:\n  \
         query: SELECT deviceId AS device FROM devices\n  metrics: [{{name: {metric}, help: {help}, value: {{count: true}}}}]\n---\n"
    )
}

/// A document whose identity can be read and whose content cannot.
fn broken_twin(name: &str) -> String {
    twin(name, ".nan")
}

const NOT_YAML: &str = "spec: [\n";
const NO_IDENTITY: &str = "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwinn\nmetadata: {name: a}\n";

#[test]
fn a_broken_document_keeps_its_twin_as_it_was_and_stops_nothing_else() {
    let mut source = Source::default();
    assert_eq!(source.load(&[("f", &(twin("a", "1") + &twin("b", "1")))]), "a=1; b=1");
    let edited = broken_twin("a") + &twin("b", "2");
    assert_eq!(source.load(&[("f", &edited)]), "a=1 kept by f:1:1; b=2; broken f:1:1");
    assert_eq!(source.load(&[("f", &(twin("a", "3") + &twin("b", "2")))]), "a=3; b=2");
}

#[test]
fn a_file_that_does_not_parse_freezes_all_it_declared() {
    let mut source = Source::default();
    source.load(&[("f", &(twin("a", "1") + &twin("b", "1"))), ("g", &twin("c", "1"))]);
    let edited = twin("a", "2") + NOT_YAML;
    assert_eq!(
        source.load(&[("f", &edited), ("g", &twin("c", "2"))]),
        "a=1 kept by f:1:1; b=1 kept by f:6:1; c=2; broken f:6:1"
    );
    assert_eq!(source.load(&[("f", &twin("a", "2")), ("g", &twin("c", "2"))]), "a=2; c=2");
}

#[test]
fn a_file_that_cannot_be_read_freezes_all_it_declared() {
    let mut source = Source::default();
    source.load(&[("f", &twin("a", "1"))]);
    let unreadable = Arc::new(ParsedFile::unreadable("f", "unreadable", "permission denied".to_owned()));
    let files = BTreeMap::from([("f".into(), unreadable)]);
    let lowered = lower(&files, &source.last_good);
    assert_eq!(show(&lowered), "a=1 kept by f:1:1; broken f:1:1");
    assert_eq!(lowered.diagnostics[0].to_string(), "f: error: permission denied");
    assert_eq!(show(&lower(&files, &LastGood::default())), "unknown f:1:1; broken f:1:1");
}

#[test]
fn without_a_last_good_state_a_broken_document_holds_its_own_twin() {
    let mut source = Source::default();
    let text = broken_twin("a") + &twin("b", "1");
    assert_eq!(source.load(&[("f", &text)]), "b=1; held a by f:1:1; broken f:1:1");
    assert_eq!(source.load(&[("f", &text)]), "b=1; held a by f:1:1; broken f:1:1");
    assert_eq!(source.load(&[("f", &(twin("a", "1") + &twin("b", "1")))]), "a=1; b=1");
}

#[test]
fn a_broken_document_with_anchors_or_tags_still_has_its_identity() {
    let text = twin("a", "&x 1");
    assert_eq!(Source::default().load(&[("f", &text)]), "held a by f:1:1; broken f:1:1");
    let text = twin("!!str a", "1");
    assert_eq!(Source::default().load(&[("f", &text)]), "held a by f:1:1; broken f:1:1");
}

#[test]
fn without_a_last_good_state_an_unknown_document_holds_the_source_until_it_is_fixed() {
    let mut source = Source::default();
    for untold in [NO_IDENTITY, NOT_YAML] {
        let text = twin("b", "1") + untold;
        assert_eq!(source.load(&[("f", &text)]), "b=1; unknown f:6:1; broken f:6:1");
        assert_eq!(source.load(&[("f", &text)]), "b=1; unknown f:6:1; broken f:6:1");
    }
    assert_eq!(source.load(&[("f", &twin("b", "1"))]), "b=1");
}

#[test]
fn with_a_last_good_state_an_unknown_document_keeps_what_no_other_names() {
    let mut source = Source::default();
    source.load(&[("f", &(twin("a", "1") + &twin("b", "1")))]);
    let text = twin("b", "2") + NO_IDENTITY;
    assert_eq!(source.load(&[("f", &text)]), "a=1 kept by f:6:1; b=2; broken f:6:1");
}

#[test]
fn documents_of_others_break_the_source_but_hold_no_twin() {
    let foreign = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    assert_eq!(Source::default().load(&[("f", foreign), ("g", &twin("a", "1"))]), "a=1; broken f:1:1");
}

#[test]
fn a_broken_module_twin_holds_the_module_alone() {
    let module = "apiVersion: geminid.dev/v1alpha1\nkind: ModuleTwin\nmetadata: {name: m}\nspec: {device: a}\n";
    let broken = module.replace("device: a", "device: a, x: 1");
    assert_eq!(Source::default().load(&[("f", &broken)]), "held a/m by f:1:1; broken f:1:1");
    let mut source = Source::default();
    assert_eq!(source.load(&[("f", &(twin("a", "1") + module))]), "a=1; a/m=");
    assert_eq!(source.load(&[("f", &(twin("a", "2") + &broken))]), "a=2; a/m= kept by f:6:1; broken f:6:1");
    let twice = [("f", module), ("g", module)];
    assert_eq!(Source::default().load(&twice), "held a/m by f:1:1; broken f:1:1; broken g:1:1");
}

/// A profile for every declared twin.
fn profile(name: &str, priority: i64, value: &str) -> String {
    format!(
        "apiVersion: geminid.dev/v1alpha1\nkind: TwinProfile\nmetadata: {{name: {name}}}\nspec:\n  \
         selector: {{devices: ['*']}}\n  priority: {priority}\n  tags: {{v: {value}}}\n---\n"
    )
}

#[test]
fn a_broken_profile_holds_every_twin_after_a_restart_and_stays_as_it_was_while_running() {
    let broken = twin("a", "1") + &profile("p", 1, ".nan");
    assert_eq!(Source::default().load(&[("f", &broken)]), "a=1; unknown f:6:1; broken f:6:1");

    let mut source = Source::default();
    let good = twin("a", "1") + &profile("p", 1, "2") + &profile("q", 3, "3");
    assert_eq!(source.load(&[("f", &good)]), "a=1; profile q=3; profile p=2");
    let edited = twin("a", "2") + &profile("p", 1, ".nan") + &profile("q", 3, "4");
    let result = "a=2; profile q=4; profile p=2 kept by f:6:1; broken f:6:1";
    assert_eq!(source.load(&[("f", &edited)]), result);
    // A file that does not parse keeps all of it, a profile that moved is where it moved to.
    let result = "a=2 kept by f:1:1; profile q=4 kept by f:1:1; profile p=2 kept by f:1:1; broken f:1:1";
    assert_eq!(source.load(&[("f", NOT_YAML)]), result);
    let moved = [("f", twin("a", "5")), ("g", profile("p", 1, "6"))];
    let moved = moved.each_ref().map(|(name, text)| (*name, text.as_str()));
    assert_eq!(source.load(&moved), "a=5; profile p=6");
    // One that is new and broken never declared anything: it blocks removals and stops nothing else.
    let new = [("f", twin("a", "5")), ("g", profile("p", 1, "6") + &profile("new", 1, ".nan"))];
    let new = new.each_ref().map(|(name, text)| (*name, text.as_str()));
    assert_eq!(source.load(&new), "a=5; profile p=6; broken g:9:1");
}

#[test]
fn profiles_that_contradict_one_another_are_errors_at_both_and_break_no_good_state() {
    let mut source = Source::default();
    let files = [("f", twin("a", "1")), ("p", profile("p", 1, "2")), ("q", profile("q", 1, "3"))];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    // The twin's own manifest decides the path, so nobody disagrees.
    assert_eq!(source.load(&files), "a=1; profile p=2; profile q=3");
    let tied = [files[1], files[2], ("f", "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: a}\n")];
    assert_eq!(source.load(&tied), "a=; profile p=2; profile q=3; broken p:1:1; broken q:1:1");
    let parsed = tied.iter().map(|(name, text)| ((*name).into(), Arc::new(parse_file(name, text)))).collect();
    let lowered = lower(&parsed, &LastGood::default());
    let lines: Vec<String> = lowered.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines[1..],
        [
            "p:7:10: error: profile q at q:7:10 sets tags.v with the same priority, 1, and another value, for a; \
             give p or q another priority (spec.tags.v)",
            "q:7:10: error: profile p at p:7:10 sets tags.v with the same priority, 1, and another value, for a; \
             give q or p another priority (spec.tags.v)",
        ]
    );
    let twin = TwinRef::device(crate::twin::DeviceId::new("a").unwrap());
    assert!(matches!(crate::plan::declare(&lowered.state, &twin, None), crate::plan::Declaration::Tied(_)));
}

#[test]
fn a_profile_declared_twice_stays_as_it_was() {
    let mut source = Source::default();
    source.load(&[("f", &profile("p", 1, "1"))]);
    let twice = [("f", profile("p", 1, "2")), ("g", profile("p", 1, "3"))];
    let twice = twice.each_ref().map(|(name, text)| (*name, text.as_str()));
    assert_eq!(source.load(&twice), "profile p=1 kept by f:1:1; broken f:1:1; broken g:1:1");
}

#[test]
fn what_was_ever_sensitive_is_never_shown_again() {
    let mut source = Source::default();
    let secret = twin("a", "1").replace("spec: {", "spec: {sensitive: [tags.v], ");
    source.load(&[("f", &secret)]);
    source.load(&[("f", &twin("b", "1"))]);
    let shown: Vec<String> = source.last_good.sensitive.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["tags.v"]);
}

#[test]
fn a_twin_that_moved_from_a_broken_file_to_a_good_one_is_the_good_one_s() {
    let mut source = Source::default();
    source.load(&[("f", &(twin("a", "1") + &twin("b", "1"))), ("g", "")]);
    for broken in [NOT_YAML.to_owned(), NO_IDENTITY.to_owned(), broken_twin("b")] {
        let mut source = Source { last_good: source.last_good.clone() };
        assert_eq!(source.load(&[("f", &broken), ("g", &twin("a", "2"))]), "a=2; b=1 kept by f:1:1; broken f:1:1");
        assert_eq!(source.load(&[("f", &broken), ("g", "")]), "b=1 kept by f:1:1; broken f:1:1");
    }
}

#[test]
fn a_twin_that_moved_and_broke_at_once_is_kept() {
    let mut source = Source::default();
    source.load(&[("f", &(twin("a", "1") + &twin("b", "1")))]);
    assert_eq!(
        source.load(&[("f", &twin("b", "1")), ("g", &broken_twin("a"))]),
        "a=1 kept by g:1:1; b=1; broken g:1:1"
    );
    assert_eq!(source.load(&[("f", &twin("b", "1")), ("g", &twin("a", "2"))]), "a=2; b=1");
}

#[test]
fn a_broken_file_that_is_deleted_takes_its_twins_along() {
    let mut source = Source::default();
    source.load(&[("f", &twin("a", "1")), ("g", &twin("b", "1"))]);
    assert_eq!(source.load(&[("f", NOT_YAML), ("g", &twin("b", "1"))]), "a=1 kept by f:1:1; b=1; broken f:1:1");
    assert_eq!(source.load(&[("g", &twin("b", "1"))]), "b=1");
    assert_eq!(source.load(&[("f", NOT_YAML), ("g", &twin("b", "1"))]), "b=1; broken f:1:1");
}

#[test]
fn a_new_file_that_cannot_be_told_keeps_what_has_left_others_and_stops_nothing_else() {
    let mut source = Source::default();
    source.load(&[
        ("f", &twin("a", "1")),
        ("g", &(twin("b", "1") + &twin("c", "1"))),
        ("q", &query("q", "twinquery_a", "One")),
    ]);
    for untold in [NOT_YAML, NO_IDENTITY] {
        // `f` was renamed, `b` and the query moved, and all of it broke.
        let text = source.load(&[("g", &twin("c", "2")), ("new", untold)]);
        assert_eq!(text, "a=1 kept by new:1:1; b=1 kept by new:1:1; c=2; broken new:1:1; query q: twinquery_a One");
    }
    let mended = twin("a", "2") + &twin("b", "2");
    assert_eq!(source.load(&[("g", &twin("c", "3")), ("new", &mended)]), "a=2; b=2; c=3");
}

#[test]
fn a_renamed_file_declares_the_same_and_a_broken_one_is_known_by_its_identities() {
    let mut source = Source::default();
    source.load(&[("f", &twin("a", "1"))]);
    assert_eq!(source.load(&[("g", &twin("a", "1"))]), "a=1");
    assert_eq!(source.load(&[("h", &broken_twin("a"))]), "a=1 kept by h:1:1; broken h:1:1");
    assert_eq!(source.load(&[("i", &twin("a", "2"))]), "a=2");
}

#[test]
fn a_twin_declared_twice_is_held_or_kept_and_both_places_are_named() {
    let files = [("f", twin("a", "1")), ("g", twin("b", "1") + &twin("a", "2"))];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    assert_eq!(Source::default().load(&files), "b=1; held a by f:1:1; broken f:1:1; broken g:6:1");

    let mut source = Source::default();
    source.load(&[("f", &twin("a", "0"))]);
    assert_eq!(source.load(&files), "a=0 kept by f:1:1; b=1; broken f:1:1; broken g:6:1");
    let parsed = files.iter().map(|(name, text)| ((*name).into(), Arc::new(parse_file(name, text)))).collect();
    let lines: Vec<String> = lower(&parsed, &LastGood::default()).diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "f:3:18: error: the device a is also declared at g:8:18; keep one of the two (metadata.name)",
            "g:8:18: error: the device a is also declared at f:3:18; keep one of the two (metadata.name)",
        ]
    );
    assert_eq!(source.load(&[("g", &(twin("b", "1") + &twin("a", "2")))]), "a=2; b=1");
}

#[test]
fn empty_files_and_documents_declare_nothing_and_break_nothing() {
    let slips = "---\n---\n# only a comment\n---\n".to_owned() + &twin("a", "1") + "...\n---\n";
    let files = [("empty", ""), ("comments", "# a\n\n# b\n"), ("marks", "---\n...\n---"), ("f", slips.as_str())];
    assert_eq!(Source::default().load(&files), "a=1");
}

#[test]
fn a_broken_query_freezes_only_itself() {
    let mut source = Source::default();
    let good = query("q", "twinquery_a", "One") + &query("r", "twinquery_b", "One");
    assert_eq!(source.load(&[("f", &good)]), "query q: twinquery_a One; query r: twinquery_b One");
    let edited = query("q", "twinquery_a", "[Two]") + &query("r", "twinquery_b", "Two");
    let result = "broken f:1:1; query q: twinquery_a One; query r: twinquery_b Two";
    assert_eq!(source.load(&[("f", &edited)]), result);
    let edited = query("q", "twinquery_a", "[Two]");
    assert_eq!(Source::default().load(&[("f", &edited)]), "broken f:1:1");
    let result = "broken f:1:1; query q: twinquery_a One; query r: twinquery_b Two";
    assert_eq!(source.load(&[("f", NOT_YAML)]), result);
}

#[test]
fn queries_whose_metrics_collide_stay_as_they_were() {
    let mut source = Source::default();
    let good = query("q", "twinquery_a", "One") + &query("r", "twinquery_b", "One");
    source.load(&[("f", &good)]);
    let colliding = query("q", "twinquery_a", "One") + &query("r", "twinquery_a", "Two");
    let kept = "broken f:1:1; broken f:8:1; query q: twinquery_a One; query r: twinquery_b One";
    assert_eq!(source.load(&[("f", &colliding)]), kept);
    assert_eq!(Source::default().load(&[("f", &colliding)]), "broken f:1:1; broken f:8:1");
    // One query frozen at a name, and another that is new takes it.
    let taken = query("q", "twinquery_a", "[Two]") + &query("s", "twinquery_a", "New");
    let result = "broken f:1:1; broken f:8:1; query q: twinquery_a One";
    assert_eq!(source.load(&[("f", &taken)]), result);
}

#[test]
fn a_query_declared_twice_stays_as_it_was() {
    let mut source = Source::default();
    source.load(&[("f", &query("q", "twinquery_a", "One"))]);
    let twice = [("f", query("q", "twinquery_a", "Two")), ("g", query("q", "twinquery_c", "Three"))];
    let twice = twice.each_ref().map(|(name, text)| (*name, text.as_str()));
    assert_eq!(source.load(&twice), "broken f:1:1; broken g:1:1; query q: twinquery_a One");
}

/// What one file of the property below holds.
fn file_text(parts: &[(u8, u8)]) -> String {
    let part = |(what, value): &(u8, u8)| match what {
        0..6 => twin(&format!("t{}", what % 3), &value.to_string()),
        6 => broken_twin(&format!("t{}", value % 3)),
        7 => NO_IDENTITY.to_owned() + "---\n",
        8 => query(&format!("q{}", value % 2), &format!("twinquery_{}", value % 3), &format!("H{value}")),
        9 => query(&format!("q{}", value % 2), "twinquery_a", "[broken]"),
        10 => profile(&format!("p{}", value % 2), i64::from(*value), if value % 3 == 0 { ".nan" } else { "1" }),
        _ => NOT_YAML.to_owned() + "---\n",
    };
    parts.iter().map(part).collect()
}

proptest::proptest! {
    #[test]
    fn nothing_a_source_names_is_lost_whatever_is_edited(
        loads in proptest::collection::vec(
            proptest::collection::btree_map("[fgh]", proptest::collection::vec((0_u8..12, 0_u8..6), 0..4), 0..4), 1..5)
    ) {
        let mut last_good = LastGood::default();
        for load in loads {
            let files: BTreeMap<Arc<str>, Arc<ParsedFile>> = load
                .iter()
                .map(|(name, parts)| (name.as_str().into(), Arc::new(parse_file(name, &file_text(parts)))))
                .collect();
            let before: BTreeMap<TwinRef, Arc<TwinManifest>> =
                last_good.twins.iter().map(|(twin, manifest)| (twin.clone(), Arc::clone(manifest))).collect();
            let lowered = lower(&files, &last_good);
            let frozen = &lowered.state.frozen;
            let again = lower(&files, &lowered.last_good);
            proptest::prop_assert_eq!(&again, &lowered, "loading again changes nothing");
            for document in files.values().flat_map(|file| &file.documents) {
                if let Declares::Twin(twin, _) | Declares::Broken(Identity::Twin(twin)) = &document.content {
                    let is_declared = lowered.state.twins.contains_key(twin);
                    proptest::prop_assert!(is_declared != frozen.held.contains_key(twin), "{} is declared or held", twin);
                }
            }
            for twin in frozen.kept.keys() {
                proptest::prop_assert_eq!(lowered.state.twins.get(twin), before.get(twin), "kept as it was");
            }
            let has_errors = lowered.diagnostics.iter().any(Diagnostic::is_error);
            proptest::prop_assert_eq!(frozen.blocks_removals(), has_errors);
            let mut names: Vec<_> = lowered.queries.iter().flat_map(|query| &query.spec.metrics).map(|metric| &metric.name).collect();
            let total = names.len();
            names.dedup();
            names.sort();
            names.dedup();
            proptest::prop_assert_eq!(names.len(), total, "no metric twice");
            proptest::prop_assert_eq!(&lowered.last_good.twins, &lowered.state.twins, "each twin is remembered");
            last_good = lowered.last_good;
        }
    }
}
