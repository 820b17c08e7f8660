"""Runs on disk, their locks, and the control socket."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import Invalid, NotFound, Unavailable
from bridge.local import control
from bridge.local.control import ControlClient, ControlServer
from bridge.local.outcome import ExitCode, exit_code_of, judge
from bridge.local.runs import Run, Runs
from bridge.local.store import Store
from bridge.pods import Manifest

OBJECTS: list[Manifest] = [
    {"kind": "Secret", "metadata": {"name": "s", "namespace": "d"}, "data": {"k": "czNjcjN0"}}
]


def a_run(tmp_path: Path, name: str = "one") -> Run:
    return Runs(tmp_path).create(name, OBJECTS, {"on": "process"}, 12.0)


def test_a_run_is_whole_private_and_found_again(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    again = Runs(tmp_path).get("one")
    assert again.wanted == run.wanted
    assert again.wanted.digest == run.wanted.digest
    assert [one.name for one in Runs(tmp_path)] == ["one"]
    assert (run.folder / "run.json").stat().st_mode & 0o077 == 0
    assert run.folder.parent.stat().st_mode & 0o077 == 0
    assert "s3cr3t" not in repr(run.wanted)
    assert "czNjcjN0" not in repr(run.wanted)


def test_names_are_checked_taken_once_and_unknown_ones_named(tmp_path: Path) -> None:
    a_run(tmp_path)
    with pytest.raises(Invalid, match="exists already"):
        a_run(tmp_path)
    for name in ("", "A", "a/b", "../x", "-a", "a" * 64, ".one"):
        with pytest.raises(Invalid, match="--name"):
            a_run(tmp_path, name)
        assert Runs(tmp_path).find(name) is None
    with pytest.raises(NotFound, match="there are: one"):
        Runs(tmp_path).get("two")
    assert os.listdir(tmp_path / "runs") == ["one"]


@pytest.mark.parametrize("place", [".", "runs", "runs/one"])
def test_what_others_can_write_to_is_refused(tmp_path: Path, place: str) -> None:
    state = tmp_path / "state"
    a_run(state)
    (state / place).chmod(0o770)
    with pytest.raises(Invalid, match=f"{(state / place)}: other users can write .* chmod go-w"):
        Runs(state).get("one")
    with pytest.raises(Invalid, match="other users can write"):
        list(Runs(state))
    (state / place).chmod(0o700)
    assert Runs(state).find("one") is not None


def test_what_belongs_to_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(Invalid, match=r"belongs to user .* chown or remove it"):
        Runs(tmp_path).find("one")


def test_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        a_run(tmp_path / "local" / "podbridge")
    finally:
        os.umask(before)
    assert Runs(tmp_path / "local" / "podbridge").find("one") is not None


@pytest.mark.slow
def test_one_process_attends_and_its_death_is_seen(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    assert run.attendant is None
    code = (
        "import sys; from pathlib import Path; from bridge.local.runs import Runs;"
        f"run = Runs(Path({str(tmp_path)!r})).get('one'); print(run.attend(), flush=True);"
        "sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdin is not None
    assert other.stdout.readline().strip() == "True"
    assert run.attendant == other.pid
    assert not run.attend()
    other.kill()
    other.wait()
    assert run.attendant is None
    assert run.attend()
    assert run.attendant == os.getpid()
    run.release()
    other.stdin.close()
    other.stdout.close()


def test_a_run_is_forgotten_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = a_run(tmp_path), Runs(tmp_path).get("one")
    other.order_deletion()
    assert run.attend()
    removing, seen = os.rmdir, []

    def slow(path: Any, **more: Any) -> None:
        # All that the folder held is gone by now, its lock too.
        seen.append(other.attend())
        other.order_deletion()
        removing(path, **more)

    monkeypatch.setattr(os, "rmdir", slow)
    run.remove()
    assert seen == [False]
    assert os.listdir(tmp_path / "runs") == []
    assert not other.exists


def test_the_lock_of_a_forgotten_run_is_worth_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = a_run(tmp_path), Runs(tmp_path).get("one")
    assert run.attend()
    locking = fcntl.fcntl

    def late(handle: int, command: int, lock: bytes) -> bytes:
        # The other one has opened the lock and not taken it yet.
        monkeypatch.setattr(fcntl, "fcntl", locking)
        run.remove()
        run.release()
        a_run(tmp_path)
        return locking(handle, command, lock)

    monkeypatch.setattr(fcntl, "fcntl", late)
    assert not other.attend()
    assert not other.exists, "its name belongs to another run now"
    assert not other.attend()
    again = Runs(tmp_path).get("one")
    assert again.attend()
    again.release()


def test_a_look_at_the_attendant_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = a_run(tmp_path), Runs(tmp_path).get("one")
    asking = fcntl.fcntl

    def meanwhile(handle: int, command: int, lock: bytes) -> bytes:
        # While the one looks, the other begins to attend the run.
        monkeypatch.setattr(fcntl, "fcntl", asking)
        assert other.attend()
        return asking(handle, command, lock)

    assert other.attend()
    other.release()
    monkeypatch.setattr(fcntl, "fcntl", meanwhile)
    assert run.attendant == os.getpid()
    assert not run.attend()
    other.release()
    assert run.attendant is None


def test_a_run_half_removed_by_a_killed_process_is_swept(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        run.remove()
    assert list(Runs(tmp_path)) == []
    assert len(os.listdir(tmp_path / "runs")) == 1
    run.sweep()
    assert os.listdir(tmp_path / "runs") == []


def test_what_nobody_sweeps_goes_with_the_next_run(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "sweep", lambda _: None)
        run.remove()
    assert len(os.listdir(tmp_path / "runs")) == 1
    a_run(tmp_path, "two")
    assert os.listdir(tmp_path / "runs") == ["two"]


def test_ended_pods_are_remembered_even_after_a_cut_line(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    assert run.ended() == {}
    metadata = {"uid": "u1", "annotations": {"why": "because"}}
    run.record_ended({"metadata": metadata, "status": {"phase": "Failed"}})
    with (run.folder / "ended.jsonl").open("a") as handle:
        handle.write('{"uid": "u2", "sta')
    assert run.ended()["u1"]["status"] == {"phase": "Failed"}
    assert run.ended()["u1"]["annotations"] == {"why": "because"}
    assert list(run.ended()) == ["u1"]


class FakeSession:
    """What the control socket needs of a session."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.store = Store(run.wanted.uid, "n")
        self.cut_short = False
        self.over = asyncio.Event()
        self.graces: list[float | None] = []

    def delete(self, grace: float | None = None) -> None:
        self.graces.append(grace)


