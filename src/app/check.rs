//! What `check` asks a hub: whether it answers, who we are to it, and what we may do there.
//!
//! Invariant: nothing is changed. What needs a right to write is asked for in a way that the hub can only refuse, and
//! which refusal comes tells whether the right is there.

use crate::hub::{HubError, WriteTwins};
use crate::twin::{DeviceId, ETag, MergePatch, Section, TwinRef, Value};

/// A device that no fleet has: an id is at most 128 characters, and nobody calls a device so.
const NOBODY: &str = "geminid-check.no-such-device.3f1c0b7e9a";
/// The cheapest question about twins.
const ONE_ROW: &str = "SELECT deviceId FROM devices";

/// One thing that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The manifests load without an error.
    Manifests,
    /// The hub answers at all.
    Reach,
    /// It takes our credential.
    Login,
    /// We may ask queries.
    Query,
    /// We may read a twin.
    Read,
    /// We may patch a twin.
    Write,
    /// We may register a device.
    Register,
}

impl Check {
    /// Its name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manifests => "manifests",
            Self::Reach => "reach",
            Self::Login => "login",
            Self::Query => "query",
            Self::Read => "read",
            Self::Write => "write",
            Self::Register => "register",
        }
    }
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// As it must be, with what was seen.
    Good(String),
    /// Not as it must be: what is missing and what to do.
    Missing(String),
    /// Not needed, or not to be known, and why.
    Skipped(String),
}

/// What the settings and manifests of a hub need there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Twins are written: any mode but observe.
    pub writes: bool,
    /// A manifest says `create: true`.
    pub registers: bool,
}

/// Asks `hub` for everything that `needs` says, in order; after the first thing that makes the others meaningless they
/// are skipped.
pub async fn check_hub<H: WriteTwins>(hub: &H, needs: Needs) -> Vec<(Check, Standing)> {
    let mut found = Vec::new();
    let page = hub.query_page(ONE_ROW, 1, None).await;
    if let Err(error @ (HubError::Transport { .. } | HubError::Server { .. })) = &page {
        found.push((Check::Reach, Standing::Missing(error.to_string())));
        return found;
    }
    found.push((Check::Reach, Standing::Good("it answers".to_owned())));
    let known = match page {
        Ok(page) => {
            found.push((Check::Login, Standing::Good("the credential is taken".to_owned())));
            found.push((Check::Query, Standing::Good(String::new())));
            page.rows.first().and_then(|row| DeviceId::new(row.get(["deviceId"])?.as_str()?).ok())
        }
        Err(error @ HubError::Unauthorized { .. }) => {
            found.push((Check::Login, Standing::Missing(error.to_string())));
            return found;
        }
        Err(error) => {
            found.push((Check::Login, Standing::Good("the credential is taken".to_owned())));
            found.push((Check::Query, Standing::Missing(error.to_string())));
            None
        }
    };
    let nobody = TwinRef::device(nobody());
    let read = may(hub.get_twin(&nobody).await.map(drop), |error| matches!(error, HubError::NotFound(_)));
    found.push((Check::Read, read));
    let write = if needs.writes {
        let mut patch = MergePatch::default();
        patch.set(Section::Tags, &["geminid".to_owned()], Value::Null);
        let answer = hub.patch_twin(&nobody, &patch, &etag()).await.map(drop);
        may(answer, |error| matches!(error, HubError::NotFound(_) | HubError::PreconditionFailed))
    } else {
        Standing::Skipped("mode observe writes nothing".to_owned())
    };
    found.push((Check::Write, write));
    found.push((Check::Register, register(hub, needs, known).await));
    found
}

/// The hub refuses to register who is registered already; that it looked tells that we may. Whoever was just read is
/// registered: a query row alone may be of somebody who is gone.
async fn register<H: WriteTwins>(hub: &H, needs: Needs, known: Option<DeviceId>) -> Standing {
    if !needs.writes || !needs.registers {
        return Standing::Skipped("no manifest says `create: true`".to_owned());
    }
    let Some(known) = known else {
        return Standing::Skipped("not to be known on a hub without devices, as nothing is registered here".to_owned());
    };
    match hub.get_twin(&TwinRef::device(known.clone())).await {
        Ok(_) => may(hub.create_device(&known).await, |error| matches!(error, HubError::AlreadyExists(_))),
        Err(error) => Standing::Skipped(format!("{known} cannot be read: {error}")),
    }
}

/// What an answer tells of a right: `expected` is how the hub refuses who has it.
fn may(answer: Result<(), HubError>, expected: impl FnOnce(&HubError) -> bool) -> Standing {
    match answer {
        Ok(()) => Standing::Good(String::new()),
        Err(error) if expected(&error) => Standing::Good(String::new()),
        Err(error) => Standing::Missing(error.to_string()),
    }
}

fn nobody() -> DeviceId {
    DeviceId::new(NOBODY).expect("its characters are those of device ids")
}

fn etag() -> ETag {
    ETag::new("AAAAAAAAAAE=").expect("it is one as the hub writes them")
}
