"""What `init` and `--verify` find in an account: moto's server, with an IAM of our own where moto
has none. The commands that they print are carried out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import pytest
from fargate_kit import Cloud
from moto_kit import REGION, Account, gateway, moto

from adapters.fargate import Adapter, Options, bucket, remedies, survey
from adapters.fargate.access import execution, provider
from adapters.fargate.clients import credentials
from adapters.fargate.network import Way, ways
from adapters.fargate.trust import is_for_tasks
from bridge.adapter import Finding, Severity, Survey, Verifies
from bridge.errors import Unavailable

__all__ = ["moto"]

BUCKET = f"podbridge-123456789012-{REGION}"


def by_subject(found: Any) -> dict[str, Finding]:
    return {one.subject: one for one in found}


def options_of(found: Survey) -> dict[str, Any]:
    """The type's own keys of what was found."""
    return {key: value for key, value, _ in found.settings if key != "cpu"}


# init.


@pytest.mark.slow
async def test_an_empty_account_gets_commands_and_they_are_right(moto: str) -> None:
    account = Account(moto)
    vpc = gateway(account)
    found = await survey(REGION, moto)
    assert found.complete
    assert found.who.startswith(f"account 123456789012, {REGION}, as arn:aws:sts::")
    missing = by_subject(found.missing)
    assert set(missing) == {
        "service-quotas",  # moto has none for Fargate
        "helper_image",
        "cluster podbridge",
        "role podbridge-execution",
        "log group /podbridge/pods",
        f"bucket {BUCKET}",
    }
    assert missing["helper_image"].severity is Severity.WARNING
    assert "several containers, restarts, deadlines, probes and exec are refused" in (
        missing["helper_image"].message
    )
    settings = options_of(found)
    assert settings["public_ip"] is True
    assert len(settings["subnets"]) == 3
    assert settings["endpoint_url"] == moto
    comments = {key: why for key, _, why in found.settings}
    assert comments["subnets"].startswith(f"of {vpc}; way out: an internet gateway; ")
    assert comments["security_groups"] == f'"default" of {vpc}'

    for one in found.missing:
        for line in one.remedy.splitlines():
            account.run(line)
    again = await survey(REGION, moto)
    assert set(by_subject(again.missing)) == {"service-quotas", "helper_image"}
    assert options_of(again) == settings
    Options.model_validate(settings)

    looked = by_subject(await Adapter("fargate", Options.model_validate(settings)).verify())
    for subject in (
        "cluster podbridge",
        "role podbridge-execution",
        "log group /podbridge/pods",
        f"bucket {BUCKET}",
    ):
        assert looked[subject].severity is Severity.OK, looked[subject]


@pytest.mark.slow
async def test_no_way_out_and_no_retention(moto: str) -> None:
    account = Account(moto)
    account.call("logs", "create_log_group", logGroupName="/podbridge/pods")
    account.call("logs", "create_log_group", logGroupName="/podbridge/pods-of-others")
    found = await survey(REGION, moto)
    missing = by_subject(found.missing)
    group = missing["log group /podbridge/pods"]
    assert (group.severity, group.message) == (
        Severity.WARNING,
        "it keeps logs for ever, and they are billed",
    )
    assert group.remedy == remedies.retention("/podbridge/pods", REGION)
    assert any("no way to the internet" in one.message.lower() or "has a way" in one.message
               for one in found.missing)  # fmt: skip
    assert options_of(found)["public_ip"] is False


@pytest.mark.slow
async def test_without_a_network_nothing_can_be_written(moto: str) -> None:
    account = Account(moto)
    for one in account.call("ec2", "describe_subnets")["Subnets"]:
        account.call("ec2", "delete_subnet", SubnetId=one["SubnetId"])
    (vpc,) = account.call("ec2", "describe_vpcs")["Vpcs"]
    account.call("ec2", "delete_vpc", VpcId=vpc["VpcId"])
    found = await survey(REGION, moto)
    assert not found.complete
    assert (
        by_subject(found.missing)["VPC"].remedy == f"aws ec2 create-default-vpc --region {REGION}"
    )


@pytest.mark.slow
async def test_the_role_of_the_console_is_found(moto: str) -> None:
    account = Account(moto)
    trust = json.dumps(remedies.TRUST)
    other = trust.replace("ecs-tasks", "ec2")
    for name, document in (("ecsTaskExecutionRole", trust), ("podbridge-execution", other)):
        account.call("iam", "create_role", RoleName=name, AssumeRolePolicyDocument=document)
    found = await survey(REGION, moto)
    role = options_of(found)["execution_role"]
    assert role == "arn:aws:iam::123456789012:role/ecsTaskExecutionRole"


