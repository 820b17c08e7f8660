"""The end of a run: what ran where, why it failed, and what to type next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from bridge.cli.output import plain
from bridge.cli.view.model import RunModel
from bridge.cli.view.state import STARTING, ContainerState, JobState, PodState
from bridge.cli.view.words import code_words, duration, one_line, reason_words
from bridge.cost.money import dollars
from bridge.errors import BridgeError
from bridge.pods import Manifest

ROWS = 20
"""Rows of the table; what is more is counted."""
TAIL_LINES = 10
FEW_PODS = 3
"""Pods that a cause names."""

Tail = Callable[[Manifest, str, int, bool], Awaitable[bytes]]
"""(pod, container, lines, previous) to the last lines of a log. Raises `bridge.errors`."""

_PARTS = Literal["table", "cause", "summary"]
_WORDS = {
    0: "succeeded in",
    1: "failed in",
    2: "refused after",
    3: "could not run: gave up after",
    124: "timed out after",
    130: "interrupted after",
    143: "terminated after",
}
_PHASES = {0: "Succeeded", 124: "TimedOut", 130: "Interrupted", 143: "Interrupted"}
_ORDER = {"failed": 0, "waiting": 1, "stopping": 2, "running": 2, "stopped": 3, "succeeded": 4}


@dataclass(frozen=True, slots=True)
class Line:
    """One line for people, and what it is part of. `bad`: it tells of a failure."""

    part: _PARTS
    text: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """One distinct reason for which the run failed, and all pods that share it."""

    job: str
    """The Job's name; empty for pods of their own."""
    container: str
    """Empty where no container is to blame."""
    code: int | None
    signal: int
    reason: str
    message: str
    pods: tuple[PodState, ...]
    waits: bool = False
    """The pods never ended: they wait."""

    def title(self) -> str:
        """What went wrong, in one line."""
        if self.code is not None and not self.waits:
            words = code_words(self.code, self.signal, self.reason)
        else:
            words = reason_words(self.reason) or "failed for no known reason"
            words = f"waiting: {words}" if self.waits else words
        if self.message:
            words = f"{words}: {one_line(self.message)}"
        several = self.container and any(pod.several for pod in self.pods)
        return f"{words} (container {self.container})" if several else words

    def who(self) -> str:
        """`wordcount: 12 pods: a, b, c and 9 more`."""
        names = [_pod_label(pod) for pod in self.pods[:FEW_PODS]]
        listed = ", ".join(names)
        if len(self.pods) > FEW_PODS:
            listed = f"{listed} and {len(self.pods) - FEW_PODS} more"
        return ": ".join(part for part in (f"job/{self.job}" if self.job else "", listed) if part)

    def commands(self, run: str) -> list[str]:
        """What to type next."""
        if not self.pods:
            return [f"podbridge describe {run} {self.job}".rstrip()]
        pod = self.pods[0]
        choice = f" -c {self.container}" if pod.several and self.container else ""
        describe = f"podbridge describe {run} {pod.name}"
        if self.example is None:
            return [describe]
        return [f"podbridge logs {run} {pod.name}{choice}", describe]

    @property
    def example(self) -> tuple[PodState, ContainerState] | None:
        """The run of a container whose log says most."""
        for pod in self.pods:
            for one in pod.containers:
                ran = one.exit_code is not None and one.end_reason != "ContainerStatusUnknown"
                if one.name == self.container and (one.started or ran):
                    return pod, one
        return None


@dataclass(frozen=True, slots=True)
class Row:
    """One pod in the table. `seconds` None: it never ran."""

    pod: str
    job: str
    backend: str
    index: str
    standing: str
    seconds: float | None
    exit_code: int | None
    restarts: int

    def cells(self) -> tuple[str, ...]:
        """As they are printed."""
        # Kubernetes' times are whole seconds.
        took = "<1 s" if self.seconds == 0 else duration(self.seconds)
        code = "-" if self.exit_code is None else str(self.exit_code)
        return (
            *(self.pod, self.job or "-", self.backend or "-", self.index or "-", self.standing),
            *(took, code, str(self.restarts)),
        )


HEADERS = ("POD", "JOB", "BACKEND", "INDEX", "ENDED", "TOOK", "EXIT", "RESTARTS")


