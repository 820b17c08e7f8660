"""On a terminal: a line with a bar for each Job at the bottom, everything else scrolls above it."""

from __future__ import annotations

import asyncio
import atexit
import io
import re
import time
import zlib
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, cast

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bridge.agent.loop import ProviderNote
from bridge.cli.output import plain
from bridge.cli.view.base import BaseView, note_words
from bridge.cli.view.model import News
from bridge.cli.view.output import Output
from bridge.cli.view.plain import prefix
from bridge.cli.view.state import STARTING, JobState, PodState
from bridge.cli.view.words import counts, done, one_line
from bridge.pods import Manifest

if TYPE_CHECKING:
    from bridge.cli.view.closing import Closing

REFRESH_SECONDS = 0.1
"""Between two refreshes at the least."""
TICK_SECONDS = 1.0
"""Between two refreshes at the most: times count down though nothing else happens."""
MOST_LINES = 16
"""Lines of the display at the most, on however large a screen."""
BACKLOG = 1 << 16
"""Bytes that a slow terminal has not taken: more, and the display waits for the next refresh."""
MOST_HELD = 1000
"""Lines that are held until the next refresh at the most."""
BAR = 20

_COLOURS = tuple(f"color({number})" for number in (39, 208, 77, 170, 220, 45, 203, 141, 113, 180))
_STYLES = {"good": "green", "bad": "bold red", "warn": "yellow", "": ""}
_CONTROL = re.compile("[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")


