"""The commands of the AWS CLI, and the IAM statements, that make or mend what a backend needs.

Texts for people to read and run; nothing here is run by us.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

RETENTION = 14
"""Days that logs are kept."""
EXPIRY = 7
"""Days after which what a pod was given is gone."""
VERSIONS = 1
"""Days after which an old version of it is gone where a bucket has some: the least there is."""
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ecs-tasks.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
"""Who may be an execution role: tasks of ECS."""
_MANAGED = "policy/service-role/AmazonECSTaskExecutionRolePolicy"


def command(*words: str, region: str = "") -> str:
    """One command, quoted for a shell."""
    where = ("--region", region) if region else ()
    return shlex.join(("aws", *words, *where))


def cluster(name: str, region: str) -> str:
    """Makes the cluster, for Spot too."""
    providers = ("--capacity-providers", "FARGATE", "FARGATE_SPOT")
    return command("ecs", "create-cluster", "--cluster-name", name, *providers, region=region)


def log_group(name: str, region: str) -> str:
    """Makes the log group."""
    made = command("logs", "create-log-group", "--log-group-name", name, region=region)
    return f"{made}\n{retention(name, region)}"


def retention(name: str, region: str) -> str:
    """Lets logs go after a time."""
    days = ("--log-group-name", name, "--retention-in-days", str(RETENTION))
    return command("logs", "put-retention-policy", *days, region=region)


def bucket(name: str, region: str, owner: str) -> str:
    """Makes the bucket as it should be."""
    where: tuple[str, ...] = ()
    if region != "us-east-1":
        # us-east-1 is no location constraint: it is refused as one.
        where = ("--create-bucket-configuration", f"LocationConstraint={region}")
    made = command("s3api", "create-bucket", "--bucket", name, *where, region=region)
    rest = (public_access(name, region), encryption(name, region), lifecycle(name, region, owner))
    return "\n".join((made, *rest))


def public_access(name: str, region: str) -> str:
    """Nobody outside the account."""
    blocks = "BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true"
    given = ("--public-access-block-configuration", f"{blocks},RestrictPublicBuckets=true")
    return command("s3api", "put-public-access-block", "--bucket", name, *given, region=region)


def encryption(name: str, region: str) -> str:
    """Objects are encrypted with the account's own key for S3."""
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    given = json.dumps({"Rules": [{**rule, "BucketKeyEnabled": True}]})
    words = ("--bucket", name, "--server-side-encryption-configuration", given)
    return command("s3api", "put-bucket-encryption", *words, region=region)


def lifecycle(name: str, region: str, owner: str, others: Sequence[Any] = ()) -> str:
    """What a pod was given is gone a week later, whoever has died meanwhile. `others`: the rules
    that the bucket has, which stay: a bucket's rules are replaced as a whole."""
    rule = {
        "ID": f"{owner}-payloads",
        "Status": "Enabled",
        "Filter": {"Prefix": f"{owner}/payloads/"},
        "Expiration": {"Days": EXPIRY},
        "NoncurrentVersionExpiration": {"NoncurrentDays": VERSIONS},
    }
    rules = [*(one for one in others if one.get("ID") != rule["ID"]), rule]
    # Dates of rules come from the SDK as such.
    wanted = json.dumps({"Rules": rules}, default=str)
    given = ("--bucket", name, "--lifecycle-configuration", wanted)
    return command("s3api", "put-bucket-lifecycle-configuration", *given, region=region)


def role(name: str, partition: str, statements: Sequence[Any]) -> str:
    """Makes the execution role."""
    trust = ("--assume-role-policy-document", json.dumps(TRUST))
    managed = ("--policy-arn", f"arn:{partition}:iam::aws:{_MANAGED}")
    return "\n".join(
        (
            command("iam", "create-role", "--role-name", name, *trust),
            command("iam", "attach-role-policy", "--role-name", name, *managed),
            role_policy(name, statements),
        )
    )


def role_policy(name: str, statements: Sequence[Any]) -> str:
    """Allows a role something more."""
    given = ("--policy-name", "podbridge", "--policy-document", policy(statements))
    return command("iam", "put-role-policy", "--role-name", name, *given)


def policy(statements: Sequence[Any], indent: int | None = None) -> str:
    """A policy's document."""
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    return json.dumps(document, indent=indent)


def quota(code: str, region: str, wanted: int) -> str:
    """Asks for more vCPUs; AWS takes hours or days."""
    given = ("--service-code", "fargate", "--quota-code", code, "--desired-value", str(wanted))
    return command("service-quotas", "request-service-quota-increase", *given, region=region)


def default_network(region: str) -> str:
    """Makes a default VPC, with a subnet for each zone and a way out."""
    return command("ec2", "create-default-vpc", region=region)
