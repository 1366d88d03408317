//! The tables of `iot-hub.md` 1.3, 2.3, 2.4 and 4, row by row, and what 2.2 has and the hub has not, through the hub's HTTP door. Rows that the reference
//! marks UNSURE are left out. Requests carry bearer tokens of a test issuer, whose roles (7.4) are tried too.

#![expect(clippy::unwrap_used, reason = "a test unwraps, and so do its helpers")]

use axum::body::Body;
use axum::http::Request;
use geminid::emulator::auth::{Gate, Policies};
use geminid::emulator::bearer::{Role, mint};
use geminid::emulator::http::router;
use geminid::emulator::identity::SharedKey;
use geminid::emulator::mqtt::presence::Told;
use geminid::emulator::{HubHandle, ServiceOptions};
use geminid::twin::{DeviceId, Object, TwinRef, Value};
use jiff::Timestamp;
use tower::ServiceExt;

const NOW: i64 = 1_700_000_000;

struct Hub {
    handle: HubHandle,
    router: axum::Router,
    issuer: SharedKey,
}

struct Answer {
    status: u16,
    code: String,
    body: Value,
}

impl Answer {
    fn at(&self, keys: &[&str]) -> String {
        self.body.get(keys.iter().copied()).map(ToString::to_string).unwrap_or_default()
    }
}

impl Hub {
    fn new() -> Self {
        let mut rng = fastrand::Rng::with_seed(1);
        let policies = Policies::generate(&mut |bytes| rng.fill(bytes));
        let issuer = SharedKey::generate(&mut |bytes| rng.fill(bytes));
        let handle =
            HubHandle::ephemeral(Box::new(move |bytes| rng.fill(bytes)), || Timestamp::from_second(NOW).unwrap());
        let options = ServiceOptions { bearer_issuer: Some(issuer.clone()), ..ServiceOptions::default() };
        let router = router(handle.clone(), Gate::new(policies, "localhost", 443), options);
        Self { handle, router, issuer }
    }

    async fn with_device() -> Self {
        let hub = Self::new();
        assert_eq!(hub.send("PUT", "/devices/d", None, "{}").await.status, 200);
        hub
    }

    async fn send_as(&self, role: Role, method: &str, path: &str, if_match: Option<&str>, body: &str) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{path}?api-version=2021-04-12"))
            .header("authorization", mint(&self.issuer, role, NOW + 60));
        if let Some(if_match) = if_match {
            request = request.header("if-match", if_match);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = Value::parse_json(std::str::from_utf8(&body).unwrap()).unwrap_or(Value::Null);
        let code = head.headers.get("iothub-errorcode").map(|code| code.to_str().unwrap().to_owned());
        Answer { status: head.status.as_u16(), code: code.unwrap_or_default(), body }
    }

    async fn send(&self, method: &str, path: &str, if_match: Option<&str>, body: &str) -> Answer {
        self.send_as(Role::DataContributor, method, path, if_match, body).await
    }

    async fn patch(&self, body: &str) -> Answer {
        self.send("PATCH", "/twins/d", None, body).await
    }

    async fn report(&self, json: &str) {
        let (twin, reported) = (TwinRef::device(DeviceId::new("d").unwrap()), object(json));
        self.handle.write(|registry, _, now| registry.report(&twin, &reported, now)).await.unwrap();
    }

    /// `etag version desired.$version reported.$version deviceEtag`.
    async fn counters(&self) -> [String; 5] {
        let twin = self.send("GET", "/twins/d", None, "").await;
        let at = |keys: &[&str]| twin.at(keys);
        let (desired, reported) = (["properties", "desired", "$version"], ["properties", "reported", "$version"]);
        [at(&["etag"]), at(&["version"]), at(&desired), at(&reported), at(&["deviceEtag"])]
    }
}

fn object(json: &str) -> Object {
    Value::parse_json(json).unwrap().as_object().unwrap().clone()
}

