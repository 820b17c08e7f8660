"""A pod's whole v1.PodStatus, from its manifest, its last status and what the provider tells.

Pure, and the hot path of everything: no copies of what does not change. What it returns shares
parts with the status that was given; change neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.pods import Manifest
from bridge.pods.conditions import OWNED, View, conditions
from bridge.pods.phase import TERMINAL, is_sidecar, phase, qos_class
from bridge.pods.resize import Resize
from bridge.rpc.v1 import pod_pb2

__all__ = ["qos_class", "rejected", "same", "status"]

UNKNOWN_CODE = 137
UNKNOWN_REASON = "ContainerStatusUnknown"
_LOST = "The container could not be located when the pod was terminated"

_MESSAGES = 12 * 1024
"""Bytes: what the termination messages of one pod may take together
(MaxPodTerminationMessageLogLength)."""

_LATEST = 253_402_300_799
"""Epoch seconds of the last moment that RFC 3339 can write: the end of the year 9999."""

_STATUS_LISTS = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
_OURS = frozenset(
    (
        *_STATUS_LISTS,
        *("phase", "reason", "message", "conditions", "startTime", "observedGeneration"),
        *("hostIP", "hostIPs", "podIP", "podIPs", "qosClass"),
    )
)
"""Fields of a status that are the node's to write; all others are kept."""


def status(
    pod: Manifest,
    facts: pod_pb2.PodFacts,
    now: float,
    resize: Resize | None = None,
    host_ips: Sequence[str] = (),
) -> Manifest:
    """The complete new status. `now` (epoch seconds) dates what changes by it; `resize` is one that
    is not over: the pod is then given with what its containers have. `host_ips` are the node's
    addresses, which are told until the backend says where the pod is.

    A terminal phase comes only with stage ENDED or GONE, and never goes again.
    """
    old: Manifest = pod.get("status") or {}
    ended = facts.stage in (pod_pb2.POD_STAGE_ENDED, pod_pb2.POD_STAGE_GONE)
    absorbed = old.get("phase") in TERMINAL
    told = {one.name: one for one in facts.containers}
    lists = _container_lists(pod, old, told, settled=ended or absorbed, over=absorbed)
    by_name = {one["name"]: one for group in lists[:2] for one in group}
    current, reason, message = _phase(pod, old, facts, by_name, ended)
    if ended:
        _settle(pod, lists[0], lists[1])
    stamp = _time(int(now))
    generation = max(facts.generation, int(old.get("observedGeneration") or 0))
    if "deletionTimestamp" in pod["metadata"]:
        # Nothing else is brought into force any more: what was seen is that it is to end.
        generation = max(generation, int(pod["metadata"].get("generation") or 0))
    made: Manifest = {key: value for key, value in old.items() if key not in _OURS}
    if generation:
        made["observedGeneration"] = generation
    made["phase"] = current
    view = View(
        pod=pod,
        phase=current,
        statuses=by_name,
        sandbox=not absorbed and not ended and _has_sandbox(facts),
        disruption=facts.message if facts.disrupted and current != "Succeeded" else None,
        generation=generation,
        now=stamp,
        resize=resize,
    )
    made["conditions"] = conditions(view, old.get("conditions") or ())
    if reason:
        made["reason"] = reason
    if message:
        made["message"] = message
    _addresses(made, old, "host", facts.host_ips or (() if old.get("hostIP") else host_ips))
    _addresses(made, old, "pod", facts.pod_ips)
    made["startTime"] = old.get("startTime") or stamp
    for key, group in zip(_STATUS_LISTS, lists, strict=True):
        if group:
            made[key] = group
    made["qosClass"] = old.get("qosClass") or qos_class(pod)
    return made


def rejected(pod: Manifest, reason: str, message: str, now: float) -> Manifest:
    """The status of a pod that was never admitted: Failed, in the kubelet's words."""
    old: Manifest = pod.get("status") or {}
    if old.get("phase") in TERMINAL:
        return old
    made: Manifest = {
        **{key: value for key, value in old.items() if key not in _STATUS_LISTS},
        "phase": "Failed",
        "reason": reason,
        "message": f"Pod was rejected: {message}",
        "startTime": old.get("startTime") or _time(int(now)),
        "qosClass": old.get("qosClass") or qos_class(pod),
    }
    if generation := (pod["metadata"].get("generation") or 0):
        made["observedGeneration"] = generation
    return made


