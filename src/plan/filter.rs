//! Which twins a command is about: a part of the fleet, by label and by id.
//!
//! Invariant: what a filter does not admit is neither read nor written.

use std::collections::BTreeMap;

use super::{DeviceGlobs, GlobError, TwinManifest};
use crate::twin::TwinRef;

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A label without a value, or without a name.
    #[error("{0:?} is no label; write name=value, several with commas between them")]
    Label(String),
    /// One name twice: nothing could match.
    #[error("the label {0} is asked for twice; no twin has two values of one label")]
    Twice(String),
    /// A glob that is none.
    #[error(transparent)]
    Glob(#[from] GlobError),
}

/// Admits twins whose manifest has all the labels, and whose device id matches one of the globs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TwinFilter {
    labels: BTreeMap<String, String>,
    devices: Option<DeviceGlobs>,
}

impl TwinFilter {
    /// Takes labels as `name=value[,name=value]` and globs over device ids. Nothing given admits every twin.
    ///
    /// # Errors
    /// [`FilterError`] naming the first that is none.
    pub fn new(labels: &[String], globs: &[String]) -> Result<Self, FilterError> {
        let mut wanted = BTreeMap::new();
        for text in labels.iter().flat_map(|list| list.split(',')) {
            let label = text.trim().split_once('=').map(|(name, value)| (name.trim(), value.trim()));
            let Some((name, value)) = label.filter(|(name, value)| !name.is_empty() && !value.is_empty()) else {
                return Err(FilterError::Label(text.to_owned()));
            };
            if wanted.insert(name.to_owned(), value.to_owned()).is_some() {
                return Err(FilterError::Twice(name.to_owned()));
            }
        }
        let devices = if globs.is_empty() { None } else { Some(DeviceGlobs::new(globs.to_vec())?) };
        Ok(Self { labels: wanted, devices })
    }

    /// Whether every twin is admitted.
    #[must_use]
    pub fn admits_all(&self) -> bool {
        self.labels.is_empty() && self.devices.is_none()
    }

    /// Whether `twin` is admitted; `manifest` is its own, if it has one. Without a manifest there are no labels.
    #[must_use]
    pub fn admits(&self, twin: &TwinRef, manifest: Option<&TwinManifest>) -> bool {
        let has = |(name, value): (&String, &String)| {
            manifest.is_some_and(|manifest| manifest.labels.get(name).is_some_and(|label| label == value))
        };
        self.labels.iter().all(has) && self.devices.as_ref().is_none_or(|globs| globs.matches(twin.device.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::FileSpan;
    use crate::twin::{DeviceId, ModuleId};

    fn filter(labels: &str, glob: &str) -> Result<TwinFilter, FilterError> {
        let list = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
        TwinFilter::new(&list(labels), &list(glob))
    }

    #[test]
    fn labels_and_globs_must_all_match_and_a_module_goes_with_its_device() {
        let mut manifest = TwinManifest::empty(FileSpan { file: "a.yaml".into(), line: 1, column: 1 });
        manifest.labels = [("plant", "redmond43"), ("line", "2")].map(|(k, v)| (k.into(), v.into())).into();
        let device = DeviceId::new("pump-01").unwrap();
        let module = TwinRef::module(device.clone(), ModuleId::new("m").unwrap());
        for (labels, glob, own, foreign) in [
            ("", "", true, true),
            ("plant=redmond43", "", true, false),
            ("plant=redmond43, line=2", "pump-*", true, false),
            ("plant=redmond43,line=3", "", false, false),
            ("plant=Redmond43", "", false, false),
            ("", "pump-*", true, true),
            ("", "valve-*", false, false),
        ] {
            let filter = filter(labels, glob).unwrap();
            let twin = TwinRef::device(device.clone());
            let admitted = (filter.admits(&twin, Some(&manifest)), filter.admits(&twin, None));
            assert_eq!(admitted, (own, foreign), "{labels:?} {glob:?}");
            assert_eq!(filter.admits(&module, Some(&manifest)), own, "{labels:?} {glob:?}");
            assert_eq!(filter.admits_all(), labels.is_empty() && glob.is_empty());
        }
    }

    #[test]
    fn what_is_no_filter_is_named() {
        assert_eq!(filter("plant", "").unwrap_err(), FilterError::Label("plant".to_owned()));
        assert_eq!(filter("a=1,", "").unwrap_err(), FilterError::Label(String::new()));
        assert_eq!(filter("a=1,a=2", "").unwrap_err(), FilterError::Twice("a".to_owned()));
        assert!(matches!(filter("", "[").unwrap_err(), FilterError::Glob(_)));
    }
}
