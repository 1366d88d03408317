//! A plan for people: group by group, twin by twin, leaf by leaf.

use std::io::Write;

use super::view::{Operation, View, phrase, planned, why_not};
use crate::cli::approval::with_flag;
use crate::cli::output::{Output, Style, counted};
use crate::controller::Surveyed;
use crate::plan::Held;
use crate::twin::TwinRef;

pub(super) fn write<W: Write>(view: &View<'_>, out: &mut Output<W>) {
    for (group, twins) in &view.groups {
        out.styled(Style::Heading, &format!("{} ({})", group.title(), counted(twins.len(), "twin")));
        twins.iter().for_each(|(twin, surveyed)| write_twin(view, twin, surveyed, out));
        out.line("");
    }
    out.styled(Style::Heading, &view.summary());
    let counts = &view.counts;
    let leaves = counts.leaves();
    if !leaves.is_empty() {
        out.line(&format!("leaves: {}", phrase(&leaves)));
    }
    if counts.outside > 0 {
        out.line(&format!("changed outside: {}", counted(counts.outside, "twin")));
    }
    view.about.notices.iter().for_each(|notice| out.styled(Style::Trouble, notice));
    if !view.other_owners.is_empty() {
        let met: Vec<String> =
            view.other_owners.iter().map(|(owner, twins)| format!("{owner} ({})", counted(*twins, "twin"))).collect();
        out.line(&format!("other owners met: {}", met.join(", ")));
    }
}

fn write_twin<W: Write>(view: &View<'_>, twin: &TwinRef, surveyed: &Surveyed, out: &mut Output<W>) {
    if let Some(why) = why_not(twin, surveyed) {
        out.styled(Style::Trouble, &format!("  {twin}: {why}"));
        return;
    }
    out.line(&format!("  {twin}"));
    let Some(planned) = planned(surveyed) else { return };
    for change in &planned.plan.changes {
        let (sign, style) = match Operation::of(change) {
            Operation::Add => ('+', Style::Added),
            Operation::Change => ('~', Style::Changed),
            Operation::Remove => ('-', Style::Removed),
        };
        out.styled(style, &format!("    {sign} {}", view.change(change)));
    }
    planned.plan.held.iter().for_each(|held| out.styled(Style::Trouble, &format!("    ! {}", held_text(view, held))));
}

/// What is held and why.
pub(super) fn held_text(view: &View<'_>, held: &Held) -> String {
    let reason = with_flag(&held.reason.to_string(), held.reason.approval());
    match &held.change {
        Some(change) => format!("{}: held: {reason}", view.change(change)),
        None => format!("held: {reason}"),
    }
}
