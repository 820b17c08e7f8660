"""Makes in an empty account of a simulator what this backend needs there.

On AWS itself that is Terraform's to make (docs/fargate.md).
"""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from botocore import exceptions as sdk
from botocore.config import Config

from adapters.fargate.errors import translated
from bridge.groups.simulated import helped
from bridge.helper.program import machine_of

SIMULATOR = "aws"
"""Which of the simulators this backend runs on."""
_ACCOUNT = "123456789012"
_CLUSTER, _GROUP, _BUCKET = "podbridge", "/podbridge/pods", "podbridge-pods"
_QUEUE = "podbridge-tasks"
_SUBNETS = ("subnet-0123456789abcdef0", "subnet-0123456789abcdef1")
_SECURITY_GROUP = "sg-0123456789abcdef0"
_RULE = {"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"]}
_RETENTION = 7
"""Days: of logs, and of payloads that nobody has removed."""


async def furnish(endpoint: str, environment: Mapping[str, str], run_on: str) -> dict[str, Any]:
    """Makes the cluster, the bucket, the log group, the queue and its rule in the simulated account
    behind `endpoint`; the values of the options for it. `environment`: what the simulator tells of
    its region and credentials. `run_on`: what it runs containers on, `process` or `engine`.

    The helper's among them; where it is not built they are not, which is logged. Raises Unavailable
    where no engine takes its image.
    """
    region = environment.get("AWS_REGION", "us-east-1")
    queue_url = await asyncio.to_thread(_make, endpoint, environment, region)
    machine = machine_of(platform.machine())
    found: dict[str, Any] = {
        "region": region,
        "endpoint_url": endpoint,
        "cluster": _CLUSTER,
        "bucket": _BUCKET,
        "log_group": _GROUP,
        "subnets": list(_SUBNETS),
        "security_groups": [_SECURITY_GROUP],
        "execution_role": f"arn:aws:iam::{_ACCOUNT}:role/podbridge-execution",
        "queue_url": queue_url,
        "architecture": machine,
    }
    if run_on == "process":
        # Images mean nothing there: it is a program of this host that runs.
        found["images"] = {"resolve": False}
    return found | await helped(endpoint, run_on, machine)


def _make(endpoint: str, environment: Mapping[str, str], region: str) -> str:
    """The queue's address."""
    session = boto3.session.Session(
        aws_access_key_id=environment.get("AWS_ACCESS_KEY_ID", "simulated"),
        aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY", "simulated"),
        region_name=region,
    )
    clients: list[Any] = []

    def client(service: str) -> Any:
        made = session.client(
            service, endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"})
        )
        clients.append(made)
        return made

    try:
        return _furnished(client, region)
    except (sdk.ClientError, sdk.BotoCoreError) as error:
        raise translated(error, "the simulated cloud", changes=False) from None
    finally:
        for one in clients:
            one.close()


def _furnished(client: Callable[[str], Any], region: str) -> str:
    client("ecs").create_cluster(
        clusterName=_CLUSTER, capacityProviders=["FARGATE", "FARGATE_SPOT"]
    )
    logs = client("logs")
    logs.create_log_group(logGroupName=_GROUP)
    logs.put_retention_policy(logGroupName=_GROUP, retentionInDays=_RETENTION)
    _bucket(client("s3"), region)
    sqs, events = client("sqs"), client("events")
    url = str(sqs.create_queue(QueueName=_QUEUE)["QueueUrl"])
    events.put_rule(Name=_QUEUE, EventPattern=json.dumps(_RULE))
    arn = f"arn:aws:sqs:{region}:{_ACCOUNT}:{_QUEUE}"
    events.put_targets(Rule=_QUEUE, Targets=[{"Id": "queue", "Arn": arn}])
    return url


def _bucket(s3: Any, region: str) -> None:
    where: dict[str, Any] = {}
    if region != "us-east-1":
        where = {"CreateBucketConfiguration": {"LocationConstraint": region}}
    s3.create_bucket(Bucket=_BUCKET, **where)
    s3.put_bucket_encryption(
        Bucket=_BUCKET,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
        },
    )
    s3.put_public_access_block(
        Bucket=_BUCKET,
        PublicAccessBlockConfiguration=dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"),
            True,
        ),
    )
    rule = {
        "ID": "payloads",
        "Status": "Enabled",
        "Filter": {"Prefix": "podbridge/payloads/"},
        "Expiration": {"Days": _RETENTION},
    }
    s3.put_bucket_lifecycle_configuration(Bucket=_BUCKET, LifecycleConfiguration={"Rules": [rule]})
