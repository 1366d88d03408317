//! Configurations: the same desired properties for all twins that meet a condition (`iot-hub.md` 2.10 and 10).
//!
//! Invariant: a configuration's content never changes after its creation; its settings are leaves, no two of which
//! overlap. Its condition and its metric queries were parsed once and are true to their texts.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;

use super::error::Refusal;
use crate::query::{self, Expr, Row, Select, Source, Tri};
use crate::twin::{MergePatch, Object, Path, Section, Value, check_section};

/// The longest id, in characters (`iot-hub.md` 2.10).
const ID_LENGTH_MAX: usize = 128;
/// What an id may hold besides lower-case letters and digits.
const ID_PUNCTUATION: &str = "-+%_*!'";
/// The most custom metrics (`iot-hub.md` 10).
const METRICS_MAX: usize = 5;
/// The most labels. No hub states a limit; ours keeps a configuration small.
const LABELS_MAX: usize = 100;
const DESIRED: &str = "properties.desired";
/// How a condition on modules begins.
const FROM_MODULES: &str = "from devices.modules";

/// The id of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigurationId(Box<str>);

impl ConfigurationId {
    /// Takes `text` as an id.
    ///
    /// # Errors
    /// [`Refusal::ArgumentInvalid`] when it is empty, too long or holds another character (`iot-hub.md` 2.10).
    pub fn new(text: &str) -> Result<Self, Refusal> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ID_PUNCTUATION.contains(c);
        if (1..=ID_LENGTH_MAX).contains(&text.len()) && text.chars().all(fits) {
            return Ok(Self(text.into()));
        }
        Err(Refusal::ArgumentInvalid(format!(
            "the id of a configuration has 1 to {ID_LENGTH_MAX} lower-case letters, digits and {ID_PUNCTUATION}"
        )))
    }

    /// The id as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ConfigurationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One leaf that a configuration sets; a null removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Where in the desired properties.
    pub path: Path,
    /// A scalar, an array, an empty object, or a null.
    pub value: Value,
}

/// What a configuration sets, and in what: twins of devices or of modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// As it was written.
    pub document: Object,
    /// Whose twins.
    pub of: Source,
    /// The leaves.
    pub settings: Vec<Setting>,
}

impl Content {
    /// Takes `content` of a configuration: one of `deviceContent` and `moduleContent`, whose keys are
    /// `properties.desired` or paths beneath it.
    ///
    /// # Errors
    /// [`Refusal::ConfigurationContent`] for anything else, [`Refusal::NotImplemented`] for IoT Edge's
    /// `modulesContent`.
    pub fn new(document: Object) -> Result<Self, Refusal> {
        let invalid = |why: &str| Refusal::ConfigurationContent(why.to_owned());
        let mut given = document.iter().filter(|(_, value)| **value != Value::Null);
        let (Some((shape, content)), None) = (given.next(), given.next()) else {
            return Err(invalid("content has one of deviceContent and moduleContent"));
        };
        let of = match shape.as_str() {
            "deviceContent" => Source::Devices,
            "moduleContent" => Source::Modules,
            "modulesContent" => return Err(Refusal::NotImplemented("an IoT Edge deployment".to_owned())),
            _ => return Err(invalid("content has one of deviceContent and moduleContent")),
        };
        let content = content.as_object().ok_or_else(|| invalid("the content must be an object"))?;
        let mut patch = MergePatch::default();
        for (key, value) in content {
            match (key.strip_prefix(DESIRED), value) {
                (Some(""), Value::Object(values)) => {
                    for (key, value) in values {
                        patch.set(Section::Desired, std::slice::from_ref(key), value.clone());
                    }
                }
                (Some(rest), value) if rest.len() > 1 && rest.starts_with('.') => {
                    let keys: Vec<String> = rest[1..].split('.').map(str::to_owned).collect();
                    patch.set(Section::Desired, &keys, value.clone());
                }
                _ => return Err(invalid("the keys of the content are properties.desired or paths beneath it")),
            }
        }
        let tree = patch.desired.unwrap_or_default();
        if let Some(violation) = check_section(Section::Desired, &tree).first() {
            return Err(Refusal::ConfigurationContent(violation.to_string()));
        }
        let mut settings = Vec::new();
        leaves(&Path::root(), &tree, &mut settings);
        Ok(Self { document, of, settings })
    }
}

