"""The cluster that the pod loop sees, over HTTP; at the end the loop itself, with a provider."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from kubelet.apiserver import ApiServer, eventually
from support.paper import Cloud, PaperAdapter

from bridge.agent.cluster import Cluster, PodEvent
from bridge.agent.loop import Agent
from bridge.errors import BridgeError, Unavailable
from bridge.kubelet import recorder as recorder_module
from bridge.kubelet import watch as watch_module
from bridge.kubelet.client import ApiClient, Call
from bridge.kubelet.cluster import ApiCluster
from bridge.pods.defaults import with_defaults
from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker

CLUSTER = "5e1f0d62-0000-0000-0000-000000000000"
PLACED = {"podbridge.io/placed-on": "paper"}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(watch_module, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(recorder_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(recorder_module, "LONGEST_PAUSE", 0.05)


def a_pod(name: str, node: str = "n", **spec: Any) -> dict[str, Any]:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "generation": 1, "labels": {"a": "b"}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "i", "command": ["true"]}],
            "restartPolicy": "Never",
            **spec,
        },
        "status": {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastProbeTime": None},
            ],
        },
    }
    return with_defaults(pod)


RUNNING = {
    "phase": "Running",
    "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "PodScheduled", "status": "True"},
    ],
    "podIP": "10.0.0.1",
    "podIPs": [{"ip": "10.0.0.1"}],
    "containerStatuses": [{"name": "c", "ready": True, "state": {"running": {}}}],
}


class World:
    """A cluster that is followed, and what its watch told."""

    def __init__(self, server: ApiServer, client: ApiClient, cluster: ApiCluster) -> None:
        self.server, self.client, self.cluster = server, client, cluster
        self.told: list[str] = []
        self.events: list[PodEvent] = []
        self.pods: dict[str, dict[str, Any]] = {}

    async def follow(self) -> None:
        async with aclosing(self.cluster.watch()) as events:  # type: ignore[type-var]
            async for event in events:
                self.heard(event)

    def heard(self, event: PodEvent) -> None:
        self.events.append(event)
        name = event.pod["metadata"]["name"] if event.pod else ""
        self.told.append(f"{event.type} {name}".strip())
        if event.type in ("ADDED", "MODIFIED"):
            self.pods[name] = event.pod

    async def until(self, *told: str) -> None:
        try:
            await eventually(lambda: self.told[-len(told) :] == list(told))
        except TimeoutError:
            raise AssertionError(f"{told} not in {self.told}") from None

    async def synced(self) -> None:
        await eventually(lambda: "SYNCED" in self.told)
        await self.server.until(lambda: self.server.watches("pods"))

    async def quiet(self) -> None:
        """Returns once all that happened so far must have been told."""
        name = f"marker-{self.server.version}"
        self.server.put("pods", a_pod(name))
        await eventually(lambda: f"ADDED {name}" in self.told)
        self.told.remove(f"ADDED {name}")


@asynccontextmanager
async def a_world(*pods: dict[str, Any], follow: bool = True) -> AsyncIterator[World]:
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        for pod in pods:
            server.put("pods", pod)
        async with ApiCluster(client, CLUSTER, "n") as cluster:
            _is_a_cluster: Cluster = cluster
            world = World(server, client, cluster)
            task = asyncio.create_task(world.follow()) if follow else None
            try:
                if task is not None:
                    await world.synced()
                yield world
            finally:
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)


# Watching.


async def test_pods_of_the_node_then_synced_then_changes() -> None:
    async with a_world(a_pod("a"), a_pod("other", node="m")) as world:
        assert world.told == ["ADDED a", "SYNCED"]
        world.server.put("pods", a_pod("b"))
        world.server.order_deletion("default", "b")
        await world.until("MODIFIED b")
        world.server.remove("pods", "default", "a")
        await world.until("DELETED a")
        assert world.server.requests[0].query["fieldSelector"] == "spec.nodeName=n"
        assert "resourceVersion" not in world.server.requests[0].query, "never from a stale cache"
        assert [one["metadata"]["name"] for one in world.cluster.all()] == ["b"]


async def test_a_break_tells_what_was_missed_without_a_second_synced() -> None:
    async with a_world(a_pod("a"), a_pod("b"), a_pod("c")) as world:
        uid = world.pods["a"]["metadata"]["uid"]
        await world.server.stop()
        world.server.remove("pods", "default", "a")
        world.server.order_deletion("default", "b")
        world.server.put("pods", a_pod("d"))
        world.server.compact()
        await world.server.start()
        await eventually(lambda: "ADDED d" in world.told)
        missed = [one for one in world.events[4:] if one.type != "MODIFIED"]
        names = sorted(f"{one.type} {one.pod['metadata']['name']}" for one in missed)
        assert names == ["ADDED b", "ADDED d", "DELETED a"]
        assert uid in [one.pod["metadata"]["uid"] for one in missed if one.type == "DELETED"]
        assert not await world.cluster.exists("default", "a", uid)


async def test_pods_are_looked_at_again_once_the_api_server_is_back() -> None:
    async with a_world(a_pod("a"), a_pod("b")) as world:
        world.server.drop_watches()
        world.server.fail("GET", "pods", 503)
        await world.until("SYNCED", "MODIFIED a", "MODIFIED b")
        world.server.end_watches()
        await world.quiet()
        assert world.told[-1] == "MODIFIED b", "a watch that ends in peace is no news"


async def test_a_second_watch_lists_anew() -> None:
    async with a_world(a_pod("a"), a_pod("b"), follow=False) as world:
        first = world.cluster.watch()
        told = [await following(first) for _ in range(3)]
        await first.aclose()  # type: ignore[attr-defined]
        assert [one.type for one in told] == ["ADDED", "ADDED", "SYNCED"]
        world.server.remove("pods", "default", "b")
        again = world.cluster.watch()
        told = [await following(again) for _ in range(3)]
        await again.aclose()  # type: ignore[attr-defined]
        names = [f"{one.type} {one.pod.get('metadata', {}).get('name', '')}" for one in told]
        assert names == ["DELETED b", "ADDED a", "SYNCED "]


async def test_an_earlier_watch_ends_with_the_next() -> None:
    async with a_world(a_pod("a"), follow=False) as world:
        first = world.cluster.watch()
        assert (await following(first)).type == "ADDED"
        second = world.cluster.watch()
        assert (await following(second)).type == "ADDED"
        assert (await following(first)).type == "SYNCED"
        with pytest.raises(Unavailable):
            await following(first)
        assert (await following(second)).type == "SYNCED"
        await world.server.until(lambda: world.server.watches("pods") == 1)


async def following(events: AsyncIterator[PodEvent]) -> PodEvent:
    return await asyncio.wait_for(anext(events), 10)


async def test_a_burst_of_changes_is_told_once() -> None:
    async with a_world(follow=False) as world:
        cluster = world.cluster
        events = cluster.watch()
        assert (await following(events)).type == "SYNCED"
        pod = world.server.put("pods", a_pod("a"))
        for number in range(50):
            world.server.change("pods", "default", "a", labels={"n": str(number)})
        await eventually(lambda: (cluster.find("default", "a") or {}) == world.server.pod("a"))
        event = await following(events)
        assert event.pod["metadata"]["labels"] == {"n": "49"}
        world.server.remove("pods", "default", "a")
        await eventually(lambda: not cluster.all())
        assert (await following(events)).type == "DELETED"
        assert not cluster._inbox._events
        assert pod["metadata"]["uid"] in cluster._gone
        await events.aclose()  # type: ignore[attr-defined]


async def test_a_pod_of_the_same_name_is_another_pod() -> None:
    async with a_world(a_pod("a")) as world:
        first = world.pods["a"]["metadata"]["uid"]
        world.server.remove("pods", "default", "a")
        world.server.put("pods", a_pod("a"))
        await world.until("DELETED a", "ADDED a")
        second = world.pods["a"]["metadata"]["uid"]
        assert first != second
        assert world.cluster.find("default", "a", first) is None
        found = world.cluster.find("default", "a", second)
        assert found is world.cluster.find("default", "a")
        assert not await world.cluster.exists("default", "a", first)
        assert await world.cluster.exists("default", "a", second)


async def test_a_mirror_pod_is_never_ours() -> None:
    mirror = a_pod("m")
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    async with a_world(mirror) as world:
        world.server.order_deletion("default", "m")
        await world.quiet()
        assert world.told == ["SYNCED"]


# Statuses.


async def test_a_status_is_one_small_patch_with_its_uid() -> None:
    async with a_world(a_pod("a")) as world:
        pod = world.pods["a"]
        changed = await world.cluster.patch_status(pod, RUNNING, PLACED)
        assert changed is not None
        (request,) = world.server.made("PATCH", "")
        assert request.path == "/api/v1/namespaces/default/pods/a/status"
        assert request.body == {
            "metadata": {"uid": pod["metadata"]["uid"], "annotations": PLACED},
            "status": {
                "phase": "Running",
                "conditions": [RUNNING["conditions"][0]],
                "podIP": "10.0.0.1",
                "podIPs": [{"ip": "10.0.0.1"}],
                "containerStatuses": RUNNING["containerStatuses"],
            },
        }
        assert changed["status"]["phase"] == "Running"
        assert changed["metadata"]["annotations"] == PLACED
        assert world.cluster.find("default", "a") is changed
        # The same once more is nothing.
        assert await world.cluster.patch_status(changed, RUNNING, PLACED) is changed
        assert await world.cluster.annotate(changed, PLACED) is changed
        assert len(world.server.made("PATCH", "")) == 1


async def test_the_answer_is_not_told_again() -> None:
    async with a_world(a_pod("a")) as world:
        await world.cluster.patch_status(world.pods["a"], RUNNING, PLACED)
        await world.quiet()
        assert world.told == ["ADDED a", "SYNCED"]
        # What comes after it is.
        world.server.change("pods", "default", "a", labels={"x": "y"})
        await world.until("MODIFIED a")


async def test_an_answer_with_news_of_others_is_told() -> None:
    async with a_world(a_pod("a")) as world:
        pod = world.pods["a"]
        world.server.drop_watches()
        world.server.order_deletion("default", "a")
        changed = await world.cluster.patch_status(pod, RUNNING, {})
        assert changed is not None
        assert "deletionTimestamp" in changed["metadata"]
        await eventually(lambda: "deletionTimestamp" in world.pods["a"]["metadata"])
        await world.quiet()
        # However it was heard, what the loop has at last is the newest.
        assert world.pods["a"]["status"]["phase"] == "Running"


async def test_what_is_heard_before_the_answer_waits_for_it() -> None:
    async with a_world(a_pod("a"), a_pod("b")) as world:
        for name in ("a", "b"):
            gate = world.server.delay("PATCH", f"/pods/{name}/")
            patching = asyncio.create_task(
                world.cluster.patch_status(world.pods[name], RUNNING, PLACED)
            )
            await world.server.until(lambda: world.server.pod(name)["status"].get("podIP"))  # noqa: B023
            if name == "b":
                world.server.order_deletion("default", "b", 7)
            await world.quiet()
            assert world.told == ["ADDED a", "ADDED b", "SYNCED"]
            gate.set()
            assert (await patching or {})["status"]["phase"] == "Running"
        # Our own change is no news; somebody else's is.
        await world.until("MODIFIED b")
        assert world.pods["b"]["metadata"]["deletionGracePeriodSeconds"] == 7
        await world.quiet()
        assert world.told == ["ADDED a", "ADDED b", "SYNCED", "MODIFIED b"]


async def test_what_is_heard_before_an_answer_that_is_lost_is_told() -> None:
    async with a_world(a_pod("a")) as world:
        world.server.fail("PATCH", "/pods/a/", 0, after=True)
        with pytest.raises(Unavailable):
            await world.cluster.patch_status(world.pods["a"], RUNNING, PLACED)
        await world.until("MODIFIED a")
        assert world.pods["a"]["status"]["phase"] == "Running"


async def test_an_older_change_that_comes_late_is_left_out() -> None:
    async with a_world(a_pod("a")) as world:
        pod = world.pods["a"]
        world.server.drop_watches()
        world.server.change("pods", "default", "a", labels={"late": "yes"})
        changed = await world.cluster.patch_status(pod, RUNNING, {})
        assert changed is not None
        await world.quiet()
        versions = [int(one.pod["metadata"]["resourceVersion"]) for one in world.events if one.pod]
        assert versions == sorted(versions)
        assert world.pods["a"]["status"]["phase"] == "Running"
        assert world.pods["a"]["metadata"]["labels"] == {"late": "yes"}


async def test_conditions_of_others_stay_and_what_goes_is_taken_away() -> None:
    pod = a_pod("a")
    pod["status"]["conditions"].append({"type": "example.org/gate", "status": "True"})
    pod["status"] |= {"reason": "Old", "message": "gone", "podIPs": [{"ip": "10.0.0.9"}]}
    async with a_world(pod) as world:
        changed = await world.cluster.patch_status(
            world.pods["a"],
            {**RUNNING, "conditions": [pod["status"]["conditions"][1], *RUNNING["conditions"]]},
            {},
        )
        assert changed is not None
        status = changed["status"]
        assert [one["type"] for one in status["conditions"]] == [
            "PodScheduled",
            "example.org/gate",
            "Ready",
        ]
        assert "reason" not in status
        assert "message" not in status
        assert status["podIPs"] == [{"ip": "10.0.0.1"}]


async def test_a_pod_that_is_gone_or_another_has_no_status() -> None:
    async with a_world(a_pod("a"), a_pod("b")) as world:
        world.server.remove("pods", "default", "a")
        assert await world.cluster.patch_status(world.pods["a"], RUNNING, {}) is None
        world.server.remove("pods", "default", "b")
        world.server.put("pods", a_pod("b"))
        assert await world.cluster.annotate(world.pods["b"], PLACED) is None
        assert world.server.pod("b")["status"]["phase"] == "Pending"


@pytest.mark.parametrize("code", [403, 409, 422])
@pytest.mark.parametrize("call", ["patch", "delete"])
async def test_a_refusal_is_no_proof_that_a_pod_is_gone(code: int, call: str) -> None:
    """A conflict with another writer, a right that was taken away, a status that is not liked."""
    if (code, call) == (422, "delete"):
        return
    async with a_world(a_pod("a")) as world:
        pod = world.pods["a"]
        method = call.upper()

        async def act() -> Any:
            if call == "patch":
                return await world.cluster.patch_status(pod, RUNNING, {})
            return await world.cluster.delete(pod)

        world.server.fail(method, "/pods/a", code, status={"message": "no"})
        with pytest.raises(Unavailable, match="refused: no"):
            await act()
        # The same answer for a pod that another one of its name has replaced.
        world.server.remove("pods", "default", "a")
        world.server.put("pods", a_pod("a"))
        world.server.fail(method, "/pods/a", code, status={"message": "no"})
        assert await act() is None


async def test_what_the_api_server_does_not_like_never_fails_a_pod() -> None:
    async with a_world(a_pod("a")) as world:
        pod = world.pods["a"]
        for method, part in (("POST", "/token"), ("GET", "configmaps"), ("PATCH", "status")):
            for code in (400, 405, 422):
                world.server.fail(method, part, code, status={"message": "no"})
        for _ in range(3):
            for call in (
                world.cluster.token(pod, "", 600),
                world.cluster.get("ConfigMap", "default", "x"),
                world.cluster.annotate(pod, PLACED),
            ):
                with pytest.raises(BridgeError) as caught:
                    await call
                assert not caught.value.permanent


# What there is beside statuses.


async def test_whether_a_pod_exists_is_asked_by_uid_past_every_cache() -> None:
    async with a_world(a_pod("a")) as world:
        uid = world.pods["a"]["metadata"]["uid"]
        assert await world.cluster.exists("default", "a", uid)
        assert not await world.cluster.exists("default", "a", "another")
        request = world.server.requests[-1]
        assert request.query["fieldSelector"] == "metadata.name=a,spec.nodeName=n"
        assert "PartialObjectMetadataList" in request.headers["Accept"]
        # Not by what the watch has not said yet.
        world.server.drop_watches()
        del world.server.objects["pods", "default", "a"]
        assert not await world.cluster.exists("default", "a", uid)
        world.server.fail("GET", "pods", 503, times=9)
        with pytest.raises(Unavailable):
            await world.cluster.exists("default", "a", uid)


async def test_a_deletion_is_by_uid_and_at_once() -> None:
    async with a_world(a_pod("a"), a_pod("b")) as world:
        pod = world.pods["a"]
        await world.cluster.delete(pod)
        request = world.server.made("DELETE", "/pods/a")[0]
        assert request.body["gracePeriodSeconds"] == 0
        assert request.body["preconditions"] == {"uid": pod["metadata"]["uid"]}
        await world.until("DELETED a")
        await world.cluster.delete(pod)
        assert not await world.cluster.exists("default", "a", pod["metadata"]["uid"])
        assert len(world.server.made("DELETE", "")) == 1
        assert not world.server.made("GET", "/namespaces/default/pods"), "the answer said enough"
        world.server.remove("pods", "default", "b")
        await world.cluster.delete(world.pods["b"])


async def test_our_own_deletion_is_told_once() -> None:
    """The real API server marks a pod first and removes it then: two changes for one call."""
    async with a_world(a_pod("a")) as world:
        gate = world.server.delay("DELETE", "/pods/a")
        deleting = asyncio.create_task(world.cluster.delete(world.pods["a"]))
        await world.server.until(lambda: ("pods", "default", "a") not in world.server.objects)
        await world.quiet()
        gate.set()
        await deleting
        await world.quiet()
        assert world.told == ["ADDED a", "SYNCED", "DELETED a"]


async def test_a_pod_that_a_finalizer_holds_is_deleted_once() -> None:
    pod = a_pod("a")
    pod["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    async with a_world(pod) as world:
        await world.cluster.delete(world.pods["a"])
        await world.until("MODIFIED a")
        assert world.pods["a"]["metadata"]["deletionGracePeriodSeconds"] == 0
        for _ in range(3):
            await world.cluster.delete(world.pods["a"])
        assert len(world.server.made("DELETE", "")) == 1
        assert await world.cluster.exists("default", "a", world.pods["a"]["metadata"]["uid"])
        world.server.remove("pods", "default", "a")
        await world.until("DELETED a")
        assert not world.cluster._deleting


async def test_the_loop_hears_when_what_a_pod_refers_to_appears() -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]
    pod = a_pod("a", containers=[{"name": "c", "image": "i", "env": env}])
    async with a_world(pod) as world:
        assert await world.cluster.get("ConfigMap", "default", "m") is None
        await world.server.until(lambda: world.server.watches("configmaps"))
        world.server.put("configmaps", {"metadata": {"name": "m", "namespace": "default"}})
        await world.until("SYNCED", "MODIFIED a")
        assert await world.cluster.get("ConfigMap", "default", "m") is not None
        heard: list[str] = []
        world.cluster.on_references = heard.append
        world.server.remove("configmaps", "default", "m")
        await eventually(lambda: heard)
        assert heard == [world.pods["a"]["metadata"]["uid"]]
        # Nothing is kept for a pod that is over.
        await world.cluster.patch_status(world.pods["a"], {"phase": "Succeeded"}, {})
        await world.server.until(lambda: not world.server.watches("configmaps"))


async def test_a_wake_survives_the_answer_to_a_patch() -> None:
    async with a_world(a_pod("a"), follow=False) as world:
        events = world.cluster.watch()
        pod = (await following(events)).pod
        assert (await following(events)).type == "SYNCED"
        world.cluster._references_changed([pod["metadata"]["uid"]])
        changed = await world.cluster.patch_status(pod, RUNNING, {})
        event = await following(events)
        assert event.type == "MODIFIED"
        assert event.pod is changed
        await events.aclose()  # type: ignore[attr-defined]


async def test_tokens_events_and_services_pass_through() -> None:
    async with a_world(a_pod("a")) as world:
        pod = world.pods["a"]
        token = await world.cluster.token(pod, "", 600)
        assert await world.cluster.token(pod, "", 600) == token
        world.server.remove("pods", "default", "a")
        await world.until("DELETED a")
        assert not world.cluster._tokens._tokens
        world.server.fail("POST", "/token", 503)
        with pytest.raises(Unavailable):
            await world.cluster.token(pod, "", 600)
        https = {"clusterIP": "10.0.0.1", "ports": [{"port": 443}]}
        metadata = {"name": "kubernetes", "namespace": "default"}
        world.server.put("services", {"metadata": metadata, "spec": https})
        variables = await world.cluster.service_variables(pod)
        assert ("KUBERNETES_SERVICE_HOST", "10.0.0.1") in variables
        assert await world.cluster.get("Service", "default", "kubernetes") is not None
        await world.cluster.event(pod, "Normal", "Started", "Container started")
        assert await world.cluster.recorder.flush()
        assert world.server.made("POST", "/events")


# The loop, over HTTP.


@asynccontextmanager
async def an_agent(
    server: ApiServer, client: ApiClient, sky: Cloud
) -> AsyncIterator[tuple[ApiCluster, Agent]]:
    async with ApiCluster(client, CLUSTER, "n") as cluster, asyncio.TaskGroup() as tasks:
        provider = Provider(Tracker([Backend(PaperAdapter(sky), {})], clock=time.time))
        agent = Agent(cluster, provider)
        running = [tasks.create_task(provider.run()), tasks.create_task(agent.run())]
        try:
            yield cluster, agent
        finally:
            for task in running:
                task.cancel()


async def test_a_pods_whole_life_takes_few_calls() -> None:
    sky = Cloud(time.time, {("c", 0): (0.3, 0)})
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        async with an_agent(server, client, sky) as (cluster, agent):
            await server.until(lambda: server.watches("pods"))
            server.put("pods", a_pod("a"))
            await server.until(lambda: server.pod("a")["status"]["phase"] == "Succeeded")
            server.order_deletion("default", "a")
            await server.until(lambda: ("pods", "default", "a") not in server.objects)
            await asyncio.wait_for(agent.emptied(), 10)
            assert await cluster.recorder.flush()
        assert sky.launches == ["a"]
        assert not sky.pods
        calls = {call: count for call, count in client.calls.items() if call.resource != "pods"}
        statuses = calls.pop(Call("patch", "pods/status", 200))
        # For the service variables: once for all pods.
        services = [calls.pop(Call(verb, "services", 200)) for verb in ("list", "watch")]
        assert services == [1, 1]
        assert calls == {Call("create", "events", 200): 1}
        # Where the machine is slow the pod is seen before it runs.
        assert 2 <= statuses <= 3
        assert client.calls[Call("delete", "pods", 200)] == 1
        assert client.calls[Call("list", "pods", 200)] == 1


async def test_the_loop_runs_on_while_the_api_server_is_away() -> None:
    sky = Cloud(time.time, {("c", 0): (0.3, 7)})
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        async with an_agent(server, client, sky):
            server.put("pods", a_pod("a"))
            await server.until(lambda: server.pod("a")["status"]["phase"] == "Running")
            await server.stop()
            await eventually(lambda: all(one.ended for one in sky.pods.values()))
            server.compact()
            await server.start()
            await server.until(lambda: server.pod("a")["status"]["phase"] == "Failed")
            state = server.pod("a")["status"]["containerStatuses"][0]["state"]
            assert state["terminated"]["exitCode"] == 7
            # Deleted while nobody heard of it: its work ends all the same.
            server.put("pods", a_pod("b"))
            await server.until(lambda: server.pod("b")["status"]["phase"] == "Running")
            await server.stop()
            server.remove("pods", "default", "b")
            server.compact()
            await server.start()
            await eventually(lambda: "b" not in {one.identity.name for one in sky.pods.values()})
        assert sky.launches == ["a", "b"]


async def test_what_came_before_anybody_knew_the_room_takes_its_room() -> None:
    def sized(name: str) -> dict[str, Any]:
        resources = {"requests": {"cpu": "3"}}
        return a_pod(name, containers=[{"name": "c", "image": "i", "resources": resources}])

    async with a_world(sized("a"), sized("b")) as world:
        assert await world.cluster.refuses(world.pods["a"]) is None
        world.cluster._admission._allocatable = lambda: {"cpu": "4", "pods": "9"}
        lacking = await world.cluster.refuses(world.pods["b"])
        assert lacking is not None
        assert lacking[0] == "OutOfcpu"


async def test_a_resize_for_which_there_was_no_room_is_looked_at_when_a_pod_ends() -> None:
    def sized(name: str, cpu: str, has: str) -> dict[str, Any]:
        resources = {"requests": {"cpu": cpu}}
        pod = a_pod(name, containers=[{"name": "c", "image": "i", "resources": resources}])
        had = {"requests": {"cpu": has}}
        main = {"name": "c", "resources": had, "allocatedResources": had["requests"]}
        pod["status"] = {"phase": "Running", "startTime": "x", "containerStatuses": [main]}
        return pod

    async with a_world(sized("a", "3", "1"), sized("b", "3", "3")) as world:
        world.cluster._admission._allocatable = lambda: {"cpu": "4", "pods": "9"}
        lacking = world.cluster.lacks(world.pods["a"])
        assert lacking is not None
        assert lacking[0] == "Deferred"
        world.cluster._admission._allocatable = lambda: {"cpu": "2", "pods": "9"}
        never = "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"
        assert world.cluster.lacks(world.pods["a"]) == ("Infeasible", never)
        world.cluster._admission._allocatable = lambda: {"cpu": "4", "pods": "9"}
        assert world.cluster.lacks(world.pods["a"]) == lacking
        world.server.remove("pods", "default", "b")
        await world.until("MODIFIED a", "DELETED b")
        assert world.cluster.lacks(world.pods["a"]) is None


async def test_labels_are_asked_for_anew_before_a_pod_is_refused_for_them() -> None:
    mine = a_pod("a", nodeSelector={"zone": "a"})
    node = {"metadata": {"name": "n", "labels": {"zone": "b"}}, "spec": {}}
    known: list[dict[str, Any]] = []
    async with a_world(mine) as world:
        world.cluster._as_node = lambda: known[0] if known else None
        with pytest.raises(Unavailable, match="not heard"):
            await world.cluster.refuses(world.pods["a"])
        known.append(node)
        world.server.put("nodes", node)
        refusal = await world.cluster.refuses(world.pods["a"])
        assert refusal is not None
        assert refusal[0] == "NodeAffinity"
        # The node has the label by now, and its watch has not told.
        world.server.put("nodes", {**node, "metadata": {"name": "n", "labels": {"zone": "a"}}})
        assert await world.cluster.refuses(world.pods["a"]) is None
