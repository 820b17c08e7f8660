"""The provider where things go wrong at the worst moment, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from support import virtual
from support.paper import Cloud, PaperAdapter
from test_provider import CLUSTER, Watcher, a_pod, asked, cloud, runs, serving

from bridge.errors import SandboxFailed, Violation
from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.workload import ContainerState, Identity, Observed, Running, Waiting, Workload


@asynccontextmanager
async def over(
    *adapters: PaperAdapter, clock: Callable[[], float] = virtual.clock
) -> AsyncIterator[tuple[Provider, Watcher]]:
    provider = Provider(Tracker([Backend(one, {}) for one in adapters], clock=clock))
    watcher = Watcher(provider)
    tasks = [asyncio.create_task(provider.run()), asyncio.create_task(watcher.follow())]
    try:
        yield provider, watcher
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def recorded(**more: object) -> pod_pb2.Recorded:
    record = pod_pb2.Recorded(**more)
    record.start_time.FromSeconds(int(virtual.clock()))
    return record


class Late(PaperAdapter):
    """Its first list shows nothing yet."""

    lists = 0

    async def list(self) -> Sequence[Observed]:
        self.lists += 1
        found = await super().list()
        return [] if self.lists == 1 else found


class Picky(PaperAdapter):
    """Would refuse what it runs, if it were asked today."""

    def check(self, workload: Workload) -> Sequence[Violation]:
        return [Violation("spec.containers[0].command[0]", "not on this host")]


class NoImage(PaperAdapter):
    """A backend that never gets the image."""

    async def start(self, workload: Workload, container: str, restart: int) -> None:
        key, waiting = workload.identity.key, Waiting("ErrImagePull", "no such image")
        if self.cloud.pods[key].container(container) is None:
            self.cloud.change(key, ContainerState(container, waiting, restart=restart))


def test_a_pod_without_its_image_goes_as_soon_as_a_look_has_shown_that_it_waits() -> None:
    async def story() -> None:
        backend = Backend(NoImage(cloud()), {})
        provider = Provider(Tracker([backend], clock=virtual.clock))
        watcher = Watcher(provider)
        tasks = [asyncio.create_task(provider.run()), asyncio.create_task(watcher.follow())]
        await provider.create_pod(asked(a_pod()))
        waits = await watcher.until("one", lambda f: bool(f.containers[0].waiting.message))
        await asyncio.sleep(1)
        began = virtual.clock()
        await provider.delete_pod(pb.DeletePodRequest(pod=waits.pod))
        await watcher.ended("one")
        assert virtual.clock() - began < 3
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    virtual.run(story())


def test_a_repeated_create_tells_which_generation_the_provider_has() -> None:
    async def story() -> None:
        async with serving(cloud(c0=(1000, 0))) as (provider, watcher):
            await provider.create_pod(asked(a_pod(), generation=1))
            await watcher.until("one", runs)
            again = await provider.create_pod(asked(a_pod(), generation=2))
            assert again.accepted.generation == 1

    virtual.run(story())


def test_one_list_that_is_behind_loses_no_pod() -> None:
    async def story() -> None:
        sky = cloud(c0=(100, 7))
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            await watcher.until("one", runs)
        async with over(Late(sky)) as (provider, watcher):
            record = recorded(backend="paper", started=True)
            await provider.create_pod(asked(a_pod(), recorded=record))
            facts = await watcher.ended("one")
            assert facts.containers[0].terminated.exit_code == 7
            assert not facts.disrupted

    virtual.run(story())


def test_a_wall_clock_that_steps_back_hides_no_news() -> None:
    async def story() -> None:
        shift = 0.0

        def clock() -> float:
            return virtual.clock() + shift

        sky = Cloud(clock, {("c", 0): (60, 0)})
        async with over(PaperAdapter(sky), clock=clock) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            await watcher.until("one", runs)
            await asyncio.sleep(20)
            shift = -3600.0
            began = virtual.clock()
            await watcher.ended("one")
            assert virtual.clock() - began < 60

    virtual.run(story())


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_wall_clock_that_is_set_neither_shortens_nor_lengthens_a_grace(step: float) -> None:
    async def story() -> None:
        shift = 0.0

        def clock() -> float:
            return virtual.clock() + shift

        sky = Cloud(virtual.clock, dies_after=5)
        pod = a_pod(terminationGracePeriodSeconds=30)
        pod["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 10}}}
        async with over(PaperAdapter(sky), clock=clock) as (provider, watcher):
            await provider.create_pod(asked(pod))
            facts = await watcher.until("one", runs)
            ordered = virtual.clock()
            await provider.delete_pod(pb.DeletePodRequest(pod=facts.pod))
            await asyncio.sleep(5)
            shift = step
            await provider.delete_pod(pb.DeletePodRequest(pod=facts.pod))
            await watcher.ended("one")
            assert [(at - ordered, grace) for at, _, _, grace in sky.kills] == [
                (pytest.approx(10, abs=0.5), pytest.approx(20, abs=0.5)),
            ]

    virtual.run(story())


def _started_now() -> pod_pb2.Recorded:
    record = recorded()
    record.start_time.FromSeconds(int(virtual.clock()))
    return record


@pytest.mark.parametrize("policy", ["Never", "Always"])
def test_a_wall_clock_that_is_set_back_undoes_no_deadline(policy: str) -> None:
    async def story() -> None:
        shift = 0.0

        def clock() -> float:
            return virtual.clock() + shift

        sky = Cloud(clock, dies_after=20)
        pod = a_pod(activeDeadlineSeconds=60, restartPolicy=policy)
        async with over(PaperAdapter(sky), clock=clock) as (provider, watcher):
            await provider.create_pod(asked(pod, recorded=_started_now()))
            await watcher.until("one", lambda facts: facts.failed)
            await asyncio.sleep(5)
            shift = -3600.0
            await asyncio.sleep(300)
            facts = watcher.facts["one"]
            assert (facts.stage, facts.failed) == (pod_pb2.POD_STAGE_ENDED, True)
            assert (facts.reason, len(sky.runs)) == ("DeadlineExceeded", 1)

    virtual.run(story())


def test_a_wall_clock_that_is_set_makes_no_deadline_of_a_deletion() -> None:
    async def story() -> None:
        shift = 0.0

        def clock() -> float:
            return virtual.clock() + shift

        sky = Cloud(clock, dies_after=5)
        async with over(PaperAdapter(sky), clock=clock) as (provider, watcher):
            pod = a_pod(activeDeadlineSeconds=600)
            await provider.create_pod(asked(pod, recorded=_started_now()))
            facts = await watcher.until("one", runs)
            await provider.delete_pod(pb.DeletePodRequest(pod=facts.pod))
            await asyncio.sleep(1)
            shift = 3600.0
            await provider.delete_pod(pb.DeletePodRequest(pod=facts.pod))
            facts = await watcher.ended("one")
            assert (facts.failed, facts.reason) == (False, "")

    virtual.run(story())


def test_a_sidecars_grace_does_not_count_from_an_end_in_the_future() -> None:
    async def story() -> None:
        shift = 0.0

        def clock() -> float:
            return virtual.clock() + shift

        sky = Cloud(virtual.clock, {("c", 0): (10, 0)}, dies_after=5)
        pod = a_pod(terminationGracePeriodSeconds=30)
        sidecar = {"name": "s", "image": "i", "restartPolicy": "Always"}
        pod["spec"]["initContainers"] = [sidecar]
        async with over(PaperAdapter(sky), clock=clock) as (provider, watcher):
            await provider.create_pod(asked(pod))
            await watcher.until("one", lambda facts: len(sky.runs) == 2 and runs(facts))
        await asyncio.sleep(20)
        shift = -3600.0
        async with over(PaperAdapter(sky), clock=clock) as (provider, watcher):
            record = recorded(backend="paper", started=True)
            await provider.create_pod(asked(pod, recorded=record))
            await watcher.ended("one")
        assert [grace for *_, grace in sky.kills] == [pytest.approx(30, abs=1)]

    virtual.run(story())


def test_a_pod_deleted_before_its_start_was_seen_still_tells_its_exit() -> None:
    async def story() -> None:
        sky = cloud()
        sky.silent = True
        async with serving(sky) as (provider, watcher):
            await asyncio.sleep(1)
            request = asked(a_pod())
            await provider.create_pod(request)
            await asyncio.sleep(1)
            assert sky.runs
            order = pb.DeletePodRequest(pod=request.pod, grace_period_seconds=30)
            await provider.delete_pod(order)
            facts = await watcher.ended("one")
            assert facts.containers[0].terminated.exit_code == 143

    virtual.run(story())


def test_the_deadline_counts_while_a_pod_is_queued() -> None:
    async def story() -> None:
        sky = cloud(c0=(500, 0))
        async with serving(sky, pods=1) as (provider, watcher):
            await provider.create_pod(asked(a_pod("first"), recorded=recorded()))
            await watcher.until("first", runs)
            late = a_pod("one", activeDeadlineSeconds=20)
            await provider.create_pod(asked(late, recorded=recorded()))
            facts = await watcher.ended("one")
            assert (facts.failed, facts.reason) == (True, "DeadlineExceeded")
            assert virtual.clock() - virtual.EPOCH < 30
            assert sky.launches == ["first"]

    virtual.run(story())


def test_a_pod_found_twice_leaves_nothing_when_it_is_deleted() -> None:
    async def story() -> None:
        skies = [cloud(), cloud()]
        pod = asked(a_pod()).pod
        for attempt, sky in enumerate(skies):
            who = Identity(CLUSTER, pod.node, pod.namespace, pod.name, pod.uid, attempt)
            state = ContainerState("c", Running(virtual.clock()), container_id="x")
            sky.pods[who.key] = Observed(who, (state,), accepted_at=virtual.clock())
        adapters = [PaperAdapter(sky, f"paper{n}") for n, sky in enumerate(skies)]
        async with over(*adapters) as (provider, watcher):
            await asyncio.sleep(5)
            await provider.delete_pod(pb.DeletePodRequest(pod=pod, grace_period_seconds=1))
            await watcher.ended("one")
            await watcher.ack("one")
            await watcher.until("one", lambda f: f.stage == pod_pb2.POD_STAGE_GONE)
            assert not any(sky.pods for sky in skies)

    virtual.run(story())


def test_what_runs_is_adopted_though_it_would_be_refused_today() -> None:
    async def story() -> None:
        sky = cloud(c0=(50, 7))
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            await watcher.until("one", runs)
        async with over(Picky(sky)) as (provider, watcher):
            await watcher.until("one", runs)
            await provider.create_pod(asked(a_pod(), generation=1))
            facts = await watcher.ended("one")
            assert facts.containers[0].terminated.exit_code == 7
            assert not facts.failed

    virtual.run(story())


def test_a_container_that_is_not_ready_waits_while_the_others_run() -> None:
    async def story() -> None:
        sky = cloud(a0=(5, 0), b0=(5, 0))
        containers = [{"name": name, "image": "i", "command": ["x"]} for name in "ab"]
        pod = a_pod(containers=containers)
        async with serving(sky) as (provider, watcher):
            waiting = pod_pb2.Waiting(reason="CreateContainerConfigError", message="no conf")
            missing = pod_pb2.ContainerEnvironment(container="b", not_ready=waiting)
            await provider.create_pod(asked(pod, environment=[missing]))
            await asyncio.sleep(60)
            states = {one.name: one for one in watcher.facts["one"].containers}
            assert states["a"].terminated.exit_code == 0
            assert states["b"].waiting.message == "no conf"
            await provider.create_pod(asked(pod))
            facts = await watcher.ended("one")
            assert [one.terminated.exit_code for one in facts.containers] == [0, 0]
            assert sorted(sky.runs) == [("one", "a", 0), ("one", "b", 0)]

    virtual.run(story())


class Noting(PaperAdapter):
    """Keeps what it was asked to run."""

    asked: Workload | None = None

    async def run(self, workload: Workload) -> None:
        self.asked = workload
        await super().run(workload)


def test_every_launch_carries_a_stop_that_works_without_us() -> None:
    async def story() -> None:
        for spec, seconds in (({}, 24 * 3600.0), ({"activeDeadlineSeconds": 6}, 6.0)):
            adapter = Noting(cloud(c0=(1, 0)))
            async with over(adapter) as (provider, watcher):
                await provider.create_pod(asked(a_pod(**spec), recorded=recorded()))
                await watcher.ended("one")
                assert adapter.asked is not None
                assert adapter.asked.hard_stop == seconds

    virtual.run(story())


def test_old_news_changes_nothing() -> None:
    async def story() -> None:
        sky = cloud(c0=(5, 3))
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            await watcher.until("one", lambda f: f.containers[0].HasField("running"))
            (key,) = sky.pods
            running = sky.pods[key]
            facts = await watcher.ended("one")
            for queue in sky.listeners:
                queue.put_nowait(running)
            await asyncio.sleep(1)
            assert watcher.facts["one"] == facts
            await watcher.ack("one")
            await provider.delete_pod(pb.DeletePodRequest(pod=facts.pod))
            await watcher.until("one", lambda f: f.stage == pod_pb2.POD_STAGE_GONE)
            await watcher.ack("one")
            told = len(watcher.history["one"])
            for queue in sky.listeners:
                queue.put_nowait(running)
            await asyncio.sleep(40)
            # It is neither back nor lost.
            assert len(watcher.history["one"]) == told

    virtual.run(story())


def test_nothing_is_gone_because_a_list_lacked_it() -> None:
    async def story() -> None:
        sky = cloud()
        async with serving(sky) as (provider, watcher):
            await asyncio.sleep(1)
            pod = asked(a_pod()).pod
            who = Identity(CLUSTER, pod.node, pod.namespace, pod.name, pod.uid, 0)
            state = ContainerState("c", Running(virtual.clock()), container_id="x")
            # It is there, and no list has shown it yet.
            sky.pods[who.key] = Observed(who, (state,), accepted_at=virtual.clock())
            await provider.delete_pod(pb.DeletePodRequest(pod=pod, grace_period_seconds=1))
            await watcher.until("one", lambda f: f.stage == pod_pb2.POD_STAGE_GONE)
            assert not sky.pods

    virtual.run(story())


def test_no_container_runs_longer_than_any_may() -> None:
    async def story() -> None:
        sky = cloud()
        adapter = PaperAdapter(sky)
        provider = Provider(Tracker([Backend(adapter, {})], clock=virtual.clock), max_run=100)
        watcher = Watcher(provider)
        tasks = [asyncio.create_task(provider.run()), asyncio.create_task(watcher.follow())]
        try:
            await provider.create_pod(asked(a_pod()))
            began = virtual.clock()
            await watcher.ended("one")
            assert 100 <= virtual.clock() - began < 140
            assert len(sky.kills) == 1
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    virtual.run(story())


def test_found_pods_are_told_before_the_sync_mark() -> None:
    async def story() -> None:
        sky = cloud()
        for number in range(150):
            uid = f"00000000-0000-0000-0000-{number:012}"
            who = Identity(CLUSTER, "n", "default", f"pod-{number}", uid)
            state = ContainerState("c", Running(virtual.clock()), container_id="x")
            sky.pods[who.key] = Observed(who, (state,), accepted_at=virtual.clock())
        provider = Provider(Tracker([Backend(PaperAdapter(sky), {})], clock=virtual.clock))
        running = asyncio.create_task(provider.run())
        told = 0
        request = pb.WatchPodsRequest(cluster=CLUSTER, node="n")
        async for message in provider.watch_pods(request):
            kinds = [event.WhichOneof("event") for event in message.events]
            if "synced" in kinds:
                told += kinds[: kinds.index("synced")].count("pod")
                break
            told += kinds.count("pod")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert told == 150

    virtual.run(story())


class Nonsense(PaperAdapter):
    """It breaks over what it is answered, for a while."""

    lists = 0

    async def list(self) -> Sequence[Observed]:
        self.lists += 1
        if self.lists < 4:
            raise KeyError("Id")
        return await super().list()

    async def events(self) -> AsyncIterator[Observed]:
        if self.lists < 5:
            raise AttributeError("get")
        async for one in super().events():
            yield one


def test_a_backend_that_breaks_ends_no_other_and_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        good, bad = PaperAdapter(cloud()), Nonsense(Cloud(virtual.clock))
        good.name, bad.name = "good", "bad"
        async with over(good, bad) as (provider, _):
            await asyncio.sleep(0.1)
            offer = {one.name: one for one in provider.offer().backends}
            assert offer["good"].ready
            assert not offer["bad"].ready
            assert offer["bad"].message.startswith("it answers what cannot be understood")
            await asyncio.sleep(60)
            assert all(one.ready for one in provider.offer().backends)
            assert "backend bad: it answers again" in caplog.messages

    virtual.run(story())


def test_a_sandbox_that_fails_again_and_again_is_told_again() -> None:
    async def story() -> None:
        sky = cloud(c0=(1, 0))
        sky.faults["run"] = [SandboxFailed("no such runtime") for _ in range(12)]
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            facts = await watcher.until("one", lambda facts: len(facts.notices) > 2)
            assert facts.stage == pod_pb2.POD_STAGE_WAITING
            assert facts.reason == "FailedCreatePodSandBox"
            assert {(one.reason, one.message, one.warning) for one in facts.notices} == {
                (facts.reason, "Failed to create pod sandbox: no such runtime", True)
            }
            # A backend that makes it in the end runs it.
            await watcher.ended("one")

    virtual.run(story())
