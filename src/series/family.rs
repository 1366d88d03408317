//! Metric families: a name, a help text and samples.
//!
//! Invariant: names are valid, no label is empty, and a family holds no series twice, by construction.

use std::collections::BTreeMap;

/// The label that [`super::render`] adds to every sample.
pub(super) const HUB_LABEL: &str = "hub";

/// Why a name cannot stand in an exposition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    #[error("{0:?} is no metric name")]
    Metric(String),
    /// Not `[a-zA-Z_][a-zA-Z0-9_]*`, or begins with `__`.
    #[error("{0:?} is no label name")]
    Label(String),
    /// `hub`, which every series gets anyway.
    #[error("the label {HUB_LABEL} is added to every series")]
    Hub,
}

/// What a family's values mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A value that only goes up while the process lives.
    Counter,
}

impl Kind {
    /// The word of the TYPE line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// The labels of one series, in order of their names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LabelSet(BTreeMap<String, String>);

impl LabelSet {
    /// The labels given. An empty value is no label, as Prometheus sees it; of a repeated name the last value counts.
    ///
    /// # Errors
    /// [`NameError`] when a name is invalid or `hub`.
    pub fn new<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, NameError> {
        let mut set = BTreeMap::new();
        for (name, value) in labels {
            if name == HUB_LABEL {
                return Err(NameError::Hub);
            }
            if name.starts_with("__") || !is_name(name, false) {
                return Err(NameError::Label(name.to_owned()));
            }
            if !value.is_empty() {
                set.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(Self(set))
    }

    /// The labels, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// One metric with all its series.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    name: String,
    kind: Kind,
    help: String,
    samples: BTreeMap<LabelSet, f64>,
}

impl Family {
    /// A family without samples.
    ///
    /// # Errors
    /// [`NameError::Metric`] when the name is invalid.
    pub fn new(name: &str, kind: Kind, help: &str) -> Result<Self, NameError> {
        if !is_name(name, true) {
            return Err(NameError::Metric(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), kind, help: help.to_owned(), samples: BTreeMap::new() })
    }

    /// Sets the value of one series.
    pub fn set(&mut self, labels: LabelSet, value: f64) {
        self.samples.insert(labels, value);
    }

    /// The family's full name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the values mean.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The help text, not escaped.
    #[must_use]
    pub fn help(&self) -> &str {
        &self.help
    }

    /// Every series with its value, in order.
    pub fn samples(&self) -> impl Iterator<Item = (&LabelSet, f64)> {
        self.samples.iter().map(|(labels, value)| (labels, *value))
    }

    /// The number of series.
    #[must_use]
    pub fn series(&self) -> usize {
        self.samples.len()
    }
}

fn is_name(text: &str, colon: bool) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (colon && byte == b':');
    text.bytes().next().is_some_and(|first| !first.is_ascii_digit()) && text.bytes().all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_cost_the_scrape_is_refused() {
        for bad in ["", "9x", "bad-name", "a.b", "a b", "ä", "a\n"] {
            assert_eq!(Family::new(bad, Kind::Gauge, ""), Err(NameError::Metric(bad.to_owned())));
            assert_eq!(LabelSet::new([(bad, "x")]), Err(NameError::Label(bad.to_owned())));
        }
        for bad in ["__name__", "a:b"] {
            assert_eq!(LabelSet::new([(bad, "x")]), Err(NameError::Label(bad.to_owned())));
        }
        assert_eq!(LabelSet::new([("hub", "x")]), Err(NameError::Hub));
        assert!(Family::new("_a:b9", Kind::Gauge, "").is_ok());
    }

    #[test]
    fn an_empty_label_is_no_label() {
        assert_eq!(LabelSet::new([("a", ""), ("b", "1")]), LabelSet::new([("b", "1")]));
    }
}
