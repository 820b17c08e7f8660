"""What becomes of a pod later than its first day: room that comes, metadata that changes."""

from __future__ import annotations

import asyncio
from typing import Any

from support import virtual
from test_loop import a_pod, a_world
from test_loop_api import change


def test_a_pod_of_a_daemonset_starts_when_there_is_room() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            full = True

            async def refuses(_: object) -> tuple[str, str] | None:
                words = "Node didn't have enough resource: cpu"
                return ("OutOfcpu", words) if full else None

            world.store.refuses = refuses  # type: ignore[method-assign, assignment]
            pod = a_pod("one")
            owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u"}
            pod["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
            world.store.add_pod(pod)
            await asyncio.sleep(60)
            full = False
            await world.phase("one", "Running")

    virtual.run(story())


def test_a_new_run_has_the_labels_of_now_in_its_environment() -> None:
    async def story() -> None:
        async with a_world(c0=(100, 1)) as world:
            await world.start_provider()
            field = {"fieldRef": {"fieldPath": "metadata.labels['a']"}}
            one = {"name": "c", "image": "i", "env": [{"name": "L", "valueFrom": field}]}
            started: list[str | None] = []
            (listed,) = world.address.provider._tracker.backends.values()
            inner = listed.adapter.start

            async def starting(workload: Any, name: str, restart: int) -> None:
                started.append({v.name: v.value for v in workload.container(name).env}["L"])
                await inner(workload, name, restart)

            listed.adapter.start = starting
            pod = a_pod("one", containers=[one], restartPolicy="Always")
            pod["metadata"]["labels"] = {"a": "old"}
            world.store.add_pod(pod)
            pod = await world.phase("one", "Running")
            metadata = {**pod["metadata"], "labels": {"a": "new"}}
            change(world, pod["metadata"]["uid"], metadata=metadata)
            await asyncio.sleep(200)
            assert started == ["old", "new"]

    virtual.run(story())
