"""What the helper is given: one payload for each call of it, as text that an environment can hold.

A payload is JSON, compressed, in pieces `version.index.count.digest.base64`, one a variable. It has
the key by which a pod's helpers know one another, a container's environment and the pod's files:
who may read it is for the backend that hands it over.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256

from bridge.backoff import FIRST_BACKOFF, LONGEST_BACKOFF, QUIET
from bridge.errors import Invalid, Violation
from bridge.workload import (
    Action,
    Container,
    ExecAction,
    Files,
    GrpcAction,
    HttpAction,
    Probe,
    Role,
    SleepAction,
    TcpAction,
    Workload,
)

VERSION = 2
VARIABLE = "PODBRIDGE_PAYLOAD_"
"""What the pieces' variables are called, with their number behind it."""
KEY_LENGTH = 32
"""Bytes of a pod's key, at least."""
PIECE = 24 * 1024
"""Characters of a piece: an environment file of ECS may have lines of 32 KiB."""
LARGEST = 16 * 1024 * 1024
"""Bytes of JSON that the helper takes."""
PROGRAM_FOLDER = "/podbridge"
"""Where containers have the volume with the helper's program: only `install` writes to it."""
FOLDER = "/podbridge-board"
"""Where all of a pod's containers have the volume by which its helpers tell one another."""
PEER_WAIT = 600.0
"""Seconds that a container waits for another's helper to begin: a large image takes minutes."""

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Where a pod's helpers find the provider, and how each knows the other. Texts in PEM."""

    address: str
    """`host:port`."""
    server_name: str
    """What the provider's certificate is for."""
    ca: str
    """Who signs the provider's certificate."""
    cert: str
    """The pod's own (`bridge.helper.keys`)."""
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tree:
    """Files below a folder, as they are to be there. `user` and `group` None: the helper's own.
    Without files it is the folder itself that is to be so."""

    root: str
    files: tuple[tuple[str, int, bytes], ...] = field(default=(), repr=False)
    """(path below the root, mode, content)."""
    folder_mode: int = 0o755
    user: int | None = None
    group: int | None = None
    atomic: bool = False
    """Its content is replaced at once, as the kubelet does it: the names below `root` are links
    through `..data`. What was there before goes."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for all payloads of one pod."""

    key: bytes = field(repr=False)
    folder: str = FOLDER
    """The board's."""
    program: str = PROGRAM_FOLDER
    """The helper's program's."""
    peer_wait: float = PEER_WAIT
    barrier: bool = True
    """Containers wait for one another before they end; False where the backend orders them."""
    record: bool = False
    """Each `run` writes a record of its own: for a pod without a `watch`."""
    address: str = ""
    """Where probes ask; empty: the container's own first address."""
    host_addresses: tuple[str, ...] = ()
    """What status.hostIPs means in the pod's environment; empty: its own addresses."""
    first_backoff: float = FIRST_BACKOFF
    longest_backoff: float = LONGEST_BACKOFF
    quiet: float = QUIET
    tunnel: Tunnel | None = None
    """None: no connection to the provider; what it would be asked for is not to be had."""


def tree(volume: Files, root: str, sub_path: str = "", *, fs_group: int | None = None) -> Tree:
    """A filled volume, or what is below `sub_path` of it, as it is to be at `root`.

    Where `sub_path` is a file, `root` is the place of that file. With an `fs_group` everything is
    that group's and it may read it, as the kubelet does (SetVolumeOwnership). A whole volume is
    replaced at once; what is mounted from below one is never replaced in Kubernetes.
    """
    readable = 0o440 if fs_group is not None else 0
    found = []
    for one in volume.files:
        if sub_path and one.path == sub_path:
            folder, _, name = root.rpartition("/")
            return Tree(folder or "/", ((name, one.mode | readable, one.content),), group=fs_group)
        below = one.path.removeprefix(f"{sub_path}/") if sub_path else one.path
        if not sub_path or one.path.startswith(f"{sub_path}/"):
            found.append((below, one.mode | readable, one.content))
    mode = 0o755 if fs_group is None else 0o2775
    return Tree(root, tuple(found), mode, group=fs_group, atomic=not sub_path)


def install_payload(workload: Workload, settings: Settings, trees: Sequence[Tree] = ()) -> Json:
    """For `install`: the files of the pod's shared volumes, and where its program is to be."""
    return _payload("install", workload, settings, trees) | {"program": settings.program}


def watch_payload(workload: Workload, settings: Settings) -> Json:
    """For `watch`."""
    return _payload("watch", workload, settings)


def run_payload(
    workload: Workload, name: str, settings: Settings, trees: Sequence[Tree] = ()
) -> Json:
    """For `run` around the container of that name. `trees` are files of this container alone.

    Raises KeyError where the workload has no such container, Invalid for what no helper can run.
    """
    container = workload.container(name)
    made = _payload("run", workload, settings, trees)
    made["container"] = _container(container, settings)
    return made


