"""What the API server fills in (v1.36: pkg/apis/{core,batch}/v1/defaults.go), as pure functions.

`explicit_fields` is the other direction: what of a pod is the author's own choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from bridge import quantity
from bridge.pods import Manifest
from bridge.pods.explicit import explicit_fields
from bridge.pods.schema import KINDS, without_nulls

__all__ = ["CONTAINER_LISTS", "default_pull_policy", "explicit_fields", "with_defaults"]

CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")
"""The lists of a pod's spec that hold containers, in the order in which they start."""

_MAX_INT32 = 2**31 - 1
_SPEC = {
    "dnsPolicy": "ClusterFirst",
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "schedulerName": "default-scheduler",
}
_CONTAINER = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HTTP = {"path": "/", "scheme": "HTTP"}
_TAG = re.compile(r":([\w][\w.-]{0,127})$", re.ASCII)

_VOLUMES: dict[str, dict[str, Any]] = {
    "secret": {"defaultMode": 0o644},
    "configMap": {"defaultMode": 0o644},
    "downwardAPI": {"defaultMode": 0o644},
    "projected": {"defaultMode": 0o644},
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {
        "cachingMode": "ReadWrite",
        "fsType": "ext4",
        "readOnly": False,
        "kind": "Shared",
    },
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


def with_defaults(obj: Manifest) -> Manifest:
    """A new object as the API server would store it: nulls gone, defaults filled in.

    `obj` has passed `schema.check`; a kind that is none of `schema.KINDS` raises KeyError. A
    Secret's `stringData` is left to the caller. A ConfigMap or Secret of no data has empty data.
    """
    kind: str = obj["kind"]
    if kind not in KINDS:
        raise KeyError(kind)
    out = without_nulls(obj, kind)
    _DEFAULTS[kind](out)
    return out


def _pod(pod: Manifest) -> None:
    spec = pod.setdefault("spec", {})
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        resources = container.get("resources", {})
        if limits := resources.get("limits"):
            resources["requests"] = limits | resources.get("requests", {})
    spec.setdefault("enableServiceLinks", True)
    if spec.get("hostNetwork"):
        for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
            for port in container.get("ports", ()):
                port["hostPort"] = port.get("hostPort") or port["containerPort"]
    _pod_resources(spec)
    _pod_spec(spec)


def _pod_spec(spec: Manifest) -> None:
    _fill(spec, _SPEC)
    spec.setdefault("securityContext", {})
    # Go has one word for "empty" and "absent" in a string, and the server drops a false there.
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name) is False:
            del spec[name]
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for volume in spec.get("volumes", ()):
        _volume(volume)
    for name in CONTAINER_LISTS:
        for container in spec.get(name, ()):
            _container(container)


def _fill(obj: Manifest, defaults: Manifest) -> None:
    """Fill in what is absent, and what Go cannot tell from absent: an empty string, a zero."""
    for name, value in defaults.items():
        if name not in obj or (obj[name] in ("", 0) and name in _ZERO_IS_ABSENT):
            obj[name] = value


_ZERO_IS_ABSENT = frozenset(
    (
        *(*_PROBE, *_HTTP, *_CONTAINER, "dnsPolicy", "restartPolicy", "schedulerName"),
        *("iscsiInterface", "pool", "user", "keyring", "storageMode"),
    )
)
"""Fields without a pointer in Go's types: there a zero and an absent field are the same."""


def _volume(volume: Manifest) -> None:
    if len(volume) == 1 and "name" in volume:
        volume["emptyDir"] = {}
    for name, source in volume.items():
        if name in _VOLUMES:
            _fill(source, _VOLUMES[name])
    if "image" in volume and not volume["image"].get("pullPolicy"):
        volume["image"]["pullPolicy"] = default_pull_policy(volume["image"].get("reference", ""))
    for source in volume.get("projected", {}).get("sources", ()):
        _references(source.get("downwardAPI", {}).get("items", ()))
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    _references(volume.get("downwardAPI", {}).get("items", ()))
    template = volume.get("ephemeral", {}).get("volumeClaimTemplate")
    if template:
        template["spec"].setdefault("volumeMode", "Filesystem")


def _references(items: Any) -> None:
    for item in items:
        if "fieldRef" in item:
            item["fieldRef"]["apiVersion"] = item["fieldRef"].get("apiVersion") or "v1"


