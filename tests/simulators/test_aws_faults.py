"""Limits, quotas, faults, scenarios: what goes wrong as it does in AWS, and when it is asked to."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from aws_kit import SUBNET, Cloud, Ecs, awslogs, container, exits, running, shell, until
from botocore.exceptions import ClientError, ConnectionClosedError

from adapters.simulators.aws import Fault, Settings, Timing
from adapters.simulators.aws.buckets import LIMITS, Buckets
from adapters.simulators.aws.ecs.idempotency import Tokens
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.faults import Faults
from adapters.simulators.aws.scenario import load, parse
from adapters.simulators.common.clock import Clock
from bridge.errors import Invalid


class Still(Clock):
    """A clock that is moved by hand."""

    at = 1000.0

    def now(self) -> float:
        return self.at


def test_buckets_are_those_of_the_documentation() -> None:
    clock = Still()
    buckets = Buckets(clock, LIMITS)
    for action, burst, rate in (
        ("RegisterTaskDefinition", 20, 1),
        ("DescribeTaskDefinition", 50, 20),
        ("DeleteTaskDefinitions", 5, 1),
        ("DescribeTasks", 100, 20),
        ("StopTask", 100, 40),
        ("TagResource", 20, 10),
        ("RunTask", 20, 20),
    ):
        clock.at += 1000
        assert _calls(buckets, action) == burst
        clock.at += 1
        assert _calls(buckets, action) == rate
        clock.at += 1000
        _calls(buckets, action)


def _calls(buckets: Buckets, action: str) -> int:
    """How often it can be called now."""
    for count in range(1000):
        try:
            buckets.call("ecs", action)
        except ApiError:
            return count
    raise AssertionError("it has no limit")


def test_calls_that_share_a_bucket_share_it() -> None:
    buckets = Buckets(Still(), LIMITS)
    assert _calls(buckets, "DescribeTasks") == 100
    with pytest.raises(ApiError, match="ThrottlingException: Rate exceeded"):
        buckets.call("ecs", "ListTasks")
    assert _calls(buckets, "ListTasks") == 0
    # A bucket that is empty costs the other one nothing.
    assert _calls(buckets, "RunTask") == 20
    assert _calls(buckets, "StopTask") == 80


def test_chance_is_by_the_seed() -> None:
    def strikes(seed: int) -> list[bool]:
        faults = Faults(seed, [Fault(kind="throttle", probability=0.5)])
        return [bool(faults.of_call("ecs", "RunTask")) for _ in range(50)]

    assert strikes(1) == strikes(1)
    assert strikes(1) != strikes(2)
    assert 10 < sum(strikes(1)) < 40


def test_a_token_lives_a_day_or_an_hour_after_the_end() -> None:
    clock = Still()
    tokens, call = Tokens(clock), {"clientToken": "t", "count": 1}
    task = SimpleNamespace(arn="arn", moments={})
    tokens.note("main", call, [task])
    assert tokens.earlier("main", call) == [task]
    assert tokens.earlier("other", call) is None
    with pytest.raises(ApiError, match="ConflictException"):
        tokens.earlier("main", {**call, "count": 2})
    clock.at += 24 * 3600 - 1
    assert tokens.earlier("main", call) == [task]
    clock.at += 2
    assert tokens.earlier("main", {**call, "count": 2}) is None
    tokens.note("main", call, [task])
    task.moments["stoppedAt"] = clock.at
    clock.at += 3599
    assert tokens.earlier("main", call) == [task]
    clock.at += 2
    assert tokens.earlier("main", call) is None


def test_time_that_is_skipped_has_passed_for_what_was_there_before() -> None:
    clock = Still(scale=10)
    before = clock.now()
    clock.at += 1
    clock.skip(3600)
    assert clock.passed(before) == 3610
    clock.at += 1
    assert clock.passed(before) == 3620
    assert clock.passed(clock.now()) == 0


async def test_who_waits_wakes_when_time_is_skipped() -> None:
    clock = Clock()
    waiting = asyncio.create_task(clock.sleep(3600))
    await asyncio.sleep(0)
    clock.skip(1800)
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.skip(1800)
    await asyncio.wait_for(waiting, 30)


@pytest.mark.slow
class TestOverTheWire:
    def test_an_hour_that_is_skipped_takes_stopped_tasks_away(self) -> None:
        with running() as cloud:
            ecs = Ecs(cloud)
            arn = ecs.start(shell("exit 0"))
            ecs.end(arn)
            assert cloud.control("POST", "time", {"skip": 3600}) == (200, {"skipped": 3600})
            until(lambda: not ecs.client.describe_tasks(cluster="main", tasks=[arn])["tasks"])
            for wrong in ({}, {"skip": -1}, {"skip": "1"}, []):
                status, said = cloud.control("POST", "time", wrong)
                assert (status, "SECONDS" in str(said)) == (400, True)

    def test_pages_may_come_empty(self) -> None:
        with running() as cloud:
            logs = cloud.client("logs")
            logs.create_log_group(logGroupName="g")
            logs.create_log_stream(logGroupName="g", logStreamName="s")
            place = {"logGroupName": "g", "logStreamName": "s"}
            events = [{"timestamp": int(time.time() * 1000), "message": "m"}]
            logs.put_log_events(logEvents=events, **place)
            cloud.fault("empty-page", times=2)
            first = logs.get_log_events(startFromHead=True, **place)
            second = logs.get_log_events(nextToken=first["nextForwardToken"], **place)
            assert first["events"] == second["events"] == []
            assert first["nextForwardToken"] != second["nextForwardToken"]
            third = logs.get_log_events(nextToken=second["nextForwardToken"], **place)
            assert [one["message"] for one in third["events"]] == ["m"]
            last = logs.get_log_events(nextToken=third["nextForwardToken"], **place)
            assert last["nextForwardToken"] == third["nextForwardToken"]

    def test_each_service_has_its_own_throttle(self) -> None:
        with running() as cloud:
            cloud.fault("throttle", service="*")
            calls = {
                "SlowDown": cloud.client("s3").list_buckets,
                "RequestThrottled": cloud.client("sqs").list_queues,
                "Throttling": cloud.client("sts").get_caller_identity,
                "ThrottlingException": cloud.client("secretsmanager").list_secrets,
            }
            for code, call in calls.items():
                with pytest.raises(ClientError) as caught:
                    call()
                assert caught.value.response["Error"]["Code"] == code

    def test_credentials_expire_as_each_service_says_it(self) -> None:
        """A key of its own each time, and no other."""
        with running() as cloud:
            cloud.fault("expired-token", service="*", key="old")
            calls = {
                ("ecs", "list_clusters"): ("ExpiredTokenException", 403),
                ("logs", "describe_log_groups"): ("ExpiredTokenException", 403),
                ("secretsmanager", "list_secrets"): ("ExpiredTokenException", 403),
                ("s3", "list_buckets"): ("ExpiredToken", 400),
                ("sqs", "list_queues"): ("ExpiredToken", 403),
                ("sts", "get_caller_identity"): ("ExpiredToken", 403),
            }
            for (service, action), (code, status) in calls.items():
                with pytest.raises(ClientError) as caught:
                    getattr(cloud.client(service, key="old"), action)()
                said = caught.value.response
                assert said["Error"]["Code"] == code
                assert said["ResponseMetadata"]["HTTPStatusCode"] == status
                assert "expired" in said["Error"]["Message"]
                assert getattr(cloud.client(service, key="new"), action)()

    def test_events_may_come_again_and_late(self) -> None:
        with running(scale=100) as cloud:
            queue = _events(cloud)
            ecs = Ecs(cloud)
            cloud.fault("repeat-event", times=1)
            # The first is PROVISIONING: by then all others have come.
            cloud.fault("late-event", seconds=200, times=1)
            ecs.end(ecs.start(shell("exit 0")))
            found = until(lambda: (got := _drained(cloud, queue)).count("PROVISIONING") and got)
            assert found.count("PROVISIONING") == 2
            assert found.index("STOPPED") < found.index("PROVISIONING")

    def test_an_event_may_come_again_later(self) -> None:
        with running(scale=100) as cloud:
            queue = _events(cloud)
            ecs = Ecs(cloud)
            cloud.fault("repeat-event", seconds=200, times=1)
            ecs.end(ecs.start(shell("exit 0")))
            until(lambda: _drained(cloud, queue).count("PROVISIONING") == 2)
            assert _drained(cloud, queue)[-1] == "PROVISIONING"

    def test_another_region_is_refused(self) -> None:
        with running(Settings(region="eu-central-1")) as cloud:
            with pytest.raises(ClientError, match="valid region"):
                cloud.client("ecs").list_clusters()
            with pytest.raises(ClientError, match="AuthorizationHeaderMalformed"):
                cloud.client("s3").list_buckets()

    def test_a_full_bucket_is_a_throttle(self) -> None:
        with running(scale=1) as cloud:
            ecs = Ecs(cloud)
            for number in range(20):
                ecs.define(container("true"), family=f"f{number}")
            with pytest.raises(ClientError) as caught:
                ecs.define(container("true"), family="more")
            assert caught.value.response["Error"]["Code"] == "ThrottlingException"
            assert cloud.ledger()["calls"]["throttled"] == {"ecs:RegisterTaskDefinition": 1}

    def test_a_family_takes_one_registration_at_a_time(self) -> None:
        with running(scale=0.01) as cloud:
            ecs = Ecs(cloud)
            ecs.define(container("true"))
            with pytest.raises(ClientError, match="Too many concurrent attempts") as caught:
                ecs.define(container("true"))
            assert caught.value.response["Error"]["Code"] == "ClientException"

    def test_launches_have_a_bucket_of_their_own(self) -> None:
        waiting = Settings(fargate_vcpus=1000, timing=Timing(provisioning=100_000))
        with running(waiting, scale=1) as cloud:
            ecs = Ecs(cloud)
            definition = ecs.define(container("true"))
            for _ in range(10):
                ecs.run(definition, count=10)
            # The burst is spent. What was refilled meanwhile is less than what is asked for.
            refused = [one for _ in range(9) if (one := _refused(ecs, definition))]
            assert refused
            assert set(refused) == {"ThrottlingException"}

    def test_the_vcpu_quota_is_a_failure(self) -> None:
        with running(Settings(fargate_vcpus=0.5)) as cloud:
            ecs = Ecs(cloud)
            definition = ecs.define(shell("sleep 1000"))
            answer = ecs.run(definition, count=3)
            assert len(answer["tasks"]) == 2
            assert len(answer["failures"]) == 1
            assert "limit on the number of vCPUs" in answer["failures"][0]["reason"]
            first = answer["tasks"][0]["taskArn"]
            ecs.client.stop_task(cluster="main", task=first)
            ecs.end(first)
            assert ecs.run(definition)["failures"] == []

    def test_a_full_subnet_stops_the_task(self) -> None:
        with running(Settings(subnets={SUBNET: 1})) as cloud:
            ecs = Ecs(cloud)
            definition = ecs.define(shell("sleep 1000"))
            first, second = [one["taskArn"] for one in ecs.run(definition, count=2)["tasks"]]
            ended = until(
                lambda: next(
                    (a for a in (first, second) if ecs.task(a)["lastStatus"] == "STOPPED"), None
                )
            )
            task = ecs.task(ended)
            assert "InsufficientFreeAddressesInSubnet" in task["stoppedReason"]
            assert (task["stopCode"], exits(task)) == ("TaskFailedToStart", {"main": None})
            other = {"awsvpcConfiguration": {"subnets": ["subnet-00000000"]}}
            with pytest.raises(ClientError, match=r"InvalidSubnetID\.NotFound"):
                ecs.run(definition, networkConfiguration=other)

    def test_throttles_that_the_sdk_does_not_know(self) -> None:
        with running() as cloud:
            ecs = Ecs(cloud)
            definition = ecs.define(container("true"))
            cloud.fault("throttle", action="RunTask", flavour="ec2", times=1)
            with pytest.raises(ClientError, match=r"ErrorCode: Throttling") as caught:
                ecs.run(definition)
            assert caught.value.response["Error"]["Code"] == "InvalidParameterException"
            assert ecs.run(definition)["tasks"]
            assert cloud.ledger()["calls"]["throttled"] == {"ecs:RunTask": 1}

    def test_the_sdk_retries_what_it_knows(self) -> None:
        with running() as cloud:
            client = cloud.client("ecs", attempts=3)
            cloud.fault("error", action="ListClusters", status=503, times=1)
            cloud.fault("throttle", action="ListClusters", times=1)
            assert client.list_clusters()["clusterArns"] == []
            # Both struck the first call: the error is answered, both are spent.
            assert cloud.ledger()["calls"]["byAction"]["ecs:ListClusters"] == 2

    def test_a_lost_answer_comes_after_the_deed(self) -> None:
        with running() as cloud:
            ecs = Ecs(cloud)
            definition = ecs.define(shell("sleep 1000"))
            cloud.fault("lost", action="RunTask", times=1)
            with pytest.raises(ConnectionClosedError):
                ecs.run(definition, clientToken="t")
            (arn,) = ecs.client.list_tasks(cluster="main")["taskArns"]
            again = ecs.run(definition, clientToken="t")
            assert [one["taskArn"] for one in again["tasks"]] == [arn]

    def test_a_delay_holds_up_one_call(self) -> None:
        with running(scale=100) as cloud:
            client = cloud.client("ecs")
            cloud.fault("delay", action="ListClusters", seconds=20, times=1)
            before = time.monotonic()
            client.list_clusters()
            assert time.monotonic() - before >= 0.2

    def test_no_capacity_is_a_failure(self) -> None:
        with running() as cloud:
            ecs = Ecs(cloud)
            cloud.fault("no-capacity", times=1)
            answer = ecs.run(ecs.define(shell("true")), count=2)
            assert len(answer["tasks"]) == 1
            assert answer["failures"][0]["reason"].startswith(
                "Capacity is unavailable at this time"
            )
            assert "arn" not in answer["failures"][0]

    def test_a_task_may_stick_and_end_with_no_containers(self) -> None:
        with running(scale=5000) as cloud:
            ecs = Ecs(cloud)
            cloud.fault("stuck-provisioning", times=1)
            arn = ecs.start(shell("true"))
            task = ecs.end(arn)
            assert task["containers"] == []
            assert task["stopCode"] == "TaskFailedToStart"
            assert task["stoppedAt"].timestamp() - task["createdAt"].timestamp() >= 1800 / 5000

    def test_a_task_may_never_start(self) -> None:
        with running() as cloud:
            ecs = Ecs(cloud)
            cloud.fault("never-starts")
            arn = ecs.start(shell("true"))
            ecs.when(arn, "PENDING")
            ecs.client.stop_task(cluster="main", task=arn)
            assert exits(ecs.end(arn)) == {"main": None}

    def test_a_fresh_task_may_not_be_seen_yet(self) -> None:
        with running(scale=10) as cloud:
            ecs = Ecs(cloud)
            cloud.fault("stale", seconds=5, times=1)
            arn = ecs.start(shell("true"))
            answer = ecs.client.describe_tasks(cluster="main", tasks=[arn])
            assert [one["reason"] for one in answer["failures"]] == ["MISSING"]
            assert ecs.client.list_tasks(cluster="main")["taskArns"] == []
            until(lambda: ecs.client.describe_tasks(cluster="main", tasks=[arn])["tasks"])

    def test_a_task_may_vanish(self) -> None:
        with running(scale=100) as cloud:
            ecs = Ecs(cloud)
            cloud.fault("vanish", seconds=60, times=1)
            arn = ecs.start(shell("sleep 1000"))
            until(lambda: ecs.client.describe_tasks(cluster="main", tasks=[arn])["failures"])
            assert ecs.client.list_tasks(cluster="main", desiredStatus="STOPPED")["taskArns"] == []
            other = ecs.start(shell("sleep 1000"))
            ecs.when(other, "RUNNING")
            cloud.fault("vanish", task=other)
            until(lambda: ecs.client.describe_tasks(cluster="main", tasks=[other])["failures"])
            assert cloud.control("POST", "faults", {"kind": "vanish", "task": "none"})[0] == 404

    def test_spot_may_be_reclaimed_by_chance_of_its_launch(self) -> None:
        with running(scale=100) as cloud:
            ecs = Ecs(cloud)
            cloud.fault("spot-reclaim", seconds=1)
            spot = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
            definition = ecs.define(shell("sleep 1000"))
            reclaimed = ecs.run(definition, capacityProviderStrategy=spot)["tasks"][0]["taskArn"]
            kept = ecs.run(definition)["tasks"][0]["taskArn"]
            assert ecs.end(reclaimed)["stopCode"] == "SpotInterruption"
            # On-demand capacity is never reclaimed.
            assert ecs.when(kept, "RUNNING")["desiredStatus"] == "RUNNING"

    def test_spot_is_warned_and_reclaimed(self) -> None:
        with running(scale=50) as cloud:
            cloud.client("logs").create_log_group(logGroupName="work")
            ecs = Ecs(cloud)
            spot = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
            script = "trap 'sleep 0.5; exit 0' TERM; echo up; while :; do sleep 0.01; done"
            one = shell(script, stopTimeout=120, logConfiguration=awslogs())
            arn = ecs.start(one, capacityProviderStrategy=spot)
            ecs.when(arn, "RUNNING")
            until(lambda: _log(cloud, ecs.task(arn)) == ["up"])
            cloud.fault("spot-reclaim", task=arn)
            warned = until(
                lambda: (t := ecs.task(arn)).get("stopCode") == "TerminationNotice" and t
            )
            assert (warned["lastStatus"], warned["desiredStatus"]) == ("RUNNING", "STOPPED")
            task = ecs.end(arn)
            assert (task["stopCode"], exits(task)) == ("SpotInterruption", {"main": 0})
            assert task["stoppedReason"] == "Your Spot Task was interrupted."
            assert task["capacityProviderName"] == "FARGATE_SPOT"

    def test_a_log_driver_blocks_or_drops(self) -> None:
        settings = Settings(buckets={"logs-read": {"burst": 1000, "per_second": 1000}})
        with running(settings) as cloud:
            cloud.client("logs").create_log_group(logGroupName="work")
            ecs = Ecs(cloud)
            script = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done"
            small = {"max-buffer-size": "1k"}
            cloud.fault("throttle", service="logs", action="PutLogEvents", times=5)
            full = ecs.start(shell(script, logConfiguration=awslogs(**small)))
            assert len(_log(cloud, ecs.end(full))) == 200
            cloud.fault("throttle", service="logs", action="PutLogEvents", times=5)
            options = awslogs(**small, mode="non-blocking")
            lossy = ecs.start(shell(script, logConfiguration=options))
            assert 0 < len(_log(cloud, ecs.end(lossy))) < 200

    def test_faults_are_added_listed_and_taken_back(self) -> None:
        with running() as cloud:
            id_ = cloud.fault("throttle", action="ListClusters")
            assert cloud.control("GET", "faults")[1]["faults"][0]["id"] == id_
            assert cloud.control("DELETE", f"faults/{id_}")[0] == 200
            assert cloud.control("DELETE", f"faults/{id_}")[0] == 404
            assert cloud.client("ecs").list_clusters()["clusterArns"] == []
            status, answer = cloud.control("POST", "faults", {"kind": "wrong"})
            assert (status, "kind" in answer["errors"][0]) == (400, True)


def _events(cloud: Cloud) -> str:
    """A queue that gets the events of all tasks; its address."""
    url = cloud.client("sqs").create_queue(QueueName="events")["QueueUrl"]
    events = cloud.client("events")
    events.put_rule(Name="tasks", EventPattern=json.dumps({"source": ["aws.ecs"]}))
    arn = "arn:aws:sqs:us-east-1:123456789012:events"
    events.put_targets(Rule="tasks", Targets=[{"Id": "queue", "Arn": arn}])
    return str(url)


def _drained(cloud: Cloud, queue: str) -> list[str]:
    """The states of which events have told until now, as they came."""
    sqs = cloud.client("sqs")
    while found := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for one in found:
            cloud.heard.append(json.loads(one["Body"])["detail"]["lastStatus"])
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])
    return cloud.heard


def _refused(ecs: Ecs, definition: str) -> str:
    """The code with which ten tasks are refused; empty where they are not."""
    try:
        ecs.run(definition, count=10)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return ""


def _log(cloud: Cloud, task: dict) -> list[str]:
    stream = f"p/main/{task['taskArn'].rpartition('/')[2]}"
    answer = cloud.client("logs").get_log_events(
        logGroupName="work", logStreamName=stream, startFromHead=True
    )
    return [one["message"] for one in answer["events"]]


def test_a_scenario_is_read(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "seed: 7\nfargate_vcpus: 100\nsubnets: {subnet-0a: 3}\n"
        "buckets: {ecs-tasks: {burst: 1, per_second: 2}}\n"
        "timing: {provisioning: 1}\nfaults: [{kind: no-capacity, probability: 0.1}]\n"
    )
    settings = load(file)
    assert (settings.seed, settings.subnets) == (7, {"subnet-0a": 3})
    assert (settings.timing.provisioning, settings.timing.pulling) == (1, 12)
    assert settings.faults[0].kind == "no-capacity"
    assert parse("", "empty") == Settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fautls: []", 's.yaml: fautls: unknown key; did you mean "faults"?'),
        ("faults: [{kind: none}]", 's.yaml: faults[0].kind: found string "none"; allowed: '),
        ("faults: [{kind: lost, probability: 2}]", "faults[0].probability: found integer 2"),
        (
            "faults: [{kind: lost, servcie: ecs}]",
            'faults[0].servcie: unknown key; did you mean "service"',
        ),
        (
            "faults: [{kind: lost, service: ec2}]",
            'faults[0].service: found string "ec2"; allowed: ',
        ),
        ("faults: [{}]", "faults[0].kind: missing"),
        ("faults: [{kind: lost, flavour: ec2}]", "flavour is for kind throttle"),
        ("faults: [{kind: lost, key: old}]", "key is for kind expired-token"),
        ("timing: {pulling: soon}", 'timing.pulling: found string "soon"; allowed: a valid number'),
        (
            "buckets: {none: {burst: 1, per_second: 1}}",
            'buckets.none: found string "none"; allowed',
        ),
        ("- 1", "found a list; allowed: a mapping"),
        ("a: [", "is no YAML"),
    ],
)
def test_mistakes_in_a_scenario_are_told_by_field(text: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text, "s.yaml")
    assert words in "\n".join(map(str, caught.value.violations))


def test_a_scenario_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        load(tmp_path / "none.yaml")
    assert "No such file" in str(caught.value.violations[0])
