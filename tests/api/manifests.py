"""Judges the printed JSON Schemas by a validator of others: every shipped manifest passes, by the schema of all kinds and
by that of its own; and what an editor should mark does not.

    manifests.py GEMINID FOLDER..."""

import json
import pathlib
import subprocess
import sys

import jsonschema
import yaml

KINDS = ["DeviceTwin", "ModuleTwin", "TwinProfile", "TwinQuery"]
# Each breaks one valid document of its kind: where, and with what.
WRONG = [("apiVersion", "v1"), ("kind", "Secret"), ("spec", []), ("specs", {}), ("metadata", {"nam": "x"})]


def schema(geminid, *kind):
    printed = subprocess.run([geminid, "schema", *kind], check=True, capture_output=True, text=True).stdout
    found = json.loads(printed)
    jsonschema.Draft7Validator.check_schema(found)
    return jsonschema.Draft7Validator(found)


def main(geminid, *folders):
    whole = schema(geminid)
    of_kind = {kind: schema(geminid, kind) for kind in KINDS}
    files = sorted(path for folder in folders for path in pathlib.Path(folder).rglob("*.yaml"))
    seen, problems = {}, []
    for path in files:
        for document in yaml.safe_load_all(path.read_text()):
            seen.setdefault(document["kind"], document)
            for validator in (whole, of_kind[document["kind"]]):
                problems += [f"{path}: {error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    for kind, document in seen.items():
        for key, value in WRONG:
            wrong = {**document, key: value}
            if of_kind[kind].is_valid(wrong) or whole.is_valid(wrong):
                problems.append(f"a {kind} with {key}: {value!r} passes")
    for kind in KINDS:
        if kind not in seen:
            problems.append(f"no shipped manifest is a {kind}")
    print(f"{len(files)} manifests, {len(seen)} kinds, {len(problems)} problems")
    sys.exit("\n".join(problems) or 0)


main(*sys.argv[1:])
