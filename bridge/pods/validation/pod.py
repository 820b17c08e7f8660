"""What the API server refuses in a pod (v1.36: pkg/apis/core/validation), beyond single fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bridge import quantity
from bridge.pods import Manifest
from bridge.pods.defaults import CONTAINER_LISTS
from bridge.pods.schema import Shape, shape
from bridge.pods.validation import names
from bridge.pods.validation.report import Report

_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOKS = ("exec", "httpGet", "tcpSocket", "sleep")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_NOT_EPHEMERAL = ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle")

_ENV_FIELDS = (
    *("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName"),
    *("spec.serviceAccountName", "status.hostIP", "status.hostIPs"),
    *("status.podIP", "status.podIPs"),
)
_FILE_FIELDS = (
    *("metadata.name", "metadata.namespace", "metadata.uid"),
    *("metadata.labels", "metadata.annotations"),
)
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['(.*)'\]", re.DOTALL)
_MEMORY_UNITS = ("1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")


def check_pod_spec(spec: Manifest, path: str, report: Report, *, whole_pod: bool) -> None:
    """Check a clean pod spec. `whole_pod` is false for a template, whose ports stay undefaulted."""
    volumes = _volumes(spec.get("volumes", ()), f"{path}.volumes", report)
    _containers(spec, path, volumes, report)
    _network(spec, path, report, whole_pod=whole_pod)
    _tolerations(spec.get("tolerations", ()), f"{path}.tolerations", report)
    if "resources" in spec:
        _resources(spec["resources"], f"{path}.resources", report, pod_level=True)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        report.add(f"{path}.shareProcessNamespace", "cannot be true together with hostPID")
    for key, value in spec.get("nodeSelector", {}).items():
        report.add(f"{path}.nodeSelector[{key}]", names.qualified_name(key))
        report.add(f"{path}.nodeSelector[{key}]", names.label_value(value))


# --- volumes -----------------------------------------------------------------------------------


def _sources(kind: Shape) -> tuple[str, ...]:
    return tuple(name for name, field in kind.fields.items() if field.kind == "object")


def _item(kind: Shape, *path: str) -> Shape:
    for name in path:
        kind = kind.fields[name]
        kind = kind.item if kind.item is not None else kind
    return kind


def _volumes(volumes: Any, path: str, report: Report) -> set[str]:
    kinds = _sources(_item(shape("Pod"), "spec", "volumes"))
    projections = _sources(_item(shape("Pod"), "spec", "volumes", "projected", "sources"))
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        where = f"{path}[{index}]"
        name = volume["name"]
        if name in seen:
            report.add(f"{where}.name", f"duplicate volume name {names.shown(name)}")
        seen.add(name)
        report.at_most_one(volume, where, kinds)
        if "secret" in volume and "secretName" not in volume["secret"]:
            report.add(f"{where}.secret.secretName", "missing; this field is required")
        if "configMap" in volume and "name" not in volume["configMap"]:
            report.add(f"{where}.configMap.name", "missing; this field is required")
        limit = volume.get("emptyDir", {}).get("sizeLimit")
        if limit is not None and quantity.parse(limit) < 0:
            report.add(f"{where}.emptyDir.sizeLimit", f'found "{limit}"; allowed: 0 or more')
        _files(volume.get("downwardAPI", {}), f"{where}.downwardAPI", report)
        paths: set[str] = set()
        for number, source in enumerate(volume.get("projected", {}).get("sources", ())):
            here = f"{where}.projected.sources[{number}]"
            report.at_most_one(source, here, projections)
            _files(source.get("downwardAPI", {}), f"{here}.downwardAPI", report)
            for kind in ("configMap", "secret"):
                if kind in source and "name" not in source[kind]:
                    report.add(f"{here}.{kind}.name", "missing; this field is required")
            _projected_paths(source, here, paths, report)
    return seen


def _projected_paths(source: Manifest, path: str, seen: set[str], report: Report) -> None:
    for kind, content in source.items():
        files = content.get("items", ())
        if kind == "serviceAccountToken":
            files = (content,)
        for file in files:
            target = file["path"]
            if target in seen:
                report.add(f"{path}.{kind}", f"duplicate path {names.shown(target)} in the volume")
            seen.add(target)


def _files(source: Manifest, path: str, report: Report) -> None:
    """The items of a downwardAPI volume or projection."""
    for index, item in enumerate(source.get("items", ())):
        where = f"{path}.items[{index}]"
        report.exactly_one(item, where, ("fieldRef", "resourceFieldRef"))
        if "fieldRef" in item:
            _field_ref(item["fieldRef"], f"{where}.fieldRef", _FILE_FIELDS, report)
        if "resourceFieldRef" in item:
            here = f"{where}.resourceFieldRef"
            _resource_ref(item["resourceFieldRef"], here, report)
            if not item["resourceFieldRef"].get("containerName"):
                report.add(f"{here}.containerName", "missing; required in a volume")


def _field_ref(ref: Manifest, path: str, allowed: tuple[str, ...], report: Report) -> None:
    if ref.get("apiVersion", "v1") not in ("", "v1"):
        found = names.shown(ref["apiVersion"])
        report.add(f"{path}.apiVersion", f"found {found}; allowed: v1")
    target = ref["fieldPath"]
    if match := _SUBSCRIPT.fullmatch(target):
        rule = names.qualified_name if match[1].endswith("labels") else names.annotation_key
        report.add(f"{path}.fieldPath", rule(match[2]))
    elif target not in allowed:
        known = ", ".join((*allowed, "metadata.labels['KEY']", "metadata.annotations['KEY']"))
        report.add(f"{path}.fieldPath", f"found {names.shown(target)}; allowed: {known}")


def _resource_ref(ref: Manifest, path: str, report: Report) -> None:
    target = ref["resource"]
    side, _, name = target.partition(".")
    known = name in _RESOURCES or name.startswith("hugepages-")
    if side not in ("limits", "requests") or not known:
        allowed = ", ".join(f"{s}.{n}" for s in ("limits", "requests") for n in _RESOURCES)
        report.add(f"{path}.resource", f"found {names.shown(target)}; allowed: {allowed}")
        return
    divisor = quantity.parse(ref.get("divisor", 0))
    units = ("1", "1m") if name == "cpu" else ("1", *_MEMORY_UNITS)
    if divisor and divisor not in [quantity.parse(unit) for unit in units]:
        found = names.shown(ref["divisor"])
        report.add(f"{path}.divisor", f"found {found}; allowed: {', '.join(units)}")


# --- containers --------------------------------------------------------------------------------


def _each(spec: Manifest, path: str) -> Iterator[tuple[str, Manifest, str]]:
    for kind in CONTAINER_LISTS:
        for index, container in enumerate(spec.get(kind, ())):
            yield kind, container, f"{path}.{kind}[{index}]"


def _containers(spec: Manifest, path: str, volumes: set[str], report: Report) -> None:
    if not spec.get("containers"):
        report.add(f"{path}.containers", "found none; allowed: at least one container")
    if spec.get("ephemeralContainers"):
        report.add(f"{path}.ephemeralContainers", "cannot be set when a pod is created")
    grace = spec.get("terminationGracePeriodSeconds", 30)
    seen: dict[str, str] = {}
    for kind, container, where in _each(spec, path):
        name = container["name"]
        if name in seen:
            found = f"duplicate container name {names.shown(name)}"
            report.add(f"{where}.name", f"{found}; {seen[name]} has it already")
        seen.setdefault(name, where)
        if not container.get("image"):
            report.add(f"{where}.image", "missing; this field is required")
        _environment(container, where, report)
        _mounts(container, where, volumes, report)
        _ports(container.get("ports", ()), f"{where}.ports", report)
        _resources(container.get("resources", {}), f"{where}.resources", report)
        _restart(kind, container, where, report)
        _probes(kind, container, where, grace, report)
        if "stopSignal" in container.get("lifecycle", {}) and "os" not in spec:
            field = f"{where}.lifecycle.stopSignal"
            report.add(field, "only beside spec.os.name", beside=f"{path}.os")
        _security(container.get("securityContext", {}), f"{where}.securityContext", report)


def _spec_of(path: str) -> str:
    """The path of the pod that the container of this path is in."""
    return path.rpartition(".")[0]


def _environment(container: Manifest, path: str, report: Report) -> None:
    for index, variable in enumerate(container.get("env", ())):
        if "valueFrom" not in variable:
            continue
        source = variable["valueFrom"]
        where = f"{path}.env[{index}].valueFrom"
        report.exactly_one(source, where, _ENV_SOURCES)
        if variable.get("value"):
            report.add(where, "found together with a value; allowed: one of the two")
        if "fieldRef" in source:
            _field_ref(source["fieldRef"], f"{where}.fieldRef", _ENV_FIELDS, report)
        if "resourceFieldRef" in source:
            _resource_ref(source["resourceFieldRef"], f"{where}.resourceFieldRef", report)
        for kind in ("configMapKeyRef", "secretKeyRef"):
            if kind in source and "name" not in source[kind]:
                report.add(f"{where}.{kind}.name", "missing; this field is required")
    for index, source in enumerate(container.get("envFrom", ())):
        where = f"{path}.envFrom[{index}]"
        report.exactly_one(source, where, ("configMapRef", "secretRef"))
        if source.get("prefix"):
            report.add(f"{where}.prefix", names.env_name(source["prefix"]))
        for kind in ("configMapRef", "secretRef"):
            if kind in source and "name" not in source[kind]:
                report.add(f"{where}.{kind}.name", "missing; this field is required")


def _mounts(container: Manifest, path: str, volumes: set[str], report: Report) -> None:
    all_volumes = f"{_spec_of(path)}.volumes"
    places: set[str] = set()
    devices = {device["name"] for device in container.get("volumeDevices", ())}
    for index, mount in enumerate(container.get("volumeMounts", ())):
        where = f"{path}.volumeMounts[{index}]"
        name, place = mount["name"], mount["mountPath"]
        if name not in volumes:
            known = ", ".join(sorted(volumes)[:20]) or "none, the pod has no volumes"
            found = f"found {names.shown(name)}, which is no volume of the pod"
            report.add(f"{where}.name", f"{found}; allowed: {known}", beside=all_volumes)
        if place in places:
            report.add(f"{where}.mountPath", f"duplicate mountPath {names.shown(place)}")
        places.add(place)
        if name in devices:
            report.add(f"{where}.name", "is in volumeDevices as well; allowed: one of the two")
        report.at_most_one(
            {key: value for key, value in mount.items() if value},
            where,
            ("subPath", "subPathExpr"),
        )
        bidirectional = mount.get("mountPropagation") == "Bidirectional"
        if bidirectional and not container.get("securityContext", {}).get("privileged"):
            report.add(
                f"{where}.mountPropagation",
                "Bidirectional needs a privileged container",
                beside=f"{path}.securityContext",
            )
        if mount.get("recursiveReadOnly", "Disabled") != "Disabled" and not mount.get("readOnly"):
            report.add(f"{where}.recursiveReadOnly", "needs readOnly: true")
    for index, device in enumerate(container.get("volumeDevices", ())):
        if device["name"] not in volumes:
            found = names.shown(device["name"])
            where = f"{path}.volumeDevices[{index}].name"
            words = f"found {found}, which is no volume of the pod"
            report.add(where, words, beside=all_volumes)


def _ports(ports: Any, path: str, report: Report) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        name = port.get("name")
        if name:
            report.add(f"{path}[{index}].name", names.port_name(name))
            if name in seen:
                report.add(f"{path}[{index}].name", f"duplicate port name {names.shown(name)}")
            seen.add(name)


def _resources(resources: Manifest, path: str, report: Report, *, pod_level: bool = False) -> None:
    limits = resources.get("limits", {})
    for side in ("limits", "requests"):
        for name, value in resources.get(side, {}).items():
            where = f"{path}.{side}[{name}]"
            report.add(where, _resource_name_problem(name, pod_level=pod_level))
            amount = quantity.parse(value)
            native = "/" not in name or "kubernetes.io/" in name
            whole = not native or name.startswith("hugepages-")
            if amount < 0:
                report.add(where, f"found {names.shown(value)}; allowed: 0 or more")
            elif whole and amount.denominator != 1:
                report.add(where, f"found {names.shown(value)}; allowed: a whole number")
            if side == "requests" and name in limits:
                _request_against_limit(amount, value, limits[name], where, report, exact=whole)
            elif side == "requests" and whole:
                words = f"needs a limit of {name} of the same value"
                report.add(where, words, beside=f"{path}.limits[{name}]")


def _request_against_limit(
    amount: Any, value: object, limit: Any, path: str, report: Report, *, exact: bool
) -> None:
    most = quantity.parse(limit)
    if amount > most or (exact and amount != most):
        rule = "exactly" if exact else "at most"
        found = f"found {names.shown(value)}"
        report.add(path, f"{found}; allowed: {rule} the limit, {names.shown(limit)}")


def _resource_name_problem(name: str, *, pod_level: bool) -> str | None:
    if name.startswith("hugepages-") or name in ("cpu", "memory"):
        return None
    if pod_level:
        return f"found {names.shown(name)}; allowed: cpu, memory, hugepages-*"
    if "/" not in name:
        if name in _RESOURCES:
            return None
        known = ", ".join((*_RESOURCES, "hugepages-*", "DOMAIN/NAME"))
        return f"found {names.shown(name)}; allowed: {known}"
    if name.startswith("requests."):
        return f'found {names.shown(name)}; allowed: a domain that is not "requests."'
    return names.qualified_name(name)


def _restart(kind: str, container: Manifest, path: str, report: Report) -> None:
    rules = container.get("restartPolicyRules", ())
    if rules and "restartPolicy" not in container:
        report.add(f"{path}.restartPolicy", "missing; required beside restartPolicyRules")
    if len(rules) > 20:
        report.add(f"{path}.restartPolicyRules", f"found {len(rules)}; allowed: at most 20")
    for index, rule in enumerate(rules):
        where = f"{path}.restartPolicyRules[{index}].exitCodes"
        if "exitCodes" not in rule:
            report.add(where, "missing; this field is required")
        elif len(rule["exitCodes"].get("values", ())) > 255:
            report.add(f"{where}.values", "allowed: at most 255 values")
    if kind == "ephemeralContainers":
        for name in _NOT_EPHEMERAL:
            if name in container:
                report.add(f"{path}.{name}", "cannot be set for an ephemeral container")


def _probes(kind: str, container: Manifest, path: str, grace: int, report: Report) -> None:
    plain_init = kind == "initContainers" and container.get("restartPolicy") != "Always"
    for name in (*_PROBES, "lifecycle"):
        if name in container and plain_init:
            words = "only for init containers with restartPolicy: Always"
            report.add(f"{path}.{name}", words, beside=f"{path}.restartPolicy")
    for name in _PROBES:
        if name not in container:
            continue
        probe = container[name]
        report.exactly_one(probe, f"{path}.{name}", _HANDLERS)
        if "exec" in probe and "command" not in probe["exec"]:
            report.add(f"{path}.{name}.exec.command", "missing; this field is required")
        if name != "readinessProbe" and probe.get("successThreshold", 1) not in (0, 1):
            found = probe["successThreshold"]
            report.add(f"{path}.{name}.successThreshold", f"found {found}; allowed: 1")
        if name == "readinessProbe" and "terminationGracePeriodSeconds" in probe:
            where = f"{path}.{name}.terminationGracePeriodSeconds"
            report.add(where, "cannot be set for a readiness probe")
    for hook in ("postStart", "preStop"):
        if hook not in container.get("lifecycle", {}):
            continue
        handler = container["lifecycle"][hook]
        where = f"{path}.lifecycle.{hook}"
        report.exactly_one(handler, where, _HOOKS)
        if "exec" in handler and "command" not in handler["exec"]:
            report.add(f"{where}.exec.command", "missing; this field is required")
        seconds = handler.get("sleep", {}).get("seconds", 0)
        if not 0 <= seconds <= grace:
            allowed = f"0 to terminationGracePeriodSeconds, {grace}"
            report.add(
                f"{where}.sleep.seconds",
                f"found {seconds}; allowed: {allowed}",
                beside=f"{_spec_of(path)}.terminationGracePeriodSeconds",
            )


def _security(context: Manifest, path: str, report: Report) -> None:
    if context.get("allowPrivilegeEscalation") is False:
        added = context.get("capabilities", {}).get("add", ())
        if context.get("privileged"):
            where = f"{path}.allowPrivilegeEscalation"
            report.add(where, "cannot be false for a privileged container")
        elif "CAP_SYS_ADMIN" in added:
            where = f"{path}.allowPrivilegeEscalation"
            report.add(where, "cannot be false beside the capability CAP_SYS_ADMIN")


# --- the rest of the pod -----------------------------------------------------------------------


def _network(spec: Manifest, path: str, report: Report, *, whole_pod: bool) -> None:
    dns = spec.get("dnsConfig", {})
    if spec.get("dnsPolicy") == "None" and not dns.get("nameservers"):
        where = f"{path}.dnsConfig.nameservers"
        report.add(where, "found none; allowed: at least one beside dnsPolicy: None")
    for name, most in (("nameservers", 3), ("searches", 32)):
        if len(dns.get(name, ())) > most:
            found = len(dns[name])
            report.add(f"{path}.dnsConfig.{name}", f"found {found}; allowed: at most {most}")
    if len(" ".join(dns.get("searches", ()))) > 2048:
        report.add(f"{path}.dnsConfig.searches", "allowed: at most 2048 characters in all")
    used: dict[tuple[object, ...], str] = {}
    for _, container, where in _each(spec, path):
        for index, port in enumerate(container.get("ports", ())):
            here = f"{where}.ports[{index}].hostPort"
            host = port.get("hostPort", 0)
            wanted = port["containerPort"] if whole_pod or host else 0
            if spec.get("hostNetwork") and host not in (0, wanted):
                allowed = f"the containerPort, {wanted}, with hostNetwork"
                report.add(here, f"found {host}; allowed: {allowed}")
            key = (host, port.get("protocol") or "TCP", port.get("hostIP", ""))
            if host and key in used:
                report.add(here, f"found {host}, which {used[key]} has already")
            used.setdefault(key, here)


def _tolerations(tolerations: Any, path: str, report: Report) -> None:
    for index, item in enumerate(tolerations):
        where = f"{path}[{index}]"
        operator = item.get("operator") or "Equal"
        if item.get("key"):
            report.add(f"{where}.key", names.qualified_name(item["key"]))
        elif operator != "Exists":
            report.add(f"{where}.operator", "allowed without a key: Exists")
        if "tolerationSeconds" in item and item.get("effect") != "NoExecute":
            report.add(f"{where}.effect", "allowed beside tolerationSeconds: NoExecute")
        if operator == "Exists" and item.get("value"):
            report.add(f"{where}.value", "must be empty beside operator: Exists")
        elif operator == "Equal":
            report.add(f"{where}.value", names.label_value(item.get("value", "")))