async def test_nobody_answers() -> None:
    with pytest.raises(Unavailable, match="GetCallerIdentity"):
        await survey(REGION, "http://127.0.0.1:9")


# --verify.


class Iam(BaseHTTPRequestHandler):
    """GetRole and SimulatePrincipalPolicy, in AWS's query protocol."""

    allowed: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        (action,) = asked["Action"]
        if action == "GetRole":
            trust = escape(json.dumps(self.allowed.get("trust", remedies.TRUST)))
            content = (
                "<Role><Path>/</Path><RoleName>x</RoleName><RoleId>AROA1234567890123456</RoleId>"
                f"<Arn>arn:aws:iam::123456789012:role/x</Arn>"
                "<CreateDate>2026-01-01T00:00:00Z</CreateDate>"
                f"<AssumeRolePolicyDocument>{trust}</AssumeRolePolicyDocument></Role>"
            )
        else:
            denied = self.allowed.get(asked["PolicySourceArn"][0], ())
            results = "".join(
                f"<member><EvalActionName>{one}</EvalActionName><EvalDecision>"
                f"{'implicitDeny' if one in denied else 'allowed'}</EvalDecision></member>"
                for key, (one,) in asked.items()
                if key.startswith("ActionNames.member.")
            )
            content = f"<EvaluationResults>{results}</EvaluationResults>"
        body = (
            f'<{action}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
            f"<{action}Result>{content}</{action}Result></{action}Response>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def iam(monkeypatch: pytest.MonkeyPatch, moto: str) -> Iterator[dict[str, Any]]:
    """Everything but IAM is moto's. What is put into it: by principal, the actions denied."""
    allowed: dict[str, Any] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Iam,), {"allowed": allowed}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    yield allowed
    server.shutdown()
    thread.join()
    server.server_close()


ROLE = "arn:aws:iam::123456789012:role/x"


def made(account: Account, **more: Any) -> Options:
    """Options for what there is."""
    subnets = [one["SubnetId"] for one in account.call("ec2", "describe_subnets")["Subnets"]]
    groups = [
        one["GroupId"] for one in account.call("ec2", "describe_security_groups")["SecurityGroups"]
    ]
    given = {
        "region": REGION,
        "bucket": BUCKET,
        "subnets": subnets,
        "security_groups": groups,
        "execution_role": ROLE,
        "public_ip": True,
        **more,
    }
    return Options.model_validate(given)


@pytest.mark.slow
async def test_what_is_not_allowed_comes_as_the_statement_to_add(
    iam: dict[str, Any], moto: str
) -> None:
    account = Account(moto)
    gateway(account)
    (who,) = [account.call("sts", "get_caller_identity")["Arn"]]
    iam[who] = {"ecs:RunTask", "iam:PassRole"}
    iam[ROLE] = {"s3:GetObject"}
    adapter = Adapter("fargate", made(account))
    assert isinstance(adapter, Verifies)
    found = by_subject(await adapter.verify())

    mine = found["permissions of the provider"]
    assert mine.severity is Severity.PROBLEM
    assert mine.message == f"{who} may not: ecs:RunTask, iam:PassRole"
    run, passing = json.loads(mine.remedy)["Statement"]
    assert run == {
        "Effect": "Allow",
        "Action": ["ecs:RunTask"],
        "Resource": [f"arn:aws:ecs:{REGION}:123456789012:task-definition/podbridge-*:*"],
    }
    assert passing["Resource"] == [ROLE]
    service = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    assert passing["Condition"] == {"StringEquals": service}
    theirs = found["permissions of the execution role"]
    (reading,) = json.loads(theirs.remedy)["Statement"]
    assert reading["Resource"] == [f"arn:aws:s3:::{BUCKET}/podbridge/payloads/*"]

    iam.clear()
    found = by_subject(await adapter.verify())
    assert found["permissions of the provider"].severity is Severity.OK
    assert found["permissions of the execution role"].severity is Severity.OK


