"""What all views share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Protocol

from bridge.agent.loop import ProviderNote
from bridge.cli.output import plain
from bridge.cli.view.model import News, RunModel
from bridge.cli.view.output import Output
from bridge.cli.view.state import JobState
from bridge.cli.view.words import Narrator, progress
from bridge.local.store import Change
from bridge.pods import Manifest

if TYPE_CHECKING:
    from bridge.cli.view.closing import Closing


class View(Protocol):
    """Shows a run. No call blocks or raises because of who reads; all come from the event loop."""

    model: RunModel

    def change(self, change: Change) -> None:
        """An object of the run has changed."""

    def log(self, pod: Manifest, container: str, data: bytes) -> None:
        """Whole lines of a container's log; only the last of a run may lack its newline."""

    def log_ended(self, pod: Manifest) -> None:
        """The pod has ended, and all of its log was passed on."""

    def note(self, note: ProviderNote) -> None:
        """The provider was lost, or is back."""

    def say(self, text: str) -> None:
        """A line of our own."""

    def plan(self, text: str, most: Decimal | None) -> None:
        """What the run can cost at most, before it begins; None: nobody can say."""

    async def room(self) -> None:
        """Returns once more log may come: whoever reads may be slower than the containers."""

    async def finish(self, closing: Closing) -> None:
        """The run is over: the last words. Returns once they are written."""

    def close(self) -> None:
        """Leaves the terminal as it was. Safe at any time, and again."""

    def detach(self) -> None:
        """Nobody looks any more: silent from now on, as after the terminal has gone."""


def note_words(note: ProviderNote) -> str:
    """What a note says to people."""
    if note.what == "lost":
        return f"provider lost: {note.message}; pods run on"
    return f"provider back: adopted {note.adopted} pod{'' if note.adopted == 1 else 's'}"


def clock_time(now: float) -> str:
    """The time of day, here."""
    return time.strftime("%H:%M:%S", time.localtime(now))


class BaseView:
    """Keeps the model, and finds what is worth a line."""

    def __init__(
        self,
        stdout: IO[str],
        stderr: IO[str],
        run: str,
        *,
        clock: Callable[[], float] = time.time,
        quiet: bool = False,
    ) -> None:
        self.model = RunModel()
        self.run = run
        self.quiet = quiet
        self.stdout, self.stderr = stdout, stderr
        self.clock = clock
        self.output = Output(problem=self._output_failed)
        self.narrator = Narrator(self.model)

    def change(self, change: Change) -> None:
        """`View.change`."""
        for news in self.model.apply(change):
            self.news(news)

    def news(self, news: News) -> None:
        """One thing has changed; for subclasses."""

    def log_ended(self, pod: Manifest) -> None:
        """`View.log_ended`."""

    def say(self, text: str) -> None:
        """`View.say`."""
        self.output.write(self.stderr, f"{plain(text)}\n".encode())

    def plan(self, text: str, most: Decimal | None) -> None:
        """`View.plan`: people have read it already, before it began."""

    def _output_failed(self, text: str) -> None:
        # Called from the thread that writes: nothing of a view but its output may be used there.
        self.output.write(self.stderr, f"{text}\n".encode())

    async def room(self) -> None:
        """`View.room`."""
        await self.output.room()

    def close(self) -> None:
        """`View.close`."""
        self.output.close()

    def detach(self) -> None:
        """`View.detach`."""
        self.output.detach()


PROGRESS_SECONDS = 2.0
"""Between two plain progress lines of one Job."""
MANY_JOBS = 10
"""From so many Jobs on the lines of each become rarer, so that a log stays readable."""


class Pacer:
    """Decides when a Job's progress is due for a line."""

    def __init__(self, model: RunModel, say: Callable[[str], None], clock: Callable[[], float]):
        self._model, self._say, self._clock = model, say, clock
        self._last: dict[str, float] = {}
        self._said: dict[str, str] = {}
        self._timer: asyncio.TimerHandle | None = None

    def changed(self, job: JobState) -> None:
        """The Job or one of its pods has changed."""
        now = self._clock()
        if job.over:
            # Its end has a line of its own, which is the last.
            self._said[job.uid] = ""
        elif now - self._last.get(job.uid, 0.0) >= self._interval():
            self._line(job, now)
        else:
            self._later()

    def tick(self) -> None:
        """Says what has waited long enough."""
        self._timer = None
        now, waiting = self._clock(), False
        for job in self._model.jobs.values():
            if job.over:
                continue
            if now - self._last.get(job.uid, 0.0) >= self._interval():
                self._line(job, now)
            else:
                waiting = waiting or self._said.get(job.uid) != progress(job, now)
        if waiting:
            self._later()

    def close(self) -> None:
        """No more lines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _interval(self) -> float:
        return PROGRESS_SECONDS * max(1.0, len(self._model.jobs) / MANY_JOBS)

    def _line(self, job: JobState, now: float) -> None:
        said = progress(job, now)
        if said != self._said.get(job.uid):
            self._said[job.uid], self._last[job.uid] = said, now
            self._say(f"job/{job.name} {said}")

    def _later(self) -> None:
        if self._timer is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                # Nobody waits for time to pass: the next change says it.
                return
            self._timer = loop.call_later(self._interval(), self.tick)
