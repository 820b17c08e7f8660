"""Which ConfigMaps, Secrets and keys a workload needs, and which of those are not there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from bridge.pods import Manifest
from bridge.pods.defaults import CONTAINER_LISTS
from bridge.pods.schema import nearest

_TEMPLATES: dict[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    "Job": ("spec", "template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}
Known = Mapping[tuple[str, tuple[str, str]], Collection[str]]
"""(kind, (namespace, name)) -> the keys of that ConfigMap or Secret."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A need of one object, or of one key of it; `path` is where the pod says so."""

    path: str
    kind: str
    name: str
    key: str | None = None
    optional: bool = False


def pod_spec(obj: Manifest) -> tuple[str, Manifest]:
    """The pod's spec in a Pod, Job or CronJob, and its path."""
    path = _TEMPLATES[obj["kind"]]
    spec = obj
    for name in path:
        spec = spec[name]
    return ".".join(path), spec


def references(obj: Manifest) -> Iterator[Reference]:
    """Every reference of a clean Pod, Job or CronJob; imagePullSecrets are exempt."""
    path, spec = pod_spec(obj)
    for kind in CONTAINER_LISTS:
        for index, container in enumerate(spec.get(kind, ())):
            yield from _of_container(container, f"{path}.{kind}[{index}]")
    for index, volume in enumerate(spec.get("volumes", ())):
        where = f"{path}.volumes[{index}]"
        yield from _of_source(volume, where, "secretName")
        for number, source in enumerate(volume.get("projected", {}).get("sources", ())):
            yield from _of_source(source, f"{where}.projected.sources[{number}]", "name")


def _of_container(container: Manifest, path: str) -> Iterator[Reference]:
    for index, source in enumerate(container.get("envFrom", ())):
        for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if field in source:
                where = f"{path}.envFrom[{index}].{field}"
                ref = source[field]
                yield Reference(where, kind, ref["name"], None, ref.get("optional", False))
    for index, variable in enumerate(container.get("env", ())):
        for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            ref = variable.get("valueFrom", {}).get(field)
            if ref is not None:
                where = f"{path}.env[{index}].valueFrom.{field}"
                yield Reference(where, kind, ref["name"], ref["key"], ref.get("optional", False))


def _of_source(source: Manifest, path: str, secret_name: str) -> Iterator[Reference]:
    for field, kind, name in (
        ("configMap", "ConfigMap", "name"),
        ("secret", "Secret", secret_name),
    ):
        if field not in source:
            continue
        content, where = source[field], f"{path}.{field}"
        optional = content.get("optional", False)
        yield Reference(where, kind, content[name], None, optional)
        for index, item in enumerate(content.get("items", ())):
            here = f"{where}.items[{index}]"
            yield Reference(here, kind, content[name], item["key"], optional)


def missing_references(
    obj: Manifest, known: Known, broken: Collection[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """(path, message) for each needed object or key that is not in `known`.

    `broken` are (kind, name) of objects that were given but refused: they are not called missing.
    """
    namespace = obj["metadata"]["namespace"]
    absent: set[tuple[str, str]] = set()
    for ref in references(obj):
        keys = known.get((ref.kind, (namespace, ref.name)))
        if ref.optional or (keys is None and (ref.kind, ref.name) in broken):
            continue
        if keys is None:
            # An object is reported once for each place, not once more for each of its keys.
            if ref.key is None or (ref.kind, ref.name) not in absent:
                names = [n for (k, (ns, n)) in known if k == ref.kind and ns == namespace]
                what = f'found no {ref.kind} "{ref.name}" in namespace {namespace}'
                yield ref.path, f"{what} among the manifests{_near(ref.name, names)}"
            if ".items[" not in ref.path:
                absent.add((ref.kind, ref.name))
        elif ref.key is not None and ref.key not in keys:
            what = f'{ref.kind} "{ref.name}" has no key "{ref.key}"'
            yield ref.path, f"{what}{_near(ref.key, sorted(keys))}"


def _near(name: str, known: list[str]) -> str:
    near = nearest(name, tuple(known))
    if near:
        return f'; did you mean "{near}"?'
    return f"; there is: {', '.join(known[:20])}" if known else ""
