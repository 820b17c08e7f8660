"""From what the engine says to `Observed`. Pure.

One list names every container with its state; what it does not say (times, codes) comes from one
inspect at each transition. A pod is its pause container, and the runs of its containers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from adapters.engine import names
from bridge.workload import (
    ContainerState,
    Exit,
    Identity,
    Key,
    Observed,
    Running,
    State,
    Waiting,
)

_NEW = frozenset({"created", "configured", "initialized"})
_OVER = frozenset({"exited", "stopped", "dead"})
UNKNOWN = "ContainerStatusUnknown"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")
_SIGNALS = {137: 9, 143: 15}


@dataclass(frozen=True, slots=True)
class Entry:
    """One container in the engine's list."""

    id: str
    identity: Identity
    status: str
    """created, running, exited and others: the engine's own words."""
    created: float
    container: str = ""
    """Empty: the pause container."""
    restart: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    said: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """All of the inspect that it is from; None: it is from a list."""

    @property
    def is_new(self) -> bool:
        """It was made, and never ran."""
        return self.status in _NEW

    @property
    def is_over(self) -> bool:
        """It ran, and has ended."""
        return self.status in _OVER


def entry(said: Mapping[str, Any]) -> Entry | None:
    """One element of GET /containers/json; None where it is not ours.

    Labels alone do not tell: an image that was made from a container of ours has them too, and so
    has what runs from it. The name is the one that follows from them, and the engine gives it once.
    """
    labels = said.get("Labels") or {}
    identity = names.identity_of(labels)
    container, restart = labels.get(names.CONTAINER, ""), labels.get(names.RESTART, "0")
    if identity is None or not restart.isdigit():
        return None
    wanted = names.run(identity, container, int(restart)) if container else names.pause(identity)
    if wanted not in {str(one).removeprefix("/") for one in said.get("Names") or ()}:
        return None
    return Entry(
        id=str(said["Id"]),
        identity=identity,
        status=str(said.get("State", "")).lower(),
        created=float(said.get("Created") or 0),
        container=container,
        restart=int(restart),
        labels=labels,
        addresses=tuple(_addresses(said.get("NetworkSettings") or {})),
    )


def inspected(said: Mapping[str, Any]) -> Entry | None:
    """The same from GET /containers/{id}/json."""
    made = parse_time(str(said.get("Created", "")))
    found = entry(
        {
            "Id": said["Id"],
            "Names": [said.get("Name", "")],
            "Labels": (said.get("Config") or {}).get("Labels"),
            "State": (said.get("State") or {}).get("Status", ""),
            # A list tells whole seconds.
            "Created": int(made or 0),
            "NetworkSettings": said.get("NetworkSettings"),
        }
    )
    return replace(found, said=said) if found is not None else None


def _addresses(settings: Mapping[str, Any]) -> Iterable[str]:
    for network in (settings.get("Networks") or {}).values():
        for kind in ("IPAddress", "GlobalIPv6Address"):
            if network.get(kind):
                yield str(network[kind])


@dataclass(slots=True)
class Pod:
    """What the engine has of one pod."""

    identity: Identity
    pause: Entry | None = None
    runs: dict[str, list[Entry]] = field(default_factory=dict)
    """By container, the latest run first."""

    @property
    def order(self) -> tuple[float, Key]:
        """Engines list in any order; this one is by age."""
        return (self.pause.created if self.pause is not None else 0.0, self.identity.key)

    @property
    def is_fresh(self) -> bool:
        """None of its containers was ever started."""
        return all(one.is_new for found in self.runs.values() for one in found)

    @property
    def is_quiet(self) -> bool:
        """None of its containers runs."""
        runs = [one for found in self.runs.values() for one in found]
        return all(one.is_over or one.is_new for one in runs)

    def run(self, container: str, restart: int) -> Entry | None:
        """That run, where it is there."""
        found = self.runs.get(container, [])
        return next((one for one in found if one.restart == restart), None)


def pods(entries: Iterable[Entry]) -> dict[Key, Pod]:
    """By the identity's key."""
    found: dict[Key, Pod] = {}
    for one in entries:
        pod = found.setdefault(one.identity.key, Pod(one.identity))
        if one.container:
            pod.runs.setdefault(one.container, []).append(one)
        else:
            pod.pause = one
            # The pause container is the pod; labels of the others only repeat its own.
            pod.identity = one.identity
    for pod in found.values():
        for runs in pod.runs.values():
            runs.sort(key=lambda one: -one.restart)
    return found


@dataclass(frozen=True, slots=True)
class Fact:
    """What an inspect said of one container, in a state that will not change any more or until the
    list shows another one."""

    state: State
    container_id: str = ""
    image_id: str = ""
    released: bool = False
    """Of a pause container: we ended it ourselves, after the pod's work."""


def parse_time(text: str) -> float | None:
    """Seconds since the epoch of an RFC 3339 time of nanoseconds; None for Go's zero time."""
    match = _TIME.fullmatch(text)
    if match is None or text.startswith("0001-"):
        return None
    zone = "+00:00" if match[3] == "Z" else match[3]
    whole = datetime.fromisoformat(f"{match[1]}{zone}").astimezone(UTC).timestamp()
    return whole + float(match[2] or 0)


