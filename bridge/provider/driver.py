"""Starts and ends the containers of one pod as its plan says, where a backend lets us.

The plan (`bridge.pods.lifecycle`) says what should be; this asks the backend for it once, and again
where nothing came of it. Between the two stand the hooks: a pre-stop hook before a kill, and while
a post-start hook is at work no other container of the pod starts (the kubelet starts them one after
another, hook included).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bridge.pods.lifecycle import LEAST_GRACE, Plan, plan
from bridge.provider.backend import Backend
from bridge.provider.health import is_opening
from bridge.provider.probing.care import Care
from bridge.provider.record import Record
from bridge.provider.translate import translate
from bridge.rpc.v1 import pod_pb2
from bridge.workload import Observed, Running, Waiting

RESEND = 5.0
"""Seconds past its due time after which a kill is ordered again."""

_ON_ITS_WAY = ("", "ContainerCreating", "PodInitializing")
"""Reasons of a container that waits for nothing but its own start."""


class Driver:
    """Drives pods on backends that start each container by itself. With `read_only` it looks."""

    def __init__(
        self,
        clock: Callable[[], float],
        wake: Callable[[tuple[str, str]], None],
        *,
        read_only: bool,
    ) -> None:
        self._clock = clock
        self._care = Care(clock, wake)
        self._read_only = read_only

    async def drive(self, record: Record, backend: Backend) -> float | None:
        """Does what is due now; the plan is then the record's. Seconds until the next step."""
        assert record.workload is not None
        now = self._clock()
        since = record.plan.since if record.plan is not None else None
        due = plan(record.workload, record.seen(), now, record.stop, record.kills(), since=since)
        resend = None
        if self._read_only:
            self._remember(record)
        else:
            self._order_kills(record, due, now)
            self._care.follow(record, backend.adapter, due.ending)
            resend = await self._kill(record, backend, due, now)
            await self._start_due(record, backend, due)
        record.plan = due
        return sooner(due.wake_at, resend, now)

    def forget(self, record: Record) -> None:
        """Ends the probes and hooks of a pod."""
        self._care.forget(record)

    async def close(self) -> None:
        """Ends all probes and hooks."""
        await self._care.close()

    def _remember(self, record: Record) -> None:
        for state in record.observed.containers if record.observed else ():
            if isinstance(state.state, Running):
                record.health_of(state)

    def _order_kills(self, record: Record, due: Plan, now: float) -> None:
        """Keeps why containers end by themselves: how they then start anew depends on it."""
        for name, kill in due.kills.items():
            state = record.observed.container(name) if record.observed else None
            if state is None:
                continue
            health = record.health_of(state)
            health.kill = kill
            if not health.kill_told:
                health.kill_told = True
                record.note(now, "Killing", kill.message, name)

    async def _kill(self, record: Record, backend: Backend, due: Plan, now: float) -> float | None:
        """Orders the kills that are due; when (epoch seconds) to look at them again."""
        assert backend.containers is not None
        assert record.workload is not None
        again = []
        for name, grace in due.kill:
            left = grace
            if record.workload.container(name).pre_stop is not None:
                health = record.health.get(name)
                if health is None or health.stop_by is None:
                    # Another run of it has begun meanwhile: the next step is about that one.
                    continue
                if not health.stopped:
                    again.append(health.stop_by)
                    continue
                left = max(LEAST_GRACE, min(grace, health.stop_by - now))
            if is_news(record, name, now, left):
                await backend.containers.kill(record.identity, name, left)
                record.kill_due[name] = now + left
            again.append(record.kill_due[name] + RESEND)
        # A hook whose container waits for its turn is bounded as well.
        for name in due.ending:
            health_ = record.health.get(name)
            if health_ is not None and health_.stop_by is not None and not health_.stopped:
                again.append(health_.stop_by)
        return min(again, default=None)

    async def _start_due(self, record: Record, backend: Backend, due: Plan) -> None:
        assert record.workload is not None
        if self._is_opening(record):
            return
        for name, restart in due.start:
            if name in record.not_ready:
                continue
            if not await self._start(record, backend, name, restart):
                return
            container = record.workload.container(name)
            if container.post_start is not None and not _is_stuck(record.observed, name):
                return

    def _is_opening(self, record: Record) -> bool:
        """Whether a post-start hook is at work."""
        assert record.workload is not None
        for container in record.workload.containers:
            health = record.health.get(container.name)
            state = record.observed.container(container.name) if record.observed else None
            if is_opening(container, state, health) and (health is None or health.kill is None):
                return True
        return False

    async def _start(self, record: Record, backend: Backend, container: str, restart: int) -> bool:
        assert backend.containers is not None
        assert record.workload is not None
        record.kill_due.pop(container, None)
        workload = record.workload
        if record.late is not None:
            seen = record.observed
            if seen is None or not seen.pod_ips:
                backend.refresh()
                return False
            late = _late_values(seen)
            made = translate(record.late, record.manifest, start_time=record.start_time, late=late)
            # What is not in the request stays as it was found for the pod.
            workload = replace(
                made, hard_stop=workload.hard_stop, pull_credentials=workload.pull_credentials
            )
        record.starting[container] = (restart, asyncio.get_running_loop().time())
        await backend.containers.start(workload, container, restart)
        return True


def _is_stuck(seen: Observed | None, name: str) -> bool:
    """Whether a container cannot start for now: the others do not wait for it."""
    state = seen.container(name) if seen is not None else None
    return (
        state is not None
        and isinstance(state.state, Waiting)
        and state.state.reason not in _ON_ITS_WAY
    )


def is_news(record: Record, container: str, now: float, grace: float) -> bool:
    """Whether a kill must be ordered: the first, a nearer one, or one that was due long ago."""
    due = record.kill_due.get(container)
    return due is None or due > now + grace + 0.5 or now >= due + RESEND


def resend_at(record: Record, containers: Sequence[str]) -> float | None:
    """When (epoch seconds) the kills of these are ordered again."""
    due = [record.kill_due[name] + RESEND for name in containers if name in record.kill_due]
    return min(due, default=None)


def sooner(one: float | None, other: float | None, now: float) -> float | None:
    """Seconds until the nearer of two times; None where there is neither."""
    times = [time for time in (one, other) if time is not None]
    return max(0.0, min(times) - now) if times else None


def _late_values(seen: Observed) -> Mapping[int, str]:
    hosts = seen.host_ips or seen.pod_ips
    return {
        pod_pb2.LATE_REFERENCE_POD_IP: seen.pod_ips[0],
        pod_pb2.LATE_REFERENCE_POD_IPS: ",".join(seen.pod_ips),
        pod_pb2.LATE_REFERENCE_HOST_IP: hosts[0],
        pod_pb2.LATE_REFERENCE_HOST_IPS: ",".join(hosts),
    }
