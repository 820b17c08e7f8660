"""The pod loop between a store of manifests and a provider on paper, in virtual time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from support import virtual
from support.paper import Cloud, PaperAdapter

from bridge.agent.loop import Agent, ProviderNote
from bridge.errors import Unavailable
from bridge.local.store import Store
from bridge.pods import Manifest
from bridge.pods.defaults import with_defaults
from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.v1 import provider_pb2 as pb

CLUSTER = str(uuid.uuid4())


def a_pod(name: str, **spec: object) -> Manifest:
    pod: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": str(uuid.uuid5(uuid.UUID(CLUSTER), name)),
        },
        "spec": {
            "containers": [{"name": "c", "image": "i", "command": ["true"]}],
            "restartPolicy": "Never",
            **spec,
        },
    }
    return with_defaults(pod)


class Switch:
    """A provider's address: who answers there can be changed, or nobody."""

    def __init__(self) -> None:
        self.provider: Provider | None = None
        self.lives = 0

    def _now(self) -> Provider:
        if self.provider is None:
            raise Unavailable("nobody answers")
        return self.provider

    async def create_pod(self, request: pb.CreatePodRequest) -> pb.CreatePodResponse:
        return await self._now().create_pod(request)

    async def update_pod(self, request: pb.UpdatePodRequest) -> pb.UpdatePodResponse:
        return await self._now().update_pod(request)

    async def delete_pod(self, request: pb.DeletePodRequest) -> pb.DeletePodResponse:
        return await self._now().delete_pod(request)

    async def ack_pods(self, request: pb.AckPodsRequest) -> pb.AckPodsResponse:
        return await self._now().ack_pods(request)

    def watch_node(self, request: pb.WatchNodeRequest) -> AsyncIterator[pb.WatchNodeResponse]:
        return self._now().watch_node(request)

    async def watch_pods(self, request: pb.WatchPodsRequest) -> AsyncIterator[pb.WatchPodsResponse]:
        provider, stream = self._now(), self._now().watch_pods(request)
        while True:
            following = asyncio.ensure_future(anext(stream))
            while not following.done():
                await asyncio.wait([following], timeout=0.5)
                if self.provider is not provider:
                    following.cancel()
                    raise Unavailable("the connection broke")
            yield following.result()

    def get_container_logs(
        self, request: pb.GetContainerLogsRequest
    ) -> AsyncIterator[pb.GetContainerLogsResponse]:
        return self._now().get_container_logs(request)


class World:
    def __init__(self, sky: Cloud) -> None:
        self.sky = sky
        self.address = Switch()
        self.notes: list[ProviderNote] = []
        self.store = Store(CLUSTER, "n")
        self.agent = Agent(self.store, self.address, clock=virtual.clock, note=self.notes.append)
        self._running: asyncio.Task[None] | None = None

    async def start_provider(self, backends: int = 1) -> None:
        names = [f"paper{number}" if number else "paper" for number in range(backends)]
        made = [Backend(PaperAdapter(self.sky, name), {}) for name in names]
        provider = Provider(Tracker(made, clock=virtual.clock))
        self._running = asyncio.create_task(provider.run())
        self.address.provider = provider

    async def kill_provider(self) -> None:
        self.address.provider = None
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def until(self, name: str, met: Callable[[Manifest], bool]) -> Manifest:
        async for change in self.store.changes():
            if change.kind == "Pod" and change.object["metadata"]["name"] == name:
                if met(change.object):
                    return change.object
        raise AssertionError

    async def phase(self, name: str, phase: str) -> Manifest:
        return await self.until(name, lambda pod: pod["status"].get("phase") == phase)


@asynccontextmanager
async def a_world(**script: tuple[float, int]) -> AsyncIterator[World]:
    sky = Cloud(virtual.clock, {(key[0], int(key[1:])): end for key, end in script.items()})
    world = World(sky)
    agent = asyncio.create_task(world.agent.run())
    try:
        yield world
    finally:
        agent.cancel()
        await asyncio.gather(agent, return_exceptions=True)
        await world.kill_provider()


def exit_code(pod: Manifest) -> int:
    code: int = pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
    return code


def reasons(world: World) -> list[str]:
    return [event["reason"] for event in world.store.events]


def test_a_pod_succeeds_with_its_events() -> None:
    async def story() -> None:
        async with a_world(c0=(2, 0)) as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one"))
            await world.phase("one", "Running")
            done = await world.phase("one", "Succeeded")
            assert exit_code(done) == 0
            assert reasons(world) == ["Started"]

    virtual.run(story())


