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
_DEFAULTS = {"schedulerName": "default-scheduler", "serviceAccountName": "default"}


def refused(pod: Manifest) -> list[Violation]:
    """What a pod cannot do without: it would wait for ever, or run without its credentials."""
    found = []
    if pod["spec"].get("schedulingGates"):
        found.append(Violation("spec.schedulingGates", "nobody removes them without a cluster"))
    words = "service account tokens need a cluster"
    return found + [Violation(field, words) for field in _token_fields(pod)]


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
