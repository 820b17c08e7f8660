"""The Node object; and its upkeep, in virtual time and against a server on a real socket."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest
from kubelet.apiserver import ApiServer, eventually
from support.virtual import clock as virtual_clock
from support.virtual import run

from bridge.errors import BridgeError, Invalid, NotFound, Unavailable
from bridge.kubelet.client import AlreadyExists, ApiClient
from bridge.kubelet.node import (
    TAINT,
    Health,
    NodeSpec,
    conditions,
    host_ips,
    kubelet_version,
    labels,
    labels_patch,
    new_node,
    offer_of,
    status,
    status_patch,
    why_foreign,
)
from bridge.kubelet.upkeep import GRACE, READY, REPORT, NodeUpkeep
from bridge.kubelet.watch import Changed, Listed
from bridge.rpc.v1 import provider_pb2 as pb

CLUSTER = "11111111-2222-3333-4444-555555555555"
SPEC = NodeSpec(CLUSTER, "n", "10.0.0.7", architecture="arm64")
VERSION = "v1.36.3"


def backend(name: str, type_: str = "engine", ready: bool = True, **capacity: str) -> pb.Backend:
    message = "" if ready else f"{name} is away"
    return pb.Backend(name=name, type=type_, capacity=capacity, ready=ready, message=message)


def response(*backends: pb.Backend, **total: str) -> pb.WatchNodeResponse:
    return pb.WatchNodeResponse(
        capacity=total, allocatable=total, backends=backends, provider_version="0.1.0"
    )


OFFER = offer_of(response(backend("a", pods="10", cpu="4", memory="8Gi")))


# What the provider offers.


def test_capacity_is_the_sum_and_what_has_no_limit_counts_by_places() -> None:
    one, two = backend("a", pods="10", cpu="4", memory="8Gi"), backend("b", pods="5")
    offer = offer_of(response(one, two, pods="15", cpu="4", memory="8Gi"))
    assert offer.capacity == {
        "pods": "15",
        "cpu": "24",  # 4, and 5 places of 4 cores
        "memory": "88Gi",  # 8, and 5 places of 16
        "ephemeral-storage": "300Gi",
    }
    assert offer.allocatable == offer.capacity
    assert [one.name for one in offer.backends] == ["a", "b"]


def test_a_part_of_the_backends() -> None:
    whole = response(backend("a", pods="10", cpu="4"), backend("b", pods="5"), pods="15", cpu="4")
    offer = offer_of(whole, ["b"])
    assert offer.capacity["pods"] == "5"
    assert offer.capacity["cpu"] == "20"
    assert [one.name for one in offer.backends] == ["b"]


def test_what_the_provider_reserves_is_not_allocatable() -> None:
    whole = response(backend("a", pods="10", cpu="4"), pods="10", cpu="4")
    whole.allocatable["cpu"] = "3500m"
    offer = offer_of(whole)
    assert (offer.capacity["cpu"], offer.allocatable["cpu"]) == ("4", "3500m")


def test_a_provider_without_backends_is_taken_at_its_word() -> None:
    offer = offer_of(response(pods="2", cpu="1"))
    assert offer.capacity == {
        "pods": "2",
        "cpu": "1",
        "memory": "32Gi",
        "ephemeral-storage": "40Gi",
    }


def test_never_infinite() -> None:
    assert offer_of(response(backend("a"))).capacity["pods"] == "110"
    assert offer_of(response()).capacity["pods"] == "110"


def test_resources_of_the_clusters_own_are_summed() -> None:
    gpus = {"example.com/gpu": "2"}
    offer = offer_of(response(backend("a", pods="1", **gpus), backend("b", pods="1")))
    assert offer.capacity["example.com/gpu"] == "2"


# The object.


def test_the_whole_node() -> None:
    node = new_node(SPEC, OFFER, READY, 1_800_000_000.0, VERSION)
    assert node["metadata"] == {
        "name": "n",
        "labels": {
            "kubernetes.io/hostname": "n",
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "arm64",
            "node.kubernetes.io/instance-type": "podbridge",
            "node.kubernetes.io/exclude-from-external-load-balancers": "true",
            "kubernetes.azure.com/managed": "false",
            "type": "virtual-kubelet",
            "podbridge.io/backend": "a",
            "backend.podbridge.io/a": "engine",
        },
    }
    assert node["spec"] == {"providerID": f"podbridge://{CLUSTER}/n", "taints": [TAINT]}
    told = node["status"]
    assert told["capacity"] == {
        "pods": "10",
        "cpu": "4",
        "memory": "8Gi",
        "ephemeral-storage": "200Gi",
    }
    assert told["addresses"] == [
        {"type": "InternalIP", "address": "10.0.0.7"},
        {"type": "Hostname", "address": "n"},
    ]
    assert told["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert told["declaredFeatures"] == ["ExtendWebSocketsToKubelet"]
    assert told["nodeInfo"]["architecture"] == "arm64"
    assert told["nodeInfo"]["containerRuntimeVersion"] == "podbridge://0.1.0"
    assert {one["type"]: one["status"] for one in told["conditions"]} == {
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
        "NetworkUnavailable": "False",
        "Ready": "True",
    }
    for one in told["conditions"]:
        assert one["lastTransitionTime"] == one["lastHeartbeatTime"] == "2027-01-15T08:00:00Z"
        assert one["reason"]
        assert one["message"]


def test_without_a_taint_and_with_more_labels() -> None:
    spec = NodeSpec(
        CLUSTER,
        "n",
        "10.0.0.7",
        labels={"team": "blue"},
        taint=False,
        region="eu-west-1",
        zone="eu-west-1a",
        capacity_type="spot",
    )
    node = new_node(spec, offer_of(response(backend("a"), backend("b", "aci"))), READY, 0, VERSION)
    assert "taints" not in node["spec"]
    made = node["metadata"]["labels"]
    assert made["team"] == "blue"
    assert made["topology.kubernetes.io/region"] == "eu-west-1"
    assert made["topology.kubernetes.io/zone"] == "eu-west-1a"
    assert made["podbridge.io/capacity-type"] == "spot"
    assert (made["backend.podbridge.io/a"], made["backend.podbridge.io/b"]) == ("engine", "aci")
    assert "podbridge.io/backend" not in made


def test_every_label_is_one_that_a_node_may_set_on_itself() -> None:
    spec = NodeSpec(CLUSTER, "n", "10.0.0.7", region="r", zone="z", capacity_type="spot")
    allowed = {
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
    for label in labels(spec, OFFER):
        domain = label.rpartition("/")[0]
        if re.search(r"(^|\.)(kubernetes|k8s)\.io$", domain):
            assert label in allowed or domain == "node.kubernetes.io", label


@pytest.mark.parametrize(
    ("server", "minor"),
    [
        ("v1.36.3", "1.36.3"),
        ("v1.30.4-gke.1043004", "1.30.4"),
        ("v1.31.2+k3s1", "1.31.2"),
        ("v1.37.2", "1.36.0"),
        ("v1.39.1", "1.36.0"),
        ("v1.41.1", "1.38.0"),
        ("a version", "1.36.0"),
    ],
)
def test_the_version_is_neither_newer_nor_too_old(server: str, minor: str) -> None:
    told = kubelet_version(server)
    assert told == f"v{minor}-podbridge-0.1.0"
    # As Kubernetes parses it (apimachinery's version.ParseSemantic).
    assert re.fullmatch(r"v\d+\.\d+\.\d+-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*", told)


def test_features_are_declared_only_where_they_are_kept() -> None:
    assert "declaredFeatures" not in status(SPEC, OFFER, READY, 0, "v1.35.4")
    bare = NodeSpec(CLUSTER, "n", "10.0.0.7", declared=())
    assert "declaredFeatures" not in status(bare, OFFER, READY, 0, VERSION)


def test_a_condition_moves_only_when_it_changes() -> None:
    first = conditions(READY, 1000.0)
    same = conditions(READY, 2000.0, first)
    other = conditions(Health(False, "R", "m"), 3000.0, same)
    ready = [one[-1] for one in (first, same, other)]
    assert [one["lastTransitionTime"] for one in ready] == [
        "1970-01-01T00:16:40Z",
        "1970-01-01T00:16:40Z",
        "1970-01-01T00:50:00Z",
    ]
    assert other[0]["lastTransitionTime"] == "1970-01-01T00:16:40Z"
    assert (ready[2]["status"], ready[2]["reason"], ready[2]["message"]) == ("False", "R", "m")


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({"spec": {"providerID": f"podbridge://{CLUSTER}/n"}}, ""),
        ({}, ""),
        ({"status": {"nodeInfo": {"kubeletVersion": "v1.36.0-podbridge-0.0.9"}}}, ""),
        ({"spec": {"providerID": "podbridge://another/n"}}, "cluster id another"),
        ({"spec": {"providerID": "aws:///i-1"}}, "aws:///i-1"),
        ({"status": {"nodeInfo": {"kubeletVersion": "v1.36.0"}}}, "kept by a kubelet v1.36.0"),
    ],
)
def test_whose_node_it_is(there: dict[str, Any], words: str) -> None:
    found = why_foreign({"metadata": {"name": "n"}, **there}, SPEC)
    assert (words in found) if words else found == ""


def test_labels_of_others_stay() -> None:
    node = {
        "metadata": {
            "labels": {
                "a": "b",
                "type": "wrong",
                "backend.podbridge.io/old": "aci",
                "node-role.kubernetes.io/worker": "",
            }
        }
    }
    patch = labels_patch(node, labels(SPEC, OFFER))
    assert patch["type"] == "virtual-kubelet"
    assert patch["backend.podbridge.io/old"] is None
    assert patch["backend.podbridge.io/a"] == "engine"
    assert "a" not in patch
    assert "node-role.kubernetes.io/worker" not in patch
    assert labels_patch({"metadata": {"labels": labels(SPEC, OFFER)}}, labels(SPEC, OFFER)) == {}


def test_only_what_differs_is_told() -> None:
    wanted = status(SPEC, OFFER, READY, 1000.0, VERSION)
    there = json.loads(json.dumps(wanted))
    there["conditions"].append({"type": "Others", "status": "True"})
    there["capacity"] |= {"cpu": "4000m", "example.com/theirs": "3", "example.com/gone": "1"}
    there["nodeInfo"]["swap"] = {"capacity": 0}
    later = status(SPEC, OFFER, READY, 2000.0, VERSION, previous=there)
    assert status_patch(there, later) == {}
    assert status_patch(there, later, ["example.com/gone"]) == {
        "capacity": {"example.com/gone": None}
    }
    there["addresses"][0]["address"] = "10.0.0.8"
    patch = status_patch(there, later)
    assert patch == {"addresses": [*wanted["addresses"], {"$patch": "replace"}]}
    there["conditions"][0]["status"] = "True"
    assert [one["type"] for one in status_patch(there, later)["conditions"]] == ["MemoryPressure"]
    beat = status_patch(there, later, heartbeat=True)
    assert {one["lastHeartbeatTime"] for one in beat["conditions"]} == {"1970-01-01T00:33:20Z"}
    assert len(beat["conditions"]) == 5


# Its upkeep, in virtual time.


class FakeApi:
    """One Node, as an API server keeps it; `follow` tells of its changes."""

    def __init__(self, node: dict[str, Any] | None = None, drops: tuple[str, ...] = ()) -> None:
        self.node = node
        self.version = 10
        self.calls: list[tuple[float, str, str, Any]] = []
        self.errors: list[BridgeError] = []
        self.after = False
        self.drops = drops
        self._queue: asyncio.Queue[Listed | Changed] = asyncio.Queue()
        if node is not None:
            self._stamp(node)

    def _stamp(self, node: dict[str, Any]) -> None:
        self.version += 1
        node["metadata"]["resourceVersion"] = str(self.version)
        node["metadata"].setdefault("uid", f"uid-{self.version}")

    def _note(self, method: str, path: str, body: Any = None) -> BridgeError | None:
        self.calls.append((asyncio.get_running_loop().time(), method, path, body))
        return self.errors.pop(0) if self.errors else None

    def _copy(self) -> dict[str, Any]:
        assert self.node is not None
        return json.loads(json.dumps(self.node))  # type: ignore[no-any-return]

    async def get(self, path: str) -> dict[str, Any]:
        if error := self._note("GET", path):
            raise error
        if self.node is None:
            raise NotFound("no node")
        return self._copy()

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        error = self._note("POST", path, body)
        if error is not None and not self.after:
            raise error
        if self.node is not None:
            raise AlreadyExists("there is one")
        self.node = json.loads(json.dumps(body))
        self._keep("ADDED")
        if error is not None:
            raise error
        return self._copy()

    async def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if error := self._note("PATCH", path, body):
            raise error
        if self.node is None:
            raise NotFound("no node")
        for part in ("metadata", "spec"):
            for key, value in (body.get(part) or {}).items():
                there = self.node.setdefault(part, {})
                there[key] = _merged(there.get(key), value)
        for key, value in (body.get("status") or {}).items():
            there = self.node.setdefault("status", {})
            if key == "conditions":
                kept = [
                    one
                    for one in there.get(key, [])
                    if one["type"] not in {new["type"] for new in value}
                ]
                there[key] = kept + value
            elif key == "addresses":
                assert {"$patch": "replace"} in value
                there[key] = [one for one in value if "$patch" not in one]
            else:
                there[key] = _merged(there.get(key), value)
        self._keep("MODIFIED")
        return self._copy()

    def _keep(self, kind: Any) -> None:
        assert self.node is not None
        for name in self.drops:
            self.node["status"].pop(name, None)
        self._stamp(self.node)
        self._queue.put_nowait(Changed(kind, self._copy()))

    def delete(self) -> None:
        gone, self.node = self._copy(), None
        self._queue.put_nowait(Changed("DELETED", gone))

    def touch(self, change: Callable[[dict[str, Any]], None]) -> None:
        assert self.node is not None
        change(self.node)
        self._keep("MODIFIED")

    async def follow(self) -> AsyncGenerator[Listed | Changed, None]:
        yield Listed([self._copy()] if self.node is not None else [], str(self.version))
        while True:
            yield await self._queue.get()

    def made(self, method: str, part: str = "") -> list[Any]:
        return [body for _, how, path, body in self.calls if how == method and part in path]


def _merged(there: Any, value: Any) -> Any:
    if isinstance(value, dict) and isinstance(there, dict):
        made = there | {key: _merged(there.get(key), one) for key, one in value.items()}
        return {key: one for key, one in made.items() if one is not None}
    return value


class FakeProvider:
    def __init__(self, *first: pb.WatchNodeResponse) -> None:
        self.offers: asyncio.Queue[pb.WatchNodeResponse | BridgeError] = asyncio.Queue()
        for one in first:
            self.offers.put_nowait(one)
        self.asked: list[pb.WatchNodeRequest] = []

    async def watch_node(self, request: pb.WatchNodeRequest) -> AsyncIterator[pb.WatchNodeResponse]:
        self.asked.append(request)
        while True:
            offer = await self.offers.get()
            if isinstance(offer, BridgeError):
                raise offer
            yield offer


ONE = response(backend("a", pods="10", cpu="4", memory="8Gi"), pods="10", cpu="4", memory="8Gi")


class World:
    def __init__(self, api: FakeApi, provider: FakeProvider, spec: NodeSpec = SPEC) -> None:
        self.api, self.provider = api, provider
        self.registered: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.upkeep = NodeUpkeep(
            api,
            provider,  # type: ignore[arg-type]
            spec,
            VERSION,
            follow=api.follow,
            registered=lambda node: self.registered.append(node["metadata"]["uid"]),
            event=lambda kind, reason, _: self.events.append((kind, reason)),
            clock=virtual_clock,
        )
        self.task = asyncio.ensure_future(self.upkeep.run())

    async def at(self, moment: float) -> None:
        await asyncio.sleep(moment - asyncio.get_running_loop().time())

    def ready(self) -> tuple[str, str]:
        assert self.api.node is not None
        one = next(o for o in self.api.node["status"]["conditions"] if o["type"] == "Ready")
        return one["status"], one["reason"]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def play(
    scene: Callable[[World], Any],
    node: dict[str, Any] | None = None,
    offers: tuple[pb.WatchNodeResponse, ...] = (ONE,),
    drops: tuple[str, ...] = (),
) -> World:
    worlds: list[World] = []

    async def whole() -> None:
        world = World(FakeApi(node, drops), FakeProvider(*offers))
        worlds.append(world)
        try:
            await scene(world)
        finally:
            await world.stop()

    run(whole())
    return worlds[0]


def test_it_is_made_once_and_told_every_five_minutes() -> None:
    async def scene(world: World) -> None:
        await world.at(REPORT * 3 + 30)
        assert world.ready() == ("True", "KubeletReady")

    world = play(scene)
    assert len(world.api.made("POST", "/api/v1/nodes")) == 1
    assert world.registered == ["uid-11"]
    assert world.provider.asked == [pb.WatchNodeRequest(cluster=CLUSTER, node="n")]
    patches = [(at, path) for at, how, path, _ in world.api.calls if how == "PATCH"]
    assert [path for _, path in patches] == ["/api/v1/nodes/n/status"] * 3
    assert [round(at) for at, _ in patches] == [300, 600, 900]
    assert world.api.made("GET") == []
    assert world.events == [("Normal", "Starting")]


def test_it_is_adopted_and_what_others_set_stays() -> None:
    taints = [{"key": "theirs", "effect": "NoExecute"}]
    node = {
        "metadata": {"name": "n", "uid": "u", "labels": {"theirs": "yes"}},
        "spec": {"taints": taints},
        "status": {
            "conditions": [{"type": "Theirs", "status": "True"}],
            "capacity": {"example.com/theirs": "1"},
        },
    }

    async def scene(world: World) -> None:
        await world.at(1)

    there = play(scene, node).api.node
    assert there is not None
    assert there["metadata"]["labels"]["theirs"] == "yes"
    assert there["metadata"]["labels"]["type"] == "virtual-kubelet"
    assert there["spec"] == {"taints": taints, "providerID": f"podbridge://{CLUSTER}/n"}
    assert "Theirs" in {one["type"] for one in there["status"]["conditions"]}
    assert there["status"]["capacity"]["example.com/theirs"] == "1"
    assert there["status"]["capacity"]["cpu"] == "4"


def test_a_node_that_is_another_kubelets_is_refused() -> None:
    node = {
        "metadata": {"name": "n"},
        "status": {"nodeInfo": {"kubeletVersion": "v1.36.0"}},
    }

    async def scene(world: World) -> None:
        with pytest.raises(Invalid, match=r"kept by a kubelet v1\.36\.0"):
            await world.task

    assert play(scene, node).api.made("PATCH") == []


def test_it_is_made_anew_when_somebody_deletes_it() -> None:
    async def scene(world: World) -> None:
        await world.at(5)
        world.api.delete()
        await world.at(5.5)
        assert world.api.node is not None
        # Nobody told us that it is gone, but a call finds out.
        world.api.node = None
        world.provider.offers.put_nowait(response(backend("a", pods="3"), pods="3"))
        await world.at(17)
        assert world.api.node is not None
        assert world.api.node["status"]["capacity"]["pods"] == "3"

    world = play(scene)
    assert len(world.api.made("POST")) == 3
    assert len(set(world.registered)) == 3


def test_a_lost_answer_makes_no_second_node() -> None:
    async def scene(world: World) -> None:
        world.api.errors.append(Unavailable("lost"))
        world.api.after = True
        await world.at(30)
        assert world.ready()[0] == "True"
        assert world.upkeep.problem == ""

    assert len(play(scene).registered) == 1


def test_the_provider_may_be_away_for_a_while() -> None:
    async def scene(world: World) -> None:
        await world.at(5)
        world.provider.offers.put_nowait(Unavailable("gone"))
        await world.at(5 + GRACE - 1)
        assert world.ready()[0] == "True"
        await world.at(5 + GRACE + 11)
        assert world.ready() == ("False", "ProviderNotReady")
        assert world.upkeep.health().message == "the provider does not answer: gone"
        # What it had stays: pods that are there are not told off for it.
        assert world.upkeep.allocatable["cpu"] == "4"
        world.provider.offers.put_nowait(ONE)
        await world.at(5 + GRACE + 12)
        assert world.ready() == ("True", "KubeletReady")

    world = play(scene)
    assert world.events == [
        ("Normal", "Starting"),
        ("Warning", "NodeNotReady"),
        ("Normal", "NodeReady"),
    ]


def test_without_a_provider_there_is_a_node_that_says_so() -> None:
    async def scene(world: World) -> None:
        await world.at(GRACE - 1)
        assert world.api.calls == []
        await world.at(GRACE + 11)
        assert world.ready() == ("False", "ProviderNotReady")
        assert world.api.node is not None
        assert world.api.node["status"]["capacity"] == {"pods": "0"}
        world.provider.offers.put_nowait(ONE)
        await world.at(GRACE + 13)
        assert world.ready()[0] == "True"
        assert world.api.node["status"]["capacity"]["cpu"] == "4"
        assert world.api.node["metadata"]["labels"]["podbridge.io/backend"] == "a"

    play(scene, offers=())


def test_a_node_that_is_there_stays_as_it_is_while_the_provider_starts() -> None:
    node = new_node(SPEC, OFFER, READY, 0.0, VERSION)

    async def scene(world: World) -> None:
        await world.at(GRACE - 1)
        assert world.api.calls == []
        await world.at(GRACE + 11)
        assert world.ready()[0] == "False"
        assert world.api.node is not None
        assert world.api.node["status"]["capacity"]["cpu"] == "4"

    play(scene, node, offers=())


def test_backends_that_are_away_are_told_and_evict_nobody() -> None:
    offer = response(backend("a", pods="1"), backend("b", pods="1", ready=False), pods="2")

    async def scene(world: World) -> None:
        await world.at(1)
        assert world.ready() == ("True", "KubeletReady")
        assert world.upkeep.health().message.endswith("; b: b is away")

    play(scene, offers=(offer,))


def test_a_backend_that_the_provider_does_not_have() -> None:
    async def scene() -> None:
        spec = NodeSpec(CLUSTER, "n", "10.0.0.7", backends=("a", "z"))
        world = World(FakeApi(), FakeProvider(ONE), spec)
        await world.at(1)
        assert world.ready() == ("False", "BackendMissing")
        await world.stop()

    run(scene())


def test_what_changes_is_told_at_once() -> None:
    async def scene(world: World) -> None:
        await world.at(2)
        fewer = response(backend("b", pods="2", **{"example.com/gpu": "1"}), pods="2")
        world.provider.offers.put_nowait(fewer)
        await world.at(2.1)
        assert world.api.node is not None
        assert world.api.node["status"]["capacity"]["example.com/gpu"] == "1"
        assert "backend.podbridge.io/a" not in world.api.node["metadata"]["labels"]
        world.provider.offers.put_nowait(ONE)
        await world.at(2.2)
        assert "example.com/gpu" not in world.api.node["status"]["capacity"]

    play(scene)


def test_what_others_break_is_mended() -> None:
    async def scene(world: World) -> None:
        await world.at(2)

        def change(node: dict[str, Any]) -> None:
            del node["metadata"]["labels"]["type"]
            node["status"]["addresses"] = [{"type": "InternalIP", "address": "10.9.9.9"}]
            node["spec"]["unschedulable"] = True

        world.api.touch(change)
        await world.at(2.5)
        assert world.api.node is not None
        assert world.api.node["metadata"]["labels"]["type"] == "virtual-kubelet"
        assert world.api.node["status"]["addresses"][0]["address"] == "10.0.0.7"
        assert world.api.node["spec"]["unschedulable"] is True

    play(scene)


def test_what_the_api_server_does_not_keep_is_not_sent_again_and_again() -> None:
    async def scene(world: World) -> None:
        await world.at(200)

    world = play(scene, drops=("declaredFeatures",))
    assert len(world.api.made("PATCH")) == 1


def test_an_api_server_that_is_away_is_tried_again() -> None:
    async def scene(world: World) -> None:
        world.api.errors += [Unavailable("away")] * 3
        await world.at(0.9)
        assert world.upkeep.problem == "away"
        await world.at(20)
        assert world.upkeep.problem == ""
        assert world.ready()[0] == "True"

    play(scene)


def test_a_name_that_another_kubelet_took_meanwhile_ends_it() -> None:
    async def scene(world: World) -> None:
        await world.at(2)
        theirs = {
            "metadata": {"name": "n"},
            "spec": {"providerID": "aws:///i-1"},
            "status": {},
        }
        world.api.node = theirs
        world.api._keep("MODIFIED")
        with pytest.raises(Invalid, match="aws:///i-1"):
            await world.task

    play(scene)


# Over the wire.


async def test_against_a_server() -> None:
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        seen: list[str] = []
        upkeep = NodeUpkeep.of(
            client,
            FakeProvider(ONE),  # type: ignore[arg-type]
            SPEC,
            VERSION,
            registered=lambda node: seen.append(node["metadata"]["uid"]),
        )
        task = asyncio.ensure_future(upkeep.run())
        try:
            await eventually(lambda: ("nodes", "", "n") in server.objects)
            await server.until(lambda: server.watches("nodes"))
            server.remove("nodes", "", "n")
            await eventually(lambda: len(seen) == 2)
            assert server.objects["nodes", "", "n"]["spec"]["taints"] == [TAINT]
            assert upkeep.node is not None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        # Never deleted by us.
        assert ("nodes", "", "n") in server.objects
        assert server.made("DELETE", "") == []


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ([], []),
        (["InternalIP 10.0.0.7", "Hostname n"], ["10.0.0.7"]),
        (["ExternalIP 192.0.2.1", "InternalIP 10.0.0.7"], ["10.0.0.7"]),
        (["ExternalIP 192.0.2.1"], ["192.0.2.1"]),
        (
            ["InternalIP fd00::7", "InternalIP fd00::8", "InternalIP 10.0.0.7"],
            ["fd00::7", "10.0.0.7"],
        ),
        (
            ["InternalIP 10.0.0.7", "ExternalIP fd00::7", "ExternalIP fd00::8"],
            ["10.0.0.7", "fd00::7"],
        ),
        (["InternalIP n.example.com", "InternalIP 10.0.0.7"], ["10.0.0.7"]),
    ],
)
def test_a_nodes_addresses_as_its_pods_have_them(addresses: list[str], expected: list[str]) -> None:
    made = [dict(zip(("type", "address"), one.split(), strict=True)) for one in addresses]
    assert host_ips({"status": {"addresses": made}}) == expected
