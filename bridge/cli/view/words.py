"""How ends, waits and counts are put into words. Pure."""

from __future__ import annotations

import signal

from bridge.cli.view.model import News, RunModel
from bridge.cli.view.state import STARTING, JobState, PodState

_CODES = {
    1: "",
    2: "",
    126: "the command cannot be executed",
    127: "command not found",
    128: "invalid exit argument",
    134: "aborted (SIGABRT)",
    137: "killed by SIGKILL (out of memory?)",
    139: "segmentation fault (SIGSEGV)",
    143: "ended by SIGTERM",
}
"""Exit codes as shells and container runtimes use them."""

_REASONS = {
    "BackoffLimitExceeded": "more pods failed than backoffLimit allows",
    "ContainerStatusUnknown": "how it ended is not known",
    "CreateContainerConfigError": "its configuration refers to something that is not there",
    "CreateContainerError": "the container could not be created",
    "DeadlineExceeded": "ran longer than activeDeadlineSeconds",
    "ErrImageNeverPull": "the image is not there, and imagePullPolicy is Never",
    "ErrImagePull": "the image could not be pulled",
    "Evicted": "evicted by the backend",
    "FailedIndexes": "indexes failed for good",
    "ImagePullBackOff": "the image could not be pulled",
    "InvalidImageName": "the image's name is not valid",
    "MaxFailedIndexesExceeded": "more indexes failed than maxFailedIndexes allows",
    "OOMKilled": "killed for using more memory than its limit",
    "OutOfCapacity": "the backend has no room",
    "PodFailurePolicy": "podFailurePolicy ends the Job",
    "QuotaExceeded": "the account's or the operator's limit is reached",
    "RunContainerError": "the container could not be started",
    "StartError": "the container could not be started",
}
"""Reasons of Kubernetes and of ours in plain words."""

_SAID_ANYWAY = frozenset({"BackOff", "Failed", "Killing", "FailedMount"})
"""Events that only repeat what a pod's own state says."""


def duration(seconds: float | None) -> str:
    """`4.2 s`, `3 min 5 s`, `2 h 10 min`; a dash where it is not known."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds != int(seconds) else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def reason_words(reason: str) -> str:
    """`the image could not be pulled (ErrImagePull)`, or the reason as it is."""
    words = _REASONS.get(reason)
    return f"{words} ({reason})" if words else reason


def code_words(code: int, number: int = 0, reason: str = "") -> str:
    """`exit code 137: killed by SIGKILL (out of memory?)`; `number`: the signal, 0 for none."""
    said = f"exit code {code}"
    if reason not in ("", "Error", "Completed"):
        return f"{said}: {reason_words(reason)}"
    if number and number != code - 128:
        return f"{said}: killed by {_signal(number)}"
    words = _CODES.get(code)
    if words is None and 128 < code <= 128 + 64:
        words = f"killed by {_signal(code - 128)}"
    return f"{said}: {words}" if words else said


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def how_it_failed(pod: PodState) -> str:
    """Why a pod failed, in one clause."""
    culprit = pod.culprit
    if culprit is not None and culprit.exit_code is not None:
        words = code_words(culprit.exit_code, culprit.signal, culprit.end_reason)
        if culprit.end_message and culprit.end_reason not in ("", "Error", "Completed"):
            words = f"{words}: {one_line(culprit.end_message)}"
        if pod.several:
            words = f"{words} (container {culprit.name})"
        if not pod.reason:
            return words
        return f"{reason_words(pod.reason)}; {words}"
    parts = [reason_words(pod.reason), one_line(pod.message)]
    return ": ".join(part for part in parts if part) or "for no known reason"


def one_line(text: str, limit: int = 300) -> str:
    """Text of others, fit for one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def waits(job: JobState, now: float) -> str:
    """`2 waiting (back-off 8s)`, `3 starting`; empty where nothing waits."""
    found = job.waiting(now)
    total = sum(found.values())
    if not total:
        return ""
    if set(found) == {STARTING}:
        return f"{total} {STARTING}"
    if len(found) == 1:
        return f"{total} waiting ({next(iter(found))})"
    listed = sorted(found.items(), key=lambda one: -one[1])
    return f"{total} waiting ({', '.join(f'{count} {why}' for why, count in listed)})"