fn leaves(above: &Path, object: &Object, found: &mut Vec<Setting>) {
    for (key, value) in object {
        let path = above.child(key);
        match value.as_object().filter(|inner| !inner.is_empty()) {
            Some(inner) => leaves(&path, inner, found),
            None => found.push(Setting { path, value: value.clone() }),
        }
    }
}

/// Which twins a configuration targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// As it was written.
    pub text: String,
    filter: Filter,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    None,
    All,
    Where(Expr),
}

impl Condition {
    /// Takes a target condition: `*`, or a condition on `deviceId`, `tags` and `properties.reported`; for modules
    /// behind `FROM devices.modules WHERE`. The empty one targets nothing.
    ///
    /// # Errors
    /// [`Refusal::ConfigurationTarget`] for anything else.
    pub fn new(text: &str, of: Source) -> Result<Self, Refusal> {
        let invalid = |why: &dyn std::fmt::Display| Refusal::ConfigurationTarget(why.to_string());
        let filter = match text.trim() {
            "" => Filter::None,
            "*" => Filter::All,
            trimmed if of == Source::Modules => {
                let begins =
                    trimmed.get(..FROM_MODULES.len()).is_some_and(|head| head.eq_ignore_ascii_case(FROM_MODULES));
                if !begins {
                    return Err(invalid(&"a condition on modules begins with FROM devices.modules WHERE"));
                }
                let query = query::parse(&format!("SELECT * {trimmed}")).map_err(|error| invalid(&error))?;
                query.filter.map_or(Filter::All, Filter::Where)
            }
            trimmed => Filter::Where(query::parse_condition(trimmed).map_err(|error| invalid(&error))?),
        };
        if let Filter::Where(expr) = &filter {
            let allowed = |attribute: &&query::Attribute| match attribute.path() {
                [first] => matches!(first.as_str(), "deviceId" | "moduleId"),
                [first, second, ..] => first == "tags" || (first == "properties" && second == "reported"),
                [] => false,
            };
            if let Some(other) = expr.attributes().into_iter().find(|attribute| !allowed(attribute)) {
                let path = other.path().join(".");
                return Err(invalid(&format!("{path} may not stand in a target condition")));
            }
        }
        Ok(Self { text: text.to_owned(), filter })
    }

    /// Whether the condition holds for a twin.
    pub fn targets<R: Row + ?Sized>(&self, row: &R) -> bool {
        match &self.filter {
            Filter::None => false,
            Filter::All => true,
            Filter::Where(expr) => query::eval(expr, row) == Tri::True,
        }
    }
}

/// A custom metric: how many rows a query has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// As it was written.
    pub text: String,
    source: Source,
    filter: Option<Expr>,
}

impl Metric {
    /// Takes a metric's query: rows of devices or modules, without TOP and without groups.
    ///
    /// # Errors
    /// [`Refusal::ConfigurationMetric`] for anything else.
    pub fn new(text: &str) -> Result<Self, Refusal> {
        let query = query::parse(text).map_err(|error| Refusal::ConfigurationMetric(error.to_string()))?;
        let plain = match query.select {
            Select::All | Select::Items(_) => query.top.is_none() && query.source != Source::Jobs,
            Select::Groups(_) => false,
        };
        if !plain {
            let why = "a metric counts the rows of devices or devices.modules, without TOP and without aggregates";
            return Err(Refusal::ConfigurationMetric(why.to_owned()));
        }
        Ok(Self { text: text.to_owned(), source: query.source, filter: query.filter })
    }

    /// Whether the twin of `source` is one of its rows.
    pub fn counts<R: Row + ?Sized>(&self, source: Source, row: &R) -> bool {
        self.source == source && self.filter.as_ref().is_none_or(|filter| query::eval(filter, row) == Tri::True)
    }
}

/// What a PUT asks a configuration to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationSpec {
    /// As it was written; a hub prints 1.0 when it was not.
    pub schema_version: Option<String>,
    /// For its users.
    pub labels: BTreeMap<String, String>,
    /// What it sets.
    pub content: Content,
    /// What it targets, before it is known whether the content stays.
    pub target_condition: String,
    /// The higher one takes a path.
    pub priority: i64,
    /// Custom metrics, by name.
    pub metrics: BTreeMap<String, String>,
}

