"""For pipes, files and CI: plain lines; logs on stdout, our own words on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from bridge.agent.loop import ProviderNote
from bridge.cli.output import plain
from bridge.cli.view.base import BaseView, Pacer, clock_time, note_words
from bridge.cli.view.model import News
from bridge.cli.view.words import duration
from bridge.pods import Manifest

if TYPE_CHECKING:
    from bridge.cli.view.closing import Closing


def prefix(pod: Manifest, container: str) -> str:
    """`pod`, or `pod/container` where the pod has several."""
    spec = pod["spec"]
    several = len(spec.get("containers") or ()) + len(spec.get("initContainers") or ()) > 1
    name = str(pod["metadata"]["name"])
    return f"{name}/{container}" if several else name


def prefixed(prefix: bytes, data: bytes) -> bytes:
    """Each line behind the prefix; the last gets the newline that it lacks."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return b"".join(prefix + line + b"\n" for line in lines)


class PlainView(BaseView):
    """One line for each thing that matters. The output of a run of one container is that
    container's, byte for byte."""

    def __init__(
        self,
        stdout: IO[str],
        stderr: IO[str],
        run: str,
        *,
        clock: Callable[[], float] = time.time,
        quiet: bool = False,
    ) -> None:
        super().__init__(stdout, stderr, run, clock=clock, quiet=quiet)
        self._pacer = Pacer(self.model, self._line, clock)

    def news(self, news: News) -> None:
        """Says what is worth a line."""
        for severity, text in self.narrator.lines(news, self.clock()):
            if severity == "bad" or not self.quiet:
                self._line(text)
        if self.quiet or not self.model.synced:
            return
        if news.job is not None and news.kind in ("job", "pod"):
            self._pacer.changed(news.job)
        elif news.kind == "pod" and not self.model.single:
            self._bare(news)

    def log(self, pod: Manifest, container: str, data: bytes) -> None:
        """`View.log`."""
        if not self.model.single:
            data = prefixed(f"{prefix(pod, container)} | ".encode(), data)
        self.output.write(self.stdout, data)

    def note(self, note: ProviderNote) -> None:
        """`View.note`."""
        self._line(note_words(note))

    def tick(self) -> None:
        """Says the progress that is due."""
        self._pacer.tick()

    async def finish(self, closing: Closing) -> None:
        """`View.finish`."""
        self._pacer.close()
        lines = closing.lines()
        if self.quiet:
            lines = [line for line in lines if line.part == "cause"]
        self._last_words("".join(f"{line.text}\n" for line in lines))
        await self.output.flushed()

    def close(self) -> None:
        """`View.close`."""
        self._pacer.close()
        super().close()

    def _last_words(self, text: str) -> None:
        self.output.write(self.stderr, plain(text).encode())

    def _line(self, text: str) -> None:
        self.output.write(self.stderr, f"{clock_time(self.clock())} {plain(text)}\n".encode())

    def _bare(self, news: News) -> None:
        pod = news.pod
        assert pod is not None
        if pod.standing == "running" and not pod.restarts:
            where = self.model.where(pod)
            self._line(f"pod/{pod.name} running{f' on {where}' if where else ''}")
        elif pod.standing == "succeeded":
            started, finished = pod.started, pod.finished
            took = f" in {duration(finished - started)}" if started and finished else ""
            self._line(f"pod/{pod.name} succeeded{took}")
        elif pod.standing == "stopped":
            self._line(f"pod/{pod.name} stopped")