async def test_control_tells_changes_and_takes_deletions(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    run = a_run(deep)
    session = FakeSession(run)
    session.store.put_job({"kind": "Job", "metadata": {"name": "j", "uid": "1"}})
    offered = []

    async def offer() -> None:
        offered.append(True)

    server = ControlServer(session, offer)
    await server.start()
    assert run.control.stat().st_mode & 0o777 == 0o600
    client = ControlClient(run.control)
    seen = []
    async for change in client.changes():
        seen.append((change.type, change.kind))
        if change.type == "SYNCED":
            session.store.put_job({"kind": "Job", "metadata": {"name": "j", "uid": "1"}})
        if change.type == "MODIFIED":
            session.over.set()
    assert seen == [("ADDED", "Job"), ("SYNCED", "Run"), ("MODIFIED", "Job")]
    await client.delete(3.0)
    assert session.graces == [3.0]
    await client.provide()
    assert offered == [True]
    reader, writer = await client._open()
    writer.write(b"nonsense\n")
    await writer.drain()
    assert await reader.read() == b""
    writer.close()
    await server.stop()
    with pytest.raises(Unavailable):
        await client.delete()


def crowded(tmp_path: Path) -> tuple[FakeSession, ControlServer]:
    """A run with more to tell than a socket holds."""
    session = FakeSession(a_run(tmp_path))
    for number in range(300):
        words = {"name": f"j{number}", "uid": str(number), "annotations": {"a": "x" * 10_000}}
        session.store.put_job({"kind": "Job", "metadata": words})

    async def offer() -> None:
        raise AssertionError

    return session, ControlServer(session, offer)


async def test_who_comes_as_a_run_ends_is_told_all_of_it(tmp_path: Path) -> None:
    session, server = crowded(tmp_path)
    await server.start()
    told, stopping = [], None
    async for change in ControlClient(session.run.control).changes():
        told.append(change.type)
        if stopping is None:
            session.over.set()
            stopping = asyncio.create_task(server.stop())
            await asyncio.sleep(0)
    assert told == ["ADDED"] * 300 + ["SYNCED"]
    assert stopping is not None
    await stopping


async def silent(session: FakeSession) -> asyncio.StreamWriter:
    """A watcher that has read one line and reads no more."""
    reader, writer = await ControlClient(session.run.control)._open()
    writer.write(b'{"op": "watch"}\n')
    await reader.readline()
    return writer


async def test_who_reads_no_more_holds_up_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "LAST_WORDS", 0.05)
    session, server = crowded(tmp_path)
    await server.start()
    watcher = await silent(session)
    session.over.set()
    await server.stop()
    watcher.close()


