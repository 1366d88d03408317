//! The table of fields as JSON Schema (draft 7), for editors.
//!
//! Invariant: made from the table that the checkers read with, so it knows their fields and no others. It says less
//! than `validate` does: limits, names and what spans documents are the checkers' alone.

use super::shape::{Field, KINDS, Kind, Shape};
use crate::twin::{Object, Value};

/// The JSON Schema of one kind, or of all of them. `None` when there is no such kind; see [`kind_names`].
#[must_use]
pub fn json_schema(kind: Option<&str>) -> Option<Value> {
    let mut schema = match kind {
        Some(wanted) => {
            let (_, shape, about) = KINDS.into_iter().find(|(kind, ..)| *kind == wanted)?;
            document(wanted, shape, about)
        }
        None => {
            let any = KINDS.map(|(kind, shape, about)| Value::Object(document(kind, shape, about)));
            object([("title", Value::from("A manifest of geminid")), ("oneOf", Value::Array(any.into()))])
        }
    };
    schema.insert("$schema".to_owned(), Value::from("http://json-schema.org/draft-07/schema#"));
    Some(Value::Object(schema))
}

/// The kinds there are.
pub fn kind_names() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().map(|(kind, ..)| kind)
}

fn document(kind: &str, shape: &Shape, about: &str) -> Object {
    let mut schema = of_shape(shape);
    schema.insert("title".to_owned(), Value::from(kind));
    schema.insert("description".to_owned(), Value::from(about));
    schema
}

