//! The tokens that were verified already: the same one comes with thousands of requests.
//!
//! Invariant: a token is found by the hash of its whole text, so that how long a look-up takes tells nothing of any
//! signature; its expiry and its scope are judged anew each time. At most `TOKENS_MAX` are remembered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::auth::PolicyName;

/// The most tokens remembered; beyond it all are forgotten and verified again.
const TOKENS_MAX: usize = 1024;

/// What was verified of a token.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    /// Whose key signed it.
    pub(super) policy: PolicyName,
    /// `sr` as sent.
    pub(super) resource: String,
    /// Seconds since 1970.
    pub(super) expiry: i64,
}

/// The verified tokens of one gate. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct VerifiedTokens(Arc<Mutex<BTreeMap<[u8; 32], Verified>>>);

impl VerifiedTokens {
    /// What is known of `token`.
    pub(super) fn get(&self, token: &str) -> Option<Verified> {
        self.lock().get(&hash(token)).cloned()
    }

    /// Remembers what was verified of `token`.
    pub(super) fn remember(&self, token: &str, verified: Verified) {
        let mut tokens = self.lock();
        if tokens.len() >= TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(hash(token), verified);
    }

    /// A panic elsewhere leaves the map whole: it changes by one insertion at a time.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Verified>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let tokens = VerifiedTokens::default();
        let verified = Verified { policy: PolicyName::Service, resource: "localhost".to_owned(), expiry: 9 };
        for number in 0..3 * TOKENS_MAX {
            tokens.remember(&number.to_string(), verified.clone());
            assert!(tokens.lock().len() <= TOKENS_MAX);
            assert_eq!(tokens.get(&number.to_string()).map(|verified| verified.expiry), Some(9));
        }
        assert!(tokens.get("0").is_none());
    }
}
