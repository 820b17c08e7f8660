"""Pods that were deleted while nobody was here: they end as they would have."""

from __future__ import annotations

import asyncio
from typing import Any

from support import virtual
from support.paper_able import Answer
from test_loop import a_pod, a_world
from test_loop_resize import start


def test_a_pod_deleted_while_nobody_was_here_has_its_pre_stop_hook() -> None:
    async def story() -> None:
        async with a_world() as world:
            able = await start(world, {})
            able.answers["bye"] = Answer(seconds=2)
            hook = {"preStop": {"exec": {"command": ["bye"]}}}
            one = {"name": "c", "image": "i", "lifecycle": hook}
            world.store.add_pod(a_pod("one", containers=[one], restartPolicy="Always"))
            pod = await world.phase("one", "Running")
            await world.kill_provider()
            world.store.order_deletion(pod["metadata"]["uid"], 30)
            await asyncio.sleep(5)
            again = await start(world, {})
            again.answers["bye"] = Answer(seconds=2)
            await world.agent.emptied()
            assert [word for _, _, word in again.asked] == ["bye"]

    virtual.run(story())


def test_sidecars_end_last_though_it_was_deleted_while_nobody_was_here() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            side = {"name": "s", "image": "i", "restartPolicy": "Always"}
            world.store.add_pod(a_pod("one", initContainers=[side]))
            pod = await world.phase("one", "Running")
            await world.kill_provider()
            world.store.order_deletion(pod["metadata"]["uid"], 30)
            await world.start_provider()
            gone: dict[str, float] = {}
            end = world.sky.end

            def ends(key: Any, name: str, *more: Any) -> None:
                gone[name] = virtual.clock()
                end(key, name, *more)

            world.sky.end = ends  # type: ignore[method-assign]
            await world.agent.emptied()
            assert gone["c"] < gone["s"]

    virtual.run(story())


def test_what_has_ended_is_not_started_again_by_who_comes_to_end_it() -> None:
    async def story() -> None:
        async with a_world(c0=(20, 1)) as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one", restartPolicy="Always"))
            pod = await world.phase("one", "Running")
            uid = pod["metadata"]["uid"]
            await world.kill_provider()
            await asyncio.sleep(60)
            world.store.order_deletion(uid, 30)
            await world.start_provider()
            await world.agent.emptied()
            assert world.sky.runs == [("one", "c", 0)]

    virtual.run(story())
