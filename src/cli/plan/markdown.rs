//! A plan for a comment of a pull request: counts first, each group folded, all of it capped.
//!
//! Invariant: what a manifest, a hub or a device says stands in a fence longer than any run of backticks in it, so that
//! no text of theirs is markup; and the whole is short enough for a comment.

use super::text::held_text;
use super::view::{Group, Operation, View, phrase, planned, why_not};
use crate::cli::output::{counted, printable};
use crate::controller::Surveyed;
use crate::twin::TwinRef;

/// The most bytes of twins in one document; GitHub takes 65,536 characters in a comment.
const BODY_SIZE_MAX: usize = 56_000;
/// The fewest backticks of a fence.
const FENCE_MIN: usize = 3;
/// The most owners named.
const OWNERS_MAX: usize = 10;

pub(super) fn document(view: &View<'_>) -> String {
    let about = &view.about;
    let listed = phrase(&view.counts.listed());
    let mut text = format!("### geminid plan: {}\n\n", if listed.is_empty() { "no twins" } else { &listed });
    text.push_str(&format!(
        "owner `{}` on `{}`, revision `{}`\n",
        about.owner,
        plain(&about.host),
        plain(&about.revision)
    ));
    let leaves = view.counts.leaves();
    if !leaves.is_empty() {
        text.push_str(&format!("\nleaves: {}\n", phrase(&leaves)));
    }
    if about.problems > 0 {
        let errors = counted(about.problems, "error");
        text.push_str(&format!("\n**{errors} in the manifests**: nothing is removed until they can be read again\n"));
    }
    for notice in &about.notices {
        text.push_str(&format!("\n**{notice}**\n"));
    }
    if !view.other_owners.is_empty() {
        let mut met: Vec<String> = view
            .other_owners
            .iter()
            .take(OWNERS_MAX)
            .map(|(owner, twins)| format!("`{}` ({})", plain(owner), counted(*twins, "twin")))
            .collect();
        if view.other_owners.len() > OWNERS_MAX {
            met.push(format!("{} more", view.other_owners.len() - OWNERS_MAX));
        }
        text.push_str(&format!("\nother owners met: {}\n", met.join(", ")));
    }
    let mut room = BODY_SIZE_MAX;
    for (group, twins) in &view.groups {
        text.push_str(&folded(view, *group, twins, &mut room));
    }
    text
}

/// One group behind its title; twins that find no room are counted.
fn folded(view: &View<'_>, group: Group, twins: &[(&TwinRef, &Surveyed)], room: &mut usize) -> String {
    let mut body = String::new();
    let mut left_out = 0_usize;
    for (twin, surveyed) in twins {
        let lines = twin_lines(view, twin, surveyed);
        if left_out > 0 || lines.len() > *room {
            left_out += 1;
            continue;
        }
        *room -= lines.len();
        body.push_str(&lines);
    }
    let fence = "`".repeat(FENCE_MIN.max(longest_run(&body, '`') + 1));
    let more = if left_out > 0 {
        format!("\n{} more did not fit; `geminid plan` shows all of them\n", counted(left_out, "twin"))
    } else {
        String::new()
    };
    let block = if body.is_empty() { String::new() } else { format!("{fence}diff\n{body}{fence}\n") };
    let title = group.title();
    format!("\n<details>\n<summary>{title} ({})</summary>\n\n{block}{more}\n</details>\n", counted(twins.len(), "twin"))
}

/// The first character of a line is what colours it: `+`, `-`, `!`.
fn twin_lines(view: &View<'_>, twin: &TwinRef, surveyed: &Surveyed) -> String {
    let mut lines = Vec::new();
    match why_not(twin, surveyed) {
        Some(why) => lines.push(format!("! {twin}: {why}")),
        None => lines.push(format!("  {twin}")),
    }
    if let Some(planned) = planned(surveyed) {
        for change in &planned.plan.changes {
            let sign = match Operation::of(change) {
                Operation::Add => '+',
                Operation::Change => '!',
                Operation::Remove => '-',
            };
            lines.push(format!("{sign}   {}", view.change(change)));
        }
        lines.extend(planned.plan.held.iter().map(|held| format!("#   {}", held_text(view, held))));
    }
    lines.iter().map(|line| one_line(line) + "\n").collect()
}

/// Without line breaks and control characters.
fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\n")
}

/// Fit for `code`.
fn plain(text: &str) -> String {
    one_line(text).replace('`', "'")
}

fn longest_run(text: &str, wanted: char) -> usize {
    let (mut longest, mut run) = (0, 0);
    for character in text.chars() {
        run = if character == wanted { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}
