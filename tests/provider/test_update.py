"""Live updates on the paper backend, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import orjson
import pytest
from probing_kit import WHO, World, main, named
from support import virtual
from support.paper import Cloud, PaperAdapter
from support.paper_able import AbleAdapter

from bridge.adapter import YES, approximately
from bridge.errors import Invalid, NotFound, OutOfCapacity, Unsupported
from bridge.provider.record import Record
from bridge.provider.translate import translate
from bridge.provider.update import assess, put_in_force
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.workload import Container, Files, Identity, Resources

START = virtual.EPOCH


def sized(cpu: str, memory: str = "64Mi", **more: Any) -> dict[str, Any]:
    amounts = {"cpu": cpu, "memory": memory}
    return main(resources={"requests": amounts, "limits": amounts}, **more)


def refused(error: pytest.ExceptionInfo[Unsupported]) -> list[str]:
    return [one.field for one in error.value.violations]


def test_a_new_image_restarts_the_container_whatever_the_policy_says() -> None:
    async def story() -> None:
        world = World()
        async with world.serving():
            await world.create(main(), {"name": "d", "image": "i"}, restartPolicy="Never")
            await world.running(name="d")
            other = {"name": "d", "image": "i"}
            again = await world.update(2, main() | {"image": "j"}, other, restartPolicy="Never")
            assert again == 2
            facts = await world.running(restart=1)
            assert facts.generation == 2
            assert world.cloud.runs == [("p", "c", 0), ("p", "d", 0), ("p", "c", 1)]
            key = next(iter(world.cloud.pods))
            assert world.cloud.pods[key].container("c").image == "j"  # type: ignore[union-attr]
            words = "Container c definition changed, will be restarted"
            assert world.notices == [("c", "Killing", words)]
            await asyncio.sleep(60)
            assert len(world.cloud.runs) == 3

    virtual.run(story())


def test_resizing_in_place_and_by_a_new_run() -> None:
    async def story() -> None:
        world = World()
        policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
        async with world.serving():
            await world.create(sized("1", resizePolicy=policy))
            await world.running()
            await world.update(2, sized("2", resizePolicy=policy))
            name, container = world.able.resized[0]
            assert (name, container.resources.limits["cpu"]) == ("p", 2000)
            assert len(world.cloud.runs) == 1
            await world.update(3, sized("2", "1Gi", resizePolicy=policy))
            await world.running(restart=1)
            assert len(world.able.resized) == 1
            assert world.notices[-1][2] == "Container c resize requires restart, will be restarted"

    virtual.run(story())


def test_a_size_that_the_kernel_refuses_changes_nothing() -> None:
    async def story() -> None:
        world = World()
        async with world.serving(cpu=8000):
            await world.create(sized("1"), sized("1") | {"name": "d"})
            await world.running(name="d")
            world.able.resize_error["d"] = Invalid("memory is in use")
            with pytest.raises(Invalid, match="memory is in use"):
                await world.update(2, sized("2"), sized("3") | {"name": "d"})
            # The first, which had its new size already, has its old one again.
            sizes = [one.resources.limits["cpu"] for _, one in world.able.resized]
            assert sizes == [2000, 1000]
            backend = world.tracker.backends["paper"]
            assert backend.used["cpu"] == 2000
            del world.able.resize_error["d"]
            world.able.resized.clear()
            assert await world.update(2, sized("2"), sized("3") | {"name": "d"}) == 2
            assert [one.resources.limits["cpu"] for _, one in world.able.resized] == [2000, 3000]
            assert backend.used["cpu"] == 5000

    virtual.run(story())


def test_growing_needs_room() -> None:
    async def story() -> None:
        world = World()
        async with world.serving(cpu=1500):
            await world.create(sized("1"))
            await world.running()
            backend = world.tracker.backends["paper"]
            other = Resources(requests={"cpu": 400})
            backend.take(other)
            with pytest.raises(OutOfCapacity):
                await world.update(2, sized("1200m"))
            backend.release(other)
            with pytest.raises(Unsupported, match="asks for 2000 of cpu; paper has 1500 in all"):
                await world.update(2, sized("2"))
            assert backend.used["cpu"] == 1000
            assert world.able.resized == []
            assert await world.update(2, sized("500m")) == 2
            assert world.tracker.backends["paper"].used["cpu"] == 500

    virtual.run(story())


def test_a_container_that_just_ended_needs_no_resizing() -> None:
    async def story() -> None:
        world = World()
        async with world.serving():
            await world.create(sized("1"))
            await world.running()
            world.able.resize_error["c"] = NotFound("it does not run")
            assert await world.update(2, sized("2")) == 2

    virtual.run(story())


def test_an_ephemeral_container_is_added_and_started_once() -> None:
    async def story() -> None:
        world = World()
        debug = {"name": "debug", "image": "tools"}
        async with world.serving():
            await world.create(main())
            await world.running()
            assert await world.update(2, main(), ephemeralContainers=[debug]) == 2
            facts = await world.running(name="debug")
            assert named(facts, "debug") is not None
            world.cloud.end(next(iter(world.cloud.pods)), "debug", 0, 7)
            await asyncio.sleep(60)
            assert [name for _, name, _ in world.cloud.runs] == ["c", "debug"]
            changed = [debug | {"image": "other"}]
            with pytest.raises(Unsupported) as error:
                await world.update(3, main(), ephemeralContainers=changed)
            assert refused(error) == ["spec.ephemeralContainers[0].image"]

    virtual.run(story())


def test_everything_that_cannot_change_is_named_and_nothing_is_applied() -> None:
    async def story() -> None:
        world = World()
        async with world.serving():
            await world.create(sized("1"))
            await world.running()
            new = sized("2", command=["x"]) | {"image": "j"}
            with pytest.raises(Unsupported) as error:
                await world.update(2, new, hostNetwork=True)
            assert refused(error) == ["spec.containers[0].command", "spec.hostNetwork"]
            await asyncio.sleep(30)
            assert world.able.resized == []
            assert len(world.cloud.runs) == 1
            assert world.facts is not None
            assert world.facts.generation == 1

    virtual.run(story())


class Unmeasured(PaperAdapter):
    capabilities: ClassVar = {
        "spec": YES,
        "spec.containers[].resources.limits": approximately("ignored"),
    }


class Strict(PaperAdapter):
    capabilities: ClassVar = {"spec": YES}


def test_resources_where_they_mean_nothing_and_where_they_cannot_change() -> None:
    def asked(*containers: dict[str, Any]) -> tuple[Any, Any]:
        manifest = {"metadata": {}, "spec": {"containers": list(containers)}}
        return manifest, translate(pb.UpdatePodRequest(), manifest, start_time=None)

    cloud = Cloud(virtual.clock)
    before, workload = asked(sized("1"))
    record = Record(WHO, text=orjson.dumps(before), workload=workload)
    change = assess(record, Unmeasured(cloud), *asked(sized("2")))
    assert (change.resized, change.restarted) == ((), ())
    with pytest.raises(Unsupported) as error:
        assess(record, Strict(cloud), *asked(sized("2")))
    assert refused(error) == [
        "spec.containers[0].resources.limits.cpu",
        "spec.containers[0].resources.requests.cpu",
    ]
    # The same amount in other words is none.
    assess(record, Strict(cloud), *asked(sized("1000m")))
    policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    before, workload = asked(sized("1", resizePolicy=policy))
    record = Record(WHO, text=orjson.dumps(before), workload=workload)
    change = assess(record, Strict(cloud), *asked(sized("2", resizePolicy=policy)))
    assert [one.name for one in change.restarted] == ["c"]


class Slow(AbleAdapter):
    """Its first resize takes long."""

    resizes = 0

    async def resize(self, identity: Identity, container: Container) -> None:
        self.resizes += 1
        await asyncio.sleep(5 if self.resizes == 1 else 0.1)
        await super().resize(identity, container)


def test_an_older_update_that_is_slow_does_not_undo_a_newer_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("probing_kit.AbleAdapter", Slow)

    async def story() -> None:
        world = World()
        async with world.serving():
            await world.create(sized("1"))
            await world.running()
            slow = asyncio.create_task(world.update(2, sized("2")))
            await asyncio.sleep(1)
            assert await world.update(3, sized("3")) == 3
            assert await slow == 2
            assert await world.update(2, sized("2")) == 3
            (record,) = world.tracker.records.values()
            assert record.generation == 3
            assert world.able.resized[-1][1].resources.limits["cpu"] == 3000

    virtual.run(story())


def test_a_volume_whose_content_is_missing_stays_and_the_others_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    updates: list[tuple[str, str]] = []

    class Updating(AbleAdapter):
        async def update_files(self, identity: Identity, volumes: Sequence[Files]) -> None:
            updates.extend((one.name, one.revision) for one in volumes)

    monkeypatch.setattr("probing_kit.AbleAdapter", Updating)

    def volume(name: str, revision: str) -> pod_pb2.VolumeContent:
        content = pod_pb2.VolumeContent(volume=name, revision=revision)
        if revision:
            content.files.add(path="key", content=revision.encode())
        return content

    async def story() -> None:
        world = World()
        gone, labels = {"name": "g", "configMap": {"name": "m"}}, {"name": "l", "downwardAPI": {}}
        spec = {"volumes": [gone, labels]}
        mounts = [{"name": one, "mountPath": f"/{one}"} for one in "gl"]
        one = main(volumeMounts=mounts)
        async with world.serving():
            request = world.request(one, **spec)
            request.volumes.extend([volume("g", "1"), volume("l", "1")])
            await world.provider.create_pod(request)
            await world.running()
            for first, shown in (("", "2"), ("1", "3"), ("", "3"), ("2", "3")):
                update = pb.UpdatePodRequest(
                    pod=WHO, manifest=world.manifest(one, **spec), generation=request.generation
                )
                update.volumes.extend([volume("g", first), volume("l", shown)])
                await world.provider.update_pod(update)
            assert updates == [("l", "2"), ("l", "3"), ("g", "2")]
            # A caller that has started anew asks for it again, and knows no content either.
            del request.volumes[:]
            request.volumes.extend([volume("g", ""), volume("l", "4")])
            await world.provider.create_pod(request)
            assert updates[3:] == [("l", "4")]
            (record,) = world.tracker.records.values()
            assert record.workload is not None
            kept = next(v for v in record.workload.volumes if v.name == "g")
            assert isinstance(kept, Files)
            assert kept.revision == "2"
            # Found by a provider that has started anew: what it has is not put into force.
            record.workload = replace(record.workload, volumes=(Files("g"), Files("l", (), "5")))
            assert record.backend is not None
            await put_in_force(record, record.backend.adapter)
            assert updates[4:] == [("l", "5")]

    virtual.run(story())


def test_contents_come_without_a_newer_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[str] = []

    class Updating(AbleAdapter):
        async def update_files(self, identity: Identity, volumes: Sequence[Files]) -> None:
            updates.extend(one.revision for one in volumes)

    monkeypatch.setattr("probing_kit.AbleAdapter", Updating)

    def volume(revision: str) -> pod_pb2.VolumeContent:
        content = pod_pb2.VolumeContent(volume="v", revision=revision)
        content.files.add(path="key", content=revision.encode())
        return content

    async def story() -> None:
        world = World()
        spec = {"volumes": [{"name": "v", "configMap": {"name": "m"}}]}
        one = main(volumeMounts=[{"name": "v", "mountPath": "/v"}])
        async with world.serving():
            request = world.request(one, **spec)
            request.volumes.append(volume("1"))
            await world.provider.create_pod(request)
            await world.running()
            for revision in ("2", "2", "3"):
                update = pb.UpdatePodRequest(
                    pod=WHO, manifest=world.manifest(one, **spec), generation=request.generation
                )
                update.volumes.append(volume(revision))
                await world.provider.update_pod(update)
            assert updates == ["2", "3"]

    virtual.run(story())


def test_a_limit_that_was_lowered_holds_up_no_update_of_a_larger_pod() -> None:
    async def story() -> None:
        world = World()
        async with world.serving(cpu=4000):
            await world.create(sized("2"))
            await world.running()
        world.facts = None
        async with world.serving(cpu=1000):
            await world.until(lambda _: True)
            await world.create(sized("2"))
            await asyncio.sleep(1)
            assert await world.update(2, sized("2"), activeDeadlineSeconds=500) == 2
            assert await world.update(3, sized("1500m")) == 3
            with pytest.raises(Unsupported, match="asks for 3000 of cpu; paper has 1000 in all"):
                await world.update(4, sized("3"))

    virtual.run(story())
