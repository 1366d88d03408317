//! Filling a hub with devices for trials, from one twin with `{n}` in it (`--fill-devices`, `--fill-template`).
//!
//! Invariant: devices that are there already are left alone, so that filling twice fills once. What one device breaks
//! is told before anything is written, since all are made from one text; a later one can differ by its number alone.

use jiff::Timestamp;

use super::error::Refusal;
use super::identity::Random;
use super::registry::{Kept, Registry};
use super::twin_record::TwinRecord;
use super::wire;
use crate::twin::DeviceId;

/// What stands for the number of a device, from 0.
const PLACEHOLDER: &str = "{n}";
/// The id of a device whose template names none.
const DEVICE_ID: &str = "device-{n}";
/// How many devices are kept in one commit.
pub const BATCH: usize = 10_000;

/// How to fill a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FillOptions {
    /// How many devices the hub shall have from the template.
    pub devices: u64,
    /// The twin as JSON text: `deviceId`, `tags`, `properties.desired`, `properties.reported`, each of them optional;
    /// `{n}` in it is the number of the device.
    pub template: String,
}

/// Why a hub cannot be filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot fill the embedded hub: device {number} of the template: {reason}")]
pub struct FillError {
    /// The number of the device.
    pub number: u64,
    /// What the hub refuses, and why.
    pub reason: Refusal,
}

/// Fills `registry` and hands what changed to `keep`, at most [`BATCH`] changes at a time.
///
/// # Errors
/// [`FillError`], or what `keep` says.
pub fn fill<E: From<FillError>>(
    registry: &mut Registry,
    options: &FillOptions,
    random: Random<'_>,
    now: Timestamp,
    mut keep: impl FnMut(&[Kept]) -> Result<(), E>,
) -> Result<(), E> {
    let mut changes = Vec::with_capacity(BATCH);
    for number in 0..options.devices {
        let refused = |reason| FillError { number, reason };
        let (id, twin) = device(&options.template, number, now).map_err(refused)?;
        match registry.create_with_twin(&id, twin, random, now) {
            // The log would grow with the fleet; what is handed on is the same.
            Ok(_) => changes.append(&mut registry.take_log()),
            Err(Refusal::DeviceAlreadyExists(_)) => {}
            Err(refusal) => return Err(refused(refusal).into()),
        }
        if changes.len() == BATCH {
            keep(&changes)?;
            changes.clear();
        }
    }
    if changes.is_empty() { Ok(()) } else { keep(&changes) }
}

/// The device of one number.
fn device(template: &str, number: u64, now: Timestamp) -> Result<(DeviceId, TwinRecord), Refusal> {
    let number = number.to_string();
    let text = template.replace(PLACEHOLDER, &number);
    let (id, patch, reported) = wire::whole_twin(text.as_bytes())?;
    let id = id.unwrap_or_else(|| DEVICE_ID.replace(PLACEHOLDER, &number));
    let id = DeviceId::new(&id).map_err(|error| Refusal::ArgumentInvalid(format!("deviceId: {error}")))?;
    let twin = TwinRecord::new(now).patched(&patch, now)?;
    let twin = match reported {
        None => twin,
        Some(reported) => twin.reported(&reported, now)?,
    };
    Ok((id, twin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::{Object, Value};

    const TEMPLATE: &str = r#"{"deviceId":"sensor-{n}","tags":{"site":"s{n}","n":{n}},
        "properties":{"desired":{"interval":60},"reported":{"firmware":"1.{n}","$version":3}}}"#;

    fn filled(registry: &mut Registry, devices: u64, template: &str) -> Result<Vec<usize>, FillError> {
        let options = FillOptions { devices, template: template.to_owned() };
        let mut commits = Vec::new();
        fill(registry, &options, &mut |bytes: &mut [u8]| bytes.fill(1), Timestamp::UNIX_EPOCH, |changes| {
            commits.push(changes.len());
            Ok::<(), FillError>(())
        })?;
        Ok(commits)
    }

    #[test]
    fn a_template_makes_each_device_with_its_number_and_filling_twice_fills_once() {
        let mut registry = Registry::default();
        assert_eq!(filled(&mut registry, 3, TEMPLATE), Ok(vec![3]));
        assert_eq!(filled(&mut registry, 5, TEMPLATE), Ok(vec![2]));
        assert_eq!(filled(&mut registry, 5, TEMPLATE), Ok(vec![]));
        let device = registry.device(&DeviceId::new("sensor-4").unwrap()).unwrap();
        let json = |object: &Object| Value::Object(object.clone()).to_string();
        assert_eq!(json(device.twin.tags.as_ref().unwrap()), r#"{"n":4,"site":"s4"}"#);
        assert_eq!(json(&device.twin.desired.values), r#"{"interval":60}"#);
        assert_eq!(json(&device.twin.reported.values), r#"{"firmware":"1.4"}"#);
        assert_eq!(filled(&mut registry, 2 * BATCH as u64 + 1, "{}"), Ok(vec![BATCH, BATCH, 1]));
        assert!(registry.device(&DeviceId::new("device-0").unwrap()).is_ok());
    }

    #[test]
    fn a_template_that_no_hub_takes_names_the_device_and_the_rule() {
        for (template, reason) in [
            ("[]", "the template must be an object"),
            ("{", "the body is not the expected JSON"),
            (r#"{"deviceId":"a b{n}"}"#, "deviceId: an id may not hold ' '"),
            (r#"{"deviceId":7}"#, "deviceId must be a string"),
            (r#"{"tags":{"a.b":1}}"#, "tags.a.b"),
            (r#"{"properties":{"reported":[]}}"#, "properties.reported must be an object"),
        ] {
            let error = filled(&mut Registry::default(), 1, template).unwrap_err().to_string();
            assert!(error.contains("device 0 of the template") && error.contains(reason), "{template}: {error}");
        }
    }
}