def counts(job: JobState, now: float) -> list[str]:
    """What there is to say of a Job's pods besides how many are done."""
    parts = []
    if job.running:
        parts.append(f"{job.running} running")
    if said := waits(job, now):
        parts.append(said)
    if lasting := max(0, job.failed - job.replaced):
        parts.append(f"{lasting} failed")
    if job.retried:
        parts.append(f"{job.retried} retried")
    return parts


def done(job: JobState) -> str:
    """`3/12`, or `3` for a work queue."""
    return f"{job.done}/{job.total}" if job.total is not None else str(job.done)


def progress(job: JobState, now: float) -> str:
    """`3/12 done, 4 running, 2 waiting (back-off 8s), 1 retried`."""
    return ", ".join([f"{done(job)} done", *counts(job, now)])


def job_ended(job: JobState, now: float) -> str:
    """How a Job ended."""
    reason, message = job.end
    if job.phase == "Complete":
        return f"succeeded: {progress(job, now)}"
    words = reason_words(reason)
    if message:
        words = f"{words}: {one_line(message)}"
    return f"failed: {words}; {progress(job, now)}"


def retried(pod: PodState) -> str:
    """What the pod that stands in for a failed one does."""
    if pod.index is not None:
        return f"retries index {pod.index} (attempt {pod.serial + 1})"
    return "replaces a pod that failed"


class Narrator:
    """Chooses what is worth a line of its own, each thing once, and puts it into words."""

    def __init__(self, model: RunModel) -> None:
        self._model = model
        self._told: set[tuple[str, ...]] = set()

    def lines(self, news: News, now: float) -> list[tuple[str, str]]:
        """(severity, line): severity is "good", "bad", "warn" or empty."""
        if not self._model.synced:
            return []
        match news.kind:
            case "pod":
                return self._pod(news)
            case "container":
                return self._container(news)
            case "job" if news.job is not None and news.job.over:
                if not self._first("job", news.job.uid):
                    return []
                good = news.job.phase == "Complete"
                said = f"job/{news.job.name} {job_ended(news.job, now)}"
                return [("good" if good else "bad", said)]
            case "event":
                return self._event(news)
            case "run" if news.phase == "Deleting":
                return [("warn", "deleting the run")]
        return []

    def _first(self, *key: str) -> bool:
        if key in self._told:
            return False
        self._told.add(key)
        return True

    def _pod(self, news: News) -> list[tuple[str, str]]:
        pod = news.pod
        assert pod is not None
        said = []
        if news.retry:
            said.append(("warn", f"pod/{pod.name} {retried(pod)}"))
        if pod.standing == "failed" and self._first("failed", pod.uid):
            said.append(("bad", f"pod/{pod.name} failed: {how_it_failed(pod)}"))
        if pod.standing == "waiting" and pod.why != STARTING:
            waiting = next((one for one in pod.containers if one.reason == pod.why), None)
            message = one_line(waiting.message if waiting else pod.message)
            if waiting is None or waiting.reason != "CrashLoopBackOff":
                said.extend(self._waits(pod, message))
        return said

    def _waits(self, pod: PodState, message: str) -> list[tuple[str, str]]:
        # A container that restarts is told by its own news.
        if any(one.reason == "CrashLoopBackOff" for one in pod.containers):
            return []
        if not self._first("waits", pod.job or pod.uid, pod.why):
            return []
        words = reason_words(pod.why)
        return [("warn", f"pod/{pod.name} waits: {words}{': ' if message else ''}{message}")]

    def _container(self, news: News) -> list[tuple[str, str]]:
        pod, container = news.pod, news.container
        assert pod is not None
        assert container is not None
        if not container.restarts or container.state == "waiting" or pod.over:
            return []
        if not self._first("restart", pod.uid, container.name, str(container.restarts)):
            return []
        code = container.exit_code
        ended = code_words(code, container.signal, container.end_reason) if code is not None else ""
        after = f" after {ended}" if ended and container.state == "running" else ""
        where = f" container {container.name}" if pod.several else ""
        return [("warn", f"pod/{pod.name}{where} restarted ({container.restarts}){after}")]

    def _event(self, news: News) -> list[tuple[str, str]]:
        if news.phase != "Warning" or news.reason in _SAID_ANYWAY:
            return []
        about = news.job or news.pod
        if about is None or (news.job is not None and news.job.over):
            return []
        owner = news.pod.job if news.pod is not None else ""
        if not self._first("event", owner or about.uid, news.reason, news.message):
            return []
        kind = "pod" if news.pod is not None else "job"
        return [("warn", f"{kind}/{about.name} {news.reason}: {one_line(news.message)}")]
