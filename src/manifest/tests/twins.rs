//! Broken device twins, each with its diagnostics.

use super::{Case, check, twin};

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
    (
        "  tags: {[a]: x}\n",
        &[(
            "non-string-key",
            "5:3: error: a key is a text, not a mapping or list; write a text before the colon (spec.tags)",
        )],
    ),
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
