"""Judges deploy/compose.yaml: by the schema of the Compose Specification, and by rules of our own."""

import json
import pathlib
import re
import sys
import zipfile

import jsonschema
import yaml

SCHEMA = "compose/config/compose_spec.json"
# What serves on all addresses of a container is still for this machine alone.
LOOPBACK = "127.0.0.1:"

passed, failures = 0, []


def check(holds, what):
    """Counts one judgement."""
    global passed
    if holds:
        passed += 1
    else:
        failures.append(what)


def check_service(name, service, file, volumes):
    """One service: pinned, confined, and everything that it mounts is there."""
    tag = service["image"].rpartition(":")[2]
    check(re.fullmatch(r"v?\d+\.\d+\.\d+", tag), f"{name}: image {service['image']} has no exact version")
    check(service.get("read_only") is True, f"{name}: the root file system is writable")
    check(service.get("cap_drop") == ["ALL"], f"{name}: capabilities are kept")
    check("no-new-privileges:true" in service.get("security_opt", []), f"{name}: privileges may be escalated")
    check(not service.get("privileged"), f"{name}: privileged")
    for port in service.get("ports", []):
        check(str(port).startswith(LOOPBACK), f"{name}: port {port} is open to other machines")
    for volume in service.get("volumes", []):
        if volume["type"] == "bind":
            source = (file.parent / volume["source"]).resolve()
            check(source.exists(), f"{name}: {volume['source']} does not exist")
            check(volume.get("read_only") is True, f"{name}: {volume['source']} is writable")
        elif volume["type"] == "volume":
            check(volume["source"] in volumes, f"{name}: no volume {volume['source']}")
    for variable in service.get("environment", {}):
        check(not re.search("KEY|CONNECTION_STRING|SECRET|TOKEN|PASSWORD", variable), f"{name}: a secret in {variable}")


def main(file, package, reference):
    """The file, the package that ships the schema, and the reference of our command line."""
    text = yaml.safe_load(file.read_text())
    with zipfile.ZipFile(package) as archive:
        schema = json.loads(archive.read(SCHEMA))
    # The schema is of Compose 1.29, which knew extension fields at the top level, and no more than we use beside them.
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(text))
    check(not errors, "; ".join(f"{'.'.join(map(str, error.path))}: {error.message}" for error in errors))
    for name, service in text["services"].items():
        check_service(name, service, file, text["volumes"])
    flags = [word.split("=")[0] for word in text["services"]["geminid"]["command"] if word.startswith("--")]
    section = reference.read_text().split("\n## geminid run\n")[1].split("\n## ")[0]
    for flag in flags:
        check(f"`{flag}" in section, f"geminid run has no {flag}")
    provided = yaml.safe_load((file.parent / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    (source,) = provided["datasources"]
    # Prometheus stands in geminid's network, so it has that service's name.
    check(source["url"] == "http://geminid:9090", f"Grafana asks {source['url']}")


main(*map(pathlib.Path, sys.argv[1:]))
for failure in failures:
    print(f"FAILED {failure}")
print(f"{passed} passed, {len(failures)} failed")
sys.exit(1 if failures or not passed else 0)
