//! What goes wrong, one after the other.
//!
//! Invariant: every trouble is over before the next begins, and each has its turn before one has its second.

use serde_json::{Value as Json, json};

/// One sort of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// 429 to half of what is asked.
    Throttled,
    /// 500 and 503.
    Failing,
    /// Late answers.
    Slow,
    /// What is asked is done, and the answer lost or cut.
    LostAnswers,
    /// Devices are refused.
    Devices,
    /// The hub is stopped and, later, goes on.
    HubHangs,
    /// SIGKILL and a new process.
    HubKilled,
    /// SIGTERM and a new process.
    HubRestarted,
    /// SIGKILL and a new process.
    DaemonKilled,
    /// SIGTERM and a new process.
    DaemonRestarted,
    /// A manifest that is none.
    Broken,
}

impl Trouble {
    /// All sorts.
    pub(crate) const ALL: [Self; 11] = [
        Self::Throttled,
        Self::Failing,
        Self::Slow,
        Self::LostAnswers,
        Self::Devices,
        Self::HubHangs,
        Self::HubKilled,
        Self::HubRestarted,
        Self::DaemonKilled,
        Self::DaemonRestarted,
        Self::Broken,
    ];

    /// Whether a life of the daemon ends by it.
    pub(crate) fn ends_daemon(self) -> bool {
        matches!(self, Self::DaemonKilled | Self::DaemonRestarted)
    }

    /// Whether a life of either process ends by it.
    pub(crate) fn is_death(self) -> bool {
        self.ends_daemon() || matches!(self, Self::HubKilled | Self::HubRestarted)
    }

    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Throttled => "429 to half of all requests",
            Self::Failing => "500 and 503 to a third of them",
            Self::Slow => "half a second of latency for half of them",
            Self::LostAnswers => "answers lost or cut after the work was done",
            Self::Devices => "connects and reports of devices refused",
            Self::HubHangs => "the hub stopped and continued (SIGSTOP)",
            Self::HubKilled => "the hub killed (SIGKILL)",
            Self::HubRestarted => "the hub restarted (SIGTERM)",
            Self::DaemonKilled => "the daemon killed (SIGKILL)",
            Self::DaemonRestarted => "the daemon restarted (SIGTERM)",
            Self::Broken => "a manifest broken, then mended",
        }
    }

    /// The plan that the hub is given, when it is the hub that misbehaves.
    pub(crate) fn plan(self, seed: u64) -> Option<Json> {
        let all = ["twinRead", "twinWrite", "query", "registryRead", "registryWrite"];
        let rules = match self {
            Self::Throttled => {
                json!([{"operations": all, "rate": 0.5, "status": 429, "code": "ThrottlingException"}])
            }
            Self::Failing => json!([
                {"operations": all, "rate": 0.2, "status": 503, "code": "ServiceUnavailable"},
                {"operations": all, "rate": 0.15, "status": 500, "code": "ServerError"},
            ]),
            Self::Slow => json!([{"operations": all, "rate": 0.5, "latencyMs": 500}]),
            Self::LostAnswers => json!([
                {"operations": ["twinRead", "twinWrite", "query"], "rate": 0.15, "dropAnswer": true},
                {"operations": ["twinRead", "twinWrite", "query"], "rate": 0.15, "truncateBody": true},
            ]),
            Self::Devices => json!([
                {"operations": ["connect", "deviceTwinRead", "report"], "rate": 0.4, "status": 503},
            ]),
            Self::HubHangs
            | Self::HubKilled
            | Self::HubRestarted
            | Self::DaemonKilled
            | Self::DaemonRestarted
            | Self::Broken => return None,
        };
        Some(json!({ "seed": seed, "rules": rules }))
    }
}

/// Troubles in an order of their own, for ever.
#[derive(Debug)]
pub(crate) struct Bag {
    left: Vec<Trouble>,
}

impl Bag {
    /// A full one.
    pub(crate) fn new() -> Self {
        Self { left: Vec::new() }
    }

    /// The next one; without those that end the daemon's life, if it is to live.
    pub(crate) fn draw(&mut self, rng: &mut fastrand::Rng, daemon_lives: bool) -> Trouble {
        loop {
            if self.left.is_empty() {
                self.left = Trouble::ALL.to_vec();
                rng.shuffle(&mut self.left);
            }
            let trouble = self.left.pop().unwrap();
            if !(daemon_lives && trouble.ends_daemon()) {
                return trouble;
            }
        }
    }
}
