//! What the settings of a hub demand of its manifests.
//!
//! Invariant: the default demands nothing that only settings can say.

use super::PageBudget;
use crate::plan::Subtree;
use crate::series::OWN_PREFIXES;

/// The longest prefix of metric names.
const PREFIX_LENGTH_MAX: usize = 64;

/// What a hub's settings demand.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    /// The paths that may be declared, with what stands beneath; empty for every path.
    pub allow: Vec<Subtree>,
    /// Whose seals its sweeps read.
    pub seals: Seals,
    /// What the metrics of its queries begin with.
    pub metric_prefix: MetricPrefix,
    /// The pages that its queries may ask for; `None` without a limit.
    pub pages: Option<PageBudget>,
}

/// Whose seals the twins carry that a sweep reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Seals {
    /// It is not known here.
    #[default]
    Unknown,
    /// This owner's.
    Owner(String),
    /// Nobody's: `ownership = "none"`.
    Off,
}

/// What the names of all metrics of twin queries begin with: `[a-z][a-z0-9_]*_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricPrefix(String);

impl Default for MetricPrefix {
    fn default() -> Self {
        Self("twinquery_".to_owned())
    }
}

impl MetricPrefix {
    /// Takes a prefix.
    ///
    /// # Errors
    /// What is wrong with it and what to write, in one sentence.
    pub fn new(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_name = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
            && text.bytes().all(plain)
            && text.ends_with('_')
            && text.len() <= PREFIX_LENGTH_MAX;
        if !is_name {
            return Err(format!(
                "{text:?} is no prefix of metrics; write 2 to {PREFIX_LENGTH_MAX} of a-z, 0-9 and _, a letter first and _ \
                 last"
            ));
        }
        // Neither may be the beginning of the other, or families of ours and of queries could meet.
        match OWN_PREFIXES.iter().find(|own| text.starts_with(**own) || own.starts_with(text)) {
            Some(own) => {
                Err(format!("{text:?} would mix with {own}*, which geminid says of itself; use another prefix"))
            }
            None => Ok(Self(text.to_owned())),
        }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_begin_as_the_settings_say() {
        let text = "apiVersion: geminid.dev/v1alpha1\nkind: TwinQuery\nmetadata: {name: q}\nspec:\n  \
                    query: SELECT COUNT() AS n FROM devices\n  metrics: [{name: fleet_n, help: N., value: {column: n}}]\n";
        let problems = |prefix: &str| {
            let rules = Rules { metric_prefix: MetricPrefix::new(prefix).unwrap(), ..Rules::default() };
            let file = crate::manifest::parse_file_within("f", text, &rules);
            file.diagnostics().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(problems("fleet_"), Vec::<String>::new());
        for other in ["twinquery_", "fleet_n_"] {
            let expected = format!(
                "f:6:20: error: \"fleet_n\" is no metric name; write {other} and then a-z, 0-9 and _ (spec.metrics[0].name)"
            );
            assert_eq!(problems(other), [expected]);
        }
    }

    #[test]
    fn a_prefix_is_the_beginning_of_a_metric_name_and_none_of_ours() {
        for good in ["twinquery_", "fleet_", "a_", "acme_iot_7_"] {
            assert_eq!(MetricPrefix::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "_", "7_", "fleet", "Fleet_", "fl-eet_", "fleet:", "é_", &format!("{}_", "a".repeat(64))] {
            assert!(MetricPrefix::new(bad).unwrap_err().contains("is no prefix of metrics"), "{bad}");
        }
        for ours in ["geminid_", "geminid_query_", "process_", "process_x_"] {
            assert!(MetricPrefix::new(ours).unwrap_err().contains("would mix with"), "{ours}");
        }
        assert_eq!(MetricPrefix::new(MetricPrefix::default().as_str()), Ok(MetricPrefix::default()));
    }
}
