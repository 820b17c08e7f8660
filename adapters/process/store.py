"""What is on disk, as a whole: making pods, reading what is true of them, removing them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapters.process import volumes
from adapters.process.keeper import files
from adapters.process.runs import Run
from bridge.errors import BridgeError, Invalid, NotFound, Unavailable
from bridge.workload import (
    ContainerState,
    Exit,
    Files,
    Identity,
    Observed,
    Role,
    Running,
    Workload,
)

_logger = logging.getLogger(__name__)

NOTIFY = "notify"
_STOPPED = "stopped"
_POD = "pod.json"
_NEW = ".new."
_GONE = ".gone."
_TRIES = 5
"""Times that a place for a new pod is looked for, while others remove what was left empty."""
_ADDRESS = ("127.0.0.1",)
"""Containers share the host's network, so this is where they meet."""
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


class Store:
    """The tree of all pods under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ended: dict[Path, tuple[tuple[int, int, int], Observed]] = {}
        self._exits: dict[tuple[Path, float], Exit] = {}
        """By run, and when its pod was accepted: a deleted pod may be made again."""
        self._warned: set[Path] = set()

    def open(self) -> None:
        """Makes the root, and removes what earlier providers left half removed. Unavailable;
        Invalid where others could have written there."""
        try:
            for folder in (self.root, self.root / NOTIFY):
                _make_private(folder)
                _require_private(folder)
                folder.chmod(0o700)
            for cluster in self._clusters():
                _sweep(cluster)
        except OSError as error:
            raise Unavailable(f"{error.filename or self.root}: {error.strerror}") from error

    def folder(self, identity: Identity) -> Path:
        """Where that pod is, or would be. Invalid where its names are none for a directory."""
        for name in (identity.cluster, identity.uid):
            if not _SAFE.fullmatch(name) or name == NOTIFY:
                raise Invalid(f"{name!r} cannot name a directory")
        return self.root / identity.cluster / f"{identity.uid}.{identity.attempt}"

    def create(self, workload: Workload) -> None:
        """Makes the pod's directory with its volumes, all at once; nothing where it exists."""
        folder = self.folder(workload.identity)
        if folder.exists():
            return
        fresh, lock = _draft(folder.parent)
        try:
            (fresh / "containers").mkdir(0o700)
            (fresh / "volumes").mkdir(0o700)
            group = volumes.group_of(workload)
            for volume in workload.volumes:
                _named(volume.name)
                volumes.make(fresh / "volumes" / volume.name, volume, group)
            (fresh / _POD).write_text(json.dumps(_record(workload, group)), encoding="utf-8")
            fresh.rename(folder)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            if not folder.exists():
                raise Unavailable(f"{error.filename}: {error.strerror}") from error
        except BridgeError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        finally:
            os.close(lock)

    def make_run(self, identity: Identity, container: str, restart: int) -> Run | None:
        """The directory for that run; None where it, or a later one, has started. NotFound."""
        folder = self.folder(identity)
        _named(container)
        if not (folder / _POD).exists():
            raise NotFound(f"no pod {identity.uid} attempt {identity.attempt}")
        runs = self.runs(folder).get(container, [])
        if any(one.restart >= restart and one.has_started() for one in runs):
            return None
        run = Run(folder, container, restart)
        run.path.mkdir(0o700, exist_ok=True)
        self._ended.pop(folder, None)
        for old in runs:
            if old.restart < restart - 1 and isinstance(old.state(), Exit):
                _remove_tree(old.path)
        return run

    def runs(self, folder: Path) -> dict[str, list[Run]]:
        """A pod's runs by container, the latest first."""
        found: dict[str, list[Run]] = {}
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(folder / "containers"):
                container, _, restart = name.rpartition(".")
                if container and restart.isdigit():
                    run = Run(folder, container, int(restart))
                    found.setdefault(container, []).append(run)
        for runs in found.values():
            runs.sort(key=lambda one: -one.restart)
        return found

    def pods(self) -> list[Observed]:
        """Every pod, ordered by cluster and UID."""
        found = [self._read(folder) for folder in self._folders()]
        pods = [one for one in found if one is not None]
        known = {self.folder(one.identity) for one in pods}
        self._forget(lambda folder: folder not in known)
        return pods

    def _forget(self, is_gone: Callable[[Path], bool]) -> None:
        # Other threads may be adding to both: so the names are copied first, and nothing is lost.
        for folder in list(self._ended):
            if is_gone(folder):
                self._ended.pop(folder, None)
        for path, accepted in list(self._exits):
            if is_gone(path.parent.parent):
                self._exits.pop((path, accepted), None)

    def read(self, pods: Iterable[str]) -> Iterator[Observed]:
        """Those of the pods (`<cluster>/<uid>.<attempt>`) that exist."""
        for pod in pods:
            cluster, _, name = pod.partition("/")
            if _SAFE.fullmatch(cluster) and _SAFE.fullmatch(name):
                observed = self._read(self.root / cluster / name)
                if observed is not None:
                    yield observed

    def _clusters(self) -> list[Path]:
        found = [
            Path(one.path)
            for one in os.scandir(self.root)
            if one.name != NOTIFY and not one.name.startswith(".") and one.is_dir()
        ]
        return sorted(found)

    def _folders(self) -> Iterator[Path]:
        for cluster in self._clusters():
            with contextlib.suppress(FileNotFoundError):
                for name in sorted(os.listdir(cluster)):
                    if not name.startswith("."):
                        yield cluster / name

    def _read(self, folder: Path) -> Observed | None:
        try:
            about = os.stat(folder / "containers")
            mark = (about.st_ino, about.st_mtime_ns, about.st_nlink)
            cached = self._ended.get(folder)
            if cached is not None and cached[0] == mark:
                return cached[1]
            observed = self._observe(folder)
        except (FileNotFoundError, NotADirectoryError) as error:
            if folder.exists():
                self._skip(folder, error)
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._skip(folder, error)
            return None
        if observed.ended and not self._is_starting(folder):
            self._ended[folder] = (mark, observed)
        return observed

    def _is_starting(self, folder: Path) -> bool:
        """Whether a run has its directory and no mark yet: the mark changes nothing of what says
        that an ended pod is as it was."""
        return any(run.state() is None for runs in self.runs(folder).values() for run in runs)

    def _skip(self, folder: Path, error: Exception) -> None:
        if folder not in self._warned:
            self._warned.add(folder)
            _logger.warning("%s is no pod's directory: skipped (%s)", folder, error)

    def _observe(self, folder: Path) -> Observed:
        record = _load(folder)
        identity = Identity(**record["identity"])
        if self.folder(identity) != folder:
            raise ValueError("it names another pod")
        accepted = float(record["accepted_at"])
        states = []
        runs = self.runs(folder)
        for name in record["containers"]:
            state = self._container(name, runs.pop(name, []), accepted)
            if state is not None:
                states.append(state)
        over = len(states) == len(record["containers"]) or (folder / _STOPPED).exists()
        for name in sorted(runs):
            # Ephemeral ones, which came later.
            state = self._container(name, runs[name], accepted)
            if state is not None:
                states.append(state)
        live = any(isinstance(one.state, Running) for one in states)
        return Observed(
            identity=identity,
            containers=tuple(states),
            ended=over and not live,
            pod_ips=_ADDRESS,
            host_ips=_ADDRESS,
            accepted_at=accepted,
        )

    def _container(self, name: str, runs: list[Run], accepted: float) -> ContainerState | None:
        started = [
            (run, state) for run in runs if (state := self._state(run, accepted)) is not None
        ]
        if not started:
            return None
        run, state = started[0]
        previous = started[1][1] if len(started) > 1 else None
        return ContainerState(
            name=name,
            state=state,
            restart=run.restart,
            previous=previous if isinstance(previous, Exit) else None,
            container_id=run.id,
        )

    def _state(self, run: Run, accepted: float) -> Running | Exit | None:
        key = (run.path, accepted)
        if key in self._exits:
            return self._exits[key]
        state = run.state()
        if isinstance(state, Exit):
            self._exits[key] = state
        return state

    def mark_stopped(self, folder: Path) -> bool:
        """Records that the whole pod was asked to end; False where there is no such pod."""
        return _mark(folder, _STOPPED)

    def mark_deleting(self, folder: Path) -> bool:
        """From here on nothing of the pod starts; False where there is no such pod."""
        return _mark(folder, files.DELETING)

    def is_deleting(self, folder: Path) -> bool:
        """Whether its deletion has begun."""
        return (folder / files.DELETING).exists()

    def settle(self, folder: Path) -> bool:
        """Kills what runs; True where nothing does any more."""
        settled = True
        for runs in self.runs(folder).values():
            for run in runs:
                if not run.is_free():
                    run.ask_to_end(0)
                    settled = False
                elif isinstance(run.state(), Running):
                    settled = False
        return settled

    def remove(self, folder: Path) -> None:
        """Removes a settled pod."""
        gone = folder.parent / f"{_GONE}{secrets.token_hex(8)}"
        try:
            folder.rename(gone)
        except FileNotFoundError:
            return
        self._forget(lambda one: one == folder)
        _remove_tree(gone)
        with suppress(OSError):
            # The last pod of its cluster; a pod that comes at this moment is made again.
            folder.parent.rmdir()

    def update_files(self, identity: Identity, changed: Iterable[Files]) -> None:
        """Replaces the files of volumes. NotFound."""
        folder = self.folder(identity)
        try:
            group = _load(folder).get("fs_group")
        except FileNotFoundError:
            raise NotFound(f"no pod {identity.uid} attempt {identity.attempt}") from None
        for volume in changed:
            _named(volume.name)
            place = folder / "volumes" / volume.name
            if not (place / "..data").is_symlink():
                raise NotFound(f"pod {identity.uid} has no volume {volume.name} of files")
            try:
                volumes.replace(place, volume, group)
            except OSError as error:
                raise Unavailable(f"{error.filename}: {error.strerror}") from error

    def drop_files(self, identity: Identity) -> None:
        """Removes the content of all volumes of files: Secrets lie in no file longer than a
        container may read them."""
        try:
            found = list((self.folder(identity) / "volumes").iterdir())
        except OSError:
            return
        for place in found:
            if (place / "..data").is_symlink():
                shutil.rmtree(place, ignore_errors=True)


