//! Any bytes as the body of a request: reading never panics, and a twin stays within the limits it is checked for.
//!
//! The first byte chooses the request.

#![no_main]

use geminid::emulator::fill::{FillError, FillOptions, fill};
use geminid::emulator::faults::FaultPlan;
use geminid::emulator::identity::IdentitySpec;
use geminid::emulator::if_match::IfMatch;
use geminid::emulator::query::run_page;
use geminid::emulator::registry::Registry;
use geminid::emulator::{stored, wire};
use geminid::twin::{DeviceId, TwinRef};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

const T: Timestamp = Timestamp::UNIX_EPOCH;

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let id = DeviceId::new("d").expect("an id");
    let twin = TwinRef::device(id.clone());
    let mut registry = Registry::default();
    let mut random = |bytes: &mut [u8]| bytes.fill(1);
    let new = IdentitySpec::default();
    registry.put_identity(&id, new, &IfMatch::Absent, &mut random, T).expect("the first device fits");
    match choice % 7 {
        0 | 1 => {
            let Ok(patch) = wire::twin_write(body) else { return };
            let written = match choice % 7 {
                0 => registry.patch_twin(&twin, &patch, &IfMatch::Absent, T),
                _ => registry.replace_twin(&twin, &patch, &IfMatch::Absent, T),
            };
            if written.is_err() {
                return;
            }
        }
        2 => {
            if let Ok(spec) = wire::identity_write(body, &id) {
                registry.put_identity(&id, spec, &IfMatch::Any, &mut random, T).ok();
            }
        }
        3 => {
            if let Ok(text) = wire::query(body) {
                run_page(&registry, &text, None, None).ok();
                run_page(&registry, &text, Some(0), Some(&text)).ok();
            }
        }
        4 => {
            stored::read_device("d", body).ok();
        }
        5 => {
            FaultPlan::quiet(1).replaced(body).ok();
        }
        _ => {
            let Ok(template) = std::str::from_utf8(body) else { return };
            let options = FillOptions { devices: 2, template: template.to_owned() };
            fill(&mut registry, &options, &mut random, T, |_| Ok::<(), FillError>(())).ok();
        }
    }
    for device in registry.devices_after(None) {
        let bytes = stored::device(&device);
        let mut again = stored::read_device(device.identity.device.as_str(), &bytes).expect("what is kept is read");
        again.change = device.change;
        assert_eq!(again, *device);
        assert!(!wire::twin(&device).is_empty());
    }
});
