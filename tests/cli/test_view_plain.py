from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from view_kit import (
    SYNCED,
    T0,
    Clock,
    a_failed_run,
    a_job,
    a_pod,
    added,
    bytes_of,
    ended,
    modified,
    running,
    stream,
    text_of,
    waiting,
)

from bridge.agent.loop import ProviderNote
from bridge.cli.view import make_view
from bridge.cli.view.closing import gather
from bridge.cli.view.github import GitHubView
from bridge.cli.view.json import JsonView
from bridge.cli.view.output import Output
from bridge.cli.view.plain import PlainView
from bridge.cli.view.terminal import TerminalView
from bridge.local.store import Change
from bridge.pods import Manifest


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Plain:
    """A plain view, its clock and its streams."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.out, self.err, self.clock = stream(), stream(), Clock()
        self.view = PlainView(self.out, self.err, "wordcount", clock=self.clock, quiet=quiet)
        self.view.change(SYNCED)

    def at(self, seconds: float, *objects: Manifest) -> None:
        self.clock.now = T0 + seconds
        for one in objects:
            self.view.change(modified(one))

    @property
    def said(self) -> list[str]:
        return text_of(self.err).splitlines()


def test_a_job_from_start_to_end() -> None:
    plain, job = Plain(), "wordcount"
    plain.at(0, a_job(), a_pod("w-0", job=job, index=0), a_pod("w-1", job=job, index=1))
    plain.at(0.5, a_pod("w-0", running(), job=job, index=0))
    plain.at(0.7, a_pod("w-1", running(), job=job, index=1))
    plain.at(3, a_pod("w-0", ended(0), job=job, index=0))
    plain.at(3.1, a_pod("w-1", ended(3, 3), job=job, index=1))
    plain.at(5.5, a_pod("w-2", running(), job=job, index=2))
    plain.at(13, a_pod("w-1b", running(), job=job, index=1, serial=1))
    plain.at(14, a_pod("w-1b", ended(0), job=job, index=1, serial=1))
    plain.at(15, a_pod("w-2", ended(0), job=job, index=2))
    plain.at(15, a_job(ended_as=("Complete", "CompletionsReached", "ok"), succeeded=3))
    assert plain.said == [
        "22:13:20 job/wordcount 0/3 done",
        "22:13:23 job/wordcount 1/3 done, 1 running",
        "22:13:23 pod/w-1 failed: exit code 3",
        "22:13:25 job/wordcount 1/3 done, 1 running, 1 waiting (back-off 8s), 1 failed",
        "22:13:33 pod/w-1b retries index 1 (attempt 2)",
        "22:13:33 job/wordcount 1/3 done, 2 running, 1 retried",
        "22:13:35 job/wordcount 3/3 done, 1 retried",
        "22:13:35 job/wordcount succeeded: 3/3 done, 1 retried",
    ]
    assert bytes_of(plain.out) == b""


def test_what_was_held_back_is_said_when_it_is_due() -> None:
    plain = Plain()
    plain.at(0, a_job())
    plain.at(1, a_pod("a", running(), job="wordcount", index=0))
    assert len(plain.said) == 1
    plain.clock.now = T0 + 2
    plain.view.tick()
    plain.view.tick()
    assert plain.said[1:] == ["22:13:22 job/wordcount 0/3 done, 1 running"]


def test_the_same_wait_of_many_pods_is_said_once() -> None:
    plain = Plain()
    plain.at(0, a_job())
    for at in range(3):
        pull = waiting("ErrImagePull", "no such\nimage")
        plain.at(0, a_pod(f"w-{at}", pull, job="wordcount", index=at))
    words = [line for line in plain.said if "waits" in line]
    assert words == [
        "22:13:20 pod/w-0 waits: the image could not be pulled (ErrImagePull): no such image"
    ]


def test_texts_of_others_are_never_obeyed_by_a_terminal() -> None:
    plain = Plain()
    plain.at(0, a_pod("a", waiting("ErrImagePull", "no\x1b[2J image")), a_pod("b"))
    plain.view.note(ProviderNote("lost", "x\x1b[H"))
    plain.view.say("y\x07")
    assert "\x1b" not in "".join(plain.said)
    assert "no^[[2J image" in "".join(plain.said)
    assert plain.said[-1] == "y^G"


def test_restarts_notes_and_warnings_are_said() -> None:
    plain = Plain()
    plain.at(0, a_pod("a"), a_pod("b"))
    plain.at(0, a_pod("a", running()), a_pod("b", running(), backend=""))
    crash = waiting("CrashLoopBackOff", "back-off 10s")
    plain.at(1, a_pod("a", crash, "Running", last=ended(1)))
    plain.at(2, a_pod("a", running(2), last=ended(1), restarts=1))
    plain.view.note(ProviderNote("lost", "connection refused"))
    plain.view.note(ProviderNote("back", adopted=12))
    for reason in ("FieldApproximated", "FieldApproximated", "BackOff"):
        event = {
            "kind": "Event",
            "involvedObject": {"uid": "uid-a"},
            "type": "Warning",
            "reason": reason,
            "message": "spec.priority: ignored",
        }
        plain.view.change(added(event))
    plain.at(3, a_pod("b", ended(0, 3), backend=""))
    assert [line[9:] for line in plain.said] == [
        "pod/a running on process",
        "pod/b running",
        "pod/a restarted (1) after exit code 1",
        "provider lost: connection refused; pods run on",
        "provider back: adopted 12 pods",
        "pod/a FieldApproximated: spec.priority: ignored",
        "pod/b succeeded in 3 s",
    ]


def test_nothing_of_what_was_before_is_told_as_news() -> None:
    out, err = stream(), stream()
    view = PlainView(out, err, "r", clock=Clock())
    for one in a_failed_run():
        view.change(added(one))
    view.change(SYNCED)
    assert text_of(err) == ""


def test_a_single_container_has_stdout_to_itself() -> None:
    plain = Plain()
    pod = a_pod("x", running())
    plain.at(0, pod)
    plain.view.log(pod, "main", b"\x00\xff one\n")
    plain.view.log(pod, "main", b"no newline")
    plain.at(2, a_pod("x", ended()))
    assert bytes_of(plain.out) == b"\x00\xff one\nno newline"
    assert plain.said == []


def test_logs_of_several_have_prefixes() -> None:
    plain = Plain()
    one, two = a_pod("a", running()), a_pod("b", containers={"x": running(), "y": running()})
    plain.at(0, one, two)
    plain.view.log(one, "main", b"1\n\n2\n")
    plain.view.log(two, "y", b"last")
    assert bytes_of(plain.out) == b"a | 1\na | \na | 2\nb/y | last\n"


async def test_quiet_says_only_why_it_failed() -> None:
    plain = Plain(quiet=True)
    plain.at(0, *a_failed_run())
    await plain.view.finish(await gather(plain.view.model, "wordcount", 1, 13.0))
    assert "22:13:20 pod/wordcount-1-bbbbb failed: exit code 3" in plain.said
    assert "  podbridge logs wordcount wordcount-2-ccccc" in plain.said
    assert not any("POD" in line or "0/3" in line for line in plain.said)


@pytest.mark.parametrize(
    ("environ", "terminal", "expected"),
    [
        ({"TERM": "xterm"}, True, TerminalView),
        ({"TERM": "xterm"}, False, PlainView),
        ({"TERM": "dumb"}, True, PlainView),
        ({"TERM": "xterm", "CI": "true"}, True, PlainView),
        ({"TERM": "xterm", "GITHUB_ACTIONS": "true"}, True, GitHubView),
    ],
)
def test_the_view_that_fits(environ: dict[str, str], terminal: bool, expected: type) -> None:
    out, err = stream(), stream()
    for one in (out, err):
        one.isatty = lambda: terminal
    assert type(make_view("text", out, err, "r", environ=environ)) is expected
    assert type(make_view("json", out, err, "r", environ=environ)) is JsonView


def pipe() -> tuple[int, IO[str]]:
    """A pipe: where it is read, and where it is written."""
    reader, writer = os.pipe()
    return reader, os.fdopen(writer, "w")


async def test_a_reader_that_pauses_stops_nobody() -> None:
    reader, writer = pipe()
    output = Output()
    data = os.urandom(3 << 20)
    output.write(writer, data)
    room = asyncio.ensure_future(output.room())
    await asyncio.sleep(0)
    assert not room.done()
    got = bytearray()
    while len(got) < len(data):
        got += await asyncio.to_thread(os.read, reader, 1 << 20)
    await room
    await output.flushed()
    assert bytes(got) == data
    writer.close()
    os.close(reader)


async def test_a_reader_that_is_gone_is_no_error() -> None:
    reader, writer = pipe()
    os.close(reader)
    problems: list[str] = []
    output = Output(problem=problems.append)
    output.write(writer, b"x")
    await output.flushed()
    assert problems == []
    output.detach()
    output.write(writer, b"y")
    await output.flushed()
    writer.close()


async def test_a_full_disk_is_said_once() -> None:
    problems: list[str] = []
    with os.fdopen(os.open("/dev/full", os.O_WRONLY), "w") as full:
        output = Output(problem=problems.append)
        for _ in range(3):
            output.write(full, b"x")
        await output.flushed()
    assert problems == ["writing output: No space left on device; nothing more is written"]


async def test_a_file_is_passed_on_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with target.open("w") as out:
        output = Output()
        output.write_file(out, io.BytesIO(b"x" * 200_000))
        output.write(out, b"end")
        await output.flushed()
    assert target.read_bytes() == b"x" * 200_000 + b"end"


async def test_detached_views_are_silent() -> None:
    for view in (PlainView, JsonView, GitHubView, TerminalView):
        out, err = stream(), stream()
        one = view(out, err, "r")
        one.change(SYNCED)
        one.detach()
        pod = a_pod("a", running())
        one.change(Change("ADDED", "Pod", pod))
        one.change(Change("ADDED", "Pod", a_pod("b", ended(1))))
        one.log(pod, "main", b"x\n")
        one.note(ProviderNote("lost"))
        one.say("x")
        await one.finish(await gather(one.model, "r", 1, 1.0))
        one.close()
        assert (bytes_of(out), bytes_of(err)) == (b"", b"")
