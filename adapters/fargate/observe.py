"""What is true of a pod, from the task that ECS describes and the order for it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from sys import intern
from typing import Any

from adapters.fargate.names import Json
from adapters.fargate.order import Order
from bridge.groups.pods import Ending, Made
from bridge.helper.view import START_ERROR, UNKNOWN
from bridge.helper.wrap import INSTALL, WATCH
from bridge.workload import ContainerState, Exit, Observed, Running, State, Waiting

TYPE = "fargate"
STOPPED = "podbridge: the pod was stopped"
DELETED = "podbridge: the pod was deleted"
LATE = "podbridge: the task did not start in time"
HARD_STOP = "podbridge: the pod ran for longer than it may"
REASONS: Mapping[Ending, str] = {
    Ending.STOPPED: STOPPED,
    Ending.DELETED: DELETED,
    Ending.LATE: LATE,
    Ending.HARD_STOP: HARD_STOP,
}
"""What StopTask is told: a task says it for as long as it can be described."""

_SPOT, _NOTICE = "SpotInterruption", "TerminationNotice"
"""The stop codes of a task that Spot takes back: as it stops, and two minutes before."""
_TAKEN = frozenset({_SPOT, _NOTICE, "InfrastructureHealth"})
"""Stop codes of who has lost what it ran on."""
_NEVER = _TAKEN | {"TaskFailedToStart"}
_ADDRESSES = ("privateIPv4Address", "ipv6Address")
_ENDING = frozenset({"DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"})
_PULL = re.compile(r"CannotPull|PullContainer|pull image manifest|ImageNotFound", re.I)
_OOM = re.compile(r"OutOfMemory", re.I)
_CANNOT_START = re.compile(r"CannotStartContainer|CannotCreateContainer|ContainerRuntime", re.I)


def is_stopped(task: Mapping[str, Any]) -> bool:
    """Whether nothing of it runs any more."""
    return task.get("lastStatus") == "STOPPED"


def is_running(task: Mapping[str, Any]) -> bool:
    """Whether all of its containers have started and none was told to end."""
    return task.get("lastStatus") == "RUNNING" and task.get("desiredStatus") != "STOPPED"


def is_warned(task: Mapping[str, Any]) -> bool:
    """Whether AWS has said that it takes it back, whatever becomes of it till then."""
    return task.get("stopCode") in _TAKEN


def never_started(task: Mapping[str, Any]) -> bool:
    """Whether it stopped before anything of the pod ran, for a reason that is not the pod's: then
    another one may be launched."""
    if not is_stopped(task) or task.get("startedAt") is not None:
        return False
    if any(_has_run(one) for one in task.get("containers") or () if one["name"] != INSTALL):
        return False
    said = str(task.get("stoppedReason", ""))
    return said == LATE or (task.get("stopCode") in _NEVER and said not in (STOPPED, DELETED))


def _has_run(one: Mapping[str, Any]) -> bool:
    return one.get("exitCode") is not None or (bool(one.get("runtimeId")) and not one.get("reason"))


def failure(task: Mapping[str, Any]) -> Waiting:
    """Why a task never started, as what the pod waits for."""
    words = _words(task)
    if _PULL.search(words):
        return Waiting("ImagePullBackOff", words)
    if "apacity" in words or task.get("stopCode") in _TAKEN:
        return Waiting("OutOfCapacity", words)
    return Waiting("CreateContainerError", words)


def _words(task: Mapping[str, Any]) -> str:
    reasons = [str(one.get("reason", "")) for one in task.get("containers") or ()]
    said = [str(task.get("stoppedReason", "")), *reasons]
    return "; ".join(dict.fromkeys(one for one in said if one))


def created(order: Order, task: Mapping[str, Any]) -> float:
    """When the task was made (epoch seconds); the model lets an answer leave it out."""
    at = task.get("createdAt")
    return order.asked_at if at is None else float(at.timestamp())


def group(order: Order, task: Mapping[str, Any], *, warned: bool) -> Observed:
    """The task as a group of containers. `warned`: AWS was once seen to take it back."""
    if "createdAt" not in task:
        task = {**task, "createdAt": datetime.fromtimestamp(created(order, task), UTC)}
    found = {one["name"]: one for one in task.get("containers") or ()}
    wrapped = any(one.name == WATCH for one in order.containers)
    states = tuple(
        _container(one, found.get(one.name) or {}, task, wrapped=wrapped)
        for one in order.containers
    )
    is_over = is_stopped(task)
    # Whoever was warned is taken, also where the task itself takes a while longer to stop.
    has_ended = is_over or all(isinstance(one.state, Exit) for one in states)
    taken = has_ended and (warned or is_warned(task))
    said = str(task.get("stoppedReason", ""))
    reason, message = "", ""
    if taken:
        code = str(task.get("stopCode", ""))
        reason, message = _SPOT if code in ("", _NOTICE) else code, said
    elif has_ended and said == HARD_STOP:
        reason, message = "DeadlineExceeded", said
    return Observed(
        order.identity,
        states,
        ended=is_over,
        pod_ips=_addresses(task),
        host_ips=_addresses(task),
        accepted_at=order.accepted_at,
        reason=reason,
        message=message or _notice(task, warned=warned),
        failed=bool(reason),
        disrupted=taken,
    )


def _notice(task: Mapping[str, Any], *, warned: bool) -> str:
    if is_stopped(task) or not warned:
        return ""
    return "AWS takes the task's capacity back: it is told to end"


def _container(
    made: Made, one: Mapping[str, Any], task: Mapping[str, Any], *, wrapped: bool
) -> ContainerState:
    digest = str(one.get("imageDigest", ""))
    runtime = one.get("runtimeId") or ""
    state = _state(made, one, task, wrapped=wrapped)
    return ContainerState(
        made.name,
        state,
        container_id="" if isinstance(state, Waiting) or not runtime else f"{TYPE}://{runtime}",
        image=made.image,
        image_id=f"{_repository(made.image)}@{digest}" if digest else "",
    )


def _repository(image: str) -> str:
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _state(made: Made, one: Mapping[str, Any], task: Mapping[str, Any], *, wrapped: bool) -> State:
    status = str(one.get("lastStatus", ""))
    code = one.get("exitCode")
    # Its end has a time from then on, which stays. Around a helper it is the helper that tells of
    # it, and the code alone says that one has failed.
    told = wrapped and made.name not in (INSTALL, WATCH)
    if code is not None and (task.get("executionStoppedAt") or is_stopped(task) or told):
        return _exit(int(code), one, task)
    if is_stopped(task):
        return _unknown(one, task)
    # A container runs before ECS says when the task did.
    runs = status == "RUNNING" or code is not None
    if runs and (made.name in (INSTALL, WATCH) or _has_started(task)):
        return Running(_started(task))
    return Waiting("ContainerCreating", _step(task))


def _has_started(task: Mapping[str, Any]) -> bool:
    return task.get("startedAt") is not None or task.get("lastStatus") == "RUNNING"


def _step(task: Mapping[str, Any]) -> str:
    words = {
        "PROVISIONING": "the task waits for its network interface",
        "PENDING": "the task waits for its machine and its images",
        "ACTIVATING": "the task is about to run",
    }
    return words.get(str(task.get("lastStatus", "")), "")


def _exit(code: int, one: Mapping[str, Any], task: Mapping[str, Any]) -> Exit:
    signal = code - 128 if 128 < code <= 128 + 64 else 0
    reason, message = "Completed" if code == 0 else "Error", ""
    if _OOM.search(said := str(one.get("reason", ""))):
        reason, message = "OOMKilled", said
    start, end = _times(task)
    return Exit(code, end, reason, signal, message, started_at=start, container_id=_id(one))


def _id(one: Mapping[str, Any]) -> str:
    return f"{TYPE}://{one['runtimeId']}" if one.get("runtimeId") else ""


def _unknown(one: Mapping[str, Any], task: Mapping[str, Any]) -> Exit:
    """It stopped, and nobody says with which code."""
    words = str(one.get("reason") or _words(task) or "the task stopped without an exit code")
    start, end = _times(task)
    if _OOM.search(words):
        return Exit(137, end, "OOMKilled", 9, words, started_at=start, container_id=_id(one))
    if task.get("startedAt") is None and (_CANNOT_START.search(words) or _PULL.search(words)):
        return Exit(128, end, START_ERROR, message=words, started_at=end)
    return Exit(137, end, UNKNOWN, message=words, started_at=start, container_id=_id(one))


def _times(task: Mapping[str, Any]) -> tuple[float, float]:
    """(start, end): ECS has no container's own times."""
    start = _started(task)
    end = _time(task, "executionStoppedAt", "stoppedAt", "stoppingAt") or start
    return min(start, end), end


