"""What a step waits for: conditions over an object as it was last heard of, and its events. Pure.

over              the pod's phase is Succeeded or Failed; the Job is Complete or Failed and none of
                  its pods is on its way any more
gone              it has been removed
phase=PHASE       of a pod
deleting          its deletion has begun
condition:T=S     its condition of type T has status S
state:C=STATE     container C is waiting, running or terminated, `waiting:Reason` with that reason
restarts:C=N      container C has been started again N times or more
ready:C=true      container C is ready; `started:C` likewise
event=REASON      an event of it or of a pod of it has this reason; `event=REASON:N`: N times
COUNT=N           a count of a Job's status (active, failed, succeeded, ready) is N or more
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]
COUNTS = ("active", "failed", "succeeded", "ready", "terminating")


def holds(condition: str, found: Object | None, events: Sequence[Object]) -> bool:
    """Whether it does. `found`: None where the object is not there. ValueError for no condition."""
    what, _, wanted = condition.partition("=")
    what, _, which = what.partition(":")
    if what == "gone":
        return found is None
    if what == "event":
        reason, _, times = wanted.partition(":")
        counted = sum(count(one) for one in events if one.get("reason") == reason)
        return counted >= int(times or 1)
    status: Object = (found or {}).get("status") or {}
    if what == "over":
        return found is not None and _is_over(status)
    if what == "deleting":
        return found is not None and "deletionTimestamp" in found["metadata"]
    if what == "phase":
        return bool(status.get("phase") == wanted)
    if what == "condition":
        return any(one["type"] == which and one["status"] == wanted for one in _conditions(status))
    if what in COUNTS and not which:
        return int(status.get(what) or 0) >= int(wanted)
    return _of_container(what, container(status, which), wanted)


def _of_container(what: str, found: Object, wanted: str) -> bool:
    if what == "restarts":
        return int(found.get("restartCount") or 0) >= int(wanted)
    if what in ("ready", "started"):
        return str(bool(found.get(what))).lower() == wanted
    if what == "state":
        kind, _, reason = wanted.partition(":")
        state = found.get("state") or {}
        return kind in state and reason in ("", state[kind].get("reason", ""))
    raise ValueError(f"no such condition: {what}")


def _is_over(status: Object) -> bool:
    if "phase" in status:
        return status["phase"] in ("Succeeded", "Failed")
    ended = any(
        one["type"] in ("Complete", "Failed") and one["status"] == "True"
        for one in _conditions(status)
    )
    return ended and not status.get("terminating")


def _conditions(status: Object) -> Sequence[Object]:
    return status.get("conditions") or ()


def container(status: Object, name: str) -> Object:
    """The status of one container of any kind; empty where there is none."""
    for group in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for one in status.get(group) or ():
            if one["name"] == name:
                return dict(one)
    return {}


def count(event: Object) -> int:
    """How often it was told."""
    series = event.get("series") or {}
    return int(series.get("count") or event.get("count") or 1)
