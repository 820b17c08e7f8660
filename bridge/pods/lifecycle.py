"""The one restarter's rules: what of a workload should start, stop or wait now.

`plan` is pure and level-triggered: it looks at everything again each time, keeps nothing, and asks
for the same start or kill until it sees it done. Who calls it drops what is already under way.
The rules are those of pkg/kubelet/kuberuntime (computePodActions, computeInitContainerActions,
doBackOff, terminationOrdering) and of ContainerShouldRestart in pkg/api/v1/pod.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bridge.backoff import backoff, backoff_message, backoff_of_killed
from bridge.workload import (
    Container,
    ContainerState,
    Exit,
    Observed,
    RestartPolicy,
    Role,
    Running,
    Waiting,
    Workload,
)

LEAST_GRACE = 2.0
"""Seconds: what every container gets to stop (minimumGracePeriodInSeconds)."""

_NONE: Mapping[str, Kill] = {}

DEADLINE_REASON = "DeadlineExceeded"
DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"
UNKNOWN_REASON = "ContainerStatusUnknown"


@dataclass(frozen=True, slots=True)
class Stop:
    """An end that somebody ordered."""

    at: float
    """When (epoch seconds)."""
    grace: float
    """Seconds from `at` to the kill."""
    reason: str = ""
    """Why the pod failed by it; empty: a deletion, which fails nothing."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Kill:
    """Why one run of a container is to end though its pod goes on."""

    message: str
    """The kubelet's words for its Killing event."""
    grace: float | None = None
    """Seconds; None: the pod's."""
    again: bool = False
    """It then starts anew, whatever its restart policy makes of its exit code."""


def kill_for(
    container: Container, words: str, grace: float | None = None, *, again: bool = False
) -> Kill:
    """A kill with the kubelet's message around `words` ("failed liveness probe").

    Unless its policy is Never the container then starts anew, though it may end with code 0.
    """
    if container.role is Role.SIDECAR:
        return Kill(f"Init container {container.name} {words}", grace, again)
    again = again or container.restart_policy is not RestartPolicy.NEVER
    suffix = ", will be restarted" if again else ""
    return Kill(f"Container {container.name} {words}{suffix}", grace, again)


@dataclass(frozen=True, slots=True)
class Plan:
    """What should be so now. It does not know of starts that are under way: with `ended`, wait
    for those first."""

    start: tuple[tuple[str, int], ...] = ()
    """(container, restart number) to start now."""
    kill: tuple[tuple[str, float], ...] = ()
    """(container, seconds of grace that are left)."""
    ending: Mapping[str, float] = field(default_factory=dict)
    """Running containers that are to end, and when (epoch seconds) their grace is over. Their
    pre-stop hooks run now; those that `kill` leaves out wait for their turn after it."""
    kills: Mapping[str, Kill] = field(default_factory=dict)
    """Why, of those that end in a pod that goes on."""
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    """Containers to show as waiting; one that neither runs nor is here shows its own Exit."""
    ended: bool = False
    """No container runs or will run again."""
    failed: bool = False
    """The whole pod failed for `reason`, whatever its containers' codes say."""
    reason: str = ""
    message: str = ""
    wake_at: float | None = None
    """When (epoch seconds) to plan again though nothing changes."""
    since: float | None = None
    """When (epoch seconds) somebody first saw that the pod is to end; None: it goes on."""


def plan(
    workload: Workload,
    observed: Observed | None,
    now: float,
    stop: Stop | None = None,
    kills: Mapping[str, Kill] = _NONE,
    *,
    since: float | None = None,
) -> Plan:
    """What to do now for a workload whose containers are started one by one.

    `stop` is the order to end, if there is one; `kills` are orders to end containers by themselves,
    about the run that is observed of each; `since` is the last plan's. The deadline counts from
    `workload.start_time`. A grace counts from when somebody saw that the pod is to end: what was
    due while nobody looked takes no container's grace, nor its pre-stop hook.
    A workload that its backend reports as failed or disrupted as a whole is stopped as well.
    """
    pod = _Pod.of(workload, observed, kills)
    end = pod.natural_end()
    seen = now if since is None else since
    order, later = _order(pod, observed, now, stop, seen)
    if order is not None:
        return _stopping(pod, order, now, seen)
    if end is not None:
        return _completing(pod, seen + workload.grace, now, seen)
    return _running(pod, now, later)


