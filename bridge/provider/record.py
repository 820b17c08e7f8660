"""What the provider knows of one pod, and the facts that follow from it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import orjson

from bridge.pods import Manifest
from bridge.pods.lifecycle import Kill, Plan, Stop
from bridge.provider.backend import Backend
from bridge.provider.facts import (
    container_to_wire,
    identity_to_wire,
    notice_to_wire,
    timestamp,
    waiting_to_wire,
)
from bridge.provider.health import Health, RanBefore, overlaid, shown
from bridge.provider.translate import Request
from bridge.rpc.v1 import pod_pb2
from bridge.workload import (
    ContainerState,
    Exit,
    Identity,
    Notice,
    Observed,
    Resources,
    Waiting,
    Workload,
)

LOST = "ContainerStatusUnknown"

NOTICES = 16
"""Notices that are kept of one pod."""
NOTICE_AGAIN = 60.0
"""Seconds before the same notice is told again."""
CLOCK_STEP = 1.0
"""Seconds by which a wall clock is moved before anybody minds."""
NOTICE_MAX = 1024
"""Characters of a notice's message."""


@dataclass(slots=True)
class Record:
    """One pod. The backend holds the truth; this is what was last seen of it and what is wanted."""

    identity: Identity
    backend: Backend | None = None
    text: bytes | None = field(default=None, repr=False)
    """The pod as it was asked for, in JSON. None: found at the backend, and nobody has asked since
    we started."""
    late: Request | None = field(default=None, repr=False)
    """The whole request, where something in it waits for an address that only a running pod's
    backend knows. All that another one asks for is in `workload`."""
    generation: int = 0
    workload: Workload | None = None
    size: Resources = field(default_factory=Resources)
    start_time: float | None = None
    seen_before: bool = False
    """Kubernetes recorded that a container of it had run."""
    ended_before: Mapping[str, Exit] = field(default_factory=dict)
    """Exits that Kubernetes recorded, by container."""
    ran_before: Mapping[str, RanBefore] = field(default_factory=dict)
    """Containers that Kubernetes recorded as running."""
    health: dict[str, Health] = field(default_factory=dict)
    """What probes and hooks know of containers' newest runs."""
    notices: tuple[Notice, ...] = ()
    """What is told of it beyond its state: `PodFacts.notices`."""
    noticed: Mapping[str, float] = field(default_factory=dict)
    """When the last of the backend's own notices was, by container."""
    not_ready: Mapping[str, Waiting] = field(default_factory=dict)
    """Containers that cannot start yet, since something that they refer to is missing."""
    counted: bool = False
    """Its size is taken from its backend's limits."""
    launched_at: float | None = None
    """When the backend was known to have it, by the event loop's clock, as `observed_at`: a wall
    clock that is set must not reorder what was seen. None: never launched, as far as is known."""
    tried: bool = False
    """A launch was asked for: even without an answer the backend may have it."""
    unsure: bool = False
    """It was found at its backend: what of its wanted state is in force there is not known."""
    plan: Plan | None = None
    """The newest plan, where the provider starts each container by itself."""
    observed: Observed | None = None
    observed_at: float = 0.0
    missing: int = 0
    """Complete lists in a row without it."""
    missed_at: float = 0.0
    """When the last of them was asked for."""
    starting: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Starts that were asked for and not seen yet: (restart, when), by container."""
    others: dict[tuple[str, int], tuple[Backend, Identity]] = field(default_factory=dict)
    """The same pod found elsewhere, by backend and attempt: removed with it."""
    updating: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a change is brought into force."""
    stop: Stop | None = None
    deleting: bool = False
    kill_due: dict[str, float] = field(default_factory=dict)
    """When each container that was told to end will be killed; "" is the whole pod."""
    lead: float | None = None
    """Seconds that the wall clock was ahead of the event loop's when the times of its end were
    last right."""
    problem: Waiting | None = None
    """Why the whole pod waits."""
    refused: tuple[str, str] | None = None
    """(reason, message): the backend will never run it."""
    lost: bool = False
    ended: bool = False
    ended_acked: bool = False
    gone: bool = False
    facts: pod_pb2.PodFacts | None = None
    revision: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """(cluster, uid)."""
        return (self.identity.cluster, self.identity.uid)

    @property
    def manifest(self) -> Manifest:
        """The pod as it was asked for; empty where nobody has. Parsed each time: it is rarely
        asked for, and takes many times the room of its text."""
        found: Manifest = {} if self.text is None else orjson.loads(self.text)
        return found

    def ask(self, request: Request) -> None:
        """Keeps what is asked for now, as far as `workload` does not: 5,000 pods are kept."""
        self.text = request.manifest
        self.late = request if _needs_addresses(request) else None

    @property
    def stage(self) -> pod_pb2.PodStage.ValueType:
        """How far it has come."""
        if self.gone:
            return pod_pb2.POD_STAGE_GONE
        if self.ended:
            return pod_pb2.POD_STAGE_ENDED
        return pod_pb2.POD_STAGE_WAITING if self.launched_at is None else pod_pb2.POD_STAGE_ACTIVE

    def seen(self) -> Observed | None:
        """What was last observed, with what probes and hooks know."""
        if self.observed is None or self.workload is None or self._is_cared_for_there:
            return self.observed
        return overlaid(self.workload, self.observed, self.health)

    @property
    def _is_cared_for_there(self) -> bool:
        """Whether probes and hooks are the backend's own matter, and it tells what they know."""
        return self.backend is not None and self.backend.containers is None

    def align(self, lead: float) -> None:
        """Moves the times of its end with a wall clock that was set: a grace lasts as long as it
        was given, and a hook with it. `lead` is the wall clock's before the event loop's now."""
        if self.lead is None:
            self.lead = lead
        step = lead - self.lead
        if abs(step) < CLOCK_STEP:
            return
        self.lead = lead
        if self.stop is not None:
            self.stop = replace(self.stop, at=self.stop.at + step)
        if self.plan is not None and self.plan.since is not None:
            self.plan = replace(self.plan, since=self.plan.since + step)
            if self.workload is not None and self.workload.start_time is not None:
                # A deadline that was over stays so, and one that was to come comes no sooner.
                self.start_time = self.workload.start_time + step
                self.workload = replace(self.workload, start_time=self.start_time)
        self.kill_due = {name: at + step for name, at in self.kill_due.items()}
        for health in self.health.values():
            if health.stop_by is not None:
                health.stop_by += step

    def health_of(self, state: ContainerState) -> Health:
        """What is known of this run of a container; what was known of an earlier one ends."""
        health = self.health.get(state.name)
        if health is not None and health.restart == state.restart:
            return health
        if health is not None:
            health.cancel_all()
        health = self.health[state.name] = Health(state.restart)
        before = self.ran_before.get(state.name)
        if before is not None and before.container_id == state.container_id != "":
            health.started, health.ready, health.hooked = before.started, before.ready, True
        return health

    def kills(self) -> Mapping[str, Kill]:
        """The orders to end single containers, about the runs that were last observed."""
        found = {}
        for state in self.observed.containers if self.health and self.observed else ():
            health = self.health.get(state.name)
            if health is not None and health.restart == state.restart and health.kill is not None:
                found[state.name] = health.kill
        return found

    def note(
        self, now: float, reason: str, message: str, container: str = "", *, warning: bool = False
    ) -> bool:
        """Adds a notice, unless it was told a short while ago; whether it did."""
        message = message[:NOTICE_MAX]
        for one in self.notices:
            same = (one.reason, one.message, one.container) == (reason, message, container)
            if same and now - one.at < NOTICE_AGAIN:
                return False
        if self.notices:
            now = max(now, self.notices[-1].at + 1e-6)
        notice = Notice(now, reason, message, container, warning)
        self.notices = (*self.notices, notice)[-NOTICES:]
        return True

    def take_notices(self, seen: Observed, since: float) -> None:
        """Tells what its backend noticed since it was last looked at. What was before `since` may
        have been told by another provider."""
        for one in seen.notices:
            if one.at > self.noticed.get(one.container, since):
                self.noticed = {**self.noticed, one.container: one.at}
                self.note(one.at, one.reason, one.message, one.container, warning=one.warning)

    def lose(self, now: float) -> None:
        """Its backend no longer has it: what had not ended is unknown for ever."""
        known = self.observed or Observed(self.identity)
        names = [c.name for c in self.workload.containers] if self.workload else []
        names += [state.name for state in known.containers if state.name not in names]
        states = tuple(self._lost_state(name, known.container(name), now) for name in names)
        self.observed = replace(known, containers=states, ended=True, disrupted=True)
        self.lost = self.ended = True
        self.launched_at = self.launched_at or now
        self.plan = None

    def _lost_state(self, name: str, state: ContainerState | None, now: float) -> ContainerState:
        if state is not None and isinstance(state.state, Exit):
            return state
        end = self.ended_before.get(name) or Exit(
            137, now, LOST, message="The container could not be located: its backend lost it"
        )
        return replace(state or ContainerState(name, end), state=end)

    def to_wire(self) -> pod_pb2.PodFacts:
        """The whole facts, as the contract spells them."""
        wire = pod_pb2.PodFacts(
            pod=identity_to_wire(self.identity),
            backend=self.backend.name if self.backend else "",
            generation=self.generation,
            stage=self.stage,
            containers=self._containers(),
            notices=[notice_to_wire(one) for one in self.notices],
        )
        if self.problem is not None and not self.ended:
            wire.reason, wire.message = self.problem.reason, self.problem.message
        if (plan := self.plan) is not None and plan.failed:
            wire.failed, wire.reason, wire.message = True, plan.reason, plan.message
        if self.refused is not None:
            wire.failed = True
            wire.reason, wire.message = self.refused
        if (seen := self.observed) is not None:
            wire.pod_ips.extend(seen.pod_ips)
            wire.host_ips.extend(seen.host_ips)
            wire.disrupted = seen.disrupted
            wire.failed = wire.failed or seen.failed
            wire.reason = wire.reason or seen.reason
            wire.message = wire.message or seen.message
            if seen.accepted_at is not None:
                wire.accepted_at.CopyFrom(timestamp(seen.accepted_at))
        return wire

    def _containers(self) -> list[pod_pb2.ContainerFacts]:
        observed = self.seen()
        seen = {state.name: state for state in observed.containers} if observed else {}
        wanted = {one.name: one for one in self.workload.containers} if self.workload else {}
        waiting = dict(self.plan.waiting) if self.plan is not None else {}
        if not self.ended:
            # What has started needs what it refers to no more; the plan knows who waits.
            blocked = waiting if self.plan is not None else self.not_ready
            waiting |= {n: self.not_ready[n] for n in blocked if n in self.not_ready}
        names = [c.name for c in self.workload.containers] if self.workload else list(seen)
        found = []
        for name in names:
            if (state := seen.get(name)) is not None:
                if not self._is_cared_for_there:
                    state = shown(wanted.get(name), state, self.health.get(name))
                found.append(container_to_wire(state, waiting.get(name)))
            elif name in waiting:
                found.append(waiting_to_wire(name, waiting[name]))
        return found


def _needs_addresses(request: Request) -> bool:
    return any(
        variable.WhichOneof("source") == "late"
        for container in request.environment
        for variable in container.variables
    )
