//! Tables of broken manifests, each with the exact diagnostics it gives.

mod documents;
mod twins;

use super::*;

/// A device twin with this spec, which begins on line 5.
fn twin(spec: &str) -> String {
    format!("apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {{name: d1}}\nspec:\n{spec}")
}

/// A twin query with this spec, which begins on line 5.
fn query(spec: &str) -> String {
    format!("apiVersion: geminid.dev/v1alpha1\nkind: TwinQuery\nmetadata: {{name: q1}}\nspec:\n{spec}")
}

/// A text, and the rule and line of each of its diagnostics.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

/// Each expected diagnostic is its rule, and its line without `f:`.
fn check(text: &str, expected: &[(&str, &str)]) {
    let file = parse_file("f", text);
    let found: Vec<(&str, String)> =
        file.diagnostics().iter().map(|diagnostic| (diagnostic.rule, diagnostic.to_string())).collect();
    let expected: Vec<(&str, String)> = expected.iter().map(|(rule, line)| (*rule, format!("f:{line}"))).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn places_are_right_in_every_kind_of_text() {
    let place = |text: &str| {
        let file = parse_file("f", text);
        let places: Vec<String> = file
            .diagnostics()
            .iter()
            .map(|diagnostic| format!("{}:{} {}", diagnostic.line, diagnostic.column, diagnostic.path))
            .collect();
        places.join(", ")
    };
    for (text, expected) in [
        // A byte order mark does not count, nor does the other half of a line break.
        (format!("\u{FEFF}{}", twin("  create: 1\n")), "5:11 spec.create"),
        (twin("  create: 1\n").replace('\n', "\r\n"), "5:11 spec.create"),
        // Columns count characters.
        (twin("  tags: {ключ: .nan}\n"), "5:16 spec.tags.ключ"),
        (twin("  tags: {\"ü\": \"ü\", b: 1.10}\n"), "5:23 spec.tags.b"),
        // A quoted text begins at its quote, and a text that was escaped or folded at its key.
        (twin("  create: 'x'\n"), "5:11 spec.create"),
        (twin("  create: \"\\x41\"\n"), "5:3 spec.create"),
        (twin("  create: |\n    x\n"), "5:3 spec.create"),
        (twin("  create: a\n    b\n"), "5:3 spec.create"),
        // A mapping begins at its key, and in a list at its first key.
        (twin("  create:\n    a: 1\n"), "5:3 spec.create"),
        (
            query("  query: SELECT a AS a FROM devices\n  metrics:\n  -\n    help: N.\n"),
            "8:5 spec.metrics[0].name, 8:5 spec.metrics[0].value",
        ),
        // Markers, comments and empty documents around it do not move a document.
        (
            format!("# a\n\n---\n---\n# b\n--- # c\n{}...\n---\n\n{}", twin("  create: 1\n"), twin("  create: 2\n")),
            "11:11 spec.create, 19:11 spec.create",
        ),
        ("--- {kind: 5}\n".to_owned(), "1:1 apiVersion, 1:12 kind"),
    ] {
        assert_eq!(place(&text), expected, "{text}");
    }
}

#[test]
fn hostile_texts_end_soon_and_in_a_diagnostic() {
    let million = 1 << 20;
    for text in [
        "[".repeat(million),
        "{".repeat(million),
        "- ".repeat(million / 2),
        "? ".repeat(million / 2),
        format!("a: {}", "&a ".repeat(million / 4)),
        "*a ".repeat(million / 4),
        "!x ".repeat(million / 4),
        format!("a: &a [{}]\nb: *a\n", "x,".repeat(1000)),
        "---\n- ".repeat(10_000),
        format!("kind: {}", "x".repeat(million)),
        "\u{FEFF}\u{FEFF}".to_owned(),
        "a: \"\\uD800\"\n".to_owned(),
        "%".to_owned(),
        "\"".to_owned(),
        "a: |9\n".to_owned(),
        "--- >\n".to_owned(),
        "? a\n".to_owned(),
        ": a\n".to_owned(),
        "a: b: c\n".to_owned(),
    ] {
        let start = text.get(..20).unwrap_or(&text);
        assert!(parse_file("f", &text).diagnostics().iter().any(Diagnostic::is_error), "{start}");
    }
}

#[test]
fn problems_beyond_the_bound_are_counted() {
    let text = twin(&(0..500).map(|n| format!("  x{n}: 1\n")).collect::<String>());
    let file = parse_file("f", &text);
    assert_eq!(file.diagnostics().len(), 201);
    let last = file.diagnostics().last().unwrap().to_string();
    assert_eq!(last, "f:205:3: error: 500 problems in this file, the first 200 are listed; fix these first");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-c:\\-\\[\\]{}&*!|>'\"%@`#?,~0-9.\\\\ \n\t<ä]{0,60}") {
        let file = parse_file("f", &text);
        let files = std::collections::BTreeMap::from([("f".into(), std::sync::Arc::new(file))]);
        let lowered = lower(&files, &LastGood::default());
        proptest::prop_assert!(lowered.state.twins.is_empty());
    }

    #[test]
    fn no_change_of_one_character_makes_the_parser_panic(place in 0_usize..400, with in "[:\\-\\[{&*!|>'\"%@#?,~\\\\ \n\t<ä]") {
        let mut text = twin("  create: true\n  tags:\n    a: [1, 'b', {c: \"d\\n\"}]\n    e: |\n      f\n    g: >-\n      h\n")
            + "---\n" + &query("  query: SELECT * FROM devices\n  metrics:\n  - {name: twinquery_n, help: N., value: {count: true}}\n");
        let place = place % text.len();
        text.replace_range(place..=place, &with);
        let file = parse_file("f", &text);
        proptest::prop_assert!(!file.documents.is_empty());
    }
}
