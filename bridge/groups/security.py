"""Users and capabilities of containers where a cloud gives a container one user and one group, and
the helper takes the others by itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.workload import Container

_USUAL = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
    "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
"""What containers have by default (Docker's list)."""
_SWITCH = frozenset({"SETGID", "SETUID", "KILL"})
"""What the helper takes to become another user with more groups, and to end its processes."""


def switches(one: Container) -> bool:
    """Whether the helper has to begin as root: no cloud gives a container more groups."""
    own = one.security
    groups = own.supplemental_groups or own.fs_group is not None
    return bool(groups and own.run_as_user)


def user(one: Container, *, wrapped: bool) -> tuple[int | None, int | None]:
    """(user, group) of the container as it is launched; None: the image's own."""
    own = one.security
    if wrapped and switches(one):
        return 0, 0
    return (own.run_as_user, own.run_as_group) if own.run_as_user is not None else (None, None)


def capabilities(one: Container, *, wrapped: bool) -> tuple[Sequence[str], Sequence[str]]:
    """(those to add, those to drop), in Linux' own names without CAP_."""
    add = sorted({_name(name) for name in one.security.add_capabilities})
    drop = sorted({_name(name) for name in one.security.drop_capabilities})
    if wrapped and switches(one):
        every = _USUAL if "ALL" in drop else drop
        drop = [name for name in every if name not in _SWITCH]
    return add, drop


def _name(said: str) -> str:
    return said.upper().removeprefix("CAP_")
