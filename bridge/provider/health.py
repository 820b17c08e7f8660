"""What the provider knows of a container's run beyond its backend: its probes and its hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bridge.pods.lifecycle import Kill
from bridge.workload import Container, ContainerState, Observed, Running, Waiting, Workload


@dataclass(frozen=True, slots=True)
class RanBefore:
    """A running container as Kubernetes recorded it."""

    container_id: str
    started: bool
    ready: bool


@dataclass(slots=True)
class Health:
    """One run of one container. Its results begin as the kubelet's: not started, not ready, alive,
    as far as there are probes."""

    restart: int
    started: bool = False
    """Its startup probe has passed."""
    ready: bool = False
    """Its readiness probe passes."""
    hooked: bool = False
    """Its post-start hook has ended well."""
    kill: Kill | None = None
    """Why it is to end by itself."""
    kill_told: bool = False
    stop_by: float | None = None
    """When its pre-stop hook must be over (epoch seconds); None: that has not begun."""
    stopped: bool = False
    """Its pre-stop hook is over."""
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """Its probes and hooks at work, by what they are."""

    def cancel(self, name: str) -> None:
        """Ends one of its tasks, if it has that."""
        if (task := self.tasks.pop(name, None)) is not None:
            task.cancel()

    def cancel_all(self) -> None:
        """Ends all its tasks."""
        for name in list(self.tasks):
            self.cancel(name)


def is_cared_for(container: Container) -> bool:
    """Whether a container has probes or hooks."""
    return (
        container.startup_probe is not None
        or container.liveness_probe is not None
        or container.readiness_probe is not None
        or container.post_start is not None
        or container.pre_stop is not None
    )


def is_opening(container: Container, state: ContainerState | None, health: Health | None) -> bool:
    """Whether its run has begun and its post-start hook is not over."""
    return (
        container.post_start is not None
        and state is not None
        and isinstance(state.state, Running)
        and not (health is not None and health.restart == state.restart and health.hooked)
    )


def overlaid(workload: Workload, observed: Observed, healths: Mapping[str, Health]) -> Observed:
    """What a backend sees, with what probes and hooks know laid over it."""
    changed = {}
    for container in workload.containers:
        if not is_cared_for(container):
            continue
        state = observed.container(container.name)
        if state is not None and isinstance(state.state, Running):
            changed[container.name] = _overlaid(container, state, healths.get(container.name))
    if not changed:
        return observed
    states = tuple(changed.get(one.name, one) for one in observed.containers)
    return replace(observed, containers=states)


def _overlaid(container: Container, state: ContainerState, health: Health | None) -> ContainerState:
    if health is None or health.restart != state.restart:
        health = Health(state.restart)
    started, ready = state.started, state.ready
    if container.startup_probe is not None:
        started = health.started
    if container.readiness_probe is not None:
        ready = health.ready and started is not False
    if container.post_start is not None and not health.hooked:
        started = ready = False
    return replace(state, started=started, ready=ready)


def shown(
    container: Container | None, state: ContainerState, health: Health | None
) -> ContainerState:
    """A container's state as it is told. Until the post-start hook is over the kubelet has not
    told of the run yet."""
    if container is None or not is_opening(container, state, health):
        return state
    waiting = Waiting("ContainerCreating")
    return replace(state, state=waiting, container_id="", started=None, ready=None)
