//! Tables of broken manifests, each with the exact diagnostics it gives.

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

const DEVICE_TWINS: &[Case] = &[
    (
        "  tags: {a: 1, a: 2}\n",
        &[(
            "duplicate-key",
            "5:16: error: the key \"a\" is already given on line 5; keep one of the two (spec.tags.a)",
        )],
    ),
    (
        "  tags:\n    b:\n      c: 1\n      \"c\": 2\n",
        &[(
            "duplicate-key",
            "8:7: error: the key \"c\" is already given on line 7; keep one of the two (spec.tags.b.c)",
        )],
    ),
    (
        "  tags:\n    <<: {a: 1}\n",
        &[("merge-key", "6:5: error: merge keys are not taken; write the values out (spec.tags)")],
    ),
    (
        "  tags: &t {a: 1}\n  properties: {desired: *t}\n",
        &[
            ("anchor", "5:9: error: anchors are not taken; write the value out where it is used"),
            ("alias", "6:25: error: aliases are not taken; write the value out, or quote a text that begins with *"),
        ],
    ),
    (
        "  tags: {a: !secret x}\n",
        &[("tag", "5:13: error: tags are not taken; remove it, or quote a text that begins with !")],
    ),
    (
        "  tags: {a: !!str 5}\n",
        &[("tag", "5:13: error: tags are not taken; remove it, or quote a text that begins with !")],
    ),
    (
        "  tags: {1: x}\n",
        &[("non-string-key", "5:10: error: a key is a text, this one is the number 1; quote it (spec.tags)")],
    ),
    (
        "  tags: {true: x, ~: y}\n",
        &[
            ("non-string-key", "5:10: error: a key is a text, this one is true; quote it (spec.tags)"),
            ("non-string-key", "5:19: error: a key is a text, this one is nothing; quote it (spec.tags)"),
        ],
    ),
    ("  tags: {[a]: x}\n", &[("non-string-key", "5:3: error: a key is a text, not a mapping or list (spec.tags)")]),
    (
        "  tags: {a: .nan, b: -.inf, c: 1e999}\n",
        &[
            (
                "number",
                "5:13: error: .nan is not a number JSON has; write a finite number, or quote it to send the text (spec.tags.a)",
            ),
            (
                "number",
                "5:22: error: -.inf is not a number JSON has; write a finite number, or quote it to send the text (spec.tags.b)",
            ),
            (
                "number",
                "5:32: error: 1e999 is not a number JSON has; write a finite number, or quote it to send the text (spec.tags.c)",
            ),
        ],
    ),
    (
        "  tags: {a: 92233720368547758080}\n",
        &[(
            "number",
            "5:13: error: 92233720368547758080 does not fit 64 bits; quote it to send the text (spec.tags.a)",
        )],
    ),
    (
        "  tags:\n    a: [1\n",
        &[(
            "yaml-syntax",
            "7:1: error: not valid YAML: did not find expected ',' or ']', while parsing a flow sequence",
        )],
    ),
    (
        "  tags:\n   a: 1\n  b: 2\n c: 3\n",
        &[("yaml-syntax", "8:2: error: not valid YAML: did not find expected key, while parsing a block mapping")],
    ),
    (
        "  tags: {a: \"x\u{7}\"}\n",
        &[("yaml-syntax", "5:15: error: the character '\\u{7}' is not allowed in YAML; remove it")],
    ),
    ("  create: yes\n", &[("wrong-type", "5:11: error: expected true or false, found the text \"yes\" (spec.create)")]),
    ("  create: 1\n", &[("wrong-type", "5:11: error: expected true or false, found the number 1 (spec.create)")]),
    (
        "  removalPolicy: delete\n",
        &[("unknown-value", "5:18: error: expected orphan or clear, found the text \"delete\" (spec.removalPolicy)")],
    ),
    ("  tag: {a: 1}\n", &[("unknown-field", "5:3: error: unknown field \"tag\"; did you mean \"tags\"? (spec.tag)")]),
    (
        "  zzz: {a: 1}\n",
        &[(
            "unknown-field",
            "5:3: error: unknown field \"zzz\"; fields here are create, removalPolicy, initialOnly, sensitive, tags, properties (spec.zzz)",
        )],
    ),
    (
        "  initialOnly: [tags.a, reported.x]\n  sensitive: {a: 1}\n  tags: {a: 1}\n",
        &[
            (
                "path",
                "5:25: error: a path begins with tags or properties.desired; \"reported.x\" does not (spec.initialOnly[1])",
            ),
            ("wrong-type", "6:3: error: expected a list, found a mapping (spec.sensitive)"),
        ],
    ),
    (
        "  initialOnly: [tags.b]\n  sensitive: [tags..c]\n  tags: {a: 1}\n",
        &[
            (
                "idle-path",
                "5:3: warning: tags.b names nothing that is declared here; correct or remove it (spec.initialOnly)",
            ),
            ("path", "6:15: error: the path \"tags..c\" does not fit: a key is empty (spec.sensitive[0])"),
        ],
    ),
    (
        "  tags: {geminid: null}\n",
        &[(
            "reserved-key",
            "5:10: error: tags.geminid holds geminid's own records and cannot be declared; use another key (spec.tags.geminid)",
        )],
    ),
    ("  tags: [a]\n", &[("wrong-type", "5:3: error: expected a mapping, found a list (spec.tags)")]),
    ("  tags:\n", &[("wrong-type", "5:3: error: expected a mapping, found nothing (spec.tags)")]),
    (
        "  properties: {reported: {a: 1}}\n",
        &[(
            "reported",
            "5:16: error: properties.reported is written by the device alone; remove it, or declare it under desired (spec.properties.reported)",
        )],
    ),
    (
        "  properties:\n    desired:\n      wifi:\n        pass.word: x\n",
        &[(
            "key-character",
            "8:9: error: key \"pass.word\" holds '.'; a key may not hold `.`, `$`, `#`, spaces or control characters (spec.properties.desired.wifi.pass.word)",
        )],
    ),
    (
        "  tags: {n: 4503599627370496}\n",
        &[(
            "integer-range",
            "5:13: error: 4503599627370496 is outside -4503599627370496 to 4503599627370495; quote it to send it as a string (spec.tags.n)",
        )],
    ),
    (
        "  tags:\n    l:\n    - {x: null}\n",
        &[("null-in-array", "7:11: error: null is not allowed inside an array; leave the element out (spec.tags.l.x)")],
    ),
    (
        "  tags: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: 1}}}}}}}}}}}}\n",
        &[(
            "section-depth",
            "5:50: error: nested deeper than 10 levels; flatten the tree (spec.tags.a.a.a.a.a.a.a.a.a.a.a)",
        )],
    ),
    (
        "  tags: {a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}\n",
        &[
            (
                "too-deep",
                "5:10: error: nested deeper than 32 levels; flatten the document (spec.tags.a[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0])",
            ),
            ("section-depth", "5:10: error: nested deeper than 10 levels; flatten the tree (spec.tags.a)"),
        ],
    ),
    (
        "  tags: {version: 1.10, big: 1e3, old: 010, sw: [on]}\n",
        &[
            (
                "changed-value",
                "5:19: warning: 1.10 is sent as the number 1.1; quote it to send the text (spec.tags.version)",
            ),
            (
                "changed-value",
                "5:30: warning: 1e3 is sent as the number 1000.0; quote it to send the text (spec.tags.big)",
            ),
            (
                "ambiguous-value",
                "5:40: warning: 010 is sent as a text, and other YAML readers take it for a boolean or number; quote it (spec.tags.old)",
            ),
            (
                "ambiguous-value",
                "5:50: warning: on is sent as a text, and other YAML readers take it for a boolean or number; quote it (spec.tags.sw[0])",
            ),
        ],
    ),
];

