"""Tasks that really run: their states, containers, volumes, secrets, logs and ends."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_kit import Cloud, Ecs, awslogs, container, exits, running, shell, until

from adapters.simulators.aws import Settings, Timing
from adapters.simulators.aws.ecs.sources import parse_environment, split_secret

pytestmark = pytest.mark.slow

LIMITS = {
    name: {"burst": 10_000, "per_second": 10_000}
    for name in ("ecs-definitions", "ecs-read-tasks", "logs-read")
}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    # Short states, but a scale that leaves containers the real seconds that they need to stop.
    timing = Timing(provisioning=4, pulling=4, activating=1, deactivating=1, deprovisioning=4)
    settings = Settings(fargate_vcpus=100, buckets=LIMITS, timing=timing)
    with running(settings, scale=20) as cloud:
        cloud.client("logs").create_log_group(logGroupName="work")
        yield cloud


@pytest.fixture
def ecs(cloud: Cloud) -> Ecs:
    return Ecs(cloud)


def log(cloud: Cloud, task: str, name: str = "main") -> list[str]:
    """The lines of a container in CloudWatch Logs."""
    answer = cloud.client("logs").get_log_events(
        logGroupName="work", logStreamName=f"p/{name}/{task.rpartition('/')[2]}", startFromHead=True
    )
    return [one["message"] for one in answer["events"]]


def says(cloud: Cloud, task: str, line: str, name: str = "main") -> None:
    """Waits until a container has written that line."""
    until(lambda: _has_log(cloud, task, name) and line in log(cloud, task, name))


def _has_log(cloud: Cloud, task: str, name: str) -> bool:
    prefix = f"p/{name}/{task.rpartition('/')[2]}"
    found = cloud.client("logs").describe_log_streams(
        logGroupName="work", logStreamNamePrefix=prefix
    )
    return bool(found["logStreams"])


def test_a_task_runs_to_its_end(ecs: Ecs, cloud: Cloud) -> None:
    arn = ecs.start(
        shell("echo one; echo two >&2; exit 3", logConfiguration=awslogs()), startedBy="me"
    )
    task = ecs.end(arn)
    assert exits(task) == {"main": 3}
    assert (task["stopCode"], task["stoppedReason"]) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    assert (task["desiredStatus"], task["lastStatus"]) == ("STOPPED", "STOPPED")
    order = [
        task[name]
        for name in (
            "createdAt", "connectivityAt", "pullStartedAt", "pullStoppedAt", "startedAt",
            "stoppingAt", "executionStoppedAt", "stoppedAt",
        )
    ]  # fmt: skip
    assert order == sorted(order)
    assert task["version"] > 5
    assert task["containers"][0]["runtimeId"].startswith(task["taskArn"].rpartition("/")[2])
    assert task["attachments"][0]["status"] == "DELETED"
    # Two streams: nothing says which is read first.
    assert sorted(log(cloud, arn)) == ["one", "two"]


def test_each_state_is_seen_in_its_order(ecs: Ecs) -> None:
    arn = ecs.start(shell("sleep 1000"))
    seen: list[str] = []

    def look(last: str) -> bool:
        task = ecs.task(arn)
        if task["lastStatus"] not in seen:
            seen.append(task["lastStatus"])
        return task["lastStatus"] == last

    until(lambda: look("RUNNING"))
    task = ecs.task(arn)
    details = {one["name"]: one["value"] for one in task["attachments"][0]["details"]}
    assert details["privateIPv4Address"].startswith("127.")
    address = task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]
    assert address == details["privateIPv4Address"]
    assert task["containers"][0]["lastStatus"] == "RUNNING"
    ecs.client.stop_task(cluster="main", task=arn)
    until(lambda: look("STOPPED"))
    known = ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING",
             "DEPROVISIONING", "STOPPED"]  # fmt: skip
    assert seen == [one for one in known if one in seen]
    assert {"PROVISIONING", "PENDING", "RUNNING", "STOPPED"} <= set(seen)


def test_a_stop_is_a_sigterm_and_then_a_kill(ecs: Ecs, cloud: Cloud) -> None:
    polite = shell(
        "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done",
        logConfiguration=awslogs(), stopTimeout=120,
    )  # fmt: skip
    deaf = shell(
        "trap '' TERM; echo up; while :; do sleep 0.01; done",
        name="deaf", logConfiguration=awslogs(), stopTimeout=5,
    )  # fmt: skip
    arn = ecs.start(polite, deaf)
    says(cloud, arn, "up")
    says(cloud, arn, "up", "deaf")
    ecs.client.stop_task(cluster="main", task=arn)
    task = ecs.end(arn)
    assert exits(task) == {"main": 7, "deaf": 137}
    assert "bye" in log(cloud, arn)
    assert task["stopCode"] == "UserInitiated"


def test_an_essential_end_ends_the_others(ecs: Ecs, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    arn = ecs.start(
        shell(f"until test -e {ready}; do sleep 0.01; done; exit 5"),
        shell(
            f"trap 'exit 9' TERM; touch {ready}; while :; do sleep 0.01; done",
            name="side", essential=False,
        ),
    )  # fmt: skip
    assert exits(ecs.end(arn)) == {"main": 5, "side": 9}


def test_a_nonessential_end_ends_nothing(ecs: Ecs) -> None:
    arn = ecs.start(shell("sleep 1000"), shell("exit 4", name="side", essential=False))
    until(lambda: exits(ecs.task(arn))["side"] == 4)
    assert ecs.when(arn, "RUNNING")["desiredStatus"] == "RUNNING"
    ecs.client.stop_task(cluster="main", task=arn)
    assert ecs.end(arn)["stopCode"] == "UserInitiated"


def after(name: str, condition: str) -> dict[str, Any]:
    return {"dependsOn": [{"containerName": name, "condition": condition}]}


def test_containers_start_in_the_order_of_their_dependencies(ecs: Ecs) -> None:
    shared: Any = {"mountPoints": [{"sourceVolume": "v", "containerPath": "/shared"}]}
    arn = ecs.start(
        shell("echo one >> /shared/f", name="one", essential=False, **shared),
        shell("echo two >> /shared/f; exit 3", name="two", essential=False, **shared,
              **after("one", "SUCCESS")),
        shell("test \"$(cat /shared/f | tr '\\n' ' ')\" = 'one two '", **shared,
              **after("two", "COMPLETE")),
        volumes=[{"name": "v", "host": {}}],
    )  # fmt: skip
    task = ecs.end(arn)
    assert exits(task) == {"one": 0, "two": 3, "main": 0}


def test_a_dependency_that_fails_stops_the_task(ecs: Ecs) -> None:
    arn = ecs.start(
        shell("exit 2", name="init", essential=False),
        shell("echo never", **after("init", "SUCCESS")),
    )
    task = ecs.end(arn)
    assert exits(task) == {"init": 2, "main": None}
    assert task["stopCode"] == "TaskFailedToStart"
    assert "init" in task["stoppedReason"]
    assert "startedAt" not in task


def test_a_health_check_is_waited_for(ecs: Ecs) -> None:
    check = {
        "command": ["CMD-SHELL", "test -e /shared/ready"],
        "interval": 5,
        "timeout": 60,
        "retries": 10,
    }
    shared: Any = {"mountPoints": [{"sourceVolume": "v", "containerPath": "/shared"}]}
    arn = ecs.start(
        shell(
            "sleep 0.2; touch /shared/ready; sleep 1000", name="base", healthCheck=check, **shared
        ),
        shell("test -e /shared/ready", **after("base", "HEALTHY"), **shared),
        volumes=[{"name": "v", "host": {}}],
    )
    assert exits(ecs.end(arn))["main"] == 0


def test_a_start_timeout_gives_up(ecs: Ecs) -> None:
    arn = ecs.start(
        shell("sleep 1000", name="slow", essential=False, startTimeout=5),
        shell("echo never", **after("slow", "COMPLETE")),
    )
    task = ecs.end(arn)
    assert task["stopCode"] == "TaskFailedToStart"
    assert exits(task)["main"] is None


def test_overrides_change_command_and_environment(ecs: Ecs, cloud: Cloud) -> None:
    definition = ecs.define(
        shell("exit 1", environment=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
              logConfiguration=awslogs()), family="over",
    )  # fmt: skip
    overrides = {
        "containerOverrides": [
            {
                "name": "main",
                "command": ["sh", "-c", "echo $A $B $C $AWS_REGION"],
                "environment": [{"name": "B", "value": "two"}, {"name": "C", "value": "three"}],
            }
        ],
        "cpu": "512",
        "memory": "1024",
    }
    arn = ecs.run(definition, overrides=overrides)["tasks"][0]["taskArn"]
    task = ecs.end(arn)
    assert log(cloud, arn) == ["1 two three us-east-1"]
    assert (task["cpu"], task["memory"], exits(task)) == ("512", "1024", {"main": 0})
    given = task["overrides"]["containerOverrides"][0]["environment"]
    assert {"name": "C", "value": "three"} in given


def test_entry_point_directory_and_read_only_root(ecs: Ecs, cloud: Cloud) -> None:
    arn = ecs.start(
        container(
            "echo $0 $PWD; touch /nowhere || echo refused", "word",
            entryPoint=["sh", "-c"], workingDirectory="/usr", readonlyRootFilesystem=True,
            logConfiguration=awslogs(),
        )
    )  # fmt: skip
    assert exits(ecs.end(arn)) == {"main": 0}
    lines = log(cloud, arn)
    assert {"word /usr", "refused"} <= set(lines)


def test_secrets_and_files_come_as_environment(ecs: Ecs, cloud: Cloud) -> None:
    s3, secrets, ssm = cloud.client("s3"), cloud.client("secretsmanager"), cloud.client("ssm")
    s3.create_bucket(Bucket="files")
    s3.put_object(
        Bucket="files", Key="a/one.env", Body=b"# no\nX=from file\nPLAIN=file\nQ='q'\nE=\n"
    )
    s3.put_object(Bucket="files", Key="two.env", Body=b"X=second\nY=b=c\n")
    arn = secrets.create_secret(Name="s/one", SecretString=json.dumps({"key": "sesame"}))["ARN"]
    ssm.put_parameter(Name="/p/one", Value="param", Type="SecureString")
    task = ecs.start(
        shell(
            'echo "$X|$Y|$PLAIN|$Q|$WHOLE|$PART|$PARAM|${E-unset}"',
            environment=[{"name": "PLAIN", "value": "plain"}],
            environmentFiles=[
                {"value": "arn:aws:s3:::files/a/one.env", "type": "s3"},
                {"value": "arn:aws:s3:::files/two.env", "type": "s3"},
            ],
            secrets=[
                {"name": "WHOLE", "valueFrom": arn},
                {"name": "PART", "valueFrom": f"{arn}:key::"},
                {"name": "PARAM",
                 "valueFrom": "arn:aws:ssm:us-east-1:123456789012:parameter/p/one"},
            ],
            logConfiguration=awslogs(),
        )
    )  # fmt: skip
    assert exits(ecs.end(task)) == {"main": 0}
    wanted = 'from file|b=c|plain|\'q\'|{"key": "sesame"}|sesame|param|unset'
    assert log(cloud, task) == [wanted]
    shown = json.dumps([ecs.task(task), cloud.ledger()], default=str)
    assert "sesame" not in shown


def test_rules_of_environment_files() -> None:
    text = b"A=1\n#B=2\n =x\nC\nD=\nE= spaced \r\nF=#not a comment\nA=2\n"
    assert parse_environment(text) == {"A": "2", " ": "x", "E": " spaced ", "F": "#not a comment"}
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:n-abcdef"
    assert split_secret(arn) == (arn, "", "", "")
    assert split_secret(f"{arn}:k:AWSPREVIOUS:") == (arn, "k", "AWSPREVIOUS", "")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"environmentFiles": [{"value": "arn:aws:s3:::nowhere/x.env", "type": "s3"}]},
            "failed to download env files",
        ),
        (
            {"secrets": [{"name": "S", "valueFrom":
                "arn:aws:secretsmanager:us-east-1:123456789012:secret:none-abcdef"}]},
            "unable to pull secrets",
        ),
        ({"logConfiguration": awslogs(**{"awslogs-group": "none"})}, "log group does not exist"),
        ({"command": ["no-such-program"]}, "CannotStartContainerError"),
        ({"user": "no-such-user"}, "unable to find user"),
    ],
)  # fmt: skip
def test_what_cannot_start_says_why(ecs: Ecs, more: Any, words: str) -> None:
    arn = ecs.start({**shell("true"), **more})
    task = ecs.end(arn)
    assert task["stopCode"] == "TaskFailedToStart"
    assert words in task["stoppedReason"]
    assert exits(task) == {"main": None}
    assert "startedAt" not in task


def test_a_group_is_made_where_the_log_asks_for_it(ecs: Ecs, cloud: Cloud) -> None:
    options = awslogs(**{"awslogs-group": "made", "awslogs-create-group": "true"})
    arn = ecs.start(shell("printf 'no newline'", logConfiguration=options))
    ecs.end(arn)
    found = cloud.client("logs").filter_log_events(logGroupName="made")["events"]
    assert [one["message"] for one in found] == ["no newline"]


def test_stopped_tasks_vanish_after_an_hour(cloud: Cloud) -> None:
    with running(scale=20_000) as fast:
        ecs = Ecs(fast)
        arn = ecs.start(shell("true"))
        until(lambda: ecs.client.describe_tasks(cluster="main", tasks=[arn])["failures"])
        assert ecs.client.list_tasks(cluster="main", desiredStatus="STOPPED")["taskArns"] == []


def test_the_ledger_has_calls_and_cost(ecs: Ecs, cloud: Cloud) -> None:
    arn = ecs.start(shell("true"))
    ecs.end(arn)
    ledger = cloud.ledger()
    assert ledger["calls"]["byAction"]["ecs:RunTask"] >= 1
    assert "simulated" in ledger["calls"]["byCaller"]
    (bill,) = [one for one in ledger["tasks"] if one["task"] == arn.rpartition("/")[2]]
    # A quarter of a vCPU and half a GB; at least a minute is billed.
    assert bill["vcpuSeconds"] >= 15
    assert bill["gigabyteSeconds"] == pytest.approx(2 * bill["vcpuSeconds"])
    seconds = bill["vcpuSeconds"] * 4
    wanted = seconds * (0.25 * 0.04048 + 0.5 * 0.004445) / 3600
    assert bill["dollars"] == pytest.approx(wanted, rel=0.01)


def test_nothing_is_left_when_the_simulator_ends() -> None:
    with running() as cloud:
        folder = cloud.simulator._runner._folder
        ecs = Ecs(cloud)
        arn = ecs.start(shell("exec sleep 98765.25"))
        ecs.when(arn, "RUNNING")
        assert _processes("98765.25")
        assert folder is not None
        assert folder.exists()
    assert not _processes("98765.25")
    assert not folder.exists()


def _processes(word: str) -> list[str]:
    """Processes that have that word on their command line."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in one.read_bytes().split(b"\0"):
                found.append(one.parent.name)
    return found