def _make_private(folder: Path) -> None:
    """Makes a folder with all above it that is missing, whatever the umask allows others."""
    for place in (*reversed(folder.parents), folder):
        if not place.exists():
            place.mkdir(0o700, exist_ok=True)


def _require_private(folder: Path) -> None:
    about = folder.stat()
    if about.st_uid != os.geteuid():
        raise Invalid(f"{folder}: belongs to user {about.st_uid}, not to you: chown or remove it")
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        words = "other users can write to it, so what it holds may be theirs"
        raise Invalid(f"{folder}: {words}: chmod go-w it, or remove it")


def _named(name: str) -> None:
    if not _SAFE.fullmatch(name):
        raise Invalid(f"{name!r} cannot name a directory")


def _record(workload: Workload, group: int | None) -> dict[str, Any]:
    return {
        "identity": asdict(workload.identity),
        "accepted_at": time.time(),
        "containers": [one.name for one in workload.containers if one.role is not Role.EPHEMERAL],
        "fs_group": group,
    }


def _load(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / _POD).read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"{_POD} holds no object")
    return found


def _draft(cluster: Path) -> tuple[Path, int]:
    """A new directory for a pod that is being made, and the lock that says so. Unavailable."""
    error: OSError | None = None
    for _ in range(_TRIES):
        fresh = cluster / f"{_NEW}{secrets.token_hex(8)}"
        try:
            cluster.mkdir(0o700, exist_ok=True)
            fresh.mkdir(0o700)
            if (lock := _own(fresh)) is not None:
                return fresh, lock
        except FileNotFoundError as gone:
            # The directory above was empty, and somebody has just removed it.
            error = gone
        except OSError as failed:
            raise Unavailable(f"{failed.filename}: {failed.strerror}") from failed
    raise Unavailable(f"{cluster}: nothing can be made here") from error