/// A configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Its id.
    pub id: ConfigurationId,
    /// As it was written.
    pub schema_version: Option<String>,
    /// For its users.
    pub labels: BTreeMap<String, String>,
    /// What it sets.
    pub content: Content,
    /// What it targets.
    pub condition: Condition,
    /// The higher one takes a path; of two alike the newer.
    pub priority: i64,
    /// Custom metrics, by name.
    pub metrics: BTreeMap<String, Metric>,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last written.
    pub updated: Timestamp,
    /// The number inside the etag, from 1 (`iot-hub.md` 1.4).
    pub etag_number: u64,
}

impl Configuration {
    /// A new configuration.
    ///
    /// # Errors
    /// What is wrong with its condition, its metrics or its labels.
    pub fn new(id: ConfigurationId, spec: ConfigurationSpec, now: Timestamp) -> Result<Self, Refusal> {
        if spec.labels.len() > LABELS_MAX {
            return Err(Refusal::ArgumentInvalid(format!("a configuration has at most {LABELS_MAX} labels")));
        }
        if spec.metrics.len() > METRICS_MAX {
            return Err(Refusal::ConfigurationMetric(format!("a configuration has at most {METRICS_MAX} metrics")));
        }
        let condition = Condition::new(&spec.target_condition, spec.content.of)?;
        let metric = |(name, text): (String, String)| Ok((name, Metric::new(&text)?));
        let metrics = spec.metrics.into_iter().map(metric).collect::<Result<_, Refusal>>()?;
        Ok(Self {
            id,
            schema_version: spec.schema_version,
            labels: spec.labels,
            content: spec.content,
            condition,
            priority: spec.priority,
            metrics,
            created: now,
            updated: now,
            etag_number: 1,
        })
    }

    /// The configuration after a PUT. Another content is passed over without a word (`iot-hub.md` 2.10).
    ///
    /// # Errors
    /// As [`Configuration::new`].
    pub fn replaced(&self, spec: ConfigurationSpec, now: Timestamp) -> Result<Self, Refusal> {
        let spec = ConfigurationSpec { content: self.content.clone(), ..spec };
        let after = Self::new(self.id.clone(), spec, now)?;
        Ok(Self { created: self.created, etag_number: self.etag_number + 1, ..after })
    }

    /// The etag as bodies hold it: the base64 of the number in decimal.
    #[must_use]
    pub fn etag(&self) -> String {
        BASE64.encode(self.etag_number.to_string())
    }
}

/// What the last evaluation counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Twins it targets.
    pub targeted: u64,
    /// Twins it has set something in.
    pub applied: u64,
    /// Rows of each custom metric.
    pub metrics: BTreeMap<String, u64>,
}

/// How a configuration stands to a twin it targets (`iot-hub.md` 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigurationStatus {
    /// Others of higher priority set all it would set, or the twin has no room.
    Targeted,
    /// It has set something.
    Applied,
}

impl ConfigurationStatus {
    /// As twins hold it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Targeted => "Targeted",
            Self::Applied => "Applied",
        }
    }

    /// The status of its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Targeted, Self::Applied].into_iter().find(|status| status.as_str() == text)
    }
}

