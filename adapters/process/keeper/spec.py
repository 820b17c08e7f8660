"""What the provider tells a keeper. Read by type checkers only."""

from __future__ import annotations

from typing import TypedDict


class MountSpec(TypedDict):
    """One mount of a volume."""

    source: str
    """The volume's directory, or a file or directory of the host."""
    path: str
    sub_path: str
    read_only: bool


class RunSpec(TypedDict):
    """One run of one container."""

    run: str
    """The run's directory, `<pod>/containers/<name>.<restart>`; it exists."""
    notify: str
    """The directory of the sockets that are told of changes."""
    pod: str
    """What they are told: `<cluster>/<uid>.<attempt>`."""
    argv: list[str]
    environment: dict[str, str]
    stdin: bool
    """It has a standard input that can be attached to; else it reads /dev/null."""
    stdin_once: bool
    """That input ends with the first attachment that had it."""
    tty: bool
    """All of its standard streams are a terminal."""
    cwd: str
    mounts: list[MountSpec]
    namespaces: bool
    hostname: str
    message_path: str
    """Empty: no termination message."""
    logs_as_message: bool
    stop_signal: int
    hard_stop: float | None
    """Seconds after the start at which it is ended even if nobody asks."""
    grace: float
    """Seconds between the stop signal and the kill, for that stop."""
    user: int | None
    group: int | None
    groups: list[int] | None
    """Supplementary groups; None: as they are."""
    no_new_privileges: bool
    drop_capabilities: list[int]
    read_only_root: bool


class Request(TypedDict):
    """What a channel is asked for. Comes in a file in memory, beside the channel's own socket."""

    command: list[str]
    """To run in the container; empty: to attach to the container's own process."""
    stdin: bool
    tty: bool
    patience: float
    """Seconds for which an attachment that reads nothing may hold up the container's output."""
