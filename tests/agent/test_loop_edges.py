"""The pod loop where things go wrong at the worst moment, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import virtual
from support.paper import Cloud, PaperAdapter
from test_loop import World, a_pod, a_world, exit_code

from bridge.agent.loop import Agent
from bridge.local.outcome import Outcome
from bridge.local.runs import Runs
from bridge.local.session import Session
from bridge.pods import Manifest
from bridge.pods.defaults import with_defaults
from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.workload import Identity, Observed, Workload

KEY = ("ConfigMap", "default", "conf")
CONFIG = {"kind": "ConfigMap", "metadata": {"name": "conf", "namespace": "default"}}
CONFIG["data"] = {"k": "v"}
ENV = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "k"}}}]
CONTAINERS = [{"name": "c", "image": "i", "command": ["true"], "env": ENV}]


def now(world: World, pod: Manifest) -> Manifest:
    return world.store.pods[pod["metadata"]["uid"]]


def changed(world: World, pod: Manifest, **spec: object) -> None:
    """The pod's author changes it."""
    current = now(world, pod)
    metadata = {**current["metadata"], "generation": current["metadata"]["generation"] + 1}
    world.store._replace({**current, "metadata": metadata, "spec": {**current["spec"], **spec}})


def test_what_runs_needs_its_config_map_no_more() -> None:
    async def story() -> None:
        async with a_world(c0=(100, 0)) as world:
            world.store._references[KEY] = CONFIG
            await world.start_provider()
            pod = a_pod("one", containers=CONTAINERS)
            world.store.add_pod(pod)
            await world.phase("one", "Running")
            world.store._references.clear()
            changed(world, pod, activeDeadlineSeconds=5000)
            await asyncio.sleep(20)
            assert now(world, pod)["status"]["phase"] == "Running"
            await world.kill_provider()
            await asyncio.sleep(10)
            await world.start_provider()
            await asyncio.sleep(20)
            assert now(world, pod)["status"]["phase"] == "Running"
            assert exit_code(await world.phase("one", "Succeeded")) == 0

    virtual.run(story())


def test_a_deadline_is_brought_though_a_config_map_has_gone() -> None:
    async def story() -> None:
        async with a_world(c0=(100, 0)) as world:
            world.store._references[KEY] = CONFIG
            await world.start_provider()
            pod = a_pod("one", containers=CONTAINERS)
            world.store.add_pod(pod)
            await world.phase("one", "Running")
            world.store._references.clear()
            changed(world, pod, activeDeadlineSeconds=20)
            failed = await world.phase("one", "Failed")
            assert failed["status"]["reason"] == "DeadlineExceeded"
            assert failed["status"]["observedGeneration"] == 2

    virtual.run(story())


def test_a_volume_whose_config_map_has_gone_stays_as_it_is_and_holds_back_nothing_else() -> None:
    async def story() -> None:
        async with a_world(c0=(100, 0)) as world:
            world.store._references[KEY] = CONFIG
            await world.start_provider()
            sent: list[pb.UpdatePodRequest] = []
            inner = world.address.update_pod

            async def update(request: pb.UpdatePodRequest) -> pb.UpdatePodResponse:
                sent.append(request)
                return await inner(request)

            world.address.update_pod = update
            pod = a_pod("one", volumes=[{"name": "v", "configMap": {"name": "conf"}}])
            world.store.add_pod(pod)
            await world.phase("one", "Running")
            world.store._references.clear()
            changed(world, pod, activeDeadlineSeconds=60)
            await asyncio.sleep(25)
            words = 'MountVolume.SetUp failed for volume "v" : configmap "conf" not found'
            told = [one for one in world.store.events if one["reason"] == "FailedMount"]
            assert [one["message"] for one in told] == [words]
            assert len(sent) > 1
            assert not sent[-1].volumes[0].revision
            assert not any(one.HasField("not_ready") for one in sent[-1].environment)
            # Looked at again, though nobody told that it is back.
            world.store._references[KEY] = CONFIG
            await asyncio.sleep(15)
            assert sent[-1].volumes[0].revision
            count = len(sent)
            failed = await world.phase("one", "Failed")
            assert failed["status"]["reason"] == "DeadlineExceeded"
            assert failed["status"]["observedGeneration"] == 2
            assert len(sent) == count

    virtual.run(story())


