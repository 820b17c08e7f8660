"""The order for a pod: what was asked of ECS, kept in S3 for as long as there is such a pod.

It is written before the task is asked for. So whoever comes after a crash knows who the pod is
(tasks lose their tags when they stop, and `startedBy` has no room), with which token the task was
asked for, and that a pod whose order is gone was deleted. Pure.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace

from adapters.fargate import names
from adapters.fargate.names import Json
from bridge.errors import Invalid
from bridge.groups.pods import Made, mark
from bridge.workload import Identity

_VERSION = 1
_LATER = frozenset({"execute_command"})
"""Fields that orders of that version have not always had."""
SAFE = 50 * 60.0
"""Seconds for which a token is sure to be known: it is forgotten an hour after its task's end."""


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for."""

    identity: Identity
    accepted_at: float
    containers: tuple[Made, ...]
    definition: str
    """The task definition's ARN."""
    overrides: tuple[Json, ...] = ()
    spot: bool = False
    task_role: str = ""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    hard_stop: float | None = None
    """Seconds after its start at which a pod without the helper is ended; None: the helper does."""
    fs_group: int | None = None
    payloads: tuple[str, ...] = ()
    """Objects with its environment."""
    logins: tuple[str, ...] = ()
    """Secrets with a registry's login."""
    nonce: str = ""
    """Tells it from another order for the same pod, before or after it."""
    token: str = ""
    """The client token of the newest RunTask."""
    asked_at: float = 0.0
    """When that was first asked for."""
    subnet: int = 0
    """Which of the subnets was asked for."""
    dead: tuple[str, ...] = ()
    """IDs of tasks that ended before anything of the pod ran."""
    execute_command: bool = False
    """Whether commands may be started in it through ECS."""
    end: Json | None = None
    """The event of its task's end, for when ECS has forgotten the task."""

    def again(
        self, token: str, now: float, *, subnet: int = 0, dead: str = "", definition: str = ""
    ) -> Order:
        """The same, to be asked for anew. Only where what was asked for before is known to be
        nothing: it was refused, or `dead` is what became of it. `definition`: one that says the
        same."""
        gone = (*self.dead, dead) if dead else self.dead
        return replace(
            self,
            token=token,
            asked_at=now,
            subnet=subnet,
            dead=gone,
            definition=definition or self.definition,
            end=None,
        )

    def is_lost(self, now: float) -> bool:
        """Whether its token may be forgotten, so that a task that nobody finds is given up."""
        return now > self.asked_at + SAFE


def dump(order: Order) -> bytes:
    """The object's content."""
    said = {"version": _VERSION, **asdict(order)}
    for one in fields(order):
        # What a provider of an earlier version does not know is told where it matters alone.
        if one.name in _LATER and said[one.name] == one.default:
            del said[one.name]
    return json.dumps(said, separators=(",", ":")).encode()


def load(content: bytes) -> Order:
    """The order. Raises Invalid for what is none."""
    try:
        said = json.loads(content)
        if said.pop("version") != _VERSION:
            raise ValueError("it is of another version")
        said["identity"] = Identity(**said["identity"])
        said["containers"] = tuple(Made(**one) for one in said["containers"])
        for name in ("overrides", "subnets", "security_groups", "payloads", "logins", "dead"):
            said[name] = tuple(said[name])
        # A provider of a later version may say more.
        known = {one.name for one in fields(Order)}
        return Order(**{name: value for name, value in said.items() if name in known})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"an order makes no sense: {error!r}") from None


def started_by(order: Order, owner: str) -> str:
    """What its tasks have as `startedBy`."""
    return names.started_by(owner, mark(order.identity.key), order.nonce)


def request(order: Order, owner: str, settings: Json) -> Json:
    """RunTask's arguments. `settings`: what is the same for all pods of a backend. The same order
    gives the same arguments, as its token demands."""
    provider = "FARGATE_SPOT" if order.spot else "FARGATE"
    overrides: Json = {"containerOverrides": list(order.overrides)} if order.overrides else {}
    if order.task_role:
        overrides["taskRoleArn"] = order.task_role
    made = {
        **{name: value for name, value in settings.items() if name != "public_ip"},
        "taskDefinition": order.definition,
        "capacityProviderStrategy": [{"capacityProvider": provider, "weight": 1}],
        "clientToken": order.token,
        "startedBy": started_by(order, owner),
        "networkConfiguration": {
            "awsvpcConfiguration": {
                "subnets": [order.subnets[order.subnet % len(order.subnets)]],
                "securityGroups": list(order.security_groups),
                "assignPublicIp": settings["public_ip"],
            }
        },
        "count": 1,
    }
    if order.execute_command:
        made["enableExecuteCommand"] = True
    return made | ({"overrides": overrides} if overrides else {})
