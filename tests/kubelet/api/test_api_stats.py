"""What the HTTPS API tells of usage, pods and the node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_kit import CLUSTER, NODE, FakePods, Rig, manifest, rig, until
from support.pipes import POD

from bridge.adapter import Usage
from bridge.errors import Unavailable
from bridge.kubelet.api.node import running
from bridge.kubelet.api.stats import resource_metrics, summary
from bridge.kubelet.api.usage import FRESH, Meters, own_usage
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.times import parse_rfc3339, rfc3339

START = 1_700_000_000.0
GIB = 1 << 30


def pod_of(name: str, uid: str, *containers: str) -> dict[str, Any]:
    running = {"running": {"startedAt": rfc3339(START - 50)}}
    return {
        "metadata": {"namespace": "ns", "name": name, "uid": uid},
        "spec": {"containers": [{"name": one, "image": "i"} for one in containers]},
        "status": {
            "phase": "Running",
            "startTime": rfc3339(START - 60),
            "containerStatuses": [{"name": one, "state": running} for one in containers],
        },
    }


class Counted:
    """A provider that tells usage by script: (uid, container) -> (CPU seconds, memory)."""

    def __init__(self) -> None:
        self.now = START
        self.used: dict[tuple[str, str], tuple[float | None, int | None]] = {}
        self.asked: list[pb.GetStatsRequest] = []
        self.error: Unavailable | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def get_stats(self, request: pb.GetStatsRequest) -> pb.GetStatsResponse:
        self.asked.append(request)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        response = pb.GetStatsResponse()
        pods: dict[str, pb.PodStats] = {}
        for (uid, container), (cpu, memory) in self.used.items():
            if uid not in pods:
                pods[uid] = response.pods.add()
                pods[uid].pod.uid = uid
            one = pods[uid].containers.add(name=container)
            one.time.FromMilliseconds(round(self.now * 1000))
            if cpu is not None:
                one.cpu_usage_core_nanoseconds = round(cpu * 1e9)
            if memory is not None:
                one.memory_working_set_bytes = memory
        return response


class Watched:
    """Meters over a provider by script."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.provider = Counted()
        self.pods = FakePods(*pods)
        self.meters = Meters(
            self.pods,
            self.provider,  # type: ignore[arg-type]
            CLUSTER,
            NODE,
            clock=lambda: self.provider.now,
            own=lambda: (0, 0),
        )

    async def after(
        self, seconds: float, used: dict[tuple[str, str], tuple[float | None, int | None]]
    ) -> dict[str, Any]:
        """The summary so much later."""
        self.provider.now += seconds
        self.provider.used = used
        return summary(await self.meters.read(), NODE)


async def test_the_summary() -> None:
    watched = Watched(pod_of("p", "u", "a", "b"))
    first = await watched.after(0, {("u", "a"): (10, GIB), ("u", "b"): (1, 5)})
    assert "usageNanoCores" not in json.dumps(first)
    told = await watched.after(10, {("u", "a"): (15, GIB + 1), ("u", "b"): (2.5, 5)})
    when = rfc3339(START + 10)
    assert told == {
        "node": {
            "nodeName": NODE,
            "startTime": rfc3339(START),
            "cpu": {
                "time": when,
                "usageNanoCores": 650_000_000,
                "usageCoreNanoSeconds": 17_500_000_000,
            },
            "memory": {"time": when, "workingSetBytes": GIB + 6},
        },
        "pods": [
            {
                "podRef": {"name": "p", "namespace": "ns", "uid": "u"},
                "startTime": rfc3339(START - 60),
                "containers": [
                    {
                        "name": "a",
                        "startTime": rfc3339(START - 50),
                        "cpu": {
                            "time": when,
                            "usageNanoCores": 500_000_000,
                            "usageCoreNanoSeconds": 15_000_000_000,
                        },
                        "memory": {"time": when, "workingSetBytes": GIB + 1},
                    },
                    {
                        "name": "b",
                        "startTime": rfc3339(START - 50),
                        "cpu": {
                            "time": when,
                            "usageNanoCores": 150_000_000,
                            "usageCoreNanoSeconds": 2_500_000_000,
                        },
                        "memory": {"time": when, "workingSetBytes": 5},
                    },
                ],
                "cpu": {
                    "time": when,
                    "usageNanoCores": 650_000_000,
                    "usageCoreNanoSeconds": 17_500_000_000,
                },
                "memory": {"time": when, "workingSetBytes": GIB + 6},
            }
        ],
    }
    [request, _] = watched.provider.asked
    assert (request.cluster, request.node, list(request.uids)) == (CLUSTER, NODE, [])


