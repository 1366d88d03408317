//! `iot-hub.md` 2.4, row by row.

use super::Hub;
use super::rows::Rows;

#[tokio::test]
async fn section_2_4_if_match_counts_as_each_column_says() {
    const STALE: &str = "MQ==";
    let mut rows =
        Rows::of("2.4", &["absent", "*", "\"*\"", "\"\"", "\"cur\"", "\"stale\"", "cur unquoted", "stale unquoted"]);
    // Row, header, twin PATCH and PUT, identity PUT of an existing and of a missing one, identity DELETE.
    for (row, header, twin, put, put_missing, delete) in [
        ("absent", None, 200, 409, 200, 412),
        ("*", Some("*"), 200, 200, 404, 204),
        ("\"*\"", Some("\"*\""), 200, 200, 404, 204),
        // What a DELETE makes of it is unsure; this hub takes it as absent there too.
        ("\"\"", Some("\"\""), 200, 409, 200, 412),
        ("\"cur\"", Some("\"current\""), 200, 200, 404, 204),
        ("\"stale\"", Some("\"stale\""), 412, 412, 404, 412),
        ("cur unquoted", Some("current"), 200, 200, 404, 204),
        ("stale unquoted", Some("stale"), 200, 412, 404, 412),
    ] {
        rows.walk(row);
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
            if put == 412 {
                assert_eq!(written.code, "PreconditionFailed", "{header:?} {kind}");
            }
            let missing = if kind.is_empty() { "/devices/x" } else { "/devices/d/modules/x" };
            let written = hub.send("PUT", missing, text(&etag).as_deref(), "{}").await;
            assert_eq!(written.status, put_missing, "identity PUT of a missing one {header:?} {kind}");
            let etag = hub.send("GET", &path, None, "").await.at(&["etag"]).replace('"', "");
            if header.is_some_and(|header| header.trim_matches('"') == "*") {
                let deleted = hub.send("DELETE", missing, header, "").await;
                assert_eq!(deleted.status, 404, "identity DELETE of a missing one {header:?} {kind}");
            }
            let deleted = hub.send("DELETE", &path, text(&etag).as_deref(), "").await;
            assert_eq!(deleted.status, delete, "identity DELETE {header:?} {kind}");
        }
    }
    parallel_writers().await;
    configurations(&mut rows).await;
    rows.finish();
}

async fn parallel_writers() {
    let hub = Hub::with_device().await;
    let writers = (0..30).map(|n| format!(r#"{{"tags":{{"w{n}":1}}}}"#)).collect::<Vec<_>>();
    let writes = writers.iter().map(|body| hub.send("PATCH", "/twins/d", Some("*"), body));
    for answer in futures_of(writes).await {
        assert_eq!(answer.status, 200, "* meets no conflict with 30 parallel writers");
    }
    assert_eq!(hub.send("GET", "/twins/d", None, "").await.at(&["version"]), "32");
}

async fn configurations(rows: &mut Rows) {
    // The column of configurations: row, header, PUT and DELETE of one whose etag is MQ==. A DELETE cannot be a 409;
    // an etag that does not count guards nothing there, so it is refused as a stale one is.
    for (row, header, put, delete) in [
        ("absent", None, 409, 204),
        ("*", Some("*"), 200, 204),
        ("\"*\"", Some("\"*\""), 200, 204),
        ("\"cur\"", Some("\"MQ==\""), 200, 204),
        ("\"stale\"", Some("\"Mg==\""), 412, 412),
        ("cur unquoted", Some("MQ=="), 409, 412),
        ("stale unquoted", Some("Mg=="), 409, 412),
    ] {
        rows.walk(row);
        let body = r#"{"content":{"deviceContent":{}},"targetCondition":"*"}"#;
        let hub = Hub::new();
        assert_eq!(hub.send("PUT", "/configurations/c", None, body).await.status, 200);
        assert_eq!(hub.send("DELETE", "/configurations/c", header, "").await.status, delete, "DELETE {header:?}");
        hub.send("DELETE", "/configurations/c", None, "").await;
        hub.send("PUT", "/configurations/c", None, body).await;
        assert_eq!(hub.send("PUT", "/configurations/c", header, body).await.status, put, "PUT {header:?}");
        if header.is_some_and(|header| header.trim_matches('"') == "*") {
            let missing = hub.send("PUT", "/configurations/x", header, body).await;
            assert_eq!((missing.status, missing.code.as_str()), (404, "ConfigurationNotFound"), "PUT {header:?}");
        }
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
