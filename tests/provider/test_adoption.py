"""A provider that starts anew finds pods that run: what is asked of them then, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from support import virtual
from support.paper import Cloud, PaperAdapter
from test_provider import Watcher, a_pod, asked, cloud, runs

from bridge.errors import BridgeError, NotFound, Unavailable
from bridge.pods import Manifest
from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.workload import Container, Files, Identity, Notice, Observed, Workload

MIB = 1 << 20
RECORDED = pod_pb2.Recorded(backend="paper", started=True)


class Spy(PaperAdapter):
    """Remembers what it was given."""

    def __init__(self, sky: Cloud) -> None:
        super().__init__(sky)
        self.given: list[Workload] = []
        self.files: list[bytes] = []
        self.resized: list[str] = []
        self.errors: list[BridgeError] = []
        """Of the next calls that change files."""

    async def run(self, workload: Workload) -> None:
        self.given.append(workload)
        await super().run(workload)

    async def start(self, workload: Workload, container: str, restart: int) -> None:
        self.given.append(workload)
        await super().start(workload, container, restart)

    async def update_files(self, identity: Identity, volumes: Sequence[Files]) -> None:
        if identity.key not in self.cloud.pods:
            raise NotFound("no such pod")
        if self.errors:
            raise self.errors.pop(0)
        self.files += [file.content for one in volumes for file in one.files]

    async def resize(self, _: Identity, container: Container) -> None:
        self.resized.append(container.name)


@asynccontextmanager
async def life(
    sky: Cloud, max_run: float = 3600.0, *, settled: bool = True, **limits: int
) -> AsyncIterator[tuple[Provider, Watcher, Spy, Backend]]:
    """One process of a provider; the cloud outlives it."""
    spy = Spy(sky)
    backend = Backend(spy, limits)
    provider = Provider(Tracker([backend], clock=virtual.clock), max_run=max_run)
    watcher = Watcher(provider)
    tasks = [asyncio.create_task(provider.run()), asyncio.create_task(watcher.follow())]
    try:
        if settled:
            await provider.settled()
        yield provider, watcher, spy, backend
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sized(memory: str) -> Manifest:
    pod = a_pod()
    pod["spec"]["containers"][0]["resources"] = {"requests": {"memory": memory}}
    return pod


def with_file(content: bytes, **more: object) -> pb.CreatePodRequest:
    pod = a_pod()
    pod["spec"]["volumes"] = [{"name": "v", "configMap": {"name": "m"}}]
    volume = pod_pb2.VolumeContent(
        volume="v", revision=content.decode(), files=[pod_pb2.File(path="k", content=content)]
    )
    return asked(pod, generation=1, volumes=[volume], **more)


def test_a_running_pod_is_adopted_though_the_limits_have_shrunk() -> None:
    async def story() -> None:
        sky = cloud(c0=(30, 7))
        async with life(sky, memory=1000 * MIB) as (provider, watcher, _, _):
            await provider.create_pod(asked(sized("500Mi")))
            await watcher.until("one", runs)
        async with life(sky, memory=400 * MIB) as (provider, watcher, _, backend):
            answer = await provider.create_pod(asked(sized("500Mi"), recorded=RECORDED))
            assert answer.accepted.backend == "paper"
            assert (await watcher.ended("one")).containers[0].terminated.exit_code == 7
            assert backend.used["memory"] == 0

    virtual.run(story())


def test_contents_that_changed_while_nobody_looked_are_put_in_force() -> None:
    async def story() -> None:
        sky = cloud(c0=(1000, 0))
        async with life(sky) as (provider, watcher, spy, _):
            await provider.create_pod(with_file(b"old"))
            await watcher.until("one", runs)
            assert spy.files == []
        async with life(sky) as (provider, _, spy, _):
            await provider.create_pod(with_file(b"new", recorded=RECORDED))
            await provider.settled()
            assert spy.files == [b"new"]
            # Another caller, who was away, and one who says the same again.
            for _ in range(2):
                await provider.create_pod(with_file(b"newest", recorded=RECORDED))
            assert spy.files == [b"new", b"newest"]

    virtual.run(story())


def test_what_befell_a_pod_is_told_by_one_provider_only() -> None:
    async def story() -> None:
        sky = cloud(c0=(1000, 0))

        def befalls(words: str) -> None:
            (key,) = sky.pods
            more = Notice(virtual.clock(), "Unhealthy", words, "c", warning=True)
            sky.pods[key] = replace(sky.pods[key], notices=(*sky.pods[key].notices, more))
            sky.tell(key)

        async with life(sky) as (provider, watcher, _, _):
            await provider.create_pod(asked(a_pod()))
            await watcher.until("one", runs)
            befalls("first")
            (told,) = (await watcher.until("one", lambda facts: bool(facts.notices))).notices
            assert (told.reason, told.message, told.container) == ("Unhealthy", "first", "c")
            assert told.warning
        await asyncio.sleep(1)
        async with life(sky) as (_, watcher, _, _):
            assert not (await watcher.until("one", runs)).notices
            await asyncio.sleep(1)
            befalls("second")
            facts = await watcher.until("one", lambda facts: bool(facts.notices))
            assert [one.message for one in facts.notices] == ["second"]

    virtual.run(story())


def test_a_repeated_creation_of_another_generation_changes_nothing() -> None:
    """Also while a container waits for what it refers to; and the limits stay counted."""

    async def story() -> None:
        missing = pod_pb2.ContainerEnvironment(container="b")
        missing.not_ready.reason = "CreateContainerConfigError"
        environment = [pod_pb2.ContainerEnvironment(container="c"), missing]
        small, large = sized("100Mi"), sized("500Mi")
        for pod in (small, large):
            pod["spec"]["containers"].append({"name": "b", "image": "i", "command": ["true"]})
        async with life(cloud(), memory=1000 * MIB) as (provider, watcher, _, backend):
            await provider.create_pod(asked(small, generation=1, environment=environment))
            await watcher.until("one", runs)
            again = await provider.create_pod(asked(large, generation=2, environment=environment))
            assert again.accepted.generation == 1
            assert backend.used["memory"] == 100 * MIB
            who = watcher.facts["one"].pod
            await provider.delete_pod(pb.DeletePodRequest(pod=who, grace_period_seconds=0))
            await watcher.ended("one")
            assert backend.used["memory"] == 0

    virtual.run(story())


@pytest.mark.parametrize("late", [False, True])
def test_each_start_has_the_hard_stop_and_the_pull_credentials(late: bool) -> None:
    async def story() -> None:
        source = {"late": pod_pb2.LATE_REFERENCE_POD_IP} if late else {"literal": "x"}
        variable = pod_pb2.EnvVar(name="IP", **source)
        environment = [pod_pb2.ContainerEnvironment(container="c", variables=[variable])]
        login = pod_pb2.ImagePullCredential(registry="r", username="u", password="p")
        pod = a_pod(restartPolicy="Always")
        async with life(cloud(c0=(5, 3)), max_run=60.0) as (provider, watcher, spy, _):
            request = asked(pod, generation=1, environment=environment, pull_credentials=[login])
            await provider.create_pod(request)
            await watcher.until("one", runs)
            pod["spec"]["containers"][0]["image"] = "j"
            update = asked(pod)
            await provider.update_pod(
                pb.UpdatePodRequest(
                    pod=update.pod, manifest=update.manifest, generation=2, environment=environment
                )
            )
            await asyncio.sleep(60)
            assert len(spy.given) >= 3, "launched, started, started again"
            assert {one.hard_stop for one in spy.given} == {60.0}
            assert {len(one.pull_credentials) for one in spy.given} == {1}

    virtual.run(story())


def test_a_later_attempt_takes_the_place_of_a_launch_that_never_began() -> None:
    async def story() -> None:
        async with life(cloud(), pods=1) as (provider, watcher, spy, _):
            await provider.create_pod(asked(a_pod("other")))
            await watcher.until("other", runs)
            queued = asked(a_pod())
            await provider.create_pod(queued)
            await watcher.until("one", lambda f: f.reason == "Queued")
            queued.pod.attempt = 1
            again = await provider.create_pod(queued)
            assert again.accepted.attempt == 1
            who = watcher.facts["other"].pod
            await provider.delete_pod(pb.DeletePodRequest(pod=who, grace_period_seconds=0))
            await watcher.until("one", runs)
            assert [one.identity.attempt for one in spy.given if one.identity.name == "one"] == [
                1,
                1,
            ]

    virtual.run(story())


def test_contents_are_put_in_force_though_the_backend_is_listed_late_or_is_busy() -> None:
    async def story() -> None:
        sky = cloud(c0=(1000, 0))
        async with life(sky) as (provider, watcher, _, _):
            await provider.create_pod(with_file(b"old"))
            await watcher.until("one", runs)
        sky.list_takes = 5
        async with life(sky, settled=False) as (provider, watcher, spy, _):
            spy.errors = [Unavailable("busy"), Unavailable("still busy")]
            await provider.create_pod(with_file(b"new", recorded=RECORDED))
            await watcher.until("one", runs)
            await asyncio.sleep(60)
            assert spy.files == [b"new"]

    virtual.run(story())


def test_what_may_run_already_is_not_refused_before_its_backend_is_listed() -> None:
    async def story() -> None:
        sky = cloud(c0=(1000, 0))
        async with life(sky, memory=1000 * MIB) as (provider, watcher, _, _):
            await provider.create_pod(asked(sized("500Mi")))
            await watcher.until("one", runs)
        sky.list_takes = 5
        async with life(sky, settled=False, memory=400 * MIB) as (provider, watcher, _, _):
            # That it runs never reached Kubernetes.
            again = asked(sized("500Mi"), recorded=pod_pb2.Recorded(backend="paper"))
            with pytest.raises(Unavailable, match="to be listed"):
                await provider.create_pod(again)
            await provider.settled()
            assert (await provider.create_pod(again)).accepted.backend == "paper"

    virtual.run(story())


def test_a_size_that_needs_a_restart_is_not_forced_on_what_was_found() -> None:
    async def story() -> None:
        sky = cloud(c0=(1000, 0))
        pod = sized("100Mi")
        policy = {"resourceName": "memory", "restartPolicy": "RestartContainer"}
        pod["spec"]["containers"][0]["resizePolicy"] = [policy]
        for _ in range(2):
            async with life(sky) as (provider, watcher, spy, _):
                await provider.create_pod(asked(pod, generation=1))
                await watcher.until("one", runs)
                await asyncio.sleep(60)
                assert spy.resized == []

    virtual.run(story())


def _waits(ready: bool) -> list[pod_pb2.ContainerEnvironment]:
    one = pod_pb2.ContainerEnvironment(container="c")
    if not ready:
        one.not_ready.reason = "CreateContainerConfigError"
    return [one]


def test_a_pod_starts_once_the_volume_that_it_waits_for_is_there() -> None:
    async def story() -> None:
        async with life(cloud()) as (provider, watcher, spy, _):
            first = with_file(b"x", environment=_waits(ready=False))
            del first.volumes[0].files[:]
            await provider.create_pod(first)
            await asyncio.sleep(20)
            assert spy.given == []
            await provider.create_pod(with_file(b"x", environment=_waits(ready=True)))
            await watcher.until("one", runs)
            (volume,) = spy.given[0].volumes
            assert isinstance(volume, Files)
            assert [one.content for one in volume.files] == [b"x"]

    virtual.run(story())


def test_a_pod_that_is_changed_while_it_waits_starts() -> None:
    async def story() -> None:
        async with life(cloud()) as (provider, watcher, _, _):
            await provider.create_pod(asked(a_pod(), generation=1, environment=_waits(ready=False)))
            pod = a_pod()
            pod["spec"]["containers"][0]["image"] = "j"
            newer = asked(pod, generation=2, environment=_waits(ready=True))
            assert (await provider.create_pod(newer)).accepted.generation == 1
            await provider.update_pod(
                pb.UpdatePodRequest(
                    pod=newer.pod,
                    manifest=newer.manifest,
                    generation=2,
                    environment=newer.environment,
                )
            )
            await watcher.until("one", runs)

    virtual.run(story())


def test_a_launch_that_did_not_come_to_its_end_is_made_again_and_deleted_whole() -> None:
    async def story() -> None:
        request = asked(a_pod())
        who = request.pod
        half = Observed(Identity(who.cluster, who.node, who.namespace, who.name, who.uid))
        sky = cloud()
        sky.pods[half.identity.key] = half
        async with life(sky) as (provider, watcher, spy, _):
            await provider.create_pod(request)
            await watcher.until("one", runs)
            assert [one.identity.uid for one in spy.given] == [who.uid, who.uid]
        sky.pods[half.identity.key] = half
        async with life(sky) as (provider, watcher, spy, _):
            await provider.delete_pod(pb.DeletePodRequest(pod=who))
            await watcher.ended("one")
            await watcher.ack("one")
            await provider.settled()
            assert spy.given == []
            assert not sky.pods

    virtual.run(story())
