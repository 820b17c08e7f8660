"""The provider as its callers see it, on a paper backend, in virtual time."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from support import virtual
from support.paper import Cloud, PaperAdapter

from bridge.errors import Ambiguous, Invalid, NotFound, Throttled, Unavailable, Unsupported
from bridge.pods import Manifest
from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb

CLUSTER = str(uuid.uuid4())


def a_pod(name: str = "one", **spec: object) -> Manifest:
    uid = str(uuid.uuid5(uuid.UUID(CLUSTER), name))
    containers = [{"name": "c", "image": "i", "command": ["true"]}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid},
        "spec": {"containers": containers, "restartPolicy": "Never", **spec},
    }


def asked(pod: Manifest, **more: object) -> pb.CreatePodRequest:
    metadata = pod["metadata"]
    who = pod_pb2.PodIdentity(
        cluster=CLUSTER, node="n", namespace="default", name=metadata["name"], uid=metadata["uid"]
    )
    return pb.CreatePodRequest(pod=who, manifest=json.dumps(pod).encode(), **more)


def runs(facts: pod_pb2.PodFacts) -> bool:
    return any(one.HasField("running") for one in facts.containers)


class Watcher:
    """Follows WatchPods; `until` waits for a pod's facts."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.facts: dict[str, pod_pb2.PodFacts] = {}
        self.history: dict[str, list[pod_pb2.PodFacts]] = {}
        self.revisions: dict[str, int] = {}
        self.epoch = ""
        self.synced: set[str] = set()
        self._changed = asyncio.Event()

    async def follow(self) -> None:
        request = pb.WatchPodsRequest(cluster=CLUSTER, node="n")
        async for message in self._provider.watch_pods(request):
            self.epoch = message.epoch
            for event in message.events:
                if event.WhichOneof("event") == "pod":
                    name = event.pod.pod.name
                    self.facts[name] = event.pod
                    self.history.setdefault(name, []).append(event.pod)
                    self.revisions[name] = event.revision
                elif event.WhichOneof("event") == "synced":
                    self.synced.add(event.synced.backend)
            self._changed.set()

    async def until(self, name: str, met: Callable[[pod_pb2.PodFacts], bool]) -> pod_pb2.PodFacts:
        while name not in self.facts or not met(self.facts[name]):
            self._changed.clear()
            await self._changed.wait()
        return self.facts[name]

    async def ended(self, name: str) -> pod_pb2.PodFacts:
        return await self.until(name, lambda f: f.stage >= pod_pb2.POD_STAGE_ENDED)

    async def ack(self, name: str) -> None:
        ack = pb.PodAck(uid=self.facts[name].pod.uid, revision=self.revisions[name])
        await self._provider.ack_pods(
            pb.AckPodsRequest(cluster=CLUSTER, epoch=self.epoch, pods=[ack])
        )


@asynccontextmanager
async def serving(cloud: Cloud, **limits: int) -> AsyncIterator[tuple[Provider, Watcher]]:
    backend = Backend(PaperAdapter(cloud), limits)
    provider = Provider(Tracker([backend], clock=virtual.clock))
    watcher = Watcher(provider)
    tasks = [asyncio.create_task(provider.run()), asyncio.create_task(watcher.follow())]
    try:
        yield provider, watcher
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def cloud(**script: tuple[float, int]) -> Cloud:
    runs = {(key.rstrip("0123456789"), int(key[-1])): end for key, end in script.items()}
    return Cloud(virtual.clock, runs)


def test_a_pod_runs_ends_is_acknowledged_and_deleted() -> None:
    async def story() -> None:
        sky = cloud(c0=(5, 3))
        async with serving(sky) as (provider, watcher):
            answer = await provider.create_pod(asked(a_pod()))
            assert answer.accepted.backend == "paper"
            facts = await watcher.ended("one")
            assert facts.containers[0].terminated.exit_code == 3
            assert facts.stage == pod_pb2.POD_STAGE_ENDED
            await watcher.ack("one")
            await provider.delete_pod(pb.DeletePodRequest(pod=facts.pod))
            gone = await watcher.until("one", lambda f: f.stage == pod_pb2.POD_STAGE_GONE)
            assert gone.containers[0].terminated.exit_code == 3
            assert not sky.pods

    virtual.run(story())


def test_an_acknowledged_end_lets_go_of_the_sandbox_and_is_told_unchanged() -> None:
    async def story() -> None:
        sky = cloud(c0=(5, 3))
        sky.faults = {"stop_sandbox": [Unavailable("away")]}
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            facts = await watcher.ended("one")
            await asyncio.sleep(60)
            (before,) = sky.pods.values()
            assert before.pod_ips, "not before the end is safe"
            await watcher.ack("one")
            await asyncio.sleep(60)
            assert not sky.pods[before.identity.key].pod_ips
            assert watcher.facts["one"] == facts
            assert list(facts.pod_ips) == ["10.0.0.1"]

    virtual.run(story())