@pytest.mark.slow
async def test_what_pods_roles_lack_for_commands(iam: dict[str, Any], moto: str) -> None:
    account = Account(moto)
    gateway(account)
    subject = "exec through ExecuteCommand"
    assert subject not in by_subject(await Adapter("fargate", made(account)).verify())
    adapter = Adapter("fargate", made(account, execute_command=True))
    nobody = by_subject(await adapter.verify())[subject]
    assert (nobody.severity, "no pod a role" in nobody.message) == (Severity.WARNING, True)

    role = "arn:aws:iam::123456789012:role/pods"
    iam[role] = {"ssmmessages:OpenDataChannel"}
    given = made(account, execute_command=True, identities=[{"namespace": "a", "task_role": role}])
    found = by_subject(await Adapter("fargate", given).verify())[subject]
    assert found.severity is Severity.PROBLEM
    assert found.message == f"{role} may not: ssmmessages:OpenDataChannel"
    (wanted,) = json.loads(found.remedy)["Statement"]
    assert wanted["Action"] == ["ssmmessages:OpenDataChannel"]

    iam.clear()
    assert by_subject(await Adapter("fargate", given).verify())[subject].severity is Severity.OK


@pytest.mark.slow
async def test_wrong_ids_and_settings(iam: dict[str, Any], moto: str) -> None:
    account = Account(moto)
    gateway(account)
    account.call(
        "s3",
        "create_bucket",
        Bucket=BUCKET,
        CreateBucketConfiguration={"LocationConstraint": REGION},
    )
    iam["trust"] = {"Statement": []}
    right = made(account)
    options = right.model_copy(
        update={
            "subnets": (right.subnets[0], "subnet-0123456789abcdef0"),
            "security_groups": ("sg-0123456789abcdef0",),
            "execution_role": "arn:aws:iam::999999999999:role/x",
            "public_ip": False,
        }
    )
    found = await Adapter("fargate", options).verify()
    problems = {one.subject: one for one in found if one.severity is Severity.PROBLEM}
    assert problems["account"].message == (
        "we are in 123456789012, and execution_role is of 999999999999"
    )
    assert "there is none in" in problems["subnet subnet-0123456789abcdef0"].message
    assert problems[f"subnet {right.subnets[0]}"].remedy.startswith("public_ip: true")
    assert "there is none in" in problems["security group sg-0123456789abcdef0"].message
    assert problems["cluster podbridge"].remedy == remedies.cluster("podbridge", REGION)
    assert problems["log group /podbridge/pods"].remedy.startswith("aws logs create-log-group")
    assert "may not have it" in problems["role x"].message
    warnings = [one for one in found if one.severity is Severity.WARNING]
    said = {one.message for one in warnings if one.subject == f"bucket {BUCKET}"}
    assert {"not closed to the public", "never tidied up"} <= said


@pytest.mark.slow
async def test_a_bucket_that_is_configured_otherwise(iam: dict[str, Any], moto: str) -> None:
    account = Account(moto)
    options, subject = made(account), f"bucket {BUCKET}"
    for line in remedies.bucket(BUCKET, REGION, options.owner).splitlines():
        account.run(line)
    blocks = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    account.call(
        "s3",
        "put_public_access_block",
        Bucket=BUCKET,
        PublicAccessBlockConfiguration={**blocks, "RestrictPublicBuckets": False},
    )
    other = {
        "ID": "reports",
        "Status": "Enabled",
        "Filter": {"Prefix": "reports/"},
        "Expiration": {"Days": 30},
    }
    account.call(
        "s3",
        "put_bucket_lifecycle_configuration",
        Bucket=BUCKET,
        LifecycleConfiguration={"Rules": [other]},
    )
    adapter = Adapter("fargate", options)
    found = [one for one in await adapter.verify() if one.subject == subject]
    assert [one.message for one in found] == ["not closed to the public", "never tidied up"]
    for one in found:
        account.run(one.remedy)
    (mended,) = [one for one in await adapter.verify() if one.subject == subject]
    assert mended.message == "encrypted, closed to the public, tidied up"
    rules = account.call("s3", "get_bucket_lifecycle_configuration", Bucket=BUCKET)["Rules"]
    assert [(one["ID"], one["Expiration"]["Days"]) for one in rules] == [
        ("reports", 30),
        ("podbridge-payloads", 7),
    ]


