"""The services around ECS, by boto3: logs, objects, secrets, parameters, queues, rules, quotas."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from aws_kit import PATIENCE, Cloud, Ecs, running, shell, until
from botocore.exceptions import ClientError

from adapters.simulators.aws import Settings
from adapters.simulators.aws.events import matches

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    roomy = {"burst": 10_000, "per_second": 10_000}
    with running(Settings(fargate_vcpus=40, buckets={"logs-read": roomy}), scale=50) as cloud:
        yield cloud


def refusal(code: str, call: Any, **given: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        call(**given)
    assert caught.value.response["Error"]["Code"] == code
    return caught.value


# CloudWatch Logs.


def read(logs: Any, **given: Any) -> tuple[list[str], str]:
    answer = logs.get_log_events(logGroupName="g", logStreamName="s", **given)
    return [one["message"] for one in answer["events"]], answer["nextForwardToken"]


def test_log_events_are_read_in_pages(cloud: Cloud) -> None:
    logs = cloud.client("logs")
    logs.create_log_group(logGroupName="g", tags={"a": "b"})
    refusal("ResourceAlreadyExistsException", logs.create_log_group, logGroupName="g")
    refusal("ResourceNotFoundException", logs.get_log_events, logGroupName="g", logStreamName="s")
    logs.create_log_stream(logGroupName="g", logStreamName="s")
    messages, token = read(logs, startFromHead=True)
    assert messages == []
    now = int(time.time() * 1000)
    events = [{"timestamp": now + n // 2, "message": f"line {n}"} for n in range(25)]
    logs.put_log_events(logGroupName="g", logStreamName="s", logEvents=events)
    found: list[str] = []
    sizes = []
    while True:
        messages, following = read(logs, nextToken=token, limit=10)
        found += messages
        sizes.append(len(messages))
        if following == token:
            break
        token = following
    assert sizes == [10, 10, 5, 0]
    assert found == [one["message"] for one in events]
    late = [{"timestamp": now + 100, "message": "late"}]
    logs.put_log_events(logGroupName="g", logStreamName="s", logEvents=late)
    assert read(logs, nextToken=token)[0] == ["late"]
    # From the end backwards, each page in its own order.
    answer = logs.get_log_events(logGroupName="g", logStreamName="s", limit=2)
    assert [one["message"] for one in answer["events"]] == ["line 24", "late"]
    back = logs.get_log_events(
        logGroupName="g", logStreamName="s", limit=2, nextToken=answer["nextBackwardToken"]
    )
    assert [one["message"] for one in back["events"]] == ["line 22", "line 23"]


def test_a_page_has_at_most_a_megabyte(cloud: Cloud) -> None:
    logs = cloud.client("logs")
    logs.create_log_group(logGroupName="big")
    logs.create_log_stream(logGroupName="big", logStreamName="s")
    now = int(time.time() * 1000)
    for n in range(3):
        events = [{"timestamp": now + n, "message": "x" * 250_000} for _ in range(2)]
        logs.put_log_events(logGroupName="big", logStreamName="s", logEvents=events)
    answer = logs.get_log_events(logGroupName="big", logStreamName="s", startFromHead=True)
    assert len(answer["events"]) == 4


def test_log_events_that_are_refused(cloud: Cloud) -> None:
    logs = cloud.client("logs")
    logs.create_log_group(logGroupName="bad")
    logs.create_log_stream(logGroupName="bad", logStreamName="s")
    now = int(time.time() * 1000)
    place = {"logGroupName": "bad", "logStreamName": "s"}
    unsorted = [{"timestamp": now + 1, "message": "b"}, {"timestamp": now, "message": "a"}]
    refusal("InvalidParameterException", logs.put_log_events, logEvents=unsorted, **place)
    large = [{"timestamp": now, "message": "x" * 1_048_576}]
    refusal("InvalidParameterException", logs.put_log_events, logEvents=large, **place)
    old = [{"timestamp": now - 15 * 24 * 3_600_000, "message": "old"},
           {"timestamp": now, "message": "new"},
           {"timestamp": now + 3 * 3_600_000, "message": "future"}]  # fmt: skip
    answer = logs.put_log_events(logEvents=old, **place)
    assert answer["rejectedLogEventsInfo"] == {
        "tooOldLogEventEndIndex": 1,
        "tooNewLogEventStartIndex": 2,
    }
    refusal("InvalidParameterException", logs.get_log_events, nextToken="x", **place)
    refusal("InvalidParameterException", logs.create_log_group, logGroupName="with space")
    refusal(
        "InvalidParameterException", logs.put_retention_policy, logGroupName="bad",
        retentionInDays=2,
    )  # fmt: skip


def test_groups_are_described_filtered_and_deleted(cloud: Cloud) -> None:
    logs = cloud.client("logs")
    logs.create_log_group(logGroupName="/f/one")
    logs.put_retention_policy(logGroupName="/f/one", retentionInDays=7)
    (found,) = logs.describe_log_groups(logGroupNamePrefix="/f/")["logGroups"]
    assert (found["retentionInDays"], found["arn"][-2:]) == (7, ":*")
    now = int(time.time() * 1000)
    for name in ("a/1", "a/2", "b/1"):
        logs.create_log_stream(logGroupName="/f/one", logStreamName=name)
        events = [{"timestamp": now, "message": f"ERROR in {name}"},
                  {"timestamp": now, "message": "fine"}]  # fmt: skip
        logs.put_log_events(logGroupName="/f/one", logStreamName=name, logEvents=events)
    answer = logs.filter_log_events(
        logGroupName="/f/one", logStreamNamePrefix="a/", filterPattern="ERROR"
    )
    assert [one["logStreamName"] for one in answer["events"]] == ["a/1", "a/2"]
    assert len({one["eventId"] for one in answer["events"]}) == 2
    names = logs.describe_log_streams(logGroupName="/f/one", logStreamNamePrefix="a/")
    assert [one["logStreamName"] for one in names["logStreams"]] == ["a/1", "a/2"]
    logs.delete_log_stream(logGroupName="/f/one", logStreamName="a/1")
    logs.delete_log_group(logGroupName="/f/one")
    refusal("ResourceNotFoundException", logs.describe_log_streams, logGroupName="/f/one")


# S3.


def test_objects_come_back_as_they_went(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="things")
    body = bytes(range(256)) * 10
    put = s3.put_object(
        Bucket="things", Key="a b/ü&?#.bin", Body=body, ContentType="text/plain",
        ContentEncoding="gzip", Metadata={"who": "me"}, ServerSideEncryption="aws:kms",
        SSEKMSKeyId="key",
    )  # fmt: skip
    got = s3.get_object(Bucket="things", Key="a b/ü&?#.bin")
    assert got["Body"].read() == body
    assert (got["ContentType"], got["ContentEncoding"]) == ("text/plain", "gzip")
    assert (got["Metadata"], got["ETag"]) == ({"who": "me"}, put["ETag"])
    assert (got["ServerSideEncryption"], got["SSEKMSKeyId"]) == ("aws:kms", "key")
    head = s3.head_object(Bucket="things", Key="a b/ü&?#.bin")
    assert head["ContentLength"] == len(body)
    part = s3.get_object(Bucket="things", Key="a b/ü&?#.bin", Range="bytes=2-5")
    assert (part["Body"].read(), part["ContentRange"]) == (body[2:6], f"bytes 2-5/{len(body)}")
    refusal(
        "PreconditionFailed", s3.put_object, Bucket="things", Key="a b/ü&?#.bin", IfNoneMatch="*"
    )
    there = {"Bucket": "things", "Key": "a b/ü&?#.bin"}
    tag = s3.put_object(**there, Body=b"1")["ETag"]
    assert s3.put_object(**there, Body=b"2", IfMatch=tag)["ETag"] != tag
    refusal("PreconditionFailed", s3.put_object, **there, Body=b"3", IfMatch=tag)
    s3.delete_object(Bucket="things", Key="a b/ü&?#.bin")
    refusal("NoSuchKey", s3.put_object, **there, Body=b"3", IfMatch=tag)
    refusal("NoSuchKey", s3.get_object, Bucket="things", Key="a b/ü&?#.bin")
    refusal("404", s3.head_object, Bucket="things", Key="a b/ü&?#.bin")
    s3.delete_bucket(Bucket="things")
    refusal("404", s3.head_bucket, Bucket="things")
    refusal("NoSuchBucket", s3.list_objects_v2, Bucket="things")


def test_wrong_checksums_are_refused(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="sums")
    refusal("BadDigest", s3.put_object, Bucket="sums", Key="k", Body=b"x", ChecksumCRC32="AAAAAA==")
    s3.put_object(Bucket="sums", Key="k", Body=b"x", ChecksumAlgorithm="SHA256")
    found = s3.get_object(Bucket="sums", Key="k", ChecksumMode="ENABLED")
    assert found["ChecksumSHA256"]
    assert found["Body"].read() == b"x"


def test_lists_of_objects(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="lists")
    for key in ("a/1", "a/2", "a/3", "b", "c/1"):
        s3.put_object(Bucket="lists", Key=key, Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket="lists", PaginationConfig={"PageSize": 2}
    )
    assert [[one["Key"] for one in page["Contents"]] for page in pages] == [
        ["a/1", "a/2"], ["a/3", "b"], ["c/1"],
    ]  # fmt: skip
    top = s3.list_objects_v2(Bucket="lists", Delimiter="/")
    assert [one["Key"] for one in top["Contents"]] == ["b"]
    assert [one["Prefix"] for one in top["CommonPrefixes"]] == ["a/", "c/"]
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket="lists", Delimiter="/", PaginationConfig={"PageSize": 1}
    )
    found = [one.get("Prefix") or one["Key"] for page in pages
             for one in page.get("Contents", []) + page.get("CommonPrefixes", [])]  # fmt: skip
    assert found == ["a/", "b", "c/"]
    refusal("BucketNotEmpty", s3.delete_bucket, Bucket="lists")
    keys = [{"Key": one} for one in ("a/1", "a/2", "a/3", "b", "c/1", "none")]
    gone = s3.delete_objects(Bucket="lists", Delete={"Objects": keys})
    assert len(gone["Deleted"]) == 6
    assert s3.list_objects_v2(Bucket="lists")["KeyCount"] == 0


def test_the_configuration_of_a_bucket_is_kept(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="conf")
    rules = [{"ID": "soon", "Status": "Enabled", "Filter": {"Prefix": "x/"},
              "Expiration": {"Days": 1}}]  # fmt: skip
    refusal("NoSuchLifecycleConfiguration", s3.get_bucket_lifecycle_configuration, Bucket="conf")
    s3.put_bucket_lifecycle_configuration(Bucket="conf", LifecycleConfiguration={"Rules": rules})
    assert s3.get_bucket_lifecycle_configuration(Bucket="conf")["Rules"] == rules
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"},
                             "BucketKeyEnabled": True}]}  # fmt: skip
    s3.put_bucket_encryption(Bucket="conf", ServerSideEncryptionConfiguration=encryption)
    found = s3.get_bucket_encryption(Bucket="conf")
    assert found["ServerSideEncryptionConfiguration"] == encryption
    assert s3.put_object(Bucket="conf", Key="k", Body=b"")["ServerSideEncryption"] == "aws:kms"
    block = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    s3.put_public_access_block(Bucket="conf", PublicAccessBlockConfiguration=block)
    assert s3.get_public_access_block(Bucket="conf")["PublicAccessBlockConfiguration"] == block
    assert "Status" not in s3.get_bucket_versioning(Bucket="conf")
    refusal(
        "IllegalVersioningConfigurationException",
        s3.put_bucket_versioning,
        Bucket="conf",
        VersioningConfiguration={},
    )
    for status in ("Enabled", "Suspended"):
        s3.put_bucket_versioning(Bucket="conf", VersioningConfiguration={"Status": status})
        assert s3.get_bucket_versioning(Bucket="conf")["Status"] == status
    assert "LocationConstraint" in s3.get_bucket_location(Bucket="conf")
    refusal("NotImplemented", s3.create_multipart_upload, Bucket="conf", Key="k")
    refusal("NotImplemented", s3.copy_object, Bucket="conf", Key="l", CopySource="conf/k")
    refusal("InvalidBucketName", cloud.client("s3").create_bucket, Bucket="ab..c")
    assert "conf" in [one["Name"] for one in s3.list_buckets()["Buckets"]]


# Secrets Manager, parameters, keys, quotas.


def test_secrets_have_versions_and_go_slowly(cloud: Cloud) -> None:
    client = cloud.client("secretsmanager")
    made = client.create_secret(Name="n", SecretString="one", Tags=[{"Key": "k", "Value": "v"}])
    refusal("ResourceExistsException", client.create_secret, Name="n", SecretString="one")
    client.put_secret_value(SecretId="n", SecretString="two")
    assert client.get_secret_value(SecretId=made["ARN"])["SecretString"] == "two"
    old = client.get_secret_value(SecretId="n", VersionStage="AWSPREVIOUS")
    assert (old["SecretString"], old["VersionId"]) == ("one", made["VersionId"])
    client.tag_resource(SecretId="n", Tags=[{"Key": "l", "Value": "w"}])
    about = client.describe_secret(SecretId="n")
    assert {one["Key"] for one in about["Tags"]} == {"k", "l"}
    assert sorted(about["VersionIdsToStages"].values()) == [["AWSCURRENT"], ["AWSPREVIOUS"]]
    filters = [{"Key": "tag-key", "Values": ["k"]}]
    assert [one["Name"] for one in client.list_secrets(Filters=filters)["SecretList"]] == ["n"]
    client.delete_secret(SecretId="n")
    refusal("InvalidRequestException", client.get_secret_value, SecretId="n")
    refusal("InvalidRequestException", client.create_secret, Name="n", SecretString="x")
    assert client.list_secrets()["SecretList"] == []
    client.restore_secret(SecretId="n")
    client.delete_secret(SecretId="n", ForceDeleteWithoutRecovery=True)
    refusal("ResourceNotFoundException", client.describe_secret, SecretId="n")
    binary = client.create_secret(Name="b", SecretBinary=b"\x00\xff")["ARN"]
    assert client.get_secret_value(SecretId=binary)["SecretBinary"] == b"\x00\xff"
    refusal("ValidationException", client.create_secret, Name="big", SecretString="x" * 65_537)


def test_parameters(cloud: Cloud) -> None:
    ssm = cloud.client("ssm")
    ssm.put_parameter(Name="/a/b", Value="v", Type="SecureString")
    refusal("ParameterAlreadyExists", ssm.put_parameter, Name="/a/b", Value="w", Type="String")
    assert ssm.put_parameter(Name="/a/b", Value="w", Overwrite=True)["Version"] == 2
    assert ssm.get_parameter(Name="/a/b", WithDecryption=True)["Parameter"]["Value"] == "w"
    assert ssm.get_parameter(Name="/a/b")["Parameter"]["Value"] != "w"
    assert ssm.get_parameters(Names=["/a/b", "/no"])["InvalidParameters"] == ["/no"]
    refusal("ValidationException", ssm.put_parameter, Name="/l", Value="x" * 4097, Type="String")
    ssm.delete_parameter(Name="/a/b")
    refusal("ParameterNotFound", ssm.get_parameter, Name="/a/b")


def test_keys_and_quotas(cloud: Cloud) -> None:
    kms = cloud.client("kms")
    key = kms.create_key(Description="mine")["KeyMetadata"]
    assert kms.describe_key(KeyId=key["Arn"])["KeyMetadata"]["KeyState"] == "Enabled"
    kms.schedule_key_deletion(KeyId=key["KeyId"], PendingWindowInDays=7)
    assert kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"] == "PendingDeletion"
    refusal("NotFoundException", kms.describe_key, KeyId="none")
    quotas = cloud.client("service-quotas")
    found = quotas.get_service_quota(ServiceCode="fargate", QuotaCode="L-3032A538")["Quota"]
    assert (found["Value"], found["QuotaName"]) == (40.0, "Fargate On-Demand vCPU resource count")
    assert len(quotas.list_service_quotas(ServiceCode="fargate")["Quotas"]) == 2
    refusal(
        "NoSuchResourceException", quotas.get_service_quota, ServiceCode="fargate", QuotaCode="L-0"
    )


# SQS and EventBridge.


def test_messages_hide_come_back_and_go(cloud: Cloud) -> None:
    sqs = cloud.client("sqs")
    url = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "20"})["QueueUrl"]
    assert sqs.get_queue_url(QueueName="q")["QueueUrl"] == url
    refusal("QueueAlreadyExists", sqs.create_queue, QueueName="q",
            Attributes={"VisibilityTimeout": "21"})  # fmt: skip
    sqs.send_message(QueueUrl=url, MessageBody="hello")
    (first,) = sqs.receive_message(QueueUrl=url, AttributeNames=["All"])["Messages"]
    assert first["Attributes"]["ApproximateReceiveCount"] == "1"
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    # Twenty of the cloud's seconds later it is seen again, within a long poll.
    (again,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20, AttributeNames=["All"]).get(
        "Messages"
    ) or until(lambda: sqs.receive_message(QueueUrl=url, AttributeNames=["All"]).get("Messages"))
    assert (again["Body"], again["MessageId"]) == ("hello", first["MessageId"])
    done = sqs.delete_message_batch(
        QueueUrl=url,
        Entries=[{"Id": "1", "ReceiptHandle": again["ReceiptHandle"]},
                 {"Id": "2", "ReceiptHandle": "nonsense"}],
    )  # fmt: skip
    assert [one["Id"] for one in done["Successful"]] == ["1"]
    assert [one["Code"] for one in done["Failed"]] == ["ReceiptHandleIsInvalid"]
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert counts["ApproximateNumberOfMessages"] == "0"
    assert counts["QueueArn"] == "arn:aws:sqs:us-east-1:123456789012:q"
    sqs.delete_queue(QueueUrl=url)
    refusal("AWS.SimpleQueueService.NonExistentQueue", sqs.get_queue_url, QueueName="q")
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.receive_message(QueueUrl=url)


def test_state_changes_reach_a_queue(cloud: Cloud) -> None:
    ecs, sqs, events = Ecs(cloud), cloud.client("sqs"), cloud.client("events")
    url = sqs.create_queue(QueueName="changes")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    cluster = ecs.client.describe_clusters(clusters=["main"])["clusters"][0]["clusterArn"]
    pattern = {"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"],
               "detail": {"clusterArn": [cluster]}}  # fmt: skip
    events.put_rule(Name="rule", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="rule", Targets=[{"Id": "1", "Arn": arn}])
    refusal("ValidationException", events.delete_rule, Name="rule")
    refusal("InvalidEventPatternException", events.put_rule, Name="x", EventPattern="{")
    task = ecs.start(shell("exit 6"), startedBy="me")
    found: list[Any] = []

    def stopped() -> bool:
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
        for one in answer.get("Messages", ()):
            found.append(json.loads(one["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
        return any(one["detail"]["lastStatus"] == "STOPPED" for one in found)

    until(stopped)
    details = sorted((one["detail"] for one in found), key=lambda one: one["version"])
    assert [one["version"] for one in details] == list(range(1, len(details) + 1))
    assert details[0]["lastStatus"] == "PROVISIONING"
    last = details[-1]
    assert (last["taskArn"], last["startedBy"]) == (task, "me")
    assert last["containers"][0]["exitCode"] == 6
    assert last["attachments"][0]["type"] == "eni"
    assert last["stoppedAt"].endswith("Z")
    assert "healthStatus" not in last
    assert found[0]["source"] == "aws.ecs"
    assert ecs.task(task)["version"] == last["version"]
    events.remove_targets(Rule="rule", Ids=["1"])
    events.delete_rule(Name="rule")


def test_event_patterns() -> None:
    event = {"source": "aws.ecs", "detail": {"lastStatus": "STOPPED", "tags": ["a", "b"]}}
    assert matches({"source": ["aws.ecs", "other"]}, event)
    assert matches({"detail": {"lastStatus": [{"prefix": "STOP"}], "tags": ["b"]}}, event)
    assert not matches({"detail": {"lastStatus": [{"anything-but": ["STOPPED"]}]}}, event)
    assert matches({"detail": {"none": [{"exists": False}]}}, event)
    assert not matches({"detail": {"none": ["x"]}}, event)


# Requests that no SDK would send, or that nobody here answers.


def raw(cloud: Cloud, path: str, body: bytes | None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(cloud.simulator.endpoint + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_nobody_comes_without_a_signature(cloud: Cloud) -> None:
    status, body = raw(cloud, "/bucket/key", None)
    assert (status, b"AccessDenied" in body) == (403, True)
    target = {"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListClusters"}
    status, body = raw(cloud, "/", b"{}", **target)
    assert (status, b"MissingAuthenticationTokenException" in body) == (403, True)


def test_what_is_no_json_is_refused(cloud: Cloud) -> None:
    scope = "Credential=k/20261122/us-east-1/ecs/aws4_request, SignedHeaders=h, Signature=s"
    headers = {
        "X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListClusters",
        "Authorization": f"AWS4-HMAC-SHA256 {scope}",
    }
    for text in (b"{", b"[]", b"\xff"):
        status, body = raw(cloud, "/", text, **headers)
        assert (status, json.loads(body)["__type"]) == (400, "SerializationException")


def test_services_that_are_not_simulated_say_so(cloud: Cloud) -> None:
    refusal("UnknownOperationException", cloud.client("dynamodb").list_tables)
    with pytest.raises(ClientError):
        cloud.client("ec2").describe_subnets()


def test_a_body_in_pieces_is_put_together(cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="chunks")
    scope = "Credential=k/20261122/us-east-1/s3/aws4_request, SignedHeaders=h, Signature=s"
    body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 {scope}",
        "Content-Encoding": "aws-chunked",
        "X-Amz-Decoded-Content-Length": "11",
    }
    request = urllib.request.Request(
        cloud.simulator.endpoint + "/chunks/k", body, headers, method="PUT"
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 200
    found = s3.get_object(Bucket="chunks", Key="k")
    assert (found["Body"].read(), found["ChecksumCRC32"]) == (b"hello world", "DUoRhQ==")
    assert "ContentEncoding" not in found
