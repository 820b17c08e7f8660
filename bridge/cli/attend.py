"""Attending a run: the session, its control socket, what people see of it, and signals.

A run belongs to nobody's terminal. The process that attends it is the one that was typed, or one of
its own in the background; whoever watches from elsewhere follows the same changes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bridge.agent.request import identity
from bridge.cli.follow import LogFollower
from bridge.cli.interruption import held
from bridge.cli.view.closing import gather
from bridge.cli.wiring import Target, provider_of
from bridge.local.control import ControlServer, short_path
from bridge.local.outcome import ExitCode, exit_code_of
from bridge.local.session import NODE, Session
from bridge.local.store import until
from bridge.rpc.v1 import provider_pb2 as pb

if TYPE_CHECKING:
    from bridge.agent.loop import ProviderNote
    from bridge.agent.provider import ProviderClient
    from bridge.cli.view import View
    from bridge.local.runs import Run
    from bridge.local.store import Change
    from bridge.pods import Manifest
    from bridge.provider.server import Server


@dataclass(frozen=True, slots=True)
class Manner:
    """How a run is to be seen and left."""

    logs: Literal["all", "failed", "none"] = "all"
    timeout: float | None = None
    """Seconds, after which the run is deleted."""
    junit: Path | None = None
    exit_code_from: str = ""
    """POD or POD/CONTAINER whose exit code is the command's."""
    forgets: bool = False
    """Whether the run is forgotten when it is over, as where it ran will be gone."""
    leaves: bool = False
    """Whether a signal only leaves: whoever came back to a run did not begin it."""


async def attend(
    run: Run,
    target: Target,
    view: View,
    manner: Manner,
    *,
    note: Callable[[ProviderNote], None] | None = None,
    beside: Callable[[Session], Coroutine[None, None, None]] | None = None,
) -> int:
    """Attends a run to its end; returns the exit code. The caller holds the run's lock.

    `note` hears of the provider instead of the view; `beside` goes on as long as the run does.
    """
    async with provider_of(target) as provider:
        session = Session(run, provider, note=note or view.note)
        offer = _Offer(run, provider)
        control = ControlServer(session, offer.start)
        await control.start()
        signals = _Signals(run.name, session.delete, view, leaves=manner.leaves)
        deadline = _Deadline(manner.timeout, session, view)
        showing = asyncio.create_task(
            show(
                session.store.changes(),
                session.over,
                view,
                provider=provider,
                run=run,
                manner=manner,
            )
        )
        accompanying = asyncio.create_task(beside(session)) if beside else None
        deleted = manner.forgets
        view.model.deleted = manner.forgets
        try:
            outcome = await session.attend()
            await showing
            code = int(outcome.code)
            cut_short = session.cut_short and not deadline.fired and signals.first is None
            if deadline.fired:
                code = int(ExitCode.TIMEOUT)
            elif signals.first is not None:
                code = 128 + signals.first
            elif cut_short:
                # Somebody else deleted it: what its pods answered to that is no success.
                code = int(ExitCode.FAILED)
            elif manner.exit_code_from:
                code = exit_code_of(manner.exit_code_from, session.store.pods.values(), code)
            view.model.deleted = view.model.deleted or cut_short
            await conclude(run, view, provider, manner, code, cut_short=cut_short)
            deleted = (
                deleted or session.deleted or (run.deleting and await _delete_rest(run, provider))
            )
        finally:
            ours = [task for task in (showing, accompanying) if task is not None]
            for task in ours:
                task.cancel()
            await asyncio.gather(*ours, return_exceptions=True)
            deadline.close()
            signals.close()
            await control.stop()
            await offer.stop()
            if deleted:
                run.remove()
            run.release()
    return code


async def _delete_rest(run: Run, provider: ProviderClient) -> bool:
    """Deletes a run whose deletion was ordered when it was over already; whether it is gone."""
    session = Session(run, provider)
    await session.attend()
    return session.deleted


async def show(
    changes: AsyncIterator[Change],
    over: asyncio.Event,
    view: View,
    *,
    provider: ProviderClient,
    run: Run,
    manner: Manner,
) -> None:
    """Feeds the view until the run is over and every log is printed to its last byte."""
    follower = LogFollower(
        provider,
        view.log,
        mode=manner.logs,
        cluster=run.wanted.uid,
        ended=view.log_ended,
        problem=view.say,
        room=view.room,
    )
    try:
        async with aclosing(until(changes, over)) as told:
            async for change in told:
                view.change(change)
                if change.kind == "Pod":
                    follower.change(change)
        await follower.drain()
    finally:
        await follower.close()


