"""The content of the volumes that Kubernetes fills: configMap, secret, downwardAPI, projected.

Semantics are those of pkg/volume/{configmap,secret,downwardapi,projected}; failures are in the
kubelet's words, as it writes them into the event FailedMount.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from bridge.pods import Manifest
from bridge.pods.downward import (
    MissingError,
    Objects,
    config_data,
    fetch,
    field_value,
    namespace_of,
    resource_value,
    secret_data,
)
from bridge.rpc.v1 import pod_pb2
from bridge.workload import Waiting

DEFAULT_MODE = 0o644

MOUNT_FAILED = "MountVolume.SetUp failed"
"""How every failure's message begins."""

_KINDS = ("configMap", "secret", "downwardAPI", "projected")
_LONGEST_PATH, _LONGEST_NAME = 4096, 255

Tokens = Callable[[Manifest], str | None]
"""A serviceAccountToken projection ({audience, expirationSeconds, path}) to its token; None where
there is none."""


@dataclass(frozen=True, slots=True)
class _Sources:
    """Where content may come from."""

    pod: Manifest
    objects: Objects
    tokens: Tokens | None
    allocatable: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Entry:
    content: bytes
    mode: int
    secret: bool


_Payload = dict[str, _Entry]


def is_filled(volume: Manifest) -> bool:
    """Whether Kubernetes fills this volume, so that `content` is for it."""
    return any(kind in volume for kind in _KINDS)


def token_projections(pod: Manifest) -> list[Manifest]:
    """Every serviceAccountToken projection of a pod's volumes: the tokens to ask for first."""
    return [
        source["serviceAccountToken"]
        for volume in pod["spec"].get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
        if "serviceAccountToken" in source
    ]


def content(
    pod: Manifest,
    volume: Manifest,
    objects: Objects,
    *,
    tokens: Tokens | None = None,
    allocatable: Mapping[str, str] | None = None,
) -> pod_pb2.VolumeContent | Waiting:
    """Every file of one volume, or why its containers wait (tried again when objects change).

    `allocatable` is the node's, as quantities: what unset limits read as. A failure's reason is
    that of a container which waits for its volumes; its message names the volume.
    """
    name = volume["name"]
    try:
        payload = _payload(_Sources(pod, objects, tokens, allocatable or {}), volume)
        for path in payload:
            _check_path(path)
    except MissingError as missing:
        reason = "PodInitializing" if pod["spec"].get("initContainers") else "ContainerCreating"
        return Waiting(reason, f'{MOUNT_FAILED} for volume "{name}" : {missing}')
    made = pod_pb2.VolumeContent(volume=name, revision=_revision(pod, payload))
    for path in sorted(payload):
        entry = payload[path]
        made.files.add(path=path, content=entry.content, mode=entry.mode, secret=entry.secret)
    return made


def _payload(sources: _Sources, volume: Manifest) -> _Payload:
    if source := volume.get("projected"):
        return _projected(sources, volume["name"], source)
    for kind in ("configMap", "secret"):
        if kind in volume:
            return _keyed(sources, kind, volume[kind], _mode(volume[kind].get("defaultMode")))
    source = volume.get("downwardAPI") or {}
    return _downward(sources, source, _mode(source.get("defaultMode")))


def _projected(sources: _Sources, name: str, projected: Manifest) -> _Payload:
    mode = _mode(projected.get("defaultMode"))
    payload: _Payload = {}
    errors: list[str] = []
    for index, source in enumerate(projected.get("sources") or ()):
        field = f"spec.volumes[{name}].projected.sources[{index}]"
        try:
            # A later source replaces the files of an earlier one, path by path.
            payload.update(_source(sources, source, mode, field))
        except MissingError as missing:
            errors.append(str(missing))
    _raise_all(errors)
    return payload