def test_a_repeated_create_starts_nothing_again() -> None:
    async def story() -> None:
        sky = cloud(c0=(5, 0))
        async with serving(sky) as (provider, watcher):
            for _ in range(3):
                await provider.create_pod(asked(a_pod()))
            await watcher.ended("one")
            await provider.create_pod(asked(a_pod()))
            await asyncio.sleep(60)
            assert sky.runs == [("one", "c", 0)]

    virtual.run(story())


def test_a_lost_answer_is_looked_after_not_repeated() -> None:
    async def story() -> None:
        sky = cloud(c0=(5, 0))
        sky.faults = {"run!": [Ambiguous("lost")], "start!": [Ambiguous("lost")]}
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            await watcher.ended("one")
            assert sky.launches == ["one"]
            assert sky.runs == [("one", "c", 0)]

    virtual.run(story())


def test_throttles_and_outages_leave_the_pod_waiting_with_the_reason() -> None:
    async def story() -> None:
        sky = cloud(c0=(1, 0))
        sky.faults = {"run": [Throttled("slow down", retry_after=7), Unavailable("away")]}
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            waiting = await watcher.until("one", lambda f: f.reason == "Throttled")
            assert waiting.stage == pod_pb2.POD_STAGE_WAITING
            assert not waiting.failed
            began = virtual.clock()
            facts = await watcher.ended("one")
            assert virtual.clock() - began >= 7
            assert facts.containers[0].terminated.exit_code == 0
            assert facts.reason == ""

    virtual.run(story())


def test_a_failing_container_restarts_with_the_kubelets_back_off() -> None:
    async def story() -> None:
        sky = cloud(c0=(1, 1), c1=(1, 1), c2=(1, 0))
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod(restartPolicy="OnFailure")))
            waiting = await watcher.until(
                "one",
                lambda f: (
                    f.containers
                    and f.containers[0].HasField("waiting")
                    and f.containers[0].waiting.reason == "CrashLoopBackOff"
                ),
            )
            assert waiting.containers[0].last_termination.exit_code == 1
            facts = await watcher.ended("one")
            assert facts.containers[0].restart_count == 2
            assert [restart for _, _, restart in sky.runs] == [0, 1, 2]

    virtual.run(story())


def test_a_new_provider_adopts_and_starts_nothing_that_runs() -> None:
    async def story() -> None:
        sky = cloud(c0=(100, 7))
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            await watcher.until("one", runs)
        async with serving(sky) as (provider, watcher):
            found = await watcher.until("one", lambda f: f.stage == pod_pb2.POD_STAGE_ACTIVE)
            assert found.generation == 0
            await provider.create_pod(asked(a_pod(), generation=1))
            facts = await watcher.ended("one")
            assert facts.containers[0].terminated.exit_code == 7
            assert sky.runs == [("one", "c", 0)]

    virtual.run(story())


def test_nothing_is_created_before_the_backend_was_listed() -> None:
    async def story() -> None:
        sky = cloud(c0=(1, 0))
        sky.faults = {"list": [Unavailable("away"), Unavailable("away")]}
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            waiting = await watcher.until("one", lambda f: f.reason == "BackendNotReady")
            assert waiting.stage == pod_pb2.POD_STAGE_WAITING
            assert not sky.launches
            await watcher.ended("one")
            assert sky.launches == ["one"]

    virtual.run(story())


