//! The audit log of the real loop on a hub without a socket: every write has a line, and a lost answer is found out.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use geminid::controller::{
    AuditLog, AuditTarget, Options, PlannedOrder, PlannedWrite, Recording, Surveyed, Written, apply_planned, run,
    survey,
};
use geminid::emulator::{Fault, SimHub, SimOperation};
use geminid::hub::HubError;
use geminid::metrics::Metrics;
use geminid::plan::{
    DeclaredState, FileSpan, HeldReason, Owner, Policy, RemovalPolicy, SealScope, Subtree, Suspend, TwinFilter,
    TwinManifest, Wanted,
};
use geminid::twin::{DeviceId, MergePatch, Object, Section, TwinRef, Value};
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn device(id: &str) -> DeviceId {
    DeviceId::new(id).unwrap()
}

fn object(json: &str) -> Object {
    Value::parse_json(json).unwrap().as_object().unwrap().clone()
}

fn declared(tags: &str) -> Arc<DeclaredState> {
    fleet(&[("d1", tags)])
}

fn fleet(devices: &[(&str, &str)]) -> Arc<DeclaredState> {
    let manifest = |tags: &str| TwinManifest {
        wanted: Wanted { tags: object(tags), ..Wanted::default() }.into(),
        create: true,
        removal_policy: RemovalPolicy::Clear,
        ..TwinManifest::empty(FileSpan { file: "fleet.yaml".into(), line: 7, column: 3 })
    };
    let twins = devices.iter().map(|(id, tags)| (TwinRef::device(device(id)), Arc::new(manifest(tags)))).collect();
    let sensitive = [Subtree::parse("tags.password").unwrap()].into();
    Arc::new(DeclaredState { revision: "r1".to_owned(), twins, sensitive, ..DeclaredState::default() })
}

fn clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)
}

fn scope() -> SealScope {
    SealScope::new(Owner::new("demo").unwrap(), "sim")
}

fn options(audit: AuditLog, single_pass: bool) -> Options {
    Options {
        hub: "sim".to_owned(),
        scope: scope(),
        sweep: Duration::from_secs(600),
        verify: Duration::from_secs(24 * 3600),
        policy: Policy::default(),
        workers: 2,
        single_pass,
        first_contact: CancellationToken::new(),
        audit,
        journal: geminid::controller::Journal::default(),
        wall_clock: clock,
    }
}

/// A loop with its audit log in a file. The clock is real: the file is written on other threads.
struct Daemon {
    hub: SimHub,
    declared: watch::Sender<Arc<DeclaredState>>,
    cancel: CancellationToken,
    task: JoinSet<()>,
    folder: tempfile::TempDir,
    metrics: prometheus::Registry,
}

impl Daemon {
    fn start(hub: &SimHub, state: Arc<DeclaredState>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = prometheus::Registry::new();
        let metrics = Metrics::register(&registry, &["sim"]).unwrap();
        let target = AuditTarget::File(folder.path().join("audit.log"));
        let (audit, writer) = AuditLog::open(&target, metrics.process.clone(), clock).unwrap();
        let options = options(audit, false);
        let (declared, receiver) = watch::channel(state);
        let (cancel, mut task) = (CancellationToken::new(), JoinSet::new());
        let (handle, stop, sim) = (metrics.controller.hub("sim"), cancel.clone(), hub.clone());
        task.spawn(async move {
            let _ = run(options, sim, receiver, handle, stop, fastrand::Rng::with_seed(7)).await;
        });
        task.spawn(writer.run(CancellationToken::new()));
        Self { hub: hub.clone(), declared, cancel, task, folder, metrics: registry }
    }

    /// Waits until the tag `a` has the value.
    async fn reaches(&self, value: &str) {
        let wanted = Value::parse_json(value).unwrap();
        self.wait(|twin| twin.tags.get("a") == Some(&wanted) && twin.tags.contains_key("geminid")).await;
    }

