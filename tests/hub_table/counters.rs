//! `iot-hub.md` 1.3, row by row.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::rows::Rows;
use super::{Hub, both, in_desired, in_tags};

/// What moves counters, or does not.
enum Step {
    /// A service writes the twin: method and body.
    Twin(&'static str, String),
    /// The device or module reports.
    Report(&'static str),
    /// A configuration is evaluated.
    Configuration,
    /// The identity is replaced.
    Identity(&'static str),
    /// A device or module connects, sends telemetry and goes.
    Connection,
}

/// How far each counter moves, in the order of the columns; `None` where the table is unsure. Last, whether the
/// identity's etag is new.
type Moves = ([Option<u64>; 4], bool);

const fn moved(etag: u64, version: u64, desired: u64, reported: u64) -> Moves {
    ([Some(etag), Some(version), Some(desired), Some(reported)], false)
}

fn cases() -> Vec<(&'static str, Step, Moves)> {
    let patch = |body: String| Step::Twin("PATCH", body);
    let put = |body: String| Step::Twin("PUT", body);
    let identity = ([Some(0), None, Some(0), Some(0)], true);
    let keys = r#"{"authentication":{"type":"sas","symmetricKey":{
        "primaryKey":"AAAAAAAAAAAAAAAAAAAAAA==","secondaryKey":"AQEBAQEBAQEBAQEBAQEBAQ=="}}}"#;
    vec![
        ("PATCH/PUT tags only", patch(in_tags(r#"{"a":1}"#)), moved(1, 1, 0, 0)),
        ("PATCH/PUT tags only", patch(in_tags(r#"{"a":null}"#)), moved(1, 1, 0, 0)),
        ("PATCH/PUT tags only", put(in_tags(r#"{"a":2}"#)), moved(1, 1, 0, 0)),
        ("PATCH desired only", patch(in_desired(r#"{"a":1,"b":{"c":1}}"#)), moved(1, 1, 1, 0)),
        ("PATCH desired only", patch(in_desired(r#"{"b":{"c":null}}"#)), moved(1, 1, 1, 0)),
        ("PATCH desired only", patch(in_desired(r#"{"never":null}"#)), moved(1, 1, 1, 0)),
        ("PATCH tags + desired together", patch(both(r#"{"a":2}"#)), moved(1, 1, 1, 0)),
        ("write identical values", patch(in_tags(r#"{"a":2}"#)), moved(1, 1, 0, 0)),
        ("write identical values", patch(both(r#"{"a":2}"#)), moved(1, 1, 1, 0)),
        ("write identical values", put(both(r#"{"a":2}"#)), moved(1, 1, 1, 0)),
        ("device writes reported", Step::Report(r#"{"r":1}"#), moved(0, 1, 0, 1)),
        ("device writes reported", Step::Report(r#"{"never":null}"#), moved(0, 1, 0, 1)),
        ("write identical values", Step::Report(r#"{"r":1}"#), moved(0, 1, 0, 1)),
        ("ADM writes desired", Step::Configuration, moved(1, 1, 1, 0)),
        ("identity PUT (status, keys)", Step::Identity(r#"{"status":"enabled","statusReason":"bench"}"#), identity),
        ("identity PUT (status, keys)", Step::Identity(keys), identity),
        ("connect / disconnect / telemetry", Step::Connection, moved(0, 0, 0, 0)),
    ]
}

/// `etag version desired.$version reported.$version`, and the identity's etag.
async fn counters(hub: &Hub, kind: &str) -> ([u64; 4], String) {
    let twin = hub.send("GET", &format!("/twins/d{kind}"), None, "").await;
    let number = |keys: &[&str]| twin.at(keys).parse::<u64>().unwrap();
    let etag = BASE64.decode(twin.at(&["etag"]).trim_matches('"')).unwrap();
    let etag = u64::from_be_bytes(etag.try_into().unwrap());
    let (desired, reported) = (["properties", "desired", "$version"], ["properties", "reported", "$version"]);
    ([etag, number(&["version"]), number(&desired), number(&reported)], twin.at(&["deviceEtag"]))
}

async fn act(hub: &Hub, kind: &str, step: &Step) {
    let twin = Hub::twin_ref(kind);
    match step {
        Step::Twin(method, body) => {
            assert_eq!(hub.send(method, &format!("/twins/d{kind}"), None, body).await.status, 200, "{body}");
        }
        Step::Report(json) => hub.report(&twin, json).await.unwrap(),
        Step::Identity(body) => {
            assert_eq!(hub.send("PUT", &format!("/devices/d{kind}"), Some("*"), body).await.status, 200, "{body}");
        }
        Step::Configuration => {
            let shape = if kind.is_empty() { "deviceContent" } else { "moduleContent" };
            let body = format!(r#"{{"content":{{"{shape}":{{"properties.desired.x":1}}}},"targetCondition":"*"}}"#);
            assert_eq!(hub.send("PUT", "/configurations/c", None, &body).await.status, 200);
            hub.evaluate().await;
            let after = hub.send("GET", &format!("/twins/d{kind}"), None, "").await;
            assert_eq!(after.at(&["properties", "desired", "$metadata", "x", "$lastUpdatedBy"]), "\"c\"");
        }
        Step::Connection => {
            let before = counters(hub, kind).await;
            let generation = hub.handle.record(&twin).await.unwrap().identity.generation;
            let attached = hub.handle.attach(&twin, generation, true).await.unwrap();
            assert_eq!(counters(hub, kind).await, before, "connect");
            hub.handle.note_activity(&attached);
            assert_eq!(counters(hub, kind).await, before, "telemetry");
            hub.handle.detach(&attached);
        }
    }
}

#[tokio::test]
async fn section_1_3_each_write_moves_the_counters_of_its_row() {
    let mut rows = Rows::of(
        "1.3",
        &[
            "create",
            "PATCH/PUT tags only",
            "PATCH desired only",
            "PATCH tags + desired together",
            "device writes reported",
            "ADM writes desired",
            "write identical values",
            "identity PUT (status, keys)",
            "connect / disconnect / telemetry",
            "delete + recreate device",
            "bulk create with desired",
        ],
    );
    for kind in ["", "/modules/m"] {
        let hub = Hub::with_device_and_module().await;
        let fresh = counters(&hub, kind).await;
        rows.walk("create");
        assert_eq!(fresh.0, [1, 2, 1, 1], "1.3 create {kind}");
        for (number, (row, step, (moves, new_identity))) in cases().into_iter().enumerate() {
            rows.walk(row);
            let before = counters(&hub, kind).await;
            act(&hub, kind, &step).await;
            let after = counters(&hub, kind).await;
            for ((before, after), moved) in before.0.iter().zip(after.0).zip(moves) {
                assert!(moved.is_none_or(|moved| after == before + moved), "1.3 {row} (case {number}) {kind}: {after}");
            }
            assert_eq!(after.1 != before.1, new_identity, "1.3 {row} (case {number}) {kind}: deviceEtag");
        }
        let before = counters(&hub, kind).await;
        rows.walk("delete + recreate device");
        assert_eq!(hub.send("DELETE", "/devices/d", Some("*"), "").await.status, 204);
        hub.send("DELETE", "/configurations/c", None, "").await;
        hub.register().await;
        let again = counters(&hub, kind).await;
        assert_eq!((again.0, again.1 != before.1), (fresh.0, true), "1.3 delete + recreate device {kind}");
        rows.walk("bulk create with desired");
        let module = if kind.is_empty() { "" } else { r#""moduleId":"m","# };
        hub.send("DELETE", &format!("/devices/d{kind}"), Some("*"), "").await;
        let bulk = format!(r#"[{{"id":"d",{module}"importMode":"create","properties":{{"desired":{{"a":1}}}}}}]"#);
        assert_eq!(hub.send("POST", "/devices", None, &bulk).await.status, 200);
        let created = counters(&hub, kind).await;
        assert_eq!((created.0, created.1 != again.1), (fresh.0, true), "1.3 bulk create with desired {kind}");
    }
    rows.finish();
}
