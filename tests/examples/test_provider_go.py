"""The provider in Go: built, served on a socket, and driven as any provider is."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bridge.errors import Invalid, NotFound, Unsupported
from bridge.rpc.client import RemoteProvider
from bridge.rpc.v1 import pod_pb2, provider_pb2_grpc, stream_pb2
from bridge.rpc.v1 import provider_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "examples" / "provider-go"
CLUSTER = str(uuid.uuid4())
PATIENCE = 60.0
"""Seconds that anything may take."""
OLD = 7 * 86400
"""Seconds after which a built program is removed from the cache."""

pytestmark = pytest.mark.slow


def cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "podbridge" / "examples"


def go(*words: str) -> subprocess.CompletedProcess[str]:
    # No other toolchain is fetched than the one that is here.
    env = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    return subprocess.run(
        ["go", *words],
        cwd=SOURCE,
        env=env,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def built() -> Path:
    """The program, from the cache where the same sources were built before."""
    sources = [*SOURCE.rglob("*.go"), SOURCE / "go.mod", SOURCE / "go.sum"]
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(f"{path.relative_to(SOURCE)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    program = cache_folder() / f"provider-go-{digest.hexdigest()[:16]}"
    program.parent.mkdir(parents=True, exist_ok=True)
    with open(program.parent / "provider-go.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if program.exists():
            return program
        if shutil.which("go") is None:
            pytest.skip("no go on PATH")
        if (modules := go("mod", "download")).returncode:
            pytest.skip(f"Go's modules cannot be had: {modules.stderr.strip()[-200:]}")
        made = go("build", "-trimpath", "-o", f"{program}.new", ".")
        assert made.returncode == 0, made.stderr
        for old in program.parent.glob("provider-go-*"):
            # Another checkout may be running a fresh one.
            if old.stat().st_mtime < time.time() - OLD:
                old.unlink()
        os.replace(f"{program}.new", program)
    return program


@pytest.fixture(scope="module")
def program() -> Path:
    return built()


def processes_of(folder: Path) -> list[int]:
    """Processes whose command line names something in the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return [pid for pid in found if pid != os.getpid()]