fn both(content: &str) -> String {
    format!(r#"{{"tags":{content},"properties":{{"desired":{content}}}}}"#)
}

#[tokio::test]
async fn section_1_3_each_write_moves_the_counters_of_its_row() {
    let hub = Hub::with_device().await;
    let fresh = hub.counters().await;
    assert_eq!(fresh[..4], ["\"AAAAAAAAAAE=\"", "2", "1", "1"], "create");
    let (tags, desired) = (r#"{"tags":{"a":1}}"#, r#"{"properties":{"desired":{"a":1}}}"#);
    for (row, method, body, expected) in [
        ("tags only", "PATCH", tags.to_owned(), ["\"AAAAAAAAAAI=\"", "3", "1", "1"]),
        ("desired only", "PATCH", desired.to_owned(), ["\"AAAAAAAAAAM=\"", "4", "2", "1"]),
        ("tags and desired", "PATCH", both(r#"{"a":2}"#), ["\"AAAAAAAAAAQ=\"", "5", "3", "1"]),
        ("identical values", "PATCH", both(r#"{"a":2}"#), ["\"AAAAAAAAAAU=\"", "6", "4", "1"]),
        ("PUT", "PUT", both(r#"{"a":3}"#), ["\"AAAAAAAAAAY=\"", "7", "5", "1"]),
    ] {
        assert_eq!(hub.send(method, "/twins/d", None, &body).await.status, 200, "{row}");
        assert_eq!(hub.counters().await[..4], expected, "{row}");
    }
    hub.report(r#"{"r":1}"#).await;
    let reported = hub.counters().await;
    assert_eq!(reported[..4], ["\"AAAAAAAAAAY=\"", "8", "5", "2"], "device writes reported");
    assert_eq!(reported[4], fresh[4], "no twin write moves the identity's etag");
    let twin = TwinRef::device(DeviceId::new("d").unwrap());
    let generation = hub.handle.record(&twin).await.unwrap().identity.generation;
    let attached = hub.handle.attach(&twin, generation, true).await.unwrap();
    assert_eq!(hub.counters().await, reported, "connect");
    hub.handle.note_activity(&attached);
    assert_eq!(hub.counters().await, reported, "telemetry");
    hub.handle.detach(&attached);
    assert_eq!(hub.counters().await, reported, "disconnect");
    hub.send("PUT", "/devices/d", Some("*"), r#"{"status":"disabled"}"#).await;
    let after = hub.counters().await;
    assert_eq!((&after[0], &after[2]), (&reported[0], &reported[2]), "identity PUT");
    assert_ne!(after[4], reported[4], "identity PUT");
    hub.send("DELETE", "/devices/d", Some("*"), "").await;
    hub.send("PUT", "/devices/d", None, "{}").await;
    let again = hub.counters().await;
    assert_eq!((&again[..4], again[4] == after[4]), (&fresh[..4], false), "delete and recreate");
    let bulk = r#"[{"id":"d","importMode":"delete"}]"#;
    assert_eq!(hub.send("POST", "/devices", None, bulk).await.status, 200);
    let bulk = r#"[{"id":"d","importMode":"create","properties":{"desired":{"a":1}}}]"#;
    assert_eq!(hub.send("POST", "/devices", None, bulk).await.status, 200);
    assert_eq!(hub.counters().await[..4], fresh[..4], "bulk create with desired");
}

#[tokio::test]
async fn section_1_3_a_configuration_moves_the_counters_as_a_service_does() {
    let hub = Hub::with_device().await;
    let body = r#"{"content":{"deviceContent":{"properties.desired.x":1}},"targetCondition":"*"}"#;
    assert_eq!(hub.send("PUT", "/configurations/c", None, body).await.status, 200);
    let mut evaluation = hub.handle.write(|registry, _, _| Ok(registry.due_evaluation())).await.unwrap().unwrap();
    let mut finished = false;
    for _ in 0..9 {
        let step = hub.handle.write(|registry, _, now| Ok(registry.evaluate(&mut evaluation, 9, now)));
        if step.await.unwrap() {
            finished = true;
            break;
        }
    }
    assert!(finished, "a hub with one device is evaluated in a few steps");
    assert_eq!(hub.counters().await[..4], ["\"AAAAAAAAAAI=\"", "3", "2", "1"], "ADM writes desired");
    let twin = hub.send("GET", "/twins/d", None, "").await;
    assert_eq!(twin.at(&["properties", "desired", "$metadata", "x", "$lastUpdatedBy"]), "\"c\"");
}

#[tokio::test]
async fn section_2_3_a_device_is_told_of_each_write_as_its_row_says() {
    let hub = Hub::with_device().await;
    hub.patch(r#"{"properties":{"desired":{"gone":1,"same":2}}}"#).await;
    let twin = TwinRef::device(DeviceId::new("d").unwrap());
    let generation = hub.handle.record(&twin).await.unwrap().identity.generation;
    let mut attached = hub.handle.attach(&twin, generation, true).await.unwrap();
    for (row, method, body, expected) in [
        ("PATCH", "PATCH", r#"{"a":{"b":1,"c":null}}"#, r#"{"$version":3,"a":{"b":1,"c":null}}"#),
        ("PUT", "PUT", r#"{"same":2,"new":3}"#, r#"{"$version":4,"a":null,"gone":null,"new":3,"same":2}"#),
    ] {
        let written = hub.send(method, "/twins/d", None, &in_desired(body)).await;
        assert_eq!(written.status, 200, "device notification of {row}");
        let Told::Desired { body, .. } = attached.notices.recv().await.unwrap().told else { panic!("{row}") };
        let body = Value::parse_json(std::str::from_utf8(&body).unwrap()).unwrap();
        assert_eq!(body.to_string(), expected, "device notification of {row}");
    }
}

#[tokio::test]
async fn section_4_what_a_device_reports_is_held_to_the_limits_too() {
    let deep = |levels: usize| format!("{}1{}", r#"{"k":"#.repeat(levels + 1), "}".repeat(levels + 1));
    for (row, content, taken) in [
        ("reported size", chunk(8, 0), true),
        ("reported size", chunk(8, 1), false),
        ("key length", format!(r#"{{"{}":1}}"#, "k".repeat(1024)), true),
        ("key length", format!(r#"{{"{}":1}}"#, "k".repeat(1025)), false),
        ("key with .", r#"{"a.b":1}"#.to_owned(), false),
        ("string length", format!(r#"{{"a":"{}"}}"#, "x".repeat(4096)), true),
        ("string length", format!(r#"{{"a":"{}"}}"#, "x".repeat(4097)), false),
        ("integer", r#"{"a":4503599627370496}"#.to_owned(), false),
        ("depth", deep(10), true),
        ("depth", deep(11), false),
        ("null in an array", r#"{"a":[null]}"#.to_owned(), false),
        ("null deletes", r#"{"a":null}"#.to_owned(), true),
    ] {
        let hub = Hub::with_device().await;
        let (twin, reported) = (TwinRef::device(DeviceId::new("d").unwrap()), object(&content));
        let written = hub.handle.write(|registry, _, now| registry.report(&twin, &reported, now)).await;
        let code = written.map_or_else(|refusal| refusal.code(), |_| "");
        assert_eq!(code, if taken { "" } else { "ArgumentInvalid" }, "{row} {content:.60}");
    }
}

#[tokio::test]
async fn section_2_2_what_is_not_served_answers_501_and_never_200() {
    let hub = Hub::with_device().await;
    for (method, path, body) in [
        ("DELETE", "/devices/d/commands", ""),
        ("POST", "/devices/d/applyConfigurationContent", "{}"),
        ("GET", "/digitaltwins/d", ""),
        ("PATCH", "/digitaltwins/d", "[]"),
        ("POST", "/digitaltwins/d/commands/c", "{}"),
        ("POST", "/digitaltwins/d/components/p/commands/c", "{}"),
        ("POST", "/jobs/create", "{}"),
        ("GET", "/jobs", ""),
        ("GET", "/jobs/j", ""),
        ("DELETE", "/jobs/j", ""),
        ("GET", "/messages/serviceBound/feedback", ""),
        ("DELETE", "/messages/serviceBound/feedback/x", ""),
        ("POST", "/messages/serviceBound/feedback/x/abandon", ""),
        ("PUT", "/configurations/e", r#"{"content":{"modulesContent":{"$edgeAgent":{}}},"targetCondition":"*"}"#),
        ("PUT", "/devices/none", r#"{"authentication":{"type":"none"}}"#),
    ] {
        let answer = hub.send(method, path, None, body).await;
        assert_eq!((answer.status, answer.code.as_str()), (501, "NotImplemented"), "{method} {path}");
    }
    // A device's own REST, and what no hub has, are no addresses here.
    for (method, path) in [
        ("POST", "/devices/d/files"),
        ("POST", "/devices/d/files/notifications"),
        ("POST", "/devices/d/messages/events"),
        ("GET", "/devices/d/messages/devicebound"),
        ("GET", "/twins/d/streams/s"),
        ("GET", "/certificates"),
    ] {
        let status = hub.send(method, path, None, "{}").await.status;
        assert!(status == 404 || status == 501, "{method} {path}: {status}");
    }
}

#[tokio::test]
async fn section_2_3_twins_are_written_as_each_row_says() {
    for (row, before, patch, after) in [
        ("PATCH merges", r#"{"a":{"b":1},"c":1}"#, r#"{"a":{"d":2}}"#, r#"{"a":{"b":1,"d":2},"c":1}"#),
        ("null leaf", r#"{"a":{"b":1}}"#, r#"{"a":{"b":null}}"#, r#"{"a":{}}"#),
        ("null on a missing key", r#"{"a":1}"#, r#"{"x":null}"#, r#"{"a":1}"#),
        ("null inside a new object", "{}", r#"{"n":{"x":null}}"#, r#"{"n":{}}"#),
        ("{} value", "{}", r#"{"e":{}}"#, r#"{"e":{}}"#),
        ("arrays", r#"{"l":[1,2,3]}"#, r#"{"l":[4]}"#, r#"{"l":[4]}"#),
    ] {
        let hub = Hub::with_device().await;
        hub.send("PUT", "/twins/d", None, &both(before)).await;
        let answer = hub.patch(&both(patch)).await;
        assert_eq!((answer.status, answer.at(&["tags"]).as_str()), (200, after), "{row}");
        let read = hub.send("GET", "/twins/d", None, "").await;
        assert_eq!(read.body, answer.body, "{row}: the answer is the whole twin");
    }
    let hub = Hub::with_device().await;
    hub.patch(&both(r#"{"a":1,"b":2}"#)).await;
    hub.patch(r#"{"tags":null}"#).await;
    let twin = hub.send("GET", "/twins/d", None, "").await;
    assert_eq!(twin.at(&["tags"]), r#"{"a":1,"b":2}"#, "tags: null clears nothing");
    let put = hub.send("PUT", "/twins/d", None, &both(r#"{"c":3}"#)).await;
    assert_eq!((put.at(&["tags"]), put.at(&["properties", "desired", "a"])), (r#"{"c":3}"#.to_owned(), String::new()));
    let null = hub.send("PUT", "/twins/d", None, r#"{"tags":{"a":{"b":null}}}"#).await;
    assert_eq!((null.status, null.code.as_str()), (400, "ArgumentInvalid"), "null in PUT");
    assert!(null.at(&["Message"]).contains("Value of Property or Tag cannot be null. Error in Property/Tag b"));
    hub.patch(r#"{"properties":{"reported":{"x":1}}}"#).await;
    let twin = hub.send("GET", "/twins/d", None, "").await;
    assert_eq!(twin.at(&["properties", "reported", "x"]), "", "reported in a service's write is ignored");
    let missing = hub.send("GET", "/twins/d/modules/m", None, "").await;
    assert_eq!((missing.status, missing.code.as_str()), (404, "DeviceNotFound"), "missing module twin");
    hub.send("DELETE", "/devices/d", Some("*"), "").await;
    assert_eq!(hub.send("GET", "/twins/d", None, "").await.status, 404, "the twin dies with the identity");
}

#[tokio::test]
async fn section_2_4_if_match_counts_as_each_column_says() {
    const STALE: &str = "MQ==";
    // Header, twin PATCH, identity PUT of an existing and of a missing one, identity DELETE.
    for (header, twin, put, put_missing, delete) in [
        (None, 200, 409, 200, 412),
        (Some("*"), 200, 200, 404, 204),
        (Some("\"*\""), 200, 200, 404, 204),
        (Some("\"\""), 200, 409, 200, 412),
        (Some("\"current\""), 200, 200, 404, 204),
        (Some("\"stale\""), 412, 412, 404, 412),
        (Some("current"), 200, 200, 404, 204),
        (Some("stale"), 200, 412, 404, 412),
    ] {
        for kind in ["", "/modules/m"] {
            let hub = Hub::with_device().await;
            hub.send("PUT", "/devices/d/modules/m", None, "{}").await;
            let (twin_path, path) = (format!("/twins/d{kind}"), format!("/devices/d{kind}"));
            let etag = hub.send("GET", &twin_path, None, "").await.at(&["etag"]).replace('"', "");
            let text = |current: &str| header.map(|header| header.replace("current", current).replace("stale", STALE));
            let patched = hub.send("PATCH", &twin_path, text(&etag).as_deref(), r#"{"tags":{"a":1}}"#).await;
            assert_eq!(patched.status, twin, "twin PATCH {header:?} {kind}");
            let etag = hub.send("GET", &twin_path, None, "").await.at(&["etag"]).replace('"', "");
            let put_twin = hub.send("PUT", &twin_path, text(&etag).as_deref(), r#"{"tags":{"a":2}}"#).await;
            assert_eq!(put_twin.status, twin, "twin PUT {header:?} {kind}");
            if twin == 412 {
                assert_eq!(put_twin.code, "PreconditionFailed", "{header:?} {kind}");
            }
            let etag = hub.send("GET", &path, None, "").await.at(&["etag"]).replace('"', "");
            let written = hub.send("PUT", &path, text(&etag).as_deref(), "{}").await;
            assert_eq!(written.status, put, "identity PUT {header:?} {kind}");
            let missing = if kind.is_empty() { "/devices/x" } else { "/devices/d/modules/x" };
            let written = hub.send("PUT", missing, text(&etag).as_deref(), "{}").await;
            assert_eq!(written.status, put_missing, "identity PUT of a missing one {header:?} {kind}");
            let etag = hub.send("GET", &path, None, "").await.at(&["etag"]).replace('"', "");
            let deleted = hub.send("DELETE", &path, text(&etag).as_deref(), "").await;
            assert_eq!(deleted.status, delete, "identity DELETE {header:?} {kind}");
        }
    }
    let hub = Hub::with_device().await;
    let writers = (0..30).map(|n| format!(r#"{{"tags":{{"w{n}":1}}}}"#)).collect::<Vec<_>>();
    let writes = writers.iter().map(|body| hub.send("PATCH", "/twins/d", Some("*"), body));
    for answer in futures_of(writes).await {
        assert_eq!(answer.status, 200, "* meets no conflict with 30 parallel writers");
    }
    assert_eq!(hub.counters().await[1], "32");
    // Header, PUT and DELETE of the configuration; its etag is MQ==.
    for (header, put, delete) in [
        (None, 409, 204),
        (Some("*"), 200, 204),
        (Some("\"*\""), 200, 204),
        (Some("\"MQ==\""), 200, 204),
        (Some("\"Mg==\""), 412, 412),
        (Some("MQ=="), 409, 412),
        (Some("Mg=="), 409, 412),
    ] {
        let body = r#"{"content":{"deviceContent":{}},"targetCondition":"*"}"#;
        let hub = Hub::new();
        assert_eq!(hub.send("PUT", "/configurations/c", None, body).await.status, 200);
        assert_eq!(hub.send("DELETE", "/configurations/c", header, "").await.status, delete, "DELETE {header:?}");
        hub.send("DELETE", "/configurations/c", None, "").await;
        hub.send("PUT", "/configurations/c", None, body).await;
        assert_eq!(hub.send("PUT", "/configurations/c", header, body).await.status, put, "PUT {header:?}");
    }
}

/// All of them at once, polled in turn.
async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut open: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(move |context| {
        for (future, output) in open.iter_mut().filter(|(_, output)| output.is_none()) {
            if let std::task::Poll::Ready(ready) = future.as_mut().poll(context) {
                *output = Some(ready);
            }
        }
        match open.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(open.iter_mut().filter_map(|(_, output)| output.take()).collect()),
            false => std::task::Poll::Pending,
        }
    })
    .await
}

/// `count` leaves of 4,096 bytes each, and one of `last` bytes and its key.
fn chunk(count: usize, last: usize) -> String {
    let full: Vec<String> = (0..count).map(|n| format!(r#""{n}":"{}""#, "x".repeat(4095))).collect();
    let last = if last > 0 { format!(r#","z":"{}""#, "x".repeat(last)) } else { String::new() };
    format!("{{{}{last}}}", full.join(","))
}

fn in_tags(content: &str) -> String {
    format!(r#"{{"tags":{content}}}"#)
}

fn in_desired(content: &str) -> String {
    format!(r#"{{"properties":{{"desired":{content}}}}}"#)
}

#[tokio::test]
async fn section_4_every_write_is_held_to_the_limits() {
    let deep = |levels: usize| format!("{}1{}", r#"{"k":"#.repeat(levels + 1), "}".repeat(levels + 1));
    let (tags, desired) = (in_tags, in_desired);
    let mut rows = vec![
        ("tags size", tags(&chunk(2, 0)), true),
        ("tags size", tags(&chunk(2, 1)), false),
        ("desired size", desired(&chunk(8, 0)), true),
        ("desired size", desired(&chunk(8, 1)), false),
    ];
    for (row, content, taken) in [
        ("key length", format!(r#"{{"{}":1}}"#, "k".repeat(1024)), true),
        ("key length", format!(r#"{{"{}":1}}"#, "k".repeat(1025)), false),
        ("key: empty and not ASCII", r#"{"":1,"ключ":1}"#.to_owned(), true),
        ("key with .", r#"{"a.b":1}"#.to_owned(), false),
        ("key with $", r#"{"a$":1}"#.to_owned(), false),
        ("key with #", r##"{"a#":1}"##.to_owned(), false),
        ("key with a space", r#"{"a b":1}"#.to_owned(), false),
        ("key with C0", r#"{"a\u0001":1}"#.to_owned(), false),
        ("key with C1", r#"{"a\u0085":1}"#.to_owned(), false),
        ("string length", format!(r#"{{"a":"{}"}}"#, "x".repeat(4096)), true),
        ("string length", format!(r#"{{"a":"{}"}}"#, "x".repeat(4097)), false),
        ("integer", r#"{"a":4503599627370495,"b":-4503599627370496}"#.to_owned(), true),
        ("integer", r#"{"a":4503599627370496}"#.to_owned(), false),
        ("integer", r#"{"a":-4503599627370497}"#.to_owned(), false),
        ("integer of 64 bits", r#"{"a":18446744073709551615}"#.to_owned(), false),
        ("floats", r#"{"a":1.0,"b":1,"c":1e300}"#.to_owned(), true),
        ("depth", deep(10), true),
        ("depth", deep(11), false),
        ("arrays are levels", format!(r#"{{"a":{}1{}}}"#, "[".repeat(10), "]".repeat(10)), true),
        ("arrays are levels", format!(r#"{{"a":{}1{}}}"#, "[".repeat(11), "]".repeat(11)), false),
        ("arrays", r#"{"a":[1,"x",true,{"b":[]}]}"#.to_owned(), true),
        ("null in an array", r#"{"a":[null]}"#.to_owned(), false),
        ("null in an object in an array", r#"{"a":[{"b":null}]}"#.to_owned(), false),
    ] {
        rows.push((row, tags(&content), taken));
        rows.push((row, desired(&content), taken));
    }
    for (row, body, taken) in rows {
        for method in ["PATCH", "PUT"] {
            let hub = Hub::with_device().await;
            let answer = hub.send(method, "/twins/d", None, &body).await;
            let expected = if taken { (200, "") } else { (400, "ArgumentInvalid") };
            assert_eq!((answer.status, answer.code.as_str()), expected, "{row}: {method} {body:.60}");
            if !taken {
                assert_eq!(hub.counters().await[..2], ["\"AAAAAAAAAAE=\"", "2"], "{row}: nothing was written");
            }
        }
    }
}

#[tokio::test]
async fn section_4_the_result_counts_numbers_stay_as_written_and_ids_are_checked() {
    let (tags, desired) = (in_tags, in_desired);
    let hub = Hub::with_device().await;
    hub.patch(&tags(&chunk(1, 0))).await;
    assert_eq!(hub.patch(&tags(r#"{"y":"z"}"#)).await.status, 200);
    let pushed = tags(&format!(r#"{{"1":"{}"}}"#, "x".repeat(4095)));
    assert_eq!(hub.patch(&pushed).await.status, 400, "the size is that of the result");
    let text = hub.patch(&desired(r#"{"one":1.0,"other":1}"#)).await.body.to_string();
    assert!(text.contains("\"one\":1.0") && text.contains("\"other\":1,") || text.contains("\"other\":1}"), "{text}");
    for (path, status) in [
        (format!("/devices/{}", "x".repeat(128)), 200),
        (format!("/devices/{}", "x".repeat(129)), 400),
        ("/devices/a%2Fb".to_owned(), 400),
        ("/devices/-:.+%25_%23*%3F!(),=@%3B$'".to_owned(), 200),
        ("/devices/d/modules/$mine".to_owned(), 400),
        ("/devices/d/modules/mine$".to_owned(), 200),
    ] {
        assert_eq!(hub.send("PUT", &path, None, "{}").await.status, status, "ids: {path}");
    }
    for (length, status) in [(128, 200), (129, 400)] {
        let body = format!(r#"{{"statusReason":"{}"}}"#, "x".repeat(length));
        assert_eq!(hub.send("PUT", "/devices/d", Some("*"), &body).await.status, status, "statusReason {length}");
    }
}

#[tokio::test]
async fn section_7_4_each_role_does_what_its_row_says() {
    for (role, registry_read, registry_write, twin_read, twin_write) in [
        (Role::DataReader, 200, 401, 200, 401),
        (Role::DataContributor, 200, 200, 200, 200),
        (Role::RegistryContributor, 200, 200, 401, 401),
        (Role::TwinContributor, 401, 401, 200, 200),
    ] {
        let hub = Hub::with_device().await;
        for (method, path, body, status) in [
            ("GET", "/devices/d", "", registry_read),
            ("PUT", "/devices/new", "{}", registry_write),
            ("GET", "/twins/d", "", twin_read),
            ("POST", "/devices/query", r#"{"query":"SELECT * FROM devices"}"#, twin_read),
            ("PATCH", "/twins/d", "{}", twin_write),
        ] {
            assert_eq!(hub.send_as(role, method, path, None, body).await.status, status, "{role:?} {method} {path}");
        }
    }
}