def encode(payload: Json, piece: int = PIECE) -> Mapping[str, str]:
    """A payload as environment variables of at most `piece` characters each. Raises Invalid."""
    text = json.dumps(payload, separators=(",", ":"), allow_nan=False).encode()
    if len(text) > LARGEST:
        raise _invalid("", f"{len(text)} bytes of files and environment are more than {LARGEST}")
    packed = zlib.compress(text, 9)
    digest = sha256(packed).hexdigest()[:32]
    # Four characters hold three bytes; the head of a piece takes at most 48.
    size = max(1, (piece - 48) // 4 * 3)
    parts = [packed[at : at + size] for at in range(0, len(packed), size)]
    return {
        f"{VARIABLE}{at}": f"{VERSION}.{at}.{len(parts)}.{digest}.{b64encode(part).decode()}"
        for at, part in enumerate(parts)
    }


def _payload(kind: str, workload: Workload, settings: Settings, trees: Sequence[Tree] = ()) -> Json:
    if len(settings.key) < KEY_LENGTH:
        raise ValueError(f"a key of {len(settings.key)} bytes is shorter than {KEY_LENGTH}")
    deadline = None
    if workload.deadline is not None and workload.start_time is not None:
        deadline = workload.start_time + workload.deadline
    return {
        "kind": kind,
        "folder": settings.folder,
        "key": b64encode(settings.key).decode(),
        "pod": {
            "uid": workload.identity.uid,
            "attempt": workload.identity.attempt,
            "containers": [
                {
                    "name": one.name,
                    "role": one.role.value,
                    "opens": one.post_start is not None,
                }
                for one in workload.containers
                if one.role is not Role.EPHEMERAL
            ],
            "grace": workload.grace,
            "deadline_at": deadline,
            "hard_stop": workload.hard_stop,
            "peer_wait": settings.peer_wait,
        },
        "trees": [tree_json(one) for one in trees],
        "tunnel": None if settings.tunnel is None else asdict(settings.tunnel),
    }


def tree_json(one: Tree) -> Json:
    """A tree as a helper takes it, in a payload or as an update."""
    return {
        "root": one.root,
        "atomic": one.atomic,
        "folder_mode": one.folder_mode,
        "user": one.user,
        "group": one.group,
        "files": [
            {"path": path, "mode": mode, "content": b64encode(content).decode()}
            for path, mode, content in one.files
        ],
    }


def _container(one: Container, settings: Settings) -> Json:
    groups = list(one.security.supplemental_groups)
    if one.security.fs_group is not None:
        groups.append(one.security.fs_group)
    if one.role is Role.EPHEMERAL:
        raise _invalid(one.name, "an ephemeral container comes to a pod that has begun")
    if one.security.run_as_non_root and one.security.run_as_user == 0:
        raise _invalid(f"{one.name}.securityContext.runAsUser", "0, and runAsNonRoot")
    return {
        "name": one.name,
        "role": one.role.value,
        "argv": [*one.command, *one.args],
        "env": [[variable.name, variable.value] for variable in one.env],
        "working_dir": one.working_dir,
        "user": one.security.run_as_user,
        "group": one.security.run_as_group,
        "groups": groups,
        "no_new_privileges": one.security.no_new_privileges,
        "restart_policy": one.restart_policy.value,
        "restart_rules": [
            {"restart": rule.restart, "codes": sorted(rule.codes), "negated": rule.negated}
            for rule in one.restart_rules
        ],
        "backoff": {
            "first": settings.first_backoff,
            "longest": settings.longest_backoff,
            "quiet": settings.quiet,
        },
        "message_path": one.termination_message_path,
        "logs_as_message": one.logs_as_message,
        "stop_signal": one.stop_signal,
        "stdin": one.stdin,
        "stdin_once": one.stdin_once,
        "tty": one.tty,
        "startup_probe": _probe(one.startup_probe),
        "liveness_probe": _probe(one.liveness_probe),
        "readiness_probe": _probe(one.readiness_probe),
        "post_start": _action(one.post_start),
        "pre_stop": _action(one.pre_stop),
        "address": settings.address,
        "host_addresses": list(settings.host_addresses),
        "barrier": settings.barrier,
        "record": settings.record,
    }


def _probe(probe: Probe | None) -> Json | None:
    if probe is None:
        return None
    return {
        "action": _action(probe.action),
        "initial_delay": probe.initial_delay,
        "period": probe.period,
        "timeout": probe.timeout,
        "success_threshold": probe.success_threshold,
        "failure_threshold": probe.failure_threshold,
        "grace": probe.grace,
    }


def _action(action: Action | None) -> Json | None:
    match action:
        case None:
            return None
        case ExecAction(command):
            return {"kind": "exec", "command": list(command)}
        case HttpAction(port, path, scheme, headers):
            pairs = [list(pair) for pair in headers]
            return {
                "kind": "http", "port": port, "path": path, "scheme": scheme, "headers": pairs,
            }  # fmt: skip
        case TcpAction(port):
            return {"kind": "tcp", "port": port}
        case GrpcAction(port, service):
            return {"kind": "grpc", "port": port, "service": service}
        case SleepAction(seconds):
            return {"kind": "sleep", "seconds": seconds}


def _invalid(field_: str, message: str) -> Invalid:
    return Invalid(violations=[Violation(field_, message)])
