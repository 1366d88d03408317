//! From an answer that is not the one hoped for to a [`HubError`] (`iot-hub.md` section 3, `DESIGN.md` 4.2).
//!
//! ```text
//! 401                                   Unauthorized (the client has renewed the token once by then)
//! 403 IotHubQuotaExceeded               Quota            any other 403   Unauthorized
//! 404 DeviceNotFound, ModuleNotFound    NotFound         no code, or one that passes by itself   Server
//! 409 on create                         AlreadyExists
//! 412, or 400 EtagDoesNotMatch          PreconditionFailed, on a guarded write
//! 429                                   Throttled
//! 408, 499, 5xx, not an error at all    Server
//! any other 4xx                         Rejected
//! ```
//!
//! Invariant: pure. Every status gives an error, whatever the body was.

use std::time::Duration;

use super::HubError;
use super::wire::Fault;
use crate::twin::{DeviceId, TwinRef};

/// The longest hint to wait that is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked<'a> {
    /// To read a twin.
    Read(&'a TwinRef),
    /// To write a twin under its etag.
    Write(&'a TwinRef),
    /// To register a device.
    Create(&'a DeviceId),
    /// To read the key of a device.
    Key(&'a DeviceId),
    /// A page of a query.
    Page,
}

/// Who asked whom, for the messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parties<'a> {
    /// The hub's address.
    pub(super) hub: &'a str,
    /// What the credential is called.
    pub(super) credential: &'a str,
}

/// The error of an answer with `status`, which was not what was hoped for.
pub(super) fn refusal(
    asked: Asked<'_>,
    parties: Parties<'_>,
    status: u16,
    retry_after: Option<&str>,
    fault: Fault,
) -> HubError {
    let server = |fault: &Fault| HubError::Server { status: Some(status), message: words(status, fault) };
    let code = || fault.code.clone().unwrap_or_else(|| "no code".to_owned());
    match (status, fault.code.as_deref().unwrap_or_default(), asked) {
        (401, _, _) => unauthorized(asked, parties, status, &fault),
        (403, "IotHubQuotaExceeded", _) => HubError::Quota,
        (403, _, _) => HubError::Unauthorized {
            message: format!(
                "hub {} does not let {} do this: {}",
                parties.hub,
                parties.credential,
                words(status, &fault)
            ),
        },
        (404, "DeviceNotFound" | "ModuleNotFound", Asked::Read(twin) | Asked::Write(twin)) => {
            HubError::NotFound(twin.clone())
        }
        (404, "DeviceNotFound", Asked::Key(device)) => HubError::NotFound(TwinRef::device(device.clone())),
        (404, "IotHubFailingOver" | "QueryStoreClusterNotFound" | "DeviceConnectionClosedRemotely", _) => {
            server(&fault)
        }
        (404, "", _) => HubError::Server {
            status: Some(status),
            message: format!("{} and no code of an IoT Hub; check that {} is one", words(status, &fault), parties.hub),
        },
        (409, _, Asked::Create(device)) => HubError::AlreadyExists(device.clone()),
        (412, _, Asked::Write(_)) | (400, "EtagDoesNotMatch", Asked::Write(_)) => HubError::PreconditionFailed,
        (429, _, _) => HubError::Throttled { code: code(), retry_after: retry_after.and_then(wait_hint) },
        (408 | 499, _, _) => server(&fault),
        (400..=499, _, _) => HubError::Rejected { status, code: code(), message: fault.message },
        (300..=399, _, _) => HubError::Server {
            status: Some(status),
            message: format!("{status}: {} answers with a redirect, which is not followed", parties.hub),
        },
        (500..=599, _, _) => server(&fault),
        (_, _, _) => HubError::Server { status: Some(status), message: format!("status {status} was not expected") },
    }
}

fn unauthorized(asked: Asked<'_>, parties: Parties<'_>, status: u16, fault: &Fault) -> HubError {
    let Parties { hub, credential } = parties;
    let check = if matches!(asked, Asked::Key(_)) {
        "it may read the keys of devices (a policy with RegistryRead, such as registryRead; with Entra the role IoT Hub \
         Registry Contributor), that it has not ended or changed, and that this machine's clock is right"
    } else if credential.starts_with("policy ") {
        "the key is that policy's present one, that the policy has ServiceConnect (and RegistryReadWrite to create \
         devices), and that this machine's clock is right"
    } else {
        "it has not ended, and that it may read and write twins (with Entra the role IoT Hub Twin Contributor, and IoT \
         Hub Registry Contributor to create devices)"
    };
    let message = format!("hub {hub} refuses {credential} ({}); check that {check}", words(status, fault));
    HubError::Unauthorized { message }
}

/// `503 ServiceUnavailable: words`, as much of it as there is.
fn words(status: u16, fault: &Fault) -> String {
    let mut text = status.to_string();
    if let Some(code) = &fault.code {
        text = format!("{text} {code}");
    }
    if fault.message.is_empty() { text } else { format!("{text}: {}", fault.message) }
}

/// Seconds of `Retry-After`; its date form is not believed, for it needs both clocks to agree.
fn wait_hint(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(asked: Asked<'_>, status: u16, code: &str, category: &str, text: &str) {
        let parties = Parties { hub: "h.net", credential: "policy service" };
        let fault = Fault { code: (!code.is_empty()).then(|| code.to_owned()), message: "words".to_owned() };
        let error = refusal(asked, parties, status, Some("7"), fault);
        assert_eq!((error.category(), error.to_string().as_str()), (category, text), "{status} {code}");
    }

    #[test]
    fn each_refusal_says_what_to_do_next() {
        let twin = TwinRef::device(DeviceId::new("d1").unwrap());
        let (read, write, create) = (Asked::Read(&twin), Asked::Write(&twin), Asked::Create(&twin.device));
        let key = Asked::Key(&twin.device);
        for (asked, status, code, category, text) in [
            (read, 404, "DeviceNotFound", "not_found", "d1 is not registered"),
            (write, 404, "ModuleNotFound", "not_found", "d1 is not registered"),
            (Asked::Page, 404, "DeviceNotFound", "invalid", "refused by the hub: 404 DeviceNotFound: words"),
            (read, 404, "JobNotFound", "invalid", "refused by the hub: 404 JobNotFound: words"),
            (read, 404, "", "server", "the hub failed: 404: words and no code of an IoT Hub; check that h.net is one"),
            (read, 404, "IotHubFailingOver", "server", "the hub failed: 404 IotHubFailingOver: words"),
            (write, 412, "PreconditionFailed", "conflict", "the twin changed since it was read"),
            (write, 412, "", "conflict", "the twin changed since it was read"),
            (write, 400, "EtagDoesNotMatch", "conflict", "the twin changed since it was read"),
            (Asked::Page, 412, "PreconditionFailed", "invalid", "refused by the hub: 412 PreconditionFailed: words"),
            (create, 409, "DeviceAlreadyExists", "conflict", "device d1 is already registered"),
            (write, 409, "X", "invalid", "refused by the hub: 409 X: words"),
            (write, 400, "ArgumentInvalid", "invalid", "refused by the hub: 400 ArgumentInvalid: words"),
            (write, 400, "", "invalid", "refused by the hub: 400 no code: words"),
            (write, 413, "MessageTooLarge", "invalid", "refused by the hub: 413 MessageTooLarge: words"),
            (write, 429, "ThrottlingException", "throttled", "throttled by the hub (ThrottlingException)"),
            (write, 403, "IotHubQuotaExceeded", "quota", "the hub's daily message quota is used up until 00:00 UTC"),
            (
                write,
                403,
                "IotHubSuspended",
                "unauthorized",
                "hub h.net does not let policy service do this: 403 IotHubSuspended: words",
            ),
            (
                read,
                401,
                "IotHubUnauthorizedAccess",
                "unauthorized",
                "hub h.net refuses policy service (401 IotHubUnauthorizedAccess: words); check that the key is that policy's \
                 present one, that the policy has ServiceConnect (and RegistryReadWrite to create devices), and that \
                 this machine's clock is right",
            ),
            (key, 404, "DeviceNotFound", "not_found", "d1 is not registered"),
            (key, 409, "X", "invalid", "refused by the hub: 409 X: words"),
            (
                key,
                401,
                "",
                "unauthorized",
                "hub h.net refuses policy service (401: words); check that it may read the keys of devices (a policy \
                 with RegistryRead, such as registryRead; with Entra the role IoT Hub Registry Contributor), that it \
                 has not ended or changed, and that this machine's clock is right",
            ),
            (read, 408, "", "server", "the hub failed: 408: words"),
            (read, 503, "ServiceUnavailable", "server", "the hub failed: 503 ServiceUnavailable: words"),
            (read, 302, "", "server", "the hub failed: 302: h.net answers with a redirect, which is not followed"),
            (read, 204, "", "server", "the hub failed: status 204 was not expected"),
            (read, 999, "", "server", "the hub failed: status 999 was not expected"),
        ] {
            check(asked, status, code, category, text);
        }
    }

    #[test]
    fn every_status_gives_an_error() {
        let twin = TwinRef::device(DeviceId::new("d1").unwrap());
        for status in 100..=999 {
            let parties = Parties { hub: "h.net", credential: "policy service" };
            let fault = Fault { code: None, message: String::new() };
            let error = refusal(Asked::Read(&twin), parties, status, None, fault);
            assert!(!error.to_string().is_empty(), "{status}");
        }
    }

    #[test]
    fn a_hint_to_wait_is_bounded() {
        for (text, hint) in [
            ("10", Some(10)),
            (" 0 ", Some(0)),
            ("99999999999", Some(3600)),
            ("-1", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
            ("", None),
        ] {
            assert_eq!(wait_hint(text), hint.map(Duration::from_secs), "{text}");
        }
    }
}
