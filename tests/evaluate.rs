//! `evaluate: sweep` against `evaluate: hub`: one manifest, one hub, two ways to the same series.

#![expect(clippy::unwrap_used, reason = "a test that cannot get on fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use geminid::controller::{AuditLog, Inputs, Journal, Options, observe};
use geminid::emulator::{Fault, SimHub, SimOperation};
use geminid::exporter::{self, Published, run_once, wanted_columns};
use geminid::hub::{AlongColumns, HubError, Pages, ReadTwins as _, SweepAlong, WriteTwins as _, column_name};
use geminid::manifest::{LastGood, Rules, Seals, lower, parse_file_within};
use geminid::metrics::Metrics;
use geminid::plan::{DeclaredState, Mode, Owner, Policy, ProfileTarget, SealScope, sweep_query};
use geminid::series::{Dropped, Evaluate, LocalRun, Piece, QuerySpec, join, render};
use geminid::twin::{DeviceId, MergePatch, ModuleId, Object, TwinRef, Value};
use proptest::prelude::*;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a series or a run came to: the text and what was left out, or the reason why there is none.
type Outcome = Result<(String, BTreeMap<Dropped, u64>), String>;

/// Values that tags and properties hold.
const VALUES: [&str; 14] = [
    "null",
    r#""A""#,
    r#""b""#,
    r#""""#,
    r#""55%""#,
    r#""7""#,
    "0",
    "1",
    "1.0",
    "2.5",
    "-3",
    "true",
    r#"{"x":"A"}"#,
    r#"["A",1]"#,
];

/// Conditions that a query may put beside the one about the seal.
const CONDITIONS: [&str; 17] = [
    "tags.p = 'A'",
    "tags.p != 'A'",
    "tags.p IN ['A', 1, true]",
    "tags.p NIN ['b']",
    "NOT (tags.p = 'b' OR tags.p = 1)",
    "STARTSWITH(tags.p, 'A')",
    "IS_DEFINED(tags.o)",
    "NOT IS_DEFINED(properties.desired.d)",
    "tags.o.x = 'A'",
    "ARRAY_CONTAINS(tags.o, 'A')",
    "properties.reported.f > 1",
    "properties.reported.f + 1 >= 2.5",
    "properties.desired.d <= properties.reported.f",
    "deviceId != 'd3'",
    "DeviceID < 'd7'",
    "status = 'enabled' AND connectionState = 'Disconnected'",
    "properties.desired.$version > 1",
];

/// Queries with the metrics made of them; `WHERE` and what follows are put in place of `@`.
const QUERIES: [(&str, &str); 8] = [
    (
        "SELECT * FROM devices@",
        "{labels: {p: {column: tags.p, default: none}, x: {column: tags.o.x}}, value: {count: true}} \
         {labels: {p: {column: tags.p}}, value: {column: properties.reported.f, reduce: sum}} \
         {type: info, labels: {device: {column: deviceId}, f: {column: properties.reported.f}}}",
    ),
    (
        "SELECT deviceId AS d, tags.p AS p, properties.reported.f AS n, tags.o AS o FROM devices@",
        "{labels: {p: {column: p, default: none}}, value: {column: n, reduce: max}} \
         {labels: {d: {column: d}}, value: {column: n, parse: percent, onMissing: zero}} \
         {labels: {x: {column: o.x}}, value: {count: true}}",
    ),
    (
        "SELECT properties.reported.f, tags.o.x AS x FROM devices@",
        "{labels: {x: {column: x}}, value: {column: f, onInvalid: fail, reduce: avg}}",
    ),
    (
        "SELECT deviceId AS d, tags.p AS p FROM devices@",
        "{type: stateset, labels: {d: {column: d}}, value: {column: p}, states: [A, b]}",
    ),
    (
        "SELECT COUNT() AS n, SUM(properties.reported.f) AS s FROM devices@",
        "{value: {column: n}} {value: {column: s, onMissing: zero}}",
    ),
    (
        "SELECT tags.p AS p, COUNT() AS n, AVG(properties.reported.f) AS a, MIN(properties.desired.d) AS l \
         FROM devices@ GROUP BY tags.p",
        "{labels: {p: {column: p, default: none}}, value: {column: n, reduce: sum}} \
         {labels: {p: {column: p, default: none}}, value: {column: a, reduce: min}} \
         {labels: {p: {column: p, default: none}}, value: {column: l, reduce: max}}",
    ),
    ("SELECT COUNT() AS n FROM devices@ GROUP BY tags.p, tags.o", "{value: {column: n, reduce: sum}}"),
    (
        "SELECT deviceId AS d, moduleId AS m, tags.p AS p FROM devices.modules@",
        "{labels: {m: {column: m}, p: {column: p}}, value: {count: true}}",
    ),
];

