"""How a run is attended and watched to its end, and when it is forgotten."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from bridge.cli.attend import Manner, attend
from bridge.cli.view.base import BaseView
from bridge.cli.view.silent import SilentView
from bridge.cli.watch import watch
from bridge.cli.wiring import Target, delete_run
from bridge.errors import Unavailable
from bridge.local.control import ControlClient
from bridge.local.outcome import Outcome
from bridge.local.runs import Run, Runs
from bridge.local.session import Session
from bridge.local.store import Change
from bridge.pods import Manifest

TARGET = Target((), None, 10)
POD: Manifest = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox"}]},
}


class Quiet(SilentView):
    """Writes nothing, and opens nothing for that."""

    def __init__(self, run: str) -> None:
        BaseView.__init__(self, io.StringIO(), io.StringIO(), run, quiet=True)


def a_run(state: Path, *objects: Manifest) -> Run:
    run = Runs(state).create("one", objects, TARGET.remember(), 12.0)
    assert run.attend()
    return run


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """All that have attended to their end."""
    attending, found = Session.attend, []

    async def attended(self: Session) -> Outcome:
        outcome = await attending(self)
        found.append(self)
        return outcome

    monkeypatch.setattr(Session, "attend", attended)
    return found


async def test_a_deletion_that_breaks_off_forgets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Session) -> Outcome:
        raise Unavailable("the provider is gone")

    monkeypatch.setattr(Session, "attend", broken)
    run = a_run(tmp_path, POD)
    run.order_deletion()

    with pytest.raises(Unavailable):
        await attend(run, TARGET, Quiet(run.name), Manner())

    assert Runs(tmp_path).get("one").deleting, "the order stands"


async def test_an_order_that_comes_when_all_is_over_is_carried_out(
    tmp_path: Path, sessions: list[Session]
) -> None:
    run = a_run(tmp_path)

    class Late(Quiet):
        async def finish(self, closing: object) -> None:
            await super().finish(closing)
            run.order_deletion()

    await attend(run, TARGET, Late(run.name), Manner())

    assert [one.deleted for one in sessions] == [False, True]
    assert not run.exists


async def test_deletion_never_runs_anything_again(
    tmp_path: Path, sessions: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path, POD)
    # As if the folder had been taken away under its feet.
    monkeypatch.setattr(Run, "order_deletion", lambda _: None)

    await delete_run(run)

    assert [one.deleted for one in sessions] == [True]
    assert not sessions[0].store.removed
    assert not run.exists


@pytest.mark.slow
def test_who_may_not_attend_in_the_background_does_nothing_there(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path\n"
        "from bridge.cli.background import leave_to_background\n"
        "from bridge.errors import Unavailable\n"
        "reading, writing = os.pipe()\n"
        "try:\n"
        f"    log = Path({str(tmp_path / 'log')!r})\n"
        "    leave_to_background(log, lambda: os.write(writing, b'worked'), lambda: False)\n"
        "except Unavailable:\n"
        "    os.close(writing)\n"
        "    print(os.read(reading, 6))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "b''\n"


def of_a_job(number: int) -> Manifest:
    owner = {"kind": "Job", "name": "job", "uid": "j", "controller": True}
    metadata = {"name": f"job-{number}", "namespace": "default", "uid": str(number)}
    metadata |= {"creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [owner]}
    return {**POD, "metadata": metadata, "status": {"phase": "Succeeded"}}


@pytest.mark.parametrize("noted", [True, False])
async def test_half_of_what_an_attendant_knew_is_no_result(tmp_path: Path, noted: bool) -> None:
    run = Runs(tmp_path).create("one", [], TARGET.remember(), 12.0)
    job: Manifest = {"kind": "Job", "metadata": {"name": "job", "uid": "j"}, "spec": {}}
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    pods = [of_a_job(0), of_a_job(1)]
    if noted:
        run.record_end({"Job": [job], "Pod": pods, "Event": []})

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline():
            for kind, one in (("Job", job), ("Pod", pods[0])):
                said = {"type": "ADDED", "kind": kind, "object": one}
                writer.write(json.dumps(said).encode() + b"\n")
        writer.close()

    server = await asyncio.start_unix_server(die, run.control)
    view = Quiet(run.name)
    code = await watch(run, view, Manner(logs="none"))
    server.close()

    assert (code, set(view.model.pods)) == ((0, {"0", "1"}) if noted else (3, {"0"}))


async def told(run: Run, *lines: Manifest) -> tuple[int, Quiet]:
    """What comes of watching an attendant that says this and goes."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline():
            writer.writelines(json.dumps(one).encode() + b"\n" for one in lines)
        writer.close()

    server = await asyncio.start_unix_server(say, run.control)
    view = Quiet(run.name)
    code = await watch(run, view, Manner(logs="none"))
    server.close()
    return code, view


async def test_what_pods_answered_to_a_deletion_is_no_success(tmp_path: Path) -> None:
    run = Runs(tmp_path).create("one", [], TARGET.remember(), 12.0)
    ended = {**POD, "status": {"phase": "Succeeded"}}
    ended["metadata"] = {**POD["metadata"], "uid": "1"}
    lines: list[Manifest] = [
        {"type": "ADDED", "kind": "Pod", "object": ended},
        {"type": "SYNCED", "kind": "Run", "object": {}},
    ]
    assert (await told(run, *lines, {"over": True}))[0] == 0
    code, view = await told(run, *lines, {"over": True, "cut_short": True})
    assert (code, view.model.deleted) == (1, True)


async def test_another_run_of_the_same_name_is_not_the_one_that_was_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runs(tmp_path).create("one", [], TARGET.remember(), 12.0)
    job = {"kind": "Job", "metadata": {"name": "job", "uid": "j"}, "spec": {}}
    reads = ControlClient.changes

    async def late(client: ControlClient) -> AsyncIterator[Change]:
        """Whoever reads it was stopped meanwhile: the run is gone, and its name given again."""
        with suppress(Unavailable):
            async for one in reads(client):
                yield one
        run.remove()
        ended = {**job, "metadata": {"name": "job", "uid": "another"}}
        ended["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
        other = Runs(tmp_path).create("one", [], TARGET.remember(), 13.0)
        other.record_end({"Job": [ended], "Pod": [], "Event": []})
        raise Unavailable("it has gone")

    monkeypatch.setattr(ControlClient, "changes", late)
    code, view = await told(run, {"type": "ADDED", "kind": "Job", "object": job})
    assert (code, list(view.model.jobs)) == (3, ["j"])


async def test_a_deletion_that_was_ordered_before_is_told_by_who_carries_it_out(
    tmp_path: Path,
) -> None:
    run = a_run(tmp_path, POD)
    run.order_deletion()
    view = Quiet(run.name)
    assert await attend(run, TARGET, view, Manner()) == 1
    assert view.model.deleted
