"""What a pod's content may come from: its own fields, its resources, ConfigMaps and Secrets.

Shared by the environment and the volumes. Whatever cannot be had raises `MissingError` with the
kubelet's own words; both turn it into their result, so it never leaves `bridge.pods`.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

from bridge import quantity
from bridge.pods import Manifest

Objects = Callable[[str, str, str], Manifest | None]
"""(kind, namespace, name) to the object, or None where there is none."""

DEFAULTED_LIMITS = ("cpu", "memory", "ephemeral-storage")
"""Limits that read as the node's allocatable where they are not set."""


class MissingError(Exception):
    """Something that the content needs is not there (yet), or cannot be used as it is."""


def fetch(objects: Objects, kind: str, namespace: str, name: str, optional: bool) -> Manifest:
    """The ConfigMap or Secret; empty for an absent optional one, else `MissingError`."""
    found = objects(kind, namespace, name)
    if found is not None:
        return found
    if optional:
        return {}
    raise MissingError(f'{kind.lower()} "{name}" not found')


def namespace_of(pod: Manifest) -> str:
    """The pod's namespace; `default` where the manifest has none."""
    return pod["metadata"].get("namespace") or "default"


def secret_data(secret: Manifest) -> dict[str, bytes]:
    """A Secret's bytes by key: `data`, with `stringData` over it as the API server merges them."""
    data = {key: _decoded(secret, key, text) for key, text in (secret.get("data") or {}).items()}
    for key, text in (secret.get("stringData") or {}).items():
        data[key] = text.encode()
    return data


def config_data(config: Manifest) -> dict[str, bytes]:
    """A ConfigMap's bytes by key: `data` and `binaryData`."""
    binary = config.get("binaryData") or {}
    data = {key: _decoded(config, key, text) for key, text in binary.items()}
    for key, text in (config.get("data") or {}).items():
        data[key] = text.encode()
    return data


def _decoded(source: Manifest, key: str, text: str | None) -> bytes:
    try:
        return b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        name = source.get("metadata", {}).get("name", "")
        # Without the cause: it may quote the value.
        raise MissingError(f'the value of key {key} in "{name}" is not valid base64') from None


def field_value(pod: Manifest, path: str) -> str:
    """The text of a downward API field that the manifest itself holds, else `MissingError`."""
    metadata = pod["metadata"]
    base, key = _subscript(path)
    if key is not None:
        if base in ("metadata.labels", "metadata.annotations"):
            return str((metadata.get(base[9:]) or {}).get(key, ""))
        raise MissingError(f'fieldPath "{path}" does not support subscript')
    if path in ("metadata.labels", "metadata.annotations"):
        return format_map(metadata.get(path[9:]) or {})
    if path == "metadata.namespace":
        return namespace_of(pod)
    if path in ("metadata.name", "metadata.uid"):
        return str(metadata.get(path[9:], ""))
    if path in ("spec.nodeName", "spec.serviceAccountName"):
        return str(pod["spec"].get(path[5:], ""))
    raise MissingError(f"unsupported fieldPath: {path}")


def _subscript(path: str) -> tuple[str, str | None]:
    base, bracket, rest = path.partition("['")
    if base and bracket and rest.endswith("']"):
        return base, rest[:-2]
    return path, None


def resource_value(
    pod: Manifest,
    container: Manifest | None,
    selector: Manifest,
    allocatable: Mapping[str, str],
) -> str:
    """A resourceFieldRef's text: ceil(value / divisor), in whole numbers.

    `container` serves where the selector names none. A cpu, memory or ephemeral-storage limit that
    is not set is the pod's own, else the node's `allocatable`; a missing request is 0.
    """
    holder = _holder(pod, container, str(selector.get("containerName") or ""))
    side, _, name = str(selector["resource"]).partition(".")
    if side not in ("limits", "requests") or not (
        name in DEFAULTED_LIMITS or name.startswith("hugepages-")
    ):
        raise MissingError(f"unsupported container resource : {selector['resource']}")
    amount: Any = ((holder.get("resources") or {}).get(side) or {}).get(name)
    if side == "limits" and name in DEFAULTED_LIMITS and (not amount or not quantity.parse(amount)):
        pod_limits = (pod["spec"].get("resources") or {}).get("limits") or {}
        amount = pod_limits.get(name) or allocatable.get(name)
    divisor = selector.get("divisor") or "1"
    if not quantity.parse(divisor):
        divisor = "1"
    to_int = quantity.millicores if name == "cpu" else quantity.as_int
    return str(-(-to_int(amount or "0") // to_int(divisor)))


def _holder(pod: Manifest, container: Manifest | None, name: str) -> Manifest:
    if not name and container is not None:
        return container
    spec = pod["spec"]
    for one in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        if one["name"] == name:
            found: Manifest = one
            return found
    raise MissingError(f"container {name} not found")


def format_map(values: Mapping[str, str]) -> str:
    """Labels or annotations as the kubelet writes them: sorted lines of key="escaped value"."""
    return "\n".join(f"{key}={quoted(str(values[key]))}" for key in sorted(values))


_ESCAPES = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}


def quoted(text: str) -> str:
    """A Go string literal of the text, as strconv.Quote makes it."""
    return f'"{"".join(_ESCAPES.get(char) or _escaped(char) for char in text)}"'


def _escaped(char: str) -> str:
    code = ord(char)
    if char.isprintable():
        return char
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