@pytest.mark.parametrize("edited", ["other", "nowhere"])
@pytest.mark.parametrize("takes", [0.0, 5.0])
def test_a_pod_stays_where_it_is_whatever_its_record_was_made_to_say(
    edited: str, takes: float
) -> None:
    async def story() -> None:
        here, there = cloud(c0=(1000, 0)), cloud()
        pod = a_pod()
        async with serving(here) as (provider, watcher):
            await provider.create_pod(asked(pod))
            await watcher.until("one", runs)
        # Both sides have started anew; the backend that has it may be the last to be listed.
        here.list_takes = takes
        backends = [
            Backend(PaperAdapter(one, name), {})
            for one, name in ((there, "other"), (here, "paper"))
        ]
        provider = Provider(Tracker(backends, clock=virtual.clock))
        watcher = Watcher(provider)
        tasks = [asyncio.create_task(provider.run()), asyncio.create_task(watcher.follow())]
        request = asked(pod)
        request.recorded.backend, request.recorded.started = edited, True
        await asyncio.sleep(1)
        if takes:
            with pytest.raises(Unavailable, match="waiting for paper to be listed"):
                await provider.create_pod(request)
            await asyncio.sleep(takes)
        answer = await provider.create_pod(request)
        assert answer.accepted.backend == "paper"
        await asyncio.sleep(60)
        assert runs(watcher.facts["one"])
        assert (here.launches, there.launches) == (["one"], [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    virtual.run(story())


def test_a_pod_that_vanishes_is_lost_only_after_two_lists() -> None:
    async def story() -> None:
        sky = cloud()
        sky.silent = True
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            await watcher.until("one", runs)
            sky.pods.clear()
            began = virtual.clock()
            facts = await watcher.ended("one")
            assert virtual.clock() - began > 10
            assert facts.disrupted
            assert facts.containers[0].terminated.exit_code == 137
            assert facts.containers[0].terminated.reason == "ContainerStatusUnknown"
            await asyncio.sleep(600)
            assert sky.launches == ["one"]

    virtual.run(story())


def test_a_pod_that_had_run_and_cannot_be_found_is_never_launched_again() -> None:
    async def story() -> None:
        sky = cloud(c0=(1, 0))
        async with serving(sky) as (provider, watcher):
            recorded = pod_pb2.Recorded(backend="paper", started=True)
            await provider.create_pod(asked(a_pod(), recorded=recorded))
            facts = await watcher.ended("one")
            assert facts.disrupted
            assert not sky.launches

    virtual.run(story())


def test_a_slow_list_does_not_turn_back_newer_news() -> None:
    async def story() -> None:
        sky = cloud(c0=(12, 0))
        sky.list_takes = 8.0
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            await watcher.ended("one")
            await asyncio.sleep(60)
            kinds = [
                facts.containers[0].WhichOneof("state")
                for facts in watcher.history["one"]
                if facts.containers
            ]
            assert kinds[-1] == "terminated"
            assert "running" not in kinds[kinds.index("terminated") :]

    virtual.run(story())


def test_deletion_is_retried_until_the_cloud_confirms() -> None:
    async def story() -> None:
        sky = cloud()
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            running = await watcher.until("one", runs)
            sky.faults = {"kill": [Unavailable("away")], "delete": [Unavailable("away")] * 3}
            await provider.delete_pod(pb.DeletePodRequest(pod=running.pod, grace_period_seconds=1))
            ended = await watcher.ended("one")
            assert ended.containers[0].terminated.exit_code == 143
            await watcher.ack("one")
            await watcher.until("one", lambda f: f.stage == pod_pb2.POD_STAGE_GONE)
            assert not sky.pods

    virtual.run(story())


def test_an_end_that_nobody_acknowledged_is_kept_though_deleted() -> None:
    async def story() -> None:
        sky = cloud(c0=(1, 4))
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            facts = await watcher.ended("one")
            await provider.delete_pod(pb.DeletePodRequest(pod=facts.pod))
            await asyncio.sleep(600)
            again = Watcher(provider)
            following = asyncio.create_task(again.follow())
            kept = await again.ended("one")
            assert kept.containers[0].terminated.exit_code == 4
            assert sky.pods
            following.cancel()

    virtual.run(story())


def test_deleting_a_pod_that_nobody_knows_tells_that_it_is_gone() -> None:
    async def story() -> None:
        async with serving(cloud()) as (provider, watcher):
            who = asked(a_pod("ghost")).pod
            await provider.delete_pod(pb.DeletePodRequest(pod=who))
            facts = await watcher.until("ghost", lambda f: f.stage == pod_pb2.POD_STAGE_GONE)
            assert facts.pod.uid == who.uid

    virtual.run(story())


def test_pods_beyond_the_limit_wait_their_turn() -> None:
    async def story() -> None:
        sky = cloud(c0=(10, 0))
        async with serving(sky, pods=2) as (provider, watcher):
            for number in range(5):
                await provider.create_pod(asked(a_pod(f"p{number}")))
            queued = await watcher.until("p4", lambda f: f.reason == "Queued")
            assert "2 of 2 pods" in queued.message
            for number in range(5):
                await watcher.ended(f"p{number}")
            assert sky.launches == [f"p{number}" for number in range(5)]
            assert virtual.clock() - virtual.EPOCH >= 30

    virtual.run(story())


def test_the_deadline_ends_the_pod() -> None:
    async def story() -> None:
        async with serving(cloud()) as (provider, watcher):
            recorded = pod_pb2.Recorded()
            recorded.start_time.FromSeconds(int(virtual.clock()))
            pod = a_pod(activeDeadlineSeconds=20, terminationGracePeriodSeconds=1)
            await provider.create_pod(asked(pod, recorded=recorded))
            facts = await watcher.ended("one")
            assert (facts.failed, facts.reason) == (True, "DeadlineExceeded")
            assert 19 <= virtual.clock() - virtual.EPOCH <= 25

    virtual.run(story())


def test_an_orphan_is_told_and_can_be_ended() -> None:
    async def story() -> None:
        sky = cloud()
        async with serving(sky) as (provider, watcher):
            await provider.create_pod(asked(a_pod()))
            await watcher.until("one", runs)
        async with serving(sky) as (provider, watcher):
            found = await watcher.until("one", lambda f: f.stage == pod_pb2.POD_STAGE_ACTIVE)
            await provider.delete_pod(pb.DeletePodRequest(pod=found.pod, grace_period_seconds=0))
            await watcher.ended("one")
            await watcher.ack("one")
            await watcher.until("one", lambda f: f.stage == pod_pb2.POD_STAGE_GONE)
            assert not sky.pods

    virtual.run(story())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r.pod.ClearField("uid"), "pod.uid"),
        (lambda r: setattr(r.pod, "cluster", "nowhere"), "pod.cluster"),
        (lambda r: setattr(r.pod, "name", ""), "pod.name"),
        (lambda r: setattr(r, "manifest", b"{"), "manifest"),
        (lambda r: setattr(r, "manifest", b'{"spec": {"containers": "x"}}'), "spec.containers"),
        (lambda r: setattr(r.recorded, "backend", "mars"), "recorded.backend"),
    ],
)
def test_a_bad_request_is_refused_by_field(
    change: Callable[[pb.CreatePodRequest], None], field: str
) -> None:
    async def story() -> None:
        sky = cloud()
        async with serving(sky) as (provider, _):
            request = asked(a_pod())
            change(request)
            await provider.settled()
            with pytest.raises(Invalid) as refused:
                await provider.create_pod(request)
            assert any(field in one.field for one in refused.value.violations)
            assert not sky.launches

    virtual.run(story())


