//! Who goes next, among lanes of different weight.
//!
//! Invariant: pure. Whoever has nothing to do takes no part, so an unused share passes to the others, and nobody
//! saves up while away.

/// Turns given by weight: each lane's time runs the slower the heavier it is, and the one behind goes next.
#[derive(Debug, Clone, PartialEq)]
pub struct Turns<const LANES: usize> {
    weights: [f64; LANES],
    /// When each lane's next turn begins, in turns of weight 1.
    times: [f64; LANES],
    /// When the last turn began.
    now: f64,
}

impl<const LANES: usize> Turns<LANES> {
    /// Turns by these weights, each more than zero.
    #[must_use]
    pub fn new(weights: [u32; LANES]) -> Self {
        Self { weights: weights.map(f64::from), times: [0.0; LANES], now: 0.0 }
    }

    /// `lane` has something to do again.
    pub fn comes(&mut self, lane: usize) {
        self.times[lane] = self.times[lane].max(self.now);
    }

    /// The lane that goes next of those for which `waits` holds; the first of equals.
    pub fn next(&mut self, waits: impl Fn(usize) -> bool) -> Option<usize> {
        let waiting = (0..LANES).filter(|lane| waits(*lane));
        let lane = waiting.min_by(|one, other| self.times[*one].total_cmp(&self.times[*other]))?;
        self.now = self.now.max(self.times[lane]);
        self.times[lane] = self.now + 1.0 / self.weights[lane];
        Some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(turns: &mut Turns<4>, waits: [bool; 4], count: usize) -> [usize; 4] {
        let mut taken = [0; 4];
        for _ in 0..count {
            taken[turns.next(|lane| waits[lane]).unwrap()] += 1;
        }
        taken
    }

    #[test]
    fn lanes_that_all_wait_go_by_their_weights_and_an_unused_share_passes_on() {
        let mut turns = Turns::new([8, 4, 2, 1]);
        assert_eq!(taken(&mut turns, [true; 4], 150), [80, 40, 20, 10]);
        assert_eq!(taken(&mut turns, [false, true, true, true], 70), [0, 40, 20, 10]);
        assert_eq!(turns.next(|_| false), None);
    }

    #[test]
    fn who_was_away_has_saved_nothing() {
        let mut turns = Turns::new([8, 4, 2, 1]);
        assert_eq!(taken(&mut turns, [false, false, false, true], 1000), [0, 0, 0, 1000]);
        turns.comes(0);
        let after = taken(&mut turns, [true, false, false, true], 90);
        assert!((80..=81).contains(&after[0]) && after[0] + after[3] == 90, "{after:?}");
        turns.comes(2);
        assert_eq!(turns.next(|lane| lane == 2 || lane == 0), Some(2), "who comes waits for no more than a turn");
    }
}
