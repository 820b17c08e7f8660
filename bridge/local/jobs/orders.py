"""Pods from a Job's template: their identity, names, labels and environment."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid5

import orjson

from bridge.local.jobs.model import INDEX_KEY, SERIAL_ANNOTATION, JobView
from bridge.pods import Manifest

INDEX_ENV = "JOB_COMPLETION_INDEX"

# generateName: at most 63 characters, 5 of them from an alphabet without vowels and look-alikes.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_MAX_PREFIX = 63 - _SUFFIX_LENGTH
_SUFFIXES = len(_ALPHABET) ** _SUFFIX_LENGTH


class PodFactory:
    """Makes the pods of one Job: everything that they share is worked out once."""

    def __init__(self, view: JobView, job: Manifest) -> None:
        self._job = view
        self._job_uid = UUID(view.uid)
        self._template = _shared_template(view, job)

    def build(self, index: int | None, serial: int, annotations: dict[str, str]) -> Manifest:
        """Make the pod of an index (None: not Indexed) and a serial number."""
        job = self._job
        # Parsing JSON is the fastest deep copy that there is.
        pod: Manifest = orjson.loads(self._template)
        metadata = pod["metadata"]
        stem = "" if index is None else str(index)
        metadata["uid"] = str(uuid5(self._job_uid, f"{stem}/{serial}"))
        metadata["name"] = _prefix(job.name, index) + _suffix(f"{job.uid}/{stem}", serial)
        metadata["annotations"][SERIAL_ANNOTATION] = str(serial)
        metadata["annotations"].update(annotations)
        if index is not None:
            metadata["annotations"][INDEX_KEY] = metadata["labels"][INDEX_KEY] = stem
            pod["spec"]["hostname"] = f"{job.name}-{index}"
        return pod


def _shared_template(view: JobView, job: Manifest) -> bytes:
    template = job["spec"]["template"]
    given = template.get("metadata") or {}
    labels = dict(given.get("labels") or {})
    if not job["spec"].get("manualSelector"):
        for key, value in (("job-name", view.name), ("controller-uid", view.uid)):
            labels.setdefault(key, value)
            labels.setdefault(f"batch.kubernetes.io/{key}", value)
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": view.name,
        "uid": view.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata = {
        "name": "",
        "namespace": view.namespace,
        "uid": "",
        "labels": labels,
        "annotations": dict(given.get("annotations") or {}),
        "ownerReferences": [owner],
    }
    spec = dict(template["spec"])
    if view.indexed:
        for key in ("initContainers", "containers"):
            if key in spec:
                spec[key] = [_with_index(container) for container in spec[key] or ()]
    return orjson.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def _with_index(container: dict[str, Any]) -> dict[str, Any]:
    env = container.get("env") or []
    if any(variable["name"] == INDEX_ENV for variable in env):
        return container
    reference = {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX_KEY}']"}
    return container | {
        "env": [*env, {"name": INDEX_ENV, "valueFrom": {"fieldRef": reference}}],
    }


def _prefix(name: str, index: int | None) -> str:
    tail = "-" if index is None else f"-{index}-"
    if index is None:
        return (name + tail)[:_MAX_PREFIX]
    return name[: _MAX_PREFIX - len(tail)] + tail


def _suffix(key: str, serial: int) -> str:
    """Five characters that no other serial of the same key has.

    Cutting a hash short would give two pods of a large Job the same name. Stepping through all
    suffixes from a hashed start with a hashed step that shares no factor with their number (a
    power of 3) meets each of them once.
    """
    start, step = _walk(key)
    number = start + step * serial
    characters = []
    for _ in range(_SUFFIX_LENGTH):
        number, position = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[position])
    return "".join(characters)


@lru_cache(maxsize=1024)
def _walk(key: str) -> tuple[int, int]:
    digest = sha256(key.encode()).digest()
    first, second = (int.from_bytes(part, "big") for part in (digest[:4], digest[4:8]))
    return first % _SUFFIXES, second % (_SUFFIXES // 3) * 3 + 1
