"""What of an account would stand in the way of pods, for `podbridge backends --verify`.

It looks at everything that the options name, and has IAM say what the provider's identity and the
execution role may do. Nothing is changed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

from adapters.fargate import access, bucket, remedies
from adapters.fargate.access import Grant
from adapters.fargate.bucket import Answer
from adapters.fargate.clients import Clients
from adapters.fargate.network import Way, ways
from adapters.fargate.options import Options
from adapters.fargate.trust import is_for_tasks
from bridge.adapter import Finding, Severity
from bridge.errors import BridgeError, Invalid, NotFound, Unauthorized, Violation

_OK, _WARNING, _PROBLEM = Severity.OK, Severity.WARNING, Severity.PROBLEM
QUOTAS = {"on-demand": "L-3032A538", "spot": "L-36FBB829"}
"""Of Fargate's vCPUs, by capacity."""
_FEW_VCPUS, _MORE_VCPUS = 16, 64
"""What new accounts have is less; what to ask for."""
_FEW_ADDRESSES = 16
_KEEPS, _LONGEST = "MessageRetentionPeriod", 14 * 86400
"""How long SQS keeps a message, and the most there is, in seconds."""

Found = list[Finding]


async def verify(options: Options) -> Sequence[Finding]:
    """All findings, in the order in which things are needed. Unauthorized, Unavailable, Invalid:
    nobody can be asked at all."""
    clients = Clients(options.region, options.endpoint_url, options.threads)
    try:
        return await _Verification(clients, options).look()
    finally:
        await clients.close()


