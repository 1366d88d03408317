"""Judges rendered Kubernetes manifests: each object by the schemas of Kubernetes, each workload by rules of our own."""

import ipaddress
import pathlib
import re
import sys
import tomllib

import kubernetes_validate
import yaml

KUBERNETES = "1.31"
# Kinds of the Prometheus operator: Kubernetes has no schema of them.
FOREIGN_KINDS = {"ServiceMonitor", "PrometheusRule"}
NONROOT_UID = 65532
# What selectors go by.
LABEL = ("app.kubernetes.io/name", "geminid")

passed, failures = 0, []


def check(holds, what):
    """Counts one judgement."""
    global passed
    if holds:
        passed += 1
    else:
        failures.append(what)


def containers(pod):
    """Every container of a pod with its name."""
    for container in pod.get("initContainers", []) + pod["containers"]:
        yield container["name"], container


def check_container(place, name, container):
    """One container: pinned image, limits, no rights."""
    image, place = container["image"], f"{place}/{name}"
    tag = image.rpartition(":")[2] if ":" in image.rpartition("/")[2] else ""
    check(tag not in ("", "latest"), f"{place}: image {image} has no version")
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            check(resource in resources.get(kind, {}), f"{place}: no {kind}.{resource}")
    security = container.get("securityContext", {})
    check(security.get("allowPrivilegeEscalation") is False, f"{place}: privileges may be escalated")
    check(security.get("readOnlyRootFilesystem") is True, f"{place}: the root file system is writable")
    check(security.get("capabilities", {}).get("drop") == ["ALL"], f"{place}: capabilities are kept")
    check(not security.get("privileged"), f"{place}: privileged")
    for port in container.get("ports", []):
        check("hostPort" not in port, f"{place}: port {port['name']} is opened on the node")
    for variable in container.get("env", []):
        check(not re.search("KEY|CONNECTION_STRING|SECRET|TOKEN", variable["name"]), f"{place}: a secret in {variable}")


def check_deployment(place, deployment):
    """The workload: never two at a time, non-root, probed, drained."""
    spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
    check(spec["replicas"] == 1, f"{place}: {spec['replicas']} replicas")
    check(spec["strategy"] == {"type": "Recreate"}, f"{place}: two may run beside each other")
    check(pod.get("enableServiceLinks") is False, f"{place}: service links fill the environment")
    check(pod.get("automountServiceAccountToken") is False, f"{place}: a token nobody needs is mounted")
    check(pod["terminationGracePeriodSeconds"] > 20, f"{place}: killed before its writes are drained")
    security = pod["securityContext"]
    check(security.get("runAsNonRoot") is True and security.get("runAsUser") == NONROOT_UID, f"{place}: may be root")
    check(security.get("seccompProfile") == {"type": "RuntimeDefault"}, f"{place}: no seccomp profile")
    check(not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), f"{place}: shares with the node")
    check(not any("hostPath" in volume for volume in pod["volumes"]), f"{place}: mounts a path of the node")
    names = [volume["name"] for volume in pod["volumes"]]
    for name, container in containers(pod):
        check_container(place, name, container)
        for mount in container.get("volumeMounts", []):
            check(mount["name"] in names, f"{place}/{name}: mounts {mount['name']}, which is no volume")
            writable = name == "geminid" and not mount.get("readOnly")
            check(not writable, f"{place}/{name}: {mount['mountPath']} is writable")
    main = next(container for name, container in containers(pod) if name == "geminid")
    for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        check(main.get(probe, {}).get("httpGet", {}).get("path") == path, f"{place}: {probe} does not ask {path}")


def check_wiring(place, objects):
    """The objects fit together: selectors meet the pod, names meet their objects, settings parse."""
    of_kind = {}
    for thing in objects:
        of_kind.setdefault(thing["kind"], []).append(thing)
    (deployment,) = of_kind["Deployment"]
    template = deployment["spec"]["template"]
    labels, pod = template["metadata"]["labels"].items(), template["spec"]
    check(LABEL in labels, f"{place}: the pod lacks {LABEL[0]}")
    for kind, path in (
        ("Deployment", ("spec", "selector", "matchLabels")),
        ("Service", ("spec", "selector")),
        ("PodDisruptionBudget", ("spec", "selector", "matchLabels")),
        ("NetworkPolicy", ("spec", "podSelector", "matchLabels")),
    ):
        for thing in of_kind.get(kind, []):
            selector = thing
            for key in path:
                selector = selector.get(key, {})
            check(selector and selector.items() <= labels, f"{place}: {kind} selects no pod of ours")
    maps = {thing["metadata"]["name"]: thing for thing in of_kind["ConfigMap"]}
    for volume in pod["volumes"]:
        if "configMap" in volume:
            check(volume["configMap"]["name"] in maps, f"{place}: no ConfigMap {volume['configMap']['name']}")
    check(pod["serviceAccountName"] == of_kind["ServiceAccount"][0]["metadata"]["name"], f"{place}: service account")
    settings = next(m["data"]["settings.toml"] for name, m in maps.items() if name.startswith("geminid-settings"))
    listen = tomllib.loads(settings)["listen"]
    host, _, port = listen.rpartition(":")
    ports = [p["containerPort"] for name, c in containers(pod) if name == "geminid" for p in c["ports"]]
    check(ipaddress.ip_address(host).is_unspecified and int(port) in ports, f"{place}: listens on {listen}")


def check_file(path):
    """Everything one overlay renders."""
    place = path.stem
    objects = [thing for thing in yaml.safe_load_all(path.read_text()) if thing]
    for thing in objects:
        name = f"{place}: {thing['kind']} {thing['metadata']['name']}"
        if thing["kind"] not in FOREIGN_KINDS:
            try:
                kubernetes_validate.validate(thing, KUBERNETES, strict=True)
                check(True, name)
            except kubernetes_validate.ValidationError as error:
                check(False, f"{name}: {error.message} at {'.'.join(map(str, error.path))}")
        if thing["kind"] == "Secret":
            check(False, f"{name}: a secret in the repository")
        if thing["kind"] == "Deployment":
            check_deployment(place, thing)
    check_wiring(place, objects)


for argument in sys.argv[1:]:
    check_file(pathlib.Path(argument))
for failure in failures:
    print(f"FAILED {failure}")
print(f"{passed} passed, {len(failures)} failed")
sys.exit(1 if failures or not passed else 0)