async def test_sums_never_fall() -> None:
    watched = Watched(pod_of("p", "u", "a"), pod_of("q", "v", "a"))

    def node_total(told: dict[str, Any]) -> float:
        return float(told["node"]["cpu"]["usageCoreNanoSeconds"] / 1e9)

    told = await watched.after(0, {("u", "a"): (10, 1), ("v", "a"): (100, 1)})
    assert node_total(told) == 110
    # One has ended and one has begun anew.
    told = await watched.after(10, {("u", "a"): (2, 1)})
    assert node_total(told) == 112
    [pod] = told["pods"]
    assert pod["cpu"]["usageCoreNanoSeconds"] == 12e9
    assert pod["containers"][0]["cpu"] == {"time": rfc3339(START + 10), "usageCoreNanoSeconds": 2e9}
    told = await watched.after(10, {("u", "a"): (3, 1)})
    assert node_total(told) == 113
    assert told["pods"][0]["containers"][0]["cpu"]["usageNanoCores"] == 100_000_000
    # Nothing runs any more: that is known, and it is nothing.
    told = await watched.after(10, {})
    when = rfc3339(START + 30)
    assert told["pods"] == []
    assert told["node"]["cpu"] == {
        "time": when,
        "usageNanoCores": 0,
        "usageCoreNanoSeconds": 113_000_000_000,
    }
    assert told["node"]["memory"] == {"time": when, "workingSetBytes": 0}


async def test_what_is_unknown_is_left_out() -> None:
    watched = Watched(pod_of("p", "u", "a", "b"))
    told = await watched.after(0, {("u", "a"): (None, 7), ("u", "b"): (1, None)})
    [pod] = told["pods"]
    assert [set(one) for one in pod["containers"]] == [
        {"name", "startTime", "memory"},
        {"name", "startTime", "cpu"},
    ]
    assert pod["memory"]["workingSetBytes"] == 7
    told = await watched.after(10, {("u", "a"): (None, None)})
    assert "cpu" not in told["pods"][0]
    assert told["node"]["memory"]["workingSetBytes"] == 0, "only our own is known"
    # Others' work, and what has gone in the meantime, is not this node's.
    told = await watched.after(10, {("stranger", "a"): (5, 5)})
    assert told["pods"] == []
    watched.pods.list[0]["status"] = {}
    told = await watched.after(10, {("u", "a"): (1, 1)})
    assert told["pods"][0]["startTime"] is None
    assert told["pods"][0]["containers"][0]["startTime"] is None


async def test_one_look_serves_all_for_a_while() -> None:
    watched = Watched(pod_of("p", "u", "a"))
    used: dict[Any, Any] = {("u", "a"): (1, 1)}
    watched.provider.used = used
    watched.provider.gate.clear()
    readers = [asyncio.create_task(watched.meters.read()) for _ in range(5)]
    await until(lambda: bool(watched.provider.asked))
    watched.provider.gate.set()
    assert len({id(one) for one in await asyncio.gather(*readers)}) == 1
    await watched.after(FRESH - 0.1, used)
    assert len(watched.provider.asked) == 1
    await watched.after(0.1, used)
    assert len(watched.provider.asked) == 2
    # The time of day was set back.
    await watched.after(-3600, used)
    assert len(watched.provider.asked) == 3


async def test_a_measurement_that_is_no_newer_leaves_the_rate() -> None:
    watched = Watched(pod_of("p", "u", "a"))
    await watched.after(0, {("u", "a"): (1, 1)})
    told = await watched.after(10, {("u", "a"): (6, 1)})
    rate = told["pods"][0]["containers"][0]["cpu"]["usageNanoCores"]
    assert rate == 500_000_000
    # The provider measures every minute, say.
    response = pb.GetStatsResponse()
    response.CopyFrom(await watched.provider.get_stats(pb.GetStatsRequest()))

    async def same(_: pb.GetStatsRequest) -> pb.GetStatsResponse:
        return response

    watched.provider.get_stats = same  # type: ignore[method-assign]
    told = await watched.after(10, {})
    cpu = told["pods"][0]["containers"][0]["cpu"]
    assert (cpu["usageNanoCores"], cpu["usageCoreNanoSeconds"]) == (rate, 6e9)


