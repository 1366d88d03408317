//! What a hub of a tier lets all its callers do together (`iot-hub.md` 6.1 and 6.2).
//!
//! Invariant: pure figures; what of them is ours is decided by the budget.

use std::time::Duration;

use super::Operation;

/// Bytes that count as one message (`iot-hub.md` 6.2).
const MESSAGE_SIZE: usize = 4096;
const MESSAGE_SIZE_FREE: usize = 512;

/// A hub's tier. Basic tiers have no twins, so they are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Free.
    F1,
    /// Standard 1.
    S1,
    /// Standard 2.
    S2,
    /// Standard 3.
    S3,
}

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    /// Tokens a second.
    pub(super) per_second: f64,
    /// The time for which unused tokens are kept. A limit by the minute is kept for longer than one by the second: of
    /// the 20 pages a minute of S1 one second's worth would be a third of a page, and a start asks for a few at once.
    pub(super) kept: Duration,
}

impl Rate {
    fn a_second(count: f64) -> Self {
        Self { per_second: count, kept: Duration::from_secs(1) }
    }

    fn a_minute(count: f64) -> Self {
        Self { per_second: count / 60.0, kept: Duration::from_secs(30) }
    }
}

impl Tier {
    /// The tier of a name such as `S1`, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let tiers = [("F1", Self::F1), ("S1", Self::S1), ("S2", Self::S2), ("S3", Self::S3)];
        tiers.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, tier)| tier)
    }

    /// The most units a hub of this tier has (`iot-hub.md` 6.2).
    #[must_use]
    pub const fn units_max(self) -> u32 {
        match self {
            Self::F1 => 1,
            Self::S1 | Self::S2 => 200,
            Self::S3 => 10,
        }
    }

    /// The pages of queries a second that so many units let happen.
    #[must_use]
    pub fn pages_per_second(self, units: u32) -> f64 {
        self.rate(Operation::Query, units).per_second
    }

    /// What so many units let happen of one operation. In the lower tiers twins do not scale with units.
    pub(super) fn rate(self, operation: Operation, units: u32) -> Rate {
        let units = f64::from(units);
        match (operation, self) {
            (Operation::Query, Self::S3) => Rate::a_minute(1000.0 * units),
            (Operation::Query, Self::F1 | Self::S1 | Self::S2) => Rate::a_minute(20.0 * units),
            (Operation::Get, Self::F1 | Self::S1) => Rate::a_second(100.0),
            (Operation::Get, Self::S2) => Rate::a_second(f64::max(100.0, 10.0 * units)),
            (Operation::Get, Self::S3) => Rate::a_second(500.0 * units),
            (Operation::Patch, Self::F1 | Self::S1) => Rate::a_second(50.0),
            (Operation::Patch, Self::S2) => Rate::a_second(f64::max(50.0, 5.0 * units)),
            (Operation::Patch, Self::S3) => Rate::a_second(250.0 * units),
            (Operation::Create, Self::S3) => Rate::a_minute(5000.0 * units),
            (Operation::Create, Self::F1 | Self::S1 | Self::S2) => Rate::a_minute(100.0 * units),
        }
    }

    /// Messages a day of so many units.
    pub(super) fn messages_per_day(self, units: u32) -> u64 {
        let of_a_unit: u64 = match self {
            Self::F1 => 8_000,
            Self::S1 => 400_000,
            Self::S2 => 6_000_000,
            Self::S3 => 300_000_000,
        };
        of_a_unit * u64::from(units)
    }

    /// Bytes of one message.
    pub(super) const fn message_size(self) -> usize {
        match self {
            Self::F1 => MESSAGE_SIZE_FREE,
            Self::S1 | Self::S2 | Self::S3 => MESSAGE_SIZE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tier_lets_happen_what_the_table_says() {
        use Operation::{Create, Get, Patch, Query};
        for (tier, units, operation, count, seconds) in [
            (Tier::F1, 1, Query, 20.0, 60.0),
            (Tier::S1, 3, Query, 60.0, 60.0),
            (Tier::S1, 10, Get, 100.0, 1.0),
            (Tier::S1, 10, Patch, 50.0, 1.0),
            (Tier::S1, 2, Create, 200.0, 60.0),
            (Tier::S2, 2, Get, 100.0, 1.0),
            (Tier::S2, 30, Get, 300.0, 1.0),
            (Tier::S2, 30, Patch, 150.0, 1.0),
            (Tier::S3, 2, Query, 2000.0, 60.0),
            (Tier::S3, 2, Get, 1000.0, 1.0),
            (Tier::S3, 2, Patch, 500.0, 1.0),
            (Tier::S3, 1, Create, 5000.0, 60.0),
        ] {
            let rate = tier.rate(operation, units);
            assert!((rate.per_second - count / seconds).abs() < 1e-9, "{tier:?} {units} {operation:?}");
        }
        assert_eq!((Tier::S1.messages_per_day(2), Tier::F1.message_size()), (800_000, 512));
        assert_eq!((Tier::named("s2"), Tier::named("B1")), (Some(Tier::S2), None));
    }
}
