"""Manifest files into checked and defaulted objects, or one error that names every problem.

Everything is read and judged before anything is refused, so that a person mends all of it at
once. Nothing here knows any backend.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from bridge.errors import Invalid, Violation
from bridge.local.documents import read
from bridge.local.references import missing_references
from bridge.pods import Manifest
from bridge.pods.defaults import with_defaults
from bridge.pods.schema import KINDS, check, describe, nearest
from bridge.pods.validation import validate

DEFAULT_NAMESPACE = "default"
_SUFFIXES = (".yaml", ".yml", ".json")
_MAX_BYTES = 32 << 20
"""Of one file. The API server itself refuses objects of more than 3 MiB."""

_ALLOWED = ", ".join((*KINDS, "List"))
_SERVER_METADATA = (
    *("creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation"),
    *("managedFields", "resourceVersion", "selfLink", "uid"),
)
"""What the API server writes and `kubectl get -o yaml` prints: not an author's, so not kept."""

_OUR_ANNOTATIONS = tuple(
    f"podbridge.io/{name}" for name in ("attempt", "deleted-for", "placed-on", "serial")
)
"""What we ourselves write on pods: where a manifest was printed by us, no more its author's."""

_MAX_GENERATED_PREFIX = 58
_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Both as in the API server's name generator: 63 in all, and letters that form no words."""

Key = tuple[str, str]
"""(namespace, name)."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One object, and where it came from: "job.yaml, document 2", and its first line there."""

    obj: Manifest
    source: str
    line: int = 0

    @property
    def key(self) -> Key:
        """Namespace and name."""
        metadata = self.obj["metadata"]
        return metadata["namespace"], metadata["name"]


@dataclass(frozen=True, slots=True)
class Objects:
    """What was given, by kind, in the order in which it was given.

    Every object has a name and a namespace, is clean and has its defaults. `stringData` of Secrets
    has become `data`; what the API server would write (status, uid) is gone.
    """

    pods: tuple[Loaded, ...] = ()
    jobs: tuple[Loaded, ...] = ()
    cronjobs: tuple[Loaded, ...] = ()
    configmaps: Mapping[Key, Loaded] = field(default_factory=dict)
    secrets: Mapping[Key, Loaded] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Loaded]:
        yield from self.pods
        yield from self.jobs
        yield from self.cronjobs
        yield from self.configmaps.values()
        yield from self.secrets.values()


@dataclass(frozen=True, slots=True)
class Raw:
    """An object before it is judged; `source` and `line` as in `Loaded`."""

    value: object
    source: str
    line: int = 0


def load(
    sources: Sequence[str], stdin: IO[bytes] | None = None, *, extra: Iterable[Raw] = ()
) -> Objects:
    """Read, check and default what `sources` (FILE, DIR, or "-" for `stdin`) hold.

    A directory gives its *.yaml, *.yml and *.json, not those of the directories in it. `extra` are
    objects from elsewhere (flags); a ConfigMap or Secret among them adds its keys to a given one
    of the same name. Raises Invalid with every problem of every file.
    """
    problems: list[Violation] = []
    raw: list[Raw] = []
    if not sources:
        problems.append(Violation("", 'no manifest; allowed: a file, a directory or "-"'))
    if list(sources).count("-") > 1:
        problems.append(Violation("", 'found "-" twice; allowed: once', "standard input"))
        sources = list(dict.fromkeys(sources))
    for source in sources:
        for path, content in _contents(source, stdin, problems):
            raw.extend(_objects_of(path, content, problems))
    return _judge(raw, list(extra), problems)


def admit(objects: Iterable[Raw]) -> Objects:
    """Check and default objects that are at hand already. Raises Invalid as `load` does."""
    return _judge(list(objects), [], [])


# --- reading -----------------------------------------------------------------------------------


def _contents(
    source: str, stdin: IO[bytes] | None, problems: list[Violation]
) -> Iterator[tuple[str, bytes]]:
    if source == "-":
        if stdin is None:
            problems.append(Violation("", "there is none", "standard input"))
        else:
            yield "standard input", stdin.read(_MAX_BYTES + 1)
        return
    if source.startswith(("http://", "https://")):
        hint = 'allowed: a file, a directory or "-" (curl URL | podbridge run -f -)'
        problems.append(Violation("", f"found a URL; {hint}", source))
        return
    try:
        paths = _files(source, problems)
    except (OSError, ValueError) as error:
        problems.append(Violation("", _unreadable(error), source))
        return
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            problems.append(Violation("", _unreadable(error), path))
        else:
            yield path, content


