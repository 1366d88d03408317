//! Direct methods: from the caller to the device and back (`iot-hub.md` 2.10).
//!
//! Invariant: a call ends by its answer or by its time, and leaves nothing behind when its caller goes before.

use std::time::Duration;

use tokio::time::{timeout, timeout_at};

use super::super::error::Refusal;
use super::super::handle::HubHandle;
use super::presence::MethodAnswer;
use crate::twin::TwinRef;

/// The longest name of a method, in characters.
const NAME_LENGTH_MAX: usize = 128;
/// The largest payload, in bytes (`iot-hub.md` 2.10).
const PAYLOAD_BYTES_MAX: usize = 128 * 1024;
/// How long an answer may take, in seconds (`iot-hub.md` 2.10).
const RESPONSE_SECONDS: std::ops::RangeInclusive<u64> = 5..=300;
const RESPONSE_SECONDS_DEFAULT: u64 = 30;
/// How long a device may take to connect, in seconds.
const CONNECT_SECONDS_MAX: u64 = 300;

/// A call as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodCall {
    name: String,
    payload: Vec<u8>,
    response_time: Duration,
    connect_time: Duration,
}

impl MethodCall {
    /// A call of `name` with `payload`, which is JSON. Times are in seconds and have their defaults when left out.
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] for a name that fits no topic, a payload over 128 KB, or times out of range.
    pub fn new(
        name: String,
        payload: Vec<u8>,
        response_seconds: Option<u64>,
        connect_seconds: Option<u64>,
    ) -> Result<Self, Refusal> {
        let response = response_seconds.unwrap_or(RESPONSE_SECONDS_DEFAULT);
        let connect = connect_seconds.unwrap_or(0);
        let fits = !name.is_empty() && name.chars().count() <= NAME_LENGTH_MAX;
        if !fits || name.chars().any(|c| c.is_control() || matches!(c, '/' | '+' | '#')) {
            return invalid(format!("methodName has 1 to {NAME_LENGTH_MAX} characters, none of them / + # or control"));
        }
        if payload.len() > PAYLOAD_BYTES_MAX {
            return invalid(format!("payload has at most {PAYLOAD_BYTES_MAX} bytes"));
        }
        if !RESPONSE_SECONDS.contains(&response) {
            let (least, most) = (RESPONSE_SECONDS.start(), RESPONSE_SECONDS.end());
            return invalid(format!("responseTimeoutInSeconds is {least} to {most}"));
        }
        if connect > CONNECT_SECONDS_MAX || connect > response {
            let most = CONNECT_SECONDS_MAX.min(response);
            return invalid(format!("connectTimeoutInSeconds is at most {most} and responseTimeoutInSeconds"));
        }
        let (response_time, connect_time) = (Duration::from_secs(response), Duration::from_secs(connect));
        Ok(Self { name, payload, response_time, connect_time })
    }

    /// How many bytes of JSON the device is given.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }
}

fn invalid<T>(why: String) -> Result<T, Refusal> {
    Err(Refusal::ArgumentInvalid(why))
}

impl HubHandle {
    /// Calls a method of `who`, waiting for it to connect and then for its answer.
    ///
    /// # Errors
    /// [`Refusal::DeviceNotFound`]; [`Refusal::DeviceNotOnline`] when it is not connected, or takes no methods, for
    /// the call's time to connect; [`Refusal::MethodTimeout`]; [`Refusal::TooManyMethods`].
    pub async fn call_method(&self, who: &TwinRef, call: &MethodCall) -> Result<MethodAnswer, Refusal> {
        self.record(who).await?;
        let mut arrivals = self.look(|presence, _, _| presence.arrivals());
        #[expect(clippy::disallowed_methods, reason = "the wait for a device begins now")]
        let connect_until = tokio::time::Instant::now() + call.connect_time;
        let (request, answer) = loop {
            // Seen before the look, so that an arrival during the look wakes the next one.
            arrivals.borrow_and_update();
            let sent = self.look(|presence, _, _| presence.call(who, &call.name, call.payload.clone()));
            if let Some(sent) = sent? {
                break sent;
            }
            let arrived = timeout_at(connect_until, arrivals.changed()).await;
            if !matches!(arrived, Ok(Ok(()))) {
                return Err(Refusal::DeviceNotOnline);
            }
        };
        let _waiting = Waiting { hub: self, request };
        match timeout(call.response_time, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(Refusal::MethodTimeout),
        }
    }
}

/// Forgets the call when nobody waits any more.
struct Waiting<'a> {
    hub: &'a HubHandle,
    request: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.hub.look(|presence, _, _| presence.forget_call(self.request));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_refused_outside_the_hub_s_bounds() {
        let call = |name: &str, payload: usize, response, connect| {
            MethodCall::new(name.to_owned(), vec![b'1'; payload], response, connect).is_ok()
        };
        for (name, payload, response, connect, good) in [
            ("reboot", 1, None, None, true),
            ("reboot", PAYLOAD_BYTES_MAX, Some(5), Some(5), true),
            ("reboot", PAYLOAD_BYTES_MAX + 1, None, None, false),
            ("reboot", 1, Some(300), Some(300), true),
            ("reboot", 1, Some(4), None, false),
            ("reboot", 1, Some(301), None, false),
            ("reboot", 1, Some(10), Some(11), false),
            ("reboot", 1, None, Some(31), false),
            ("", 1, None, None, false),
            ("a/b", 1, None, None, false),
            ("a#", 1, None, None, false),
            ("a\n", 1, None, None, false),
        ] {
            assert_eq!(call(name, payload, response, connect), good, "{name:?} {payload} {response:?} {connect:?}");
        }
        assert!(!call(&"n".repeat(NAME_LENGTH_MAX + 1), 1, None, None));
    }
}