async def conclude(
    run: Run,
    view: View,
    provider: ProviderClient,
    manner: Manner,
    code: int,
    *,
    cut_short: bool = False,
) -> None:
    """The last words, and the report that was asked for. `cut_short` as in `Closing`."""

    async def tail(pod: Manifest, container: str, lines: int, previous: bool) -> bytes:
        return await read_log(provider, run, pod, container, lines=lines, previous=previous)

    ends = [pod.finished for pod in view.model.pods.values()]
    ended = time.time()
    if all(ends):
        # Kubernetes' times are whole seconds: the last end lies within the second after.
        ended = min(ended, max(filter(None, ends), default=ended) + 1)
    seconds = max(0.0, ended - run.wanted.created)
    await view.finish(await gather(view.model, run.name, code, seconds, tail, cut_short=cut_short))
    if manner.junit is not None:
        from bridge.cli.view import junit

        await junit.write(manner.junit, view.model, run.name, tail)


async def read_log(
    provider: ProviderClient,
    run: Run,
    pod: Manifest,
    container: str,
    *,
    lines: int,
    previous: bool,
) -> bytes:
    """The last lines of a container's log."""
    who = identity(run.wanted.uid, NODE, pod)
    request = pb.GetContainerLogsRequest(
        pod=who, container=container, tail_lines=lines, previous=previous
    )
    return b"".join([piece.content async for piece in provider.get_container_logs(request)])


class _Signals:
    """SIGINT and SIGTERM delete, a second one kills, a third leaves, or each leaves at once;
    SIGHUP only takes the terminal away. What came before counts as if it came now."""

    def __init__(
        self,
        name: str,
        on_delete: Callable[[float | None], None],
        view: View,
        *,
        leaves: bool = False,
    ) -> None:
        self._name = name
        self._on_delete = on_delete
        self._leaves = leaves
        self._view = view
        self._count = 0
        self.first: int | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        for came in held():
            if came == signal.SIGHUP:
                loop.call_soon(self._hang_up)
            else:
                loop.call_soon(self._stop, came)

    def _stop(self, number: int) -> None:
        if self._leaves:
            self._view.say(f"left; podbridge attach {self._name} comes back")
            self._view.close()
            os._exit(128 + number)
        self._count += 1
        if self.first is None:
            self.first = number
            self._view.say("stopping the run's pods; press Ctrl-C once more to kill them")
            self._on_delete(None)
        elif self._count == 2:
            self._view.say("killing the run's pods; once more leaves without waiting for them")
            self._on_delete(0.0)
        else:
            self._view.say(f"left; podbridge delete {self._name} goes on stopping its pods")
            self._view.close()
            os._exit(128 + number)

    def _hang_up(self) -> None:
        self._view.detach()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.close(null)

    def close(self) -> None:
        """Gives the signals back."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


class _Offer:
    """The run's provider for other processes, from the first that asks for it on: the helpers in
    its pods are connected to this one alone."""

    def __init__(self, run: Run, provider: ProviderClient) -> None:
        self._run = run
        self._provider = provider
        self._starting = asyncio.Lock()
        self._server: Server | None = None
        self._folder: int | None = None

    async def start(self) -> None:
        """Listens at `Run.provider`, where it does not yet. One at an address of its own is there
        for all already."""
        from bridge.provider.server import Server
        from bridge.provider.service import Provider

        if not isinstance(self._provider, Provider):
            return
        async with self._starting:
            if self._server is None:
                self._folder, path = short_path(self._run.provider)
                server = Server(self._provider, f"unix:{path}")
                await server.start()
                self._server = server

    async def stop(self) -> None:
        """Whoever is connected is let go."""
        if self._server is not None:
            await self._server.stop(0)
            self._run.provider.unlink(missing_ok=True)
        if self._folder is not None:
            os.close(self._folder)


class _Deadline:
    """`--timeout`: deletes the run when its time is over."""

    def __init__(self, seconds: float | None, session: Session, view: View) -> None:
        self._session, self._view = session, view
        self.fired = False
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._fire) if seconds is not None else None

    def _fire(self) -> None:
        self.fired = True
        self._view.say("the time given by --timeout is over: stopping the run's pods")
        self._session.delete()

    def close(self) -> None:
        """Takes the timer away."""
        if self._timer is not None:
            self._timer.cancel()