fn object(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Object {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn of_shape(shape: &Shape) -> Object {
    let known = || shape.fields.iter().filter(|field| !matches!(field.kind, Kind::Never));
    let properties = known().map(|field| (field.name.to_owned(), Value::Object(of_field(field)))).collect();
    let required: Vec<Value> = known().filter(|field| field.required).map(|field| Value::from(field.name)).collect();
    let mut schema = object([
        ("type", Value::from("object")),
        ("additionalProperties", Value::from(false)),
        ("properties", Value::Object(properties)),
    ]);
    if !required.is_empty() {
        schema.insert("required".to_owned(), Value::Array(required));
    }
    schema
}

fn of_field(field: &Field) -> Object {
    let mut schema = of_kind(&field.kind);
    schema.insert("description".to_owned(), Value::from(field.about));
    schema
}

fn of_kind(kind: &Kind) -> Object {
    let typed = |name: &str| object([("type", Value::from(name))]);
    let with = |mut schema: Object, key: &str, value: Value| {
        schema.insert(key.to_owned(), value);
        schema
    };
    let text = || Value::Object(typed("string"));
    let texts = || Value::Object(with(typed("array"), "items", text()));
    match kind {
        Kind::Object(shape) => of_shape(shape),
        Kind::Each(shape) => with(typed("object"), "additionalProperties", Value::Object(of_shape(shape))),
        Kind::Texts => with(typed("object"), "additionalProperties", text()),
        Kind::Scalars => {
            let either = Value::Array(vec![Value::from("string"), Value::from("number")]);
            with(typed("object"), "additionalProperties", Value::Object(object([("type", either)])))
        }
        Kind::TextLists => with(typed("object"), "additionalProperties", texts()),
        Kind::Section => typed("object"),
        Kind::List(shape) => with(typed("array"), "items", Value::Object(of_shape(shape))),
        Kind::TextList => with(typed("array"), "items", text()),
        Kind::Text => typed("string"),
        Kind::Word(words) => {
            with(typed("string"), "enum", Value::Array(words.iter().map(|word| Value::from(*word)).collect()))
        }
        Kind::Exactly(word) => object([("const", Value::from(*word))]),
        Kind::Bool => typed("boolean"),
        Kind::True => object([("const", Value::from(true))]),
        Kind::Integer { min, max } => {
            with(with(typed("integer"), "minimum", Value::from(*min)), "maximum", Value::from(*max))
        }
        Kind::Number => typed("number"),
        Kind::Duration => with(typed("string"), "pattern", Value::from("^(?=.)([0-9]+h)?([0-9]+m)?([0-9]+s)?$")),
        // Not in the schema at all, so that editors refuse it.
        Kind::Never => Object::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::manifest::parse_file;

    /// Each object of the schema of `kind` by its path, with the names of its fields; `*` stands for any key, `0` for
    /// an item of a list.
    fn objects(kind: &str) -> Vec<(Vec<String>, BTreeSet<String>)> {
        let mut found = Vec::new();
        walk(&json_schema(Some(kind)).unwrap(), &mut Vec::new(), &mut found);
        found
    }

    fn walk(schema: &Value, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, BTreeSet<String>)>) {
        let mut below = |key: &str, schema: &Value, path: &mut Vec<String>| {
            path.push(key.to_owned());
            walk(schema, path, found);
            path.pop();
        };
        if let Some(items) = schema.get(["items"]) {
            below("0", items, path);
        }
        if let Some(each @ Value::Object(_)) = schema.get(["additionalProperties"]) {
            below("any", each, path);
        }
        if let Some(properties) = schema.get(["properties"]).and_then(Value::as_object) {
            for (name, schema) in properties {
                below(name, schema, path);
            }
            found.push((path.clone(), properties.keys().cloned().collect()));
        }
    }

    /// A document of `kind` with `value` at `path` and nothing else but what leads there. JSON is YAML.
    fn document(kind: &str, path: &[String], value: &str) -> String {
        let wrapped = path.iter().rev().fold(value.to_owned(), |inner, key| {
            if key == "0" { format!("[{inner}]") } else { format!("{{\"{key}\": {inner}}}") }
        });
        let mut text = format!("\"apiVersion\": \"geminid.dev/v1alpha1\", \"kind\": \"{kind}\"");
        if !["apiVersion", "kind"].contains(&path.first().map_or("", String::as_str)) {
            let inner = wrapped.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap();
            text = format!("{text}, {inner}");
        }
        format!("{{{text}}}\n")
    }

    fn messages(text: &str, rule: &str) -> Vec<String> {
        let file = parse_file("f", text);
        file.diagnostics().iter().filter(|found| found.rule == rule).map(|found| found.message.clone()).collect()
    }

    #[test]
    fn the_checkers_know_the_fields_of_the_schema_and_no_others() {
        for kind in kind_names() {
            for (path, names) in objects(kind) {
                let mut unknown = path.clone();
                unknown.push("0zzz0".to_owned());
                let known = messages(&document(kind, &unknown, "1"), "unknown-field");
                let names: Vec<String> = names.into_iter().collect();
                let listed =
                    known.first().and_then(|message| message.split("fields here are ").nth(1)).unwrap_or_default();
                let listed: BTreeSet<String> = listed.split(", ").map(str::to_owned).collect();
                assert_eq!(listed.into_iter().collect::<Vec<_>>(), names, "{kind} {path:?}: {known:?}");
            }
        }
    }

    #[test]
    fn every_field_of_the_schema_is_really_read() {
        for kind in kind_names() {
            for (path, names) in objects(kind) {
                for name in names.iter().filter(|name| !["apiVersion", "kind"].contains(&name.as_str())) {
                    let field: Vec<String> = path.iter().chain([name]).cloned().collect();
                    // No field takes a list of lists, nor the number 7.5 where a list belongs.
                    let shown = |value: &str| parse_file("f", &document(kind, &field, value)).diagnostics().to_vec();
                    let place = field.join(".").replace(".0", "[0]");
                    let refused = |value: &str| {
                        shown(value).iter().any(|found| found.is_error() && found.path.starts_with(&place))
                    };
                    assert!(refused("[[7.5]]") || refused("7.5"), "{kind} {place}");
                }
            }
        }
    }

    #[test]
    fn each_kind_has_a_schema_and_nothing_else_has() {
        assert_eq!(json_schema(Some("Secret")), None);
        let Some(Value::Array(any)) = json_schema(None).unwrap().get(["oneOf"]).cloned() else { panic!("all kinds") };
        let titles: Vec<_> = any.iter().filter_map(|schema| schema.get(["title"])?.as_str()).collect();
        assert_eq!(titles, kind_names().collect::<Vec<_>>());
        let text = json_schema(Some("TwinProfile")).unwrap().to_string();
        assert!(
            text.contains(r#""enum":["devices","modules"]"#) && text.contains(r#""required":["selector"]"#),
            "{text}"
        );
        assert!(!text.contains("reported"), "{text}");
    }
}
