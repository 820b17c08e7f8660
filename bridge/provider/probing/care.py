"""Keeps the probes and hooks of all pods at work, in step with what each pod's plan says.

Each is a task of its own that holds up no step. What comes of it is put into the container's
`Health`, and the pod is woken.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from bridge import adapter as seam
from bridge.pods.lifecycle import Kill, kill_for
from bridge.provider.health import Health, is_cared_for
from bridge.provider.probing.actions import Outcome, Result, Target, hook, probe
from bridge.provider.probing.worker import Kind, watch
from bridge.provider.record import Record
from bridge.workload import Container, ContainerState, Probe, Running

POST_START, PRE_STOP = "postStart", "preStop"
_PRE_STOP_FAILED = ("FailedPreStopHook", "PreStopHook failed")
"""The notice of a hook that has failed, or that the end of the grace has cut off."""

_log = logging.getLogger(__name__)


class Care:
    """The probes and hooks at work. `wake` has a pod's step taken."""

    def __init__(
        self,
        clock: Callable[[], float],
        wake: Callable[[tuple[str, str]], None],
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._wake = wake
        self._jitter = jitter
        self._began: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, record: Record, adapter: seam.Adapter, ending: Mapping[str, float]) -> None:
        """Starts and ends probes and hooks as the pod's state and plan want it.

        `ending` as `Plan.ending`. May be repeated at any time.
        """
        assert record.workload is not None
        if self._began is None:
            self._began = self._clock()
        if record.observed is None:
            return
        for container in record.workload.containers:
            if not is_cared_for(container):
                continue
            state = record.observed.container(container.name)
            if state is None or not isinstance(state.state, Running):
                if (old := record.health.get(container.name)) is not None:
                    old.cancel_all()
                continue
            health = record.health_of(state)
            until = ending.get(container.name)
            address = next(iter(record.observed.pod_ips), "localhost")
            target = Target(adapter, record.identity, container.name, address)
            self._follow(_Run(self, record, container, state, health, target), until)

    def forget(self, record: Record) -> None:
        """Ends all that is at work for a pod."""
        for health in record.health.values():
            health.cancel_all()

    async def close(self) -> None:
        """Ends everything that is at work."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, run: _Run, until: float | None) -> None:
        wanted = run.wanted(until)
        for name in [one for one in run.health.tasks if one not in wanted]:
            run.health.cancel(name)
        for name, work in wanted.items():
            task = run.health.tasks.get(name)
            if task is None or task.done():
                run.health.tasks[name] = self._begin(f"{name} {run.target.identity.uid}", work)

    def _begin(
        self, name: str, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(_logged(name, work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def first(self, started_at: float, probe: Probe, *, pressing: bool) -> float:
        """Seconds until a run's first try. Of what ran long before this provider did those that do
        not press are spread over a period: not every pod's probes at once."""
        now = self._clock()
        due = started_at + probe.initial_delay - now
        began = now if self._began is None else self._began
        if due <= 0 and not pressing and started_at + probe.period < began:
            return self._jitter() * max(0.0, began + probe.period - now)
        return max(0.0, due)

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    def wake(self, record: Record) -> None:
        """Has the pod's step taken."""
        self._wake(record.key)


async def _logged(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await work()
    except Exception:  # noqa: BLE001 - a defect of one probe must not pass in silence
        _log.exception("%s", name)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of one container, and what is to be at work for it."""

    care: Care
    record: Record
    container: Container
    state: ContainerState
    health: Health
    target: Target

    def wanted(self, until: float | None) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """What should be at work now, by name. `until`: when its grace is over, if it is ending."""
        container, health = self.container, self.health
        wanted: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
        if container.pre_stop is not None and until is not None and self._is_stopping(until):
            wanted[PRE_STOP] = self._pre_stop
        going_on = until is None and health.kill is None
        if container.post_start is not None and not health.hooked:
            if going_on:
                wanted[POST_START] = self._post_start
            return wanted
        if container.startup_probe is not None and not health.started:
            if going_on:
                wanted["startup"] = self._probe(Kind.STARTUP, container.startup_probe)
            return wanted
        if container.liveness_probe is not None and going_on:
            wanted["liveness"] = self._probe(Kind.LIVENESS, container.liveness_probe)
        if container.readiness_probe is not None:
            wanted["readiness"] = self._probe(Kind.READINESS, container.readiness_probe)
        return wanted

    def _is_stopping(self, until: float) -> bool:
        """Whether its pre-stop hook should be at work: once for each end, within the grace."""
        health, now = self.health, self.care.now()
        begun = health.stop_by is not None and not health.stopped
        health.stop_by = until if health.stop_by is None else min(health.stop_by, until)
        health.stopped = health.stopped or now >= health.stop_by
        if begun and health.stopped:
            self._note(*_PRE_STOP_FAILED)
        return not health.stopped

    def _probe(self, kind: Kind, probe_: Probe) -> Callable[[], Coroutine[Any, Any, None]]:
        assert isinstance(self.state.state, Running)
        started_at = self.state.state.started_at

        async def ask() -> Outcome:
            return await probe(self.target, probe_.action, probe_.timeout)

        async def work() -> None:
            # Until it has passed somebody waits for it.
            pressing = kind is Kind.STARTUP or (kind is Kind.READINESS and not self.health.ready)
            first = self.care.first(started_at, probe_, pressing=pressing)
            await watch(kind, probe_, ask, first=first, hear=self._heard, tell=self._told)

        return work

    def _heard(self, kind: Kind, outcome: Outcome) -> None:
        match outcome.result:
            case Result.SUCCESS:
                return
            case Result.WARNING:
                reason, words = "ProbeWarning", f"probe warning: {outcome.message}"
            case Result.FAILURE:
                reason, words = "Unhealthy", f"probe failed: {outcome.message}"
            case Result.UNKNOWN:
                reason = "Unhealthy"
                words = f"probe errored and resulted in unknown state: {outcome.message}"
        self._note(reason, f"{kind.value} {words}")

    def _told(self, kind: Kind, good: bool) -> None:
        health = self.health
        match kind:
            case Kind.READINESS:
                if health.ready is good:
                    return
                health.ready = good
            case Kind.STARTUP if good:
                health.started = True
            case Kind.LIVENESS if good:
                return
            case _:
                health.kill = self._failed(kind)
        self.care.wake(self.record)

    def _failed(self, kind: Kind) -> Kill:
        container = self.container
        failed = container.startup_probe if kind is Kind.STARTUP else container.liveness_probe
        grace = failed.grace if failed is not None else None
        return kill_for(container, f"failed {kind.value.lower()} probe", grace)

    async def _post_start(self) -> None:
        assert self.container.post_start is not None
        if await hook(self.target, self.container.post_start):
            self.health.hooked = True
        else:
            self._note("FailedPostStartHook", "PostStartHook failed")
            self.health.kill = Kill("FailedPostStartHook")
        self.care.wake(self.record)

    async def _pre_stop(self) -> None:
        assert self.container.pre_stop is not None
        assert self.health.stop_by is not None
        if not await hook(self.target, self.container.pre_stop):
            self._note(*_PRE_STOP_FAILED)
        self.health.stopped = True
        self.care.wake(self.record)

    def _note(self, reason: str, message: str) -> None:
        name = self.container.name
        if self.record.note(self.care.now(), reason, message, name, warning=True):
            self.care.wake(self.record)