def test_deletion_ends_with_the_final_status_before_the_object_goes() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one"))
            running = await world.phase("one", "Running")
            world.store.order_deletion(running["metadata"]["uid"], 5)
            ended = await world.phase("one", "Failed")
            assert exit_code(ended) == 143
            await world.agent.emptied()
            assert not world.store.pods
            assert not world.sky.pods

    virtual.run(story())


def test_a_provider_that_dies_is_adopted_again_in_one_note() -> None:
    async def story() -> None:
        async with a_world(c0=(100, 0)) as world:
            await world.start_provider()
            for number in range(5):
                world.store.add_pod(a_pod(f"p{number}"))
            for number in range(5):
                await world.phase(f"p{number}", "Running")
            await world.kill_provider()
            await asyncio.sleep(10)
            await world.start_provider()
            for number in range(5):
                await world.phase(f"p{number}", "Succeeded")
            assert [note.what for note in world.notes] == ["lost", "back"]
            assert world.notes[1].adopted == 5
            assert len(world.sky.runs) == 5

    virtual.run(story())


def test_an_exit_while_the_provider_was_away_is_not_lost() -> None:
    async def story() -> None:
        async with a_world(c0=(3, 9)) as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one"))
            await world.phase("one", "Running")
            await world.kill_provider()
            await asyncio.sleep(30)
            await world.start_provider()
            assert exit_code(await world.phase("one", "Failed")) == 9

    virtual.run(story())


def test_pods_wait_while_no_provider_answers() -> None:
    async def story() -> None:
        async with a_world(c0=(1, 0)) as world:
            world.store.add_pod(a_pod("one"))
            await asyncio.sleep(60)
            assert next(iter(world.store.pods.values()))["status"]["phase"] == "Pending"
            await world.start_provider()
            await world.phase("one", "Succeeded")

    virtual.run(story())


def test_work_without_a_pod_is_ended_once_both_sides_were_heard() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one"))
            await world.phase("one", "Running")
            await world.kill_provider()
        sky = world.sky
        async with a_world() as after:
            after.sky = sky
            await after.start_provider()
            await asyncio.sleep(120)
            assert sky.pods, "a run that resumes has not made its pods yet: nothing is an orphan"
        async with a_world() as after:
            after.sky = sky
            after.store.complete = True
            await after.start_provider()
            await asyncio.sleep(1)
            await after.agent.emptied()
            assert not sky.pods

    virtual.run(story())


def test_a_missing_reference_waits_with_the_kubelets_words() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k"}}}]
            containers = [{"name": "c", "image": "i", "command": ["true"], "env": env}]
            world.store.add_pod(a_pod("one", containers=containers))

            def told(pod: Manifest) -> bool:
                states = pod["status"].get("containerStatuses", [])
                return any("waiting" in one["state"] for one in states)

            waiting = (await world.until("one", told))["status"]["containerStatuses"][0]["state"]
            assert waiting["waiting"]["reason"] == "CreateContainerConfigError"
            assert 'configmap "no" not found' in waiting["waiting"]["message"]
            assert not world.sky.launches

    virtual.run(story())


def test_with_several_backends_the_placement_is_recorded_before_the_start() -> None:
    async def story() -> None:
        async with a_world(c0=(1, 0)) as world:
            await world.start_provider(backends=2)
            world.store.add_pod(a_pod("one"))
            done = await world.phase("one", "Succeeded")
            assert done["metadata"]["annotations"]["podbridge.io/placed-on"] == "paper"
            assert world.sky.launches == ["one"]

    virtual.run(story())


def test_a_pod_that_no_backend_can_run_fails_by_name() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one", os={"name": "windows"}))
            failed = await world.phase("one", "Failed")
            assert failed["status"]["reason"] == "Unsupported"
            assert "spec.os.name" in failed["status"]["message"]
            assert reasons(world) == ["Unsupported"]

    virtual.run(story())


def test_a_force_deleted_pod_is_ended_though_its_object_is_gone() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one"))
            running = await world.phase("one", "Running")
            world.store.complete = True
            await world.store.delete(running)
            await world.agent.emptied()
            assert not world.sky.pods

    virtual.run(story())


def test_where_an_author_wants_a_pod_is_not_where_it_was_placed() -> None:
    async def story() -> None:
        async with a_world(c0=(1, 0)) as world:
            await world.start_provider(backends=2)
            pod = a_pod("one")
            pod["metadata"]["annotations"] = {"podbridge.io/backend": "paper1, paper"}
            world.store.add_pod(pod)
            done = await world.phase("one", "Succeeded")
            assert done["metadata"]["annotations"]["podbridge.io/placed-on"] == "paper"

    virtual.run(story())
