//! `iot-hub.md` 2.3 and the shapes of 5.5, row by row.

use geminid::emulator::mqtt::presence::Told;
use geminid::twin::{DeviceId, TwinRef, Value};

use super::rows::Rows;
use super::{Hub, both, in_desired};

#[tokio::test]
async fn section_2_3_twins_are_written_as_each_row_says() {
    let mut rows = Rows::of(
        "2.3",
        &[
            "PATCH",
            "null leaf",
            "null inside a new object",
            "{} value",
            "arrays",
            "{\"tags\":null}",
            "PUT",
            "null in PUT",
            "reported in a service write",
            "twin lifetime",
            "missing module twin",
            "device notification of PATCH",
            "device notification of PUT",
        ],
    );
    // Method, content before, content sent, content then.
    for (row, method, before, sent, after) in [
        ("PATCH", "PATCH", r#"{"a":{"b":1},"c":1}"#, r#"{"a":{"d":2}}"#, r#"{"a":{"b":1,"d":2},"c":1}"#),
        ("null leaf", "PATCH", r#"{"a":1,"b":1}"#, r#"{"a":null}"#, r#"{"b":1}"#),
        ("null leaf", "PATCH", r#"{"a":{"b":{"c":1,"d":1}}}"#, r#"{"a":{"b":{"c":null}}}"#, r#"{"a":{"b":{"d":1}}}"#),
        ("null leaf", "PATCH", r#"{"a":{"b":1}}"#, r#"{"a":{"b":null}}"#, r#"{"a":{}}"#),
        ("null leaf", "PATCH", r#"{"a":{"b":1}}"#, r#"{"a":null}"#, "{}"),
        ("null leaf", "PATCH", r#"{"a":1}"#, r#"{"x":null}"#, r#"{"a":1}"#),
        ("null inside a new object", "PATCH", "{}", r#"{"n":{"x":null}}"#, r#"{"n":{}}"#),
        ("{} value", "PATCH", "{}", r#"{"e":{}}"#, r#"{"e":{}}"#),
        ("{} value", "PATCH", r#"{"e":{}}"#, r#"{"f":1}"#, r#"{"e":{},"f":1}"#),
        ("arrays", "PATCH", r#"{"l":[1,2,3]}"#, r#"{"l":[4]}"#, r#"{"l":[4]}"#),
        ("arrays", "PATCH", r#"{"l":[{"a":1,"b":2}]}"#, r#"{"l":[{"a":3}]}"#, r#"{"l":[{"a":3}]}"#),
        ("PUT", "PUT", r#"{"a":1,"b":{"c":1,"d":1}}"#, r#"{"b":{"c":2}}"#, r#"{"b":{"c":2}}"#),
    ] {
        rows.walk(row);
        for kind in ["", "/modules/m"] {
            let hub = Hub::with_device_and_module().await;
            let path = format!("/twins/d{kind}");
            hub.send("PUT", &path, None, &both(before)).await;
            let answer = hub.send(method, &path, None, &both(sent)).await;
            assert_eq!((answer.status, answer.at(&["tags"]).as_str()), (200, after), "2.3 {row} {sent} {kind}");
            assert_eq!(answer.desired().to_string(), after, "2.3 {row} {sent} {kind}: desired");
            let read = hub.send("GET", &path, None, "").await;
            assert_eq!(read.body, answer.body, "2.3 {row} {sent} {kind}: the answer is the whole twin");
        }
    }
    not_written(&mut rows).await;
    ignored_and_missing(&mut rows).await;
    lifetime(&mut rows).await;
    notifications(&mut rows).await;
    rows.finish();
}

async fn not_written(rows: &mut Rows) {
    let hub = Hub::with_device_and_module().await;
    hub.patch(&both(r#"{"a":1,"b":2}"#)).await;
    rows.walk("{\"tags\":null}");
    hub.patch(r#"{"tags":null}"#).await;
    let twin = hub.send("GET", "/twins/d", None, "").await;
    assert_eq!(twin.at(&["tags"]), r#"{"a":1,"b":2}"#, "2.3 {{\"tags\":null}} clears nothing");
    rows.walk("null in PUT");
    for (body, name) in [
        (r#"{"tags":{"a":{"b":null}}}"#, "b"),
        (r#"{"tags":{"a":null}}"#, "a"),
        (r#"{"tags":{},"properties":{"desired":{"c":null}}}"#, "c"),
    ] {
        let null = hub.send("PUT", "/twins/d", None, body).await;
        assert_eq!((null.status, null.code.as_str()), (400, "ArgumentInvalid"), "2.3 null in PUT {body}");
        let text = format!("Value of Property or Tag cannot be null. Error in Property/Tag {name}");
        assert!(null.at(&["Message"]).contains(&text), "2.3 null in PUT {body}: {}", null.at(&["Message"]));
    }
    let after = hub.send("GET", "/twins/d", None, "").await;
    assert_eq!(after.body, twin.body, "2.3 null in PUT: nothing is written");
}

async fn ignored_and_missing(rows: &mut Rows) {
    let hub = Hub::with_device_and_module().await;
    rows.walk("reported in a service write");
    for method in ["PATCH", "PUT"] {
        let written = hub.send(method, "/twins/d", None, r#"{"tags":{"a":1},"properties":{"reported":{"x":1}}}"#).await;
        let version = written.at(&["properties", "reported", "$version"]);
        let seen = (written.status, written.at(&["properties", "reported", "x"]), version);
        assert_eq!(seen, (200, String::new(), "1".to_owned()), "2.3 reported in a service write: {method}");
    }
    rows.walk("missing module twin");
    for (method, body) in [("GET", ""), ("PATCH", "{}"), ("PUT", "{}")] {
        let missing = hub.send(method, "/twins/d/modules/absent", None, body).await;
        assert_eq!(
            (missing.status, missing.code.as_str()),
            (404, "DeviceNotFound"),
            "2.3 missing module twin {method}"
        );
    }
}

async fn lifetime(rows: &mut Rows) {
    let hub = Hub::with_device_and_module().await;
    rows.walk("twin lifetime");
    for path in ["/devices/new", "/devices/new/modules/m"] {
        let twin = path.replace("/devices", "/twins");
        assert_eq!(
            hub.send("PATCH", &twin, None, "{}").await.code,
            "DeviceNotFound",
            "2.3 twin lifetime: no own create"
        );
        assert_eq!(hub.send("PUT", &twin, None, "{}").await.code, "DeviceNotFound", "2.3 twin lifetime: no own create");
        assert_eq!(hub.send("DELETE", &twin, Some("*"), "").await.status, 405, "2.3 twin lifetime: no own delete");
        assert_eq!(hub.send("PUT", path, None, "{}").await.status, 200);
        assert_eq!(hub.send("GET", &twin, None, "").await.status, 200, "2.3 twin lifetime: there with its identity");
    }
    assert_eq!(hub.send("DELETE", "/devices/new", Some("*"), "").await.status, 204);
    for twin in ["/twins/new", "/twins/new/modules/m"] {
        assert_eq!(hub.send("GET", twin, None, "").await.status, 404, "2.3 twin lifetime: {twin} dies with it");
    }
}

async fn notifications(rows: &mut Rows) {
    let hub = Hub::with_device_and_module().await;
    hub.patch(&in_desired(r#"{"gone":1,"same":2}"#)).await;
    let twin = TwinRef::device(DeviceId::new("d").unwrap());
    let generation = hub.handle.record(&twin).await.unwrap().identity.generation;
    let mut attached = hub.handle.attach(&twin, generation, true).await.unwrap();
    for (row, method, body, expected) in [
        (
            "device notification of PATCH",
            "PATCH",
            r#"{"a":{"b":1,"c":null}}"#,
            r#"{"$version":3,"a":{"b":1,"c":null}}"#,
        ),
        ("device notification of PATCH", "PATCH", r#"{"same":2}"#, r#"{"$version":4,"same":2}"#),
        (
            "device notification of PUT",
            "PUT",
            r#"{"same":2,"new":3}"#,
            r#"{"$version":5,"a":null,"gone":null,"new":3,"same":2}"#,
        ),
    ] {
        rows.walk(row);
        let written = hub.send(method, "/twins/d", None, &in_desired(body)).await;
        assert_eq!(written.status, 200, "2.3 {row}");
        let Told::Desired { body, .. } = attached.notices.recv().await.unwrap().told else { panic!("2.3 {row}") };
        let body = Value::parse_json(std::str::from_utf8(&body).unwrap()).unwrap();
        assert_eq!(body.to_string(), expected, "2.3 {row}");
    }
}

#[tokio::test]
async fn section_5_5_rows_come_with_their_item_type() {
    let hub = Hub::with_device_and_module().await;
    hub.patch(r#"{"tags":{"site":"x","rev":"a"},"properties":{"desired":{"p":1}}}"#).await;
    let configuration =
        r#"{"content":{"deviceContent":{"properties.desired.y":1}},"targetCondition":"tags.site = 'x'"}"#;
    assert_eq!(hub.send("PUT", "/configurations/c", None, configuration).await.status, 200);
    hub.evaluate().await;
    let twin = hub.send("GET", "/twins/d", None, "").await.body;
    assert_eq!(twin.get(["configurations", "c", "status"]), Some(&Value::from("Applied")));
    let desired = twin.get(["properties", "desired"]).unwrap();
    let module = hub.send("GET", "/twins/d/modules/m", None, "").await.body;
    for (row, query, item_type, expected) in [
        ("SELECT *", "SELECT * FROM devices", "Twin", twin.to_string()),
        ("SELECT *", "SELECT * FROM devices.modules", "Twin", module.to_string()),
        (
            "SELECT deviceId, tags.site AS s",
            "SELECT deviceId, tags.site AS s FROM devices",
            "Raw",
            r#"{"deviceId":"d","s":"x"}"#.to_owned(),
        ),
        (
            "SELECT properties.desired",
            "SELECT properties.desired FROM devices",
            "Raw",
            format!(r#"{{"desired":{desired}}}"#),
        ),
        ("SELECT DeviceID", "SELECT DeviceID FROM devices", "Raw", r#"{"deviceId":"d"}"#.to_owned()),
        ("SELECT COUNT() AS n …", "SELECT COUNT() AS n FROM devices", "Raw", r#"{"n":1}"#.to_owned()),
        (
            "SELECT tags.rev AS rev, COUNT() AS n … GROUP BY tags.rev",
            "SELECT tags.rev AS rev, COUNT() AS n FROM devices GROUP BY tags.rev",
            "Raw",
            r#"{"n":1,"rev":"a"}"#.to_owned(),
        ),
    ] {
        let answer = hub.send("POST", "/devices/query", None, &format!(r#"{{"query":"{query}"}}"#)).await;
        assert_eq!((answer.status, answer.item_type.as_str()), (200, item_type), "5.5 {row}");
        assert_eq!(answer.body.to_string(), format!("[{expected}]"), "5.5 {row}");
    }
}
