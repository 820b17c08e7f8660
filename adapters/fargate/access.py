"""What the provider's identity and the execution role have to be allowed: IAM statements. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.fargate.bucket import LOOKS
from adapters.fargate.options import Options


@dataclass(frozen=True, slots=True)
class Grant:
    """Actions on resources."""

    actions: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)
    passed: bool = False
    """Only for handing a role to tasks of ECS."""

    def statement(self, actions: tuple[str, ...] = ()) -> dict[str, Any]:
        """As a policy has it; `actions`: only these of them."""
        made: dict[str, Any] = {
            "Effect": "Allow",
            "Action": list(actions or self.actions),
            "Resource": list(self.resources),
        }
        if self.passed:
            service = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
            made["Condition"] = {"StringEquals": service}
        return made


class Arns:
    """The names of what one backend uses."""

    def __init__(self, options: Options, region: str) -> None:
        parts = options.execution_role.split(":")
        self.partition, self.account = parts[1], parts[4]
        self._options, self._region = options, region

    def _of(self, service: str, rest: str) -> str:
        return f"arn:{self.partition}:{service}:{self._region}:{self.account}:{rest}"

    @property
    def cluster(self) -> str:
        """The cluster's."""
        name = self._options.cluster
        return name if name.startswith("arn:") else self._of("ecs", f"cluster/{name}")

    @property
    def tasks(self) -> str:
        """Those of all tasks there."""
        return f"{self.cluster.replace(':cluster/', ':task/')}/*"

    @property
    def definitions(self) -> str:
        """Those of our task definitions."""
        return self._of("ecs", f"task-definition/{self._options.owner}-*:*")

    @property
    def sessions(self) -> str:
        """Those of ExecuteCommand's sessions."""
        return self._of("ssm", "session/ecs-execute-command-*")

    @property
    def bucket(self) -> str:
        """The bucket's."""
        return f"arn:{self.partition}:s3:::{self._options.bucket}"

    @property
    def logs(self) -> str:
        """Those of the log group and its streams."""
        return self._of("logs", f"log-group:{self._options.log_group}:*")

    @property
    def logins(self) -> str:
        """Those of registries' logins."""
        return self._of("secretsmanager", f"secret:{self._options.owner}/registry/*")

    @property
    def queue(self) -> str:
        """The queue's; empty: there is none."""
        return self._of("sqs", self._options.queue_url.rpartition("/")[2])


def provider(options: Options, region: str) -> Iterator[Grant]:
    """What the provider itself calls."""
    arns = Arns(options, region)
    yield Grant(("ecs:DescribeClusters",), (arns.cluster,))
    yield Grant(("ecs:RegisterTaskDefinition", "ecs:DescribeTaskDefinition", "ecs:ListTasks"))
    yield Grant(("ecs:RunTask",), (arns.definitions,))
    yield Grant(("ecs:StopTask", "ecs:DescribeTasks"), (arns.tasks,))
    if options.execute_command:
        # Both of them are asked about: the cluster, and the task.
        yield Grant(("ecs:ExecuteCommand",), (arns.cluster, arns.tasks))
        yield Grant(("ssm:TerminateSession",), (arns.sessions,))
    yield Grant(("ecs:TagResource",), (arns.tasks, arns.definitions))
    roles = {options.execution_role, *(one.task_role for one in options.identities)} - {None}
    yield Grant(("iam:PassRole",), tuple(sorted(filter(None, roles))), passed=True)
    yield Grant(("s3:ListBucket",), (arns.bucket,))
    # It writes payloads, and never reads one.
    orders = f"{arns.bucket}/{options.owner}/orders/*"
    payloads = f"{arns.bucket}/{options.owner}/payloads/*"
    yield Grant(("s3:GetObject",), (orders,))
    yield Grant(("s3:PutObject", "s3:DeleteObject"), (orders, payloads))
    yield Grant(("logs:GetLogEvents",), (arns.logs,))
    yield Grant(("secretsmanager:CreateSecret", "secretsmanager:DeleteSecret"), (arns.logins,))
    if options.queue_url:
        yield Grant(("sqs:ReceiveMessage", "sqs:DeleteMessage"), (arns.queue,))
    if options.kms_key.startswith("arn:"):
        yield Grant(("kms:GenerateDataKey", "kms:Decrypt"), (options.kms_key,))


def execution(options: Options, region: str) -> Iterator[Grant]:
    """What Fargate does by the execution role, beyond pulling from ECR."""
    arns = Arns(options, region)
    yield Grant(("logs:CreateLogStream", "logs:PutLogEvents"), (arns.logs,))
    yield Grant(("s3:GetBucketLocation",), (arns.bucket,))
    yield Grant(("s3:GetObject",), (f"{arns.bucket}/{options.owner}/payloads/*",))
    yield Grant(("secretsmanager:GetSecretValue",), (arns.logins,))
    if options.kms_key.startswith("arn:"):
        yield Grant(("kms:Decrypt",), (options.kms_key,))


def looking(options: Options, region: str) -> Mapping[str, Grant]:
    """What `backends --verify` reads besides, by what it looks at."""
    arns = Arns(options, region)
    made = {
        "network": Grant(
            ("ec2:DescribeSubnets", "ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups")
        ),
        "execution role": Grant(("iam:GetRole",), (options.execution_role,)),
        "log group": Grant(("logs:DescribeLogGroups",)),
        "bucket": Grant(tuple(one.action for one in LOOKS.values()), (arns.bucket,)),
        "quota": Grant(("servicequotas:GetServiceQuota",)),
        "permissions": Grant(("iam:SimulatePrincipalPolicy", "iam:GetRole")),
    }
    if options.queue_url:
        made["queue"] = Grant(("sqs:GetQueueAttributes",), (arns.queue,))
    return made


COMMANDS = Grant(
    (
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    )
)
"""What the agent that starts commands in a container does by the pod's own role."""