@pytest.mark.parametrize("edited", ["paper1", "nowhere"])
def test_an_edited_record_of_the_backend_is_written_anew(edited: str) -> None:
    async def story() -> None:
        async with a_world(c0=(300, 3)) as world:
            await world.start_provider(backends=2)
            pod = a_pod("one")
            world.store.add_pod(pod)
            await world.phase("one", "Running")

            def says(backend: str | None = None) -> str:
                current = now(world, pod)
                annotations = dict(current["metadata"]["annotations"])
                if backend is not None:
                    annotations["podbridge.io/placed-on"] = backend
                    metadata = {**current["metadata"], "annotations": annotations}
                    world.store._replace({**current, "metadata": metadata})
                return str(annotations["podbridge.io/placed-on"])

            placed = says()
            says(edited)
            await asyncio.sleep(1)
            assert says() == placed
            await world.kill_provider()
            says(edited)
            await asyncio.sleep(1)
            await world.start_provider(backends=2)
            assert exit_code(await world.phase("one", "Failed")) == 3
            assert says() == placed
            assert world.sky.launches == ["one"]

    virtual.run(story())


def test_no_run_begins_with_a_config_map_that_has_gone() -> None:
    async def story() -> None:
        async with a_world(c0=(50, 1), c1=(5, 0)) as world:
            world.store._references[KEY] = CONFIG
            await world.start_provider()
            pod = a_pod("one", containers=CONTAINERS, restartPolicy="OnFailure")
            world.store.add_pod(pod)
            await world.phase("one", "Running")
            world.store._references.clear()
            world.agent.refers_to_news(pod["metadata"]["uid"])
            await asyncio.sleep(100)
            assert [restart for _, _, restart in world.sky.runs] == [0]
            world.store._references[KEY] = CONFIG
            world.agent.refers_to_news(pod["metadata"]["uid"])
            await world.phase("one", "Succeeded")
            assert [restart for _, _, restart in world.sky.runs] == [0, 1]

    virtual.run(story())


def test_a_config_map_that_comes_later_lets_the_pod_start() -> None:
    async def story() -> None:
        async with a_world(c0=(1, 0)) as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one", containers=CONTAINERS))
            await asyncio.sleep(30)
            assert not world.sky.launches
            world.store._references[KEY] = CONFIG
            await world.phase("one", "Succeeded")

    virtual.run(story())


def test_the_deadline_counts_while_a_config_map_is_missing() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one", activeDeadlineSeconds=20, containers=CONTAINERS))
            failed = await world.phase("one", "Failed")
            assert failed["status"]["reason"] == "DeadlineExceeded"
            assert virtual.clock() - virtual.EPOCH < 30

    virtual.run(story())


def test_a_change_made_while_the_agent_was_away_is_applied() -> None:
    async def story() -> None:
        async with a_world(c0=(1000, 0)) as world:
            await world.start_provider()
            pod = a_pod("one")
            world.store.add_pod(pod)
            await world.phase("one", "Running")
            changed(world, pod, activeDeadlineSeconds=50)
            after = Agent(world.store, world.address, clock=virtual.clock)
            following = asyncio.create_task(after.run())
            failed = await world.phase("one", "Failed")
            assert failed["status"]["reason"] == "DeadlineExceeded"
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    virtual.run(story())


class Slow(PaperAdapter):
    """Takes its time to list."""

    delay = 0.0

    async def list(self) -> Sequence[Observed]:
        await asyncio.sleep(self.delay)
        return await super().list()


