"""The adapter: the store, the zygote, the notices and the logs, put together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from adapters.process import capabilities, connections
from adapters.process.channels import ProcessChannel, not_running, open_channel
from adapters.process.check import check, is_read_only, numbers
from adapters.process.connections import Connection
from adapters.process.environment import environment, group_of, stop_signal
from adapters.process.keeper import files
from adapters.process.keeper.spec import Request, RunSpec
from adapters.process.logs import Reader
from adapters.process.notices import Listener, Notices
from adapters.process.options import Options
from adapters.process.runs import Run
from adapters.process.stats import usage
from adapters.process.store import NOTIFY, Store
from adapters.process.zygote import Isolation, Zygote
from bridge.adapter import LogOptions, Rate, Support, Usage
from bridge.errors import Ambiguous, Invalid, NotFound, Unavailable, Violation
from bridge.workload import (
    Container,
    Exit,
    Files,
    HostPath,
    Identity,
    Observed,
    Running,
    Workload,
)

_ERRORS = "keepers.err"
_FIRST_LOOK = 0.002
"""Seconds: what a killed container takes to end when nothing holds it up."""
_LAST_LOOK = 0.1
_FOLLOW = 0.1
"""Seconds between looks at a log that is followed: a person's idea of at once. The end of the run
is told by its keeper."""
_DEEP = 10
"""Every so many looks it is made sure that the keeper still lives."""
_LISTENS = 2.0
"""Seconds that a keeper may take from its lock to its socket."""
_STALLED = 10.0
"""Seconds for which an attachment may hold up its container without reading anything."""


class Adapter:
    """Plain host processes (see the package)."""

    type: ClassVar[str] = "process"
    simulated: ClassVar[bool] = False
    capabilities: ClassVar[Mapping[str, Support]] = capabilities.TABLE
    rates: ClassVar[Mapping[str, Rate]] = {}

    def __init__(self, name: str, options: Options | None = None) -> None:
        self.name = name
        self._options = options or Options()
        root = self._options.place()
        self._store = Store(root)
        self._notices = Notices(root / NOTIFY)
        self._zygote = Zygote(root / _ERRORS)
        self._isolation: Isolation | None = None

    async def open(self) -> None:
        """Makes the root where it is missing, and asks what this machine allows. Unavailable."""
        await asyncio.to_thread(self._store.open)
        try:
            self._notices.open()
            self._isolation = await self._zygote.open()
        except BaseException:
            # Also where this is cancelled: nobody closes what never was open.
            await self.close()
            raise

    async def close(self) -> None:
        """Lets go of sockets and the zygote. What runs goes on running."""
        self._notices.close()
        await self._zygote.close()

    def check(self, workload: Workload) -> Sequence[Violation]:
        """What this host cannot do of it."""
        return check(workload, self._machine(), self._options.path)

    def _machine(self) -> Isolation:
        if self._isolation is None:
            raise Unavailable("the process backend is not open")
        return self._isolation

    async def run(self, workload: Workload) -> None:
        """Makes the pod's directory with its volumes. Starts nothing. Invalid, Unavailable."""
        if self._store.is_deleting(self._store.folder(workload.identity)):
            await self.delete(workload.identity)
        await asyncio.to_thread(self._store.create, workload)

    async def list(self) -> Sequence[Observed]:
        """All pods of all clusters under the root."""
        try:
            return await asyncio.to_thread(self._store.pods)
        except OSError as error:
            raise Unavailable(f"{error.filename}: {error.strerror}") from error

    async def start(self, workload: Workload, container: str, restart: int) -> None:
        """Starts that run, unless it or a later one has started. NotFound, Unavailable."""
        try:
            one = workload.container(container)
        except KeyError:
            raise NotFound(f"no container {container}") from None
        try:
            run = self._store.make_run(workload.identity, container, restart)
        except OSError as error:
            raise Unavailable(f"{error.filename}: {error.strerror}") from error
        if run is None:
            return
        if await self._zygote.start(self._spec(workload, one, run)) == "gone":
            raise NotFound(f"no pod {workload.identity.uid}")

    def _spec(self, workload: Workload, container: Container, run: Run) -> RunSpec:
        folder = self._store.folder(workload.identity)
        security, machine = container.security, self._machine()
        hosts = {one.name: one.path for one in workload.volumes if isinstance(one, HostPath)}
        groups = {*security.supplemental_groups}
        if security.fs_group is not None:
            groups.add(security.fs_group)
        group = security.run_as_group
        switches = machine.any_user and (security.run_as_user is not None or bool(groups))
        return RunSpec(
            run=str(run.path),
            notify=str(self._store.root / NOTIFY),
            pod=f"{workload.identity.cluster}/{folder.name}",
            argv=[*container.command, *container.args],
            environment=environment(workload, container, self._options.path),
            stdin=container.stdin,
            stdin_once=container.stdin_once,
            tty=container.tty,
            cwd=container.working_dir or "/",
            mounts=[
                {
                    "source": hosts.get(mount.volume, str(folder / "volumes" / mount.volume)),
                    "path": mount.path,
                    "sub_path": mount.sub_path,
                    "read_only": is_read_only(workload, mount),
                }
                for mount in container.mounts
                if machine.namespaces
            ],
            namespaces=bool(machine.namespaces),
            hostname=workload.hostname,
            message_path=container.termination_message_path,
            logs_as_message=container.logs_as_message,
            stop_signal=stop_signal(container.stop_signal),
            hard_stop=workload.hard_stop,
            grace=workload.grace,
            user=security.run_as_user if machine.any_user else None,
            group=(group if group is not None else group_of(security.run_as_user))
            if machine.any_user
            else None,
            groups=sorted(groups) if switches else None,
            no_new_privileges=security.no_new_privileges,
            drop_capabilities=numbers(security.drop_capabilities),
            read_only_root=security.read_only_root,
        )

    async def stop(self, identity: Identity, grace: float) -> None:
        """Asks every container's keeper to end it."""
        folder = self._store.folder(identity)
        if not self._store.mark_stopped(folder):
            return
        runs = [run for runs in self._store.runs(folder).values() for run in runs]
        await asyncio.gather(*(self._end(run, grace) for run in runs))

    async def kill(self, identity: Identity, container: str, grace: float) -> None:
        """Asks the container's keeper to end its latest run."""
        runs = self._store.runs(self._store.folder(identity)).get(container, [])
        await asyncio.gather(*(self._end(run, grace) for run in runs[:1]))

    async def _end(self, run: Run, grace: float) -> None:
        try:
            async with asyncio.timeout(_LISTENS):
                while run.has_started() and not (run.path / files.EXIT).exists():
                    if run.ask_to_end(grace):
                        return
                    # Its keeper is dead, which looking at it finds out, or about to listen.
                    if isinstance(await asyncio.to_thread(run.state), Exit):
                        return
                    await asyncio.sleep(_FIRST_LOOK)
        except TimeoutError:
            raise Ambiguous(f"{run.id} does not listen") from None

    async def stop_sandbox(self, identity: Identity) -> None:
        """The pod has ended: what it was given as files goes, its logs stay."""
        await asyncio.to_thread(self._store.drop_files, identity)

    async def delete(self, identity: Identity) -> None:
        """Kills what runs, waits until it has ended, and removes the directory. Unavailable."""
        folder = self._store.folder(identity)
        if not self._store.mark_deleting(folder):
            return
        pause = _FIRST_LOOK
        while not await asyncio.to_thread(self._store.settle, folder):
            await asyncio.sleep(pause)
            pause = min(_LAST_LOOK, pause * 2)
        await asyncio.to_thread(self._store.remove, folder)

    async def events(self) -> AsyncIterator[Observed]:
        """Pods as their containers start and end."""
        with self._notices.listen() as listener:
            while pods := await listener.take():
                for observed in await asyncio.to_thread(lambda: list(self._store.read(pods))):
                    yield observed

    async def update_files(self, identity: Identity, volumes: Sequence[Files]) -> None:
        """Replaces the files of these volumes. NotFound, Unavailable."""
        await asyncio.to_thread(self._store.update_files, identity, volumes)

    async def logs(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        """The log of the latest run, or of the one before it. NotFound."""
        run = self._logged(identity, container, 1 if options.previous else 0)
        descriptor = _open(run.path / files.LOG)
        try:
            pod = "/".join(run.path.parts[-4:-2])
            with self._notices.listen(pod) as listener:
                reader = Reader(descriptor, options)
                for look in itertools.count(1):
                    over = not options.follow or await self._is_over(run, look % _DEEP == 0)
                    for piece in reader.read():
                        yield piece
                    if over or reader.full:
                        return
                    await _pause(listener)
        finally:
            os.close(descriptor)

    async def exec(
        self, identity: Identity, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ProcessChannel:
        """A command with the container's own view, user and environment. NotFound, Invalid,
        Unavailable."""
        if not command:
            raise Invalid("the command is empty")
        request = Request(command=list(command), stdin=stdin, tty=tty, patience=_STALLED)
        return await open_channel(self._latest(identity, container), request)

    async def attach(self, identity: Identity, container: str, *, stdin: bool) -> ProcessChannel:
        """What the container's own process writes from now on, and its input where it has one.

        An attachment that falls behind slows the container down; one that reads nothing for 10 s
        is cut off (Unavailable). NotFound, Unavailable.
        """
        request = Request(command=[], stdin=stdin, tty=False, patience=_STALLED)
        return await open_channel(self._latest(identity, container), request)

    def _latest(self, identity: Identity, container: str) -> Run:
        for run in self._store.runs(self._store.folder(identity)).get(container, []):
            # A directory without a mark is that of a run that has yet to start.
            if run.has_started():
                return run
        raise not_running(container)

    async def dial(self, identity: Identity, port: int, *, inside: bool) -> Connection:
        """A connection to that port of this host, where pods share the network. NotFound: nothing
        of the pod runs; Unavailable."""
        folder = self._store.folder(identity)
        name = f"{identity.cluster}/{folder.name}"
        found = await asyncio.to_thread(lambda: list(self._store.read([name])))
        if not any(isinstance(one.state, Running) for pod in found for one in pod.containers):
            # Whoever listens there now has nothing to do with the pod.
            raise NotFound(f"nothing of pod {identity.uid} runs")
        return await connections.dial(port)

    async def stats(self, identities: Sequence[Identity]) -> Mapping[str, Sequence[Usage]]:
        """Of the containers that run: one look at the host's processes for all of them."""
        return await asyncio.to_thread(usage, self._store, identities)

    def _logged(self, identity: Identity, container: str, back: int) -> Run:
        runs = self._store.runs(self._store.folder(identity)).get(container, [])
        logged = [run for run in runs if (run.path / files.LOG).exists()]
        if len(logged) <= back:
            what = "previous run" if back else "run"
            raise NotFound(f"no {what} of container {container} in pod {identity.uid}")
        return logged[back]

    async def _is_over(self, run: Run, deep: bool) -> bool:
        if (run.path / files.EXIT).exists():
            return True
        if not deep:
            return False
        # None: its directory was removed, so nothing more comes.
        state = await asyncio.to_thread(run.state)
        return state is None or isinstance(state, Exit)


async def _pause(listener: Listener) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FOLLOW):
            await listener.take()


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"no log {path.parent.name}") from None