def same(old: Manifest, new: Manifest) -> bool:
    """Whether writing `new` over `old` would tell nobody anything.

    Absent, null and empty are one; the node's conditions are compared as the kubelet compares
    them: by status, reason and message.
    """
    if old == new:
        return True
    if _comparable(old) != _comparable(new):
        return False
    return _conditions_by_type(old) == _conditions_by_type(new)


def _comparable(value: Manifest) -> Any:
    return _pruned({key: one for key, one in value.items() if key != "conditions"})


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        pruned = {key: _pruned(one) for key, one in value.items()}
        return {key: one for key, one in pruned.items() if one not in (None, "", {}, [])}
    if isinstance(value, list):
        return [_pruned(one) for one in value]
    return value


def _conditions_by_type(value: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in value.get("conditions") or ():
        if one["type"] in OWNED:
            found[one["type"]] = (
                one.get("status"),
                one.get("reason") or "",
                one.get("message") or "",
            )
        else:
            found[one["type"]] = _pruned(one)
    return found


def _phase(
    pod: Manifest,
    old: Manifest,
    facts: pod_pb2.PodFacts,
    statuses: Mapping[str, Manifest],
    ended: bool,
) -> tuple[str, str, str]:
    """Phase, reason and message."""
    before = old.get("phase") or "Pending"
    if before in TERMINAL:
        return before, old.get("reason") or "", old.get("message") or ""
    initialized = any(
        "waiting" not in one["state"] or "terminated" in one["lastState"]
        for container in pod["spec"]["containers"]
        if (one := statuses.get(container["name"])) is not None
    )
    current = phase(pod, statuses, ended=ended, initialized=initialized)
    if not ended:
        # What still holds resources is not over, whatever its containers' codes say; why it failed
        # is said once it has.
        current = before if current in TERMINAL else current
        return (current, "", "") if facts.failed else (current, facts.reason, facts.message)
    if facts.failed or (facts.disrupted and current != "Succeeded"):
        return "Failed", facts.reason, facts.message
    return current if current in TERMINAL else "Failed", "", ""


def _has_sandbox(facts: pod_pb2.PodFacts) -> bool:
    return facts.stage == pod_pb2.POD_STAGE_ACTIVE and (
        bool(facts.pod_ips)
        or any(one.container_id or one.WhichOneof("state") == "running" for one in facts.containers)
    )


def _addresses(made: Manifest, old: Manifest, kind: str, addresses: Sequence[str]) -> None:
    """hostIP(s) or podIP(s); those once known stay."""
    one, many = f"{kind}IP", f"{kind}IPs"
    if addresses:
        made[one], made[many] = addresses[0], [{"ip": address} for address in addresses]
    elif old.get(one):
        made[one] = old[one]
        made[many] = old.get(many) or [{"ip": old[one]}]


def _container_lists(
    pod: Manifest,
    old: Manifest,
    told: Mapping[str, pod_pb2.ContainerFacts],
    *,
    settled: bool,
    over: bool,
) -> tuple[list[Manifest], list[Manifest], list[Manifest]]:
    """The statuses of init, regular and ephemeral containers, in the kubelet's order."""
    spec = pod["spec"]
    inits = spec.get("initContainers") or ()
    ephemerals = spec.get("ephemeralContainers") or ()
    frame = _Frame(
        {"waiting": {"reason": "PodInitializing" if inits else "ContainerCreating"}},
        _MESSAGES // (len(inits) + len(spec["containers"]) + len(ephemerals)),
        settled,
        over,
        spec.get("restartPolicy") or "Always",
    )
    groups: list[list[Manifest]] = []
    for key, containers in zip(_STATUS_LISTS, (inits, spec["containers"], ephemerals), strict=True):
        before = {one["name"]: one for one in old.get(key) or ()}
        if key == "ephemeralContainerStatuses":
            frame = replace(frame, restart_policy="Never")
        group = []
        for container in containers:
            name = container["name"]
            one = _container(frame, container, before.get(name) or {}, told.get(name))
            if key != "ephemeralContainerStatuses":
                init = key == "initContainerStatuses"
                _readiness(one, container, before.get(name) or {}, told.get(name), init=init)
            group.append(one)
        if key != "initContainerStatuses":
            group.sort(key=_by_name)
        groups.append(group)
    return groups[0], groups[1], groups[2]


@dataclass(frozen=True, slots=True)
class _Frame:
    """What all containers of one pod share."""

    waiting: Manifest
    """The state of one of which nothing is known."""
    limit: int
    """Bytes of a termination message."""
    settled: bool
    """Nothing of the pod will run again."""
    over: bool
    """That is on record: the recorded phase is terminal."""
    restart_policy: str
    """The pod's, for containers that have none of their own."""


def _by_name(one: Manifest) -> str:
    return str(one["name"])


def _container(
    frame: _Frame, container: Manifest, old: Manifest, facts: pod_pb2.ContainerFacts | None
) -> Manifest:
    """One container's status but for `started` and `ready`."""
    count = int(old.get("restartCount") or 0)
    made: Manifest = {
        "name": container["name"],
        "state": old.get("state") or frame.waiting,
        "lastState": old.get("lastState") or {},
        "ready": False,
        "restartCount": count,
        "image": container.get("image", ""),
        "imageID": old.get("imageID") or "",
    }
    identifier = old.get("containerID") or ""
    if facts is not None:
        state = _state(facts, frame.limit)
        if state is not None and not (frame.settled and _knows_less(frame, old, facts)):
            made["state"] = state
            made["lastState"] = _last_state(facts, old, state, frame.limit)
            _wait(frame, container, made)
        made["restartCount"] = max(count, facts.restart_count)
        if identifier and facts.container_id == identifier:
            # A new image is not what runs before its container does.
            made["image"] = old.get("image") or made["image"]
        made["imageID"] = facts.image_id or made["imageID"]
        identifier = facts.container_id or identifier
    if frame.settled and "waiting" in made["state"] and "terminated" in made["lastState"]:
        # Nothing starts it again: how it last ended is how it ended.
        made["state"], made["lastState"] = made["lastState"], {}
    if identifier:
        made["containerID"] = identifier
        resources = container.get("resources") or {}
        made["resources"] = resources
        if resources.get("requests"):
            made["allocatedResources"] = resources["requests"]
    return made


def _wait(frame: _Frame, container: Manifest, made: Manifest) -> None:
    """Says in the kubelet's words what a container waits for."""
    state = made["state"]
    waiting, ended = state.get("waiting"), state.get("terminated")
    if waiting is not None and waiting["reason"] == "ContainerCreating":
        made["state"] = {"waiting": {**waiting, **frame.waiting["waiting"]}}
    if ended is None or ended["reason"] != "StartError" or frame.settled:
        return
    if (container.get("restartPolicy") or frame.restart_policy) != "Never":
        # It is tried again: that it did not start is why it waits.
        why = {"reason": "RunContainerError", "message": ended.get("message", "")}
        made["state"], made["lastState"] = {"waiting": why}, state


def _knows_less(frame: _Frame, old: Manifest, facts: pod_pb2.ContainerFacts) -> bool:
    """A recorded exit is never lost: facts without one, as a provider that has just started may
    tell, do not replace it; nor does an unknown exit of the same run; nor, once the pod's end is
    on record, another code, as a pod that ended in one way cannot have ended in another."""
    recorded = (old.get("state") or {}).get("terminated")
    if recorded is None:
        return False
    if facts.WhichOneof("state") != "terminated":
        return True
    if frame.over and recorded.get("reason") != UNKNOWN_REASON:
        return bool(facts.terminated.exit_code != recorded.get("exitCode", 0))
    return facts.terminated.reason == UNKNOWN_REASON and facts.restart_count <= int(
        old.get("restartCount") or 0
    )


def _last_state(
    facts: pod_pb2.ContainerFacts, old: Manifest, state: Manifest, limit: int
) -> Manifest:
    if facts.HasField("last_termination"):
        return {"terminated": _terminated(facts.last_termination, limit)}
    ended = (old.get("state") or {}).get("terminated")
    if ended is not None and (
        "terminated" not in state or facts.restart_count > int(old.get("restartCount") or 0)
    ):
        return {"terminated": ended}
    last: Manifest = old.get("lastState") or {}
    # What did not start was said to be its last state while it waited.
    return {} if last == state else last


def _state(facts: pod_pb2.ContainerFacts, limit: int) -> Manifest | None:
    kind = facts.WhichOneof("state")
    if kind == "running":
        return {"running": {"startedAt": _stamp(facts.running.started_at)}}
    if kind == "terminated":
        return {"terminated": _terminated(facts.terminated, limit)}
    if kind == "waiting":
        waiting: Manifest = {"reason": facts.waiting.reason}
        if facts.waiting.message:
            waiting["message"] = facts.waiting.message
        return {"waiting": waiting}
    return None


def _terminated(facts: pod_pb2.Terminated, limit: int) -> Manifest:
    made: Manifest = {"exitCode": facts.exit_code, "reason": facts.reason}
    if facts.signal:
        made["signal"] = facts.signal
    if message := facts.message:
        if len(message) * 4 > limit:
            message = message.encode()[:limit].decode(errors="ignore")
        made["message"] = message
    if facts.HasField("started_at"):
        made["startedAt"] = _stamp(facts.started_at)
    made["finishedAt"] = _stamp(facts.finished_at)
    if facts.container_id:
        made["containerID"] = facts.container_id
    return made


def _readiness(
    made: Manifest,
    container: Manifest,
    old: Manifest,
    facts: pod_pb2.ContainerFacts | None,
    *,
    init: bool,
) -> None:
    state = made["state"]
    started = "running" in state
    ready = started
    if facts is None and started:
        # Nobody tells how it is: it stays as it is on record.
        started, ready = bool(old.get("started", True)), bool(old.get("ready", True))
    elif facts is not None and started:
        if facts.HasField("started"):
            started = facts.started
        ready = started and (facts.ready if facts.HasField("ready") else True)
    if init and not is_sidecar(container):
        ended = state.get("terminated")
        ready = ended is not None and ended["exitCode"] == 0
    made["started"] = started
    made["ready"] = ready


def _settle(pod: Manifest, inits: list[Manifest], mains: list[Manifest]) -> None:
    """Once nothing runs, every container of an initialized pod has ended (TerminatePod).

    What is not known to have ended is unknown; so are init containers up to the last that began.
    """
    if _pod_initialized(pod, inits, mains):
        for one in mains:
            _lose(one)
    began = [at for at, one in enumerate(inits) if _began(one)]
    for one in inits[: max(began, default=0) + 1]:
        _lose(one)


def _pod_initialized(pod: Manifest, inits: list[Manifest], mains: list[Manifest]) -> bool:
    if not inits or any(_began(one) for one in mains):
        return True
    last = inits[-1]
    if is_sidecar(pod["spec"]["initContainers"][-1]):
        return "running" in last["state"] and bool(last["started"])
    ended = last["state"].get("terminated") or last["lastState"].get("terminated")
    return ended is not None and ended["exitCode"] == 0


def _began(one: Manifest) -> bool:
    return "waiting" not in one["state"] or "terminated" in one["lastState"]


def _lose(one: Manifest) -> None:
    if "terminated" in one["state"]:
        return
    one["state"] = {
        "terminated": {
            "exitCode": UNKNOWN_CODE,
            "reason": UNKNOWN_REASON,
            "message": _LOST,
        }
    }
    one["ready"] = False
    if "started" in one:
        one["started"] = False


def _stamp(moment: Timestamp) -> str:
    # What a provider tells may be no time at all.
    return _time(min(max(moment.seconds, 0), _LATEST))


@lru_cache(maxsize=4096)
def _time(seconds: int) -> str:
    """RFC 3339 in UTC, in whole seconds as Kubernetes writes them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