def test_updates_apply_by_generation_or_are_refused_by_field() -> None:
    async def story() -> None:
        async with serving(cloud()) as (provider, watcher):
            pod = a_pod()
            request = asked(pod, generation=2)
            await provider.create_pod(request)
            await watcher.until("one", runs)

            async def update(changed: Manifest, generation: int) -> int:
                text = json.dumps(changed).encode()
                sent = pb.UpdatePodRequest(pod=request.pod, manifest=text, generation=generation)
                return (await provider.update_pod(sent)).generation

            words = a_pod(containers=[{"name": "c", "image": "i", "command": ["false"]}])
            assert await update(words, 1) == 2
            with pytest.raises(Unsupported) as refused:
                await update(words, 3)
            assert refused.value.violations[0].field == "spec.containers[0].command[0]"
            assert await update(a_pod(activeDeadlineSeconds=60), 3) == 3
            unknown = asked(a_pod("other")).pod
            with pytest.raises(NotFound):
                await provider.update_pod(pb.UpdatePodRequest(pod=unknown, manifest=b"{}"))

    virtual.run(story())


def test_a_watch_resumes_after_its_revision_and_snapshots_after_compaction() -> None:
    async def story() -> None:
        sky = cloud(c0=(1, 0))
        async with serving(sky) as (provider, watcher):
            for name in ("a", "b"):
                await provider.create_pod(asked(a_pod(name)))
                await watcher.ended(name)

            async def first(epoch: str, revision: int) -> pb.WatchPodsResponse:
                request = pb.WatchPodsRequest(
                    cluster=CLUSTER, node="n", epoch=epoch, revision=revision
                )
                async for message in provider.watch_pods(request):
                    return message
                raise AssertionError

            resumed = await first(watcher.epoch, watcher.revisions["a"])
            assert {one.pod.pod.name for one in resumed.events} == {"b"}
            other = await first("another", watcher.revisions["a"])
            assert other.events[0].HasField("snapshot_started")
            assert other.events[-1].synced.backend == "paper"
            before = watcher.revisions["a"]
            await watcher.ack("a")
            await provider.delete_pod(pb.DeletePodRequest(pod=watcher.facts["a"].pod))
            await watcher.until("a", lambda f: f.stage == pod_pb2.POD_STAGE_GONE)
            await watcher.ack("a")
            compacted = await first(watcher.epoch, before)
            assert compacted.events[0].HasField("snapshot_started")

    virtual.run(story())


def test_logs_pass_through_and_unknown_pods_have_none() -> None:
    async def story() -> None:
        async with serving(cloud(c0=(1, 0))) as (provider, watcher):
            request = asked(a_pod())
            logs = pb.GetContainerLogsRequest(pod=request.pod, container="c")
            with pytest.raises(NotFound):
                [piece async for piece in provider.get_container_logs(logs)]
            await provider.create_pod(request)
            await watcher.ended("one")
            pieces = [piece.content async for piece in provider.get_container_logs(logs)]
            assert b"".join(pieces) == b"hello from c\n"

    virtual.run(story())