def should_restart(container: Container, exit_: Exit) -> bool:
    """Whether a container that ended this way runs again, back-off aside.

    The first restart rule that matches decides; then the container's policy, which is the pod's
    where it has none of its own. Rules do not see an unknown exit: it has no code of its own.
    """
    if container.role is Role.EPHEMERAL:
        return False
    if container.role is Role.SIDECAR:
        return True
    if container.role is Role.INIT and exit_.code == 0:
        return False
    if exit_.reason != UNKNOWN_REASON:
        for rule in container.restart_rules:
            if (exit_.code in rule.codes) != rule.negated:
                if rule.restart:
                    return True
                break
    if container.restart_policy is RestartPolicy.ON_FAILURE:
        return exit_.code != 0
    return container.restart_policy is RestartPolicy.ALWAYS


@dataclass(frozen=True, slots=True)
class _Pod:
    """The workload's containers by role, each beside its state."""

    workload: Workload
    states: Mapping[str, ContainerState]
    inits: Sequence[Container]
    mains: Sequence[Container]
    ephemerals: Sequence[Container]
    kills: Mapping[str, Kill]

    @classmethod
    def of(cls, workload: Workload, observed: Observed | None, kills: Mapping[str, Kill]) -> _Pod:
        by_role: dict[Role, list[Container]] = {role: [] for role in Role}
        for container in workload.containers:
            role = Role.INIT if container.role is Role.SIDECAR else container.role
            by_role[role].append(container)
        states = {} if observed is None else {one.name: one for one in observed.containers}
        return cls(
            workload,
            states,
            by_role[Role.INIT],
            by_role[Role.MAIN],
            by_role[Role.EPHEMERAL],
            kills,
        )

    def ran(self, container: Container) -> bool:
        """Some run of it began, or is about to."""
        state = self.states.get(container.name)
        if state is None:
            return False
        return (
            not isinstance(state.state, Waiting)
            or state.restart > 0
            or state.previous is not None
            or bool(state.container_id)
        )

    def runs(self, container: Container) -> bool:
        state = self.states.get(container.name)
        return state is not None and isinstance(state.state, Running)

    def exit(self, container: Container) -> Exit | None:
        state = self.states.get(container.name)
        return state.state if state is not None and isinstance(state.state, Exit) else None

    def kill(self, container: Container) -> Kill | None:
        """Why a running container is to end by itself; None: it is not."""
        if (ordered := self.kills.get(container.name)) is not None:
            return ordered
        ran = self.states[container.name].image
        if ran and ran != container.image and container.role in (Role.MAIN, Role.SIDECAR):
            return kill_for(container, "definition changed", again=True)
        return None

    def returns(self, container: Container, ended: Exit) -> bool:
        """Whether a container that has ended runs again."""
        ordered = self.kills.get(container.name)
        return (ordered is not None and ordered.again) or should_restart(container, ended)

    def running(self) -> Iterator[Container]:
        return (one for one in self.workload.containers if self.runs(one))

    def initialized(self) -> bool:
        return any(self.ran(container) for container in self.mains)

    def natural_end(self) -> float | None:
        """When the pod's own work was over for good; None while it is not.

        Either an init container failed and may not run again, or every main container has ended
        and none may run again.
        """
        if not self.initialized():
            for container in self.inits:
                ended = self.exit(container)
                if (
                    ended is not None
                    and container.role is Role.INIT
                    and ended.code != 0
                    and not should_restart(container, ended)
                ):
                    return ended.finished_at
        ends = []
        for container in self.mains:
            ended = self.exit(container)
            if ended is None or self.returns(container, ended):
                return None
            ends.append(ended.finished_at)
        return max(ends, default=None)

    def succeeded(self) -> bool:
        """All of its own work ended well."""
        exits = [self.exit(container) for container in self.mains]
        return all(one is not None and one.code == 0 for one in exits)

    def default_waiting(self) -> Waiting:
        return Waiting("PodInitializing" if self.inits else "ContainerCreating")

    def waiting(self) -> dict[str, Waiting]:
        """What containers that never ran, or whose start is under way, wait for."""
        shown: dict[str, Waiting] = {}
        for container in self.workload.containers:
            state = self.states.get(container.name)
            if state is None:
                shown[container.name] = self.default_waiting()
            elif isinstance(state.state, Waiting):
                shown[container.name] = (
                    state.state if state.state.reason else self.default_waiting()
                )
        return shown


