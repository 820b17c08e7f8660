"""What of a pod is its author's own choice.

Every pod in a cluster carries what the API server fills in and what its admission plugins inject;
a backend is judged by what is left when those are taken away. Called once for every pod that is
created, so the work is one pass over the fields that are present.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from bridge.pods import Manifest
from bridge.pods.schema import Shape, shape

_ABSENT = object()
_Test = Callable[[Any, Any], bool]
"""(value, the object that holds it) -> whether the value is no choice."""

_NOISE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_TOKEN_VOLUME = "kube-api-access-"  # noqa: S105 - a prefix of names
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path

_SPEC: dict[str, Any] = {
    "dnsPolicy": "ClusterFirst",
    "enableServiceLinks": True,
    "hostIPC": False,
    "hostNetwork": False,
    "hostPID": False,
    "hostUsers": True,
    "preemptionPolicy": "PreemptLowerPriority",
    "priority": 0,
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "serviceAccount": "default",
    "serviceAccountName": "default",
    "setHostnameAsFQDN": False,
    "shareProcessNamespace": False,
    "terminationGracePeriodSeconds": 30,
}
_CONTAINER: dict[str, Any] = {
    "stdin": False,
    "stdinOnce": False,
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "tty": False,
    "env[].value": "",
    "env[].valueFrom.configMapKeyRef.optional": False,
    "env[].valueFrom.fieldRef.apiVersion": "v1",
    "env[].valueFrom.fileKeyRef.optional": False,
    "env[].valueFrom.secretKeyRef.optional": False,
    "envFrom[].configMapRef.optional": False,
    "envFrom[].secretRef.optional": False,
    "envFrom[].prefix": "",
    "ports[].hostPort": 0,
    "ports[].protocol": "TCP",
    "securityContext.privileged": False,
    "securityContext.procMount": "Default",
    "securityContext.readOnlyRootFilesystem": False,
    "volumeMounts[].mountPropagation": "None",
    "volumeMounts[].readOnly": False,
    "volumeMounts[].recursiveReadOnly": "Disabled",
    "volumeMounts[].subPath": "",
    "volumeMounts[].subPathExpr": "",
}
_PROBE: dict[str, Any] = {
    "failureThreshold": 3,
    "grpc.service": "",
    "httpGet.path": "/",
    "httpGet.scheme": "HTTP",
    "initialDelaySeconds": 0,
    "periodSeconds": 10,
    "successThreshold": 1,
    "timeoutSeconds": 1,
}
_VOLUME: dict[str, Any] = {
    "azureDisk.cachingMode": "ReadWrite",
    "azureDisk.fsType": "ext4",
    "azureDisk.kind": "Shared",
    "azureDisk.readOnly": False,
    "configMap.defaultMode": 0o644,
    "configMap.optional": False,
    "downwardAPI.defaultMode": 0o644,
    "downwardAPI.items[].fieldRef.apiVersion": "v1",
    "emptyDir.medium": "",
    "ephemeral.volumeClaimTemplate.spec.volumeMode": "Filesystem",
    "hostPath.type": "",
    "iscsi.iscsiInterface": "default",
    "persistentVolumeClaim.readOnly": False,
    "projected.defaultMode": 0o644,
    "projected.sources[].configMap.optional": False,
    "projected.sources[].downwardAPI.items[].fieldRef.apiVersion": "v1",
    "projected.sources[].secret.optional": False,
    "projected.sources[].serviceAccountToken.expirationSeconds": 3600,
    "rbd.keyring": "/etc/ceph/keyring",
    "rbd.pool": "rbd",
    "rbd.user": "admin",
    "scaleIO.fsType": "xfs",
    "scaleIO.storageMode": "ThinProvisioned",
    "secret.defaultMode": 0o644,
    "secret.optional": False,
}


def _pull_policy(value: Any, container: Any) -> bool:
    from bridge.pods.defaults import default_pull_policy  # noqa: PLC0415 - defaults imports us

    return bool(value == default_pull_policy(container.get("image", "")))


def _requests(value: Any, resources: Any) -> bool:
    """Requests that repeat the limits: what the API server makes of limits alone."""
    limits = resources.get("limits") or {}
    return all(limits.get(name) == amount for name, amount in value.items())


def _always(_value: Any, _parent: Any) -> bool:
    return True


@cache
def _defaults() -> dict[str, Any]:
    """Default value, or a test for it, by schema path."""
    out: dict[str, Any] = {f"spec.{name}": value for name, value in _SPEC.items()}
    # The scheduler's answer, not a wish: the pod is here because of it.
    out["spec.nodeName"] = _always
    out |= {f"spec.volumes[].{name}": value for name, value in _VOLUME.items()}
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        prefix = f"spec.{kind}[]"
        out |= {f"{prefix}.{name}": value for name, value in _CONTAINER.items()}
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            out |= {f"{prefix}.{probe}.{name}": value for name, value in _PROBE.items()}
        for hook in ("postStart", "preStop"):
            out[f"{prefix}.lifecycle.{hook}.httpGet.path"] = "/"
            out[f"{prefix}.lifecycle.{hook}.httpGet.scheme"] = "HTTP"
        out[f"{prefix}.imagePullPolicy"] = _pull_policy
        out[f"{prefix}.resources.requests"] = _requests
    return out


class _Node:
    """One schema path: its default, and the nodes below it, made when first met."""

    __slots__ = ("_shape", "below", "default", "is_list", "is_object", "keeps_empty", "path")

    def __init__(self, path: str, want: Shape) -> None:
        item = want.item if want.kind == "list" else None
        inner = item or want
        self.path = path
        self.default = _defaults().get(path, _ABSENT)
        self.is_list = item is not None and item.kind == "object"
        self.is_object = want.kind == "object"
        # `emptyDir: {}` is a choice; `securityContext: {}` and `lifecycle: {}` say nothing.
        self.keeps_empty = path.startswith("spec.volumes[].")
        self._shape = inner
        self.below: dict[str, _Node] = {}
        """Those that were met so far."""

    def child(self, name: str) -> _Node | None:
        node = self.below.get(name)
        if node is None and name in self._shape.fields:
            prefix = f"{self.path}[]" if self.is_list else self.path
            node = self.below[name] = _Node(f"{prefix}.{name}", self._shape.fields[name])
        return node


@cache
def _root() -> _Node:
    return _Node("spec", shape("Pod").fields["spec"])


def explicit_fields(pod: Manifest) -> Iterator[tuple[str, str, Any]]:
    """The fields of a pod's spec that are its author's choice, parents before their children.

    Yields (schema path, concrete path, value): ("spec.containers[].image",
    "spec.containers[0].image", "busybox"). Schema paths are those of `schema.walk_fields`; a list
    and an object come themselves as well when anything in them is a choice. Left out is

    - what `with_defaults` would fill in, and what means the same as saying nothing;
    - what admission injects: the default service account, priority 0, tolerations of not-ready
      and unreachable (whatever their seconds: those are a flag of the API server), the volume
      `kube-api-access-*` and its mounts; and nodeName, which is the scheduler's;
    - empty lists, maps and objects, except a volume's source (`emptyDir: {}`).

    Fields that the schema does not know are left out too: `schema.check` is where they are found.
    """
    spec = pod.get("spec")
    out: list[tuple[str, str, Any]] = []
    if isinstance(spec, dict):
        _object(spec, _root(), "spec", out, _injected(spec))
    return iter(out)


def _injected(spec: Manifest) -> frozenset[str]:
    """The names of the volumes that the ServiceAccount admission plugin added."""
    return frozenset(
        volume["name"]
        for volume in spec.get("volumes") or ()
        if volume.get("name", "").startswith(_TOKEN_VOLUME) and "projected" in volume
    )


def _object(
    value: dict[str, Any],
    node: _Node,
    path: str,
    out: list[tuple[str, str, Any]],
    injected: frozenset[str],
) -> None:
    below = node.below
    for name, child in value.items():
        inner = below.get(name) or node.child(name)
        if inner is None or child is None:
            continue
        default = inner.default
        if default is not _ABSENT and (
            default(child, value) if callable(default) else child == default
        ):
            continue
        where = f"{path}.{name}"
        if inner.is_object:
            mark = len(out)
            out.append((inner.path, where, child))
            _object(child, inner, where, out, injected)
            if len(out) == mark + 1 and not inner.keeps_empty:
                del out[mark]
        elif inner.is_list:
            _list(child, inner, where, out, injected)
        elif child or child not in ([], {}):
            out.append((inner.path, where, child))


def _list(
    items: list[Any],
    node: _Node,
    path: str,
    out: list[tuple[str, str, Any]],
    injected: frozenset[str],
) -> None:
    noise = _NOISE.get(node.path)
    kept = [(i, v) for i, v in enumerate(items) if noise is None or not noise(v, injected)]
    if not kept:
        return
    out.append((node.path, path, items if len(kept) == len(items) else [v for _, v in kept]))
    for index, item in kept:
        _object(item, node, f"{path}[{index}]", out, injected)


def _noise_toleration(item: Manifest, _injected: frozenset[str]) -> bool:
    return (
        item.get("key") in _NOISE_TAINTS
        and item.get("operator") == "Exists"
        and item.get("effect") == "NoExecute"
        and "tolerationSeconds" in item
    )


def _noise_mount(item: Manifest, injected: frozenset[str]) -> bool:
    return item.get("name") in injected and item.get("mountPath") == _TOKEN_PATH


def _noise_volume(item: Manifest, injected: frozenset[str]) -> bool:
    return item.get("name") in injected


_NOISE: dict[str, Callable[[Manifest, frozenset[str]], bool]] = {
    "spec.tolerations": _noise_toleration,
    "spec.volumes": _noise_volume,
    "spec.containers[].volumeMounts": _noise_mount,
    "spec.initContainers[].volumeMounts": _noise_mount,
    "spec.ephemeralContainers[].volumeMounts": _noise_mount,
}