async def test_resource_metrics() -> None:
    watched = Watched(pod_of("p", "u", "a", 'quo"te'))
    await watched.after(0, {("u", "a"): (1.5, 4096), ("u", 'quo"te'): (None, 1)})
    text = "".join(one.text() for one in resource_metrics(await watched.meters.read()))
    assert (
        text
        == f"""\
# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container \
in core-seconds
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{{container="a",namespace="ns",pod="p"}} 1.5 1700000000000
# HELP container_memory_working_set_bytes [STABLE] Current working set of the container in bytes
# TYPE container_memory_working_set_bytes gauge
container_memory_working_set_bytes{{container="a",namespace="ns",pod="p"}} 4096 1700000000000
container_memory_working_set_bytes{{container="quo\\"te",namespace="ns",pod="p"}} 1 1700000000000
# HELP container_start_time_seconds [STABLE] Start time of the container since unix epoch in seconds
# TYPE container_start_time_seconds gauge
container_start_time_seconds{{container="a",namespace="ns",pod="p"}} {START - 50}
container_start_time_seconds{{container="quo\\"te",namespace="ns",pod="p"}} {START - 50}
# HELP node_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the node in \
core-seconds
# TYPE node_cpu_usage_seconds_total counter
node_cpu_usage_seconds_total 1.5 1700000000000
# HELP node_memory_working_set_bytes [STABLE] Current working set of the node in bytes
# TYPE node_memory_working_set_bytes gauge
node_memory_working_set_bytes 4097 1700000000000
# HELP pod_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the pod in core-seconds
# TYPE pod_cpu_usage_seconds_total counter
pod_cpu_usage_seconds_total{{namespace="ns",pod="p"}} 1.5 1700000000000
# HELP pod_memory_working_set_bytes [STABLE] Current working set of the pod in bytes
# TYPE pod_memory_working_set_bytes gauge
pod_memory_working_set_bytes{{namespace="ns",pod="p"}} 4097 1700000000000
# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container metrics, \
0 otherwise
# TYPE resource_scrape_error gauge
resource_scrape_error 0
"""
    )


# Over the wire.


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path, calls={("patch", "pods/status", 200): 3}) as made:
        yield made


async def test_usage_through_a_real_provider(node: Rig) -> None:
    node.adapter.usage = {POD.uid: [Usage("c", START, 3_000_000_000, 2048)]}
    status, text = await node.get("/stats/summary?only_cpu_and_memory=true")
    told = json.loads(text)
    assert (status, told["node"]["nodeName"]) == (200, NODE)
    [pod] = told["pods"]
    assert pod["podRef"] == {"name": "pipes", "namespace": "default", "uid": POD.uid}
    assert pod["containers"][0]["memory"]["workingSetBytes"] == 2048
    async with node.known().get("/metrics/resource") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        lines = (await answer.text()).splitlines()
    labels = '{container="c",namespace="default",pod="pipes"}'
    assert f"container_cpu_usage_seconds_total{labels} 3.0 1700000000000" in lines
    started = parse_rfc3339("2026-01-02T03:04:05Z")
    assert f"container_start_time_seconds{labels} {started}" in lines
    assert "resource_scrape_error 0" in lines


async def test_a_provider_that_does_not_answer(tmp_path: Path) -> None:
    provider = Counted()
    provider.error = Unavailable("nobody answers at provider:1")
    async with rig(tmp_path, provider=provider) as node:
        text = "Internal Error: nobody answers at provider:1"
        assert await node.get("/stats/summary") == (500, text)
        status, text = await node.get("/metrics/resource")
        assert (status, text.splitlines()[-1]) == (200, "resource_scrape_error 1")
        assert "node_cpu" not in text
        provider.error = None
        assert (await node.get("/stats/summary"))[0] == 200


@pytest.mark.parametrize("path", ["/metrics/cadvisor", "/metrics/probes", "/stats/container"])
async def test_what_is_not_there(node: Rig, path: str) -> None:
    assert await node.get(path) == (404, "404 page not found\n")


async def test_the_nodes_own_logs_are_not_shown(node: Rig) -> None:
    assert await node.get("/logs/") == (405, "logs endpoint is disabled.\n")


