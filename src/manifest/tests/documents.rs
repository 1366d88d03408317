//! Broken documents of any kind, each with their diagnostics.

use super::{Case, check};

const DOCUMENTS: &[Case] = &[
    ("\tkind: DeviceTwin\n", &[("tab", "1:1: error: a tab indents this line; indent with spaces")]),
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
