"""Kubernetes' Job controller as one pure function: `reconcile(job, pods, now) -> Decision`.

The rules are those of the controller of Kubernetes 1.36. What differs is where it remembers:
Kubernetes counts a pod once, in the Job's status, and then lets the pod go; here finished pods
stay, and every count is worked out of them each time. So a run that lost its Job's status in a
crash comes to the same decision again, and to the very same pods: their UIDs and names follow
from the Job's UID, the index and a serial number.

Two annotations carry what the status would otherwise have to: `SERIAL_ANNOTATION`, which every
pod is created with, and `DELETED_FOR_ANNOTATION`, which the caller writes on each pod that it
deletes for a `Decision`.
"""

from __future__ import annotations

from bridge.local.jobs.cronjobs import from_cronjob
from bridge.local.jobs.model import (
    DELETED_FOR_ANNOTATION,
    SERIAL_ANNOTATION,
    Decision,
    Event,
    PodOrder,
)
from bridge.local.jobs.reconcile import reconcile

__all__ = [
    "DELETED_FOR_ANNOTATION",
    "SERIAL_ANNOTATION",
    "Decision",
    "Event",
    "PodOrder",
    "from_cronjob",
    "reconcile",
]