def default_pull_policy(image: str) -> str:
    """`Always` for an image without a tag or tagged latest, else `IfNotPresent`."""
    if "@" in image:
        return "IfNotPresent"
    tag = _TAG.search(image)
    # A name that cannot be parsed has no tag, and so no "latest" either; validation refuses it.
    return "Always" if image and (tag is None or tag[1] == "latest") else "IfNotPresent"


def _container(container: Manifest) -> None:
    container["imagePullPolicy"] = container.get("imagePullPolicy") or default_pull_policy(
        container.get("image", "")
    )
    _fill(container, _CONTAINER)
    container.setdefault("resources", {})
    for port in container.get("ports", ()):
        port["protocol"] = port.get("protocol") or "TCP"
    for variable in container.get("env", ()):
        source = variable.get("valueFrom", {})
        _references((source,))
        if "fileKeyRef" in source:
            source["fileKeyRef"].setdefault("optional", False)
    for name in _PROBES:
        if name in container:
            probe = container[name]
            _fill(probe, _PROBE)
            if "httpGet" in probe:
                _fill(probe["httpGet"], _HTTP)
            if "grpc" in probe:
                probe["grpc"].setdefault("service", "")
    for handler in container.get("lifecycle", {}).values():
        if isinstance(handler, dict) and "httpGet" in handler:
            _fill(handler["httpGet"], _HTTP)


def _pod_resources(spec: Manifest) -> None:
    """Requests of the pod as a whole (KEP-2837), where its limits are given and they are not."""
    resources = spec.get("resources", {})
    limits = resources.get("limits")
    if not limits:
        return
    requests = dict(resources.get("requests", {}))
    for name in ("cpu", "memory"):
        total = _effective_request(spec, name)
        if name not in requests and total is not None:
            requests[name] = quantity.format_decimal(total)
    for name, value in limits.items():
        if name in ("cpu", "memory") or name.startswith("hugepages-"):
            requests.setdefault(name, value)
    if requests:
        resources["requests"] = requests


def _effective_request(spec: Manifest, name: str) -> Fraction | None:
    """What all containers together ask for: the larger of the running sum and any init's peak."""

    def asked(container: Manifest) -> Fraction | None:
        value = container.get("resources", {}).get("requests", {}).get(name)
        return None if value is None else quantity.parse(value)

    inits = spec.get("initContainers", ())
    values = [asked(container) for container in (*spec.get("containers", ()), *inits)]
    if all(value is None for value in values):
        return None
    sidecars = peak = Fraction(0)
    for container in inits:
        own = asked(container) or Fraction(0)
        if container.get("restartPolicy") == "Always":
            sidecars += own
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + own)
    mains = sum((asked(container) or Fraction(0) for container in spec["containers"]), Fraction(0))
    return max(peak, sidecars + mains)


def _job_spec(spec: Manifest, *, whole: bool) -> None:
    if "template" in spec:
        _pod_spec(spec["template"].setdefault("spec", {}))
    for rule in spec.get("podFailurePolicy", {}).get("rules", ()):
        for pattern in rule.get("onPodConditions", ()):
            pattern["status"] = pattern.get("status") or "True"
    if not whole:
        return
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", _MAX_INT32 if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    replaced = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    spec.setdefault("podReplacementPolicy", replaced)
    spec.setdefault("manualSelector", False)


def _job(job: Manifest) -> None:
    spec = job.setdefault("spec", {})
    _job_spec(spec, whole=True)
    labels = spec.get("template", {}).get("metadata", {}).get("labels")
    if labels and not job.get("metadata", {}).get("labels"):
        job.setdefault("metadata", {})["labels"] = dict(labels)


def _cron_job(cron: Manifest) -> None:
    spec = cron.setdefault("spec", {})
    spec["concurrencyPolicy"] = spec.get("concurrencyPolicy") or "Allow"
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    # The Job's own defaults are applied when it is made of the template.
    _job_spec(spec.get("jobTemplate", {}).setdefault("spec", {}), whole=False)


def _config_map(obj: Manifest) -> None:
    obj.setdefault("data", {})


def _secret(obj: Manifest) -> None:
    obj.setdefault("data", {})
    obj["type"] = obj.get("type") or "Opaque"


_DEFAULTS: dict[str, Callable[[Manifest], None]] = {
    "Pod": _pod,
    "Job": _job,
    "CronJob": _cron_job,
    "ConfigMap": _config_map,
    "Secret": _secret,
}
