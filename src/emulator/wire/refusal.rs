//! The bodies of refusals (`iot-hub.md` 3.1).

use jiff::Timestamp;
use serde::Serialize;

use super::super::error::Refusal;
use super::json::{date, json};

/// Error shape A (`iot-hub.md` 3.1).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorBody {
    message: String,
    exception_message: String,
}

/// Error shape B, which stands as a text inside shape A where a hub has two services behind one address.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InnerBody {
    error_code: u32,
    tracking_id: String,
    message: String,
    timestamp_utc: String,
    info: (),
}

/// The body of a refusal. `tracking` names this answer in logs; 32 hex digits on a real hub.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "JSON is UTF-8")]
pub fn refusal(refusal: &Refusal, tracking: u128, now: Timestamp) -> Vec<u8> {
    let tracking_id = format!("{tracking:032X}-G:0-TimeStamp:{}", now.strftime("%m/%d/%Y %H:%M:%S"));
    let message = match refusal.nested_code() {
        None => format!("ErrorCode:{};{refusal}", refusal.code()),
        Some(error_code) => {
            let inner = InnerBody {
                error_code,
                tracking_id: tracking_id.clone(),
                message: refusal.to_string(),
                timestamp_utc: date(now),
                info: (),
            };
            String::from_utf8(json(&inner)).expect("JSON is UTF-8")
        }
    };
    json(&ErrorBody { message, exception_message: format!("Tracking ID:{tracking_id}") })
}

/// The body of an answer that a fault gives.
#[must_use]
pub fn fault(code: &str, tracking: u128, now: Timestamp) -> Vec<u8> {
    let at = now.strftime("%m/%d/%Y %H:%M:%S");
    json(&ErrorBody {
        message: format!("ErrorCode:{code};a fault on purpose"),
        exception_message: format!("Tracking ID:{tracking:032X}-G:0-TimeStamp:{at}"),
    })
}

/// Shape B alone, as devices get it.
#[must_use]
pub fn numbered_refusal(refusal: &Refusal, tracking: u128, now: Timestamp) -> Vec<u8> {
    json(&InnerBody {
        error_code: refusal.number(),
        tracking_id: format!("{tracking:032X}"),
        message: refusal.to_string(),
        timestamp_utc: date(now),
        info: (),
    })
}

/// The same for an answer that a fault gives: the number is that of `status`, with three zeros.
#[must_use]
pub fn numbered_fault(status: u16, code: &str, tracking: u128, now: Timestamp) -> Vec<u8> {
    json(&InnerBody {
        error_code: u32::from(status) * 1000,
        tracking_id: format!("{tracking:032X}"),
        message: format!("{code}: a fault on purpose"),
        timestamp_utc: date(now),
        info: (),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::DeviceId;

    fn printed(refused: &Refusal) -> String {
        String::from_utf8(refusal(refused, 0xAB, "2026-11-23T03:04:05Z".parse().unwrap())).unwrap()
    }

    #[test]
    fn an_error_has_the_shape_that_sdks_split() {
        assert_eq!(
            printed(&Refusal::DeviceNotFound(DeviceId::new("d1").unwrap())),
            concat!(
                r#"{"Message":"ErrorCode:DeviceNotFound;d1","ExceptionMessage":"Tracking ID:"#,
                r#"000000000000000000000000000000AB-G:0-TimeStamp:11/23/2026 03:04:05"}"#
            )
        );
    }

    #[test]
    fn a_module_of_no_device_is_refused_in_the_nested_shape() {
        assert_eq!(
            printed(&Refusal::ModuleUnauthorized(DeviceId::new("d1").unwrap())),
            concat!(
                r#"{"Message":"{\"errorCode\":401002,\"trackingId\":\"000000000000000000000000000000AB-G:0-TimeStamp:"#,
                r#"11/23/2026 03:04:05\",\"message\":\"Unauthorized\",\"timestampUtc\":\"2026-11-23T03:04:05Z\","#,
                r#"\"info\":null}","ExceptionMessage":"Tracking ID:"#,
                r#"000000000000000000000000000000AB-G:0-TimeStamp:11/23/2026 03:04:05"}"#
            )
        );
    }
}