@pytest.mark.slow
async def test_a_bucket_that_keeps_what_was_deleted(iam: dict[str, Any], moto: str) -> None:
    account = Account(moto)
    options, subject = made(account), f"bucket {BUCKET}"
    for line in remedies.bucket(BUCKET, REGION, options.owner).splitlines():
        account.run(line)
    rule = {
        "ID": "podbridge-payloads",
        "Status": "Enabled",
        "Filter": {"Prefix": "podbridge/payloads/"},
        "Expiration": {"Days": 7},
    }
    account.call(
        "s3",
        "put_bucket_lifecycle_configuration",
        Bucket=BUCKET,
        LifecycleConfiguration={"Rules": [rule]},
    )
    adapter = Adapter("fargate", options)
    (plain,) = [one for one in await adapter.verify() if one.subject == subject]
    assert plain.severity is Severity.OK
    account.call(
        "s3",
        "put_bucket_versioning",
        Bucket=BUCKET,
        VersioningConfiguration={"Status": "Enabled"},
    )
    (kept,) = [one for one in await adapter.verify() if one.subject == subject]
    assert (kept.severity, kept.message) == (
        Severity.WARNING,
        "it keeps versions of what was deleted, pods' secrets among it",
    )
    account.run(kept.remedy)
    (mended,) = [one for one in await adapter.verify() if one.subject == subject]
    assert mended.severity is Severity.OK


@pytest.mark.slow
async def test_what_may_not_be_looked_at_comes_as_the_statement_to_add() -> None:
    cloud = Cloud()
    await cloud.open()
    try:
        for service, action in (("s3", "GetBucketVersioning"), ("sqs", "GetQueueAttributes")):
            await cloud.fault("expired-token", service=service, action=action)
        found = await Adapter("fargate", Options(**cloud.options)).verify()
    finally:
        await cloud.close()
    unseen = {one.subject: one for one in found if "could not be looked at" in one.message}
    (statement,) = json.loads(unseen["bucket podbridge-pods"].remedy)["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Action": ["s3:GetBucketVersioning"],
        "Resource": ["arn:aws:s3:::podbridge-pods"],
    }
    (statement,) = json.loads(unseen["queue"].remedy)["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Action": ["sqs:GetQueueAttributes"],
        "Resource": ["arn:aws:sqs:us-east-1:123456789012:podbridge-tasks"],
    }


@pytest.mark.slow
async def test_a_queue_that_forgets_too_soon(iam: dict[str, Any], moto: str) -> None:
    account = Account(moto)
    url = account.call("sqs", "create_queue", QueueName="events")["QueueUrl"]
    adapter = Adapter("fargate", made(account, queue_url=url))
    found = by_subject(await adapter.verify())["queue events"]
    assert found.severity is Severity.WARNING
    assert "4 days" in found.message
    account.run(found.remedy)
    assert by_subject(await adapter.verify())["queue events"].severity is Severity.OK


# Pure.


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"Filter": {"Prefix": "mine/"}}, True),
        ({"Filter": {}}, True),
        ({"Filter": {"Prefix": "mine/payloads/x"}}, False),
        ({"Filter": {"Prefix": "other/"}}, False),
        ({"Filter": {"Tag": {"Key": "a", "Value": "b"}}}, False),
        ({"Filter": {"And": {"Prefix": "mine/", "ObjectSizeLessThan": 1}}}, False),
        ({"Status": "Disabled"}, False),
        ({"Expiration": {"ExpiredObjectDeleteMarker": True}}, False),
        ({"Expiration": {}}, False),
    ],
)
def test_which_rule_removes_payloads(change: dict[str, Any], *, expected: bool) -> None:
    rule = {
        "Status": "Enabled",
        "Filter": {"Prefix": "mine/payloads/"},
        "Expiration": {"Days": 7},
        **change,
    }
    assert bucket.tidied({"Rules": [rule]}, "mine") is expected


_OLD = {"NoncurrentDays": 1}


@pytest.mark.parametrize(
    ("status", "change", "expected"),
    [
        ("", {}, True),
        ("Enabled", {}, False),
        ("Suspended", {}, False),
        ("Enabled", {"NoncurrentVersionExpiration": _OLD}, True),
        ("Suspended", {"NoncurrentVersionExpiration": _OLD}, True),
        (
            "Enabled",
            {"NoncurrentVersionExpiration": {**_OLD, "NewerNoncurrentVersions": 1}},
            False,
        ),
        ("Enabled", {"NoncurrentVersionExpiration": _OLD, "Filter": {"Prefix": "other/"}}, False),
        ("Enabled", {"NoncurrentVersionExpiration": _OLD, "Status": "Disabled"}, False),
    ],
)
def test_whether_deleted_payloads_are_gone(
    status: str, change: dict[str, Any], *, expected: bool
) -> None:
    rule = {"Status": "Enabled", "Filter": {"Prefix": "mine/"}, "Expiration": {"Days": 7}, **change}
    answer = {"Rules": [rule], **({"Status": status} if status else {})}
    assert bucket.forgets(answer, "mine") is expected


