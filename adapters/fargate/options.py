"""What can be chosen for this backend."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from bridge.config.values import Duration
from bridge.groups.options import Claimed, GroupOptions, Mapped

Arn = Annotated[str, StringConstraints(pattern=r"^arn:aws[a-z-]*:[a-z0-9-]+:[^:]*:\d{12}:.+$")]
Subnet = Annotated[str, StringConstraints(pattern=r"^subnet-[0-9a-f]{8,17}$")]
Group = Annotated[str, StringConstraints(pattern=r"^sg-[0-9a-f]{8,17}$")]


class Identity(Mapped):
    """What the pods of one entry are given."""

    task_role: Arn | None = None
    """The role whose credentials their containers get. Default: none."""
    subnets: tuple[Subnet, ...] = Field(default=(), max_length=16)
    """Where they run. Default: the backend's own `subnets`."""
    security_groups: tuple[Group, ...] = Field(default=(), max_length=5)
    """Which security groups they are in. Default: the backend's own."""


class Claim(Claimed):
    """The file system behind a PersistentVolumeClaim."""

    file_system: str = Field(pattern=r"^fs-[0-9a-f]{8,40}$")
    """The EFS file system's ID."""
    access_point: str = Field(default="", pattern=r"^(fsap-[0-9a-f]{8,40})?$")
    """The access point's ID. Default: none, and the root folder."""
    iam: bool = False
    """Whether the task role is shown to EFS. Default false."""


class Options(GroupOptions):
    """Options of the `fargate` backend."""

    region: str = ""
    """The region. Default: the SDK's own (AWS_REGION, the profile's)."""
    endpoint_url: str = ""
    """Where all services are asked: a simulator's address. One of this host by plain http gets no
    real credentials. Default: AWS's own."""
    cluster: str = Field(default="podbridge", min_length=1, max_length=255)
    """The ECS cluster's name or ARN, better one of its own: tasks of others are seen and left
    alone. Default: podbridge."""
    owner: str = Field(default="podbridge", pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,31}$")
    """Whose tasks these are: the beginning of `startedBy`, of definitions' families and of objects'
    names. Providers with the same one see each other's pods. Default: podbridge."""
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    """The S3 bucket for orders and payloads. Encrypted, without public access, and with a lifecycle
    rule that expires `<owner>/payloads/` after seven days."""
    kms_key: str = ""
    """The KMS key with which objects are encrypted. Default: as the bucket is configured."""
    log_group: str = Field(default="/podbridge/pods", min_length=1, max_length=512)
    """The CloudWatch Logs group that containers write to. Its retention is the logs'. Default:
    /podbridge/pods."""
    subnets: tuple[Subnet, ...] = Field(min_length=1, max_length=16)
    """Where tasks run. Each task takes an address of its subnet; where one has no more room, the
    next is asked."""
    security_groups: tuple[Group, ...] = Field(min_length=1, max_length=5)
    """The tasks' security groups."""
    public_ip: bool = False
    """Whether tasks get a public address: in subnets without a NAT or endpoints they cannot pull
    images otherwise. Default false."""
    execution_role: Arn
    """The role by which Fargate pulls images, reads payloads and registries' logins, and writes
    logs. No container gets its credentials."""
    identities: tuple[Identity, ...] = ()
    """Roles, subnets and security groups by namespace and service account. Default: none: no pod
    has a role."""
    architecture: Literal["amd64", "arm64"] = "amd64"
    """The machine of pods that do not say it by `kubernetes.io/arch` in their nodeSelector.
    Default: amd64, for which most images are made."""
    capacity: Literal["on-demand", "spot"] = "on-demand"
    """The capacity of pods that do not say it by `podbridge.io/capacity-type`, as an annotation or
    in their nodeSelector. Spot is cheaper, and AWS may take it back after two minutes' notice.
    Default: on-demand."""
    platform_version: str = Field(default="LATEST", min_length=1, max_length=32)
    """Fargate's platform version. Default: LATEST."""
    queue_url: str = ""
    """The SQS queue that gets "ECS Task State Change" events of the cluster, for this owner alone:
    what one provider has read, no other sees. Default: none: changes of running tasks are then seen
    with the next list."""
    claims: tuple[Claim, ...] = ()
    """EFS file systems for PersistentVolumeClaims. Default: none: pods with claims are refused."""
    execute_command: bool = False
    """Whether pods without a tunnel take exec through ECS ExecuteCommand (docs/fargate.md). A pod
    needs a role for that (`identities`), and the role the permissions
    ssmmessages:CreateControlChannel, CreateDataChannel, OpenControlChannel and OpenDataChannel.
    Commands run as root, and AWS's trails have them. Default false."""
    poll: Duration = 2.0
    """Seconds between looks at tasks that start or end. Default 2: a call for 100 of them."""
    threads: int = Field(default=16, ge=2, le=128)
    """Calls of AWS at once. Default 16: enough for the documented rates at 300 ms each."""
    tags: dict[str, str] = Field(default_factory=dict, max_length=40)
    """Tags for tasks and definitions, for bills. Default: none but our own."""
