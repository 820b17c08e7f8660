from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from view_kit import (
    SYNCED,
    T0,
    Clock,
    a_failed_run,
    a_job,
    a_pod,
    added,
    ended,
    modified,
    running,
    stream,
    waiting,
)

from bridge.agent.loop import ProviderNote
from bridge.cli.view.closing import gather
from bridge.cli.view.terminal import TerminalView
from bridge.pods import Manifest

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Screen:
    """A terminal of 100 x 24 in memory, and a view on it."""

    def __init__(self, height: int = 24, *, quiet: bool = False) -> None:
        self.file, self.clock = io.StringIO(), Clock()
        console = Console(
            file=self.file,
            force_terminal=True,
            width=100,
            height=height,
            highlight=False,
            color_system="256",
            _environ={"TERM": "xterm-256color"},
        )
        self.view = TerminalView(
            stream(), stream(), "r", clock=self.clock, quiet=quiet, console=console
        )
        self.view.change(SYNCED)

    def show(self, *objects: Manifest, at: float = 0.0) -> str:
        """What a refresh after these changes prints, without colours."""
        for one in objects:
            self.view.change(modified(one))
        self.clock.now = T0 + at
        before = len(self.file.getvalue())
        self.view.refresh()
        return plain(self.file.getvalue()[before:])


def plain(text: str) -> str:
    return re.sub("\x1b\\[[?0-9;]*[A-Za-z]", "", text)


def test_a_bar_for_each_job() -> None:
    screen, job = Screen(), "wordcount"
    pods = [a_pod(f"w-{at}", ended(0, 1), job=job, index=at) for at in range(3)]
    text = screen.show(
        a_job(completions=12, parallelism=4),
        *pods,
        a_pod("w-3", running(), job=job, index=3),
        a_pod("w-4", ended(3, 2), job=job, index=4),
        at=4,
    )
    said = "1 running · 1 waiting (back-off 8s) · 1 failed"
    assert f"wordcount  █████░░░░░░░░░░░░░░░ 3/12  {said}" in text
    screen.view.close()


def test_pods_of_their_own() -> None:
    screen = Screen()
    text = screen.show(
        a_pod("a", running()), a_pod("b", waiting("ErrImagePull")), a_pod("c", ended(0)), at=61
    )
    assert re.search(r"a +running · 61 s · process", text)
    assert re.search(r"b +waiting \(ErrImagePull\) · process", text)
    assert re.search(r"c +succeeded · process", text)
    screen.view.close()


@pytest.mark.parametrize("height", [4, 8, 24])
def test_the_display_never_fills_the_screen(height: int) -> None:
    screen = Screen(height)
    screen.show(*(a_job(f"job-{at}") for at in range(100)))
    before = len(screen.file.getvalue())
    screen.view.refresh()
    text = plain(screen.file.getvalue()[before:])
    lines = [line for line in text.split("\n") if line.strip()]
    assert len(lines) <= min(height - 2, 16)
    assert "more: " in lines[-1]
    screen.view.close()


def test_lines_come_above_the_display_with_prefixes_and_colours() -> None:
    screen = Screen()
    one, two = a_pod("a", running()), a_pod("b", containers={"x": running(), "y": running()})
    screen.show(one, two)
    screen.view.log(one, "main", b"hello\nworld\n")
    screen.view.log(two, "y", b"last")
    screen.view.note(ProviderNote("lost", "refused"))
    text = screen.show()
    words = [line.strip() for line in text.split("\n")]
    assert words[:4] == [
        "a | hello",
        "a | world",
        "b/y | last",
        "provider lost: refused; pods run on",
    ]
    colours = re.findall(r"\x1b\[38;5;(\d+)m(?:a|b/y) ", screen.file.getvalue())
    assert len(colours) == 3
    assert colours[0] == colours[1]
    screen.view.close()


def test_containers_cannot_move_the_cursor() -> None:
    screen = Screen()
    pod = a_pod("a", running())
    screen.show(pod)
    screen.view.log(
        pod, "main", b"\x1b[31mred\x1b[0m\x1b[2J\x1b[H\x07 x\n10%\r20%\r\n\xff\x00[b]\n"
    )
    before = len(screen.file.getvalue())
    text = screen.show()
    assert [line.strip() for line in text.split("\n")][:3] == ["red x", "20%", "\ufffd[b]"]
    raw = screen.file.getvalue()[before:]
    assert "\x1b[2J" not in raw
    assert "\x1b[31mred" in raw
    screen.view.close()


def test_texts_of_others_cannot_move_the_cursor() -> None:
    screen = Screen()
    screen.show(a_pod("a", waiting("Bad\x1b[2J", "no\x1b[2J image")), a_pod("b"))
    screen.view.note(ProviderNote("lost", "x\x1b[2J"))
    screen.view.say("y\x1b[2J")
    text = screen.show()
    assert "\x1b[2J" not in screen.file.getvalue()
    assert "x^[[2J" in text
    assert "y^[[2J" in text
    screen.view.close()


async def test_the_end_is_told_and_the_terminal_is_as_before() -> None:
    screen = Screen()
    screen.show(*a_failed_run())
    await screen.view.finish(await gather(screen.view.model, "wordcount", 1, 13.0))
    screen.view.close()
    raw = screen.file.getvalue()
    assert raw.count(HIDE) == raw.count(SHOW) == 1
    lines = plain(raw).rstrip().split("\n")
    assert lines[-1].strip() == "wordcount: failed in 13 s (5 pods, 3 failed, 2 retried)"
    assert "podbridge logs wordcount wordcount-2-ccccc" in plain(raw)


async def test_many_changes_are_few_refreshes() -> None:
    screen = Screen()
    shown = 0
    display = screen.view.refresh

    def refresh() -> None:
        nonlocal shown
        shown += 1
        display()

    screen.view.refresh = refresh
    screen.view.change(added(a_pod("other")))
    for at in range(500):
        screen.view.change(added(a_pod(f"p-{at}", running())))
        screen.view.log(a_pod(f"p-{at}"), "main", b"x\n")
    assert shown == 0
    screen.view.refresh()
    assert plain(screen.file.getvalue()).count("| x") == 500
    screen.view.close()


def test_after_the_terminal_has_gone_nothing_is_written() -> None:
    screen = Screen()
    screen.show(a_pod("a", running()))
    screen.view.detach()
    length = len(screen.file.getvalue())
    screen.view.say("x")
    screen.view.refresh()
    screen.view.close()
    assert "x" not in screen.file.getvalue()[length:]


def test_quiet_has_no_display() -> None:
    screen = Screen(quiet=True)
    assert screen.show(a_job()) == ""
    assert "failed: exit code 3" in screen.show(a_pod("a", ended(3)))


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = stream()
    view = TerminalView(out, stream(), "r", clock=Clock())
    view.change(SYNCED)
    view.change(added(a_pod("a", running())))
    view.change(added(a_pod("b", ended(3))))
    view.log(a_pod("a"), "main", b"x\n")
    view.close()
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]", out.buffer.getvalue())
