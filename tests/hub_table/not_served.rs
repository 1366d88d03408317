//! What IoT Hub documents and the embedded hub has not: 501 with a hub's error body, never a pretence.

use axum::body::Body;
use axum::http::Request;
use tower::ServiceExt;

use super::Hub;

/// What services ask for (`iot-hub.md` 2.2, and what the documents have beside it).
const OF_SERVICES: [(&str, &str, &str); 21] = [
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
    ("POST", "/messages/deviceBound", "hello"),
    ("GET", "/messages/serviceBound/feedback", ""),
    ("DELETE", "/messages/serviceBound/feedback/x", ""),
    ("POST", "/messages/serviceBound/feedback/x/abandon", ""),
    ("GET", "/messages/serviceBound/filenotifications", ""),
    ("DELETE", "/messages/serviceBound/filenotifications/x", ""),
    ("POST", "/messages/serviceBound/filenotifications/x/abandon", ""),
    ("POST", "/twins/d/streams/s", ""),
    ("POST", "/twins/d/modules/m/streams/s", ""),
    ("PUT", "/configurations/e", r#"{"content":{"modulesContent":{"$edgeAgent":{}}},"targetCondition":"*"}"#),
    ("PUT", "/devices/none", r#"{"authentication":{"type":"none"}}"#),
];

/// What devices ask for, and other services than a hub: whatever the token, which this door cannot read.
const OF_OTHERS: [(&str, &str); 14] = [
    ("POST", "/devices/d/files"),
    ("POST", "/devices/d/files/notifications"),
    ("POST", "/devices/d/messages/events"),
    ("GET", "/devices/d/messages/deviceBound"),
    ("DELETE", "/devices/d/messages/deviceBound/x"),
    ("POST", "/devices/d/messages/deviceBound/x/abandon"),
    ("POST", "/devices/d/modules/m/messages/events"),
    ("PUT", "/0ne00000000/registrations/d/register"),
    ("GET", "/0ne00000000/registrations/d/operations/o"),
    ("PUT", "/enrollments/e"),
    ("POST", "/enrollmentGroups/query"),
    ("GET", "/registrations/d"),
    ("GET", "/certificates"),
    ("PUT", "/subscriptions/s/resourceGroups/g/providers/Microsoft.Devices/IotHubs/h/certificates/c"),
];

#[tokio::test]
async fn what_is_not_served_answers_501_in_a_hubs_words() {
    let hub = Hub::with_device_and_module().await;
    let others = OF_OTHERS.map(|(method, path)| (method, path, "{}"));
    for (method, path, body) in OF_SERVICES.into_iter().chain(others) {
        let answer = hub.send(method, path, None, body).await;
        assert_eq!((answer.status, answer.code.as_str()), (501, "NotImplemented"), "{method} {path}");
        let (message, tracking) = (answer.at(&["Message"]), answer.at(&["ExceptionMessage"]));
        assert!(message.starts_with("\"ErrorCode:NotImplemented;"), "{method} {path}: {message}");
        assert!(message.contains("is not implemented by the embedded hub"), "{method} {path}: {message}");
        assert!(tracking.starts_with("\"Tracking ID:"), "{method} {path}: {tracking}");
    }
    let list = hub.send("GET", "/devices", None, "").await;
    assert_eq!(list.body.to_string().matches("deviceId").count(), 1, "nothing was made");
}

#[tokio::test]
async fn without_a_token_a_service_learns_nothing_and_a_device_what_is_missing() {
    let hub = Hub::with_device_and_module().await;
    let services = OF_SERVICES.map(|(method, path, _)| (method, path, 401));
    for (method, path, status) in services.into_iter().chain(OF_OTHERS.map(|(method, path)| (method, path, 501))) {
        let request = Request::builder().method(method).uri(format!("{path}?api-version=2021-04-12"));
        let answer = hub.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
    }
}

#[tokio::test]
async fn what_no_hub_has_is_no_address_and_no_method() {
    let hub = Hub::with_device_and_module().await;
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/devices/d/other", 404),
        ("GET", "/twins/d/streams/s", 405),
        ("PUT", "/digitaltwins/d", 405),
        ("POST", "/twins/d", 405),
    ] {
        assert_eq!(hub.send(method, path, None, "{}").await.status, status, "{method} {path}");
    }
}
