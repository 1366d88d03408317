//! A plan for programs. `formatVersion` is raised when a field changes its meaning or goes.

use serde_json::{Value as Json, json};

use super::view::{Group, Operation, View, planned, why_not};
use crate::cli::approval::with_flag;
use crate::controller::Surveyed;
use crate::plan::{Change, Held, SealAction};
use crate::twin::{ModuleId, TwinRef, Value};

/// The version of the document.
const FORMAT_VERSION: u32 = 1;

pub(super) fn document(view: &View<'_>) -> Json {
    let counts = &view.counts;
    let twins: Vec<Json> = view
        .groups
        .iter()
        .flat_map(|(group, twins)| twins.iter().map(move |(twin, surveyed)| (*group, *twin, *surveyed)))
        .map(|(group, twin, surveyed)| twin_json(group, twin, surveyed))
        .collect();
    json!({
        "formatVersion": FORMAT_VERSION,
        "owner": view.about.owner,
        "host": view.about.host,
        "revision": view.about.revision,
        "manifestErrors": view.about.problems,
        "counts": {
            "twins": counts.twins, "register": counts.register, "change": counts.change,
            "changedOutside": counts.outside, "release": counts.release, "held": counts.held,
            "missing": counts.missing, "failed": counts.failed, "seal": counts.seal, "inSync": counts.in_sync,
            "leavesAdded": counts.leaves_added, "leavesChanged": counts.leaves_changed,
            "leavesRemoved": counts.leaves_removed,
        },
        "notices": view.about.notices,
        "otherOwners": view.other_owners,
        "twins": twins,
    })
}

fn twin_json(group: Group, twin: &TwinRef, surveyed: &Surveyed) -> Json {
    let (changes, held) = planned(surveyed).map_or((Vec::new(), Vec::new()), |planned| {
        let plan = &planned.plan;
        (plan.changes.iter().map(change_json).collect(), plan.held.iter().map(held_json).collect::<Vec<Json>>())
    });
    let seal = planned(surveyed).map(|planned| match planned.plan.seal {
        SealAction::Keep => "keep",
        SealAction::Write => "write",
        SealAction::Remove => "remove",
    });
    json!({
        "twin": twin.to_string(),
        "device": twin.device.as_str(),
        "module": twin.module.as_ref().map(ModuleId::as_str),
        "group": group.as_str(),
        "changes": changes,
        "held": held,
        "seal": seal,
        "message": why_not(twin, surveyed),
    })
}

fn change_json(change: &Change) -> Json {
    let shown = |value: &Value| change.mask.map_or_else(|| value.to_json(), |salt| Json::from(salt.hide(value)));
    json!({
        "path": change.leaf.to_string(),
        "operation": Operation::of(change).as_str(),
        "from": change.from.as_ref().map(shown),
        "to": change.to.as_ref().map(shown),
        "sensitive": change.mask.is_some(),
        "file": change.source.as_ref().map(|place| &*place.file),
        "line": change.source.as_ref().map(|place| place.line),
    })
}

fn held_json(held: &Held) -> Json {
    json!({
        "reason": held.reason.as_str(),
        "message": with_flag(&held.reason.to_string(), held.reason.approval()),
        "change": held.change.as_ref().map(change_json),
    })
}
