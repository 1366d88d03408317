//! Labels of a twin's manifest.
//!
//! Invariant: sorted by key, each key once; equal labels of one file share their memory.

use std::collections::BTreeMap;
use std::sync::Arc;

/// `metadata.labels`: for profiles and for `-l`; never sent to the hub. Kept in one piece, because a fleet has millions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Labels(Option<Arc<[Pair]>>);

/// A label and its value.
type Pair = (Box<str>, Box<str>);

impl Labels {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(label, _)| *label == key).map(|(_, value)| value)
    }

    /// Each label with its value, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|labels| labels.iter()).map(|(key, value)| (key.as_ref(), value.as_ref()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(labels: BTreeMap<String, String>) -> Self {
        let pairs: Arc<[_]> = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self((!pairs.is_empty()).then_some(pairs))
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(labels: I) -> Self {
        labels.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<const N: usize> From<[(String, String); N]> for Labels {
    fn from(labels: [(String, String); N]) -> Self {
        labels.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_by_key_and_listed_in_order() {
        let pairs = [("plant", "redmond43"), ("line", "assembly")];
        let labels = Labels::from(BTreeMap::from(pairs.map(|(key, value)| (key.to_owned(), value.to_owned()))));
        assert_eq!((labels.get("plant"), labels.get("Plant"), labels.is_empty()), (Some("redmond43"), None, false));
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("line", "assembly"), ("plant", "redmond43")]);
        assert!(Labels::from(BTreeMap::new()).is_empty() && Labels::default().iter().next().is_none());
    }
}
