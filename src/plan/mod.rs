//! Declared state and live twin to a plan: what would be done, what is held, and why.
//!
//! Invariant: floor 2, pure. A plan is data; applying it makes no decision.

mod approval;
mod condition;
mod cost;
mod declare;
mod declared;
mod departure;
mod diff;
mod filter;
mod guard;
mod hashes;
mod labels;
mod layers;
mod mask;
mod outcome;
mod policy;
#[cfg(test)]
mod profile_tests;
mod rival;
mod seal;
mod selector;
mod subtree;
mod sweep;
mod tally;
mod twin_plan;
mod wanted;

pub use approval::{APPROVAL_LIFE, Approval, Approvals, GuardKind};
pub use condition::{ConditionError, LiveCondition};
pub use cost::{
    BUSY_PART, SweepCost, SweepMode, SweepPlan, SweepRates, SweepSettings, SweepSize, plan_sweep, verify_is_due,
};
pub use declare::{Declaration, Declared, DeclaredLeaf, Leaf, Members, Tie, declare, declare_presumed, leaves_of};
pub use declared::{
    DeclaredState, DeclaredTwins, FileSpan, Frozen, Profile, ProfileTarget, RemovalPolicy, Suspend, TwinManifest,
};
pub use departure::{Departures, declare_since};
pub use diff::{Transfer, TransferPlan, plan_suspension, plan_transfer, plan_twin};
pub use filter::{FilterError, TwinFilter};
pub use guard::{ChangeGuard, FleetSize, GuardLimit, GuardLimits, RemovalGuard};
pub use hashes::DeclaredHashes;
pub use labels::Labels;
pub use layers::find_ties;
pub use mask::Salt;
pub use outcome::{Condition, Outcome, Standing, Synced, TwinState};
pub use policy::{Mode, Policy};
pub use rival::{Contest, Restraint, Rivals, Sighting};
pub use seal::{
    DeclaredHash, Owner, OwnerError, PathHash, SEAL_KEY, SEAL_VERSION, Seal, SealScope, SealState, etag_counter,
    identity_hash, next_etag, sealing_owners,
};
pub use selector::{DeviceGlobs, GlobError, Selector};
pub use subtree::{Subtree, SubtreeError};
pub use sweep::{RowVerdict, SWEEP_COLUMNS, SweepRow, Verified, judge_row, row_twin, sweep_query};
pub use tally::Tally;
pub use twin_plan::{
    Cause, Change, ChangeHold, Held, HeldReason, Permits, RemovalHold, Removals, SealAction, TwinPlan,
};
pub use wanted::{LeafPlaces, PackedWanted, Wanted};