async def test_pods(node: Rig) -> None:
    big = "x" * 100_000
    many = [pod_of(f"p{number}", f"u{number}", "a") for number in range(8)]
    for pod in many:
        pod["metadata"]["annotations"] = {"big": big}
    ended = pod_of("ended", "e", "a")
    ended["status"]["containerStatuses"][0]["state"] = {"terminated": {"exitCode": 0}}
    node.pods.list = [*many, ended]
    status, text = await node.get("/pods")
    told = json.loads(text)
    assert (status, told["kind"], told["apiVersion"]) == (200, "PodList", "v1")
    assert told["items"] == node.pods.list
    for path in ("/runningpods/", "/runningpods"):
        told = json.loads((await node.get(path))[1])
        assert [one["metadata"]["name"] for one in told["items"]] == [f"p{n}" for n in range(8)]
        assert "annotations" not in told["items"][0]["metadata"]
    node.pods.list = []
    told = json.loads((await node.get("/pods"))[1])
    assert told == {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}


def test_a_running_pod() -> None:
    assert running(manifest()) == {
        "metadata": {"name": "pipes", "namespace": "default", "uid": POD.uid},
        "spec": {"containers": [{"name": "c", "image": "busybox", "resources": {}}]},
        "status": {},
    }
    assert running(manifest({"waiting": {}})) is None
    assert running({"metadata": {"name": "new"}}) is None


async def test_health(node: Rig) -> None:
    assert await node.get("/healthz") == (200, "ok")
    node.health = "the lease was not renewed for 20 s"
    said = "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\n"
    assert await node.get("/healthz") == (500, f"{said}healthz check failed\n")
    why = "internal server error: the lease was not renewed for 20 s\n"
    assert await node.get("/healthz/syncloop") == (500, why)
    for path in ("/healthz/ping", "/healthz/log", "/healthz?exclude=syncloop"):
        assert await node.get(path) == (200, "ok")
    node.health = ""
    assert await node.get("/healthz/syncloop") == (200, "ok")
    verbose = "[+]ping ok\n[+]log excluded: ok\n[+]syncloop ok\nhealthz check passed\n"
    assert await node.get("/healthz?verbose&exclude=log") == (200, verbose)
    code, text = await node.get("/healthz?verbose=1&exclude=etcd")
    assert code == 200
    assert 'cannot be excluded: no matches for "etcd"\n' in text
    assert (await node.get("/healthz/etcd"))[0] == 404


async def test_settings(tmp_path: Path) -> None:
    async with rig(tmp_path, configuration={"maxPods": 110}) as node:
        port = node.api.port
        told = json.loads((await node.get("/configz"))[1])["kubeletconfig"]
    assert told["kind"] == "KubeletConfiguration"
    assert told["authentication"]["anonymous"] == {"enabled": False}
    assert told["authorization"] == {
        "mode": "Webhook",
        "webhook": {"cacheAuthorizedTTL": "2m0s", "cacheUnauthorizedTTL": "30s"},
    }
    assert told["streamingConnectionIdleTimeout"] == "4h0m0s"
    assert (told["address"], told["port"], told["maxPods"]) == ("127.0.0.1", port, 110)


async def test_the_shims_own_numbers(node: Rig) -> None:
    await node.get("/healthz")
    await node.get("/nowhere")
    node.pods.list = [*node.pods.list, pod_of("p", "u", "a"), manifest({"waiting": {}}, phase="")]
    lines = (await node.get("/metrics"))[1].splitlines()
    assert 'kubelet_node_name{node="n"} 1' in lines
    assert 'podbridge_pods{phase="Running"} 2' in lines
    assert 'podbridge_pods{phase="Pending"} 1' in lines
    assert "kubelet_running_pods 2" in lines
    assert 'kubelet_http_requests_total{method="GET",path="healthz"} 1' in lines
    assert 'kubelet_http_requests_total{method="GET",path="metrics"} 1' in lines
    assert not [line for line in lines if "nowhere" in line]
    called = 'podbridge_api_server_requests_total{code="200",resource="pods/status",verb="patch"} 3'
    assert called in lines


async def test_the_node_uses_what_this_process_does_for_it() -> None:
    """So that a node without pods is one to metrics-server, which takes nothing for unknown."""
    cpu, memory = own_usage()
    assert cpu > 0
    assert memory > 1_000_000
    watched = Watched()
    watched.meters = Meters(
        watched.pods,
        watched.provider,  # type: ignore[arg-type]
        CLUSTER,
        NODE,
        clock=lambda: watched.provider.now,
        own=lambda: (round(watched.provider.now * 1e6), 7),
    )
    await watched.after(0, {})
    told = await watched.after(10, {})
    assert told["node"]["memory"]["workingSetBytes"] == 7
    assert told["node"]["cpu"]["usageNanoCores"] == 1_000_000
