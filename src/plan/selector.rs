//! Which twins a profile is for.
//!
//! Invariant: all given parts must match. Labels and globs select among declared twins alone; only a condition reaches
//! twins that no manifest names, and only when it stands alone.

use std::collections::BTreeMap;
use std::fmt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::{LiveCondition, TwinManifest};
use crate::twin::TwinRef;

/// Why a text is not a glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a glob: {problem}")]
pub struct GlobError {
    /// The text.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Globs over device ids: `*`, `?`, `[a-z]`, `{a,b}`; a backslash takes the next character as it is. An id matches
/// when one of them does.
#[derive(Clone)]
pub struct DeviceGlobs {
    patterns: Vec<String>,
    set: GlobSet,
}

impl DeviceGlobs {
    /// Takes globs.
    ///
    /// # Errors
    /// [`GlobError`] naming the first that is none.
    pub fn new(patterns: Vec<String>) -> Result<Self, GlobError> {
        let mut builder = GlobSetBuilder::new();
        let wrong = |pattern: &str, error: &globset::Error| GlobError {
            pattern: pattern.to_owned(),
            problem: error.kind().to_string(),
        };
        for pattern in &patterns {
            let glob = GlobBuilder::new(pattern).backslash_escape(true).build();
            builder.add(glob.map_err(|error| wrong(pattern, &error))?);
        }
        let set = builder.build().map_err(|error| wrong(&patterns.join(", "), &error))?;
        Ok(Self { patterns, set })
    }

    /// Whether one of the globs matches the id.
    #[must_use]
    pub fn matches(&self, id: &str) -> bool {
        self.set.is_match(id)
    }

    /// The globs as written.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }
}

impl PartialEq for DeviceGlobs {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for DeviceGlobs {}

impl fmt::Debug for DeviceGlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.patterns).finish()
    }
}

/// `spec.selector` of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// Labels that the twin's manifest must carry.
    pub match_labels: BTreeMap<String, String>,
    /// Globs over the id of the device, or of the module's device.
    pub devices: Option<DeviceGlobs>,
    /// A condition on the live twin.
    pub condition: Option<LiveCondition>,
}

impl Selector {
    /// Whether the parts that do not depend on the live twin match; `manifest` is the twin's own, if it has one.
    #[must_use]
    pub fn matches(&self, twin: &TwinRef, manifest: Option<&TwinManifest>) -> bool {
        let needs_manifest = !self.match_labels.is_empty() || self.devices.is_some() || self.condition.is_none();
        let Some(manifest) = manifest else { return !needs_manifest };
        let labelled =
            self.match_labels.iter().all(|(label, value)| manifest.labels.get(label) == Some(value.as_str()));
        labelled && self.devices.as_ref().is_none_or(|globs| globs.matches(twin.device.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_ids_case_and_all() {
        for (pattern, matching, other) in [
            ("myDev*", "myDevice", "mydevice"),
            ("a?c", "abc", "abbc"),
            ("pump-[0-9][0-9]", "pump-07", "pump-7"),
            ("{pump,valve}-*", "valve-1", "fan-1"),
            (r"odd\*id", "odd*id", "oddxid"),
            ("*", "anything", ""),
        ] {
            let globs = DeviceGlobs::new(vec![pattern.to_owned()]).unwrap();
            assert!(globs.matches(matching), "{pattern}");
            assert!(other.is_empty() || !globs.matches(other), "{pattern}");
        }
        let error = DeviceGlobs::new(vec!["ok".to_owned(), "[".to_owned()]).unwrap_err();
        assert_eq!(error.pattern, "[");
    }
}