def _files(source: str, problems: list[Violation]) -> list[str]:
    if not stat.S_ISDIR(Path(source).stat().st_mode):
        return [source]
    names = sorted(name for name in os.listdir(source) if name.endswith(_SUFFIXES))
    paths = [str(Path(source, name)) for name in names]
    files = [path for path in paths if not Path(path).is_dir()]
    if not files:
        problems.append(Violation("", "found no *.yaml, *.yml or *.json in the directory", source))
    return files


def _unreadable(error: OSError | ValueError) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return f"cannot be read: {reason or error}"


def _objects_of(path: str, content: bytes, problems: list[Violation]) -> Iterator[Raw]:
    if len(content) > _MAX_BYTES:
        problems.append(Violation("", f"is larger than {_MAX_BYTES >> 20} MiB", path))
        return
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(Violation("", f"line {line}: found bytes that are not UTF-8", path))
        return
    documents = read(text, json_first=path.endswith(".json"))
    if not documents:
        problems.append(Violation("", "is empty: there is no object in it", path))
    several = any(document.number > 1 for document in documents)
    for document in documents:
        label = f"{path}, document {document.number}" if several else path
        problems.extend(Violation("", problem, label) for problem in document.problems)
        if document.value is not None:
            yield from _items(document.value, label, document.line, problems)


def _items(value: Any, label: str, line: int, problems: list[Violation]) -> Iterator[Raw]:
    """The object itself, or what a List holds, Lists in Lists too."""
    if not (isinstance(value, dict) and value.get("kind") == "List"):
        yield Raw(value, label, line)
        return
    if value.get("apiVersion") != "v1":
        found = describe(value.get("apiVersion"))
        problems.append(Violation("apiVersion", f"found {found}; allowed for a List: v1", label))
    for name in value:
        if name not in ("apiVersion", "kind", "metadata", "items"):
            near = nearest(str(name), ("apiVersion", "kind", "metadata", "items"))
            hint = f'; did you mean "{near}"?' if near else ""
            problems.append(Violation(str(name), f"unknown field{hint}", label))
    items = value.get("items")
    if not isinstance(items, list):
        if items is not None:
            problems.append(Violation("items", f"found {describe(items)}; allowed: list", label))
        return
    for index, item in enumerate(items):
        yield from _items(item, f"{label}, items[{index}]", line, problems)


# --- judging -----------------------------------------------------------------------------------


def _judge(raw: Sequence[Raw], extra: Sequence[Raw], problems: list[Violation]) -> Objects:
    kept: dict[tuple[str, Key], Loaded] = {}
    broken: set[tuple[str, str]] = set()
    generated: dict[str, int] = {}
    for index, each in enumerate((*raw, *extra)):
        found = _one(each, generated)
        if isinstance(found, list):
            problems.extend(found)
            if isinstance(each.value, dict):
                broken.add((str(each.value.get("kind")), _claimed_name(each.value)))
            continue
        identity = (found.obj["kind"], found.key)
        before = kept.get(identity)
        if before is None:
            kept[identity] = found
        elif index >= len(raw) and found.obj["kind"] in ("ConfigMap", "Secret"):
            kept[identity] = _joined(before, found)
        else:
            name = f"{identity[0]} {found.key[0]}/{found.key[1]}"
            text = f"duplicate object: {name} is in {before.source} already"
            problems.append(Violation("metadata.name", text, each.source))
    objects = _grouped(kept)
    if not problems and not (objects.pods or objects.jobs or objects.cronjobs):
        where = raw[0].source if len({each.source for each in raw}) == 1 else ""
        problems.append(Violation("", "nothing to run: found no Pod, Job or CronJob", where))
    problems.extend(_missing(objects, broken))
    if problems:
        raise Invalid(violations=problems)
    return objects


def _claimed_name(value: dict[Any, Any]) -> str:
    metadata = value.get("metadata")
    return str(metadata.get("name")) if isinstance(metadata, dict) else ""


def _one(raw: Raw, generated: dict[str, int]) -> Loaded | list[Violation]:
    """One object as it will run, or all that is wrong with it."""
    value = raw.value
    wrong = _kind_problem(value)
    if not isinstance(value, dict) or (wrong is not None and not _is_known(value.get("kind"))):
        return [Violation(*(wrong or ("", "")), raw.source)]
    kind: str = value["kind"]
    metadata = value.get("metadata")
    obj = {name: child for name, child in value.items() if name != "status"}
    if isinstance(metadata, dict):
        obj["metadata"] = {
            name: child for name, child in metadata.items() if name not in _SERVER_METADATA
        }
        if isinstance(notes := metadata.get("annotations"), dict):
            kept = {name: text for name, text in notes.items() if name not in _OUR_ANNOTATIONS}
            obj["metadata"]["annotations"] = kept
    if wrong is None and not check(obj, kind):
        obj = _finished(obj, generated)
    found = [(each.field, each.message) for each in validate(obj)]
    if wrong is not None:
        found = [wrong, *(each for each in found if each[0] != wrong[0])]
    if found:
        return [Violation(*each, raw.source) for each in found]
    return Loaded(obj, raw.source, raw.line)