def test_a_pod_is_not_placed_anew_before_every_backend_was_heard() -> None:
    async def story() -> None:
        skies = [Cloud(virtual.clock), Cloud(virtual.clock)]

        async def life(first_holds: int, second_lists_in: float, seconds: float) -> None:
            world = World(skies[0])
            second = Slow(skies[1], "paper1")
            second.delay = second_lists_in
            first = Backend(PaperAdapter(skies[0]), {"pods": first_holds})
            provider = Provider(Tracker([first, Backend(second, {})], clock=virtual.clock))
            world.address.provider = provider
            tasks = [
                asyncio.create_task(provider.run()),
                asyncio.create_task(world.agent.run()),
            ]
            world.store.add_pod(a_pod("zero"))
            await asyncio.sleep(3)
            world.store.add_pod(a_pod("one"))
            await asyncio.sleep(seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        await life(first_holds=1, second_lists_in=0, seconds=10)
        assert [sky.launches for sky in skies] == [["zero"], ["one"]]
        await life(first_holds=5, second_lists_in=8, seconds=60)
        assert [sky.launches for sky in skies] == [["zero"], ["one"]]

    virtual.run(story())


class ByIndex(PaperAdapter):
    """Index 0 succeeds after 5 s; 1 stops soon after its signal, 2 takes 20 s."""

    async def start(self, workload: Workload, container: str, restart: int) -> None:
        succeeds = workload.hostname.endswith("-0")
        self.cloud.script = {("c", 0): (5, 0)} if succeeds else {}
        await super().start(workload, container, restart)

    async def kill(self, identity: Identity, container: str, grace: float) -> None:
        seconds = 20 if identity.name.startswith("j-2") else 0.1
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, self.cloud.end, identity.key, container, 0, 143, 15)


def test_a_job_that_met_its_goal_stays_complete_over_a_crash(tmp_path: Path) -> None:
    spec = {
        "completions": 3,
        "parallelism": 3,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i", "command": ["x"]}],
            }
        },
    }
    metadata = {"name": "j", "namespace": "default"}
    job = with_defaults(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}
    )

    async def story() -> None:
        sky = Cloud(virtual.clock)
        Runs(tmp_path).create("r", [job], {}, virtual.clock())

        async def life(seconds: float) -> Outcome | None:
            provider = Provider(Tracker([Backend(ByIndex(sky), {})], clock=virtual.clock))
            session = Session(Runs(tmp_path).get("r"), provider, clock=virtual.clock)
            running = asyncio.create_task(provider.run())
            attending = asyncio.create_task(session.attend())
            await asyncio.wait([attending], timeout=seconds)
            result = attending.result() if attending.done() else None
            running.cancel()
            attending.cancel()
            await asyncio.gather(running, attending, return_exceptions=True)
            return result

        assert await life(10) is None
        outcome = await life(500)
        assert outcome is not None
        assert outcome.code == 0

    virtual.run(story())


class Liar:
    """A provider that tells of pods that are none of ours."""

    def __init__(self, *pods: pod_pb2.PodIdentity) -> None:
        self.pods = pods
        self.deleted: list[str] = []

    async def watch_pods(self, request: pb.WatchPodsRequest):
        events = [pb.WatchPodsEvent(revision=0, snapshot_started=pb.SnapshotStarted())]
        for number, pod in enumerate(self.pods, 1):
            facts = pod_pb2.PodFacts(pod=pod, stage=pod_pb2.POD_STAGE_ACTIVE)
            events.append(pb.WatchPodsEvent(revision=number, pod=facts))
        yield pb.WatchPodsResponse(epoch="e", events=events)
        await asyncio.sleep(3600)

    async def delete_pod(self, request: pb.DeletePodRequest) -> pb.DeletePodResponse:
        self.deleted.append(request.pod.uid)
        return pb.DeletePodResponse()

    async def ack_pods(self, request: pb.AckPodsRequest) -> pb.AckPodsResponse:
        return pb.AckPodsResponse()


def test_pods_of_another_cluster_or_node_are_none_of_our_business() -> None:
    async def story() -> None:
        world = World(Cloud(virtual.clock))
        world.store.complete = True
        liar = Liar(
            pod_pb2.PodIdentity(cluster="other", node="n", namespace="d", name="a", uid="u1"),
            pod_pb2.PodIdentity(
                cluster=world.store.id, node="m", namespace="d", name="b", uid="u2"
            ),
            pod_pb2.PodIdentity(
                cluster=world.store.id, node="n", namespace="d", name="c", uid="u3"
            ),
        )
        agent = asyncio.create_task(Agent(world.store, liar, clock=virtual.clock).run())
        await asyncio.sleep(30)
        agent.cancel()
        await asyncio.gather(agent, return_exceptions=True)
        assert liar.deleted == ["u3"]

    virtual.run(story())
