//! `iot-hub.md` section 4, row by row. That a hub holds 1,000,000 identities is tried where it is counted, in the
//! registry's own tests.

use geminid::emulator::registry::JobsNext;

use super::rows::Rows;
use super::{Hub, in_desired, in_tags};

const ROWS: [&str; 14] = [
    "tags / desired / reported size",
    "How size is counted",
    "When checked",
    "Key",
    "String value",
    "Integer",
    "Floats",
    "Depth",
    "Arrays",
    "null",
    "Value types",
    "deviceId, moduleId",
    "moduleId",
    "statusReason",
];

/// `count` leaves of 4,096 bytes each, and one of `last` bytes and its key.
fn chunk(count: usize, last: usize) -> String {
    let full: Vec<String> = (0..count).map(|n| format!(r#""{n}":"{}""#, "x".repeat(4095))).collect();
    let last = if last > 0 { format!(r#","z":"{}""#, "x".repeat(last)) } else { String::new() };
    format!("{{{}{last}}}", full.join(","))
}

/// A section of `chunks` times 4,096 bytes but twelve, and one more member, which must be of twelve bytes at most.
fn but_twelve(chunks: usize, member: &str) -> String {
    let full = chunk(chunks - 1, 0);
    format!(r#"{},"r":"{}",{member}}}"#, full.trim_end_matches('}'), "x".repeat(4095 - 12))
}

fn deep(levels: usize) -> String {
    format!("{}1{}", r#"{"k":"#.repeat(levels + 1), "}".repeat(levels + 1))
}

/// Row, content of a section and whether it is taken, whichever the section is.
fn contents() -> Vec<(&'static str, String, bool)> {
    let arrays = |levels: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(levels), "]".repeat(levels));
    let mut rows = vec![
        ("Key", format!(r#"{{"{}":1}}"#, "k".repeat(1024)), true),
        ("Key", format!(r#"{{"{}":1}}"#, "k".repeat(1025)), false),
        ("Key", format!(r#"{{"{}":1}}"#, "é".repeat(512)), true),
        ("Key", format!(r#"{{"{}":1}}"#, "é".repeat(513)), false),
        ("Key", r#"{"":1,"ключ":1,"a":1,"A":2}"#.to_owned(), true),
        ("String value", format!(r#"{{"a":"{}"}}"#, "x".repeat(4096)), true),
        ("String value", format!(r#"{{"a":"{}"}}"#, "x".repeat(4097)), false),
        ("String value", format!(r#"{{"a":"{}"}}"#, "é".repeat(2048)), true),
        ("String value", format!(r#"{{"a":"{}"}}"#, "é".repeat(2049)), false),
        ("Integer", r#"{"a":4503599627370495,"b":-4503599627370496}"#.to_owned(), true),
        ("Integer", r#"{"a":4503599627370496}"#.to_owned(), false),
        ("Integer", r#"{"a":-4503599627370497}"#.to_owned(), false),
        ("Integer", r#"{"a":18446744073709551615}"#.to_owned(), false),
        ("Integer", r#"{"a":{"b":[4503599627370496]}}"#.to_owned(), false),
        ("Floats", r#"{"a":1.0,"b":1,"c":1e300,"d":-0.5}"#.to_owned(), true),
        ("Depth", deep(10), true),
        ("Depth", deep(11), false),
        ("Depth", arrays(10), true),
        ("Depth", arrays(11), false),
        ("Arrays", r#"{"a":[1,"x",true,{"b":[]},[]]}"#.to_owned(), true),
        ("Arrays", r#"{"a":[null]}"#.to_owned(), false),
        ("Arrays", r#"{"a":[{"b":null}]}"#.to_owned(), false),
        ("Value types", r#"{"a":true,"b":1,"c":"x","d":{"e":false},"f":[1]}"#.to_owned(), true),
    ];
    let forbidden = ["a.b", "a$", "$a", "a#", "a b", "a\\u0001", "a\\u007f", "a\\u0085", "a\\tb"];
    rows.extend(forbidden.map(|key| ("Key", format!(r#"{{"{key}":1}}"#), false)));
    rows
}

/// The same of what is counted: `chunks` times 4,096 bytes are the limit of the section.
fn sizes(chunks: usize) -> Vec<(&'static str, String, bool)> {
    let mut rows = vec![
        ("tags / desired / reported size", chunk(chunks, 0), true),
        ("tags / desired / reported size", chunk(chunks, 1), false),
    ];
    for (member, taken) in [
        // A number is 8, a boolean 4, whatever its text.
        (r#""kkkk":1"#, true),
        (r#""kkkkk":1"#, false),
        (r#""kkkk":1.234567890123"#, true),
        (r#""kkkkkkkk":true"#, true),
        (r#""kkkkkkkkk":false"#, false),
        // Text is its UTF-8 without control characters, a key too is its UTF-8.
        (r#""k":"xxxxxxxxxxx""#, true),
        (r#""k":"xxxxxxxxxxxx""#, false),
        (r#""k":"xxxxxxxxxxx\n\u0001\u0085""#, true),
        (r#""k":"éééééx""#, true),
        (r#""k":"éééééé""#, false),
        (r#""éé":1"#, true),
        (r#""ééx":1"#, false),
        // An object is what it holds.
        (r#""k":{"kkk":1}"#, true),
        (r#""k":{"kkkk":1}"#, false),
        (r#""k":{"kkkkkkk":true,"":{}}"#, true),
    ] {
        rows.push(("How size is counted", but_twelve(chunks, member), taken));
    }
    rows
}

#[tokio::test]
async fn section_4_every_write_is_held_to_the_limits() {
    let mut rows = Rows::of("4", &ROWS);
    let everywhere = contents();
    let of = |chunks, wrap: fn(&str) -> String| {
        let all = sizes(chunks).into_iter().chain(everywhere.clone());
        all.map(move |(row, content, taken)| (row, wrap(&content), taken)).collect::<Vec<_>>()
    };
    for (row, body, taken) in of(2, in_tags).into_iter().chain(of(8, in_desired)) {
        rows.walk(row);
        for (method, kind) in [("PATCH", ""), ("PUT", ""), ("PATCH", "/modules/m")] {
            let hub = Hub::with_device_and_module().await;
            let path = format!("/twins/d{kind}");
            let answer = hub.send(method, &path, None, &body).await;
            let expected = if taken { (200, "") } else { (400, "ArgumentInvalid") };
            assert_eq!((answer.status, answer.code.as_str()), expected, "4 {row}: {method} {path} {body:.60}");
            if !taken {
                let after = hub.send("GET", &path, None, "").await;
                assert_eq!(after.at(&["version"]), "2", "4 {row}: nothing was written");
            }
        }
    }
    for (row, content, taken) in sizes(8).into_iter().chain(everywhere) {
        let hub = Hub::with_device_and_module().await;
        for kind in ["", "/modules/m"] {
            let written = hub.report(&Hub::twin_ref(kind), &content).await;
            let code = written.map_or_else(|refusal| refusal.code(), |()| "");
            assert_eq!(code, if taken { "" } else { "ArgumentInvalid" }, "4 {row}: reported {kind} {content:.60}");
        }
    }
    results_and_numbers(&mut rows).await;
    nulls(&mut rows).await;
    ids(&mut rows).await;
    rows.finish();
}

async fn results_and_numbers(rows: &mut Rows) {
    rows.walk("When checked");
    let hub = Hub::with_device_and_module().await;
    hub.patch(&in_tags(&chunk(1, 0))).await;
    assert_eq!(hub.patch(&in_tags(r#"{"y":"z"}"#)).await.status, 200);
    let pushed = in_tags(&format!(r#"{{"1":"{}"}}"#, "x".repeat(4095)));
    assert_eq!(hub.patch(&pushed).await.status, 400, "4 When checked: the size is that of the result");
    assert_eq!(hub.patch(&in_tags(&format!(r#"{{"0":null,{}"#, &pushed[9..pushed.len() - 1]))).await.status, 200);
    rows.walk("Floats");
    let text = hub.patch(&in_desired(r#"{"one":1.0,"other":1}"#)).await.desired().to_string();
    assert_eq!(text, r#"{"one":1.0,"other":1}"#, "4 Floats come back as written");
    for number in ["NaN", "Infinity", "1e999"] {
        let status = hub.patch(&in_desired(&format!(r#"{{"a":{number}}}"#))).await.status;
        assert_eq!(status, 400, "4 Floats: {number} is not JSON");
    }
}

async fn nulls(rows: &mut Rows) {
    rows.walk("null");
    let hub = Hub::with_device_and_module().await;
    let twin = Hub::twin_ref("");
    hub.patch(&in_desired(r#"{"a":1,"b":1,"c":1}"#)).await;
    assert_eq!(
        hub.patch(&in_desired(r#"{"a":null}"#)).await.desired().to_string(),
        r#"{"b":1,"c":1}"#,
        "4 null: PATCH"
    );
    let put = hub.send("PUT", "/twins/d", None, &in_desired(r#"{"a":null}"#)).await;
    assert_eq!((put.status, put.code.as_str()), (400, "ArgumentInvalid"), "4 null: PUT");
    let job = r#"{"jobId":"j","type":"scheduleUpdateTwin","queryCondition":"deviceId = 'd'",
        "updateTwin":{"etag":"*","properties":{"desired":{"b":null}}}}"#;
    assert_eq!(hub.send("PUT", "/jobs/v2/j", None, job).await.status, 200);
    for _ in 0..9 {
        hub.handle.write(|registry, _, now| Ok(registry.step_jobs(9, now))).await.unwrap();
    }
    let next = hub.handle.write(|registry, _, now| Ok(registry.step_jobs(9, now))).await.unwrap();
    assert_eq!(next, JobsNext::Nothing);
    assert_eq!(hub.send("GET", "/twins/d", None, "").await.desired().to_string(), r#"{"c":1}"#, "4 null: job patch");
    hub.report(&twin, r#"{"a":{"b":1},"c":1}"#).await.unwrap();
    hub.report(&twin, r#"{"a":{"b":null},"c":null}"#).await.unwrap();
    let after = hub.send("GET", "/twins/d", None, "").await;
    assert_eq!(after.at(&["properties", "reported", "a"]), "{}", "4 null: reported PATCH");
    assert_eq!(after.at(&["properties", "reported", "c"]), "", "4 null: reported PATCH");
}

async fn ids(rows: &mut Rows) {
    let hub = Hub::with_device_and_module().await;
    let (longest, longer) = ("x".repeat(128), "x".repeat(129));
    for (row, path, status) in [
        ("deviceId, moduleId", format!("/devices/{longest}"), 200),
        ("deviceId, moduleId", format!("/devices/{longer}"), 400),
        ("deviceId, moduleId", "/devices/D".to_owned(), 200),
        ("deviceId, moduleId", "/devices/a%2Fb".to_owned(), 400),
        ("deviceId, moduleId", "/devices/a%20b".to_owned(), 400),
        ("deviceId, moduleId", "/devices/%C3%A9".to_owned(), 400),
        ("deviceId, moduleId", "/devices/-:.+%25_%23*%3F!(),=@%3B$'".to_owned(), 200),
        ("deviceId, moduleId", format!("/devices/d/modules/{longest}"), 200),
        ("deviceId, moduleId", format!("/devices/d/modules/{longer}"), 400),
        ("deviceId, moduleId", "/devices/d/modules/M".to_owned(), 200),
        ("deviceId, moduleId", "/devices/d/modules/a%2Fb".to_owned(), 400),
        ("deviceId, moduleId", "/devices/d/modules/-:.+%25_%23*%3F!(),=@%3B$'".to_owned(), 200),
        ("moduleId", "/devices/d/modules/$mine".to_owned(), 400),
        ("moduleId", "/devices/d/modules/mine$".to_owned(), 200),
    ] {
        rows.walk(row);
        assert_eq!(hub.send("PUT", &path, None, "{}").await.status, status, "4 {row}: {path}");
    }
    rows.walk("statusReason");
    for (length, status) in [(128, 200), (129, 400)] {
        let body = format!(r#"{{"statusReason":"{}"}}"#, "x".repeat(length));
        assert_eq!(hub.send("PUT", "/devices/d", Some("*"), &body).await.status, status, "4 statusReason {length}");
    }
}