fn owner() -> Owner {
    Owner::new("fleet-a").unwrap()
}

fn scope() -> SealScope {
    SealScope::new(owner(), "sim.azure-devices.net")
}

fn rules() -> Rules {
    Rules { seals: Seals::Owner(owner().to_string()), ..Rules::default() }
}

/// The manifest of a query, and what loading gives of it.
fn spec(query: &str, metrics: &str, more: &str) -> QuerySpec {
    let metrics: String = metrics
        .split_inclusive("}} ")
        .flat_map(|part| part.split_inclusive("b]} "))
        .enumerate()
        .map(|(index, metric)| {
            let kind = if metric.contains("type: info") { "_info" } else { "" };
            format!("  - {{name: twinquery_{index}{kind}, help: H., {}\n", metric.trim().trim_start_matches('{'))
        })
        .collect();
    let text = format!(
        "apiVersion: geminid.dev/v1alpha1\nkind: TwinQuery\nmetadata: {{name: q}}\nspec:\n  evaluate: sweep\n{more}  \
         query: |\n    {query}\n  metrics:\n{metrics}"
    );
    let parsed = Arc::new(parse_file_within("q.yaml", &text, &rules()));
    let lowered = lower(&BTreeMap::from([("q.yaml".into(), parsed)]), &LastGood::default());
    let errors: Vec<String> =
        lowered.diagnostics.iter().filter(|found| found.is_error()).map(ToString::to_string).collect();
    assert_eq!(errors, Vec::<String>::new(), "{text}");
    lowered.queries.into_iter().next().unwrap().spec
}

/// What the hub answers to it.
async fn asked(hub: &SimHub, spec: &QuerySpec) -> Outcome {
    let trial = run_once("prod", hub, spec, &mut fastrand::Rng::with_seed(7)).await;
    trial.result.map(|result| (join(&result.families), result.dropped)).map_err(|(reason, _)| reason.to_owned())
}

/// What the rows of a sweep say to it.
async fn swept(hub: &SimHub, spec: &QuerySpec) -> Outcome {
    let wanted = wanted_columns(std::slice::from_ref(spec));
    let (target, columns) = match (&wanted.devices, &wanted.modules) {
        (Some(columns), None) => (ProfileTarget::Devices, columns),
        (None, Some(columns)) => (ProfileTarget::Modules, columns),
        (Some(_), Some(_)) | (None, None) => panic!("one query wants one collection"),
    };
    let named: Vec<(String, String)> =
        columns.iter().enumerate().map(|(index, column)| (column.clone(), column_name(index))).collect();
    let Evaluate::Sweep { query, .. } = &spec.evaluate else { panic!("{spec:?}") };
    let run = LocalRun::new(Arc::new(spec.clone()), query, &named.iter().cloned().collect());
    let mut run = run.map_err(|failure| failure.category().to_owned())?.unwrap();
    let text = sweep_query(&scope(), target, &named);
    let mut pages = Pages::new(hub, &text, 7, 100);
    while let Some(page) = pages.next().await {
        page.unwrap().iter().for_each(|row| run.push(row));
    }
    let mapped = run.finish().map_err(|failure| failure.category().to_owned())?;
    let families: Vec<_> = mapped.families.iter().map(|family| render(family, "prod")).collect();
    Ok((join(&families), mapped.dropped))
}

/// One twin: whether we sealed it, whether somebody else did, and the values of `p`, `o`, `d` and `f`.
type Description = (bool, bool, [usize; 4]);