async def test_an_attendant_that_fails_waits_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "LAST_WORDS", 3600.0)
    session, server = crowded(tmp_path)
    await server.start()
    watcher = await silent(session)
    async with asyncio.timeout(60):
        await server.stop()
    watcher.close()


async def test_an_attendant_that_goes_in_mid_sentence_has_not_told_the_end(tmp_path: Path) -> None:
    run = a_run(tmp_path)

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"type": "ADDED", "kind": "Job", "object": {}}\n{"type": "ADD')
        writer.close()

    server = await asyncio.start_unix_server(die, run.control)
    changes = ControlClient(run.control).changes()
    assert (await anext(changes)).type == "ADDED"
    with pytest.raises(Unavailable, match="has gone"):
        await anext(changes)
    server.close()


def pod(name: str, phase: str, code: int | None = None, owner: str = "") -> Manifest:
    states = [] if code is None else [{"name": "c", "state": {"terminated": {"exitCode": code}}}]
    owners = [{"kind": "Job", "name": owner, "uid": "1"}] if owner else []
    return {
        "metadata": {"name": name, "ownerReferences": owners},
        "status": {"phase": phase, "containerStatuses": states},
    }


def test_the_outcome_follows_jobs_and_bare_pods() -> None:
    failed: Manifest = {
        "metadata": {"name": "j"},
        "spec": {},
        "status": {"conditions": [{"type": "Failed", "status": "True"}]},
    }
    waiting: Manifest = {"metadata": {"name": "j"}, "spec": {}, "status": {}}
    suspended: Manifest = {"metadata": {"name": "j"}, "spec": {"suspend": True}, "status": {}}
    assert judge([], [pod("a", "Succeeded")]).code is ExitCode.SUCCEEDED
    assert judge([], [pod("a", "Failed")]).failed == ("pod/a",)
    assert judge([failed], [pod("a", "Failed", owner="j")]).failed == ("job/j",)
    assert not judge([waiting], []).over
    assert not judge([], [pod("a", "Running")]).over
    assert judge([suspended], []).over


def test_an_exit_code_can_be_asked_from_a_container() -> None:
    pods = [pod("a", "Failed", 7), pod("b", "Failed", 9, owner="j"), pod("c", "Pending")]
    assert exit_code_of("a", pods, 1) == 7
    assert exit_code_of("a/c", pods, 1) == 7
    assert exit_code_of("a/other", pods, 1) == 1
    assert exit_code_of("j", pods, 1) == 9
    assert exit_code_of("nobody", pods, 1) == 1
    assert json.dumps(exit_code_of("c", pods, 1)) == "1"