@dataclass(frozen=True, slots=True)
class Closing:
    """All that is said about a run once it is over. `seconds`: how long it took."""

    run: str
    code: int
    seconds: float
    rows: tuple[Row, ...]
    causes: tuple[Cause, ...] = ()
    retried: int = 0
    tails: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    """The last lines of logs by (pod's UID, container); read for one pod of each cause."""
    deleted: bool = False
    """Whether the run is gone, so that no command about it would work."""
    cut_short: bool = False
    """Whether somebody else deleted it before it was over."""
    cost: Decimal | None = None
    """What its pods have cost, in US dollars, by their containers' times; None: not known."""
    simulated: bool = False
    """Nothing of it was billed."""

    @property
    def phase(self) -> str:
        """One word for programs."""
        if self.cut_short:
            return "Deleted"
        return _PHASES.get(self.code, "Failed")

    def summary(self) -> str:
        """`wordcount: succeeded in 4.2 s (12 pods, 1 retried)`."""
        words = "deleted after" if self.cut_short else _WORDS.get(self.code, "failed in")
        counted = len(self.rows)
        parts = [f"{counted} pod{'' if counted == 1 else 's'}"]
        failed = sum(row.standing == "failed" for row in self.rows)
        if self.code and failed:
            parts.append(f"{failed} failed")
        if self.retried:
            parts.append(f"{self.retried} retried")
        if counted == 1 and self.rows[0].exit_code is not None and not self.cut_short:
            parts = [f"exit code {self.rows[0].exit_code}", *parts[1:]]
        who = f"{self.run} (simulated)" if self.simulated else self.run
        said = f"{who}: {words} {duration(round(self.seconds, 1))} ({', '.join(parts)})"
        if self.cost is None:
            return said
        return (
            f"{said}; {'would have cost' if self.simulated else 'cost'} about {dollars(self.cost)}"
        )

    def tail_of(self, cause: Cause) -> str | None:
        """The last log lines of one of the cause's pods; None where there are none."""
        for pod in cause.pods:
            if found := self.tails.get((pod.uid, cause.container)):
                return found.decode(errors="replace")
        return None

    def lines(self) -> list[Line]:
        """Everything, for people: table, causes, and the summary as the last line."""
        made = list(self.table_lines())
        for cause in self.causes:
            if made:
                made.append(Line("cause", ""))
            made.extend(self.cause_lines(cause))
        if made:
            made.append(Line("summary", ""))
        return [*made, Line("summary", self.summary(), bad=self.code != 0)]

    def table_lines(self, limit: int = ROWS) -> Iterator[Line]:
        """The table; none for a single pod that succeeded, of which the summary says as much."""
        if len(self.rows) == 1 and not self.code:
            return
        shown, rest = table_rows(self.rows, limit)
        cells = [HEADERS, *(row.cells() for row in shown)]
        keep = [
            column
            for column in range(len(HEADERS))
            if HEADERS[column] == "EXIT" or any(row[column] not in ("-", "0") for row in cells[1:])
        ]
        widths = {column: max(len(row[column]) for row in cells) for column in keep}
        for at, row in enumerate(cells):
            text = "  ".join(row[column].ljust(widths[column]) for column in keep).rstrip()
            yield Line("table", text, bad=at > 0 and shown[at - 1].standing == "failed")
        if rest:
            yield Line("table", rest)

    def cause_lines(self, cause: Cause) -> Iterator[Line]:
        """The block of one cause."""
        who = cause.who() or self.run
        yield Line("cause", f"{who}: {cause.title()}", bad=True)
        if tail := self.tail_of(cause):
            example = next(p for p in cause.pods if (p.uid, cause.container) in self.tails)
            yield Line("cause", f"  last lines of {example.name}:")
            for text in tail.splitlines()[-TAIL_LINES:]:
                yield Line("cause", f"    {plain(text)}")
        for command in () if self.deleted else cause.commands(self.run):
            yield Line("cause", f"  {command}")


def _pod_label(pod: PodState) -> str:
    return pod.name if pod.index is None else f"{pod.name} (index {pod.index})"


def table_rows(rows: tuple[Row, ...], limit: int = ROWS) -> tuple[tuple[Row, ...], str]:
    """The rows to show, and what is said of the others: "... and 480 more succeeded"."""
    if len(rows) <= limit:
        return rows, ""
    left: dict[str, int] = {}
    for row in rows[limit:]:
        left[row.standing] = left.get(row.standing, 0) + 1
    counted = ", ".join(f"{count} more {standing}" for standing, count in left.items())
    return rows[:limit], f"... and {counted}"


def rows(model: RunModel) -> tuple[Row, ...]:
    """One row a pod: failed ones first, then by Job and index."""
    pods = sorted(
        model.pods.values(),
        key=lambda pod: (_ORDER[pod.standing], pod.job_name, pod.index or 0, pod.serial),
    )
    return tuple(_row(pod, model.where(pod)) for pod in pods)


def _row(pod: PodState, backend: str) -> Row:
    index = "" if pod.index is None else str(pod.index)
    if pod.index is not None and pod.serial:
        index = f"{index} (attempt {pod.serial + 1})"
    return Row(
        pod=pod.name,
        job=pod.job_name,
        backend=backend,
        index=index,
        standing=pod.standing,
        seconds=seconds_of(pod),
        exit_code=pod.exit_code,
        restarts=pod.restarts,
    )


