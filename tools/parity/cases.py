"""The manifests and what is done with them: read, pinned to a node. Pure but for `load`.

A file under `manifests` is what one would apply, with a first comment that says what it shows.
Two annotations of ours, neither of which reaches the cluster, say the rest:

- `parity/steps` on a Pod or Job: a step a line, one after the other (see `Step`). Without it the
  pod or Job is waited for until it is over.
- `parity/later: "true"` on an object: it is made by a step, and not at the beginning.

Images are named as `images.SHORT` has them; every other name is left as it is.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
MANIFESTS = Path(__file__).resolve().with_name("manifests")
STEPS, LATER = "parity/steps", "parity/later"
PATHS = {
    "Pod": "api/v1/{}/pods",
    "Job": "apis/batch/v1/{}/jobs",
    "ConfigMap": "api/v1/{}/configmaps",
    "Secret": "api/v1/{}/secrets",
    "ServiceAccount": "api/v1/{}/serviceaccounts",
    "PersistentVolumeClaim": "api/v1/{}/persistentvolumeclaims",
}
"""Where objects of a kind are, by namespace."""
VERBS = ("until", "patch", "create", "delete", "ephemeral", "resize", "evict", "cut")


class Wrong(Exception):
    """A manifest that cannot be read; the text says which and why."""


@dataclass(frozen=True)
class Step:
    """One thing that is done with the case's objects, in the words of its line.

    until [KIND/NAME] CONDITION ...   wait until all of these hold: see `conditions`
    patch [KIND/NAME] JSON            a strategic merge patch
    ephemeral JSON                    an ephemeral container into the pod
    resize JSON                       a strategic merge patch of the pod's subresource
    create KIND/NAME                  an object that is annotated with parity/later
    delete [KIND/NAME] [SECONDS]      with this grace
    evict                             the pod, by its subresource
    cut                               what is told from now on does not count
    """

    verb: str
    kind: str
    name: str
    words: Sequence[str] = ()
    body: Object | None = None

    def __str__(self) -> str:
        said = " ".join(self.words) or (json.dumps(self.body) if self.body else "")
        return f"{self.verb} {self.kind}/{self.name} {said}".strip()


@dataclass(frozen=True)
class Case:
    """One file."""

    name: str
    shows: str
    """Its first comment."""
    objects: Sequence[Object] = field(repr=False)
    steps: Sequence[Step]

    @property
    def main(self) -> Object:
        """The first pod or Job."""
        return next(one for one in self.objects if one["kind"] in ("Pod", "Job"))


def load(folder: Path = MANIFESTS) -> list[Case]:
    """All of them, by name. Raises Wrong."""
    return [parse(one.stem, one.read_text("utf-8")) for one in sorted(folder.glob("*.yaml"))]


def parse(name: str, text: str) -> Case:
    """One file's content. Raises Wrong."""
    shows = " ".join(_first_comment(text))
    try:
        objects = [one for one in yaml.safe_load_all(text) if one]
    except yaml.YAMLError as error:
        raise Wrong(f"{name}: {error}") from None
    if not shows:
        raise Wrong(f"{name}: its first line is no comment that says what it shows")
    mains = [one for one in objects if one.get("kind") in ("Pod", "Job")]
    if not mains:
        raise Wrong(f"{name}: there is no Pod or Job in it")
    for one in objects:
        if one.get("kind") not in PATHS or not one.get("metadata", {}).get("name"):
            raise Wrong(f"{name}: each object has a name and is one of {', '.join(PATHS)}")
    steps = [
        _step(name, line, main)
        for main in mains
        for line in _annotation(main, STEPS, "until over").splitlines()
        if line.strip()
    ]
    return Case(name, shows, objects, steps)


def _first_comment(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        yield line.lstrip("# ").rstrip()


def _annotation(one: Object, key: str, default: str = "") -> str:
    return str((one["metadata"].get("annotations") or {}).get(key, default))


def is_later(one: Object) -> bool:
    """Whether a step makes it."""
    return _annotation(one, LATER) == "true"


def _step(case: str, line: str, main: Object) -> Step:
    verb, _, rest = line.strip().partition(" ")
    kind, name = main["kind"], main["metadata"]["name"]
    if verb not in VERBS:
        raise Wrong(f"{case}: {line!r}: a step is one of {', '.join(VERBS)}")
    if found := re.match(r"([A-Z]\w+)/([\w.-]+)\s*", rest):
        kind, name, rest = found[1], found[2], rest[found.end() :]
    if verb in ("patch", "ephemeral", "resize"):
        try:
            return Step(verb, kind, name, (), json.loads(rest))
        except ValueError as error:
            raise Wrong(f"{case}: {line!r}: {error}") from None
    return Step(verb, kind, name, tuple(rest.split()))


def pinned(one: Object, namespace: str, node: str, images: Mapping[str, str]) -> Object:
    """A copy for this namespace and node, without what is ours."""
    made = copy.deepcopy(one)
    meta = made["metadata"]
    meta["namespace"] = namespace
    given = meta.pop("annotations", None) or {}
    if kept := {key: value for key, value in given.items() if not key.startswith("parity/")}:
        meta["annotations"] = kept
    spec = {"Pod": lambda: made["spec"], "Job": lambda: made["spec"]["template"]["spec"]}
    if get := spec.get(made["kind"]):
        pod = get()
        pod["nodeSelector"] = {"kubernetes.io/hostname": node, **pod.get("nodeSelector", {})}
        _name_images(pod, images)
    return made


def _name_images(pod: Object, images: Mapping[str, str]) -> None:
    for group in ("initContainers", "containers"):
        for one in pod.get(group) or ():
            one["image"] = images.get(one.get("image", "busybox"), one.get("image"))


def path(kind: str, namespace: str, name: str = "") -> str:
    """Of a collection, or of one object in it."""
    where = "/" + PATHS[kind].format(f"namespaces/{namespace}")
    return f"{where}/{name}" if name else where
