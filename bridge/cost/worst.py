"""The most that pods can cost: how long one may be billed, and how many there may be."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from bridge.adapter import Quote
from bridge.cost.money import over
from bridge.workload import Container, RestartPolicy, Role, Workload


@dataclass(frozen=True, slots=True)
class Extent:
    """How many pods one object makes."""

    pods: int | None = 1
    """At most, with every retry; None: without limit."""
    at_once: int = 1
    deadline: float | None = None
    """Seconds after which none of them runs any more; None: none is set."""
    endless: str = ""
    """Why there is no limit to the pods; empty where there is one."""


@dataclass(frozen=True, slots=True)
class Span:
    """How long one pod may run."""

    seconds: float | None
    """None: without limit."""
    words: str
    """What limits it, or that nothing does."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The most that something can cost."""

    dollars: Decimal | None
    """None: nobody can say."""
    words: str
    """What it was reckoned by, or why nobody can say."""


UNBOUNDED = "unbounded: no activeDeadlineSeconds"


def span(workload: Workload, max_run: float) -> Span:
    """How long a pod may run. `max_run`: seconds after which each container is stopped, whatever
    happens; one that is restarted then begins anew, so it limits only what never is."""
    limits = []
    if workload.deadline is not None:
        limits.append((workload.deadline, f"activeDeadlineSeconds {workload.deadline:g}"))
    if not any(map(_restarts, workload.containers)):
        # Init containers run one after the other, each for as long as any container may.
        inits = sum(one.role is Role.INIT for one in workload.containers)
        times = f"{inits + 1} times " if inits else ""
        limits.append((max_run * (inits + 1), f"{times}max_run {_time(max_run)}"))
    return Span(*min(limits)) if limits else Span(None, UNBOUNDED)


def _time(seconds: float) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{seconds:g} s" if rest else f"{hours:g} h"


def _restarts(one: Container) -> bool:
    """Whether a container can run again and keep its pod from ending: a sidecar ends with it."""
    if one.role not in (Role.INIT, Role.MAIN):
        return False
    return one.restart_policy is not RestartPolicy.NEVER or any(
        rule.restart for rule in one.restart_rules
    )


def worst(quote: Quote, extent: Extent, longest: Span, grace: float) -> Worst:
    """The most that all pods of one object can cost. `grace`: seconds that a pod which is stopped
    may take.

    Launches that never started, which a provider makes anew, are not in it.
    """
    if quote.hourly is None:
        return Worst(None, quote.words or "the price is not known")
    if extent.pods is None:
        return Worst(None, f"unbounded: {extent.endless}")
    slack = quote.around + grace
    limits = []
    if longest.seconds is not None:
        each = max(quote.least, longest.seconds + slack)
        limits.append((extent.pods * each, longest.words))
    if extent.deadline is not None:
        words = f"the Job's activeDeadlineSeconds {extent.deadline:g}"
        together = extent.at_once * extent.deadline + extent.pods * max(quote.least, slack)
        limits.append((together, words))
        limits.append((extent.pods * max(quote.least, extent.deadline + slack), words))
    if not limits:
        return Worst(None, longest.words)
    seconds, words = min(limits)
    return Worst(over(quote.hourly, seconds), words)