def running(state: Mapping[str, Any], created: float) -> Running:
    """From an inspect's State."""
    return Running(parse_time(str(state.get("StartedAt", ""))) or created)


def ended(
    state: Mapping[str, Any], created: float, *, message: str = "", oom: bool = False
) -> Exit:
    """From an inspect's State; a code that the engine does not know is none.

    No engine tells a signal from an exit code of 128 + n. Of SIGKILL and SIGTERM it is told: few
    programs choose those codes, and shells that do pass on how their child ended.
    """
    code = int(state.get("ExitCode", -1))
    finished = parse_time(str(state.get("FinishedAt", "")))
    started = parse_time(str(state.get("StartedAt", "")))
    if code < 0 or finished is None:
        words = "the engine does not know how this container ended"
        at = finished or started or created
        return Exit(137, at, UNKNOWN, message=message or words, started_at=started)
    # Podman writes down the start when it hears of it, which may be after a brief run's end.
    started = min(started or created, finished)
    killed = oom or bool(state.get("OOMKilled"))
    reason = "Completed" if code == 0 else "OOMKilled" if killed else "Error"
    return Exit(
        code=code,
        finished_at=finished,
        reason=reason,
        signal=_SIGNALS.get(code, 0),
        message=message,
        started_at=started,
    )


Waits = Mapping[str, tuple[int, Waiting]]
"""By container: which run waits, and for what."""


def observed(
    pod: Pod,
    facts: Mapping[str, Fact],
    waits: Waits,
    *,
    stopped: bool = False,
    broken: bool = False,
    leaving: bool = False,
    host_ips: Sequence[str] = (),
) -> Observed:
    """The pod, whole. `facts` by the container's ID; `broken`: it cannot go on, as was found out
    when something was to be started; `leaving`: we are removing it ourselves; `stopped`: nothing
    that never ran will."""
    shown = []
    for name in dict.fromkeys([*pod.runs, *waits]):
        state = _container(name, pod.runs.get(name, []), facts, waits.get(name))
        if state is not None:
            shown.append(state)
    pause = pod.pause
    lost = not leaving and (
        # Volumes alone are of a launch, or of a removal, that did not come to its end.
        bool(pod.runs)
        if pause is None
        else not pause.is_new and (broken or _was_lost(pod, pause, facts))
    )
    wanted = _words(pause, "containers") if pause is not None else []
    seen = {one.name for one in shown if not isinstance(one.state, Waiting)}
    live = any(isinstance(one.state, Running) for one in shown)
    own = pause.addresses if pause is not None else ()
    in_host = pause is not None and not own and pause.status == "running"
    return Observed(
        identity=pod.identity,
        containers=tuple(shown),
        ended=not live and (lost or stopped or (bool(shown) and seen >= set(wanted))),
        pod_ips=tuple(host_ips) if in_host else own,
        host_ips=tuple(host_ips),
        accepted_at=pause.created if pause is not None else None,
        message="the container that holds the pod's namespaces has ended" if lost else "",
        disrupted=lost,
    )


def _container(
    name: str, runs: Sequence[Entry], facts: Mapping[str, Fact], wait: tuple[int, Waiting] | None
) -> ContainerState | None:
    known = [(one, fact) for one in runs if (fact := facts.get(one.id)) is not None]
    exits = [fact.state for _, fact in known if isinstance(fact.state, Exit)]
    newest = known[0][0].restart if known else -1
    if wait is not None and wait[0] > newest:
        return ContainerState(name, wait[1], wait[0], previous=exits[0] if exits else None)
    if not known:
        return None
    latest, fact = known[0]
    if isinstance(fact.state, Waiting):
        waiting = wait[1] if wait is not None and wait[0] == latest.restart else fact.state
        previous = exits[0] if exits else None
        return ContainerState(name, waiting, latest.restart, previous=previous)
    before = known[1][1].state if len(known) > 1 else None
    return ContainerState(
        name=name,
        state=fact.state,
        restart=latest.restart,
        previous=before if isinstance(before, Exit) else None,
        container_id=fact.container_id,
        image=latest.labels.get(names.IMAGE, ""),
        image_id=fact.image_id,
    )


def _words(one: Entry, label: str) -> list[str]:
    return [word for word in one.labels.get(f"{names.PREFIX}{label}", "").split(",") if word]


def _was_lost(pod: Pod, pause: Entry, facts: Mapping[str, Fact]) -> bool:
    """Whether the pause container ended before the pod's own work had. Before that work had begun
    there was nothing to lose: it is started again."""
    if not pause.is_over or pod.is_fresh:
        return False
    fact = facts.get(pause.id)
    if fact is not None and fact.released:
        return False
    died = fact.state.finished_at if fact and isinstance(fact.state, Exit) else pause.created
    for name in _words(pause, "mains"):
        runs = pod.runs.get(name, [])
        last = facts.get(runs[0].id) if runs else None
        if last is None or not isinstance(last.state, Exit) or last.state.finished_at > died:
            return True
    return False
