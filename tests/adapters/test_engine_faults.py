"""`engine` under a provider, on a real engine: what goes wrong, and what must not come of it."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from contract import CLUSTER
from engine_kit import IMAGE, EngineBench, Line, engine_address, refusal

from adapters.engine import Adapter, Options, images
from adapters.engine.client import error_of
from bridge.errors import Unavailable
from bridge.pods import Manifest
from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.rpc.v1 import stream_pb2 as st

pytestmark = pytest.mark.slow

_PATIENCE = 120.0
"""Seconds after which a wait for the engine gives up; it takes one or two."""
_MIB = 1024 * 1024

Facts = pod_pb2.PodFacts


@pytest.fixture
async def bench() -> AsyncIterator[EngineBench]:
    made = EngineBench(engine_address())
    yield made
    await made.close()


@pytest.fixture
async def line(bench: EngineBench, tmp_path: Path) -> AsyncIterator[Line]:
    made = Line(bench.address, tmp_path / "engine.sock")
    await made.mend()
    yield made
    await made.cut()


class Rig:
    """A provider over one engine, and what it has told."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.facts: dict[str, Facts] = {}
        self._epoch = ""
        self._revisions: dict[str, int] = {}
        self._changed = asyncio.Event()

    async def follow(self) -> None:
        """Hears everything, until cancelled."""
        request = pb.WatchPodsRequest(cluster=CLUSTER, node="n")
        async for message in self.provider.watch_pods(request):
            self._epoch = message.epoch
            for event in message.events:
                if event.WhichOneof("event") == "pod":
                    self.facts[event.pod.pod.uid] = event.pod
                    self._revisions[event.pod.pod.uid] = event.revision
            self._changed.set()

    async def create(self, *command: str, image: str = IMAGE, **spec: Any) -> pod_pb2.PodIdentity:
        """A pod of one container that runs that."""
        return await self.send(manifest(*command, image=image, **spec))

    async def send(self, pod: Manifest) -> pod_pb2.PodIdentity:
        """Asks for that pod."""
        metadata = pod["metadata"]
        who = pod_pb2.PodIdentity(
            cluster=CLUSTER, node="n", namespace="default", name="p", uid=metadata["uid"]
        )
        request = pb.CreatePodRequest(pod=who, manifest=json.dumps(pod).encode())
        answer = await self.provider.create_pod(request)
        assert answer.accepted.backend == "engine", answer
        return who

    async def until(self, who: pod_pb2.PodIdentity, true: Callable[[Facts], Any]) -> Facts:
        """A pod's facts as soon as that is so of them."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while who.uid not in self.facts or not true(self.facts[who.uid]):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"never so: {self.facts.get(who.uid)}") from None
        return self.facts[who.uid]

    async def delete(self, who: pod_pb2.PodIdentity, grace: int) -> Facts:
        """Deletes it, and returns how it ended once nothing of it is left."""
        request = pb.DeletePodRequest(pod=who, grace_period_seconds=grace)
        await self.provider.delete_pod(request)
        facts = await self.until(who, lambda facts: facts.stage >= pod_pb2.POD_STAGE_ENDED)
        ack = pb.PodAck(uid=who.uid, revision=self._revisions[who.uid])
        await self.provider.ack_pods(
            pb.AckPodsRequest(cluster=CLUSTER, epoch=self._epoch, pods=[ack])
        )
        await self.until(who, lambda facts: facts.stage == pod_pb2.POD_STAGE_GONE)
        return facts

    async def code(self, who: pod_pb2.PodIdentity) -> int:
        """The exit code, once it has one."""
        facts = await self.until(who, has_ended)
        return facts.containers[0].terminated.exit_code

    async def log(self, who: pod_pb2.PodIdentity, *, follow: bool = True) -> AsyncIterator[bytes]:
        """The container's log, piece by piece."""
        request = pb.GetContainerLogsRequest(pod=who, container="c", follow=follow)
        async for piece in self.provider.get_container_logs(request):
            yield piece.content


def manifest(*command: str, image: str = IMAGE, **spec: Any) -> Manifest:
    one = {"name": "c", "image": image, "command": list(command)}
    uid = str(uuid.uuid4())
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "uid": uid},
        "spec": {"containers": [one], "restartPolicy": "Never", **spec},
    }


def has_ended(facts: Facts) -> bool:
    return bool(facts.containers) and facts.containers[0].HasField("terminated")


def is_running(facts: Facts) -> bool:
    return bool(facts.containers) and facts.containers[0].HasField("running")


