//! A mark on each of many numbered things, one bit apiece.
//!
//! Invariant: numbers outside the range it was made for are never marked.

/// Bits of one word.
const WORD_BITS: usize = u64::BITS as usize;

/// Which of the numbers from 0 are marked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Marks {
    words: Vec<u64>,
    count: usize,
}

impl Marks {
    /// No mark on the numbers below `len`.
    pub(super) fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(WORD_BITS)], count: 0 }
    }

    /// Marks `number`; answers whether it was not marked before.
    pub(super) fn mark(&mut self, number: usize) -> bool {
        let Some(word) = self.words.get_mut(number / WORD_BITS) else { return false };
        let bit = 1 << (number % WORD_BITS);
        let is_new = *word & bit == 0;
        *word |= bit;
        self.count += usize::from(is_new);
        is_new
    }

    /// Whether `number` is marked.
    pub(super) fn contains(&self, number: usize) -> bool {
        self.words.get(number / WORD_BITS).is_some_and(|word| word >> (number % WORD_BITS) & 1 == 1)
    }

    /// How many are marked.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_once_and_stays_within_its_range() {
        let mut marks = Marks::new(130);
        for (number, is_new) in [(0, true), (63, true), (64, true), (129, true), (64, false), (9_999, false)] {
            assert_eq!(marks.mark(number), is_new, "{number}");
        }
        let marked: Vec<usize> = (0..10_000).filter(|number| marks.contains(*number)).collect();
        assert_eq!((marked, marks.count()), (vec![0, 63, 64, 129], 4));
        assert!(!Marks::default().contains(0) && !Marks::default().mark(0));
    }
}
