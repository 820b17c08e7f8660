"""Judges a pod by what a backend says that it can do, before anything is started.

Each adapter has a table of fields; `BASE` holds those that never reach a backend. Only fields that
are their author's own choice are judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bridge.adapter import YES, Adapter, Containers, Dial, Exec, FillsIn, Level, Support, no
from bridge.errors import Invalid, Violation
from bridge.pods import Manifest, schema
from bridge.pods.defaults import explicit_fields
from bridge.provider.translate import late_fields
from bridge.workload import Workload

Table = Mapping[str, Support]
"""Support by field path; an entry covers what is below it, the longest entry wins. One key of a map
is `spec.containers[].resources.limits[ephemeral-storage]`."""

_NO_DEVICES = no("devices are prepared by a driver on a node, and there is none")

BASE: Table = {
    "metadata": YES,
    # The scheduler's, which has done its work when a pod comes here.
    "spec.affinity": YES,
    "spec.nodeName": YES,
    "spec.nodeSelector": YES,
    "spec.overhead": YES,
    "spec.preemptionPolicy": YES,
    "spec.priority": YES,
    "spec.priorityClassName": YES,
    "spec.schedulerName": YES,
    "spec.schedulingGates": YES,
    "spec.schedulingGroup": YES,
    "spec.tolerations": YES,
    "spec.topologySpreadConstraints": YES,
    # Kubernetes' side resolves these before it calls a provider.
    "spec.automountServiceAccountToken": YES,
    "spec.enableServiceLinks": YES,
    "spec.readinessGates": YES,
    "spec.serviceAccount": YES,
    "spec.serviceAccountName": YES,
    "spec.containers[].name": YES,
    "spec.containers[].env": YES,
    "spec.containers[].env[].valueFrom.fileKeyRef": no(
        "a file of a volume cannot be read before the containers start"
    ),
    "spec.containers[].envFrom": YES,
    "spec.volumes[].name": YES,
    "spec.os": YES,
    # Nowhere possible without a driver on a node of one's own.
    "spec.resourceClaims": _NO_DEVICES,
    "spec.resources.claims": _NO_DEVICES,
    "spec.containers[].resources.claims": _NO_DEVICES,
}
"""What Kubernetes' side or the provider itself settles for every backend."""


def _os(value: Any) -> Support:
    return YES if value == "linux" else no(f'allowed: linux, not "{value}"')


def _action(value: Any) -> Support | None:
    if value == "RestartAllContainers":
        return no("containers are restarted one by one, never all of a pod together")
    return None


_VALUES: Mapping[str, Callable[[Any], Support | None]] = {
    "spec.os.name": _os,
    "spec.containers[].restartPolicyRules[].action": _action,
    "spec.initContainers[].restartPolicyRules[].action": _action,
}
"""Fields of which some values can be done nowhere. None: as the tables say."""

_SAME = "spec.containers[]."
_LIKE_CONTAINERS = ("spec.initContainers[].", "spec.ephemeralContainers[].")
_UNKNOWN = no("this backend does not say what it makes of this field")


def lookup(table: Table, path: str) -> Support | None:
    """What a table says of a schema path (`spec.containers[].command`); None: nothing.

    The longest entry at or above the path. Init and ephemeral containers are as main ones where
    the table says nothing as exact of themselves.
    """
    twin = ""
    for prefix in _LIKE_CONTAINERS:
        if path.startswith(prefix):
            twin = _SAME + path[len(prefix) :]
    while path:
        if (found := table.get(path)) is not None:
            return found
        if len(twin) > len(_SAME) and (found := table.get(twin)) is not None:
            return found
        path, twin = _above(path), _above(twin)
    return None


def _above(path: str) -> str:
    # A key may have dots, and a bracket is in no name.
    return path[: path.rindex("[")] if path.endswith("]") else path.rpartition(".")[0]


def merged(adapter: Adapter | type[Adapter]) -> Table:
    """An adapter's table over `BASE`: an entry of its own wins at the same path."""
    return {**BASE, **adapter.capabilities}


class _Judge:
    """A merged table that remembers its answers: the same hundred fields are asked for always."""

    __slots__ = ("_holds", "_keys", "_known", "_table")

    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: dict[str, Support] = {}
        keyed = {path for path in table if path.endswith("]") and not path.endswith("[]")}
        self._keys = {_above(path) for path in keyed}
        self._holds = {above for path in table.keys() - keyed for above in _all_above(path)}

    def of(self, path: str) -> Support:
        found = self._known.get(path)
        if found is None:
            found = self._known[path] = self._find(path)
        return found

    def _find(self, path: str) -> Support:
        found = lookup(self._table, path)
        if found is not None:
            return found
        # An object whose fields have their own entries: they are judged one by one.
        return YES if path in self._holds or self._twin(path) in self._holds else _UNKNOWN

    def by_keys(self, path: str) -> bool:
        """Whether some keys of the map at that path have entries of their own."""
        return path in self._keys or self._twin(path) in self._keys

    @staticmethod
    def _twin(path: str) -> str:
        for prefix in _LIKE_CONTAINERS:
            if path.startswith(prefix):
                return _SAME + path[len(prefix) :]
        return path


def _all_above(path: str) -> list[str]:
    out = []
    while path := _above(path):
        out.append(path)
    return out


@lru_cache(maxsize=64)
def _judge(adapter: type[Adapter]) -> _Judge:
    return _Judge(merged(adapter))