def waits_for(*reasons: str) -> Callable[[Facts], bool]:
    return lambda facts: bool(facts.containers) and facts.containers[0].waiting.reason in reasons


@asynccontextmanager
async def rig(bench: EngineBench, address: str = "") -> AsyncIterator[Rig]:
    adapter = Adapter("engine", Options(host=address or bench.address, owner=bench.owner))
    provider = Provider(Tracker([Backend(adapter, {}, list_every=0.5)]))
    made = Rig(provider)
    tasks = [asyncio.create_task(provider.run()), asyncio.create_task(made.follow())]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_engine_that_is_not_there_yet(bench: EngineBench, tmp_path: Path) -> None:
    line = Line(bench.address, tmp_path / "late.sock")
    async with rig(bench, line.address) as it:
        asking = asyncio.create_task(it.create("sh", "-c", "exit 3"))
        async with asyncio.timeout(_PATIENCE):
            while it.provider.offer().backends[0].ready:  # noqa: ASYNC110 - of another's state
                await asyncio.sleep(0.01)
        await line.mend()
        assert await it.code(await asking) == 3
        assert it.provider.offer().backends[0].ready
    await line.cut()


async def test_pods_outlive_an_engine_that_is_away(bench: EngineBench, line: Line) -> None:
    async with rig(bench, line.address) as it:
        lasting = await it.create("sh", "-c", "echo a; while :; do sleep 0.1; done")
        ending = await it.create("sh", "-c", "sleep 1; exit 7")
        before = await it.until(lasting, is_running)
        await it.until(ending, is_running)
        assert len(await bench.containers()) == 4
        log = it.log(lasting)
        assert await anext(log) == b"a\n"
        command = _Exec(it, lasting, "sh", "-c", "echo up; sleep 1000")
        assert await command.says() == b"up\n"
        await line.cut()
        async with asyncio.timeout(_PATIENCE):
            # It breaks, and does not hang.
            assert (await command.ended()).error
            while it.provider.offer().backends[0].ready:  # noqa: ASYNC110 - of another's state
                await asyncio.sleep(0.01)
        assert is_running(it.facts[lasting.uid])
        await line.mend()
        # It ended while nobody looked.
        assert await it.code(ending) == 7
        after = it.facts[lasting.uid]
        assert after.containers[0] == before.containers[0]
        assert len(await bench.containers()) == 4
        again = _Exec(it, lasting, "sh", "-c", "echo up; exit 4")
        assert (await again.says(), (await again.ended()).code) == (b"up\n", 4)
        await it.delete(lasting, 0)
        async with asyncio.timeout(_PATIENCE):
            assert [one async for one in log] == []


class _Exec:
    """A command in a container, through the provider."""

    def __init__(self, it: Rig, who: pod_pb2.PodIdentity, *command: str) -> None:
        self._start = st.ExecRequest(
            start=st.ExecStart(pod=who, container="c", command=command, stdout=True, stderr=True)
        )
        self._over = asyncio.Event()
        self._answers = it.provider.exec(self._ask())

    async def _ask(self) -> AsyncIterator[st.ExecRequest]:
        yield self._start
        for stream in (st.STREAM_STDOUT, st.STREAM_STDERR):
            yield st.ExecRequest(credit=st.Credit(stream=stream, bytes=_MIB))
        await self._over.wait()

    async def says(self) -> bytes:
        """The first bytes that it writes."""
        async for one in self._answers:
            if one.WhichOneof("message") == "data":
                return one.data.content
        raise AssertionError("it said nothing")

    async def ended(self) -> st.Exit:
        """How it ended, as the client is told."""
        try:
            async for one in self._answers:
                if one.WhichOneof("message") == "exit":
                    return one.exit
        finally:
            self._over.set()
            await self._answers.aclose()
        raise AssertionError("it never ended")


async def test_an_image_that_comes_late(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "FIRST_BACKOFF", 1.0)
    name = f"127.0.0.1:1/late-{uuid.uuid4()}:1"
    async with rig(bench) as it:
        who = await it.create("sh", "-c", "exit 5", image=name)
        facts = await it.until(who, waits_for("ErrImagePull"))
        assert "connection refused" in facts.containers[0].waiting.message
        facts = await it.until(who, waits_for("ImagePullBackOff"))
        assert facts.containers[0].waiting.message.startswith("Back-off pulling image")
        assert facts.stage < pod_pb2.POD_STAGE_ENDED
        engine = await bench.engine()
        repository, _, tag = name.rpartition(":")
        await engine.call("POST", f"images/{IMAGE}/tag", params={"repo": repository, "tag": tag})
        try:
            assert await it.code(who) == 5
        finally:
            await engine.call("DELETE", f"images/{name}")