def _started(task: Mapping[str, Any]) -> float:
    return _time(task, "startedAt", "pullStoppedAt", "pullStartedAt", "createdAt")


def _time(task: Mapping[str, Any], *names: str) -> float:
    for name in names:
        if (at := task.get(name)) is not None:
            return float(at.timestamp())
    return 0.0


def _addresses(task: Mapping[str, Any]) -> tuple[str, ...]:
    """The network interface's: IPv4, then IPv6."""
    found: dict[str, str] = {}
    for attachment in task.get("attachments") or ():
        if attachment.get("type") in ("ElasticNetworkInterface", "eni"):
            for one in attachment.get("details") or ():
                found[str(one.get("name"))] = str(one.get("value"))
    return tuple(found[name] for name in _ADDRESSES if name in found)


_OF_TASK = (
    "taskArn", "version", "lastStatus", "desiredStatus", "startedBy", "stopCode", "stoppedReason",
    "createdAt", "pullStartedAt", "pullStoppedAt", "startedAt", "stoppingAt", "executionStoppedAt",
    "stoppedAt",
)  # fmt: skip
_OF_AGENT = ("name", "lastStatus")
_OF_CONTAINER = ("name", "lastStatus", "exitCode", "reason", "runtimeId", "imageDigest")


def slim(task: Mapping[str, Any]) -> Json:
    """What is used of a task. ECS tells several times as much, and there are thousands of them."""
    made = {name: _shared(task[name]) for name in _OF_TASK if name in task}
    made["containers"] = [_slim_container(one) for one in task.get("containers") or ()]
    made["attachments"] = [
        {
            "type": _shared(str(one.get("type"))),
            "details": [
                {"name": _shared(str(each["name"])), "value": each.get("value")}
                for each in one.get("details") or ()
                if each.get("name") in _ADDRESSES
            ],
        }
        for one in task.get("attachments") or ()
    ]
    return made


def _slim_container(container: Mapping[str, Any]) -> Json:
    made = {name: _shared(container[name]) for name in _OF_CONTAINER if name in container}
    if agents := container.get("managedAgents"):
        made["managedAgents"] = [
            {name: _shared(one[name]) for name in _OF_AGENT if name in one} for one in agents
        ]
    return made


def _shared(value: Any) -> Any:
    """Words that many tasks have are kept once."""
    return intern(value) if isinstance(value, str) else value


def from_event(detail: Mapping[str, Any]) -> Json:
    """A task as its event tells of it, with its times as DescribeTasks has them (ValueError: one
    is none)."""
    return {
        name: datetime.fromisoformat(str(value)) if name.endswith("At") else value
        for name, value in detail.items()
    }


def in_transition(task: Json) -> bool:
    """Whether it is about to be something else, so that it is worth looking at soon."""
    status = str(task.get("lastStatus", ""))
    if is_stopped(task):
        return False
    return status != "RUNNING" or task.get("desiredStatus") == "STOPPED" or status in _ENDING