def seconds_of(pod: PodState) -> float | None:
    """From the start of a pod's first container to the end of its last; None: not known."""
    started, finished = pod.started, pod.finished
    return max(0.0, finished - started) if started and finished else None


def causes(model: RunModel, code: int) -> tuple[Cause, ...]:
    """Why the run failed, each distinct cause once: those of most pods first."""
    found: dict[tuple[object, ...], list[PodState]] = {}
    made: list[Cause] = []
    for job in model.jobs.values():
        if job.phase == "Failed":
            made.extend(_job_causes(job, model.of_job(job.uid), found))
    if code == 1:
        for pod in model.bare:
            if pod.standing == "failed":
                found.setdefault(_key(pod), []).append(pod)
    if code in (3, 124):
        for pod in model.pods.values():
            if not pod.over or (pod.deleting and pod.started is None):
                found.setdefault(_waiting_key(model.waited.get(pod.uid, pod)), []).append(pod)
    grouped = [_cause(key, pods) for key, pods in found.items()]
    grouped.sort(key=lambda one: -len(one.pods))
    return (*made, *grouped)


def _job_causes(
    job: JobState, pods: Iterable[PodState], found: dict[tuple[object, ...], list[PodState]]
) -> list[Cause]:
    reason, message = job.end
    own: list[PodState] = []
    ended_by_job: list[PodState] = []
    for pod in pods:
        # An index that succeeded in the end is no reason.
        if pod.standing == "failed" and pod.index not in job.indexes:
            (ended_by_job if pod.deleted_for else own).append(pod)
    for pod in own:
        found.setdefault(_key(pod), []).append(pod)
    # Pods that failed say more than the limit that they passed; a deadline has no such pods.
    if own and reason != "DeadlineExceeded":
        return []
    culprit = next((pod.culprit.name for pod in ended_by_job if pod.culprit), "")
    return [Cause(job.name, culprit, None, 0, reason, message, tuple(ended_by_job))]


def _key(pod: PodState) -> tuple[object, ...]:
    culprit = pod.culprit
    if culprit is None or culprit.exit_code is None:
        return (pod.job_name, "", None, 0, pod.reason, pod.message, False)
    reason = culprit.end_reason
    # What the pod itself ended for (a deadline, an eviction) explains its containers' codes.
    if pod.reason:
        return (pod.job_name, culprit.name, None, 0, pod.reason, pod.message, False)
    message = culprit.end_message if reason == "StartError" else ""
    return (pod.job_name, culprit.name, culprit.exit_code, culprit.signal, reason, message, False)


def _waiting_key(pod: PodState) -> tuple[object, ...]:
    why = pod.why or ("running" if pod.standing == "running" else STARTING)
    if (crashed := pod.crashed) is not None:
        return (pod.job_name, crashed.name, None, 0, crashed.reason, crashed.message, True)
    waiting = next((one for one in pod.containers if one.reason == why), None)
    if waiting is None:
        return (pod.job_name, "", None, 0, why, pod.message, True)
    return (pod.job_name, waiting.name, None, 0, why, waiting.message, True)


def _cause(key: tuple[object, ...], pods: list[PodState]) -> Cause:
    job, container, code, number, reason, message, waits = key
    assert code is None or isinstance(code, int)
    assert isinstance(number, int)
    return Cause(
        str(job), str(container), code, number, str(reason), str(message), tuple(pods), bool(waits)
    )


async def gather(
    model: RunModel,
    run: str,
    code: int,
    seconds: float,
    tail: Tail | None = None,
    *,
    cut_short: bool = False,
) -> Closing:
    """Everything about a run that is over. `code`: its exit code; `tail` reads the logs' ends;
    `cut_short` as in `Closing`."""
    found = causes(model, code) if code else ()
    tails: dict[tuple[str, str], bytes] = {}
    for cause in found:
        if tail is not None and cause.example is not None:
            pod, container = cause.example
            if text := await read_tail(tail, pod, container):
                tails[pod.uid, container.name] = text
    retried = sum(job.retried for job in model.jobs.values())
    retried += sum(pod.restarts for pod in model.bare)
    return Closing(
        run,
        code,
        seconds,
        rows(model),
        found,
        retried,
        tails,
        model.deleted,
        cut_short=cut_short,
        cost=model.total_cost,
        simulated=bool(model.simulated),
    )


async def read_tail(
    tail: Tail, pod: PodState, container: ContainerState, lines: int = TAIL_LINES
) -> bytes:
    """The end of the log of a container's newest run that has ended, or runs. A log that is gone
    must not hide why the run failed: then the text says so."""
    # While it waits to run again, the newest run is the one that ended.
    previous = container.state == "running" and container.exit_code is not None
    try:
        return await tail(pod.manifest, container.name, lines, previous)
    except BridgeError as error:
        return f"(its log cannot be read: {error})".encode()
