"""What a pod asks of a cluster, and a run without one cannot give: pure."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.errors import Violation
from bridge.pods import Manifest

_IGNORED = {
    "affinity": "a run has no nodes to choose from: ignored",
    "nodeName": "a run has no nodes to choose from: ignored",
    "nodeSelector": "a run has no nodes to choose from: ignored",
    "priorityClassName": "a run has no queue that knows priorities: ignored",
    "schedulerName": "a run has no scheduler: ignored",
    "serviceAccountName": "a run has no service accounts: ignored",
    "topologySpreadConstraints": "a run has no nodes to choose from: ignored",
}
_OUR_PART = "kubernetes.io/job-controller"
"""Who manages a Job that names nobody."""
_DEFAULTS = {"schedulerName": "default-scheduler", "serviceAccountName": "default"}


def refused(pod: Manifest) -> list[Violation]:
    """What a pod cannot do without: it would wait for ever, or run without its credentials."""
    found = []
    if pod["spec"].get("schedulingGates"):
        found.append(Violation("spec.schedulingGates", "nobody removes them without a cluster"))
    words = "service account tokens need a cluster"
    return found + [Violation(field, words) for field in _token_fields(pod)]


def refused_job(obj: Manifest) -> list[Violation]:
    """What a Job or CronJob cannot do without: one that others manage would wait for ever."""
    at, spec = "spec", obj["spec"]
    if obj["kind"] == "CronJob":
        at, spec = "spec.jobTemplate.spec", spec["jobTemplate"]["spec"]
    manager = spec.get("managedBy") or _OUR_PART
    if obj["kind"] == "Pod" or manager == _OUR_PART:
        return []
    words = f'found "{manager}"; in a run only {_OUR_PART} manages Jobs: drop the field'
    return [Violation(f"{at}.managedBy", words)]


def ignored(pod: Manifest) -> list[tuple[str, str]]:
    """(field, what becomes of it) for what makes no difference where there is one place to run."""
    spec = pod["spec"]
    return [
        (f"spec.{name}", words)
        for name, words in _IGNORED.items()
        if spec.get(name) and spec[name] != _DEFAULTS.get(name)
    ]


def _token_fields(pod: Manifest) -> Iterator[str]:
    for index, volume in enumerate(pod["spec"].get("volumes") or ()):
        sources = (volume.get("projected") or {}).get("sources") or ()
        for at, source in enumerate(sources):
            if "serviceAccountToken" in source:
                yield f"spec.volumes[{index}].projected.sources[{at}].serviceAccountToken"
