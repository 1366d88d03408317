//! Values that nobody may read in plans, logs and messages.
//!
//! Invariant: equal values show equal hashes within one process and no others: the salt is drawn at its start.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::twin::Value;

/// Hexadecimal digits of a hash: enough to see that a value changed.
const DIGITS: usize = 8;

/// What hashes of sensitive values are salted with. The default is for those who show nothing to anybody.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Salt([u64; 2]);

impl Salt {
    /// A salt of two random numbers.
    #[must_use]
    pub const fn new(random: [u64; 2]) -> Self {
        Self(random)
    }

    /// What is shown in the place of `value`.
    #[must_use]
    pub fn hide(self, value: &Value) -> String {
        let mut hasher = Sha256::new();
        self.0.iter().for_each(|half| hasher.update(half.to_be_bytes()));
        hasher.update(value.to_string());
        let hex: String = hasher.finalize().iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")).collect();
        format!("<hidden {hex}>")
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_value_is_told_from_another_and_from_itself_under_another_salt() {
        let (one, other) = (Salt::new([1, 2]), Salt::new([1, 3]));
        let secret = Value::from("hunter2");
        let shown = one.hide(&secret);
        assert!(shown.starts_with("<hidden ") && shown.len() == 17 && !shown.contains("hunter2"), "{shown}");
        assert_eq!(shown, one.hide(&secret));
        assert_ne!(shown, other.hide(&secret));
        assert_ne!(shown, one.hide(&Value::from("hunter3")));
        assert_eq!(format!("{one:?}"), "Salt");
    }
}