/// The value at `path` of `values`.
#[must_use]
pub(super) fn value_at<'a>(values: &'a Object, path: &Path) -> Option<&'a Value> {
    let (first, below) = path.keys().split_first()?;
    below.iter().try_fold(values.get(first)?, |value, key| value.as_object()?.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object {
        Value::parse_json(json).unwrap().as_object().unwrap().clone()
    }

    fn settings(content: &str) -> Result<Vec<String>, &'static str> {
        let content = Content::new(object(content)).map_err(|refusal| refusal.code())?;
        Ok(content.settings.iter().map(|setting| format!("{}={}", setting.path, setting.value)).collect())
    }

    #[test]
    fn content_becomes_leaves_that_do_not_overlap() {
        let leaves = settings(
            r#"{"deviceContent":{"properties.desired":{"a":{"b":1,"c":[1,{"x":2}],"e":{}}},
                "properties.desired.a.b":2,"properties.desired.d.gone":null},"moduleContent":null}"#,
        );
        assert_eq!(leaves, Ok(["a.b=2", r#"a.c=[1,{"x":2}]"#, "a.e={}", "d.gone=null"].map(str::to_owned).into()));
        for (content, code) in [
            ("{}", "InvalidConfigurationContent"),
            (r#"{"deviceContent":null}"#, "InvalidConfigurationContent"),
            (r#"{"deviceContent":{},"moduleContent":{}}"#, "InvalidConfigurationContent"),
            (r#"{"deviceContent":7}"#, "InvalidConfigurationContent"),
            (r#"{"other":{}}"#, "InvalidConfigurationContent"),
            (r#"{"deviceContent":{"tags.a":1}}"#, "InvalidConfigurationContent"),
            (r#"{"deviceContent":{"properties.desired":1}}"#, "InvalidConfigurationContent"),
            (r#"{"deviceContent":{"properties.desired.":1}}"#, "InvalidConfigurationContent"),
            (r#"{"deviceContent":{"properties.desiredX":1}}"#, "InvalidConfigurationContent"),
            (r#"{"deviceContent":{"properties.desired.a b":1}}"#, "InvalidConfigurationContent"),
            (r#"{"modulesContent":{"$edgeAgent":{}}}"#, "NotImplemented"),
        ] {
            assert_eq!(settings(content), Err(code), "{content}");
        }
    }

    #[test]
    fn a_target_condition_reads_what_it_may_and_nothing_else() {
        let row = object(r#"{"deviceId":"d","moduleId":"m","tags":{"a":1},"properties":{"reported":{"r":2}}}"#);
        for (of, text, targets) in [
            (Source::Devices, "*", true),
            (Source::Devices, "", false),
            (Source::Devices, "tags.a = 1 AND properties.reported.r > 1", true),
            (Source::Devices, "deviceId = 'x'", false),
            (Source::Devices, "tags.missing != 1", false),
            (Source::Modules, "FROM devices.modules WHERE moduleId = 'm'", true),
            (Source::Modules, "from devices.modules where tags.a = 2", false),
            (Source::Modules, "FROM devices.modules", true),
        ] {
            assert_eq!(Condition::new(text, of).unwrap().targets(&row), targets, "{text}");
        }
        for (of, text) in [
            (Source::Devices, "tags.a ="),
            (Source::Devices, "properties.desired.a = 1"),
            (Source::Devices, "status = 'enabled'"),
            (Source::Devices, "tags.a = 1 GROUP BY tags.a"),
            (Source::Devices, "FROM devices.modules WHERE tags.a = 1"),
            (Source::Modules, "tags.a = 1"),
            (Source::Modules, "FROM devices.modules WHERE"),
            (Source::Modules, "FROM devices WHERE tags.a = 1"),
        ] {
            let refused = Condition::new(text, of).unwrap_err();
            assert_eq!(refused.code(), "InvalidConfigurationTargetCondition", "{text}");
        }
    }

    #[test]
    fn a_metric_counts_rows() {
        let row = object(r#"{"deviceId":"d","tags":{"a":1}}"#);
        let metric = Metric::new("SELECT deviceId FROM devices WHERE tags.a = 1").unwrap();
        assert!(metric.counts(Source::Devices, &row) && !metric.counts(Source::Modules, &row));
        for text in
            ["SELECT", "SELECT COUNT() FROM devices", "SELECT TOP 1 * FROM devices", "SELECT * FROM devices.jobs"]
        {
            assert_eq!(Metric::new(text).unwrap_err().code(), "InvalidConfigurationCustomMetricsQuery", "{text}");
        }
    }

    #[test]
    fn an_id_has_the_charset_of_configurations() {
        for good in ["a", "my-cfg_1+%*!'", &"x".repeat(128)] {
            assert_eq!(ConfigurationId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "Upper", "a b", "a/b", "ä", &"x".repeat(129)] {
            assert_eq!(ConfigurationId::new(bad).unwrap_err().code(), "ArgumentInvalid", "{bad:?}");
        }
    }
}
