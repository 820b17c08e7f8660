"""The run on a real account, tried out where there is none: on a simulator in its own process."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError
from fargate_kit import Cloud
from support.channels import PATIENCE, soon

from adapters.fargate import Adapter, Options, furnish
from adapters.fargate.names import payload_prefix
from tools.real import account, work
from tools.real.__main__ import main
from tools.real.recorder import Recorder
from tools.real.redact import Redactor
from tools.real.replay import read, replay

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SIMULATED = Path(__file__).with_name("transcripts") / "aws-simulated.jsonl"
ACCOUNT = "123456789012"
OPTIONS = {
    "bucket": "acme",
    "subnets": ["subnet-0123456789abcdef0"],
    "security_groups": ["sg-0123456789abcdef0"],
    "execution_role": f"arn:aws:iam::{ACCOUNT}:role/execution",
}


@dataclass
class Place:
    """A simulated account, and a configuration for it."""

    path: Path
    endpoint: str
    options: dict[str, Any]

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def transcript(self) -> Path:
        return self.path / "transcript.jsonl"

    def write(self, *names: str) -> None:
        backends = [{"name": one, "type": "fargate", **self.options} for one in names]
        self.config.write_text(yaml.safe_dump({"backends": backends}))

    async def start(self, *words: str, limit: str = "1") -> asyncio.subprocess.Process:
        given = ["aws", "--config", str(self.config), "--to", str(self.transcript)]
        return await self._process(*given, "--max-cost", limit, *words)

    async def _process(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tools.real", *words),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def run(self, *words: str, limit: str = "1") -> tuple[int, str]:
        return await ended(await self.start(*words, limit=limit))

    async def clean_up(self, owner: str) -> tuple[int, str]:
        given = ["clean-up", owner, "--config", str(self.config)]
        return await ended(await self._process(*given))

    def client(self, service: str) -> Any:
        session = boto3.session.Session("simulated", "simulated", region_name="us-east-1")
        style = Config(s3={"addressing_style": "path"})
        return session.client(service, endpoint_url=self.endpoint, config=style)

    def left(self) -> Sequence[str]:
        """What is there of anybody's."""
        ecs, s3 = self.client("ecs"), self.client("s3")
        try:
            tasks = ecs.list_tasks(cluster=self.options["cluster"])["taskArns"]
            objects = s3.list_objects_v2(Bucket=self.options["bucket"]).get("Contents", ())
            families = ecs.list_task_definition_families(status="ACTIVE")["families"]
        finally:
            ecs.close()
            s3.close()
        return [*tasks, *(one["Key"] for one in objects), *families]


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    async with asyncio.timeout(PATIENCE):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "podbridge", "simulate", "aws", "--time-scale", "200"),
        *("-o", "json"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            said = json.loads(await process.stdout.readuntil(b"\n}\n"))
        options = await furnish(said["endpoint"], said["environment"], "process")
        made = Place(tmp_path, said["endpoint"], options)
        made.write("fargate")
        yield made
    finally:
        process.terminate()
        await process.wait()


async def test_a_run_from_its_price_to_its_transcript(place: Place) -> None:
    # What is asked for is another name than the one that was given.
    rewrite = {"registry.acme.example": "mirror.acme.example"}
    place.options["images"] = {**place.options.get("images", {}), "rewrite": rewrite}
    place.write("fargate")
    image = ("--image", "registry.acme.example/secret/box:1")
    words = (*image, "--yes", "--pace", "0.1", "-k", "to_its_end or shape or vanishes")
    code, out = await place.run(*words)
    assert code == 0, out
    assert f"account {ACCOUNT}, us-east-1 (an address of its own" in out
    assert "3 tests, at most 2 tasks of 250m CPU, 512Mi memory" in out
    assert "each ends by itself once it has started: 1290 s (0.36 h) at most" in out
    assert re.search(r"list prices of \d{4}-\d\d-\d\d, https://", out)
    assert "$0.0089 at most; the limit is $1.00" in out
    assert "2 passed, 1 skipped" in out
    assert "only a simulator can let a task vanish" in out
    assert "1 tasks were started; they cost about $0.0002" in out
    assert "nothing is left" in out
    assert await asyncio.to_thread(place.left) == []
    text = place.transcript.read_text()
    names = ("subnet-0", "sg-0", "podbridge-pods", "podbridge-execution", "acme", "secret/")
    for secret in (ACCOUNT, *names):
        assert secret not in text, secret
    transcript = read(place.transcript)
    assert transcript.about["simulated"] is True
    assert {one["operation"] for one in transcript.calls} >= {"RunTask", "GetLogEvents"}
    assert await replay(transcript) == []


async def test_what_could_cost_more_is_not_begun(place: Place) -> None:
    code, out = await place.run("--yes", limit="0.10")
    assert code == 3, out
    assert "at most; the limit is $0.1000" in out
    assert "and --max-cost allows $0.1000; nothing was started" in out
    assert not place.transcript.exists()
    # Nor what nobody agrees to.
    code, out = await place.run("-k", "shape")
    assert code == 2, out
    assert "--yes: required where there is no terminal to ask; nothing was started" in out


def test_several_backends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(tmp_path, "", {**OPTIONS})
    given = ["aws", "--config", str(place.config), "--max-cost", "1"]
    place.write("one", "two")
    assert main(given) == 2
    assert capsys.readouterr().err == "error: --backend: required; allowed: one, two\n"
    assert main([*given, "--backend", "three"]) == 2
    said = capsys.readouterr().err
    assert said == 'error: --backend: found "three"; allowed: one, two\n'
    place.write()
    assert main(given) == 2
    assert "no backend of type fargate: podbridge init aws makes" in capsys.readouterr().err
    assert main([*given[:-1], "much"]) == 2
    assert "--max-cost: found" in capsys.readouterr().err
    place.write("one")
    assert main(["clean-up", "podbridge", "--config", str(place.config)]) == 2
    said = capsys.readouterr().err
    assert (
        said == 'error: OWNER: found "podbridge"; allowed: the owner of a run, podbridge-real-...\n'
    )


async def test_who_interrupts_it_leaves_nothing(place: Place) -> None:
    process = await place.start("--yes", "--pace", "0.1", "-k", "stop_ends_it or slow_lists")

    async def launches() -> bool:
        assert process.returncode is None
        return place.transcript.exists() and '"RunTask"' in place.transcript.read_text()

    await soon(launches)
    process.send_signal(signal.SIGINT)
    code, out = await ended(process)
    assert code == 130, out
    assert "removing what is left\nnothing is left" in out
    assert await asyncio.to_thread(place.left) == []


# What is left.

OWNER = "podbridge-real-0123abcd"


async def launch(options: Options, count: int) -> list[str]:
    """Starts tasks that nobody watches then; their ARNs."""
    adapter = Adapter("fargate", options)
    try:
        await adapter.open()
        pods = [work.endless("busybox") for _ in range(count)]
        await asyncio.gather(*(adapter.run(one) for one in pods))

        async def up() -> bool:
            # A list may not have the newest yet.
            return len(await account._running(adapter)) == count

        await soon(up)
        await adapter._store.put_payloads({f"{payload_prefix(options.owner)}x": b"A=b"})
        return list(await account._running(adapter))
    finally:
        await adapter.close()


def states(place: str, cluster: str, arns: Sequence[str]) -> list[str]:
    """Of tasks, in no order."""
    session = boto3.session.Session("simulated", "simulated", region_name="us-east-1")
    ecs = session.client("ecs", endpoint_url=place)
    try:
        found = ecs.describe_tasks(cluster=cluster, tasks=list(arns))["tasks"]
    finally:
        ecs.close()
    return [one["lastStatus"] for one in found]


def narrowed(options: Any, owner: str, tmp_path: Path) -> Options:
    return account.narrowed(Options(**options), owner, pace=0.05, state=str(tmp_path))


async def test_clean_up_leaves_nothing_of_an_owner(place: Place) -> None:
    theirs = await launch(narrowed(place.options, "podbridge-real-00000000", place.path), 1)
    ours = await launch(narrowed(place.options, OWNER, place.path), 2)
    cluster = place.options["cluster"]
    left = await asyncio.to_thread(place.left)
    assert set(ours) < set(left)
    assert len([one for one in left if one.startswith(f"{OWNER}/")]) == 3
    code, out = await place.clean_up(OWNER)
    assert code == 0, out
    assert f"nothing of {OWNER} runs\n" in out
    assert await asyncio.to_thread(states, place.endpoint, cluster, ours) == ["STOPPED"] * 2
    left = await asyncio.to_thread(place.left)
    # Definitions are not looked for, and what is another run's stays.
    assert not [one for one in left if one in ours or one.startswith(f"{OWNER}/")]
    assert set(theirs) < set(left)
    assert (await place.clean_up(OWNER))[0] == 0


async def test_what_is_throttled_is_removed_all_the_same(tmp_path: Path) -> None:
    cloud = Cloud()
    await cloud.open()
    try:
        options = narrowed(cloud.options, OWNER, tmp_path)
        arns = await launch(options, 3)
        assert len(arns) == 3
        await cloud.fault("throttle", action="StopTask", times=2)
        await cloud.fault("error", action="ListTasks", times=1)
        await cloud.fault("error", action="DescribeClusters", times=1)
        assert await account.sweep("fargate", options, account.Made(arns)) == []
        endpoint, cluster = cloud.simulator.endpoint, options.cluster
        assert await asyncio.to_thread(states, endpoint, cluster, arns) == ["STOPPED"] * 3
        adapter = Adapter("fargate", options)
        try:
            assert await adapter._store.marks() == await adapter._store.payloads() == set()
        finally:
            await adapter.close()
    finally:
        await cloud.close()


# Redaction.

SENTINELS = {
    "access key": "AKIASENTINEL00000001",
    "secret key": "sent/inel+secretkeyAAAAAAAAAAAAAAAAAAAAA",
    "token": "FwoGSENTINEL//////////wEaDtoken+of/a/session==",
    "variable": "sentinel-of-a-variable",
    "secret": "sentinel-of-a-secret",
    "body": "sentinel-of-a-body",
    "bucket": "sentinel-bucket",
    "role": "sentinel-role",
    "subnet": "subnet-5e5e5e5e5e5e5e5e5",
    "group": "sg-5e5e5e5e5e5e5e5e5",
    "tag": "sentinel-of-a-tag",
    "user": "sentinel-user",
    "account": ACCOUNT,
    "other account": "998877665544",
}


async def test_nothing_of_an_account_is_in_a_transcript() -> None:
    cloud = Cloud()
    await cloud.open()
    out = io.StringIO()
    try:
        endpoint = cloud.simulator.endpoint
        addresses = await asyncio.to_thread(_betray, endpoint, Recorder(out, _redactor()))
    finally:
        await cloud.close()
    text = out.getvalue()
    assert addresses
    for what, secret in [*SENTINELS.items(), *(("address", one) for one in addresses)]:
        assert secret not in text, what
        assert json.dumps(secret)[1:-1] not in text, what
    calls = [json.loads(line) for line in text.splitlines()]
    (run,) = (one for one in calls if one["operation"] == "RunTask")
    assert run["parameters"]["startedBy"] == "podbridge/mark"
    (put,) = (one for one in calls if one["operation"] == "PutObject")
    assert put["parameters"]["Body"] == {"$bytes": len(SENTINELS["body"])}
    (refused,) = (one for one in calls if one["operation"] == "DescribeTaskDefinition")
    assert refused["error"]["code"] == "ClientException"


def _redactor() -> Redactor:
    """Of what the configuration would tell: the rest is found."""
    return Redactor({ACCOUNT: "account", SENTINELS["bucket"]: "bucket", SENTINELS["role"]: "role"})


def _betray(endpoint: str, recorder: Recorder) -> list[str]:
    """Puts all of it into calls; the addresses and IDs that tasks got."""
    session = boto3.session.Session(
        SENTINELS["access key"], SENTINELS["secret key"], SENTINELS["token"], "us-east-1"
    )
    recorder.attach(session)
    clients = {
        name: session.client(
            name, endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"})
        )
        for name in ("ecs", "s3", "secretsmanager")
    }
    try:
        ecs, s3, secrets = clients.values()
        s3.create_bucket(Bucket=SENTINELS["bucket"])
        s3.put_object(Bucket=SENTINELS["bucket"], Key="k", Body=SENTINELS["body"].encode())
        with s3.get_object(Bucket=SENTINELS["bucket"], Key="k")["Body"] as body:
            assert body.read() == SENTINELS["body"].encode()
        s3.list_buckets()
        secrets.create_secret(Name="x", SecretString=SENTINELS["secret"])
        roles = [
            f"arn:aws:iam::{SENTINELS[account]}:role/{SENTINELS['role']}"
            for account in ("account", "other account")
        ]
        container = {
            "name": "main",
            "image": f"{SENTINELS['other account']}.dkr.ecr.us-east-1.amazonaws.com/x:1",
            # A secret in a command is one that was told of before.
            "command": ["sh", "-c", f"echo {SENTINELS['secret']}; sleep 60"],
            "environment": [{"name": "A", "value": SENTINELS["variable"]}],
        }
        ecs.register_task_definition(
            family="x",
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
            cpu="256",
            memory="512",
            executionRoleArn=roles[0],
            taskRoleArn=roles[1],
            containerDefinitions=[container],
            tags=[{"key": "who", "value": SENTINELS["tag"]}],
        )
        task = ecs.run_task(
            cluster="podbridge",
            taskDefinition="x",
            launchType="FARGATE",
            startedBy="podbridge/mark",
            networkConfiguration={
                "awsvpcConfiguration": {
                    "subnets": [SENTINELS["subnet"]],
                    "securityGroups": [SENTINELS["group"]],
                }
            },
        )["tasks"][0]["taskArn"]
        found: list[str] = []
        while len(found) < 3:
            (one,) = ecs.describe_tasks(cluster="podbridge", tasks=[task])["tasks"]
            details = [each for some in one["attachments"] for each in some["details"]]
            wanted = ("networkInterfaceId", "privateIPv4Address", "macAddress")
            found = [each["value"] for each in details if each["name"] in wanted]
        ecs.stop_task(cluster="podbridge", task=task, reason=f"by {SENTINELS['variable']}")
        arn = f"arn:aws:iam::{SENTINELS['account']}:user/{SENTINELS['user']}"
        with pytest.raises(ClientError):
            ecs.describe_task_definition(taskDefinition=arn)
        return [*found, task.rpartition("/")[2]]
    finally:
        for one in clients.values():
            one.close()


# Replays.


async def test_the_transcript_that_is_kept_here() -> None:
    """It is of a simulator. One of an account is compared in the same way, and differs where the
    simulator does."""
    transcript = read(SIMULATED)
    assert transcript.about["simulated"] is True
    assert await replay(transcript) == []


async def test_a_replay_tells_what_differs(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in SIMULATED.read_text().splitlines()]
    cluster = next(one for one in lines if one.get("operation") == "DescribeClusters")
    other = json.loads(json.dumps(cluster))
    other["answer"]["clusters"][0] |= {"status": True, "serviceConnectDefaults": {"namespace": "x"}}
    refused = {key: one for key, one in cluster.items() if key != "answer"}
    refused |= {"n": 99, "status": 400, "error": {"code": "AccessDeniedException", "message": ""}}
    throttled = {**refused, "error": {"code": "ThrottlingException", "message": ""}}
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(map(json.dumps, (lines[0], other, refused, throttled))))
    assert await replay(read(file)) == [
        "ecs:DescribeClusters: recorded AccessDeniedException, simulated an answer (call 99)",
        "ecs:DescribeClusters: only recorded: clusters[].serviceConnectDefaults: object",
        "ecs:DescribeClusters: only recorded: clusters[].status: bool",
        "ecs:DescribeClusters: only simulated: clusters[].status: text",
    ]
