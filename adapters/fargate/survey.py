"""What an AWS account has for a backend of this type: read by the standard credentials, for
`podbridge init aws`. Nothing is changed.

What bears our names is taken (cluster, log group, bucket, role, queue), else what every account has
(the default VPC). What is missing gets the name that the printed command gives it, so that the
configuration holds once the command was run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapters.fargate import access, remedies
from adapters.fargate.clients import Clients
from adapters.fargate.network import Way, ways
from adapters.fargate.options import Options
from adapters.fargate.trust import is_for_tasks
from bridge.adapter import Finding, Severity, Survey
from bridge.errors import BridgeError, Invalid, Violation

CLOUD = "aws"
"""The word for it in `podbridge init`."""
NAME = "podbridge"
LOG_GROUP = "/podbridge/pods"
QUEUE = "podbridge-tasks"
ROLE = "podbridge-execution"
ROLES = (ROLE, "ecsTaskExecutionRole")
"""Execution roles by name, the preferred first: ours, and the one that AWS's console makes."""
VCPUS = "L-3032A538"
"""The quota of Fargate's vCPUs on demand."""
_THREADS = 8
_SUBNETS, _PAGE = 16, 100

_NO_HELPER = Finding(
    Severity.WARNING,
    "helper_image",
    "no image has the helper yet: files of ConfigMaps and Secrets, several containers, restarts, "
    "deadlines, probes and exec are refused until the configuration names one (docs/fargate.md)",
)
"""An account does not show which image has it."""

Setting = tuple[str, Any, str]


async def survey(region: str, endpoint: str) -> Survey:
    """Looks through the account that the SDK's own credentials open. `region` and `endpoint`: empty
    ones are the SDK's own. Invalid: no region is known; Unauthorized, Unavailable."""
    clients = Clients(region, endpoint, _THREADS)
    try:
        return await _Surveyor(clients, endpoint).look()
    finally:
        await clients.close()


