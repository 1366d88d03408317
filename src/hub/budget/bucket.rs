//! The tokens of one operation, and who waits for them.
//!
//! Invariant: pure: time is the age of the process, handed in. In any span of time no more tokens are given than its
//! length times the rate, and one burst; a token that was given and not used comes back.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::fair::Turns;
use super::tier::Rate;
use super::{LANES, Lane};

/// A place in the line of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Tokens that come at a rate, given to lanes by weight.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// Of the rate, what is used now: 0 to 1.
    factor: f64,
    tokens: f64,
    at: Duration,
    blocked_until: Duration,
    turns: Turns<LANES>,
    waiting: [VecDeque<Ticket>; LANES],
    granted: BTreeSet<Ticket>,
    next: u64,
}

impl Bucket {
    /// A bucket whose tokens come at `rate`, with one burst in it.
    pub(super) fn new(rate: Rate, now: Duration) -> Self {
        let mut bucket = Self {
            rate,
            factor: 1.0,
            tokens: 0.0,
            at: now,
            blocked_until: Duration::ZERO,
            turns: Turns::new(Lane::WEIGHTS),
            waiting: Default::default(),
            granted: BTreeSet::new(),
            next: 0,
        };
        bucket.tokens = bucket.burst();
        bucket
    }

    /// Stands in line.
    pub(super) fn ask(&mut self, lane: Lane) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        let lane = lane.index();
        if self.waiting[lane].is_empty() {
            self.turns.comes(lane);
        }
        self.waiting[lane].push_back(ticket);
        ticket
    }

    /// Gives what tokens there are. Answers who got one.
    pub(super) fn give(&mut self, now: Duration) -> Vec<Ticket> {
        self.refill(now);
        let mut given = Vec::new();
        // Rounding must not cost a waiter that slept for exactly one token's time another round.
        while self.tokens > 1.0 - 1e-9 && now >= self.blocked_until {
            let Some(lane) = self.turns.next(|lane| !self.waiting[lane].is_empty()) else { break };
            let ticket = self.waiting[lane].pop_front().expect("only a lane in which somebody waits has a turn");
            self.tokens -= 1.0;
            self.granted.insert(ticket);
            given.push(ticket);
        }
        given
    }

    /// Uses the token of `ticket`, if it was given one.
    pub(super) fn take(&mut self, ticket: Ticket) -> bool {
        self.granted.remove(&ticket)
    }

    /// `ticket` wants nothing any more. A token that it was given and did not use comes back.
    pub(super) fn withdraw(&mut self, ticket: Ticket) {
        if self.granted.remove(&ticket) {
            self.tokens += 1.0;
        }
        self.waiting.iter_mut().for_each(|lane| lane.retain(|waiting| *waiting != ticket));
    }

    /// The least time that a waiting ticket has still to wait, if nothing changes.
    pub(super) fn wait_of(&self, ticket: Ticket, now: Duration) -> Duration {
        let place = self.waiting.iter().find_map(|lane| lane.iter().position(|waiting| *waiting == ticket));
        let lacking = (count(place.unwrap_or_default()) + 1.0 - self.tokens).max(0.0);
        // Rounded up, so that who wakes finds a whole token.
        let refilled = Duration::from_secs_f64(lacking / self.per_second()) + Duration::from_nanos(1);
        refilled.max(self.blocked_until.saturating_sub(now))
    }

    /// Uses `factor` of the rate from now on.
    pub(super) fn set_factor(&mut self, factor: f64, now: Duration) {
        self.refill(now);
        self.factor = factor;
        self.tokens = self.tokens.min(self.burst());
    }

    /// Gives nothing until `until`, and forgets what was saved: the hub says that there is nothing to give.
    pub(super) fn block(&mut self, until: Duration, now: Duration) {
        self.refill(now);
        self.blocked_until = self.blocked_until.max(until);
        self.tokens = self.tokens.min(0.0);
    }

    /// Tokens that could be had at once.
    pub(super) fn tokens(&mut self, now: Duration) -> f64 {
        self.refill(now);
        self.tokens.max(0.0)
    }

    /// Tokens a second now.
    pub(super) fn per_second(&self) -> f64 {
        self.rate.per_second * self.factor
    }

    fn burst(&self) -> f64 {
        (self.per_second() * self.rate.kept.as_secs_f64()).max(1.0)
    }

    fn refill(&mut self, now: Duration) {
        let from = self.at.max(self.blocked_until);
        let passed = now.saturating_sub(from).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second()).min(self.burst());
        self.at = self.at.max(now);
    }
}

