"""JUnit XML: a test suite for each Job (and one for pods of their own), a case for each index or
pod."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from bridge.cli.view.closing import Tail, read_tail, seconds_of
from bridge.cli.view.model import RunModel
from bridge.cli.view.state import JobState, PodState
from bridge.cli.view.words import how_it_failed, reason_words
from bridge.errors import Invalid, Violation

MOST_TAILS = 200
"""Failed cases whose log's end is read: the file of a run that fails everywhere stays readable."""

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Case:
    """One test case. `failure`: (type, message); `skipped`: why it did not run."""

    name: str
    seconds: float
    failure: tuple[str, str] | None = None
    skipped: str = ""
    notes: str = ""
    """What happened before it succeeded, or after it failed."""
    pod: PodState | None = None


@dataclass(frozen=True, slots=True)
class Suite:
    """One test suite."""

    name: str
    cases: tuple[Case, ...]
    notes: str = ""


def check_writable(path: Path) -> None:
    """Invalid unless a file can be written there. Leaves nothing behind."""
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        found = f"{path} cannot be written: {error.strerror or error}"
        raise Invalid(violations=[Violation("--junit", found)]) from error


async def write(path: Path, model: RunModel, run: str, tail: Tail | None = None) -> None:
    """Writes the report at once: no reader ever sees half of it. OSError."""
    made = suites(model, run)
    logs: dict[str, str] = {}
    failed = [one for suite in made for one in suite.cases if one.failure and one.pod]
    for case in failed[:MOST_TAILS] if tail is not None else ():
        assert case.pod is not None
        assert tail is not None
        if (culprit := case.pod.culprit) is not None:
            logs[case.pod.uid] = (await read_tail(tail, case.pod, culprit)).decode(errors="replace")
    text = "".join(render(run, made, logs))
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(out.fileno(), 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        # Whatever it was: no half report stays behind.
        os.unlink(name)
        raise


def suites(model: RunModel, run: str) -> list[Suite]:
    """The report's content."""
    made = []
    for job in model.jobs.values():
        pods = list(model.of_job(job.uid))
        made.append(_indexed(job, pods) if job.indexed else _alike(job, pods))
    if model.bare:
        made.append(Suite(run, tuple(_case(pod, pod.name) for pod in model.bare)))
    return made


def _indexed(job: JobState, pods: Iterable[PodState]) -> Suite:
    attempts: dict[int, list[PodState]] = {}
    for pod in pods:
        if pod.index is not None and pod.standing != "stopped":
            attempts.setdefault(pod.index, []).append(pod)
    cases = []
    for index in range(job.total or 0):
        name = f"{job.name}[{index}]"
        tried = sorted(attempts.get(index, ()), key=lambda pod: pod.serial)
        if not tried:
            cases.append(Case(name, 0.0, skipped="it did not run"))
            continue
        last = next((pod for pod in tried if pod.standing == "succeeded"), tried[-1])
        notes = [
            f"attempt {pod.serial + 1} ({pod.name}) failed: {how_it_failed(pod)}"
            for pod in tried
            if pod is not last and pod.standing == "failed"
        ]
        cases.append(_case(last, name, notes))
    return Suite(job.name, tuple(_with_job_itself(job, cases)))


def _alike(job: JobState, pods: Iterable[PodState]) -> Suite:
    cases, notes = [], []
    for pod in pods:
        if pod.standing == "failed" and job.phase == "Complete":
            notes.append(f"{pod.name} failed and was retried: {how_it_failed(pod)}")
        elif pod.standing != "stopped":
            cases.append(_case(pod, pod.name))
    return Suite(job.name, tuple(_with_job_itself(job, cases)), "\n".join(notes))


def _with_job_itself(job: JobState, cases: list[Case]) -> list[Case]:
    if job.phase != "Failed" or any(case.failure for case in cases):
        return cases
    reason, message = job.end
    words = ": ".join(part for part in (reason_words(reason), message) if part)
    return [*cases, Case(job.name, 0.0, failure=(reason, words))]


def _case(pod: PodState, name: str, notes: Iterable[str] = ()) -> Case:
    seconds = seconds_of(pod) or 0.0
    said = list(notes)
    if pod.restarts:
        said.append(f"containers restarted in place: {pod.restarts}")
    failure, skipped = None, ""
    if pod.standing == "failed":
        kind = pod.reason or (pod.culprit.end_reason if pod.culprit else "") or "Failed"
        failure = (kind, how_it_failed(pod))
    elif pod.standing != "succeeded":
        skipped = f"it did not end: {pod.why or pod.standing}"
    return Case(name, seconds, failure, skipped, "\n".join(said), pod)


def render(run: str, made: Iterable[Suite], logs: Mapping[str, str]) -> Iterator[str]:
    """The XML; `logs` by pod UID go into failures."""
    yield '<?xml version="1.0" encoding="utf-8"?>\n'
    listed = list(made)
    cases = [case for suite in listed for case in suite.cases]
    yield f"<testsuites name={_attribute(run)} {_totals(cases)}>\n"
    for suite in listed:
        yield f"  <testsuite name={_attribute(suite.name)} {_totals(suite.cases)}>\n"
        for case in suite.cases:
            yield from _render_case(suite, case, logs)
        if suite.notes:
            yield f"    <system-out>{_text(suite.notes)}</system-out>\n"
        yield "  </testsuite>\n"
    yield "</testsuites>\n"


def _totals(cases: Iterable[Case]) -> str:
    listed = list(cases)
    failures = sum(case.failure is not None for case in listed)
    skipped = sum(bool(case.skipped) for case in listed)
    seconds = sum(case.seconds for case in listed)
    return (
        f'tests="{len(listed)}" failures="{failures}" errors="0" skipped="{skipped}" '
        f'time="{seconds:.3f}"'
    )


def _render_case(suite: Suite, case: Case, logs: Mapping[str, str]) -> Iterator[str]:
    head = (
        f"    <testcase classname={_attribute(suite.name)} name={_attribute(case.name)} "
        f'time="{case.seconds:.3f}"'
    )
    parts = []
    if case.failure is not None:
        kind, message = case.failure
        text = logs.get(case.pod.uid, "") if case.pod is not None else ""
        parts.append(
            f"<failure type={_attribute(kind)} message={_attribute(message)}>"
            f"{_text(text)}</failure>"
        )
    if case.skipped:
        parts.append(f"<skipped message={_attribute(case.skipped)}/>")
    if case.notes:
        parts.append(f"<system-out>{_text(case.notes)}</system-out>")
    if not parts:
        yield f"{head}/>\n"
        return
    yield f"{head}>\n"
    for part in parts:
        yield f"      {part}\n"
    yield "    </testcase>\n"


def _text(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("\ufffd", text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
