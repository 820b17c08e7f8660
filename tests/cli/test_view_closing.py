from __future__ import annotations

import pytest
from view_kit import a_failed_run, a_job, a_pod, ended, model_of, modified, running, waiting

from bridge.cli.view.closing import Closing, gather, rows, table_rows
from bridge.errors import NotFound
from bridge.local.store import Change
from bridge.pods import Manifest


class Logs:
    """Ends of logs; remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int, bool]] = []

    async def tail(self, pod: Manifest, container: str, lines: int, previous: bool) -> bytes:
        self.asked.append((pod["metadata"]["name"], container, lines, previous))
        return b"reading shard\n\x1b[2JKilled\xff\n"


async def closing(
    *objects: Manifest, code: int = 1, run: str = "wordcount", logs: Logs | None = None
) -> Closing:
    return await gather(model_of(*objects), run, code, 13.04, (logs or Logs()).tail)


def text(one: Closing) -> list[str]:
    return [line.text for line in one.lines()]


async def test_a_failed_run() -> None:
    logs = Logs()
    assert text(await closing(*a_failed_run(), logs=logs)) == [
        "POD                JOB        BACKEND  INDEX          ENDED      TOOK  EXIT",
        "wordcount-1-bbbbb  wordcount  process  1              failed     1 s   3",
        "wordcount-2-ccccc  wordcount  process  2              failed     2 s   137",
        "wordcount-2-eeeee  wordcount  process  2 (attempt 2)  failed     1 s   137",
        "wordcount-0-aaaaa  wordcount  process  0              succeeded  4 s   0",
        "wordcount-1-ddddd  wordcount  process  1 (attempt 2)  succeeded  1 s   0",
        "",
        "job/wordcount: wordcount-2-ccccc (index 2), wordcount-2-eeeee (index 2): "
        "exit code 137: killed by SIGKILL (out of memory?)",
        "  last lines of wordcount-2-ccccc:",
        "    reading shard",
        "    ^[[2JKilled\ufffd",
        "  podbridge logs wordcount wordcount-2-ccccc",
        "  podbridge describe wordcount wordcount-2-ccccc",
        "",
        "wordcount: failed in 13 s (5 pods, 3 failed, 2 retried)",
    ]
    assert logs.asked == [("wordcount-2-ccccc", "main", 10, False)]


async def test_what_succeeded_needs_few_words() -> None:
    one = await closing(a_pod("hello", ended()), code=0, run="hello")
    assert text(one) == ["hello: succeeded in 13 s (exit code 0)"]
    many = await closing(a_pod("a", ended()), a_pod("b", ended()), code=0, run="two")
    assert text(many)[-1] == "two: succeeded in 13 s (2 pods)"


async def test_a_long_table_is_cut_and_counted() -> None:
    pods = [a_pod(f"p-{at}", ended(at % 100 == 7)) for at in range(500)]
    shown, rest = table_rows(rows(model_of(*pods)))
    assert [row.standing for row in shown[:6]] == ["failed"] * 5 + ["succeeded"]
    assert rest == "... and 480 more succeeded"


async def test_pods_of_one_cause_share_one_block() -> None:
    pods = [a_pod(f"p-{at}", containers={"x": ended(0), "y": ended(2)}) for at in range(5)]
    logs = Logs()
    made = await closing(*pods, run="r", logs=logs)
    blocks = [line.text for line in made.lines() if line.part == "cause" and line.text]
    assert blocks[0] == "p-0, p-1, p-2 and 2 more: exit code 2 (container y)"
    assert blocks[-2:] == ["  podbridge logs r p-0 -c y", "  podbridge describe r p-0"]
    assert logs.asked == [("p-0", "y", 10, False)]


@pytest.mark.parametrize(
    ("pod", "code", "expected", "commands"),
    [
        (
            a_pod("a", phase="Failed", reason="Unsupported", message="Pod was rejected: GPU"),
            1,
            "a: Unsupported: Pod was rejected: GPU",
            ["podbridge describe r a"],
        ),
        (
            a_pod("a", ended(143), "Failed", reason="DeadlineExceeded", message="too long"),
            1,
            "a: ran longer than activeDeadlineSeconds (DeadlineExceeded): too long",
            ["podbridge logs r a", "podbridge describe r a"],
        ),
        (
            a_pod("a", ended(128, reason="StartError", message="no such file")),
            1,
            "a: exit code 128: the container could not be started (StartError): no such file",
            ["podbridge logs r a", "podbridge describe r a"],
        ),
        (
            a_pod("a", waiting("ErrImagePull", "denied")),
            124,
            "a: waiting: the image could not be pulled (ErrImagePull): denied",
            ["podbridge describe r a"],
        ),
        (
            a_pod("a", reason="OutOfCapacity", message="no room in eu-1", backend=""),
            3,
            "a: waiting: the backend has no room (OutOfCapacity): no room in eu-1",
            ["podbridge describe r a"],
        ),
    ],
)
async def test_causes(pod: Manifest, code: int, expected: str, commands: list[str]) -> None:
    made = await closing(pod, code=code, run="r")
    (cause,) = made.causes
    assert next(made.cause_lines(cause)).text == expected
    assert cause.commands("r") == commands


async def test_a_job_that_ran_out_of_time_says_so_once() -> None:
    job = "wordcount"
    made = await closing(
        a_job(ended_as=("Failed", "DeadlineExceeded", "active for longer than 5 s")),
        a_pod("w-0", ended(143), job=job, index=0, deleted_for="DeadlineExceeded"),
        a_pod("w-1", ended(143), job=job, index=1, deleted_for="DeadlineExceeded"),
    )
    assert [line.text for line in made.lines() if line.bad and line.part == "cause"] == [
        "job/wordcount: w-0 (index 0), w-1 (index 1): "
        "ran longer than activeDeadlineSeconds (DeadlineExceeded): active for longer than 5 s"
    ]


async def test_pods_that_the_failing_job_killed_are_no_cause() -> None:
    job = "wordcount"
    made = await closing(
        a_job(indexed=False, ended_as=("Failed", "BackoffLimitExceeded", "")),
        a_pod("bad", ended(1), job=job),
        a_pod("killed", ended(143), job=job, deleted_for="BackoffLimitExceeded"),
    )
    assert [[pod.name for pod in cause.pods] for cause in made.causes] == [["bad"]]


async def test_an_interrupted_run_blames_nobody() -> None:
    made = await closing(a_pod("a", ended(143), deleted_for=""), code=130, run="r")
    assert made.causes == ()
    assert made.summary() == "r: interrupted after 13 s (exit code 143, 1 failed)"


async def test_a_restarted_container_s_log_is_that_of_the_run_that_failed() -> None:
    logs = Logs()
    pod = a_pod("a", running(5), "Failed", last=ended(4), restarts=1)
    await closing(pod, logs=logs)
    assert logs.asked == [("a", "main", 10, True)]


async def test_a_log_that_is_gone_hides_nothing() -> None:
    async def gone(pod: Manifest, container: str, lines: int, previous: bool) -> bytes:
        raise NotFound("no log here")

    made = await gather(model_of(a_pod("a", ended(3))), "r", 1, 1.0, gone)
    assert "    (its log cannot be read: no log here)" in text(made)


async def test_secrets_are_not_told() -> None:
    assert "hunter2" not in "".join(text(await closing(*a_failed_run())))


async def test_what_a_stopped_run_waited_for_is_told_and_no_command_that_cannot_work() -> None:
    model = model_of(a_pod("a", waiting("ErrImagePull", "denied")))
    model.apply(Change("MODIFIED", "Run", {"phase": "Deleting"}))
    end = {"exitCode": 137, "reason": "ContainerStatusUnknown"}
    model.apply(modified(a_pod("a", {"terminated": end}, deleted_for="")))
    logs = Logs()
    made = await gather(model, "r", 124, 13.04, logs.tail)
    assert "a: waiting: the image could not be pulled (ErrImagePull): denied" in text(made)
    assert not any("podbridge" in line for line in text(made))
    assert logs.asked == []


async def test_a_run_that_was_deleted_from_elsewhere() -> None:
    model = model_of(a_pod("it", ended()))
    model.deleted = True
    one = await gather(model, "it", 1, 13.04, Logs().tail, cut_short=True)
    assert one.phase == "Deleted"
    assert text(one)[-1] == "it: deleted after 13 s (1 pod)"
