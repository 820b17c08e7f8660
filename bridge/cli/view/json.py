"""For programs: one JSON event a line on stdout, nothing else there."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from bridge.agent.loop import ProviderNote
from bridge.cli.view.base import BaseView, note_words
from bridge.cli.view.model import News
from bridge.cli.view.words import progress
from bridge.cost.money import exact
from bridge.pods import Manifest

if TYPE_CHECKING:
    from bridge.cli.view.closing import Closing

_PHASES = {
    "waiting": "Pending",
    "running": "Running",
    "succeeded": "Succeeded",
    "failed": "Failed",
    "stopping": "Terminating",
    "stopped": "Stopped",
    "terminated": "Terminated",
}


class JsonView(BaseView):
    """Events: {"time", "type", "run", "pod", "job", "container", "phase", "reason", "message",
    "exitCode", "log", "backend", "cost"}, each as it applies. The last has the type "result". A
    cost is in US dollars, as decimal text; that of a "plan", which comes first, is the most that
    the run can cost.

    Bytes of a log that are no UTF-8 become U+FFFD.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._progress: dict[str, str] = {}

    def news(self, news: News) -> None:
        """Each piece of news is one event."""
        match news.kind:
            case "run":
                self._emit("run", phase=news.phase, message=news.message)
            case "job":
                self._job(news)
            case "pod":
                self._pod(news)
            case "container":
                self._container(news)
            case "event":
                self._emit("event", **_about(news), reason=news.reason, message=news.message)

    def log(self, pod: Manifest, container: str, data: bytes) -> None:
        """`View.log`."""
        name = pod["metadata"]["name"]
        lines = data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        for line in lines:
            self._emit("log", pod=name, container=container, log=line.decode(errors="replace"))

    def note(self, note: ProviderNote) -> None:
        """`View.note`."""
        self._emit(
            "provider", phase="Lost" if note.what == "lost" else "Back", message=note_words(note)
        )

    def say(self, text: str) -> None:
        """`View.say`."""
        self._emit("run", message=text)

    def plan(self, text: str, most: Decimal | None) -> None:
        """What the run can cost at most, in words too; None: nobody can say."""
        self._emit("plan", message=text, cost=_money(most))

    async def finish(self, closing: Closing) -> None:
        """`View.finish`."""
        for cause in closing.causes:
            self._emit(
                "job" if cause.job and not cause.container else "pod",
                job=cause.job,
                pod=cause.pods[0].name if cause.pods else "",
                container=cause.container,
                phase="Failed",
                reason=cause.reason,
                message=cause.title(),
                exitCode=cause.code,
                log=closing.tail_of(cause),
            )
        self._emit(
            "result",
            phase=closing.phase,
            message=closing.summary(),
            exitCode=closing.code,
            cost=_money(closing.cost),
        )
        await self.output.flushed()

    def _job(self, news: News) -> None:
        job = news.job
        assert job is not None
        said = progress(job, self.clock())
        if self._progress.get(job.uid) == f"{news.phase} {said}":
            return
        self._progress[job.uid] = f"{news.phase} {said}"
        message = f"{news.message}; {said}" if news.message else said
        self._emit("job", job=job.name, phase=news.phase, reason=news.reason, message=message)

    def _pod(self, news: News) -> None:
        pod = news.pod
        assert pod is not None
        self._emit(
            "pod",
            **_about(news),
            phase=_PHASES[news.phase],
            reason=news.reason,
            message=news.message,
            exitCode=pod.exit_code if pod.over else None,
            backend=self.model.where(pod),
            cost=_money(self.model.cost(pod)),
        )

    def _container(self, news: News) -> None:
        one = news.container
        assert one is not None
        self._emit(
            "container",
            **_about(news),
            container=one.name,
            phase=_PHASES[one.state],
            reason=one.reason,
            message=one.message,
            exitCode=one.exit_code if one.state == "terminated" else None,
        )

    def _emit(self, kind: str, **fields: str | int | None) -> None:
        now = datetime.fromtimestamp(self.clock(), UTC)
        event: dict[str, str | int] = {
            "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "type": kind,
            "run": self.run,
        }
        for key, value in fields.items():
            if value is not None and (value != "" or key == "log"):
                event[key] = value
        self.output.write(self.stdout, orjson.dumps(event) + b"\n")


def _money(amount: Decimal | None) -> str | None:
    return None if amount is None else exact(amount)


def _about(news: News) -> dict[str, str]:
    return {
        "job": news.job.name if news.job is not None else "",
        "pod": news.pod.name if news.pod is not None else "",
    }
