"""ECS's calls, by boto3: what it takes, what it refuses and with which error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from aws_kit import GROUP, QUICK, SUBNET, Cloud, Ecs, awslogs, container, running
from botocore.exceptions import ClientError

from adapters.simulators.aws import Settings, Timing
from adapters.simulators.aws.ecs import sizes
from adapters.simulators.aws.ecs.launches import spread

pytestmark = pytest.mark.slow

WAITING = Settings(fargate_vcpus=1000, timing=Timing(provisioning=10_000))
"""Tasks stay PROVISIONING: nothing runs."""


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    roomy = {"burst": 10_000, "per_second": 10_000}
    names = ("ecs-definitions", "ecs-tasks", "ecs-read-tasks", "ecs-describe-definition",
             "ecs-tags", "fargate-calls", "fargate-launches", "fargate-spot-launches")  # fmt: skip
    settings = WAITING.model_copy(
        update={"buckets": Settings(buckets=dict.fromkeys(names, roomy)).buckets}
    )
    with running(settings, scale=QUICK) as cloud:
        yield cloud


@pytest.fixture
def ecs(cloud: Cloud) -> Iterator[Ecs]:
    made = Ecs(cloud)
    yield made
    for desired in ("RUNNING", "STOPPED"):
        for arn in made.client.list_tasks(cluster="main", desiredStatus=desired)["taskArns"]:
            made.client.stop_task(cluster="main", task=arn)


def refusal(code: str, call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**given)
    assert caught.value.response["Error"]["Code"] == code
    return caught.value.response["Error"]["Message"]


def test_clusters(cloud: Cloud) -> None:
    client = cloud.client("ecs")
    made = client.create_cluster(clusterName="other", capacityProviders=["FARGATE"])["cluster"]
    assert (made["status"], made["runningTasksCount"]) == ("ACTIVE", 0)
    assert made["clusterArn"] in client.list_clusters()["clusterArns"]
    found = client.describe_clusters(clusters=["other", "missing"])
    assert [one["clusterName"] for one in found["clusters"]] == ["other"]
    assert [one["reason"] for one in found["failures"]] == ["MISSING"]
    client.put_cluster_capacity_providers(
        cluster="other",
        capacityProviders=["FARGATE", "FARGATE_SPOT"],
        defaultCapacityProviderStrategy=[{"capacityProvider": "FARGATE_SPOT", "weight": 1}],
    )
    assert client.delete_cluster(cluster="other")["cluster"]["status"] == "INACTIVE"
    refusal("ClusterNotFoundException", client.list_tasks, cluster="other")


def test_definitions_have_revisions_and_tags(ecs: Ecs) -> None:
    first = ecs.define(container("true"), family="rev", tags=[{"key": "a", "value": "1"}])
    assert (
        ecs.client.describe_task_definition(taskDefinition="rev")["taskDefinition"]["revision"] == 1
    )
    second = ecs.define(container("false"), family="rev", cpu="1 vCPU", memory="2GB")
    assert (first.rpartition(":")[2], second.rpartition(":")[2]) == ("1", "2")
    latest = ecs.client.describe_task_definition(taskDefinition="rev")["taskDefinition"]
    assert (latest["revision"], latest["cpu"], latest["memory"]) == (2, "1024", "2048")
    assert latest["containerDefinitions"][0]["essential"] is True
    found = ecs.client.describe_task_definition(taskDefinition="rev:1", include=["TAGS"])
    assert found["tags"] == [{"key": "a", "value": "1"}]
    assert "tags" not in ecs.client.describe_task_definition(taskDefinition="rev:1")
    listed = ecs.client.list_task_definitions(familyPrefix="rev", sort="DESC")
    assert listed["taskDefinitionArns"] == [second, first]


def test_a_definition_goes_in_two_steps(ecs: Ecs) -> None:
    arn = ecs.define(container("true"), family="gone")
    failed = ecs.client.delete_task_definitions(taskDefinitions=[arn])["failures"]
    assert "ACTIVE" in failed[0]["reason"]
    ecs.client.deregister_task_definition(taskDefinition=arn)
    assert refusal("ClientException", ecs.run, definition=arn) == "TaskDefinition is inactive"
    done = ecs.client.delete_task_definitions(taskDefinitions=[arn])["taskDefinitions"]
    assert done[0]["status"] == "DELETE_IN_PROGRESS"
    refusal("ClientException", ecs.client.describe_task_definition, taskDefinition="missing")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cpu": "256", "memory": "4096"}, "No Fargate configuration exists"),
        ({"cpu": "300"}, "No Fargate configuration exists"),
        ({"networkMode": "bridge"}, "awsvpc"),
        ({"family": "with.dot"}, "family"),
        ({"containerDefinitions": []}, "at least one"),
        ({"containerDefinitions": [container("true", name=f"c{n}") for n in range(11)]}, "at most"),
        ({"containerDefinitions": [container("true", essential=False)]}, "essential"),
        ({"containerDefinitions": [container("true", privileged=True)]}, "privileged"),
        ({"containerDefinitions": [container("true", hostname="x")]}, "hostname"),
        ({"containerDefinitions": [container("true", stopTimeout=121)]}, "stopTimeout"),
        (
            {"containerDefinitions": [
                container("true", linuxParameters={"sharedMemorySize": 64})]},
            "sharedMemorySize",
        ),
        (
            {"containerDefinitions": [
                container("true", linuxParameters={"capabilities": {"add": ["NET_ADMIN"]}})]},
            "SYS_PTRACE",
        ),
        (
            {"containerDefinitions": [
                container("true", mountPoints=[{"sourceVolume": "v", "containerPath": "/v"}])]},
            "Unknown volume",
        ),
        ({"volumes": [{"name": "v", "host": {"sourcePath": "/etc"}}]}, "sourcePath"),
        ({"ephemeralStorage": {"sizeInGiB": 20}}, "ephemeralStorage"),
        ({"pidMode": "host"}, "pid mode"),
        ({"containerDefinitions": [container("true", logConfiguration=awslogs(x="y"))]},
         "disallows options: x"),
        ({"containerDefinitions": [container("true", logConfiguration={"logDriver": "awslogs"})]},
         "requires options: awslogs-group"),
        ({"containerDefinitions": [container("true", secrets=[{"name": "S", "valueFrom": "x"}],
                                             environment=[{"name": "S", "value": "y"}])]},
         "must be unique"),
        (
            {"containerDefinitions": [
                container("true", name="a", dependsOn=[
                    {"containerName": "b", "condition": "SUCCESS"}]),
                container("true", name="b")]},
            "SUCCESS cannot be set on the essential container",
        ),
        (
            {"containerDefinitions": [
                container("true", name="a", dependsOn=[
                    {"containerName": "b", "condition": "START"}]),
                container("true", name="b", dependsOn=[
                    {"containerName": "a", "condition": "START"}])]},
            "cycle",
        ),
        (
            {"containerDefinitions": [container("true", environment=[
                {"name": "BIG", "value": "x" * 70_000}])]},
            "Max allowed length is '65536' bytes",
        ),
        (
            {"executionRoleArn": "", "containerDefinitions": [container("true", secrets=[
                {"name": "S", "valueFrom": "arn:aws:ssm:us-east-1:123456789012:parameter/x"}])]},
            "execution role",
        ),
    ],
)  # fmt: skip
def test_definitions_that_are_refused(ecs: Ecs, change: Any, words: str) -> None:
    given: Any = {"containerDefinitions": [container("true")], **change}
    message = refusal(
        "ClientException", lambda: ecs.define(*given.pop("containerDefinitions"), **given)
    )
    assert words in message


def test_each_size_of_the_table_can_be_registered_and_no_other() -> None:
    assert sizes.is_legal(256, 2048)
    assert not sizes.is_legal(256, 3072)
    assert sizes.is_legal(8192, 20 * 1024)
    assert not sizes.is_legal(8192, 21 * 1024)
    assert sizes.is_legal(32768, 244 * 1024)
    assert (sizes.cpu_units(".25 vCPU"), sizes.mebibytes("0.5GB")) == (256, 512)
    assert sizes.cpu_units("much") is None


def test_a_task_is_answered_before_it_runs(ecs: Ecs) -> None:
    arn = ecs.define(container("true"), family="early", tags=[{"key": "of", "value": "definition"}])
    answer = ecs.run(
        arn, count=3, startedBy="me/1", group="mine", propagateTags="TASK_DEFINITION",
        tags=[{"key": "k", "value": "v"}],
    )  # fmt: skip
    assert answer["failures"] == []
    assert len({one["taskArn"] for one in answer["tasks"]}) == 3
    task = answer["tasks"][0]
    assert (task["lastStatus"], task["desiredStatus"]) == ("PROVISIONING", "RUNNING")
    assert (task["cpu"], task["memory"], task["launchType"]) == ("256", "512", "FARGATE")
    assert (task["startedBy"], task["group"], task["version"]) == ("me/1", "mine", 1)
    assert task["containers"][0]["lastStatus"] == "PENDING"
    assert "exitCode" not in task["containers"][0]
    details = {one["name"]: one["value"] for one in task["attachments"][0]["details"]}
    assert task["attachments"][0]["type"] == "ElasticNetworkInterface"
    assert details["subnetId"] == SUBNET
    assert "tags" not in ecs.task(task["taskArn"])
    tags = ecs.task(task["taskArn"], include=["TAGS"])["tags"]
    assert {one["key"]: one["value"] for one in tags} == {"of": "definition", "k": "v"}


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"count": 11}, "InvalidParameterException", "between 1 and 10"),
        ({"startedBy": "with.dot"}, "InvalidParameterException", "startedBy"),
        ({"taskDefinition": "missing"}, "ClientException", "TaskDefinition not found."),
        ({"cluster": "missing"}, "ClusterNotFoundException", "Cluster not found."),
        ({"launchType": "EC2"}, "InvalidParameterException", "No Container Instances"),
        ({"launchType": "WRONG"}, "InvalidParameterException", "enum"),
        (
            {"launchType": "FARGATE",
             "capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
            "InvalidParameterException",
            "both",
        ),
        (
            {"capacityProviderStrategy": [{"capacityProvider": "other", "weight": 1}]},
            "InvalidParameterException",
            "not associated",
        ),
        (
            {"overrides": {"containerOverrides": [{"name": "other"}]}},
            "InvalidParameterException",
            "is not a container in the TaskDefinition",
        ),
        (
            {"overrides": {"containerOverrides": [
                {"name": "main", "environment": [{"name": "A", "value": "x" * 8192}]}]}},
            "InvalidParameterException",
            "at most 8192",
        ),
        ({"overrides": {"cpu": "512", "memory": "8GB"}}, "InvalidParameterException", "No Fargate"),
        ({"enableExecuteCommand": True}, "InvalidParameterException", "task role"),
        (
            {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["nonsense"]}}},
            "InvalidParameterException",
            "InvalidSubnetID.NotFound",
        ),
        ({"tags": [{"key": "k" * 129, "value": ""}]}, "InvalidParameterException", "128"),
        ({"tags": [{"key": "aws:x", "value": ""}]}, "InvalidParameterException", "aws:"),
        ({"clientToken": "with space"}, "InvalidParameterException", "clientToken"),
    ],
)  # fmt: skip
def test_launches_that_are_refused(ecs: Ecs, change: Any, code: str, words: str) -> None:
    definition = ecs.define(container("true"), family=f"refused{abs(hash(str(change)))}")
    given = {"taskDefinition": definition, **change}
    message = refusal(code, lambda: ecs.run(given.pop("taskDefinition"), **given))
    assert words in message


def test_overrides_of_exactly_the_limit_are_taken(ecs: Ecs) -> None:
    definition = ecs.define(container("true"), family="limit")
    overrides: Any = {"containerOverrides": [{"name": "main", "command": [""]}]}
    room = 8192 - len(json.dumps(overrides, separators=(",", ":")))
    overrides["containerOverrides"][0]["command"] = ["x" * room]
    assert ecs.run(definition, overrides=overrides)["tasks"]
    overrides["containerOverrides"][0]["command"] = ["x" * (room + 1)]
    with pytest.raises(ClientError, match="8192"):
        ecs.run(definition, overrides=overrides)


def test_a_token_makes_a_launch_idempotent(ecs: Ecs) -> None:
    definition = ecs.define(container("true"), family="token")
    first = ecs.run(definition, clientToken="once", count=2)
    again = ecs.run(definition, clientToken="once", count=2)
    arns = [one["taskArn"] for one in first["tasks"]]
    assert [one["taskArn"] for one in again["tasks"]] == arns
    with pytest.raises(ClientError) as caught:
        ecs.run(definition, clientToken="once", count=1)
    assert caught.value.response["Error"]["Code"] == "ConflictException"
    assert caught.value.response["resourceIds"] == arns
    other = ecs.run(definition, clientToken="Once", count=2)
    assert not {one["taskArn"] for one in other["tasks"]} & set(arns)


def test_lists_have_pages_and_one_filter_stands_alone(ecs: Ecs) -> None:
    definition = ecs.define(container("true"), family="many")
    made = [t["taskArn"] for _ in range(11) for t in ecs.run(definition, count=10)["tasks"]]
    pages = list(ecs.client.get_paginator("list_tasks").paginate(cluster="main", family="many"))
    assert [len(one["taskArns"]) for one in pages] == [100, 10]
    assert [arn for one in pages for arn in one["taskArns"]] == made
    stray = ecs.run(definition, startedBy="someone")["tasks"][0]["taskArn"]
    assert ecs.client.list_tasks(cluster="main", startedBy="someone")["taskArns"] == [stray]
    refusal(
        "InvalidParameterException", ecs.client.list_tasks,
        cluster="main", startedBy="someone", desiredStatus="STOPPED",
    )  # fmt: skip
    refusal("InvalidParameterException", ecs.client.list_tasks, cluster="main", maxResults=101)
    refusal(
        "InvalidParameterException", ecs.client.describe_tasks, cluster="main", tasks=["x"] * 101
    )
    found = ecs.client.describe_tasks(cluster="main", tasks=[stray, "0" * 32])
    assert len(found["tasks"]) == 1
    assert [one["reason"] for one in found["failures"]] == ["MISSING"]


def test_a_stop_erases_tags_and_is_seen_in_lists(ecs: Ecs) -> None:
    definition = ecs.define(container("true"), family="stop")
    arn = ecs.run(definition, tags=[{"key": "k", "value": "v"}])["tasks"][0]["taskArn"]
    answer = ecs.client.stop_task(cluster="main", task=arn, reason="enough")["task"]
    assert (answer["desiredStatus"], answer["stopCode"]) == ("STOPPED", "UserInitiated")
    task = ecs.end(arn)
    assert (task["stoppedReason"], task["stopCode"]) == ("enough", "UserInitiated")
    assert task["containers"][0]["lastStatus"] == "STOPPED"
    assert "exitCode" not in task["containers"][0]
    assert "pullStartedAt" not in task
    assert "tags" not in ecs.task(arn, include=["TAGS"])
    listed = ecs.client.list_tasks(cluster="main", family="stop", desiredStatus="STOPPED")
    assert listed["taskArns"] == [arn]
    refusal("InvalidParameterException", ecs.client.stop_task, cluster="main", task="0" * 32)


def test_tags_change(ecs: Ecs) -> None:
    definition = ecs.define(container("true"), family="tags")
    arn = ecs.run(definition)["tasks"][0]["taskArn"]
    ecs.client.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "1"}])
    ecs.client.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "2"}])
    assert ecs.client.list_tags_for_resource(resourceArn=arn)["tags"] == [
        {"key": "a", "value": "2"}
    ]
    ecs.client.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert ecs.client.list_tags_for_resource(resourceArn=arn)["tags"] == []
    many = [{"key": f"k{n}", "value": ""} for n in range(50)]
    ecs.client.tag_resource(resourceArn=definition, tags=many)
    refusal(
        "InvalidParameterException", ecs.client.tag_resource,
        resourceArn=definition, tags=[{"key": "more", "value": ""}],
    )  # fmt: skip


def test_a_strategy_spreads_by_base_and_weight(ecs: Ecs) -> None:
    strategy = [
        {"capacityProvider": "FARGATE", "base": 2, "weight": 1},
        {"capacityProvider": "FARGATE_SPOT", "weight": 3},
    ]
    assert spread(strategy, 1) == ["FARGATE"]
    assert spread(strategy, 10).count("FARGATE_SPOT") == 6
    definition = ecs.define(container("true"), family="spread")
    tasks = ecs.run(definition, count=6, capacityProviderStrategy=strategy)["tasks"]
    assert (
        sorted(one["capacityProviderName"] for one in tasks)
        == ["FARGATE"] * 3 + ["FARGATE_SPOT"] * 3
    )


def test_what_is_not_simulated_is_an_unknown_operation(ecs: Ecs) -> None:
    message = refusal("UnknownOperationException", ecs.client.list_services, cluster="main")
    assert message in ("", "Unknown")


def test_members_that_the_model_does_not_know_are_refused(cloud: Cloud) -> None:
    client = cloud.client("ecs", parameter_validation=False)
    refusal("SerializationException", client.create_cluster, clusterName=3)
    client.meta.events.register("before-call.ecs.CreateCluster", _misspell)
    assert "clusterNaem" in refusal("SerializationException", client.create_cluster)


def _misspell(params: Any, **_: Any) -> None:
    params["body"] = b'{"clusterNaem": "x"}'


def test_identity_and_region(cloud: Cloud) -> None:
    who = cloud.client("sts").get_caller_identity()
    assert who["Account"] == "123456789012"
    assert cloud.control("GET", "health") == (200, {"broken": []})
    assert cloud.control("GET", "nowhere")[0] == 404


def test_names_of_security_groups_are_checked(ecs: Ecs) -> None:
    definition = ecs.define(container("true"), family="groups")
    network = {"awsvpcConfiguration": {"subnets": [SUBNET], "securityGroups": [GROUP] * 6}}
    with pytest.raises(ClientError, match="at most 5"):
        ecs.run(definition, networkConfiguration=network)