    async fn wait(&self, is_so: impl Fn(&geminid::twin::Twin) -> bool) {
        let look = async {
            let mut interval = tokio::time::interval(Duration::from_millis(5));
            while !self.hub.twin(&device("d1")).is_some_and(|twin| is_so(&twin)) {
                interval.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(40), look).await.expect("the loop converges");
    }

    /// Waits for a line with this outcome.
    async fn says(&self, outcome: &str) {
        self.says_text(&format!("\"outcome\":\"{outcome}\"")).await;
    }

    async fn says_text(&self, text: &str) {
        let look = async {
            let mut interval = tokio::time::interval(Duration::from_millis(5));
            while !std::fs::read_to_string(self.path()).unwrap().contains(text) {
                interval.tick().await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(40), look).await;
        told.unwrap_or_else(|_| panic!("no {text} in {}", std::fs::read_to_string(self.path()).unwrap()));
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("audit.log")
    }

    /// Ends it and answers the lines.
    async fn lines(mut self) -> Vec<Json> {
        self.cancel.cancel();
        while self.task.join_next().await.is_some() {}
        let lines = lines(&self.path());
        let written = self.metrics.gather().into_iter().find(|family| family.name() == "geminid_audit_lines_total");
        let counts: Vec<f64> =
            written.unwrap().get_metric().iter().map(|metric| metric.get_counter().get_value()).collect();
        let count = f64::from(u32::try_from(lines.len()).unwrap());
        assert!(counts.iter().any(|value| (value - count).abs() < 1e-9), "{counts:?} of {count}");
        lines
    }
}

fn lines(path: &Path) -> Vec<Json> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn outcomes(lines: &[Json]) -> Vec<String> {
    let shown = |line: &Json| {
        let action = line.get("action").and_then(Json::as_str).unwrap_or("-");
        format!("{action} {} {}", line["outcome"].as_str().unwrap(), line["writes"].as_array().unwrap().len())
    };
    lines.iter().map(shown).collect()
}

#[tokio::test]
async fn every_write_has_a_line_with_all_there_is_to_know_and_no_secret() {
    let hub = SimHub::new();
    let daemon = Daemon::start(&hub, declared(r#"{"a":1,"password":"hunter2-canary"}"#));
    daemon.reaches("1").await;
    daemon.declared.send(declared(r#"{"a":2,"password":"hunter3-canary"}"#)).unwrap();
    daemon.reaches("2").await;
    daemon.declared.send(declared(r#"{"password":"hunter3-canary"}"#)).unwrap();
    daemon.wait(|twin| !twin.tags.contains_key("a")).await;
    let removed = daemon.hub.twin(&device("d1")).unwrap().etag;
    daemon.says_text(&format!("\"etagAfter\":\"{removed}\"")).await;
    assert!(!std::fs::read_to_string(daemon.path()).unwrap().contains("canary"));
    let lines = daemon.lines().await;
    assert_eq!(outcomes(&lines), ["create applied 1", "patch applied 1", "patch applied 1", "patch applied 1"]);
    let line = &lines[2];
    for (field, expected) in [
        ("formatVersion", json!(1)),
        ("time", json!("2023-11-14T22:13:20.123Z")),
        ("hub", json!("sim")),
        ("twin", json!("d1")),
        ("owner", json!("demo")),
        ("revision", json!("r1")),
        ("lane", json!("git")),
        ("cause", json!("git")),
        ("seal", json!("written")),
        ("etagBefore", json!("AAAAAAAAAAI=")),
        ("etagAfter", json!("AAAAAAAAAAM=")),
    ] {
        assert_eq!(line[field], expected, "{field} of {line}");
    }
    assert!(line["versionAfter"].as_u64() > line["versionBefore"].as_u64(), "{line}");
    assert_eq!(line["changes"][0], json!({"path": "tags.a", "source": "fleet.yaml:7:3", "before": 1, "after": 2}));
    let hidden = &line["changes"][1];
    let shown = |side: &str| hidden[side].as_str().unwrap().to_owned();
    assert!(shown("before").starts_with("<hidden ") && shown("after").starts_with("<hidden "), "{hidden}");
    assert_ne!(shown("before"), shown("after"));
    let removal = &lines[3];
    assert_eq!(removal["changes"], json!([{"path": "tags.a", "source": null, "before": 2, "after": null}]));
    assert_eq!((&removal["justifiedBy"]["v"], removal["justifiedBy"]["o"].is_array()), (&json!(1), true), "{removal}");
    assert!(lines[..3].iter().all(|line| line.get("justifiedBy").is_none()), "only removals need a reason");
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_found_out() {
    let lost = || HubError::Transport { message: "connection reset".to_owned(), timeout: false };
    for (operation, fault, expected) in [
        (SimOperation::Patch, Fault::LostAnswer, vec!["create applied 1", "patch unknown 1", "- landed 1"]),
        (
            SimOperation::Patch,
            Fault::ErrorBefore(lost()),
            vec!["create applied 1", "patch unknown 1", "- not_landed 1", "patch applied 1"],
        ),
        (SimOperation::Create, Fault::LostAnswer, vec!["create unknown 1", "- landed 1", "patch applied 1"]),
        (
            SimOperation::Create,
            Fault::ErrorBefore(lost()),
            vec!["create unknown 1", "- not_landed 1", "create applied 1", "patch applied 1"],
        ),
    ] {
        let hub = SimHub::new();
        hub.inject(operation, fault);
        let daemon = Daemon::start(&hub, declared(r#"{"a":1}"#));
        daemon.reaches("1").await;
        daemon.says(expected.last().unwrap().split(' ').nth(1).unwrap()).await;
        let lines = daemon.lines().await;
        assert_eq!(outcomes(&lines), expected);
        let unknown = lines.iter().position(|line| line["outcome"] == "unknown").unwrap();
        assert_eq!(lines[unknown]["writes"], lines[unknown + 1]["writes"], "the second line names the first's write");
        assert!(!lines[unknown]["error"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_lost_write_that_landed_before_a_rival_wrote_is_told_by_its_seal() {
    let hub = SimHub::new();
    hub.create(&device("d1")).unwrap();
    hub.inject(SimOperation::Patch, Fault::LostAnswer);
    let daemon = Daemon::start(&hub, declared(r#"{"a":1}"#));
    daemon.wait(|twin| twin.tags.contains_key("geminid")).await;
    let mut patch = MergePatch::default();
    patch.set(Section::Tags, &["a".to_owned()], Value::from(9));
    hub.edit(&device("d1"), &patch).unwrap();
    daemon.reaches("1").await;
    daemon.says("applied").await;
    let lines = daemon.lines().await;
    assert_eq!(outcomes(&lines), ["patch unknown 1", "- landed 1", "patch applied 1"]);
}

#[tokio::test]
async fn what_the_hub_refuses_is_refused_and_a_conflict_is_no_write() {
    let hub = SimHub::new();
    let refused = HubError::Rejected { status: 400, code: "ArgumentInvalid".to_owned(), message: "no".to_owned() };
    hub.inject(SimOperation::Patch, Fault::ErrorBefore(HubError::PreconditionFailed));
    hub.inject(SimOperation::Patch, Fault::ErrorBefore(refused));
    let daemon = Daemon::start(&hub, declared(r#"{"a":1}"#));
    daemon.says("refused").await;
    let lines = daemon.lines().await;
    assert_eq!(outcomes(&lines), ["create applied 1", "patch refused 1"]);
}

/// Does `work` with an audit log in a file and answers what it gave, and the lines.
async fn recording<T>(work: impl AsyncFnOnce(AuditLog, Metrics) -> T) -> (T, Vec<Json>) {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::register(&prometheus::Registry::new(), &["sim"]).unwrap();
    let path = folder.path().join("audit.log");
    let (audit, writer) = AuditLog::open(&AuditTarget::File(path.clone()), metrics.process.clone(), clock).unwrap();
    let (ended, mut writing) = (CancellationToken::new(), JoinSet::new());
    writing.spawn(writer.run(ended.clone()));
    let result = work(audit, metrics).await;
    ended.cancel();
    while writing.join_next().await.is_some() {}
    (result, lines(&path))
}

/// One pass over `state`, as `apply --prune` makes it.
async fn pass(hub: &SimHub, state: &Arc<DeclaredState>) -> Vec<Json> {
    let work = async |audit, metrics: Metrics| {
        let (_sender, receiver) = watch::channel(Arc::clone(state));
        let (handle, cancel) = (metrics.controller.hub("sim"), CancellationToken::new());
        run(options(audit, true), hub.clone(), receiver, handle, cancel, fastrand::Rng::with_seed(7)).await
    };
    let (ended, lines) = recording(work).await;
    assert_eq!(ended.error, None);
    lines
}

/// What `plan --out` keeps.
async fn kept(hub: &SimHub, state: &Arc<DeclaredState>) -> PlannedOrder {
    let filter = TwinFilter::default();
    let plans = survey(Arc::new(hub.clone()), &scope(), state, &filter, None, 0).await.unwrap();
    let write = |(twin, surveyed): (&TwinRef, &Surveyed)| match surveyed {
        Surveyed::Plan(planned) => PlannedWrite::of(twin, planned, false),
        Surveyed::Create(planned) => PlannedWrite::of(twin, planned, true),
        Surveyed::Missing | Surveyed::Failed(_) => None,
    };
    let writes = plans.iter().filter_map(write).collect();
    PlannedOrder { scope: scope(), revision: state.revision.clone(), writes, state: Arc::default(), unix_now: 0 }
}

/// What `apply FILE` does.
async fn apply_kept(hub: &SimHub, order: PlannedOrder) -> (BTreeMap<TwinRef, Written>, Vec<Json>) {
    let work = async |log, _| {
        let recording = Recording { hub: "sim".to_owned(), log, wall_clock: clock };
        apply_planned(Arc::new(hub.clone()), order, recording, |_, _| {}, &CancellationToken::new()).await
    };
    recording(work).await
}

/// A fleet of which one twin is new, one was edited in Git, one changed outside, one has lost its manifest, one needs
/// its seal alone and one is in sync; and what is declared of it.
async fn changed_fleet() -> (SimHub, Arc<DeclaredState>) {
    let hub = SimHub::new();
    let secret = r#"{"a":1,"password":"hunter2-canary"}"#;
    let before = [
        ("drifted", secret),
        ("edited", r#"{"a":1}"#),
        ("gone", secret),
        ("less", r#"{"a":1,"b":{"c":2},"s":{"t":1}}"#),
        ("same", secret),
    ];
    pass(&hub, &fleet(&before)).await;
    hub.create(&device("unsealed")).unwrap();
    let edit = |id: &str, tags: &str| hub.edit(&device(id), &MergePatch { tags: Some(object(tags)), desired: None });
    edit("unsealed", r#"{"a":1}"#).unwrap();
    edit("drifted", r#"{"password":"hunter3-canary","by":"hand"}"#).unwrap();
    let after = [
        ("new", r#"{"password":"hunter2-canary","deep":{"er":[1,{"x":2.5}]}}"#),
        ("edited", r#"{"a":9}"#),
        ("less", r#"{"a":1,"s":3}"#),
        ("drifted", secret),
        ("same", secret),
        ("unsealed", r#"{"a":1}"#),
    ];
    (hub, fleet(&after))
}

#[tokio::test]
async fn a_kept_plan_leaves_the_lines_that_a_pass_leaves_for_the_same_changes() {
    // A pass that has not judged its first sweep yet keeps a removal back and seals that; so the removal has a line of its
    // own, on a later etag.
    let comparable = |mut lines: Vec<Json>| {
        lines.retain(|line| line["twin"] != "less" || line.get("changes").is_some());
        for line in &mut lines {
            let line = line.as_object_mut().unwrap();
            assert_eq!(line.remove("writes").unwrap().as_array().unwrap().len(), 1, "{line:?}");
            if line["twin"] == "less" {
                for field in ["etagBefore", "etagAfter", "versionBefore", "versionAfter", "justifiedBy"] {
                    assert!(line.remove(field).is_some(), "{field}");
                }
            }
        }
        lines.sort_by_key(|line| (line["twin"].to_string(), line["action"].to_string()));
        lines
    };
    let (hub, state) = changed_fleet().await;
    let by_pass = comparable(pass(&hub, &state).await);
    let (hub, state) = changed_fleet().await;
    let order = kept(&hub, &state).await;
    let (results, lines) = apply_kept(&hub, order.clone()).await;
    assert!(results.len() == 6 && results.values().all(|written| *written == Written::Applied), "{results:?}");
    let by_plan = comparable(lines);
    assert_eq!(by_plan, by_pass);
    assert!(!format!("{by_plan:?}").contains("canary"));
    assert_eq!((&by_plan[0]["cause"], &by_plan[1]["cause"]), (&json!("drift"), &json!("git")));
    assert!(by_plan[2]["justifiedBy"]["o"].is_array(), "{}", by_plan[2]);
    let actions: Vec<&str> = by_plan.iter().map(|line| line["seal"].as_str().unwrap_or("create")).collect();
    assert_eq!(actions, ["written", "written", "removed", "written", "create", "written", "written"], "{by_plan:?}");
    let (results, lines) = apply_kept(&hub, order).await;
    assert!(results.values().all(|written| *written == Written::Before), "{results:?}");
    assert_eq!(lines, [] as [Json; 0], "what was applied before is not written again");
}

#[tokio::test]
async fn a_kept_plan_finds_out_what_became_of_a_lost_answer() {
    let lost = || HubError::Transport { message: "connection reset".to_owned(), timeout: false };
    for (operation, fault, expected, applied) in [
        (SimOperation::Patch, Fault::LostAnswer, vec!["create applied 1", "patch unknown 1", "- landed 1"], true),
        (
            SimOperation::Patch,
            Fault::ErrorBefore(lost()),
            vec!["create applied 1", "patch unknown 1", "- not_landed 1"],
            false,
        ),
        (SimOperation::Create, Fault::LostAnswer, vec!["create unknown 1", "- landed 1", "patch applied 1"], true),
        (SimOperation::Create, Fault::ErrorBefore(lost()), vec!["create unknown 1", "- not_landed 1"], false),
        (
            SimOperation::Patch,
            Fault::ErrorBefore(HubError::PreconditionFailed),
            vec!["create applied 1", "patch applied 1"],
            true,
        ),
    ] {
        let hub = SimHub::new();
        let order = kept(&hub, &declared(r#"{"a":1}"#)).await;
        hub.inject(operation, fault);
        let (results, lines) = apply_kept(&hub, order.clone()).await;
        assert_eq!(outcomes(&lines), expected);
        let written = results.values().next().unwrap();
        assert_eq!(*written == Written::Applied, applied, "{written:?}");
        assert!(applied || matches!(written, Written::Failed(_)), "{written:?}");
        let (results, _) = apply_kept(&hub, order).await;
        let again = if applied { Written::Before } else { Written::Applied };
        assert_eq!(results.into_values().collect::<Vec<_>>(), [again], "the same once more ends it");
    }
}

#[tokio::test]
async fn a_kept_plan_leaves_alone_what_is_suspended_or_was_written_since() {
    let (hub, state) = changed_fleet().await;
    let order = kept(&hub, &state).await;
    let writes_before = hub.applied().len();
    let mut now = DeclaredState::clone(&state);
    let suspend = |until| Suspend { reason: "bench test".to_owned(), until };
    for (id, until) in [("edited", None), ("new", Some(100)), ("drifted", Some(10))] {
        let until = until.map(|until| (until, "then".into()));
        let manifest = TwinManifest {
            suspend: Some(suspend(until).into()),
            ..TwinManifest::empty(FileSpan { file: "fleet.yaml".into(), line: 7, column: 3 })
        };
        now.twins.insert(TwinRef::device(device(id)), Arc::new(manifest));
    }
    let sealed = object(r#"{"geminid":{"demo":{"s":"at run time"}}}"#);
    hub.edit(&device("unsealed"), &MergePatch { tags: Some(object(r#"{"by":"hand"}"#)), desired: None }).unwrap();
    hub.edit(&device("gone"), &MergePatch { tags: Some(sealed), desired: None }).unwrap();
    let (results, lines) = apply_kept(&hub, PlannedOrder { state: Arc::new(now), unix_now: 50, ..order }).await;
    let words: Vec<String> = results.iter().map(|(twin, written)| format!("{twin} {}", written.as_str())).collect();
    assert_eq!(
        words,
        ["drifted applied", "edited held", "gone held", "less applied", "new held", "unsealed refused"],
        "{results:?}"
    );
    let held = |id: &str| {
        let written = &results[&TwinRef::device(device(id))];
        let Written::Held(HeldReason::Suspended(suspend)) = written else { panic!("{id}: {written:?}") };
        suspend.reason.clone()
    };
    assert_eq!((held("edited").as_str(), held("gone").as_str()), ("bench test", "at run time"));
    assert_eq!((lines.len(), hub.applied().len()), (2, writes_before + 2), "{lines:?}");
    assert!(hub.twin(&device("new")).is_none(), "what is suspended is not registered");
}
