"""Chooses backends for a pod: which can run it, which have room, in the operator's order. Pure.

A backend on which nothing real runs, or nothing is isolated, is never what a pod falls back to:
it is taken only where its name was said, or where there is no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bridge import quantity
from bridge.errors import Invalid, Unsupported, Violation
from bridge.pods import Manifest
from bridge.provider.capabilities import Assessment
from bridge.workload import Resources

ANNOTATION = "podbridge.io/backend"
"""Names or types of backends, with commas: where this pod may run."""
PROCESS = "process"

_PLACE = f"metadata.annotations[{ANNOTATION}]"


@dataclass(frozen=True, slots=True)
class Place:
    """One configured backend. `limits` and `used` by resource name: pods, cpu in millicores,
    memory in bytes; a name without a limit is unbounded."""

    name: str
    type: str
    limits: Mapping[str, int] = field(default_factory=dict)
    used: Mapping[str, int] = field(default_factory=dict)
    simulated: bool = False
    """Nothing real runs there."""

    @property
    def by_name_only(self) -> bool:
        """Whether it is never chosen silently among others."""
        return self.type == PROCESS or self.simulated


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a pod can run, in the operator's order; at least one of both kinds is there."""

    ready: tuple[str, ...] = ()
    """Backends that have room now."""
    waiting: tuple[tuple[str, str], ...] = ()
    """(backend, why the pod waits for it) where there is no room now."""

    @property
    def names(self) -> tuple[str, ...]:
        """All candidates: those with room, then those to wait for."""
        return self.ready + tuple(name for name, _ in self.waiting)


def wanted(manifest: Manifest) -> tuple[str, ...]:
    """The names or types that the pod's annotation asks for; empty: any."""
    annotations = (manifest.get("metadata") or {}).get("annotations") or {}
    return split(annotations.get(ANNOTATION) or "")


def split(text: str) -> tuple[str, ...]:
    """`a, b` as ("a", "b"), each once."""
    return tuple(dict.fromkeys(part for one in text.split(",") if (part := one.strip())))


def eligible(
    places: Sequence[Place], names: Sequence[str] = (), source: str = _PLACE
) -> tuple[Place, ...]:
    """The backends that a pod may run on at all, in the operator's order.

    `names` restricts them: a name, or a type that exactly one backend has. `source` is where they
    were said, for messages (the annotation, or `--on`). Raises Invalid.
    """
    if not names:
        return _unnamed(places)
    chosen: set[str] = set()
    violations = []
    for name in names:
        exact = [place.name for place in places if place.name == name]
        found = exact or [place.name for place in places if place.type == name]
        if len(found) == 1:
            chosen.add(found[0])
        else:
            violations.append(Violation(source, _not_one(name, found, places)))
    if violations:
        raise Invalid(violations=violations)
    return tuple(place for place in places if place.name in chosen)


def _not_one(name: str, found: Sequence[str], places: Sequence[Place]) -> str:
    if found:
        return f'found type "{name}", which {len(found)} backends have: name one of {_list(found)}'
    from bridge.config import nearest  # noqa: PLC0415 - only a mistake pays for it

    known = list(dict.fromkeys([p.name for p in places] + [p.type for p in places]))
    near = nearest(name, known)
    hint = f'; did you mean "{near}"?' if near else ""
    allowed = _list(known) if known else "nothing, as no backend is configured"
    return f'found backend "{name}"; allowed: {allowed}{hint}'


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def _unnamed(places: Sequence[Place]) -> tuple[Place, ...]:
    if not places:
        raise Invalid("no backend is configured")
    if len(places) == 1:
        return tuple(places)
    # Simulated ones among themselves are no fallback from anything real.
    if all(place.simulated for place in places):
        return tuple(place for place in places if place.type != PROCESS) or tuple(places)
    free = tuple(place for place in places if not place.by_name_only)
    if not free:
        names = _list([place.name for place in places])
        raise Invalid(
            violations=[
                Violation(_PLACE, f"missing; none of these is chosen without its name: {names}")
            ]
        )
    return free


def candidates(
    places: Sequence[Place],
    assessments: Mapping[str, Assessment],
    size: Resources,
) -> Placement:
    """Those of `places` (as `eligible` gave them) that can run a pod of this size.

    `assessments` by backend's name. Raises one Unsupported that says of each backend why not,
    field by field, where none can.
    """
    ready: list[str] = []
    waiting: list[tuple[str, str]] = []
    refusals: list[Violation] = []
    for place in places:
        violations = (*assessments[place.name].violations, *_too_big(place, size))
        if violations:
            refusals += [Violation(one.field, one.message, place.name) for one in violations]
        elif lacking := no_room(place, size):
            waiting.append((place.name, lacking))
        else:
            ready.append(place.name)
    if not ready and not waiting:
        raise Unsupported(_none(places, refusals), violations=refusals)
    return Placement(tuple(ready), tuple(waiting))


def _none(places: Sequence[Place], refusals: Sequence[Violation]) -> str:
    words = "; ".join(map(str, refusals))
    if len(places) == 1:
        return f"the backend cannot run this pod: {words}"
    return f"none of {len(places)} backends can run this pod: {words}"


def _too_big(place: Place, size: Resources) -> list[Violation]:
    return [
        Violation(
            f"spec.containers[].resources.requests[{name}]",
            f"{_shown(name, amount)} in all; the backend has {_shown(name, limit)}",
        )
        for name, limit in place.limits.items()
        if (amount := asked(size, name)) > limit
    ]


def no_room(place: Place, size: Resources) -> str:
    """What there is no room for now, in words; empty where the pod fits."""
    for name, limit in place.limits.items():
        used = place.used.get(name, 0)
        if used + asked(size, name) > limit:
            of = f"{_shown(name, used)} of {_shown(name, limit)}"
            what = "a place" if name == "pods" else name
            return f"waiting for {what} on {place.name}: {of}{' pods' * (name == 'pods')}"
    return ""


def asked(size: Resources, name: str) -> int:
    """How much of a resource, by its name in `Place.limits`, one pod of this size takes."""
    return 1 if name == "pods" else size.requests.get(name, 0)


def _shown(name: str, amount: int) -> str:
    if name == "cpu":
        return quantity.format_cpu(amount)
    return quantity.format_bytes(amount) if name == "memory" else str(amount)