def _is_known(kind: object) -> bool:
    return isinstance(kind, str) and kind in KINDS


def _kind_problem(value: object) -> tuple[str, str] | None:
    """(field, message) where this is no object of a kind that can be run."""
    if not isinstance(value, dict):
        # The value is not shown: it may be a line of a Secret that lost its key.
        return "", f"found {describe(value, show=False)}; allowed: an object (apiVersion, kind)"
    for name in ("apiVersion", "kind"):
        if not value.get(name):
            return name, f"missing; this field is required; kinds allowed: {_ALLOWED}"
        if not isinstance(value[name], str):
            return name, f"found {describe(value[name])}; allowed: string"
    kind, version = value["kind"], value["apiVersion"]
    if kind in KINDS:
        wanted = KINDS[kind][0]
        if version == wanted:
            return None
        return "apiVersion", f"found {describe(version)}; allowed for a {kind}: {wanted}"
    near = nearest(kind, (*KINDS, "List"))
    hint = f'; did you mean "{near}"?' if near and near.lower()[:3] == kind.lower()[:3] else ""
    shown = f"{kind[:80]} ({version[:80]})"
    return "kind", f"{shown} is not batch work; allowed: {_ALLOWED}{hint}"


def _finished(obj: Manifest, generated: dict[str, int]) -> Manifest:
    out = with_defaults(obj)
    metadata = out.setdefault("metadata", {})
    metadata["namespace"] = metadata.get("namespace") or DEFAULT_NAMESPACE
    prefix = metadata.get("generateName")
    if prefix and not metadata.get("name"):
        content = hashlib.sha256(orjson.dumps(out, option=orjson.OPT_SORT_KEYS)).hexdigest()
        generated[content] = generated.get(content, 0) + 1
        suffix = _suffix(f"{content}/{generated[content]}")
        metadata["name"] = prefix[:_MAX_GENERATED_PREFIX] + suffix
    if out["kind"] == "Secret":
        text = out.pop("stringData", {})
        out["data"] |= {
            key: base64.b64encode(value.encode()).decode() for key, value in text.items()
        }
    if out["kind"] == "Pod":
        _without_token(out["spec"])
    return out


def _suffix(seed: str) -> str:
    digest = hashlib.sha256(seed.encode()).digest()
    return "".join(_NAME_ALPHABET[byte % len(_NAME_ALPHABET)] for byte in digest[:5])


def _without_token(spec: Manifest) -> None:
    """Drop the token volume that a cluster's admission once added: here nothing could fill it."""
    names = {
        volume["name"]
        for volume in spec.get("volumes", ())
        if volume["name"].startswith("kube-api-access-") and "projected" in volume
    }
    if not names:
        return
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] not in names]
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind, ()):
            mounts = container.get("volumeMounts", ())
            container["volumeMounts"] = [m for m in mounts if m["name"] not in names]


def _joined(given: Loaded, added: Loaded) -> Loaded:
    data = given.obj.get("data", {}) | added.obj.get("data", {})
    return Loaded(given.obj | {"data": data}, given.source, given.line)


def _grouped(kept: Mapping[tuple[str, Key], Loaded]) -> Objects:
    def of(kind: str) -> dict[Key, Loaded]:
        return {key: loaded for (found, key), loaded in kept.items() if found == kind}

    return Objects(
        pods=tuple(of("Pod").values()),
        jobs=tuple(of("Job").values()),
        cronjobs=tuple(of("CronJob").values()),
        configmaps=of("ConfigMap"),
        secrets=of("Secret"),
    )


def _missing(objects: Objects, broken: set[tuple[str, str]]) -> Iterator[Violation]:
    known = {
        (kind, key): frozenset((*loaded.obj.get("data", {}), *loaded.obj.get("binaryData", {})))
        for kind, group in (("ConfigMap", objects.configmaps), ("Secret", objects.secrets))
        for key, loaded in group.items()
    }
    for loaded in (*objects.pods, *objects.jobs, *objects.cronjobs):
        for path, problem in missing_references(loaded.obj, known, broken):
            yield Violation(path, problem, loaded.source)