class TerminalView(BaseView):
    """Lines are kept for at most a tenth of a second and then printed together with the display."""

    def __init__(
        self,
        stdout: IO[str],
        stderr: IO[str],
        run: str,
        *,
        clock: Callable[[], float] = time.time,
        quiet: bool = False,
        console: Console | None = None,
    ) -> None:
        super().__init__(stdout, stderr, run, clock=clock, quiet=quiet)
        self._console = console or Console(
            file=cast("IO[str]", _Pane(stdout, self.output)), highlight=False
        )
        self._ascii = self._console.options.ascii_only
        self._lines: list[Text] = []
        self._live: Live | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._silent = False

    def news(self, news: News) -> None:
        """Says what is worth a line; the rest shows in the display."""
        for severity, text in self.narrator.lines(news, self.clock()):
            if severity == "bad" or not self.quiet:
                self._line(Text(plain(text), style=_STYLES[severity]))
        self._soon()

    def log(self, pod: Manifest, container: str, data: bytes) -> None:
        """`View.log`."""
        name = "" if self.model.single else prefix(pod, container)
        style = _COLOURS[zlib.crc32(pod["metadata"]["name"].encode()) % len(_COLOURS)]
        for line in data.decode(errors="replace").removesuffix("\n").split("\n"):
            text = _safe(line)
            if name:
                text = Text.assemble((f"{name} ", style), ("| ", "dim"), text)
            self._line(text)

    def note(self, note: ProviderNote) -> None:
        """`View.note`."""
        style = _STYLES["bad" if note.what == "lost" else "good"]
        self._line(Text(plain(note_words(note)), style=style))

    def say(self, text: str) -> None:
        """`View.say`."""
        self._line(Text(plain(text)))

    async def finish(self, closing: Closing) -> None:
        """`View.finish`."""
        lines = closing.lines()
        if self.quiet:
            lines = [line for line in lines if line.part == "cause"]
        for at, line in enumerate(lines):
            style = "bold" if line.part == "table" and at == 0 else ""
            if line.part == "summary" and line.text:
                style = _STYLES["bad" if line.bad else "good"]
            elif line.bad:
                style = _STYLES["bad"] if line.part == "cause" else "red"
            self._line(Text(plain(line.text), style=style))
        self._end_display()
        await self.output.flushed()

    def close(self) -> None:
        """`View.close`."""
        self._end_display()
        super().close()

    def detach(self) -> None:
        """`View.detach`."""
        self._silent = True
        super().detach()
        self._end_display()

    def refresh(self) -> None:
        """Prints what has come, and the display below it."""
        self._timer = None
        if self._silent:
            return
        lines, self._lines = self._lines, []
        if self._live is None and not self.quiet:
            self._start_display()
        if lines:
            self._console.print(Text("\n").join(lines), soft_wrap=True)
        if self._live is not None and self.output.pending <= BACKLOG:
            self._live.update(self._display(), refresh=True)
        self._due = self.clock() + REFRESH_SECONDS
        self._schedule(TICK_SECONDS)

    def _line(self, text: Text) -> None:
        if not self._silent:
            self._lines.append(text)
            if len(self._lines) >= MOST_HELD:
                self.refresh()
            else:
                self._soon()

    def _soon(self) -> None:
        if self._timer is not None:
            wait = self._due - self.clock()
            loop = asyncio.get_running_loop()
            if self._timer.when() <= loop.time() + REFRESH_SECONDS:
                return
            self._timer.cancel()
            self._schedule(max(0.0, min(wait, REFRESH_SECONDS)))
        elif not self._silent:
            self._schedule(REFRESH_SECONDS / 2)

    def _schedule(self, seconds: float) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Between two event loops: the last words are printed by `finish` or `close`.
            return
        self._timer = loop.call_later(seconds, self.refresh)

    def _start_display(self) -> None:
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        # However the process ends, the cursor is shown again.
        atexit.register(self._end_display)
        self._live.start()

    def _end_display(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        live, self._live = self._live, None
        if live is not None:
            live.update(Text(""))
            live.stop()
            atexit.unregister(self._end_display)
        lines, self._lines = self._lines, []
        if lines and not self._silent:
            self._console.print(Text("\n").join(lines), soft_wrap=True)

    def _display(self) -> Group:
        # The last line stays free: a full screen would scroll with each refresh.
        most = max(1, min(MOST_LINES, self._console.size.height - 2))
        shown = list(self._shown())
        if len(shown) > most:
            rest = shown[most - 1 :]
            shown = [*shown[: most - 1], (2, f"… and {len(rest)} more: {self._rest(rest)}")]
        now = self.clock()
        width = max((len(one.name) for _, one in shown if not isinstance(one, str)), default=0)
        width = min(width, 40)
        return Group(*(self._display_line(one, width, now) for _, one in shown))

    def _shown(self) -> Iterator[tuple[int, JobState | PodState | str]]:
        """What the display tells of, the most interesting first."""
        found: list[tuple[int, JobState | PodState | str]] = []
        for job in self.model.jobs.values():
            found.append((2 if job.over else 0 if job.running or job.failed else 1, job))
        for pod in self.model.bare:
            found.append((2 if pod.over else 0 if pod.standing == "running" else 1, pod))
        # Sorting is stable: within each rank they stay in their order.
        found.sort(key=lambda one: one[0])
        yield from found

    def _rest(self, rest: list[tuple[int, JobState | PodState | str]]) -> str:
        words = ("running", "waiting", "done")
        ranks = [rank for rank, _ in rest]
        return ", ".join(
            f"{ranks.count(rank)} {word}" for rank, word in enumerate(words) if rank in ranks
        )

    def _display_line(self, one: JobState | PodState | str, width: int, now: float) -> Text:
        if isinstance(one, str):
            text = Text(one, style="dim")
        else:
            text = Text(f"{one_line(one.name, width):<{width}}  ", style="bold")
            parts = [(plain(words), style) for words, style in self._parts(one, now)]
            text = Text.assemble(text, *parts)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text

    def _parts(self, one: JobState | PodState, now: float) -> Iterator[tuple[str, str]]:
        dot = " - " if self._ascii else " · "
        if isinstance(one, JobState):
            yield from self._bar(one)
            yield f" {done(one)}", ""
            if parts := counts(one, now):
                yield f"  {dot.join(parts)}", "yellow" if one.failed > one.replaced else ""
            return
        style = {"succeeded": "green", "failed": "red", "waiting": "yellow"}.get(one.standing, "")
        yield one.standing, style
        if one.why and one.why != STARTING:
            yield f" ({one.why})", style
        if one.standing == "running" and one.started:
            yield f"{dot}{max(0.0, now - one.started):.0f} s", "dim"
        if where := self.model.where(one):
            yield f"{dot}{where}", "dim"
        if one.restarts:
            yield f"{dot}{one.restarts} restarted", "yellow"

    def _bar(self, job: JobState) -> Iterator[tuple[str, str]]:
        if job.total is None:
            return
        part = 1.0 if job.total == 0 else min(1.0, job.done / job.total)
        full = int(part * BAR)
        solid, light = ("#", ".") if self._ascii else ("█", "░")
        yield solid * full, "red" if job.phase == "Failed" else "green"
        yield light * (BAR - full), "dim"


def _safe(line: str) -> Text:
    """A container's line: its colours are kept, what would move the cursor is not."""
    # What a carriage return has overwritten was not meant to stay.
    line = line.rstrip("\r").rpartition("\r")[2]
    if "\x1b" in line:
        text = Text.from_ansi(line)
        if not _CONTROL.search(text.plain) and "\x1b" not in text.plain:
            return text
        line = text.plain.replace("\x1b", "")
    return Text(_CONTROL.sub("", line))


class _Pane(io.TextIOBase):
    """A terminal that is written to through an `Output`."""

    def __init__(self, stream: IO[str], output: Output) -> None:
        self._stream, self._output = stream, output

    @property
    def encoding(self) -> str:  # type: ignore[override]  # in the stubs it can be set
        """That of the terminal."""
        found: str = getattr(self._stream, "encoding", None) or "utf-8"
        return found

    def write(self, text: str) -> int:
        """As a file's."""
        self._output.write(self._stream, text.encode(self.encoding, "replace"))
        return len(text)

    def flush(self) -> None:
        """Nothing is kept here."""

    def isatty(self) -> bool:
        """It is one."""
        return True

    def fileno(self) -> int:
        """The terminal's."""
        return self._stream.fileno()
