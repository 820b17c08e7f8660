"""The Job that a CronJob would make, run once and now, whatever its schedule."""

from __future__ import annotations

from copy import deepcopy

from bridge.pods import Manifest
from bridge.times import rfc3339

_SUFFIX = "-manual"
# A Job's name becomes the value of a label.
_MAX_NAME = 63


def from_cronjob(cronjob: Manifest, now: float) -> Manifest:
    """Make the Job `<name>-manual` from a CronJob, as `kubectl create job --from` does.

    `now` (epoch seconds) becomes the creation time and nothing else, so that the same CronJob
    gives the same Job. The Job has no UID yet.
    """
    metadata, template = cronjob["metadata"], cronjob["spec"]["jobTemplate"]
    given = template.get("metadata") or {}
    owner = {
        "apiVersion": cronjob.get("apiVersion", "batch/v1"),
        "kind": "CronJob",
        "name": metadata["name"],
        "uid": metadata.get("uid", ""),
        "controller": True,
    }
    made: Manifest = {
        "name": metadata["name"][: _MAX_NAME - len(_SUFFIX)] + _SUFFIX,
        "creationTimestamp": rfc3339(now),
        "annotations": {
            "cronjob.kubernetes.io/instantiate": "manual",
            **(given.get("annotations") or {}),
        },
        "ownerReferences": [owner],
    }
    if given.get("labels"):
        made["labels"] = dict(given["labels"])
    if metadata.get("namespace"):
        made["namespace"] = metadata["namespace"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": made,
        "spec": deepcopy(template["spec"]),
    }
