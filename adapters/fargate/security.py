"""Users, groups and capabilities of containers, as far as Fargate has them. Pure."""

from __future__ import annotations

from adapters.fargate.names import Json
from bridge.workload import Container

ADDABLE = frozenset({"SYS_PTRACE"})
"""The capabilities that Fargate lets one add."""
_USUAL = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
    "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
"""What containers have by default (Docker's list)."""
_SWITCH = frozenset({"SETGID", "SETUID", "KILL"})
"""What the helper takes to become another user with more groups, and to end its processes."""


def switches(one: Container) -> bool:
    """Whether the helper has to begin as root: ECS gives a container no groups but its first."""
    own = one.security
    groups = own.supplemental_groups or own.fs_group is not None
    return bool(groups and own.run_as_user)


def user(one: Container, *, wrapped: bool) -> str:
    """`user` of the container definition; empty: the image's own."""
    own = one.security
    if wrapped and switches(one):
        return "0:0"
    if own.run_as_user is None:
        return ""
    return (
        str(own.run_as_user)
        if own.run_as_group is None
        else f"{own.run_as_user}:{own.run_as_group}"
    )


def capabilities(one: Container, *, wrapped: bool) -> Json:
    """`linuxParameters.capabilities` of the container definition; empty: the usual ones."""
    add = sorted({_name(name) for name in one.security.add_capabilities})
    drop = sorted({_name(name) for name in one.security.drop_capabilities})
    if wrapped and switches(one):
        every = _USUAL if "ALL" in drop else drop
        drop = [name for name in every if name not in _SWITCH]
    return {key: names for key, names in (("add", add), ("drop", drop)) if names}


def _name(said: str) -> str:
    return said.upper().removeprefix("CAP_")