async fn fleet(twins: &[Description]) -> SimHub {
    let hub = SimHub::new();
    for (index, (ours, theirs, [p, o, d, f])) in twins.iter().enumerate() {
        let device = DeviceId::new(&format!("d{index}")).unwrap();
        hub.create(&device).unwrap();
        hub.create_module(&device, &ModuleId::new("m").unwrap()).unwrap();
        let seal =
            |name: &str, there: bool| if there { format!(r#""{name}":{{"v":1,"i":"x"}},"#) } else { String::new() };
        let seals = format!("{}{}", seal("fleet-a", *ours), seal("other", *theirs));
        let tags =
            format!(r#"{{"p":{},"o":{},"geminid":{{{}}}}}"#, VALUES[*p], VALUES[*o], seals.trim_end_matches(','));
        let patch =
            MergePatch { tags: Some(object(&tags)), desired: Some(object(&format!(r#"{{"d":{}}}"#, VALUES[*d]))) };
        hub.edit(&device, &patch).unwrap();
        hub.report(&device, &object(&format!(r#"{{"f":{}}}"#, VALUES[*f]))).unwrap();
        let module = TwinRef::module(device, ModuleId::new("m").unwrap());
        let etag = hub.get_twin(&module).await.unwrap().etag;
        hub.patch_twin(&module, &patch, &etag).await.unwrap();
    }
    hub
}

fn object(json: &str) -> Object {
    Value::parse_json(json).unwrap().as_object().unwrap().clone()
}

/// Conditions in every order, with the one about the seal somewhere in between.
fn condition() -> impl Strategy<Value = String> {
    let one = prop::sample::select(CONDITIONS.to_vec());
    let either = (one.clone(), one.clone()).prop_map(|(one, other)| format!("({one} OR {other})"));
    let part = prop_oneof![one.prop_map(str::to_owned), either];
    (prop::collection::vec(part, 0..3), 0..3_usize).prop_map(|(mut parts, place)| {
        parts.insert(place.min(parts.len()), "IS_DEFINED(tags.geminid.[[fleet-a]])".to_owned());
        format!(" WHERE {}", parts.join(" AND "))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sweep_and_the_hub_give_the_same_series(
        twins in prop::collection::vec((prop::bool::weighted(0.7), any::<bool>(), prop::array::uniform4(0..VALUES.len())), 0..30),
        condition in condition(),
        zeros in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let hub = fleet(&twins).await;
            for (query, metrics) in QUERIES {
                let query = query.replace('@', &condition);
                let more = if zeros { "  onEmpty: fail\n" } else { "" };
                let spec = spec(&query, metrics, more);
                let (asked, swept) = (asked(&hub, &spec).await, swept(&hub, &spec).await);
                assert_eq!(asked, swept, "{query}");
            }
        });
    }
}

const COUNT: &str = "SELECT COUNT() AS n FROM devices WHERE IS_DEFINED(tags.geminid.[[fleet-a]]) AND tags.p = 'A'";
const SERIES: &str = r#"twinquery_0{hub="sim"}"#;

/// A loop that only looks, sweeping every ten minutes, and an exporter that reads along.
struct Daemon {
    queries: watch::Sender<Arc<Vec<QuerySpec>>>,
    wanted: watch::Sender<Arc<AlongColumns>>,
    published: Published,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Daemon {
    fn start(hub: &SimHub, specs: &[QuerySpec]) -> Self {
        let metrics = Metrics::register(&prometheus::Registry::new(), &["sim"]).unwrap();
        let (wanted, wanted_receiver) = watch::channel(Arc::new(wanted_columns(specs)));
        let (along, read_along) = SweepAlong::line(wanted_receiver);
        let (queries, queries_receiver) = watch::channel(Arc::new(specs.to_vec()));
        let (published, cancel) = (Published::default(), CancellationToken::new());
        let options = Options {
            hub: "sim".to_owned(),
            scope: scope(),
            sweep: Duration::from_secs(600),
            verify: Duration::from_secs(24 * 3600),
            policy: Policy { mode: Mode::Observe, ..Policy::default() },
            workers: 2,
            single_pass: false,
            first_contact: CancellationToken::new(),
            audit: AuditLog::off(),
            journal: Journal::default(),
            wall_clock: || SystemTime::UNIX_EPOCH,
        };
        let (_declared, declared) = watch::channel(Arc::new(DeclaredState::default()));
        let inputs = Inputs { declared, commands: None, along: Some(along) };
        let (token, handle, rng) = (cancel.clone(), metrics.controller.hub("sim"), fastrand::Rng::with_seed(7));
        let mut tasks = JoinSet::new();
        let looking = observe(options, hub.clone(), inputs, handle, token.clone(), rng.clone());
        tasks.spawn(async move { drop(looking.await) });
        let inputs = exporter::Inputs { queries: queries_receiver, along: Some(read_along) };
        let process = metrics.process.clone();
        tasks.spawn(exporter::run("sim".to_owned(), hub.clone(), inputs, published.clone(), process, token, rng));
        Self { queries, wanted, published, cancel, tasks }
    }

    fn declare(&self, specs: &[QuerySpec]) {
        self.queries.send_replace(Arc::new(specs.to_vec()));
        self.wanted.send_replace(Arc::new(wanted_columns(specs)));
    }

    /// Lets the paused clock run.
    async fn pass(&self, minutes: u64) {
        tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    }

    fn value(&self, series: &str) -> Option<f64> {
        let exposition = self.published.exposition();
        let text: String = exposition.pieces.iter().map(Piece::as_str).collect();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    fn health(&self, name: &str, query: &str) -> Option<f64> {
        self.value(&format!(r#"geminid_query_{name}{{hub="sim",query="{query}"}}"#))
    }

    async fn stop(mut self) {
        self.cancel.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_answered_by_sweeps_asks_the_hub_nothing_and_follows_them() {
    let a = 1;
    let sealed = (true, false, [a, 0, 0, 0]);
    let hub = fleet(&[sealed, sealed, (false, false, [a, 0, 0, 0])]).await;
    let spec = spec(COUNT, "{value: {column: n}}", "");
    let without = Daemon::start(&hub, &[]);
    let before = hub.calls();
    without.pass(25).await;
    let alone = hub.calls().queries - before.queries;
    without.stop().await;
    let before = hub.calls();
    let daemon = Daemon::start(&hub, std::slice::from_ref(&spec));
    daemon.pass(5).await;
    assert_eq!(daemon.value(SERIES), Some(2.0), "the third carries no seal");
    assert_eq!(daemon.health("up", "q"), Some(1.0));
    assert_eq!(daemon.health("last_pages", "q"), Some(0.0));
    assert_eq!(daemon.health("interval_seconds", "q"), Some(600.0));
    assert_eq!(daemon.health("stale_after_seconds", "q"), Some(1860.0));
    hub.edit(&DeviceId::new("d0").unwrap(), &MergePatch { tags: Some(object(r#"{"p":"b"}"#)), desired: None }).unwrap();
    assert_eq!(daemon.value(SERIES), Some(2.0), "nobody has looked since");
    daemon.pass(20).await;
    assert_eq!(daemon.value(SERIES), Some(1.0));
    assert_eq!(hub.calls().queries - before.queries, alone, "as many as without the query");
    // A changed query starts anew, with the next sweep.
    let mut changed = spec.clone();
    changed.metrics[0].help = "Other words.".to_owned();
    daemon.declare(&[changed]);
    daemon.pass(1).await;
    assert_eq!(daemon.value(SERIES), None);
    daemon.pass(10).await;
    assert_eq!(daemon.value(SERIES), Some(1.0));
    daemon.stop().await;
}

#[tokio::test(start_paused = true)]
async fn sweeps_that_fail_leave_the_last_answer_until_it_is_stale() {
    let hub = fleet(&[(true, false, [1, 0, 0, 0])]).await;
    let spec = spec(COUNT, "{value: {column: n}}", "  staleAfter: 25m\n");
    let daemon = Daemon::start(&hub, &[spec]);
    daemon.pass(5).await;
    assert_eq!(daemon.value(SERIES), Some(1.0));
    for _ in 0..100 {
        let gone = HubError::Transport { message: "gone".to_owned(), timeout: false };
        hub.inject(SimOperation::Query, Fault::ErrorBefore(gone));
    }
    daemon.pass(12).await;
    assert_eq!((daemon.health("up", "q"), daemon.value(SERIES)), (Some(0.0), Some(1.0)));
    let network = r#"geminid_query_failures_total{hub="sim",query="q",reason="network"}"#;
    assert!(daemon.value(network).unwrap() >= 1.0);
    daemon.pass(15).await;
    assert_eq!(daemon.value(SERIES), None, "withdrawn, not zero");
    daemon.stop().await;
}
