//! Profiles with a condition on the live twin, from manifests as text to the twins of a hub.

#![expect(clippy::unwrap_used, reason = "a test that cannot get on fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use geminid::controller::{Ended, Options, Statuses, run};
use geminid::emulator::{Fault, SimHub, SimOperation};
use geminid::hub::HubError;
use geminid::manifest::{LastGood, Lowered, lower, parse_file};
use geminid::metrics::Metrics;
use geminid::plan::{DeclaredState, GuardLimits, Owner, Policy, SealScope, TwinState};
use geminid::twin::{DeviceId, MergePatch, Object, TwinRef, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn device(id: &str) -> DeviceId {
    DeviceId::new(id).unwrap()
}

fn object(json: &str) -> Object {
    Value::parse_json(json).unwrap().as_object().unwrap().clone()
}

fn tags(json: &str) -> MergePatch {
    MergePatch { tags: Some(object(json)), desired: None }
}

fn lowered(text: &str, last: &LastGood) -> Lowered {
    lower(&BTreeMap::from([("f".into(), Arc::new(parse_file("f", text)))]), last)
}

fn state(text: &str) -> DeclaredState {
    let lowered = lowered(text, &LastGood::default());
    assert_eq!(lowered.diagnostics, [], "{text}");
    lowered.state
}

fn named(id: &str) -> String {
    format!(
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {{name: {id}}}\nspec: {{tags: {{own: 1}}}}\n---\n"
    )
}

fn profile(name: &str, condition: &str, more: &str, tags: &str) -> String {
    format!(
        "apiVersion: geminid.dev/v1alpha1\nkind: TwinProfile\nmetadata: {{name: {name}}}\nspec:\n  \
         selector: {{where: \"{condition}\"}}\n  tags: {tags}\n{more}---\n"
    )
}

struct Daemon {
    hub: SimHub,
    declared: watch::Sender<Arc<DeclaredState>>,
    cancel: CancellationToken,
    task: JoinSet<Ended>,
}

impl Daemon {
    fn start(hub: &SimHub, text: &str) -> Self {
        let metrics = Metrics::register(&prometheus::Registry::new(), &["sim"]).unwrap();
        let (declared, receiver) = watch::channel(Arc::new(state(text)));
        let (cancel, mut task) = (CancellationToken::new(), JoinSet::new());
        let options = Options {
            hub: "sim".to_owned(),
            scope: SealScope::new(Owner::new("demo").unwrap(), "sim"),
            sweep: Duration::from_secs(600),
            verify: Duration::from_secs(24 * 3600),
            policy: Policy { guards: GuardLimits { creates: 1.0, ..GuardLimits::default() }, ..Policy::default() },
            workers: 2,
            single_pass: false,
            first_contact: CancellationToken::new(),
            audit: geminid::controller::AuditLog::off(),
            journal: geminid::controller::Journal::default(),
            wall_clock: || SystemTime::UNIX_EPOCH,
        };
        let handle = metrics.controller.hub("sim");
        task.spawn(run(options, hub.clone(), receiver, handle, cancel.clone(), fastrand::Rng::with_seed(7)));
        Self { hub: hub.clone(), declared, cancel, task }
    }

    fn declare(&self, text: &str) {
        self.declared.send(Arc::new(state(text))).unwrap();
    }

    /// Lets the paused clock run through a sweep.
    async fn sweep(&self) {
        tokio::time::sleep(Duration::from_secs(700)).await;
    }

    /// The tags without seals, and whether there is one.
    fn tags(&self, id: &str) -> (String, bool) {
        let mut tags = self.hub.twin(&device(id)).unwrap().tags;
        let sealed = tags.remove("geminid").is_some();
        (Value::Object(tags).to_string(), sealed)
    }

    async fn stop(mut self) -> Statuses {
        self.cancel.cancel();
        self.task.join_next().await.unwrap().unwrap().statuses
    }
}

fn hub(devices: &[(&str, &str)]) -> SimHub {
    let hub = SimHub::new();
    for (id, live) in devices {
        hub.create(&device(id)).unwrap();
        hub.edit(&device(id), &tags(live)).unwrap();
    }
    hub
}

#[tokio::test(start_paused = true)]
async fn a_condition_brings_in_twins_nobody_names_and_lets_them_go_with_their_values() {
    let hub = hub(&[("a", r#"{"plant":"R"}"#), ("b", r#"{"plant":"X"}"#), ("own", r#"{"plant":"R"}"#)]);
    let text = named("own") + &profile("p", "tags.plant = 'R'", "", "{by: p}");
    let daemon = Daemon::start(&hub, &text);
    daemon.sweep().await;
    assert_eq!(daemon.tags("a"), (r#"{"by":"p","plant":"R"}"#.to_owned(), true));
    assert_eq!(daemon.tags("b"), (r#"{"plant":"X"}"#.to_owned(), false));
    assert_eq!(daemon.tags("own"), (r#"{"by":"p","own":1,"plant":"R"}"#.to_owned(), true));
    let settled = hub.applied().len();
    daemon.sweep().await;
    assert_eq!(hub.applied().len(), settled, "nothing more to do");
    // They leave by a change of their own: the value stays and is ours no more.
    hub.edit(&device("a"), &tags(r#"{"plant":"X"}"#)).unwrap();
    hub.edit(&device("own"), &tags(r#"{"plant":"X"}"#)).unwrap();
    daemon.sweep().await;
    daemon.sweep().await;
    assert_eq!(daemon.tags("a"), (r#"{"by":"p","plant":"X"}"#.to_owned(), false));
    assert_eq!(daemon.tags("own"), (r#"{"by":"p","own":1,"plant":"X"}"#.to_owned(), true));
    // Ours no more: what goes from Git now takes nothing from them.
    daemon.declare(&named("own"));
    daemon.sweep().await;
    assert_eq!(daemon.tags("own"), (r#"{"by":"p","own":1,"plant":"X"}"#.to_owned(), true));
    assert_eq!(daemon.stop().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn leaving_takes_the_values_where_the_profile_says_clear() {
    let hub = hub(&[("a", r#"{"plant":"R"}"#), ("own", r#"{"plant":"R"}"#)]);
    let text = named("own") + &profile("p", "tags.plant = 'R'", "  removalPolicy: clear\n", "{by: p}");
    let daemon = Daemon::start(&hub, &text);
    daemon.sweep().await;
    for id in ["a", "own"] {
        hub.edit(&device(id), &tags(r#"{"plant":"X"}"#)).unwrap();
    }
    daemon.sweep().await;
    daemon.sweep().await;
    assert_eq!(daemon.tags("a"), (r#"{"plant":"X"}"#.to_owned(), false));
    assert_eq!(daemon.tags("own"), (r#"{"own":1,"plant":"X"}"#.to_owned(), true));
    daemon.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_goes_from_git_goes_from_the_members_also_after_a_restart() {
    for restart in [false, true] {
        let hub = hub(&[("a", r#"{"plant":"R"}"#), ("own", r#"{"plant":"R"}"#)]);
        let both = named("own") + &profile("p", "tags.plant = 'R'", "", "{by: p, more: 1}");
        let mut daemon = Daemon::start(&hub, &both);
        daemon.sweep().await;
        let less = named("own") + &profile("p", "tags.plant = 'R'", "", "{more: 1}");
        let gone = named("own");
        for (text, a, own) in [
            (less, (r#"{"more":1,"plant":"R"}"#, true), r#"{"more":1,"own":1,"plant":"R"}"#),
            (gone, (r#"{"plant":"R"}"#, false), r#"{"own":1,"plant":"R"}"#),
        ] {
            if restart {
                daemon.stop().await;
                daemon = Daemon::start(&hub, &text);
            } else {
                daemon.declare(&text);
            }
            daemon.sweep().await;
            daemon.sweep().await;
            assert_eq!(daemon.tags("a"), (a.0.to_owned(), a.1), "{restart}");
            assert_eq!(daemon.tags("own").0, own, "{restart}");
        }
        daemon.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_nominating_query_is_unfinished_nothing_is_let_go() {
    let hub = hub(&[("a", r#"{"plant":"R"}"#)]);
    let text = profile("p", "tags.plant = 'R'", "", "{by: p}");
    let daemon = Daemon::start(&hub, &text);
    daemon.sweep().await;
    assert!(daemon.tags("a").1);
    // Another condition, whose query the hub does not answer for a while; the twin is not in it.
    for _ in 0..4 {
        hub.inject(
            SimOperation::Query,
            Fault::ErrorBefore(HubError::Server { status: Some(503), message: "x".into() }),
        );
    }
    daemon.declare(&(profile("p", "tags.plant = 'Y'", "", "{by: p}") + &named("a").replace("own: 1", "own: 2")));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (shown, sealed) = daemon.tags("a");
    assert_eq!((shown.as_str(), sealed), (r#"{"by":"p","own":2,"plant":"R"}"#, true), "updates go on");
    let reads = hub.calls().reads;
    daemon.sweep().await;
    assert!(hub.calls().reads > reads, "the hold was lifted, and the twin looked at again");
    assert_eq!(daemon.tags("a").0, r#"{"own":2,"plant":"R"}"#, "the edit left it out");
    daemon.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_edited_condition_takes_its_values_from_those_that_it_leaves_out() {
    let hub = hub(&[("a", r#"{"plant":"R"}"#), ("b", r#"{"plant":"S"}"#), ("own", r#"{"plant":"R"}"#)]);
    let text = |condition: &str| named("own") + &profile("p", condition, "", "{by: p}");
    let daemon = Daemon::start(&hub, &text("tags.plant IN ['R', 'S']"));
    daemon.sweep().await;
    assert_eq!(daemon.tags("own").0, r#"{"by":"p","own":1,"plant":"R"}"#);
    let settled = hub.applied().len();
    daemon.declare(&text("tags.plant = 'S'"));
    daemon.sweep().await;
    assert_eq!(daemon.tags("a"), (r#"{"plant":"R"}"#.to_owned(), false));
    assert_eq!(daemon.tags("own"), (r#"{"own":1,"plant":"R"}"#.to_owned(), true));
    assert_eq!(daemon.tags("b"), (r#"{"by":"p","plant":"S"}"#.to_owned(), true));
    assert_eq!(hub.applied().len(), settled + 2, "whoever stays is not written");
    // The edit is done with: whoever leaves from now on leaves by itself.
    hub.edit(&device("b"), &tags(r#"{"plant":"R"}"#)).unwrap();
    daemon.sweep().await;
    daemon.sweep().await;
    assert_eq!(daemon.tags("b"), (r#"{"by":"p","plant":"R"}"#.to_owned(), false));
    daemon.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_by_itself_while_the_condition_is_edited_keeps_the_values() {
    let hub = hub(&[("a", r#"{"plant":"R"}"#), ("own", r#"{"plant":"R"}"#), ("b", r#"{"plant":"R"}"#)]);
    let text = |condition: &str| named("own") + &profile("p", condition, "", "{by: p}");
    let daemon = Daemon::start(&hub, &text("tags.plant = 'R'"));
    daemon.sweep().await;
    for id in ["a", "own"] {
        hub.edit(&device(id), &tags(r#"{"plant":"X"}"#)).unwrap();
    }
    daemon.declare(&text("tags.plant = 'S'"));
    daemon.sweep().await;
    assert_eq!(daemon.tags("a"), (r#"{"by":"p","plant":"X"}"#.to_owned(), false));
    assert_eq!(daemon.tags("own"), (r#"{"by":"p","own":1,"plant":"X"}"#.to_owned(), true));
    assert_eq!(daemon.tags("b"), (r#"{"plant":"R"}"#.to_owned(), false));
    daemon.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_takes_its_twin_out_of_a_condition_takes_the_values_too() {
    let live = r#"{"plant":"R"}"#;
    for (before, after, left) in [
        // What the condition reads is declared otherwise.
        ("tags: {plant: R}", "tags: {plant: X}", r#"{"plant":"X"}"#),
        // What the condition reads is declared no more, and goes.
        ("removalPolicy: clear, tags: {plant: R}", "removalPolicy: clear, tags: {own: 1}", r#"{"own":1}"#),
    ] {
        let hub = hub(&[("own", live)]);
        let text = |spec: &str| {
            named("own").replace("tags: {own: 1}", spec) + &profile("p", "tags.plant = 'R'", "", "{by: p}")
        };
        let daemon = Daemon::start(&hub, &text(before));
        daemon.sweep().await;
        assert_eq!(daemon.tags("own").0, r#"{"by":"p","plant":"R"}"#);
        daemon.declare(&text(after));
        daemon.sweep().await;
        daemon.sweep().await;
        assert_eq!(daemon.tags("own").0, left, "{after}");
        daemon.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_edited_condition_that_leaves_out_many_is_held_whole_and_its_revert_ends_that() {
    let ids: Vec<String> = (0..12).map(|n| format!("d{n:02}")).collect();
    let live: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), r#"{"plant":"R"}"#)).collect();
    let hub = hub(&live);
    let text = |condition: &str| profile("p", condition, "", "{by: p}");
    let daemon = Daemon::start(&hub, &text("tags.plant = 'R'"));
    daemon.sweep().await;
    let settled = hub.applied().len();
    daemon.declare(&text("tags.plant = 'R' AND deviceId = 'd00'"));
    daemon.sweep().await;
    daemon.sweep().await;
    assert_eq!(hub.applied().len(), settled, "eleven of twelve would lose the value, ten may");
    let reads = hub.calls().reads;
    daemon.sweep().await;
    assert_eq!(hub.calls().reads, reads, "whoever waits for somebody to act is not read again");
    daemon.declare(&text("tags.plant = 'R'"));
    daemon.sweep().await;
    daemon.sweep().await;
    assert_eq!(hub.applied().len(), settled, "all is as it was");
    daemon.declare(&text("tags.plant = 'R' AND deviceId != 'd00'"));
    daemon.sweep().await;
    assert_eq!(daemon.tags("d00"), (r#"{"plant":"R"}"#.to_owned(), false), "one may go");
    assert_eq!(daemon.tags("d01"), (r#"{"by":"p","plant":"R"}"#.to_owned(), true));
    let statuses = daemon.stop().await;
    assert_eq!((statuses.len(), statuses.count(TwinState::InSync)), (11, 11));
}

#[tokio::test(start_paused = true)]
async fn twins_held_by_an_edited_condition_say_so() {
    let ids: Vec<String> = (0..12).map(|n| format!("d{n:02}")).collect();
    let live: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), r#"{"plant":"R"}"#)).collect();
    let hub = hub(&live);
    let daemon = Daemon::start(&hub, &profile("p", "tags.plant = 'R'", "", "{by: p}"));
    daemon.sweep().await;
    daemon.declare(&profile("p", "tags.plant = 'S'", "", "{by: p}"));
    daemon.sweep().await;
    let statuses = daemon.stop().await;
    let messages: Vec<&str> = statuses.iter().map(|(_, status)| status.message.as_str()).collect();
    assert_eq!(messages.len(), 12);
    assert!(messages.iter().all(|message| message.contains("12 twins would lose something")), "{messages:?}");
}

#[tokio::test(start_paused = true)]
async fn an_edit_made_while_nobody_ran_leaves_the_values_and_counts_for_the_guard() {
    for (devices, is_held) in [(1, false), (12, true)] {
        let ids: Vec<String> = (0..devices).map(|n| format!("d{n:02}")).collect();
        let live: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), r#"{"plant":"R"}"#)).collect();
        let hub = hub(&live);
        let daemon = Daemon::start(&hub, &profile("p", "tags.plant = 'R'", "", "{by: p}"));
        daemon.sweep().await;
        daemon.stop().await;
        // Nobody can tell whether the twins or the manifests changed: the values stay, and ours they are no more.
        let daemon = Daemon::start(&hub, &profile("p", "tags.plant = 'S'", "", "{by: p}"));
        daemon.sweep().await;
        daemon.sweep().await;
        for id in &ids {
            assert_eq!(daemon.tags(id), (r#"{"by":"p","plant":"R"}"#.to_owned(), is_held), "{id}");
        }
        daemon.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_condition_reads_what_unconditional_sources_will_set_and_what_the_device_reports() {
    let hub = hub(&[("own", "{}"), ("r", "{}")]);
    let text = named("own")
        + &profile("p", "tags.own = 1", "", "{by: p}")
        + &profile("q", "properties.reported.fw = 'old' AND status = 'enabled'", "", "{upgrade: true}");
    let daemon = Daemon::start(&hub, &text);
    daemon.sweep().await;
    assert_eq!(daemon.tags("own").0, r#"{"by":"p","own":1}"#);
    // A report moves no etag; only the nominating query tells.
    hub.report(&device("r"), &object(r#"{"fw":"old"}"#)).unwrap();
    daemon.sweep().await;
    assert_eq!(daemon.tags("r"), (r#"{"upgrade":true}"#.to_owned(), true));
    hub.report(&device("r"), &object(r#"{"fw":"new"}"#)).unwrap();
    daemon.sweep().await;
    assert_eq!(daemon.tags("r"), (r#"{"upgrade":true}"#.to_owned(), false));
    let twin = TwinRef::device(device("r"));
    assert!(daemon.stop().await.get(&twin).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_suspended_twin_is_neither_read_nor_written_until_its_time_has_come() {
    let hub = hub(&[("own", "{}"), ("other", "{}")]);
    let suspended = |until: &str| {
        let annotations = format!("annotations: {{geminid.dev/suspend: bench test{until}}}");
        named("own").replace("{name: own}", &format!("{{name: own, {annotations}}}")) + &named("other")
    };
    // The wall clock of this test stands at 1970-01-01T00:00:00Z.
    let daemon = Daemon::start(&hub, &suspended(", geminid.dev/suspend-until: '1970-01-01T01:00:00Z'"));
    let reads = hub.calls().reads;
    daemon.sweep().await;
    daemon.sweep().await;
    assert_eq!((daemon.tags("own").0.as_str(), hub.calls().reads - reads), ("{}", 1));
    assert_eq!(daemon.tags("other").0, r#"{"own":1}"#, "the other twin goes on");
    daemon.declare(&suspended(", geminid.dev/suspend-until: '1969-12-31T23:00:00Z'"));
    daemon.sweep().await;
    assert_eq!(daemon.tags("own").0, r#"{"own":1}"#, "that time is over");
    daemon.declare(&(suspended("").replace("own: 1", "own: 2")));
    daemon.sweep().await;
    assert_eq!(daemon.tags("own").0, r#"{"own":1}"#);
    let statuses = daemon.stop().await;
    let status = statuses.get(&TwinRef::device(device("own"))).unwrap();
    assert_eq!(status.message, "held: suspended: bench test");
    assert_eq!(statuses.count(TwinState::Suspended), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sensitive_value_is_shown_to_nobody_not_even_when_it_is_declared_no_more() {
    let hub = hub(&[("a", r#"{"wifi":{"password":"live-canary"}}"#)]);
    let text = named("a").replace("own: 1}", "wifi: {password: git-canary}}, sensitive: [tags.wifi.password]");
    let scope = {
        let mut scope = SealScope::new(Owner::new("demo").unwrap(), "sim");
        scope.salt = geminid::plan::Salt::new([7, 9]);
        scope
    };
    let before = lowered(&text, &LastGood::default());
    let after = lowered(&named("a"), &before.last_good);
    for state in [before.state, after.state] {
        let everything = geminid::plan::TwinFilter::default();
        let (reader, state) = (Arc::new(hub.clone()), Arc::new(state));
        let plans = geminid::controller::survey(reader, &scope, &state, &everything, None, 0).await.unwrap();
        let geminid::controller::Surveyed::Plan(found) = &plans[&TwinRef::device(device("a"))] else {
            panic!("a plan")
        };
        let plan = &found.plan;
        let shown: Vec<String> = plan.changes.iter().map(ToString::to_string).collect();
        assert!(!shown.concat().contains("canary"), "{shown:?}");
        if shown.len() == 1 && shown[0].contains("wifi") {
            assert!(shown[0].starts_with("~ tags.wifi.password = <hidden "), "{shown:?}");
        }
        let live = geminid::hub::ReadTwins::get_twin(&hub, &TwinRef::device(device("a"))).await.unwrap();
        if let Some(patch) = &plan.patch {
            geminid::hub::WriteTwins::patch_twin(&hub, &live.twin_ref, patch, &live.etag).await.unwrap();
        }
    }
    assert_eq!(hub.twin(&device("a")).unwrap().tags.get("wifi"), None, "the removal was planned, and hidden");
}

#[test]
fn a_condition_that_reads_what_a_condition_sets_is_refused_at_load() {
    for (condition, set) in [
        ("tags.mode = 1", "{mode: 2}"),
        ("tags.mode.inner = 1", "{mode: 2}"),
        ("IS_DEFINED(tags.mode)", "{mode: {inner: 1}}"),
    ] {
        let own = profile("p", condition, "", set);
        let other = profile("p", condition, "", "{x: 1}") + &profile("q", "tags.y = 1", "", set);
        for text in [own, other] {
            let lowered = lowered(&text, &LastGood::default());
            let rules: Vec<_> = lowered.diagnostics.iter().map(|found| (found.rule, found.line)).collect();
            assert_eq!(rules, [("where-oscillates", 5)], "{text}");
            assert!(!lowered.state.frozen.unknown.is_empty(), "after a restart every twin is held");
        }
    }
    // While running, the profile stays as it was.
    let good = profile("p", "tags.a = 1", "", "{x: 1}");
    let before = lowered(&good, &LastGood::default());
    let after = lowered(&profile("p", "tags.x = 1", "", "{x: 1}"), &before.last_good);
    let kept: Vec<_> = after.state.frozen.kept_profiles.keys().map(String::as_str).collect();
    assert_eq!((kept, after.state.frozen.unknown.len()), (vec!["p"], 0));
    assert_eq!(after.state.profiles, before.state.profiles);
}