def _source(sources: _Sources, source: Manifest, mode: int, field: str) -> _Payload:
    for kind in ("configMap", "secret"):
        if one := source.get(kind):
            return _keyed(sources, kind, one, mode)
    if "downwardAPI" in source:
        return _downward(sources, source["downwardAPI"] or {}, mode)
    if projection := source.get("serviceAccountToken"):
        token = sources.tokens(projection) if sources.tokens is not None else None
        if token is None:
            raise MissingError(f"{field}.serviceAccountToken: there is no token for it")
        return {projection["path"]: _Entry(token.encode(), mode, secret=True)}
    raise MissingError(f"{field}: {', '.join(source) or 'an empty source'} cannot be projected")


def _keyed(sources: _Sources, kind: str, source: Manifest, mode: int) -> _Payload:
    """The files of a ConfigMap or Secret: all of its keys, or those of `items`."""
    is_secret, optional = kind == "secret", bool(source.get("optional"))
    # A volume's own field is secretName; a projection's is name.
    name = (source.get("secretName") if is_secret else None) or source.get("name") or ""
    found = fetch(
        sources.objects,
        "Secret" if is_secret else "ConfigMap",
        namespace_of(sources.pod),
        name,
        optional,
    )
    data = secret_data(found) if is_secret else config_data(found)
    items = source.get("items")
    if not items:
        return {key: _Entry(value, mode, is_secret) for key, value in data.items()}
    payload: _Payload = {}
    for item in items:
        value = data.get(item["key"])
        if value is not None:
            payload[item["path"]] = _Entry(value, _mode(item.get("mode"), mode), is_secret)
        elif not optional:
            raise MissingError(
                f"references non-existent secret key: {item['key']}"
                if is_secret
                else f"configmap references non-existent config key: {item['key']}"
            )
    return payload


def _downward(sources: _Sources, source: Manifest, mode: int) -> _Payload:
    payload: _Payload = {}
    errors: list[str] = []
    for item in source.get("items") or ():
        try:
            if reference := item.get("fieldRef"):
                text = field_value(sources.pod, reference["fieldPath"])
            elif reference := item.get("resourceFieldRef"):
                text = resource_value(sources.pod, None, reference, sources.allocatable)
            else:
                text = ""
        except MissingError as missing:
            errors.append(str(missing))
            continue
        path = posixpath.normpath(item["path"])
        payload[path] = _Entry(text.encode(), _mode(item.get("mode"), mode), secret=False)
    _raise_all(errors)
    return payload


def _raise_all(errors: list[str]) -> None:
    if errors:
        raise MissingError(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")


def _mode(value: int | None, default: int = DEFAULT_MODE) -> int:
    return default if value is None else value


def _check_path(path: str) -> None:
    """What the kubelet's atomic writer refuses (validatePath in atomic_writer.go)."""
    for problem in _path_problems(path):
        raise MissingError(f"invalid path: {problem}")


def _path_problems(path: str) -> Iterator[str]:
    parts = path.split("/")
    if not path:
        yield 'must not be empty: ""'
    elif path.startswith("/"):
        yield f"must be relative path: {path}"
    elif len(path.encode()) > _LONGEST_PATH:
        yield f"must be less than or equal to {_LONGEST_PATH} characters"
    elif ".." in parts:
        yield f"must not contain '..': {path}"
    elif any(len(part.encode()) > _LONGEST_NAME for part in parts):
        yield f"filenames must be less than or equal to {_LONGEST_NAME} characters"
    elif parts[0].startswith(".."):
        yield f"must not start with '..': {path}"


def _revision(pod: Manifest, payload: _Payload) -> str:
    """A hash of content and modes. The pod's UID is in it, so that the revisions of two pods do
    not tell whether their secrets are the same."""
    digest = sha256(str(pod["metadata"].get("uid", "")).encode())
    for path in sorted(payload):
        entry = payload[path]
        head = f"\0{path}\0{entry.mode}\0{int(entry.secret)}\0{len(entry.content)}\0"
        digest.update(head.encode())
        digest.update(entry.content)
    return digest.hexdigest()[:32]