async def test_a_command_that_is_none(bench: EngineBench) -> None:
    async with rig(bench) as it:
        facts = await it.until(await it.create("/no/such"), has_ended)
        end = facts.containers[0].terminated
        assert (end.exit_code, end.reason) == (128, "StartError")
        assert "/no/such" in end.message


async def test_a_container_that_ignores_its_end(bench: EngineBench) -> None:
    async with rig(bench) as it:
        who = await it.create("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
        await it.until(who, is_running)
        assert await anext(it.log(who)) == b"deaf\n"
        end = (await it.delete(who, 1)).containers[0].terminated
        assert (end.exit_code, end.signal) == (137, 9)
        assert not await bench.containers()


async def test_much_log_in_its_order(bench: EngineBench) -> None:
    # 10,000 lines a second for three seconds, a line of a mebibyte, and bytes that are no text.
    script = (
        "for s in 0 1 2; do seq $((s * 10000)) $((s * 10000 + 9999)); sleep 1; done; "
        r"head -c 1048576 /dev/zero | tr '\0' x; echo; printf '\000\377\376\n\200'"
    )
    expected = b"".join(b"%d\n" % one for one in range(30_000))
    expected += b"x" * _MIB + b"\n\0\xff\xfe\n\x80"
    async with rig(bench) as it:
        who = await it.create("sh", "-c", script)
        await it.until(who, lambda facts: is_running(facts) or has_ended(facts))
        assert b"".join([one async for one in it.log(who)]) == expected
        assert await it.code(who) == 0
        assert b"".join([one async for one in it.log(who, follow=False)]) == expected


async def test_a_log_that_nobody_reads(bench: EngineBench) -> None:
    async with rig(bench) as it:
        who = await it.create("sh", "-c", "yes 0123456789abcde | head -c 16777216; exit 6")
        await it.until(who, lambda facts: is_running(facts) or has_ended(facts))
        readers = [it.log(who) for _ in range(3)]
        first = [len(await anext(one)) for one in readers]
        before = _memory()
        assert await it.code(who) == 6
        # Three logs of 16 MiB each.
        assert _memory() - before < 16 * _MIB
        assert first[0] + sum([len(one) async for one in readers[0]]) == 16 * _MIB
        for one in readers:
            await one.aclose()


def _memory() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Full(Line):
    """An engine whose disk is full: it makes no container, and says why."""

    full = False

    def answer(self, request: bytes) -> bytes:
        return refusal("write /var/lib: no space left on device") if self.full else b""


async def test_a_full_disk_is_waited_out(bench: EngineBench, tmp_path: Path) -> None:
    assert isinstance(error_of(500, b'{"message": "x: no space left on device"}'), Unavailable)
    line = Full(bench.address, tmp_path / "full.sock")
    await line.mend()
    async with rig(bench, line.address) as it:
        await it.provider.settled()
        await line.cut()
        line.full = True
        await line.mend()
        who = await it.create("sh", "-c", "exit 2")
        await it.until(who, lambda facts: "disk is full" in str(facts))
        assert it.facts[who.uid].stage < pod_pb2.POD_STAGE_ENDED
        await line.cut()
        line.full = False
        await line.mend()
        assert await it.code(who) == 2
        assert len(await bench.containers()) == 2
    await line.cut()


class Broken(Line):
    """An engine whose runtime starts no container."""

    broken = True

    def answer(self, request: bytes) -> bytes:
        starts = request.startswith(b"POST") and b"/start" in request.split(b"\r\n", 1)[0]
        return refusal("no such runtime") if self.broken and starts else b""


async def test_an_engine_that_starts_nothing_says_so_under_a_reason_of_its_own(
    bench: EngineBench, tmp_path: Path
) -> None:
    line = Broken(bench.address, tmp_path / "broken.sock")
    await line.mend()
    async with rig(bench, line.address) as it:
        who = await it.create("sh", "-c", "exit 2")
        facts = await it.until(who, lambda facts: bool(facts.notices))
        assert facts.reason == facts.notices[0].reason == "FailedCreatePodSandBox"
        assert facts.notices[0].message == "Failed to create pod sandbox: no such runtime"
        line.broken = False
        assert await it.code(who) == 2
    await line.cut()
