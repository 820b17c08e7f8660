"""In-place resize through the pod loop, in virtual time: granted, put off, refused, by a restart;
and what else a cluster asks of a pod that cannot be as it should."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from support import virtual
from support.paper import PaperAdapter
from support.paper_able import Able, AbleAdapter
from test_loop import World, a_pod, a_world, reasons

from bridge.errors import Invalid, Unavailable
from bridge.pods import Manifest
from bridge.provider.backend import Backend
from bridge.provider.service import Provider
from bridge.provider.tracker import Tracker

Sized = dict[str, Any]


def sized(cpu: str) -> Sized:
    return {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}


def a_sized_pod(name: str, cpu: str, **container: Any) -> Manifest:
    one = {"name": "c", "image": "i", "resources": sized(cpu), **container}
    return a_pod(name, containers=[one], restartPolicy="Always")


async def start(world: World, limits: dict[str, int], able: bool = True) -> Able:
    """A provider that can resize what runs, unless it is told not to be able to."""
    able_ = Able(virtual.clock)
    adapter = AbleAdapter(world.sky, able_) if able else PaperAdapter(world.sky)
    provider = Provider(Tracker([Backend(adapter, limits)], clock=virtual.clock))
    world._running = asyncio.create_task(provider.run())
    world.address.provider = provider
    return able_


def resize(world: World, uid: str, cpu: str) -> None:
    pod = copy.deepcopy(world.store.pods[uid])
    pod["spec"]["containers"][0]["resources"] = sized(cpu)
    pod["metadata"]["generation"] += 1
    world.store._replace(pod)


def condition(pod: Manifest, kind: str) -> tuple[str, int] | None:
    for one in pod["status"].get("conditions") or ():
        if one["type"] == kind:
            return one.get("reason", ""), one["observedGeneration"]
    return None


def has(pod: Manifest, cpu: str) -> bool:
    (one,) = pod["status"].get("containerStatuses") or [{}]
    over = not condition(pod, "PodResizePending") and not condition(pod, "PodResizeInProgress")
    return one.get("resources") == sized(cpu) and over


def test_what_is_granted_is_in_the_status() -> None:
    async def story() -> None:
        async with a_world() as world:
            able = await start(world, {})
            world.store.add_pod(a_sized_pod("one", "1"))
            pod = await world.until("one", lambda pod: has(pod, "1"))
            resize(world, pod["metadata"]["uid"], "2")
            now = await world.until("one", lambda pod: has(pod, "2"))
            assert now["status"]["containerStatuses"][0]["allocatedResources"] == {"cpu": "2"}
            assert [one.resources.limits["cpu"] for _, one in able.resized] == [2000]
            assert reasons(world) == ["Started", "ResizeStarted", "ResizeCompleted"]

    virtual.run(story())


def test_a_status_that_could_not_be_written_is_written_later() -> None:
    async def story() -> None:
        async with a_world() as world:
            await start(world, {})
            world.store.add_pod(a_sized_pod("one", "1"))
            pod = await world.until("one", lambda pod: has(pod, "1"))
            patch, failures = world.store.patch_status, [Unavailable("not now")]

            async def failing(*given: Any) -> Manifest | None:
                if failures:
                    raise failures.pop()
                return await patch(*given)

            world.store.patch_status = failing
            resize(world, pod["metadata"]["uid"], "2")
            await world.until("one", lambda pod: has(pod, "2"))
            assert not failures

    virtual.run(story())


def test_what_is_put_off_comes_when_there_is_room() -> None:
    async def story() -> None:
        async with a_world() as world:
            await start(world, {"cpu": 3000})
            world.store.add_pod(a_sized_pod("one", "1"))
            other = a_sized_pod("other", "2")
            world.store.add_pod(other)
            pod = await world.until("one", lambda pod: has(pod, "1"))
            await world.until("other", lambda pod: has(pod, "2"))
            resize(world, pod["metadata"]["uid"], "2")
            held = await world.until(
                "one", lambda pod: condition(pod, "PodResizePending") is not None
            )
            assert condition(held, "PodResizePending") == ("Deferred", 2)
            assert held["status"]["containerStatuses"][0]["resources"] == sized("1")
            await asyncio.sleep(60)
            assert reasons(world).count("ResizeDeferred") == 1
            # Everything else of the pod is as it should be by now.
            uid = pod["metadata"]["uid"]
            assert world.store.pods[uid]["status"]["observedGeneration"] == 2
            world.store.order_deletion(other["metadata"]["uid"], 1)
            await world.until("one", lambda pod: has(pod, "2"))

    virtual.run(story())


def test_more_than_a_backend_may_ever_hold_is_infeasible() -> None:
    async def story() -> None:
        async with a_world() as world:
            await start(world, {"cpu": 3000})
            world.store.add_pod(a_sized_pod("one", "1"))
            pod = await world.until("one", lambda pod: has(pod, "1"))
            resize(world, pod["metadata"]["uid"], "4")
            held = await world.until(
                "one", lambda pod: condition(pod, "PodResizePending") is not None
            )
            assert condition(held, "PodResizePending") == ("Infeasible", 2)
            resize(world, pod["metadata"]["uid"], "3")
            await world.until("one", lambda pod: has(pod, "3"))

    virtual.run(story())


def test_what_the_backend_cannot_do_is_infeasible_and_can_be_taken_back() -> None:
    async def story() -> None:
        async with a_world() as world:
            await start(world, {}, able=False)
            world.store.add_pod(a_sized_pod("one", "1"))
            pod = await world.until("one", lambda pod: has(pod, "1"))
            resize(world, pod["metadata"]["uid"], "2")
            held = await world.until(
                "one", lambda pod: condition(pod, "PodResizePending") is not None
            )
            assert condition(held, "PodResizePending") == ("Infeasible", 2)
            await asyncio.sleep(60)
            assert reasons(world).count("ResizeInfeasible") == 1
            resize(world, pod["metadata"]["uid"], "1")
            await world.until("one", lambda pod: has(pod, "1"))

    virtual.run(story())


def test_what_the_kernel_refuses_is_tried_again() -> None:
    async def story() -> None:
        async with a_world() as world:
            able = await start(world, {})
            able.resize_error["c"] = Invalid("below what it uses now")
            world.store.add_pod(a_sized_pod("one", "1"))
            pod = await world.until("one", lambda pod: has(pod, "1"))
            resize(world, pod["metadata"]["uid"], "2")
            held = await world.until(
                "one", lambda pod: condition(pod, "PodResizeInProgress") is not None
            )
            assert condition(held, "PodResizeInProgress") == ("Error", 2)
            await asyncio.sleep(60)
            assert reasons(world).count("ResizeError") == 1
            del able.resize_error["c"]
            await world.until("one", lambda pod: has(pod, "2"))

    virtual.run(story())


def test_one_by_a_restart_is_in_progress_until_the_container_runs_anew() -> None:
    async def story() -> None:
        async with a_world() as world:
            await start(world, {})
            world.sky.dies_after = 20
            policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
            world.store.add_pod(a_sized_pod("one", "1", resizePolicy=policy))
            pod = await world.until("one", lambda pod: has(pod, "1"))
            resize(world, pod["metadata"]["uid"], "2")
            going = await world.until(
                "one", lambda pod: condition(pod, "PodResizeInProgress") is not None
            )
            assert condition(going, "PodResizeInProgress") == ("", 2)
            assert going["status"]["containerStatuses"][0]["resources"] == sized("1")
            now = await world.until("one", lambda pod: has(pod, "2"))
            assert now["status"]["containerStatuses"][0]["restartCount"] == 1
            assert reasons(world)[-1] == "ResizeCompleted"

    virtual.run(story())


def test_an_end_is_on_record_before_the_object_goes_though_it_comes_in_the_middle() -> None:
    async def story() -> None:
        async with a_world(c0=(100, 6)) as world:
            await world.start_provider()
            patch, deleted = world.store.patch_status, world.store.delete
            phases = []

            async def slow(pod: Manifest, *rest: Any) -> Manifest | None:
                # As an API server with much to do: the end comes while this is on its way.
                if "deletionTimestamp" in pod["metadata"]:
                    await asyncio.sleep(10)
                return await patch(pod, *rest)

            async def delete(pod: Manifest) -> None:
                phases.append(world.store.pods[pod["metadata"]["uid"]]["status"]["phase"])
                await deleted(pod)

            world.store.patch_status, world.store.delete = slow, delete
            world.sky.dies_after = 5
            world.store.add_pod(a_pod("one", readinessGates=[{"conditionType": "a/b"}]))
            pod = await world.phase("one", "Running")
            uid = pod["metadata"]["uid"]
            world.store.order_deletion(uid, 30)
            # A reason to write before it has ended.
            now = world.store.pods[uid]
            gate = {"type": "a/b", "status": "True"}
            conditions = [*now["status"]["conditions"], gate]
            world.store._replace({**now, "status": {**now["status"], "conditions": conditions}})
            await world.agent.emptied()
            assert phases == ["Failed"]

    virtual.run(story())


def test_a_pod_of_a_daemonset_that_cannot_run_waits_with_one_event() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()

            async def refuses(_: object) -> tuple[str, str]:
                return "OutOfcpu", "Node didn't have enough resource: cpu"

            world.store.refuses = refuses
            pod = a_pod("one")
            owner = {"kind": "DaemonSet", "name": "d", "controller": True}
            pod["metadata"]["ownerReferences"] = [owner]
            world.store.add_pod(pod)
            await asyncio.sleep(60)
            uid = pod["metadata"]["uid"]
            now = world.store.pods[uid]
            assert now["status"]["phase"] == "Pending"
            labels = {"a": "b"}
            world.store._replace({**now, "metadata": {**now["metadata"], "labels": labels}})
            await asyncio.sleep(60)
            assert reasons(world) == ["OutOfcpu"]
            world.store.order_deletion(uid, 1)
            await world.agent.emptied()
            assert not world.store.pods

    virtual.run(story())
