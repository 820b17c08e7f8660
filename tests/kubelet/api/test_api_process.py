"""The HTTPS API over containers that really run: the `process` backend behind a real provider."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_kit import NODE, PATIENCE, Rig, Spdy, manifest, rig, status_of, until
from support.pipes import CLUSTER, WIRE

from adapters.process import Adapter, Options
from bridge.kubelet.streams.spdy import Data
from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb

pytestmark = pytest.mark.slow

_SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print("listening on", server.getsockname()[1], flush=True)
print("warned", file=sys.stderr, flush=True)
while True:
    peer, _ = server.accept()
    while data := peer.recv(65536):
        peer.sendall(data.upper())
    peer.close()
"""


def pod() -> dict[str, Any]:
    made = manifest()
    made["spec"] = {
        "restartPolicy": "Never",
        "containers": [{"name": "c", "image": "none", "command": [sys.executable, "-c", _SERVER]}],
    }
    return made


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Rig]:
    (tmp_path / "client").mkdir()
    provider = Provider(
        Tracker([Backend(Adapter("process", Options(root=tmp_path / "pods")), {"pods": 9})])
    )
    running = asyncio.create_task(provider.run())
    await provider.settled()
    wanted = pod()
    async with rig(tmp_path / "client", wanted, provider=provider) as made:
        request = pb.CreatePodRequest(
            pod=WIRE, manifest=json.dumps({**wanted, "status": {}}).encode()
        )
        await provider.create_pod(request)
        await told(provider, runs)
        yield made
        await provider.delete_pod(pb.DeletePodRequest(pod=WIRE, grace_period_seconds=0))
        await told(provider, ended, acknowledge=True)
        await until(lambda: not list((tmp_path / "pods").glob(f"*/*{WIRE.uid}*")))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def runs(facts: pod_pb2.PodFacts) -> bool:
    return any(one.HasField("running") for one in facts.containers)


def ended(facts: pod_pb2.PodFacts) -> bool:
    return any(one.HasField("terminated") for one in facts.containers)


async def told(provider: Provider, met: Any, *, acknowledge: bool = False) -> None:
    """Returns once the pod's facts are so."""
    async with asyncio.timeout(PATIENCE):
        async for response in provider.watch_pods(pb.WatchPodsRequest(cluster=CLUSTER, node=NODE)):
            for event in response.events:
                if not event.HasField("pod") or not met(event.pod):
                    continue
                if acknowledge:
                    ack = pb.PodAck(uid=WIRE.uid, attempt=WIRE.attempt, revision=event.revision)
                    await provider.ack_pods(
                        pb.AckPodsRequest(epoch=response.epoch, pods=[ack], cluster=CLUSTER)
                    )
                return


async def port_of(node: Rig) -> int:
    """What the container says that it listens on."""
    path = f"/containerLogs/{WIRE.namespace}/{WIRE.name}/c?follow=true&stream=Stdout"
    async with node.known().get(path) as answer:
        async with asyncio.timeout(PATIENCE):
            line = await answer.content.readline()
        return int(line.split()[-1])


async def test_a_container_that_runs(node: Rig) -> None:
    path = f"{WIRE.namespace}/{WIRE.name}"
    port = await port_of(node)

    # Logs.
    status, text = await node.get(f"/containerLogs/{path}/c?stream=Stderr&timestamps=true")
    when, _, words = text.partition(" ")
    assert (status, words) == (200, "warned\n")
    assert when.endswith("Z")
    assert await node.get(f"/containerLogs/{path}/c?limitBytes=4&stream=Stdout") == (200, "list")

    # Exec.
    script = "read line; echo got $line; echo bad >&2; exit 42"
    params = [("command", word) for word in ("sh", "-c", script)]
    params += [(name, "1") for name in ("input", "output", "error")]
    async with node.known().ws_connect(
        f"/exec/{path}/{WIRE.uid}/c", params=params, protocols=["v5.channel.k8s.io"]
    ) as socket:
        await socket.send_bytes(b"\0a line\n")
        got: dict[int, bytes] = {}
        async with asyncio.timeout(PATIENCE):
            async for message in socket:
                got[message.data[0]] = got.get(message.data[0], b"") + message.data[1:]
    assert (got[1], got[2]) == (b"got a line\n", b"bad\n")
    assert status_of(got[3])["details"]["causes"] == [{"reason": "ExitCode", "message": "42"}]

    # Port-forward.
    client = await Spdy.connect(node, f"/portForward/{path}", "portforward.k8s.io")
    assert isinstance(client, Spdy)
    headers = {"port": str(port), "requestID": "0"}
    error = client.open(streamType="error", **headers)
    data = client.open(streamType="data", **headers)
    client.send(Data(data, b"shout", fin=True))
    assert (await client.data(data)).content == b"SHOUT"
    assert (await client.data(error)).content == b""
    await client.leave()

    # Usage.
    status, text = await node.get("/stats/summary")
    [one] = json.loads(text)["pods"][0]["containers"]
    assert one["memory"]["workingSetBytes"] > 1_000_000
    assert one["cpu"]["usageCoreNanoSeconds"] > 0


async def test_a_client_that_leaves_ends_its_command(node: Rig, tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    script = f"echo $$ > {mark}; exec sleep 1000"
    params = [("command", "sh"), ("command", "-c"), ("command", script), ("output", "1")]
    path = f"/exec/{WIRE.namespace}/{WIRE.name}/c"
    async with node.known().ws_connect(path, params=params, protocols=["v4.channel.k8s.io"]):
        await until(lambda: mark.exists() and mark.read_text().strip().isdigit())
        process = Path("/proc") / mark.read_text().strip()
        assert process.exists()
    await until(lambda: not process.exists())
