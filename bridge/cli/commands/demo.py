"""`podbridge demo`: see it work in ten seconds."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.errors import Unavailable

if TYPE_CHECKING:
    from bridge.agent.loop import ProviderNote
    from bridge.cli.view import View
    from bridge.local.session import Session

KILL_AFTER = 4
"""Shards that are done before the provider is killed: by then others run."""
OWN_FILE = "podbridge run -f YOUR-FILE.yaml --on process"


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(2, 600),
    default=8.0,
    show_default=True,
    help="About how long it takes.",
)
def command(seconds: float) -> int:
    """See it work: a word count over 16 pods, a failure, and a provider that is killed.

    Runs plain processes of this machine; needs no account, no cluster, no configuration. Nothing is
    left behind.
    """
    from bridge.cli.demo import demo_folder
    from bridge.cli.wiring import PROCESS_WARNING

    click.echo(PROCESS_WARNING, err=True)
    folder = demo_folder()
    with tempfile.TemporaryDirectory(prefix="podbridge-demo-") as place:
        provider = _ProviderProcess(Path(place) / "provider.sock")
        try:
            code = asyncio.run(_demo(seconds, folder, provider))
        finally:
            provider.stop()
            shutil.rmtree(folder, ignore_errors=True)
    click.echo(f"\nYour own file: {OWN_FILE}")
    return code


class _ProviderProcess:
    """A provider as a process of its own, which can be killed."""

    def __init__(self, socket: Path) -> None:
        self.address = f"unix://{socket}"
        self._process = self._start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def kill_and_restart(self) -> None:
        """SIGKILL: it cannot tidy up or say goodbye."""
        self._process.kill()
        self._process.wait()
        self._process = self._start()

    def stop(self) -> None:
        """Ends it in order."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "podbridge", "provider", "--on", "process"]
        process = subprocess.Popen(
            [*words, "--listen", self.address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for the run, which needs the provider to stop its pods.
            start_new_session=True,
        )
        assert process.stdout is not None
        if not process.stdout.readline():
            raise Unavailable("the demo's provider did not start: podbridge provider says why")
        process.stdout.close()
        return process


async def _demo(seconds: float, folder: Path, provider: _ProviderProcess) -> int:
    from bridge.cli.attend import Manner, attend
    from bridge.cli.demo import demo_objects
    from bridge.cli.view import make_view
    from bridge.cli.wiring import Target, delete_run
    from bridge.local.manifests import Raw, admit
    from bridge.local.runs import Runs
    from bridge.provider.service import MAX_RUN

    objects = admit(Raw(one, "demo") for one in demo_objects(seconds, folder))
    target = Target((), provider.address, MAX_RUN)
    name = f"demo-{secrets.token_hex(3)}"
    run = Runs().create(name, [one.obj for one in objects], target.remember(), time.time())
    run.attend()
    view = make_view("text", sys.stdout, sys.stderr, run.name)
    trouble = _Trouble(provider, view)
    try:
        code = await attend(run, target, view, Manner(), note=trouble.note, beside=trouble.make)
        if run.attend():
            await delete_run(run)
            run.release()
        return code
    finally:
        view.close()


class _Trouble:
    """Kills the provider in mid-run, and says in one line what became of the pods."""

    def __init__(self, provider: _ProviderProcess, view: View) -> None:
        self._provider = provider
        self._view = view
        self._killed = 0

    async def make(self, session: Session) -> None:
        """Waits for some shards to be done, then kills."""
        async for change in session.store.changes():
            done = change.object.get("status", {}).get("succeeded", 0)
            if change.kind == "Job" and done >= KILL_AFTER:
                self._killed = self._provider.pid
                await asyncio.to_thread(self._provider.kill_and_restart)
                return

    def note(self, note: ProviderNote) -> None:
        """`lost` is our own doing; `back` is the line to see."""
        if note.what == "back":
            self._view.say(
                f">>> provider killed in mid-run (SIGKILL, pid {self._killed}); a new one (pid"
                f" {self._provider.pid}) adopted all {note.adopted} running pods"
            )
