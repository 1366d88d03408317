//! The fields of every kind, as one table: the checkers take the names from it, and the JSON Schema is printed from it.
//!
//! Invariant: a field that is read is in the table, and a field of the table is read; so the schema that editors
//! complete with and the checks of `validate` cannot drift apart.

/// A mapping with named fields.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) fields: &'static [Field],
    /// Fields of the design that this version refuses by name.
    pub(super) later: &'static [&'static str],
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) kind: Kind,
    pub(super) about: &'static str,
}

/// What a field holds.
#[derive(Debug)]
pub(super) enum Kind {
    Object(&'static Shape),
    /// A mapping of any keys to values of one shape.
    Each(&'static Shape),
    /// A mapping of any keys to texts.
    Texts,
    /// A mapping of any keys to texts or numbers.
    Scalars,
    /// A mapping of any keys to lists of texts.
    TextLists,
    /// A mapping as the twin holds it.
    Section,
    /// A list of mappings of one shape.
    List(&'static Shape),
    /// A list of texts.
    TextList,
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Words that must be exactly this.
    Exactly(&'static str),
    Bool,
    /// `true`, the one value that says anything.
    True,
    Integer {
        min: i64,
        max: i64,
    },
    Number,
    /// `90s`, `5m`, `1h30m`.
    Duration,
    /// Never to be given; known to get its own message.
    Never,
}

const fn field(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, required: false, kind, about }
}

const fn required(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, required: true, kind, about }
}

impl Shape {
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().filter(|field| !matches!(field.kind, Kind::Never)).map(|field| field.name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name == name)
    }
}

/// The kinds with the shape of their documents, in the order of everything printed.
pub(super) const KINDS: [(&str, &Shape, &str); 4] = [
    ("DeviceTwin", &DEVICE_TWIN, "Tags and desired properties of one device"),
    ("ModuleTwin", &MODULE_TWIN, "Tags and desired properties of one module of a device"),
    ("TwinProfile", &TWIN_PROFILE, "The same values for many twins"),
    ("TwinQuery", &TWIN_QUERY, "A twin query whose rows become Prometheus metrics"),
];

/// The one version of the API.
pub(super) const API_VERSION: &str = "geminid.dev/v1alpha1";

const PRIORITY_MAX: i64 = 1_000_000;
pub(super) const REMOVAL_POLICIES: [&str; 2] = ["orphan", "clear"];

const API: Field = required("apiVersion", Kind::Exactly(API_VERSION), "The version of this format");

/// A document whose kind is not known yet.
pub(super) const DOCUMENT: Shape = Shape {
    fields: &[
        API,
        required("kind", Kind::Text, "What the document declares"),
        required("metadata", Kind::Object(&METADATA), "The document's name"),
        field("spec", Kind::Section, "What is declared"),
    ],
    later: &[],
};

const DEVICE_TWIN: Shape = Shape {
    fields: &[
        API,
        required("kind", Kind::Exactly("DeviceTwin"), "What the document declares"),
        required("metadata", Kind::Object(&METADATA), "The device id, labels and annotations"),
        field("spec", Kind::Object(&DEVICE_SPEC), "What is declared of the twin"),
    ],
    later: &[],
};

const MODULE_TWIN: Shape = Shape {
    fields: &[
        API,
        required("kind", Kind::Exactly("ModuleTwin"), "What the document declares"),
        required("metadata", Kind::Object(&METADATA), "The module id, labels and annotations"),
        required("spec", Kind::Object(&MODULE_SPEC), "The device, and what is declared of the twin"),
    ],
    later: &[],
};

const TWIN_PROFILE: Shape = Shape {
    fields: &[
        API,
        required("kind", Kind::Exactly("TwinProfile"), "What the document declares"),
        required("metadata", Kind::Object(&METADATA), "The profile's name"),
        required("spec", Kind::Object(&PROFILE_SPEC), "The twins, and what is declared of them"),
    ],
    later: &[],
};

const TWIN_QUERY: Shape = Shape {
    fields: &[
        API,
        required("kind", Kind::Exactly("TwinQuery"), "What the document declares"),
        required("metadata", Kind::Object(&METADATA), "The query's name"),
        required("spec", Kind::Object(&QUERY_SPEC), "The query and its metrics"),
    ],
    later: &[],
};

pub(super) const METADATA: Shape = Shape {
    fields: &[
        required("name", Kind::Text, "The device id, the module id, or a name of one's own"),
        field("labels", Kind::Texts, "For profiles and for the command line; never sent to the hub"),
        field(
            "annotations",
            Kind::Texts,
            "Free texts; geminid.dev/suspend (a reason) and geminid.dev/suspend-until (a time) suspend a twin",
        ),
    ],
    later: &[],
};

const TAGS: Field = field("tags", Kind::Section, "The twin's tags; null: must not exist");
const PROPERTIES_FIELD: Field = field("properties", Kind::Object(&PROPERTIES), "The twin's properties");
const INITIAL_ONLY: Field =
    field("initialOnly", Kind::TextList, "Paths whose values are set when absent and never corrected");
const SENSITIVE: Field = field("sensitive", Kind::TextList, "Paths whose values are shown as salted hashes everywhere");
const REMOVAL_POLICY: Field = field(
    "removalPolicy",
    Kind::Word(&REMOVAL_POLICIES),
    "When this manifest goes: orphan leaves the values, clear removes what is ours",
);

pub(super) const DEVICE_SPEC: Shape = Shape {
    fields: &[
        field("create", Kind::Bool, "Register the device when it does not exist"),
        REMOVAL_POLICY,
        INITIAL_ONLY,
        SENSITIVE,
        TAGS,
        PROPERTIES_FIELD,
    ],
    later: &[],
};

pub(super) const MODULE_SPEC: Shape = Shape {
    fields: &[
        required("device", Kind::Text, "The id of the module's device"),
        REMOVAL_POLICY,
        INITIAL_ONLY,
        SENSITIVE,
        TAGS,
        PROPERTIES_FIELD,
    ],
    later: &[],
};

pub(super) const PROFILE_SPEC: Shape = Shape {
    fields: &[
        field("target", Kind::Word(&["devices", "modules"]), "Whose twins: devices (default) or modules"),
        field(
            "priority",
            Kind::Integer { min: -PRIORITY_MAX, max: PRIORITY_MAX },
            "A higher one takes a path with all above and below it; 0 by default",
        ),
        required("selector", Kind::Object(&SELECTOR), "Which twins; all given parts must match"),
        field(
            "removalPolicy",
            Kind::Word(&REMOVAL_POLICIES),
            "When a twin leaves `where` by a change of its own: orphan leaves the values, clear removes them",
        ),
        INITIAL_ONLY,
        SENSITIVE,
        TAGS,
        PROPERTIES_FIELD,
    ],
    later: &[],
};

pub(super) const SELECTOR: Shape = Shape {
    fields: &[
        field("matchLabels", Kind::Texts, "Labels that the twin's manifest carries"),
        field("devices", Kind::TextList, "Globs over the ids of declared devices"),
        field(
            "where",
            Kind::Text,
            "A twin-query condition on the live twin; alone it also brings in twins that no manifest names",
        ),
    ],
    later: &[],
};

pub(super) const PROPERTIES: Shape = Shape {
    fields: &[
        field("desired", Kind::Section, "The twin's desired properties; null: must not exist"),
        field("reported", Kind::Never, "Written by the device alone"),
    ],
    later: &[],
};

pub(super) const QUERY_SPEC: Shape = Shape {
    fields: &[
        field("suspend", Kind::Bool, "No runs and no series, until it is false again"),
        required("query", Kind::Text, "The query, as IoT Hub takes it"),
        field("evaluate", Kind::Word(&EVALUATES), "Who answers: the hub (default), or the rows of each sweep"),
        field("interval", Kind::Duration, "Time from one run to the next; 5m by default"),
        field("timeout", Kind::Duration, "The longest a run may take"),
        field("staleAfter", Kind::Duration, "How old a result may get before its series are withdrawn"),
        field("pageSize", Kind::Integer { min: 1, max: super::query_schema::PAGE_SIZE_MAX as i64 }, "Rows of one page"),
        field("onEmpty", Kind::Word(&ON_EMPTY), "What no row means: an answer to publish (default), or a failure"),
        field("limits", Kind::Object(&QUERY_LIMITS), "What a run may cost"),
        required("metrics", Kind::List(&METRIC), "The metrics made of the rows"),
    ],
    later: &[],
};

pub(super) const EVALUATES: [&str; 2] = ["hub", "sweep"];
pub(super) const ON_EMPTY: [&str; 2] = ["publish", "fail"];
pub(super) const ON_EXCEED: [&str; 2] = ["fail", "truncate"];
pub(super) const METRIC_KINDS: [&str; 4] = ["gauge", "counter", "info", "stateset"];
pub(super) const CASES: [&str; 3] = ["keep", "lower", "upper"];
pub(super) const PARSES: [&str; 5] = ["auto", "number", "bool", "percent", "rfc3339"];
pub(super) const ON_MISSING: [&str; 3] = ["skip", "zero", "fail"];
pub(super) const ON_INVALID: [&str; 2] = ["skip", "fail"];
pub(super) const REDUCES: [&str; 6] = ["error", "sum", "min", "max", "avg", "first"];

pub(super) const QUERY_LIMITS: Shape = Shape {
    fields: &[
        field("maxPages", Kind::Integer { min: 1, max: super::query_schema::PAGES_MAX as i64 }, "Pages of one run"),
        field("maxRows", Kind::Integer { min: 1, max: super::query_schema::ROWS_MAX as i64 }, "Rows of one run"),
        field(
            "maxSeries",
            Kind::Integer { min: 1, max: super::query_schema::SERIES_MAX as i64 },
            "Series of the query",
        ),
        field(
            "maxLabelLength",
            Kind::Integer { min: 1, max: super::query_schema::LABEL_LENGTH_MAX as i64 },
            "Bytes of a label's value",
        ),
        field(
            "onExceed",
            Kind::Word(&ON_EXCEED),
            "Beyond pages, rows and series: the run fails (default), or leaves out and counts",
        ),
    ],
    later: &[],
};

pub(super) const METRIC: Shape = Shape {
    fields: &[
        required("name", Kind::Text, "The full metric name, twinquery_..."),
        field("type", Kind::Word(&METRIC_KINDS), "gauge (default), counter (..._total), info (..._info) or stateset"),
        required("help", Kind::Text, "One line that says what is counted"),
        field("labels", Kind::Each(&LABEL), "Labels, from a column or constant"),
        field("value", Kind::Object(&METRIC_VALUE), "Where the value comes from; an info has none"),
        field("zeroFill", Kind::TextLists, "Label values whose series are 0 rather than absent when nothing matches"),
        field("states", Kind::TextList, "Of a stateset: its states, one series each"),
        field("stateLabel", Kind::Text, "Of a stateset: the label that holds the state; state by default"),
    ],
    later: &[],
};

pub(super) const METRIC_VALUE: Shape = Shape {
    fields: &[
        field("count", Kind::True, "Count the rows"),
        field("const", Kind::Number, "The same number for every set of labels"),
        field("column", Kind::Text, "A column of the rows, keys joined by dots"),
        field("parse", Kind::Word(&PARSES), "How the column is read: auto (default) takes numbers and booleans"),
        field("map", Kind::Scalars, "Texts that mean a number, or in a stateset a state"),
        field("scale", Kind::Number, "What the number is multiplied by"),
        field("onMissing", Kind::Word(&ON_MISSING), "A row without the value: skip (default), zero or fail"),
        field("onInvalid", Kind::Word(&ON_INVALID), "A row with another kind of value: skip and count it, or fail"),
        field("reduce", Kind::Word(&REDUCES), "Rows with equal labels: error (default), sum, min, max, avg or first"),
    ],
    later: &[],
};

pub(super) const LABEL: Shape = Shape {
    fields: &[
        field("column", Kind::Text, "A column of the rows, keys joined by dots"),
        field("const", Kind::Text, "The same text for every row"),
        field("default", Kind::Text, "The label where the column has no text; without it the label is absent"),
        field("case", Kind::Word(&CASES), "Letters: keep (default), lower or upper"),
        field("map", Kind::Texts, "Values that become others"),
        field("allow", Kind::TextList, "The values that stay"),
        field("other", Kind::Text, "What every other value becomes; other by default"),
    ],
    later: &[],
};
