from __future__ import annotations

import pytest
from view_kit import (
    SYNCED,
    T0,
    a_job,
    a_pod,
    added,
    ended,
    model_of,
    modified,
    running,
    waiting,
)

from bridge.cli.view.model import RunModel
from bridge.cli.view.words import code_words, duration, how_it_failed, progress
from bridge.local.store import Change
from bridge.pods import Manifest


def job_line(*objects: Manifest, now: float = T0) -> str:
    model = model_of(*objects)
    return progress(model.jobs["uid-wordcount"], now)


def test_counts_of_a_job() -> None:
    job = "wordcount"
    assert (
        job_line(
            a_job(completions=12, parallelism=4),
            a_pod("a", ended(), job=job, index=0),
            a_pod("b", running(), job=job, index=1),
            a_pod("c", waiting("ImagePullBackOff", "no such image"), job=job, index=2),
            a_pod("d", job=job, index=3),
        )
        == "1/12 done, 1 running, 2 waiting (1 ImagePullBackOff, 1 starting)"
    )


def test_a_pod_that_changes_is_counted_once() -> None:
    model = model_of(a_job())
    for state in (None, running(), running(), ended()):
        model.apply(modified(a_pod("a", state, job="wordcount", index=0)))
    job = model.jobs["uid-wordcount"]
    assert progress(job, T0) == "1/3 done"
    assert sum(job.counts.values()) == 1
    assert not any(job.reasons.values())


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (3.0, "0/3 done, 1 waiting (back-off 8s), 1 failed"),
        (30.0, "0/3 done, 1 starting, 1 failed"),
    ],
)
def test_a_failed_pod_that_is_not_replaced_yet_waits(seconds: float, expected: str) -> None:
    failed = a_pod("a", ended(3, 1), job="wordcount", index=0)
    assert job_line(a_job(), failed, now=T0 + seconds) == expected


@pytest.mark.parametrize("indexed", [True, False])
def test_a_pod_in_place_of_a_failed_one_is_a_retry(indexed: bool) -> None:
    index = 0 if indexed else None
    model = model_of(
        a_job(indexed=indexed),
        a_pod("a", ended(3, 1), job="wordcount", index=index),
    )
    again = a_pod("b", running(11), job="wordcount", index=index, serial=1, created=11)
    news = model.apply(added(again))
    assert news[0].retry
    assert progress(model.jobs["uid-wordcount"], T0) == "0/3 done, 1 running, 1 retried"


def test_restarts_in_place_are_retries() -> None:
    crashed = a_pod(
        "a", waiting("CrashLoopBackOff"), "Running", job="wordcount", last=ended(1), restarts=2
    )
    line = job_line(a_job(indexed=False), crashed)
    assert line == "0/3 done, 1 waiting (restart back-off), 2 retried"


def test_pods_that_nobody_wants_any_more_have_not_failed() -> None:
    stopped = a_pod("a", ended(143), job="wordcount", index=0, deleted_for="SuccessPolicy")
    model = model_of(a_job(ended_as=("Complete", "SuccessPolicy", "")), stopped)
    assert model.pods["uid-a"].standing == "stopped"
    assert model.jobs["uid-wordcount"].failed == 0


def test_a_work_queue_has_no_total() -> None:
    assert job_line(
        a_job(completions=None, indexed=False), a_pod("a", ended(), job="wordcount")
    ) == ("1 done")


def test_a_suspended_job_says_so() -> None:
    assert job_line(a_job(suspend=True)) == "0/3 done, 3 waiting (suspended)"


def test_a_deleted_pod_without_an_end_is_no_longer_counted_as_running() -> None:
    model = model_of(a_pod("a", running()))
    model.apply(Change("DELETED", "Pod", a_pod("a", running())))
    assert model.pods["uid-a"].standing == "stopped"


def test_what_the_provider_waits_for_is_the_reason() -> None:
    pod = a_pod("a", reason="OutOfCapacity", message="no room", backend="")
    assert model_of(pod).pods["uid-a"].why == "OutOfCapacity"


def test_news_of_one_pod() -> None:
    model = RunModel()
    assert model.apply(SYNCED) == []
    news = [
        (one.kind, one.phase)
        for state in (None, running(), running(), ended(3))
        for one in model.apply(modified(a_pod("a", state)))
    ]
    assert news == [
        ("pod", "waiting"),
        ("container", "waiting"),
        ("pod", "running"),
        ("container", "running"),
        ("pod", "failed"),
        ("container", "terminated"),
    ]


@pytest.mark.parametrize(
    ("code", "signal", "reason", "expected"),
    [
        (3, 0, "Error", "exit code 3"),
        (126, 0, "", "exit code 126: the command cannot be executed"),
        (127, 0, "Error", "exit code 127: command not found"),
        (137, 9, "Error", "exit code 137: killed by SIGKILL (out of memory?)"),
        (139, 0, "Error", "exit code 139: segmentation fault (SIGSEGV)"),
        (143, 15, "Error", "exit code 143: ended by SIGTERM"),
        (129, 0, "Error", "exit code 129: killed by SIGHUP"),
        (192, 0, "Error", "exit code 192: killed by SIGRTMAX"),
        (255, 0, "Error", "exit code 255"),
        (0, 9, "Error", "exit code 0: killed by SIGKILL"),
        (
            137,
            0,
            "OOMKilled",
            "exit code 137: killed for using more memory than its limit (OOMKilled)",
        ),
        (
            137,
            0,
            "ContainerStatusUnknown",
            "exit code 137: how it ended is not known (ContainerStatusUnknown)",
        ),
        (1, 0, "Peculiar", "exit code 1: Peculiar"),
    ],
)
def test_exit_codes_in_words(code: int, signal: int, reason: str, expected: str) -> None:
    assert code_words(code, signal, reason) == expected


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (a_pod("a", ended(3)), "exit code 3"),
        (
            a_pod("a", containers={"web": ended(0), "db": ended(1)}),
            "exit code 1 (container db)",
        ),
        (
            a_pod("a", ended(143), "Failed", reason="DeadlineExceeded"),
            "ran longer than activeDeadlineSeconds (DeadlineExceeded); "
            "exit code 143: ended by SIGTERM",
        ),
        (
            a_pod("a", phase="Failed", reason="Unsupported", message="Pod was rejected: no GPU"),
            "Unsupported: Pod was rejected: no GPU",
        ),
        (
            a_pod("a", ended(128, reason="StartError", message="no such file\nfoo")),
            "exit code 128: the container could not be started (StartError): no such file foo",
        ),
        (a_pod("a", phase="Failed"), "for no known reason"),
    ],
)
def test_failures_in_words(pod: Manifest, expected: str) -> None:
    assert how_it_failed(model_of(pod).pods["uid-a"]) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "-"), (4.25, "4.2 s"), (3.0, "3 s"), (185.0, "3 min 5 s"), (7800.0, "2 h 10 min")],
)
def test_durations(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected
