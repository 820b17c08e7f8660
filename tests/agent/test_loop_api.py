"""What a real API server does and a store of manifests does not: others write statuses, objects
linger, labels change no generation. In virtual time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from support import virtual
from test_loop import World, a_pod, a_world, reasons

from bridge.local.store import Change


def change(world: World, uid: str, **parts: Any) -> None:
    pod = world.store.pods[uid]
    world.store._replace({**pod, **parts})


def test_a_pod_that_somebody_else_has_failed_is_ended() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one"))
            pod = await world.phase("one", "Running")
            change(
                world,
                pod["metadata"]["uid"],
                status={**pod["status"], "phase": "Failed", "reason": "NodeLost"},
            )
            await asyncio.sleep(60)
            states = [c.state for one in world.sky.pods.values() for c in one.containers]
            assert all(type(s).__name__ == "Exit" for s in states), states

    virtual.run(story())


def test_a_pod_that_somebody_else_has_failed_meanwhile_is_ended() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one"))
            pod = await world.phase("one", "Running")
            await world.kill_provider()
            over = {**pod["status"], "phase": "Failed", "reason": "NodeLost"}
            change(world, pod["metadata"]["uid"], status=over)
            await world.start_provider()
            await asyncio.sleep(60)
            states = [c.state for one in world.sky.pods.values() for c in one.containers]
            assert all(type(s).__name__ == "Exit" for s in states), states

    virtual.run(story())


def test_a_readiness_gate_makes_a_pod_ready() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            world.store.add_pod(
                a_pod("one", readinessGates=[{"conditionType": "example.org/gate"}])
            )
            pod = await world.phase("one", "Running")
            conditions = [
                *pod["status"]["conditions"],
                {"type": "example.org/gate", "status": "True"},
            ]
            change(
                world, pod["metadata"]["uid"], status={**pod["status"], "conditions": conditions}
            )
            await asyncio.sleep(60)
            now = world.store.pods[pod["metadata"]["uid"]]["status"]["conditions"]
            assert {c["type"]: c["status"] for c in now}["Ready"] == "True"

    virtual.run(story())


def test_labels_in_a_volume_follow_though_no_generation_rises() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            sent: list[Any] = []
            inner = world.address.update_pod

            async def update(request: Any) -> Any:
                sent.append(request)
                return await inner(request)

            world.address.update_pod = update
            volume = {
                "name": "v",
                "downwardAPI": {
                    "items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]
                },
            }
            world.store.add_pod(a_pod("one", volumes=[volume]))
            pod = await world.phase("one", "Running")
            sent.clear()
            change(
                world, pod["metadata"]["uid"], metadata={**pod["metadata"], "labels": {"a": "b"}}
            )
            await asyncio.sleep(60)
            assert json.loads(sent[-1].manifest)["metadata"]["labels"] == {"a": "b"}

    virtual.run(story())


def test_a_lingering_object_is_deleted_at_the_provider_once() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            calls: list[Any] = []
            inner = world.address.delete_pod

            async def delete(request: Any) -> Any:
                calls.append(request)
                return await inner(request)

            world.address.delete_pod = delete

            async def held(pod: Any) -> None:
                # A finalizer holds it.
                current = world.store.pods[pod["metadata"]["uid"]]
                if current["metadata"].get("deletionGracePeriodSeconds") != 0:
                    change(
                        world,
                        pod["metadata"]["uid"],
                        metadata={**current["metadata"], "deletionGracePeriodSeconds": 0},
                    )

            world.store.delete = held
            world.store.add_pod(a_pod("one"))
            pod = await world.phase("one", "Running")
            world.store.order_deletion(pod["metadata"]["uid"], 5)
            await world.phase("one", "Failed")
            await asyncio.sleep(60)
            current = world.store.pods[pod["metadata"]["uid"]]
            for n in range(3):
                change(
                    world,
                    pod["metadata"]["uid"],
                    metadata={**current["metadata"], "labels": {"n": str(n)}},
                )
                await asyncio.sleep(10)
            assert len(calls) == 1, [c.grace_period_seconds for c in calls]

    virtual.run(story())


def test_a_pod_without_generation_is_updated() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            sent: list[Any] = []
            inner = world.address.update_pod

            async def update(request: Any) -> Any:
                sent.append(request)
                return await inner(request)

            world.address.update_pod = update
            pod = a_pod("one")
            world.store.add_pod(pod)
            del pod["metadata"]["generation"]
            pod = await world.phase("one", "Running")
            change(world, pod["metadata"]["uid"], spec={**pod["spec"], "activeDeadlineSeconds": 5})
            await asyncio.sleep(60)
            assert sent

    virtual.run(story())


def test_a_second_synced_drops_nothing() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one"))
            pod = await world.phase("one", "Running")
            for watcher in world.store._watchers:
                watcher.put_nowait(Change("SYNCED", "Run", {}))
            world.store.complete = True
            await asyncio.sleep(60)
            assert world.agent._entries[pod["metadata"]["uid"]].pod is not None

    virtual.run(story())


def test_invalid_names_of_envfrom_are_told() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            world.store._references["ConfigMap", "default", "m"] = {
                "metadata": {"name": "m"},
                "data": {"a=b": "x", "ok": "y"},
            }
            world.store.add_pod(
                a_pod(
                    "one",
                    containers=[
                        {
                            "name": "c",
                            "image": "i",
                            "command": ["true"],
                            "envFrom": [{"configMapRef": {"name": "m"}}],
                        }
                    ],
                )
            )
            await world.phase("one", "Running")
            assert "InvalidEnvironmentVariableNames" in reasons(world)

    virtual.run(story())


def test_a_pod_deleted_before_it_ran_ends_its_handshake() -> None:
    async def story() -> None:
        async with a_world() as world:
            world.store.add_pod(a_pod("one"))
            uid = next(iter(world.store.pods))
            world.store.order_deletion(uid, 30)
            await world.start_provider()
            await asyncio.sleep(20)
            await asyncio.wait_for(world.agent.emptied(), 600)
            assert world.store.removed[uid]["status"]["phase"] == "Failed", world.store.removed[
                uid
            ]["status"]
            assert not world.sky.launches

    virtual.run(story())


def test_a_terminal_pod_at_start_is_left_and_deleted_when_asked() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            pod = a_pod("one")
            world.store.add_pod(pod)
            uid = pod["metadata"]["uid"]
            change(world, uid, status={"phase": "Succeeded", "conditions": []})
            await asyncio.sleep(30)
            world.store.order_deletion(uid, 30)
            await asyncio.wait_for(world.agent.emptied(), 600)
            assert world.store.removed[uid]["status"]["phase"] == "Succeeded"

    virtual.run(story())


def test_news_of_what_it_refers_to_reaches_a_pod_that_runs() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            sent: list[Any] = []
            inner = world.address.update_pod

            async def update(request: Any) -> Any:
                sent.append(request)
                return await inner(request)

            world.address.update_pod = update
            data = {"metadata": {"name": "m"}, "data": {"key": "old"}}
            world.store._references["ConfigMap", "default", "m"] = data
            volume = {"name": "v", "configMap": {"name": "m"}}
            world.store.add_pod(a_pod("one", volumes=[volume]))
            pod = await world.phase("one", "Running")
            assert not sent
            data["data"] = {"key": "new"}
            world.agent.refers_to_news(pod["metadata"]["uid"])
            await asyncio.sleep(1)
            (request,) = sent
            assert request.volumes[0].files[0].content == b"new"

    virtual.run(story())


def test_a_pod_that_finds_no_room_is_rejected_and_one_that_has_begun_is_not() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.start_provider()
            world.store.add_pod(a_pod("one"))
            await world.phase("one", "Running")

            async def refuses(_: object) -> tuple[str, str]:
                return "OutOfcpu", "Node didn't have enough resource: cpu"

            world.store.refuses = refuses
            world.store.add_pod(a_pod("two"))
            failed = await world.phase("two", "Failed")
            assert failed["status"]["reason"] == "OutOfcpu"
            assert failed["status"]["message"].startswith("Pod was rejected: Node didn't have")
            assert "OutOfcpu" in reasons(world)
            await world.kill_provider()
            await world.start_provider()
            await asyncio.sleep(60)
            assert (await world.phase("one", "Running"))["status"].get("reason") is None
            assert len(world.sky.launches) == 1

    virtual.run(story())