def _order(
    pod: _Pod, observed: Observed | None, now: float, stop: Stop | None, seen: float
) -> tuple[Stop | None, float | None]:
    """The order that holds now, and the deadline that is still to come.

    Work that was over before an order came is not touched by it: a pod that finished in time did
    not exceed its deadline.
    """
    workload, end = pod.workload, pod.natural_end()
    orders = [] if stop is None else [stop]
    later = None
    if workload.deadline is not None and workload.start_time is not None:
        due = workload.start_time + workload.deadline
        if due <= now:
            orders.append(Stop(due, workload.grace, DEADLINE_REASON, DEADLINE_MESSAGE))
        else:
            later = due
    if end is not None:
        orders = [one for one in orders if one.at < end or not one.reason]
    lost = observed is not None and (
        observed.failed or (observed.disrupted and not pod.succeeded())
    )
    if observed is not None and lost:
        reason = observed.reason or "Failed"
        orders.append(Stop(seen, workload.grace, reason, observed.message))
    if not orders:
        return None, later
    named = orders[-1] if lost else min(orders, key=lambda one: (one.at, not one.reason))
    if end is not None:
        # A clock that was set, or another host's, may have it in the future.
        orders.append(Stop(min(end, now), workload.grace))
    kill_at = min((one.at if one is stop else max(one.at, seen)) + one.grace for one in orders)
    return Stop(named.at, kill_at - named.at, named.reason, named.message), later


def _stopping(pod: _Pod, stop: Stop, now: float, since: float) -> Plan:
    kill_at = stop.at + stop.grace
    kill, wake = _kills(pod, kill_at, now)
    return Plan(
        kill=kill,
        ending=_ending(pod, kill_at),
        waiting=pod.waiting(),
        ended=not any(pod.running()),
        failed=bool(stop.reason),
        reason=stop.reason,
        message=stop.message,
        wake_at=wake,
        since=since,
    )


def _completing(pod: _Pod, kill_at: float, now: float, since: float) -> Plan:
    """Only sidecars and ephemeral containers may be left: they end within the pod's grace."""
    kill, wake = _kills(pod, kill_at, now)
    return Plan(
        kill=kill,
        ending=_ending(pod, kill_at),
        waiting=pod.waiting(),
        ended=not any(pod.running()),
        wake_at=wake,
        since=since,
    )


def _ending(pod: _Pod, kill_at: float) -> Mapping[str, float]:
    return {one.name: kill_at for one in pod.running()}


def _kills(
    pod: _Pod, kill_at: float, now: float
) -> tuple[tuple[tuple[str, float], ...], float | None]:
    """Everything at once but the sidecars: those wait for the main containers and for the
    sidecars behind them, for as long as the grace lasts."""
    left = max(kill_at - now, LEAST_GRACE)
    kills = [(one.name, left) for one in pod.running() if one.role is not Role.SIDECAR]
    blocked = any(pod.runs(one) for one in pod.mains) and now < kill_at
    waits = False
    for container in reversed(pod.inits):
        if container.role is not Role.SIDECAR or not pod.runs(container):
            continue
        if blocked:
            waits = True
        else:
            kills.append((container.name, left))
            blocked = now < kill_at
    return tuple(kills), kill_at if waits else None