def unclassified(table: Table) -> list[str]:
    """The fields of a pod of which a merged table says nothing, and which are refused for that.

    An object or a list needs no entry where the fields below it have theirs.
    """
    judge_ = _Judge(table)
    return [path for path in schema.walk_fields("Pod", "spec") if judge_.of(path) is _UNKNOWN]


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a backend makes of a pod."""

    violations: tuple[Violation, ...] = ()
    """Why it cannot run it: every field, not only the first."""
    approximations: tuple[tuple[str, str], ...] = ()
    """(field, what will be different)."""

    @property
    def possible(self) -> bool:
        """Whether the backend can run the pod."""
        return not self.violations


_FINE = Assessment()


def assess(adapter: Adapter, manifest: Manifest) -> Assessment:
    """What the tables say of the fields that the pod's author chose.

    What only values can tell is `judge`'s to ask. Raises Invalid where the manifest has no pod's
    shape.
    """
    try:
        return _assess(_judge(type(adapter)), manifest)
    except (AttributeError, KeyError, TypeError) as error:
        if wrong := schema.check(manifest, "Pod"):
            raise Invalid(violations=wrong) from error
        raise


def _assess(judge: _Judge, manifest: Manifest) -> Assessment:
    violations: list[Violation] = []
    approximations: list[tuple[str, str]] = []
    told: Support | None = None
    above = ""
    for path, where, value in _judged(judge, manifest):
        support = judge.of(path)
        if path in _VALUES:
            support = _VALUES[path](value) or support
        if support.level is Level.SUPPORTED:
            continue
        if support is told and where.startswith((f"{above}.", f"{above}[")):
            # By the same entry as the object that holds it: said once, of the object.
            continue
        told, above = support, where
        if support.level is Level.UNSUPPORTED:
            violations.append(Violation(where, support.words))
        else:
            approximations.append((where, support.words))
    if not violations and not approximations:
        return _FINE
    return Assessment(tuple(violations), tuple(approximations))


def _judged(judge: _Judge, manifest: Manifest) -> Iterator[tuple[str, str, Any]]:
    """The fields that are the author's choice, and the keys of maps that are judged by key."""
    for path, where, value in explicit_fields(manifest):
        yield path, where, value
        if judge.by_keys(path):
            for key, one in value.items():
                yield f"{path}[{key}]", f"{where}[{key}]", one


def judge(adapter: Adapter, manifest: Manifest, workload: Workload) -> Assessment:
    """`assess`, and what only values can tell: late references, probes and hooks that need an
    ability that the adapter lacks, and the adapter's own `check`."""
    found = assess(adapter, manifest)
    more = list(adapter.check(workload))
    late = late_fields(manifest)
    if late and not isinstance(adapter, Containers | FillsIn):
        words = "the pod's addresses are not known here before its containers start"
        more += [Violation(where, words) for where in late]
    if isinstance(adapter, Containers):
        more += _lacking(adapter, manifest)
    names = _cluster_names(adapter, manifest, workload)
    if not more and not names:
        return found
    known = {violation.field for violation in found.violations}
    new = tuple(violation for violation in more if violation.field not in known)
    return Assessment(found.violations + new, found.approximations + names)


_CLUSTER_NAME = re.compile(
    r"[a-z0-9]\.svc(?![a-z0-9_-])|\.cluster\.local(?![a-z0-9_-])", re.IGNORECASE
)
"""A name that only a cluster's own DNS resolves."""


def _cluster_names(
    adapter: Adapter, manifest: Manifest, workload: Workload
) -> tuple[tuple[str, str], ...]:
    """One warning where variables name Services, and nothing there resolves such names. A backend
    with cluster DNS supports dnsPolicy as it is meant. Of secret values nothing is said."""
    dns = lookup(merged(adapter), "spec.dnsPolicy")
    if dns is not None and dns.level is Level.SUPPORTED:
        return ()
    found = {
        (one.name, variable.name)
        for one in workload.containers
        for variable in one.env
        if not variable.secret and _CLUSTER_NAME.search(variable.value)
    }
    if not found:
        return ()
    where = [
        f"spec.{kind}[{index}].env[{at}].value"
        for kind in ("initContainers", "containers")
        for index, container in enumerate((manifest.get("spec") or {}).get(kind) or ())
        for at, entry in enumerate(container.get("env") or ())
        if (container["name"], entry["name"]) in found
    ]
    variables = ", ".join(sorted({name for _, name in found}))
    words = f"{variables}: names of the cluster's Services, which nothing here resolves"
    return ((where[0] if where else "spec.containers[].envFrom", words),)


_HANDLERS = (
    ("livenessProbe",),
    ("readinessProbe",),
    ("startupProbe",),
    ("lifecycle", "postStart"),
    ("lifecycle", "preStop"),
)
_NEEDS: Mapping[str, tuple[type, str]] = {
    "exec": (Exec, "run commands in containers"),
    "httpGet": (Dial, "connect to ports of a pod"),
    "tcpSocket": (Dial, "connect to ports of a pod"),
    "grpc": (Dial, "connect to ports of a pod"),
}
"""What an action needs of an adapter, and the words for it."""


def _lacking(adapter: Adapter, manifest: Manifest) -> list[Violation]:
    """Probes and hooks that the provider cannot run over this adapter."""
    found = []
    for kind in ("initContainers", "containers"):
        for index, container in enumerate((manifest.get("spec") or {}).get(kind) or ()):
            for path in _HANDLERS:
                handler: Any = container
                for name in path:
                    handler = handler.get(name) or {}
                for action, (ability, words) in _NEEDS.items():
                    if handler.get(action) is not None and not isinstance(adapter, ability):
                        where = f"spec.{kind}[{index}].{'.'.join(path)}.{action}"
                        found.append(Violation(where, f"this backend cannot {words}"))
    return found
