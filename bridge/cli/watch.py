"""Watching a run that another process attends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from bridge.cli.attend import Manner, conclude, show
from bridge.cli.interruption import held
from bridge.cli.wiring import onlooker_of, synced, target_of
from bridge.errors import Unavailable
from bridge.local.control import ControlClient
from bridge.local.outcome import ExitCode, judge
from bridge.local.store import Change

if TYPE_CHECKING:
    from bridge.agent.provider import ProviderClient
    from bridge.cli.view import View
    from bridge.local.runs import Run

_LOOK = 0.02
"""Seconds between two looks at whether a process that attends a run listens yet."""
LEFT = 130
"""The exit code of whoever stops watching by Ctrl-C, as shells have it for SIGINT."""


async def watch(run: Run, view: View, manner: Manner) -> int:
    """Shows a run until it is over; returns its exit code. Ctrl-C only stops watching.

    Logs are read from the backends, from their first line on: nothing is lost between two watches.
    """
    client = ControlClient(run.control)
    async with onlooker_of(target_of(run)) as provider:
        await synced(provider, run.wanted.uid)
        # It has only just begun to attend the run: nothing tells when it listens.
        while run.attendant is not None and not await client.listens():  # noqa: ASYNC110 - see above
            await asyncio.sleep(_LOOK)
        left = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, left.set)
        if held():
            left.set()
        showing = asyncio.create_task(
            show(
                _changes(run, client),
                asyncio.Event(),
                view,
                provider=provider,
                run=run,
                manner=manner,
            )
        )
        leaving = asyncio.create_task(left.wait())
        try:
            async with asyncio.timeout(manner.timeout):
                await asyncio.wait([showing, leaving], return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            view.say(f"the time is over; the run goes on: podbridge attach {run.name}")
            return int(ExitCode.TIMEOUT)
        finally:
            leaving.cancel()
            if not showing.done():
                showing.cancel()
            await asyncio.gather(showing, leaving, return_exceptions=True)
        if left.is_set():
            view.say(f"left; the run goes on: podbridge attach {run.name} comes back")
            return LEFT
        showing.result()
        return await _result(run, view, provider, manner, cut_short=client.cut_short)


async def _changes(run: Run, client: ControlClient) -> AsyncIterator[Change]:
    """What the attendant tells; where it went before it had told all, what it noted of the end."""
    try:
        async with aclosing(client.changes()) as told:
            async for change in told:
                yield change
    except Unavailable:
        if not run.exists or (end := run.end()) is None:
            return
        for kind in ("Job", "Pod"):
            for one in end[kind]:
                yield Change("MODIFIED", kind, one)
        yield Change("SYNCED", "Run", {})


async def _result(
    run: Run, view: View, provider: ProviderClient, manner: Manner, *, cut_short: bool
) -> int:
    model = view.model
    if cut_short:
        # As for who attends it: what its pods answered to that is no success.
        model.deleted = True
        await conclude(run, view, provider, manner, int(ExitCode.FAILED), cut_short=True)
        return int(ExitCode.FAILED)
    jobs = [job.manifest for job in model.jobs.values()]
    pods = [pod.manifest for pod in model.pods.values()]
    outcome = judge(jobs, pods)
    if not (outcome.over and model.synced):
        resumes = f"is no longer attended: podbridge attach {run.name} resumes it"
        view.say(f"run {run.name} {resumes if run.exists else 'was deleted'}")
        return int(ExitCode.COULD_NOT_RUN)
    await conclude(run, view, provider, manner, int(outcome.code))
    return int(outcome.code)
