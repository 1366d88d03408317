//! Approvals by a flag, for where no daemon runs.
//!
//! Invariant: an approval is bound to what was looked at: guard, revision and count. At any other revision it is
//! refused, not ignored.

use anyhow::bail;
use clap::Args;

use crate::plan::{Approval, GuardKind};
use crate::twin::{DeviceId, ModuleId, TwinRef};

/// What is let pass.
#[derive(Debug, Clone, Args)]
pub(super) struct ApprovalArgs {
    /// Let a guard pass what a plan showed, as it was printed there: GUARD/REVISION/COUNT, and /TWIN for shape
    #[arg(long, value_name = "APPROVAL")]
    approve: Vec<String>,
}

impl ApprovalArgs {
    /// Whether anything is approved.
    pub(super) const fn is_empty(&self) -> bool {
        self.approve.is_empty()
    }

    /// The approvals, for `hub` at `revision`.
    pub(super) fn parse(&self, hub: &str, revision: &str) -> anyhow::Result<Vec<Approval>> {
        self.approve.iter().map(|text| approval_of(text, hub, revision)).collect()
    }
}

fn approval_of(text: &str, hub: &str, revision: &str) -> anyhow::Result<Approval> {
    let mut parts = text.splitn(4, '/');
    let (Some(guard), Some(seen), Some(count)) = (parts.next(), parts.next(), parts.next()) else {
        bail!("--approve {text:?} is not GUARD/REVISION/COUNT; copy it from `geminid plan`");
    };
    let Some(guard) = GuardKind::parse(guard) else {
        bail!("--approve: {guard:?} is no guard; there are {}", GuardKind::ALL.map(GuardKind::as_str).join(", "));
    };
    let Ok(count) = count.parse() else { bail!("--approve: {count:?} is no count; copy it from `geminid plan`") };
    let twin = parts.next().map(twin_of).transpose()?;
    if (guard == GuardKind::Shape) != twin.is_some() {
        bail!("--approve {text:?}: a twin is named for shape, and for shape alone");
    }
    if seen != revision {
        bail!("--approve: the manifests are at {revision} by now, not at {seen}; plan again and look");
    }
    Ok(Approval { hub: hub.to_owned(), guard, twin, revision: revision.to_owned(), count })
}

fn twin_of(name: &str) -> anyhow::Result<TwinRef> {
    Ok(match name.split_once('/') {
        None => TwinRef::device(DeviceId::new(name)?),
        Some((device, module)) => TwinRef::module(DeviceId::new(device)?, ModuleId::new(module)?),
    })
}

/// `text` with the flag beside the command that asks a daemon.
pub(super) fn with_flag(text: &str, approval: Option<&Approval>) -> String {
    let Some(approval) = approval else { return text.to_owned() };
    let Approval { guard, revision, count, twin, .. } = approval;
    let twin = twin.as_ref().map_or_else(String::new, |twin| format!("/{twin}"));
    let both =
        format!("`geminid apply --approve '{guard}/{revision}/{count}{twin}'` or, where a daemon runs, `{approval}`");
    text.replace(&format!("`{approval}`"), &both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_is_taken_and_another_revision_is_refused() {
        let module = TwinRef::module(DeviceId::new("d").unwrap(), ModuleId::new("m").unwrap());
        for (guard, twin) in [(GuardKind::Removals, None), (GuardKind::Empty, None), (GuardKind::Shape, Some(module))] {
            let approval = Approval { hub: "h".to_owned(), guard, twin, revision: "r1".to_owned(), count: 31 };
            let shown = with_flag(&format!("held; `{approval}` lets it pass"), Some(&approval));
            let flag = shown.split('\'').nth(1).unwrap();
            assert_eq!(approval_of(flag, "h", "r1").unwrap(), approval, "{shown}");
            let error = approval_of(flag, "h", "r2").unwrap_err().to_string();
            assert!(error.contains("are at r2 by now, not at r1"), "{error}");
        }
        for (text, expected) in [
            ("removals", "is not GUARD/REVISION/COUNT"),
            ("all/r1/3", "\"all\" is no guard; there are removals"),
            ("removals/r1/many", "\"many\" is no count"),
            ("removals/r1/3/d", "a twin is named for shape"),
            ("shape/r1/3", "a twin is named for shape"),
        ] {
            let error = approval_of(text, "h", "r1").unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