#[expect(clippy::cast_precision_loss, reason = "places in a line are few")]
fn count(places: usize) -> f64 {
    places as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn bucket(per_second: f64) -> Bucket {
        Bucket::new(Rate { per_second, kept: Duration::from_secs(1) }, at(0))
    }

    #[test]
    fn any_minute_gives_the_rate_and_at_most_one_burst_more() {
        let mut bucket = bucket(25.0);
        let mut given = Vec::new();
        let mut now = Duration::ZERO;
        while now < at(200_000) {
            // Eight callers that ask again as soon as they have got theirs, woken when they are told to be.
            let tickets: Vec<Ticket> = (0..8).map(|_| bucket.ask(Lane::Git)).collect();
            for ticket in tickets {
                loop {
                    bucket.give(now);
                    if bucket.take(ticket) {
                        given.push(now);
                        break;
                    }
                    now += bucket.wait_of(ticket, now);
                }
            }
        }
        for start in [0, 60_000, 61_234, 140_000] {
            let inside = given.iter().filter(|time| (at(start)..at(start + 60_000)).contains(*time)).count();
            let burst = if start == 0 { 25 } else { 0 };
            assert!((1455..=1501 + burst).contains(&inside), "{inside} in the minute from {start} ms");
        }
    }

    #[test]
    fn lanes_share_by_weight_and_who_waits_alone_has_all() {
        let mut bucket = bucket(15.0);
        let tickets: Vec<(Lane, Ticket)> = Lane::ALL
            .into_iter()
            .flat_map(|lane| (0..200).map(move |_| lane))
            .map(|lane| (lane, bucket.ask(lane)))
            .collect();
        let count_of =
            |given: &[Ticket], lane: Lane| given.iter().filter(|ticket| tickets.contains(&(lane, **ticket))).count();
        let given: Vec<Ticket> = (0..10).flat_map(|second| bucket.give(at(1000 * second))).collect();
        assert_eq!(Lane::ALL.map(|lane| count_of(&given, lane)), [80, 40, 20, 10]);
        for (lane, ticket) in &tickets {
            if *lane != Lane::Query {
                bucket.withdraw(*ticket);
            }
        }
        let given = bucket.give(at(10_000));
        assert_eq!(count_of(&given, Lane::Query), 15);
    }

    #[test]
    fn a_token_that_was_not_used_comes_back_and_a_block_gives_nothing() {
        let mut bucket = bucket(1.0);
        let (first, second) = (bucket.ask(Lane::Sweep), bucket.ask(Lane::Sweep));
        assert_eq!(bucket.give(at(0)), [first]);
        assert!(!bucket.take(second));
        bucket.withdraw(first);
        assert_eq!(bucket.give(at(0)), [second]);
        assert!(bucket.take(second) && !bucket.take(second));
        bucket.block(at(5000), at(0));
        let third = bucket.ask(Lane::Git);
        assert_eq!(bucket.give(at(4999)), []);
        assert_eq!(bucket.wait_of(third, at(0)), at(5000));
        assert_eq!(bucket.give(at(5500)), [], "what came while it was blocked is not saved");
        assert_eq!(bucket.give(at(6000)), [third]);
    }

    #[test]
    fn a_lower_rate_holds_from_its_moment_on() {
        let mut bucket = bucket(10.0);
        bucket.set_factor(0.5, at(0));
        let tickets: Vec<Ticket> = (0..30).map(|_| bucket.ask(Lane::Git)).collect();
        assert_eq!(bucket.give(at(0)).len(), 5, "a second's worth of the lower rate");
        assert_eq!(bucket.wait_of(tickets[5], at(0)), at(200) + Duration::from_nanos(1));
        assert_eq!(bucket.give(at(1000)).len(), 5);
        assert!(bucket.tokens(at(1000)) < 1.0);
    }
}
