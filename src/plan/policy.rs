//! How one hub is treated: what its settings let happen at all.

use super::{Approval, GuardLimits};

/// What is done about differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Everything declared is brought about, and what we own and nobody declares any more is removed.
    #[default]
    Sync,
    /// Likewise, but nothing is ever removed.
    Upsert,
    /// Nothing is written; there is no writer.
    Observe,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Sync, Self::Upsert, Self::Observe];

    /// The word in settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Upsert => "upsert",
            Self::Observe => "observe",
        }
    }

    /// The mode with this word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
}

/// The rules of one hub.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What the guards let pass.
    pub guards: GuardLimits,
    /// What is done about differences.
    pub mode: Mode,
    /// Why nothing is done on this hub, if so.
    pub suspend: Option<String>,
    /// Whether twins whose manifest is gone are settled: always by the daemon, by a single pass on request only.
    pub prune: bool,
    /// What somebody let pass before the start.
    pub approvals: Vec<Approval>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            guards: GuardLimits::default(),
            mode: Mode::default(),
            suspend: None,
            prune: true,
            approvals: Vec::new(),
        }
    }
}