class Served:
    """The program, serving a socket and a state folder below `folder`."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.address = f"unix://{folder}/s"
        self._command = [str(program), "--listen", self.address, "--state", str(folder / "state")]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        assert line.decode().strip() == f"listening on {self.address}"

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        if self._process is not None:
            await self._process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for pid in processes_of(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def served(program: Path, folder: Path) -> AsyncIterator[Served]:
    one = Served(program, folder)
    await one.start()
    yield one
    await one.kill()


class Client:
    """Calls, and what WatchPods has told by now."""

    def __init__(self, address: str) -> None:
        self.remote = RemoteProvider(address)
        self.facts: dict[str, pod_pb2.PodFacts] = {}
        self.revisions: dict[str, int] = {}
        self.epoch = ""
        self.last = 0
        self.snapshots = 0
        self.synced: list[str] = []
        self._changed = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    def watch(self) -> None:
        self._watch = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        request = pb.WatchPodsRequest(
            cluster=CLUSTER, node="n", epoch=self.epoch, revision=self.last
        )
        async for message in self.remote.watch_pods(request):
            self.epoch = message.epoch
            for event in message.events:
                self.last = event.revision
                match event.WhichOneof("event"):
                    case "snapshot_started":
                        self.snapshots += 1
                    case "synced":
                        self.synced.append(event.synced.backend)
                    case "pod":
                        self.facts[event.pod.pod.uid] = event.pod
                        self.revisions[event.pod.pod.uid] = event.revision
            self._changed.set()

    async def unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def until(self, uid: str, met: Callable[[pod_pb2.PodFacts], bool]) -> pod_pb2.PodFacts:
        async with asyncio.timeout(PATIENCE):
            while uid not in self.facts or not met(self.facts[uid]):
                self._changed.clear()
                await self._changed.wait()
        return self.facts[uid]

    async def ack(self, uid: str) -> None:
        done = pb.PodAck(uid=uid, revision=self.revisions[uid])
        await self.remote.ack_pods(
            pb.AckPodsRequest(epoch=self.epoch, cluster=CLUSTER, pods=[done])
        )

    async def remove(self, uid: str) -> pod_pb2.PodFacts:
        """Deletes, and acknowledges to the end; the facts with which it ended."""
        who = self.facts[uid].pod
        await self.remote.delete_pod(pb.DeletePodRequest(pod=who, grace_period_seconds=0))
        ended = await self.until(uid, lambda one: one.stage >= pod_pb2.POD_STAGE_ENDED)
        await self.ack(uid)
        await self.until(uid, lambda one: one.stage == pod_pb2.POD_STAGE_GONE)
        await self.ack(uid)
        return ended

    async def logs(self, pod: pod_pb2.PodIdentity, **more: object) -> bytes:
        request = pb.GetContainerLogsRequest(pod=pod, container="c", **more)
        async with asyncio.timeout(PATIENCE):
            return b"".join(
                [piece.content async for piece in self.remote.get_container_logs(request)]
            )

    async def close(self) -> None:
        await self.unwatch()
        await self.remote.close()


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    one = Client(served.address)
    one.watch()
    yield one
    await one.close()


def a_container(script: str, name: str = "c", **more: object) -> dict[str, object]:
    return {"name": name, "image": "i", "command": ["/bin/sh", "-c", script], **more}


def asked(script: str = "exit 0", **spec: object) -> pb.CreatePodRequest:
    uid = str(uuid.uuid4())
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "one", "namespace": "d", "uid": uid},
        "spec": {"containers": [a_container(script)], "restartPolicy": "Never", **spec},
    }
    who = pod_pb2.PodIdentity(cluster=CLUSTER, node="n", namespace="d", name="one", uid=uid)
    return pb.CreatePodRequest(pod=who, manifest=json.dumps(manifest).encode(), generation=1)


def ended(facts: pod_pb2.PodFacts) -> bool:
    return facts.stage == pod_pb2.POD_STAGE_ENDED


def runs(facts: pod_pb2.PodFacts) -> bool:
    return any(one.HasField("running") for one in facts.containers)


async def test_a_pod_from_its_creation_until_it_is_gone(client: Client, folder: Path) -> None:
    request = asked("echo out; echo err >&2; printf tail; exit 7")
    answer = await client.remote.create_pod(request)
    assert answer.accepted.backend == "host"
    uid = request.pod.uid
    facts = await client.until(uid, ended)
    end = facts.containers[0].terminated
    assert (end.exit_code, end.signal, end.reason) == (7, 0, "Error")
    assert end.started_at.ToNanoseconds() <= end.finished_at.ToNanoseconds()
    assert await client.logs(request.pod, stream=stream_pb2.STREAM_STDOUT) == b"out\ntail"
    assert await client.logs(request.pod, stream=stream_pb2.STREAM_STDERR) == b"err\n"
    # A repeated creation starts nothing, whatever has become of the pod.
    assert (await client.remote.create_pod(request)).accepted.generation == 1
    last = await client.remove(uid)
    assert last.containers[0].terminated == end
    assert list((folder / "state" / "pods").iterdir()) == []


async def test_two_containers_after_their_init_containers_in_order(
    client: Client, folder: Path
) -> None:
    trace = folder / "trace"
    inits = [a_container(f"echo {name} >> {trace}", name) for name in ("first", "second")]
    mains = [a_container(f"echo {name} >> {trace}", name) for name in ("c", "d")]
    request = asked(initContainers=inits, containers=mains)
    await client.remote.create_pod(request)
    facts = await client.until(request.pod.uid, ended)
    assert [one.name for one in facts.containers] == ["first", "second", "c", "d"]
    assert all(one.terminated.reason == "Completed" for one in facts.containers)
    words = trace.read_text().split()
    assert words[:2] == ["first", "second"]
    assert sorted(words[2:]) == ["c", "d"]


async def test_environment_and_command_are_expanded(client: Client) -> None:
    request = asked()
    manifest = json.loads(request.manifest)
    manifest["spec"]["containers"][0]["command"] = [
        "/bin/sh", "-c", 'echo "$A $B $IP $S $(C) $$(A)"', "$(A)",
    ]  # fmt: skip
    request.manifest = json.dumps(manifest).encode()
    environment = request.environment.add(container="c")
    environment.variables.add(name="A", literal="a")
    environment.variables.add(name="B", template="<$(A)$(NONE)>")
    environment.variables.add(name="IP", late=pod_pb2.LATE_REFERENCE_POD_IP)
    environment.variables.add(name="S", secret=pod_pb2.SecretValue(value="hidden"))
    environment.variables.add(name="C", literal="echo c")
    await client.remote.create_pod(request)
    await client.until(request.pod.uid, ended)
    # $(C) is replaced; $$(A) becomes $(A), which the shell takes for a command that there is not.
    log = await client.logs(request.pod, stream=stream_pb2.STREAM_STDOUT)
    assert log.startswith(b"a <a$(NONE)> 127.0.0.1 hidden echo c")


async def test_a_secret_in_an_argument_is_refused_and_not_told(
    client: Client, folder: Path
) -> None:
    request = asked("echo $(S)")
    request.environment.add(container="c").variables.add(
        name="S", secret=pod_pb2.SecretValue(value="hidden")
    )
    with pytest.raises(Unsupported) as refused:
        await client.remote.create_pod(request)
    assert [one.field for one in refused.value.violations] == ["spec.containers[0].command[2]"]
    assert "hidden" not in str(refused.value)
    fine = asked("test $S = hidden && sleep 60")
    fine.environment.add(container="c").variables.add(
        name="S", secret=pod_pb2.SecretValue(value="hidden")
    )
    await client.remote.create_pod(fine)
    await client.until(fine.pod.uid, runs)
    files = [path for path in (folder / "state").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hidden" in path.read_bytes()]
    await client.remove(fine.pod.uid)


async def test_what_it_does_not_do_is_refused_by_field(client: Client) -> None:
    probe = {"exec": {"command": ["true"]}}
    container = a_container("true", livenessProbe=probe, securityContext={"runAsUser": 1})
    volumes = [{"name": "v", "emptyDir": {}}]
    request = asked(containers=[container], volumes=volumes, hostAliases=[{"ip": "1.2.3.4"}])
    with pytest.raises(Unsupported) as refused:
        await client.remote.create_pod(request)
    assert {one.field for one in refused.value.violations} == {
        "spec.containers[0].livenessProbe",
        "spec.containers[0].securityContext.runAsUser",
        "spec.hostAliases",
        "spec.volumes[0].emptyDir",
    }
    with pytest.raises(Unsupported) as refused:
        await client.remote.create_pod(asked(containers=[{"name": "c", "image": "i"}]))
    assert refused.value.violations[0].field == "spec.containers[0].command"
    with pytest.raises(Invalid) as wrong:
        await client.remote.create_pod(pb.CreatePodRequest())
    assert {one.field for one in wrong.value.violations} >= {"pod.node", "pod.uid", "pod.cluster"}
    assert client.facts == {}


async def test_what_the_api_server_fills_in_is_never_refused(client: Client) -> None:
    token = {"name": "kube-api-access-x7z", "mountPath": "/var/run/secrets/kubernetes.io/sa"}
    filled = {
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "Always",
        "resources": {},
        "volumeMounts": [token],
    }
    toleration = {"key": "node.kubernetes.io/not-ready", "operator": "Exists"}
    request = asked(
        containers=[a_container("exit 0", **filled)],
        volumes=[{"name": "kube-api-access-x7z", "projected": {"sources": []}}],
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        securityContext={},
        serviceAccountName="default",
        serviceAccount="default",
        automountServiceAccountToken=True,
        enableServiceLinks=True,
        preemptionPolicy="PreemptLowerPriority",
        priority=0,
        nodeName="n",
        terminationGracePeriodSeconds=30,
        tolerations=[toleration],
    )
    answer = await client.remote.create_pod(request)
    told = [one.field for one in answer.accepted.approximations]
    assert told == ["spec.containers[0].image"]
    await client.until(request.pod.uid, ended)


async def test_the_stop_signal_comes_first_and_the_whole_group_is_killed(
    client: Client, folder: Path
) -> None:
    polite = asked("trap 'echo bye; exit 3' TERM; echo on; while :; do sleep 0.05; done")
    stubborn = asked(f"trap '' TERM; sh -c 'trap \"\" TERM; sleep 60; : {folder}' & wait; sleep 60")
    for request in (polite, stubborn):
        await client.remote.create_pod(request)
        await client.until(request.pod.uid, runs)
    said = client.remote.get_container_logs(
        pb.GetContainerLogsRequest(pod=polite.pod, container="c", follow=True)
    )
    assert (await anext(said)).content == b"on\n"
    for request, grace in ((polite, 20), (stubborn, 1)):
        await client.remote.delete_pod(
            pb.DeletePodRequest(pod=request.pod, grace_period_seconds=grace)
        )
    facts = await client.until(polite.pod.uid, ended)
    assert facts.containers[0].terminated.exit_code == 3
    assert await client.logs(polite.pod, stream=stream_pb2.STREAM_STDOUT) == b"on\nbye\n"
    facts = await client.until(stubborn.pod.uid, ended)
    end = facts.containers[0].terminated
    assert (end.exit_code, end.signal) == (137, 9)
    for request in (polite, stubborn):
        await client.remove(request.pod.uid)
    left = [pid for pid in processes_of(folder) if _is_script(pid)]
    assert left == []


def _is_script(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith((b"sh\0", b"/bin/sh\0"))
    return False


async def test_a_deadline_ends_the_pod(client: Client) -> None:
    request = asked("sleep 60", activeDeadlineSeconds=1, terminationGracePeriodSeconds=1)
    await client.remote.create_pod(request)
    facts = await client.until(request.pod.uid, ended)
    assert (facts.failed, facts.reason) == (True, "DeadlineExceeded")
    assert facts.containers[0].terminated.signal == signal.SIGTERM


async def test_a_failing_container_is_started_again_and_backs_off(client: Client) -> None:
    request = asked("echo run; exit 4", restartPolicy="OnFailure")
    await client.remote.create_pod(request)
    facts = await client.until(
        request.pod.uid, lambda one: one.containers[0].waiting.reason == "CrashLoopBackOff"
    )
    container = facts.containers[0]
    assert container.restart_count == 1
    assert container.last_termination.exit_code == 4
    assert "back-off 10s restarting" in container.waiting.message
    assert await client.logs(request.pod, previous=True) == b"run\n"
    await client.remove(request.pod.uid)


async def test_a_command_that_is_not_there(client: Client) -> None:
    request = asked(containers=[{"name": "c", "image": "i", "command": ["/no/such/program"]}])
    await client.remote.create_pod(request)
    end = (await client.until(request.pod.uid, ended)).containers[0].terminated
    assert (end.exit_code, end.reason) == (128, "StartError")
    assert not end.HasField("started_at")


async def test_a_log_is_followed_to_its_last_byte_and_cut_as_asked(client: Client) -> None:
    request = asked("for i in 1 2 3; do echo line $i; sleep 0.1; done; printf end")
    await client.remote.create_pod(request)
    await client.until(request.pod.uid, runs)
    assert await client.logs(request.pod, follow=True) == b"line 1\nline 2\nline 3\nend"
    assert await client.logs(request.pod, tail_lines=2) == b"line 3\nend"
    assert await client.logs(request.pod, tail_lines=0) == b""
    assert await client.logs(request.pod, limit_bytes=9) == b"line 1\nli"
    assert await client.logs(request.pod, since_seconds=3600, tail_lines=1) == b"end"
    stamped = (await client.logs(request.pod, timestamps=True)).decode().splitlines()
    assert [line.split(" ", 1)[1] for line in stamped] == ["line 1", "line 2", "line 3", "end"]
    assert stamped == sorted(stamped)
    with pytest.raises(NotFound):
        await client.logs(request.pod, previous=True)
    with pytest.raises(NotFound):
        await client.logs(asked().pod)


async def test_much_output_arrives_whole(client: Client) -> None:
    request = asked("head -c 3000000 /dev/urandom | tee /dev/stderr | sha256sum >&2")
    await client.remote.create_pod(request)
    await client.until(request.pod.uid, ended)
    text = await client.logs(request.pod, stream=stream_pb2.STREAM_STDERR)
    assert text[3000000:].split()[0].decode() == hashlib.sha256(text[:3000000]).hexdigest()


async def test_labels_may_change_and_a_command_may_not(client: Client) -> None:
    request = asked("sleep 60")
    await client.remote.create_pod(request)
    await client.until(request.pod.uid, runs)

    async def update(
        change: Callable[[dict[str, dict[str, object]]], None], generation: int
    ) -> int:
        manifest = json.loads(request.manifest)
        change(manifest)
        text = json.dumps(manifest).encode()
        answer = await client.remote.update_pod(
            pb.UpdatePodRequest(pod=request.pod, manifest=text, generation=generation)
        )
        return answer.generation

    assert await update(lambda pod: pod["metadata"].update(labels={"a": "b"}), 2) == 2
    assert await update(lambda pod: pod["spec"].update(containers=[]), 1) == 2
    with pytest.raises(Unsupported) as refused:
        await update(lambda pod: pod["spec"].update(containers=[a_container("exit 1")]), 3)
    assert refused.value.violations[0].field == "spec.containers[0].command[2]"
    facts = await client.until(request.pod.uid, lambda one: one.generation == 2)
    assert runs(facts)
    await client.remove(request.pod.uid)


async def test_a_watch_goes_on_where_it_ended(client: Client) -> None:
    first = asked()
    await client.remote.create_pod(first)
    await client.until(first.pod.uid, ended)
    assert client.synced == ["host"]
    await client.unwatch()
    client.facts.clear()
    second = asked()
    await client.remote.create_pod(second)
    client.watch()
    await client.until(second.pod.uid, ended)
    assert (client.snapshots, list(client.facts)) == (1, [second.pod.uid])
    await client.unwatch()
    client.epoch = "another"
    client.watch()
    await client.until(first.pod.uid, ended)
    assert client.snapshots == 2


async def test_a_pod_that_is_not_known_is_gone_and_one_that_ran_is_lost(client: Client) -> None:
    unknown = asked().pod
    await client.remote.delete_pod(pb.DeletePodRequest(pod=unknown))
    await client.until(unknown.uid, lambda one: one.stage == pod_pb2.POD_STAGE_GONE)
    ran = asked("echo never")
    ran.recorded.started = True
    await client.remote.create_pod(ran)
    facts = await client.until(ran.pod.uid, ended)
    assert facts.disrupted
    assert facts.containers[0].terminated.reason == "ContainerStatusUnknown"
    assert facts.containers[0].terminated.exit_code == 137


async def test_pods_live_through_a_killed_provider(served: Served, folder: Path) -> None:
    before = Client(served.address)
    before.watch()
    trace = folder / "trace"
    long = asked(f"echo ran >> {trace}; while [ ! -e {folder}/go ]; do sleep 0.05; done; exit 5")
    short = asked("exit 6")
    for request in (long, short):
        await before.remote.create_pod(request)
    running = await before.until(long.pod.uid, runs)
    await before.until(short.pod.uid, ended)
    await served.kill()
    await before.close()
    (folder / "go").touch()
    await served.start()
    after = Client(served.address)
    after.watch()
    try:
        assert (await after.until(short.pod.uid, ended)).containers[0].terminated.exit_code == 6
        facts = await after.until(long.pod.uid, ended)
        end = facts.containers[0].terminated
        assert end.exit_code == 5
        assert end.started_at == running.containers[0].running.started_at
        assert after.epoch != before.epoch
        for request in (long, short):
            await after.remote.create_pod(request)
            await after.remove(request.pod.uid)
        assert trace.read_text() == "ran\n"
        assert list((folder / "state" / "pods").iterdir()) == []
    finally:
        await after.close()


async def test_what_is_optional_is_not_offered(served: Served) -> None:
    remote = RemoteProvider(served.address)
    async with grpc.aio.insecure_channel(served.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        call = provider_pb2_grpc.ProviderStub(channel).GetStats(pb.GetStatsRequest())
        with pytest.raises(grpc.RpcError) as refused:
            await call
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    async for offer in remote.watch_node(pb.WatchNodeRequest(cluster=CLUSTER, node="n")):
        assert list(offer.backends[0].abilities) == ["logs"]
        assert {"cpu", "memory", "pods"} <= set(offer.capacity)
        break
    await remote.close()


async def test_its_generated_code_is_the_contracts(served: Served) -> None:
    ours = [pod_pb2.DESCRIPTOR, stream_pb2.DESCRIPTOR, pb.DESCRIPTOR]
    async with grpc.aio.insecure_channel(served.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked_for = [
            reflection_pb2.ServerReflectionRequest(file_by_filename=one.name) for one in ours
        ]
        found: dict[str, descriptor_pb2.FileDescriptorProto] = {}
        async for answer in stub.ServerReflectionInfo(iter(asked_for)):
            for text in answer.file_descriptor_response.file_descriptor_proto:
                made = descriptor_pb2.FileDescriptorProto.FromString(text)
                found[made.name] = made
    for one in ours:
        expected = descriptor_pb2.FileDescriptorProto()
        one.CopyToProto(expected)
        told = found[one.name]
        told.ClearField("options")
        assert said(told) == said(expected), f"{one.name}: make generate in {SOURCE.name}"


def said(file: descriptor_pb2.FileDescriptorProto) -> list[str]:
    """The file as text, without the JSON names, which only one of the generators writes."""
    return [line for line in str(file).splitlines() if "json_name:" not in line]


@pytest.mark.parametrize("address", ["0.0.0.0:0", "example.com:80", "nonsense"])
def test_only_this_host_may_call(program: Path, folder: Path, address: str) -> None:
    tried = subprocess.run(
        [program, "--listen", address, "--state", folder / "state"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert tried.returncode == 1
    assert address in tried.stderr


def test_it_conforms(program: Path, folder: Path) -> None:
    address = f"unix://{folder}/s"
    start = f"""
    if [ -e {folder}/pid ]; then
      kill -9 $(cat {folder}/pid)
      while kill -0 $(cat {folder}/pid) 2> /dev/null; do sleep 0.05; done
      rm {folder}/out
    fi
    {program} --listen {address} --state {folder}/state > {folder}/out 2>&1 &
    echo $! > {folder}/pid
    until grep -q . {folder}/out 2> /dev/null; do sleep 0.05; done
    """
    subprocess.run(["sh", "-c", start], timeout=PATIENCE, check=True)
    judging = [sys.executable, "-m", "podbridge", "conformance", address]
    judging += ["--restart-command", start]
    judged = subprocess.run(
        judging, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr
    # Nothing is skipped but what a provider may refuse or leave out.
    skipped = [line for line in judged.stdout.splitlines() if line.startswith("SKIP")]
    why = ("refused by field", "no ability exec", "no ability attach", "no ability dial")
    why += ("no ability stats",)
    assert [line for line in skipped if not any(words in line for words in why)] == []
    assert list((folder / "state" / "pods").iterdir()) == []
