"""What keeps a run on a real account cheap and its transcript clean; and what a replay compares."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions as sdk

from adapters.fargate import Options
from adapters.fargate.errors import Refused
from bridge.errors import (
    Ambiguous,
    BridgeError,
    Invalid,
    QuotaExceeded,
    Throttled,
    Unauthorized,
    Unavailable,
)
from tools.real import shapes, work
from tools.real.account import _Broom
from tools.real.meter import Meter, Terms
from tools.real.recorder import Recorder
from tools.real.redact import Redactor
from tools.real.replay import Bindings, read

ACCOUNT = "210987654321"
TASK = f"arn:aws:ecs:eu-west-2:{ACCOUNT}:task/pods/0f3c9a7be1d24c558a0b6f1e2d3c4b5a"


def redactor() -> Redactor:
    known = {"pods": "cluster", "acme-data": "bucket", "execution-role": "role"}
    return Redactor({ACCOUNT: "account", **known})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (TASK, "arn:aws:ecs:eu-west-2:<account-1>:task/<cluster-1>/<hex-1>"),
        (
            f"User: arn:aws:sts::{ACCOUNT}:assumed-role/Admin/ann@acme.example may not",
            "User: arn:aws:sts::<account-1>:assumed-role/<principal-1> may not",
        ),
        (
            # A known role's name is not the end of it.
            f"arn:aws:sts::{ACCOUNT}:assumed-role/execution-role/ann.smith, ann@acme.example.",
            "arn:aws:sts::<account-1>:assumed-role/<principal-1>, <email-1>.",
        ),
        (f"arn:aws:iam::{ACCOUNT}:role/execution-role.", "arn:aws:iam::<account-1>:role/<role-1>."),
        (
            f"User: arn:aws:sts::{ACCOUNT}:federated-user/ann.smith is not authorized",
            "User: arn:aws:sts::<account-1>:federated-user/<principal-1> is not authorized",
        ),
        ("AROAIOSFODNN7EXAMPLE:ann.smith", "<key-1>"),
        (
            "a service control policy: arn:aws:organizations::111122223333:policy/o-a1b2c3d4e5/"
            "service_control_policy/p-9x8y7z6w",
            "a service control policy: arn:aws:organizations::<account-2>:policy/<principal-1>",
        ),
        (
            "o-a1b2c3d4e5/r-ab12/ou-ab12-cd34ef56 has p-9x8y7z6w, for-ever and sh -c",
            "<organization-1>/<organization-2>/<organization-3> has <organization-4>, "
            "for-ever and sh -c",
        ),
        ("arn:aws:iam::111122223333:role/x/y", "arn:aws:iam::<account-2>:role/<principal-1>"),
        ("s3://acme-data/k in subnet-0a1b2c3d", "s3://<bucket-1>/k in <subnet-1>"),
        ("ASIAIOSFODNN7EXAMPLE and AKIAIOSFODNN7EXAMPLE", "<key-1> and <key-2>"),
        ("10.1.2.3, 10.1.2.3, fd00:ec2::1f", "<ip-1>, <ip-1>, <ip-2>"),
        ("ip-10-1-2-3.eu-west-2.compute.internal", "<host-1>"),
        ("02:ab:00:00:00:01 eni-0a1b2c3d4e5f60718", "<mac-1> <eni-1>"),
        ("FQoGZXIvYXdzEJr1K2n5QEXAMPLExyzTOKENxyzabc0", "<opaque-1>"),
        ("podbridge.io/pod", "podbridge.io/pod"),
        ("tripods and pods-2", "tripods and pods-2"),
        ("Capacity is unavailable at this time.", "Capacity is unavailable at this time."),
    ],
)
def test_texts_keep_their_form(given: str, expected: str) -> None:
    assert redactor().text(given) == expected


def test_what_nobody_has_thought_of_is_out() -> None:
    one = redactor()
    environment = [{"name": "WORD", "value": "open sesame"}]
    found = one.value(
        {
            "overrides": {"environment": environment, "command": ["-c", "echo open sesame"]},
            "lastStatus": "RUNNING",
            "novelty": "of next year",
            "tags": [{"key": "cost-centre"}, {"key": "podbridge.io/pod"}],
            "count": 1,
        }
    )
    assert found == {
        "overrides": {
            "environment": [{"name": "WORD", "value": "<value-1>"}],
            "command": ["-c", "echo <value-1>"],
        },
        "lastStatus": "RUNNING",
        "novelty": "<novelty-1>",
        "tags": [{"key": "<key-1>"}, {"key": "podbridge.io/pod"}],
        "count": 1,
    }
    assert one.value({"other": "of next year"}) == {"other": "<novelty-1>"}


def test_a_call_is_learned_from_before_it_is_redacted() -> None:
    found = redactor().value(
        {
            "command": ["echo open sesame"],
            "environment": [{"name": "WORD", "value": "open sesame"}],
        }
    )
    assert found["command"] == ["echo <value-1>"]


def test_the_asked_is_learned_from_the_answer() -> None:
    out = io.StringIO()
    recorder = Recorder(out, redactor(), lambda: 0.0)
    context: dict[str, Any] = {}
    recorder._asked({"reason": "open sesame"}, context)
    recorder._note(("ecs", "StopTask"), context, {"answer": {"tags": [{"value": "open sesame"}]}})
    line = json.loads(out.getvalue())
    assert line["parameters"] == {"reason": "<value-1>"}


DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("image", "said", "expected"),
    [
        (
            "registry.acme.example/secret/box:1",
            f"registry.acme.example/secret/box@{DIGEST}",
            "<image-2>@<digest-1>",
        ),
        (
            "registry.acme.example:5000/secret/box",
            "Get https://registry.acme.example:5000/v2/secret/box/manifests/1: not found",
            "Get https://<registry-1>/v2/<repository-1>/manifests/1: not found",
        ),
        (
            f"registry.acme.example/secret/box:1@{DIGEST}",
            "registry.acme.example/secret/box:2",
            "<image-2>:2",
        ),
        (
            "public.ecr.aws/acme/box:1",
            "public.ecr.aws/acme/box:2, public.ecr.aws/v2/acme/box",
            "<image-2>:2, public.ecr.aws/v2/<repository-1>",
        ),
        ("acme/box:1", f"docker.io/acme/box@{DIGEST}", "docker.io/<image-2>@<digest-1>"),
        ("alpine:3", f"docker.io/library/alpine@{DIGEST}", "docker.io/library/alpine@<digest-1>"),
    ],
)
def test_an_image_is_known_without_its_tag(image: str, said: str, expected: str) -> None:
    one = Redactor({})
    one.image(image)
    assert one.text(said) == expected
    assert one.text(image) == "<image-1>"


# Money.


class Bill:
    """A meter, and the calls that it hears of."""

    def __init__(self, **terms: Any) -> None:
        self.now = 1000.0
        # A cent a minute.
        given = {"hourly": Decimal("0.6"), "least": 60.0, "longest": 600.0, "tasks": 9, **terms}
        self.meter = Meter(Terms(**given), lambda: self.now)

    def ask(self, token: str) -> dict[str, Any]:
        context: dict[str, Any] = {}
        self.meter._asked({"clientToken": token}, context)
        return context

    def answer(self, context: Any, status: int = 200, arn: str = "") -> None:
        tasks = [{"taskArn": arn}] if arn else []
        meta = {"HTTPStatusCode": status}
        self.meter._launched({"ResponseMetadata": meta, "tasks": tasks}, context)

    def stopped(self, arn: str, seconds: float) -> None:
        begun = datetime(2026, 1, 1, tzinfo=UTC)
        task = {"taskArn": arn, "lastStatus": "STOPPED", "createdAt": begun}
        self.meter._seen({"tasks": [{**task, "stoppedAt": begun + timedelta(seconds=seconds)}]})


def test_a_task_counts_by_its_longest_until_it_has_ended() -> None:
    bill = Bill(limit=Decimal("0.20"))
    bill.answer(bill.ask("a"), arn="t1")
    assert bill.meter.committed == Decimal("0.1")
    assert bill.meter.spent == Decimal("0.01")
    bill.now += 120
    assert bill.meter.spent == Decimal("0.02")
    assert bill.meter.running == ["t1"]
    bill.ask("b")
    with pytest.raises(QuotaExceeded, match=r"limit of \$0.2000 could be passed"):
        bill.ask("c")
    with pytest.raises(QuotaExceeded):
        bill.meter.check()
    bill.stopped("t1", 3)
    assert bill.meter.committed == Decimal("0.11")
    assert bill.meter.running == []


def test_only_what_was_refused_is_not_counted() -> None:
    bill = Bill(limit=Decimal(1), tasks=2)
    bill.answer(bill.ask("a"), status=400)
    bill.answer(bill.ask("b"))
    assert bill.meter.tasks == 0
    lost = bill.ask("c")
    bill.answer(lost, status=500)
    bill.ask("c")
    assert (bill.meter.tasks, bill.meter.unknown) == (1, 1)
    bill.answer(bill.ask("d"), arn="t1")
    with pytest.raises(QuotaExceeded, match="2 tasks were started, and 2 were reckoned with"):
        bill.ask("e")


@pytest.mark.parametrize("first", ["a 5xx", "no answer", "not answered yet"])
@pytest.mark.parametrize("then", ["a 4xx", "a failure", "not sent"])
def test_what_may_run_counts_whatever_its_token_is_told_later(first: str, then: str) -> None:
    bill = Bill(limit=Decimal(1))
    asked = bill.ask("a")
    if first == "a 5xx":
        bill.answer(asked, status=500)
    elif first == "no answer":
        bill.meter._lost(sdk.ReadTimeoutError(endpoint_url="x"), asked)
    again = bill.ask("a")
    if then == "not sent":
        bill.meter._lost(sdk.EndpointConnectionError(endpoint_url="x"), again)
    else:
        bill.answer(again, status=400 if then == "a 4xx" else 200)
    assert (bill.meter.tasks, bill.meter.unknown) == (1, 1)
    assert bill.meter.committed == Decimal("0.1")
    bill.answer(bill.ask("a"), arn="t1")
    assert (bill.meter.running, bill.meter.unknown) == (["t1"], 0)


def test_what_was_not_sent_does_not_count() -> None:
    bill = Bill(limit=Decimal(1))
    bill.meter._lost(sdk.EndpointConnectionError(endpoint_url="x"), bill.ask("a"))
    assert bill.meter.tasks == 0


def test_how_many_tasks_there_can_be() -> None:
    some = ["test_facts_are_whole", "test_ends_with_its_own_code[3]", "test_vanishes_remotely"]
    assert work.most(some) == 4
    assert work.most(["test_slow_lists_lose_nothing"]) == 21


# What is left.


class Left:
    """An account with three tasks and an object, of which some calls are refused."""

    def __init__(self, *refusals: tuple[str, BridgeError], patience: float = 0.0) -> None:
        self._refusals = list(refusals)
        self.calls: list[tuple[str, str]] = []
        self.deleted = False
        self.ending = 2
        """Looks until what was stopped has ended."""
        self._clients = self._tasks = self._store = self
        self._options = Options(
            bucket="acme",
            subnets=("subnet-0123456789abcdef0",),
            security_groups=("sg-0123456789abcdef0",),
            execution_role=f"arn:aws:iam::{ACCOUNT}:role/execution",
            owner="podbridge-real-00000000",
            poll=0.001,
        )
        adapter: Any = self
        self.broom = _Broom(adapter, self._options, time.monotonic() + patience)

    def _refuse(self, what: str) -> None:
        for one in self._refusals:
            if one[0] == what:
                self._refusals.remove(one)
                raise one[1]

    async def call(self, service: str, action: str, **given: Any) -> Any:
        self.calls.append((action, given.get("task", "")))
        self._refuse(given.get("task", action))
        return {}

    async def all(self) -> set[str]:
        self._refuse("all")
        return {"t1", "t2", "t3"}

    async def describe(self, arns: Sequence[str]) -> Any:
        stopped = {task for action, task in self.calls if action == "stop_task"}
        self.ending -= bool(stopped)
        state = "RUNNING" if self.ending > 0 or not stopped else "STOPPED"
        mark = f"{self._options.owner}/x"
        return {one: {"startedBy": mark, "lastStatus": state} for one in arns}

    async def payloads(self) -> set[str]:
        self._refuse("payloads")
        return set()

    async def marks(self) -> set[str]:
        return {"x"}

    async def forget_payloads(self, keys: Any) -> None:
        pass

    async def forget_order(self, mark: str) -> None:
        self.deleted = True

    async def sweep(self) -> list[str]:
        await self.broom.tasks(["t4"])
        await self.broom.objects()
        return self.broom.left

    @property
    def asked(self) -> list[str]:
        """The tasks that were to be stopped, in that order."""
        return [task for action, task in self.calls if action == "stop_task"]


@pytest.mark.parametrize("error", [Throttled("slow"), Unavailable("down"), Ambiguous("lost")])
async def test_what_passes_is_tried_again(error: BridgeError) -> None:
    place = Left(("t1", error), ("t1", error), ("all", error), ("payloads", error), patience=9)
    assert await place.sweep() == []
    assert sorted(place.asked) == ["t1", "t1", "t1", "t2", "t3", "t4"]
    assert place.deleted
    assert place.ending == 0


@pytest.mark.parametrize("error", [Throttled("slow"), Refused("not so")])
async def test_one_task_that_cannot_be_stopped_keeps_none_of_the_others(error: BridgeError) -> None:
    place = Left(("t1", error), patience=9 if isinstance(error, Refused) else 0)
    place.ending = 0
    words = f"1 tasks, which end by themselves once they have started ({error.message})"
    assert await place.sweep() == [words]
    assert sorted(place.asked) == ["t1", "t2", "t3", "t4"]
    assert place.deleted


async def test_who_may_stop_nothing_removes_the_rest() -> None:
    refusals = [(one, Unauthorized("may not")) for one in ("t1", "t2", "t3", "t4")]
    place = Left(*refusals, patience=9)
    words = "4 tasks, which end by themselves once they have started (may not)"
    assert await place.sweep() == [words]
    assert len(place.asked) == 1
    assert place.deleted


async def test_tasks_that_cannot_be_listed_are_stopped_where_they_are_known() -> None:
    place = Left(("all", Unauthorized("may not")), patience=9)
    (words,) = await place.sweep()
    assert words.endswith("once they have started, as far as they are not known (may not)")
    assert place.asked == ["t4"]


async def test_what_goes_on_running_is_told_of() -> None:
    place = Left()
    place.ending = 99
    (words,) = await place.sweep()
    assert words.startswith("4 tasks, ")
    assert words.endswith("(told to stop, and not seen to have ended)")
    assert place.deleted


async def test_objects_that_stay_are_told_of() -> None:
    place = Left(("payloads", Unauthorized("may not")), patience=9)
    assert await place.sweep() == ["objects in the bucket (may not)"]


# Replays.


def side(operation: str, *answers: Any) -> shapes.Side:
    made = shapes.Side()
    for one in answers:
        made.add(operation, one)
    return made


def tasks(state: str, **more: Any) -> Any:
    return {"tasks": [{"taskArn": "a", "lastStatus": state, **more}]}


def test_differences_are_told_by_state() -> None:
    moment = {"$time": 1.5}
    recorded = side(
        "ecs:DescribeTasks",
        tasks("PENDING", pullStartedAt=moment),
        tasks("RUNNING", pullStartedAt=moment, startedAt=moment, launchType="FARGATE"),
        tasks("STOPPED", new={"a": "b"}, attachments=[{"id": "x"}]),
    )
    played = side(
        "ecs:DescribeTasks",
        tasks("PENDING"),
        tasks("RUNNING", pullStartedAt="now", startedAt=moment, launchType="EC2"),
        tasks("STOPPED", attachments=[]),
    )
    assert list(shapes.differences(recorded, recorded)) == []
    assert list(shapes.differences(recorded, played)) == [
        "ecs:DescribeTasks: only recorded: tasks[PENDING].pullStartedAt: time",
        "ecs:DescribeTasks: only recorded: tasks[RUNNING].launchType = FARGATE",
        "ecs:DescribeTasks: only recorded: tasks[RUNNING].pullStartedAt: time",
        "ecs:DescribeTasks: only recorded: tasks[STOPPED].attachments[]: object",
        "ecs:DescribeTasks: only recorded: tasks[STOPPED].new: object",
        "ecs:DescribeTasks: only simulated: tasks[RUNNING].pullStartedAt: text",
    ]


def test_states_come_in_an_order() -> None:
    recorded = side("x", tasks("PENDING"), tasks("RUNNING"), tasks("STOPPED"))
    fewer = side("x", tasks("PENDING"), tasks("STOPPED"))
    other = side("x", tasks("RUNNING"), tasks("PENDING"), tasks("STOPPED"))
    assert list(shapes.differences(recorded, recorded)) == []
    assert list(shapes.differences(fewer, recorded)) == []
    assert list(shapes.differences(recorded, fewer)) == ["states of a task: only recorded: RUNNING"]
    assert list(shapes.differences(recorded, other)) == [
        "states of a task: recorded PENDING before RUNNING, simulated after it"
    ]


def test_one_task_has_a_state_too() -> None:
    (one,) = tasks("STOPPED")["tasks"]
    assert set(shapes.shape({"task": one})) == {
        "task[STOPPED]: object",
        "task[STOPPED].taskArn: text",
        "task[STOPPED].lastStatus: text",
    }
    assert shapes.states({"task": one}) == {"a": shapes.ORDER.index("STOPPED")}


def test_placeholders_take_what_answers_have_in_their_place() -> None:
    bound = Bindings({"<account-1>": "123456789012"})
    recorded = {"arn": "arn:aws:ecs:r:<account-1>:task/c/<hex-1>", "ids": ["<subnet-1>"]}
    played = {"arn": "arn:aws:ecs:r:123456789012:task/c/abc", "ids": ["subnet-1"]}
    bound.learn(recorded, played)
    assert bound.given("pod/main/<hex-1> <subnet-1>") == "pod/main/abc subnet-1"
    assert bound.given({"Body": {"$bytes": 5}}) == {"Body": b"A=xxx"}
    # Nobody has said what these are.
    assert bound.given(["<subnet-2>", "<word-7>"]) == ["subnet-00000000000000002", "word-7"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", 'the first line has no "transcript": 1'),
        ('{"transcript": 9}', 'the first line has no "transcript": 1'),
        ('{"transcript": 1}\n{"n": 1}', "line 2 makes no sense: 'parameters'"),
        ("[", "line 1 makes no sense"),
    ],
)
def test_what_is_no_transcript(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(content)
    with pytest.raises(Invalid, match=words):
        read(file)


def test_a_transcript_is_json_by_lines(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    call = {"n": 1, "service": "ecs", "operation": "ListTasks", "parameters": {}}
    file.write_text("\n".join(map(json.dumps, ({"transcript": 1, "simulated": True}, call))))
    assert read(file).calls == [call]