class _Verification:
    """One look at one account."""

    def __init__(self, clients: Clients, options: Options) -> None:
        self._clients, self._options = clients, options
        self._region = ""

    async def look(self) -> Found:
        """Everything."""
        who = await self._clients.call("sts", "get_caller_identity")
        cluster = await self._bounded("cluster", self._cluster)
        try:
            self._region = self._clients.region
        except KeyError:
            words = "required: neither AWS_REGION nor a profile names one"
            raise Invalid(violations=[Violation("region", words)]) from None
        found = [self._account(who), *cluster]
        looks: tuple[tuple[str, Callable[[], Awaitable[Found]]], ...] = (
            ("network", self._network),
            ("execution role", self._role),
            ("log group", self._log_group),
            ("bucket", self._bucket),
            ("queue", self._queue),
            ("quota", self._quota),
            ("permissions", lambda: self._permissions(who["Arn"])),
        )
        answers = await asyncio.gather(*(self._bounded(*one) for one in looks))
        return found + [one for answer in answers for one in answer]

    async def _bounded(self, subject: str, look: Callable[[], Awaitable[Found]]) -> Found:
        """What was found; one that could not be looked at hides no other."""
        try:
            return await look()
        except BridgeError as error:
            return [self._unseen(subject, error, subject)]

    def _unseen(
        self, subject: str, error: BridgeError, what: str, actions: tuple[str, ...] = ()
    ) -> Finding:
        """It could not be looked at: with the statement to add where that is not allowed.
        `actions`: only these of what the look takes."""
        remedy = ""
        if isinstance(error, Unauthorized) and self._region:
            grant = access.looking(self._options, self._region).get(what)
            remedy = remedies.policy([grant.statement(actions)], indent=2) if grant else ""
        return Finding(_WARNING, subject, f"could not be looked at: {error.message}", remedy)

    def _account(self, who: dict[str, Any]) -> Finding:
        account = self._options.execution_role.split(":")[4]
        if account != who["Account"]:
            words = f"we are in {who['Account']}, and execution_role is of {account}"
            return Finding(_PROBLEM, "account", words)
        return Finding(_OK, "account", f"{account}, as {who['Arn']}")

    async def _cluster(self) -> Found:
        name = self._options.cluster
        found = await self._clients.call("ecs", "describe_clusters", clusters=[name])
        there = [one for one in found["clusters"] if one.get("status") == "ACTIVE"]
        subject = f"cluster {name}"
        if not there:
            remedy = remedies.cluster(name, self._clients.region)
            return [Finding(_PROBLEM, subject, "there is none", remedy)]
        if self._options.capacity == "spot" and "FARGATE_SPOT" not in there[0].get(
            "capacityProviders", ()
        ):
            given = ("--cluster", name, "--capacity-providers", "FARGATE", "FARGATE_SPOT")
            remedy = remedies.command(
                *("ecs", "put-cluster-capacity-providers", *given),
                *("--default-capacity-provider-strategy", "[]"),
                region=self._clients.region,
            )
            return [Finding(_PROBLEM, subject, "it has no capacity provider for Spot", remedy)]
        return [Finding(_OK, subject, "it is active")]

    # The network.

    async def _network(self) -> Found:
        options = self._options
        wanted = {*options.subnets, *(id_ for one in options.identities for id_ in one.subnets)}
        groups = {
            *options.security_groups,
            *(id_ for one in options.identities for id_ in one.security_groups),
        }
        answer = await self._clients.call(
            "ec2", "describe_subnets", Filters=_filter("subnet-id", wanted)
        )
        subnets = {one["SubnetId"]: one for one in answer["Subnets"]}
        found = [
            Finding(_PROBLEM, f"subnet {one}", f"there is none in {self._region}")
            for one in sorted(wanted - set(subnets))
        ]
        vpcs = {one["VpcId"] for one in subnets.values()}
        if vpcs:
            tables = await self._clients.call(
                "ec2", "describe_route_tables", Filters=_filter("vpc-id", vpcs)
            )
            found += self._subnets(subnets, tables["RouteTables"])
        return found + await self._groups(groups, vpcs)

    def _subnets(self, subnets: dict[str, Any], tables: Sequence[Any]) -> Iterator[Finding]:
        out: dict[str, Way] = {}
        for vpc in {one["VpcId"] for one in subnets.values()}:
            mine = [id_ for id_, one in subnets.items() if one["VpcId"] == vpc]
            out |= ways(mine, [one for one in tables if one.get("VpcId") == vpc])
        for id_, one in sorted(subnets.items()):
            free, subject = one["AvailableIpAddressCount"], f"subnet {id_}"
            if out[id_] is Way.PUBLIC and not self._options.public_ip:
                words = "its way out is an internet gateway, and public_ip is false: no image comes"
                remedy = "public_ip: true   # in the backend's configuration, or other subnets"
                yield Finding(_PROBLEM, subject, words, remedy)
            elif out[id_] is Way.NONE:
                words = "no way to the internet: images and AWS's services need endpoints there"
                yield Finding(_WARNING, subject, words)
            elif free < _FEW_ADDRESSES:
                yield Finding(_WARNING, subject, f"{free} free addresses: each pod takes one")
            else:
                yield Finding(_OK, subject, f"{free} free addresses; way out: {out[id_].value}")

    async def _groups(self, wanted: set[str], vpcs: set[str]) -> Found:
        answer = await self._clients.call(
            "ec2", "describe_security_groups", Filters=_filter("group-id", wanted)
        )
        groups = {one["GroupId"]: one for one in answer["SecurityGroups"]}
        found = []
        for id_ in sorted(wanted):
            subject = f"security group {id_}"
            if id_ not in groups:
                found.append(Finding(_PROBLEM, subject, f"there is none in {self._region}"))
            elif vpcs and groups[id_]["VpcId"] not in vpcs:
                words = f"it is of {groups[id_]['VpcId']}, and the subnets are not"
                found.append(Finding(_PROBLEM, subject, words))
            else:
                found.append(Finding(_OK, subject, f'"{groups[id_]["GroupName"]}"'))
        return found

    # What pods run by.

    async def _role(self) -> Found:
        name = self._options.execution_role.rpartition("/")[2]
        subject = f"role {name}"
        partition = self._options.execution_role.split(":")[1]
        statements = [
            one.statement() for one in access.execution(self._options, self._region)
        ]  # fmt: skip
        try:
            found = await self._clients.call("iam", "get_role", RoleName=name)
        except BridgeError as error:
            if not isinstance(error, NotFound) and "NoSuchEntity" not in error.message:
                raise
            remedy = remedies.role(name, partition, statements)
            return [Finding(_PROBLEM, subject, "there is none", remedy)]
        if not is_for_tasks(found["Role"]):
            trust = ("--policy-document", remedies.policy(remedies.TRUST["Statement"]))
            remedy = remedies.command(
                "iam", "update-assume-role-policy", "--role-name", name, *trust
            )
            words = "tasks of ECS may not have it: its trust policy does not name them"
            return [Finding(_PROBLEM, subject, words, remedy)]
        return [Finding(_OK, subject, "tasks of ECS may have it")]

    async def _log_group(self) -> Found:
        name, subject = self._options.log_group, f"log group {self._options.log_group}"
        found = await self._clients.call("logs", "describe_log_groups", logGroupNamePrefix=name)
        mine = [one for one in found["logGroups"] if one["logGroupName"] == name]
        if not mine:
            remedy = remedies.log_group(name, self._region)
            return [Finding(_PROBLEM, subject, "there is none", remedy)]
        if (days := mine[0].get("retentionInDays")) is None:
            remedy = remedies.retention(name, self._region)
            words = "it keeps logs for ever, and they are billed"
            return [Finding(_WARNING, subject, words, remedy)]
        return [Finding(_OK, subject, f"it keeps logs for {days} days")]

    async def _bucket(self) -> Found:
        name, owner, region = self._options.bucket, self._options.owner, self._region
        subject = f"bucket {name}"
        try:
            await self._clients.call("s3", "head_bucket", Bucket=name)
        except NotFound:
            remedy = remedies.bucket(name, region, owner)
            return [Finding(_PROBLEM, subject, "there is none", remedy)]
        except Unauthorized as error:
            words = f"it is not ours to use: {error.message}"
            return [Finding(_PROBLEM, subject, words)]
        answers, found = await self._bucket_as_it_is(name, subject)
        for one in bucket.SETTINGS:
            if any(look not in answers for look in one.looks):
                continue
            answer = {key: value for look in one.looks for key, value in answers[look].items()}
            if not one.holds(answer, owner):
                remedy = one.remedy(name, region, owner, answer)
                found.append(Finding(_WARNING, subject, one.otherwise, remedy))
        return found or [Finding(_OK, subject, "encrypted, closed to the public, tidied up")]

    async def _bucket_as_it_is(self, name: str, subject: str) -> tuple[dict[str, Answer], Found]:
        """What S3 tells of it by each call, and what it does not."""
        answers: dict[str, Answer] = {}
        found: Found = []
        for call, look in bucket.LOOKS.items():
            try:
                answers[call] = await self._clients.call("s3", call, Bucket=name)
            except BridgeError as error:
                if look.absent and look.absent in error.message:
                    answers[call] = {}
                else:
                    found.append(self._unseen(subject, error, "bucket", (look.action,)))
        return answers, found

    async def _queue(self) -> Found:
        url = self._options.queue_url
        if not url:
            words = "queue_url is not set: changes of running pods are seen with the next list"
            return [Finding(_OK, "queue", words)]
        try:
            answer = await self._clients.call(
                "sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=[_KEEPS]
            )
        except NotFound:
            return [Finding(_PROBLEM, f"queue {url}", "there is none")]
        subject, found = f"queue {url.rpartition('/')[2]}", answer.get("Attributes", {})
        kept = int(found.get(_KEEPS, 0))
        if kept < _LONGEST:
            words = (
                f"it keeps events for {kept / 86400:g} days, and may for 14: ends that nobody has"
                " read by then are lost"
            )
            wanted = json.dumps({_KEEPS: str(_LONGEST)})
            given = ("--queue-url", url, "--attributes", wanted)
            remedy = remedies.command("sqs", "set-queue-attributes", *given, region=self._region)
            return [Finding(_WARNING, subject, words, remedy)]
        return [Finding(_OK, subject, "it keeps events for 14 days")]

    async def _quota(self) -> Found:
        capacity = self._options.capacity
        code, subject = QUOTAS[capacity], f"quota of vCPUs ({capacity})"
        found = await self._clients.call(
            "service-quotas", "get_service_quota", ServiceCode="fargate", QuotaCode=code
        )
        vcpus = int(found["Quota"]["Value"])
        if vcpus < _FEW_VCPUS:
            remedy = remedies.quota(code, self._region, _MORE_VCPUS)
            words = f"{vcpus} at once for the whole account"
            return [Finding(_WARNING, subject, words, remedy)]
        return [Finding(_OK, subject, f"{vcpus} at once for the whole account")]

    # Permissions.

    async def _permissions(self, arn: str) -> Found:
        options, region = self._options, self._region
        if arn.endswith(":root"):
            words = "the account's root user may do everything, and should not be used for this"
            mine = [Finding(_WARNING, "permissions of the provider", words)]
        else:
            source = await self._principal(arn)
            grants = tuple(access.provider(options, region))
            mine = await self._simulated("permissions of the provider", source, grants)
        role, grants = options.execution_role, tuple(access.execution(options, region))
        subject = "permissions of the execution role"
        theirs = await self._bounded(subject, lambda: self._simulated(subject, role, grants))
        return mine + theirs + await self._commands()

    async def _commands(self) -> Found:
        """Whether pods' roles let AWS's agent in, where commands go through it."""
        if not self._options.execute_command:
            return []
        subject = "exec through ExecuteCommand"
        roles = sorted({one.task_role for one in self._options.identities if one.task_role})
        if not roles:
            words = "execute_command is true, and identities gives no pod a role: none takes exec"
            return [Finding(_WARNING, subject, words)]
        found: Found = []
        for role in roles:
            found += await self._bounded(
                subject, partial(self._simulated, subject, role, (access.COMMANDS,))
            )
        return found

    async def _principal(self, arn: str) -> str:
        """The role behind a session's ARN, which does not say the role's path."""
        if ":assumed-role/" not in arn:
            return arn
        name = arn.split("/")[1]
        found = await self._clients.call("iam", "get_role", RoleName=name)
        return str(found["Role"]["Arn"])

    async def _simulated(self, subject: str, source: str, grants: Sequence[Grant]) -> Found:
        """What IAM says that a principal lacks, as the statements to add."""
        lacking: list[tuple[Grant, tuple[str, ...]]] = []
        for grant in grants:
            context = [
                {
                    "ContextKeyName": "iam:PassedToService",
                    "ContextKeyValues": ["ecs-tasks.amazonaws.com"],
                    "ContextKeyType": "string",
                }
            ]
            answer = await self._clients.call(
                "iam",
                "simulate_principal_policy",
                PolicySourceArn=source,
                ActionNames=list(grant.actions),
                ResourceArns=list(grant.resources),
                **({"ContextEntries": context} if grant.passed else {}),
            )
            denied = tuple(
                dict.fromkeys(
                    one["EvalActionName"]
                    for one in answer["EvaluationResults"]
                    if one["EvalDecision"] != "allowed"
                )
            )
            if denied:
                lacking.append((grant, denied))
        if not lacking:
            return [Finding(_OK, subject, f"{source} may do all that it has to")]
        words = f"{source} may not: {', '.join(one for _, denied in lacking for one in denied)}"
        statements = [grant.statement(denied) for grant, denied in lacking]
        return [Finding(_PROBLEM, subject, words, remedies.policy(statements, indent=2))]


def _filter(name: str, values: set[str]) -> list[dict[str, Any]]:
    """A filter finds what is there; asking by ID fails for all where one is not."""
    return [{"Name": name, "Values": sorted(values)}]