def _own(folder: Path) -> int | None:
    """The lock of a directory that is being made; None where its maker, or a sweeper, has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(cluster: Path) -> None:
    """Removes what killed providers left half made or half removed."""
    with contextlib.suppress(FileNotFoundError):
        for folder in cluster.iterdir():
            if folder.name.startswith(_GONE):
                _remove_tree(folder)
            elif folder.name.startswith(_NEW):
                _remove_abandoned(folder)


def _remove_abandoned(folder: Path) -> None:
    try:
        lock = _own(folder)
    except FileNotFoundError:
        # It has just been finished.
        return
    if lock is not None:
        try:
            _remove_tree(folder)
        finally:
            os.close(lock)


def _mark(folder: Path, name: str) -> bool:
    try:
        (folder / name).touch(0o600)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Unavailable(f"{error.filename}: {error.strerror}") from error
    return True


def _remove_tree(folder: Path) -> None:
    """Removes a directory, also what its owner may not write to. Unavailable."""
    for _ in range(2):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except PermissionError:
            for place, below, _ in os.walk(folder):
                for name in (".", *below):
                    with contextlib.suppress(OSError):
                        os.chmod(f"{place}/{name}", stat.S_IRWXU, follow_symlinks=False)
        except OSError as error:
            raise Unavailable(f"{error.filename}: {error.strerror}") from error
        else:
            return
    if folder.exists():
        raise Unavailable(f"{folder} cannot be removed: permission denied")
