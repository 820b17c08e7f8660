"""Makes in an empty account of a simulator what this backend needs there.

On AWS itself that is Terraform's to make (docs/fargate.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import platform
import tarfile
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import boto3
from botocore import exceptions as sdk
from botocore.config import Config

from adapters.fargate.errors import translated
from bridge.errors import Unavailable, Unsupported
from bridge.helper.program import cache_folder, machine_of, program

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
_PROGRAM = "helper"
_log = logging.getLogger(__name__)


async def furnish(endpoint: str, environment: Mapping[str, str], run_on: str) -> dict[str, Any]:
    """Makes the cluster, the bucket, the log group, the queue and its rule in the simulated account
    behind `endpoint`; the values of the options for it. `environment`: what the simulator tells of
    its region and credentials. `run_on`: what it runs containers on, `process` or `engine`.

    Where the helper is not built the options have none, which is logged: pods that need it are
    refused. Raises Unavailable where no engine takes its image.
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
    try:
        content = await asyncio.to_thread(program, machine)
    except Unsupported as error:
        _log.warning("%s; pods that need it are refused", error.message)
        return found
    if run_on == "process":
        path = await asyncio.to_thread(_placed, content)
        return found | {
            "helper_image": "podbridge/helper",
            "helper_program": str(path),
            "tunnel": {"listen": "127.0.0.1", "address": "127.0.0.1"},
        }
    image, host = await _imported(endpoint, content)
    return found | {"helper_image": image, "tunnel": {"address": host}}


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


def _placed(content: bytes) -> Path:
    """The program as a file of this host that can be run."""
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = cache_folder() / "run" / f"podbridge-helper-{digest}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{id(content):x}")
        fresh.write_bytes(content)
        fresh.chmod(0o755)
        fresh.replace(path)
    return path


async def _imported(endpoint: str, content: bytes) -> tuple[str, str]:
    """The helper's image as the simulator's engine has it then, and the address by which its tasks
    reach this host. Unavailable."""
    name = f"localhost/podbridge/helper:{hashlib.sha256(content).hexdigest()[:20]}"
    url = f"{endpoint}/_podbridge/images"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, params={"name": name}, data=_archive(content)) as answer,
    ):
        said = await answer.json()
    if answer.status != HTTPStatus.CREATED:
        raise Unavailable(f"the helper's image: {'; '.join(said['errors'])}")
    return name, str(said["host"])


def _archive(content: bytes) -> bytes:
    """An image's one layer, as a tar: the program at `/helper`."""
    one = tarfile.TarInfo(_PROGRAM)
    one.mode, one.size = 0o755, len(content)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(one, io.BytesIO(content))
    return buffer.getvalue()