def test_rules_of_the_older_form() -> None:
    rule = {"Status": "Enabled", "Expiration": {"Days": 7}}
    assert bucket.tidied({"Rules": [{**rule, "Prefix": "mine/"}]}, "mine")
    assert not bucket.tidied({"Rules": [{**rule, "Prefix": "others/"}]}, "mine")
    assert bucket.tidied({"Rules": [rule]}, "mine")
    assert not bucket.tidied({}, "mine")


@pytest.mark.parametrize(
    ("option", "variable", "expected"),
    [
        ("http://127.0.0.1:4566", "", True),
        ("", "http://127.0.0.1:4566", True),
        ("", "http://localhost:4566", True),
        ("https://s3.example", "http://127.0.0.1:4566", False),
        ("", "https://127.0.0.1:4566", False),
        ("", "http://aws.example", False),
        ("", "", False),
    ],
)
def test_no_real_keys_reach_a_simulator(
    monkeypatch: pytest.MonkeyPatch, option: str, variable: str, *, expected: bool
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", variable)
    given = {"aws_access_key_id": "simulated", "aws_secret_access_key": "simulated"}
    assert credentials(option) == (given if expected else {})


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ([], Way.NONE),
        ([{"Associations": [{"Main": True}], "Routes": []}], Way.NONE),
        (
            [
                {
                    "Associations": [{"Main": True}],
                    "Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}],
                }
            ],
            Way.PUBLIC,
        ),
        (
            [
                {
                    "Associations": [{"Main": True}],
                    "Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}],
                },
                {
                    "Associations": [{"SubnetId": "subnet-1"}],
                    "Routes": [
                        {"DestinationCidrBlock": "10.0.0.0/8", "GatewayId": "local"},
                        {"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"},
                    ],
                },
            ],
            Way.PRIVATE,
        ),
        (
            [
                {
                    "Associations": [{"Main": True}],
                    "Routes": [
                        {
                            "DestinationCidrBlock": "0.0.0.0/0",
                            "GatewayId": "igw-1",
                            "State": "blackhole",
                        }
                    ],
                }
            ],
            Way.NONE,
        ),
    ],
)
def test_ways_out(tables: list[Any], expected: Way) -> None:
    assert ways(["subnet-1"], tables) == {"subnet-1": expected}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (remedies.TRUST, True),
        (json.dumps(remedies.TRUST), True),
        ({"Statement": {**remedies.TRUST["Statement"][0]}}, True),
        ({"Statement": [{"Effect": "Allow", "Principal": {"Service": ["a", "b"]}}]}, False),
        ({"Statement": [{"Effect": "Allow", "Principal": "*"}]}, False),
        ("not JSON", False),
        ({}, False),
    ],
)
def test_whom_a_role_trusts(document: Any, *, expected: bool) -> None:
    assert is_for_tasks({"AssumeRolePolicyDocument": document}) is expected


def test_what_is_asked_for_names_what_is_ours() -> None:
    options = Options.model_validate(
        {
            "bucket": "pods",
            "subnets": ["subnet-01234567"],
            "security_groups": ["sg-01234567"],
            "execution_role": "arn:aws-cn:iam::123456789012:role/x",
            "queue_url": "https://sqs/123456789012/events",
            "identities": [
                {"namespace": "a", "task_role": "arn:aws-cn:iam::123456789012:role/task"}
            ],
        }
    )
    grants = {action: one for one in provider(options, "cn-north-1") for action in one.actions}
    assert grants["iam:PassRole"].resources == (
        "arn:aws-cn:iam::123456789012:role/task",
        "arn:aws-cn:iam::123456789012:role/x",
    )
    assert grants["sqs:ReceiveMessage"].resources == (
        "arn:aws-cn:sqs:cn-north-1:123456789012:events",
    )
    # Payloads are for the execution role alone to read.
    assert grants["s3:GetObject"].resources == ("arn:aws-cn:s3:::pods/podbridge/orders/*",)
    assert grants["ecs:StopTask"].resources == (
        "arn:aws-cn:ecs:cn-north-1:123456789012:task/podbridge/*",
    )
    assert grants["ecs:TagResource"].resources == (
        "arn:aws-cn:ecs:cn-north-1:123456789012:task/podbridge/*",
        "arn:aws-cn:ecs:cn-north-1:123456789012:task-definition/podbridge-*:*",
    )
    actions = [action for one in execution(options, "cn-north-1") for action in one.actions]
    assert "secretsmanager:GetSecretValue" in actions