@dataclass(slots=True)
class _Draft:
    """A plan in the making for a pod that goes on."""

    pod: _Pod
    now: float
    start: list[tuple[str, int]] = field(default_factory=list)
    crashing: dict[str, Waiting] = field(default_factory=dict)
    wake_at: list[float] = field(default_factory=list)

    def run(self, container: Container) -> None:
        """Wants this container to run: start it now, or when its back-off is over."""
        state = self.pod.states.get(container.name)
        if state is None:
            self.start.append((container.name, 0))
        elif isinstance(state.state, Waiting):
            # The backend knows of the run and has not begun it; asking again is harmless.
            self.start.append((container.name, state.restart))
        elif isinstance(state.state, Exit):
            self._again(container, state, state.state)

    def _again(self, container: Container, state: ContainerState, ended: Exit) -> None:
        wait = backoff_of_killed if container.name in self.pod.kills else backoff
        delay = wait(state.restart, ended, state.previous)
        if state.image and state.image != container.image:
            # The kubelet's key of a back-off has the image in it (GetBackoffKey).
            delay = 0.0
        due = ended.finished_at + delay
        if delay:
            # Also once it is over, until the next run has begun.
            message = backoff_message(self.pod.workload.identity, container.name, delay)
            self.crashing[container.name] = Waiting("CrashLoopBackOff", message)
        # The clock of the backend's host may be ahead.
        if due <= self.now or not delay:
            self.start.append((container.name, state.restart + 1))
        else:
            self.wake_at.append(due)


def _running(pod: _Pod, now: float, deadline: float | None) -> Plan:
    draft = _Draft(pod, now)
    for container in pod.ephemerals:
        if not pod.ran(container):
            draft.run(container)
    if _initialize(pod, draft):
        for container in pod.mains:
            ended = pod.exit(container)
            if ended is None or pod.returns(container, ended):
                draft.run(container)
    if deadline is not None:
        draft.wake_at.append(deadline)
    kills = {one.name: kill for one in pod.running() if (kill := pod.kill(one)) is not None}
    for container, due in _hard_stops(pod):
        if due <= now:
            words = f"Container {container.name} ran for as long as any container may"
            kills.setdefault(container.name, Kill(words))
        else:
            draft.wake_at.append(due)
    graces = {
        name: pod.workload.grace if kill.grace is None else kill.grace
        for name, kill in kills.items()
    }
    return Plan(
        start=tuple(draft.start),
        kill=tuple((name, max(grace, LEAST_GRACE)) for name, grace in graces.items()),
        ending={name: now + grace for name, grace in graces.items()},
        kills=kills,
        waiting={**pod.waiting(), **draft.crashing},
        wake_at=min(draft.wake_at, default=None),
    )


def _hard_stops(pod: _Pod) -> Iterator[tuple[Container, float]]:
    """When (epoch seconds) each running container has to end; a backend may see to it as well."""
    if pod.workload.hard_stop is None:
        return
    for container in pod.running():
        state = pod.states[container.name].state
        if isinstance(state, Running):
            yield container, state.started_at + pod.workload.hard_stop


def _initialize(pod: _Pod, draft: _Draft) -> bool:
    """Drives the init containers and sidecars; True when the main containers may run.

    The last one that ever ran is the gate: those before it were passed, and only sidecars among
    them are kept running. Once a main container ran, there is no gate.
    """
    if pod.initialized():
        for container in pod.inits:
            if container.role is Role.SIDECAR:
                draft.run(container)
        return True
    gate = max((at for at, one in enumerate(pod.inits) if pod.ran(one)), default=0)
    for container in pod.inits[:gate]:
        if container.role is Role.SIDECAR:
            draft.run(container)
    for container in pod.inits[gate:]:
        if not _passed(pod, container):
            draft.run(container)
            return False
    return True


def _passed(pod: _Pod, container: Container) -> bool:
    state = pod.states.get(container.name)
    if state is None:
        return False
    if container.role is Role.SIDECAR:
        return isinstance(state.state, Running) and state.started is not False
    return isinstance(state.state, Exit) and state.state.code == 0