#[test]
fn each_problem_of_a_device_twin_has_its_place_and_remedy() {
    for (text, expected) in DEVICE_TWINS {
        check(&twin(text), expected);
    }
}

const DOCUMENTS: &[Case] = &[
    (
        "\tkind: DeviceTwin\n",
        &[(
            "yaml-syntax",
            "1:1: error: not valid YAML: found character that cannot start any token, while scanning for the next token",
        )],
    ),
    (
        "%YAML 1.1\n---\napiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: d1}\nspec:\n  create: true\n",
        &[("directive", "1:1: error: YAML directives are not taken; remove the line")],
    ),
    (
        "just a text\n",
        &[("not-a-mapping", "1:1: error: a document is a mapping with apiVersion, kind, metadata and spec")],
    ),
    (
        "- a\n- b\n",
        &[("not-a-mapping", "1:1: error: a document is a mapping with apiVersion, kind, metadata and spec")],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: d1}\n",
        &[("nothing-declared", "1:1: warning: nothing is declared; give spec.tags or spec.properties.desired (spec)")],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: my device}\nspec: {create: true}\n",
        &[(
            "device-id",
            "3:18: error: an id may not hold ' '; allowed are ASCII letters, digits and -:.+%_#*?!(),=@;$' (metadata.name)",
        )],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: 42}\nspec: {create: true}\n",
        &[("wrong-type", "3:18: error: expected a text in quotes, found the number 42 (metadata.name)")],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {labels: {plant: 43}}\nspec: {create: true}\n",
        &[
            ("missing-field", "3:1: error: name is missing; it is the device id (metadata.name)"),
            ("wrong-type", "3:28: error: expected a text in quotes, found the number 43 (metadata.labels.plant)"),
        ],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nspec: {create: true}\n",
        &[("missing-field", "1:1: error: metadata is missing; give metadata.name, the device id (metadata)")],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata:\n  name: d1\n  annotations: {geminid.dev/suspended: \"x\", team: a}\nspec: {create: true}\n",
        &[(
            "unknown-annotation",
            "5:17: error: unknown annotation \"geminid.dev/suspended\"; did you mean \"geminid.dev/suspend\"? (metadata.annotations.geminid.dev/suspended)",
        )],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata:\n  name: d1\n  annotations: {geminid.dev/suspend-until: tomorrow, geminid.dev/suspend: ''}\nspec: {create: true}\n",
        &[
            (
                "suspend-until",
                "5:44: error: \"tomorrow\" is no time; write one such as 2027-01-08T00:00:00Z (metadata.annotations.geminid.dev/suspend-until)",
            ),
            (
                "suspend-reason",
                "5:75: error: give a reason, one line: whoever asks why this twin is left alone reads it (metadata.annotations.geminid.dev/suspend)",
            ),
        ],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata:\n  name: d1\n  annotations: {geminid.dev/suspend-until: '2027-01-08T00:00:00Z'}\nspec: {create: true}\n",
        &[(
            "suspend-reason",
            "5:17: error: geminid.dev/suspend-until says how long; add geminid.dev/suspend with the reason (metadata.annotations.geminid.dev/suspend-until)",
        )],
    ),
    (
        "apiVersion: geminid.dev/v1alpha2\nkind: DeviceTwin\nmetadata: {name: d1}\nspec: {create: true}\n",
        &[(
            "api-version",
            "1:13: error: expected geminid.dev/v1alpha1, found \"geminid.dev/v1alpha2\"; write that version (apiVersion)",
        )],
    ),
    (
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n",
        &[(
            "api-version",
            "1:13: error: expected geminid.dev/v1alpha1, found \"kustomize.config.k8s.io/v1beta1\"; move other files out of this folder (apiVersion)",
        )],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwins\nmetadata: {name: d1}\n",
        &[("unknown-kind", "2:7: error: unknown kind \"DeviceTwins\"; did you mean \"DeviceTwin\"? (kind)")],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: ModuleTwin\nmetadata: {name: m}\nspec: {create: true}\n",
        &[
            ("missing-field", "4:1: error: device is missing; it is the id of the module's device (spec.device)"),
            (
                "unknown-field",
                "4:8: error: unknown field \"create\"; fields here are device, removalPolicy, initialOnly, sensitive, tags, properties (spec.create)",
            ),
        ],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: ModuleTwin\nmetadata: {name: $edgeHub}\nspec: {device: d 1, tags: {a: 1}}\n",
        &[
            (
                "edge-module",
                "3:18: error: $edgeHub belongs to IoT Edge deployments; change it with a deployment manifest (metadata.name)",
            ),
            (
                "device-id",
                "4:16: error: an id may not hold ' '; allowed are ASCII letters, digits and -:.+%_#*?!(),=@;$' (spec.device)",
            ),
        ],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: TwinProfile\nmetadata: {name: p}\n",
        &[("missing-field", "1:1: error: spec is missing; give spec.selector and what is declared (spec)")],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: TwinProfile\nmetadata: {name: P}\nspec:\n  target: device\n  priority: high\n  selector: {devices: ['[', a/b]}\n  tags: {geminid: 1}\n",
        &[
            (
                "profile-name",
                "3:18: error: \"P\" is no name for a profile; use 1 to 63 of a-z, 0-9 and -, with - neither first nor last (metadata.name)",
            ),
            (
                "unknown-value",
                "5:11: error: expected devices or modules, found the text \"device\"; did you mean \"devices\"? (spec.target)",
            ),
            (
                "out-of-range",
                "6:13: error: expected a whole number, -1000000 to 1000000, found the text \"high\" (spec.priority)",
            ),
            (
                "glob",
                "7:24: error: \"[\" is not a glob: unclosed character class; missing ']' (spec.selector.devices[0])",
            ),
            (
                "glob",
                "7:29: error: no id holds /, so this glob matches nothing; modules are selected by their device (spec.selector.devices[1])",
            ),
            (
                "reserved-key",
                "8:10: error: tags.geminid holds geminid's own records and cannot be declared; use another key (spec.tags.geminid)",
            ),
        ],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: TwinProfile\nmetadata: {name: p, annotations: {geminid.dev/suspend: x}}\nspec:\n  selector: {matchLabels: {}}\n",
        &[
            (
                "suspend-profile",
                "1:1: error: a profile cannot be suspended; suspend the twins, or remove the profile (metadata.annotations)",
            ),
            (
                "nothing-declared",
                "1:1: warning: a profile that declares nothing does nothing; give spec.tags or spec.properties.desired (spec)",
            ),
            (
                "empty-selector",
                "5:3: error: an empty selector would select nothing or everything by accident; give matchLabels, devices or where, and devices: [\"*\"] for every declared twin (spec.selector)",
            ),
        ],
    ),
    (
        "kind: Secret\nmetadata: {name: s}\n",
        &[
            ("missing-field", "1:1: error: apiVersion is missing; write apiVersion: geminid.dev/v1alpha1 (apiVersion)"),
            (
                "unknown-kind",
                "1:7: error: unknown kind \"Secret\"; kinds are DeviceTwin, ModuleTwin, TwinProfile, TwinQuery (kind)",
            ),
        ],
    ),
    (
        "{}\n",
        &[
            ("missing-field", "1:1: error: apiVersion is missing; write apiVersion: geminid.dev/v1alpha1 (apiVersion)"),
            (
                "missing-field",
                "1:1: error: kind is missing; write kind: and one of DeviceTwin, ModuleTwin, TwinProfile, TwinQuery (kind)",
            ),
        ],
    ),
    (
        "apiVersion: geminid.dev/v1alpha1\nkind: TwinQuery\nmetadata: {name: Q_1}\nspec:\n  query: SELECT deviceId AS device FROM devices\n  metrics:\n  - name: twinquery_n\n    help: N.\n    value: {count: true}\n",
        &[(
            "query-name",
            "3:18: error: \"Q_1\" is no name for a query; use 1 to 63 of a-z, 0-9 and -, with - neither first nor last (metadata.name)",
        )],
    ),
];

#[test]
fn each_problem_of_a_document_has_its_place_and_remedy() {
    for (text, expected) in DOCUMENTS {
        check(text, expected);
    }
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