class _Surveyor:
    """One look through one account."""

    def __init__(self, clients: Clients, endpoint: str) -> None:
        self._clients = clients
        self._endpoint = endpoint
        self._region = self._account = ""
        self._partition = "aws"
        self._missing: list[Finding] = []
        self._complete = True

    async def look(self) -> Survey:
        """All of it."""
        who = await self._identity()
        self._account, self._partition = who["Account"], who["Arn"].split(":")[1]
        parts: list[list[Setting]] = [[("region", self._region, "")]]
        if self._endpoint:
            parts[0].append(("endpoint_url", self._endpoint, "not AWS's own"))
        for look in (
            self._quota,
            self._cluster,
            self._network,
            self._role,
            self._log_group,
            self._bucket,
            self._queue,
        ):
            parts.append(await look())
        self._missing.append(_NO_HELPER)
        settings = [one for part in parts for one in part]
        where = f"account {self._account}, {self._region}, as {who['Arn']}"
        return Survey(where, settings, self._missing, self._complete)

    async def _identity(self) -> dict[str, Any]:
        no_region = [Violation("--region", "required: neither AWS_REGION nor a profile names one")]
        try:
            who = await self._clients.call("sts", "get_caller_identity")
        except BridgeError as error:
            if "region" in error.message.lower():
                raise Invalid(violations=no_region) from None
            raise
        await self._ask("ecs", "list_clusters", maxResults=1)
        try:
            self._region = self._clients.region
        except KeyError:
            raise Invalid(violations=no_region) from None
        return who

    def _lacks(self, subject: str, message: str, remedy: str) -> None:
        self._missing.append(Finding(Severity.PROBLEM, subject, message, remedy))

    async def _ask(self, service: str, action: str, **given: Any) -> dict[str, Any] | None:
        """One call; None where it is not allowed or fails, which is noted."""
        try:
            return await self._clients.call(service, action, **given)
        except BridgeError as error:
            words = f"could not be looked at: {error.message}"
            self._missing.append(Finding(Severity.WARNING, service, words))
            return None

    async def _quota(self) -> list[Setting]:
        found = await self._ask(
            "service-quotas", "get_service_quota", ServiceCode="fargate", QuotaCode=VCPUS
        )
        if found is None:
            return []
        vcpus = int(found["Quota"]["Value"])
        return [("cpu", str(vcpus), "vCPUs: the account's quota for Fargate on demand")]

    async def _cluster(self) -> list[Setting]:
        found = await self._ask("ecs", "describe_clusters", clusters=[NAME])
        there = any(one.get("status") == "ACTIVE" for one in (found or {}).get("clusters", ()))
        if found is not None and not there:
            self._lacks(f"cluster {NAME}", "there is none", remedies.cluster(NAME, self._region))
        return [("cluster", NAME, "")]

    # The network.

    async def _network(self) -> list[Setting]:
        default = [{"Name": "is-default", "Values": ["true"]}]
        found = await self._ask("ec2", "describe_vpcs", Filters=default)
        if found is None or not found["Vpcs"]:
            self._complete = False
            if found is not None:
                remedy = remedies.default_network(self._region)
                self._lacks("VPC", "there is no default VPC; make one, or write your own", remedy)
            return [("subnets", [], "yours"), ("security_groups", [], "yours")]
        vpc = found["Vpcs"][0]["VpcId"]
        mine = [{"Name": "vpc-id", "Values": [vpc]}]
        subnets = await self._subnets(vpc, mine)
        return [*subnets, await self._groups(vpc, mine)]

    async def _subnets(self, vpc: str, mine: list[Any]) -> list[Setting]:
        found = await self._ask("ec2", "describe_subnets", Filters=mine)
        tables = await self._ask("ec2", "describe_route_tables", Filters=mine)
        ids = sorted(one["SubnetId"] for one in (found or {}).get("Subnets", ()))[:_SUBNETS]
        if not ids:
            self._complete = False
            return [("subnets", [], f"{vpc} has none")]
        out = ways(ids, (tables or {}).get("RouteTables", ()))
        public = [one for one in ids if out[one] is Way.PUBLIC]
        private = [one for one in ids if out[one] is Way.PRIVATE]
        chosen = private or public or ids
        if not private and not public and tables is not None:
            words = "none of its subnets has a way to the internet: images come from endpoints only"
            self._missing.append(Finding(Severity.WARNING, vpc, words))
        free = sum(
            one["AvailableIpAddressCount"] for one in found["Subnets"] if one["SubnetId"] in chosen
        ) if found else 0  # fmt: skip
        way = Way.PRIVATE if private else Way.PUBLIC if public else Way.NONE
        words = f"of {vpc}; way out: {way.value}; {free} free addresses, one for each pod"
        public_ip = way is Way.PUBLIC
        why = "needed to pull images: the way out is an internet gateway" if public_ip else ""
        return [("subnets", chosen, words), ("public_ip", public_ip, why)]

    async def _groups(self, vpc: str, mine: list[Any]) -> Setting:
        found = await self._ask("ec2", "describe_security_groups", Filters=mine)
        by_name = {
            one["GroupName"]: one["GroupId"] for one in (found or {}).get("SecurityGroups", ())
        }
        name = NAME if NAME in by_name else "default"
        if name not in by_name:
            self._complete = False
            return ("security_groups", [], "yours")
        return ("security_groups", [by_name[name]], f'"{name}" of {vpc}')

    # What pods run by.

    async def _role(self) -> list[Setting]:
        roles = [one async for one in self._roles()]
        fitting = {one["RoleName"]: one["Arn"] for one in roles if is_for_tasks(one)}
        name = next((one for one in ROLES if one in fitting), "")
        if not name:
            name = next((one for one in sorted(fitting) if "taskexecution" in one.lower()), "")
        if name:
            return [("execution_role", fitting[name], "")]
        arn = f"arn:{self._partition}:iam::{self._account}:role/{ROLE}"
        statements = [one.statement() for one in access.execution(self._planned(arn), self._region)]
        words = "there is no execution role, which pulls images and writes logs"
        self._lacks(f"role {ROLE}", words, remedies.role(ROLE, self._partition, statements))
        return [("execution_role", arn, "")]

    async def _roles(self) -> Any:
        more: dict[str, Any] = {}
        while True:
            found = await self._ask("iam", "list_roles", MaxItems=_PAGE, **more)
            for one in (found or {}).get("Roles", ()):
                yield one
            if not found or not found.get("IsTruncated"):
                return
            more = {"Marker": found["Marker"]}

    def _planned(self, role: str) -> Options:
        """The options as they will be, for what they have to be allowed."""
        return Options(
            bucket=self._bucket_name,
            subnets=("subnet-00000000",),
            security_groups=("sg-00000000",),
            execution_role=role,
        )

    async def _log_group(self) -> list[Setting]:
        found = await self._ask("logs", "describe_log_groups", logGroupNamePrefix=LOG_GROUP)
        mine = [
            one for one in (found or {}).get("logGroups", ()) if one["logGroupName"] == LOG_GROUP
        ]
        if found is not None and not mine:
            remedy = remedies.log_group(LOG_GROUP, self._region)
            self._lacks(f"log group {LOG_GROUP}", "there is none", remedy)
        elif mine and "retentionInDays" not in mine[0]:
            remedy = remedies.retention(LOG_GROUP, self._region)
            words = "it keeps logs for ever, and they are billed"
            self._missing.append(Finding(Severity.WARNING, f"log group {LOG_GROUP}", words, remedy))
        return [("log_group", LOG_GROUP, "")]

    @property
    def _bucket_name(self) -> str:
        return f"{NAME}-{self._account}-{self._region}"

    async def _bucket(self) -> list[Setting]:
        found = await self._ask("s3", "list_buckets")
        names = [one["Name"] for one in (found or {}).get("Buckets", ())]
        name = self._bucket_name
        if found is not None and name not in names:
            self._lacks(
                f"bucket {name}", "there is none", remedies.bucket(name, self._region, NAME)
            )
        return [("bucket", name, "")]

    async def _queue(self) -> list[Setting]:
        found = await self._ask("sqs", "list_queues", QueueNamePrefix=QUEUE)
        urls: Sequence[str] = (found or {}).get("QueueUrls") or ()
        mine = [one for one in urls if one.rpartition("/")[2] == QUEUE]
        return [("queue_url", mine[0], "")] if mine else []
