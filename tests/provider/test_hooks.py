"""Lifecycle hooks as a pod sees them, on the paper backend, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

from probing_kit import BAD, World, command, in_turn, main, named, ready
from support import virtual
from support.paper_able import Answer

from bridge.rpc.v1 import pod_pb2

START = virtual.EPOCH


def hooked(post: Any = None, pre: Any = None, **more: Any) -> dict[str, Any]:
    hooks = {"postStart": post, "preStop": pre}
    return main(lifecycle={name: hook for name, hook in hooks.items() if hook}, **more)


def kills(world: World) -> list[tuple[float, str, float]]:
    return [(round(at - START, 1), name, grace) for at, name, _, grace in world.cloud.kills]


def test_a_post_start_hook_comes_before_all_else() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["hello"] = Answer(seconds=8)
        second = {"name": "d", "image": "i"}
        async with world.serving():
            first = hooked(command("hello"), readinessProbe=command("ask"))
            await world.create(first, second)
            facts = await world.until(lambda facts: ready(facts) and bool(facts.containers[1]))
            assert world.able.asked == [(START, "c", "hello"), (START + 8, "c", "ask")]
            assert [name for _, name, _ in world.cloud.runs] == ["c", "d"]
            assert named(facts, "c") is not None
            second_facts = (await world.running(name="d")).containers[1]
            assert second_facts.running.started_at.seconds == START + 8
            assert world.shown[0] == "ContainerCreating"
            assert world.notices == []

    virtual.run(story())


def test_a_failed_post_start_hook_restarts_the_container() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["hello"] = in_turn(Answer(1, seconds=3), Answer())
        async with world.serving():
            await world.create(hooked(command("hello")))
            await world.running(restart=1)
            assert kills(world) == [(3.0, "c", 30.0)]
            assert world.notices == [
                ("c", "FailedPostStartHook", "PostStartHook failed"),
                ("c", "Killing", "FailedPostStartHook"),
            ]
            # Its first run was never told as running: nobody was to use it.
            assert "running started ready" not in world.shown[:-1]

    virtual.run(story())


def test_a_post_start_hook_runs_again_only_where_it_was_not_over() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["hello"] = Answer(seconds=100)
        async with world.serving():
            await world.create(hooked(command("hello")))
            await world.until(lambda facts: facts.stage == pod_pb2.POD_STAGE_ACTIVE)
            await asyncio.sleep(5)
        world.able.answers["hello"] = Answer()
        for running in (False, True):
            async with world.serving():
                request = world.request(hooked(command("hello")))
                request.recorded.started = True
                if running:
                    request.recorded.running.add(container="c", container_id="paper://c.0")
                await world.provider.create_pod(request)
                await world.running()
                await asyncio.sleep(5)
        assert len(world.able.asked) == 2
        assert len(world.cloud.runs) == 1

    virtual.run(story())


def test_a_pre_stop_hook_takes_from_the_grace() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["bye"] = Answer(seconds=12)
        async with world.serving():
            await world.create(hooked(pre=command("bye")), {"name": "d", "image": "i"})
            await world.running(name="d")
            await asyncio.sleep(1)
            began = virtual.clock() - START
            await world.delete(30)
            await world.ended()
            # The other container did not wait for it.
            assert kills(world) == [
                (round(began, 1), "d", 30.0),
                (round(began + 12, 1), "c", 18.0),
            ]
            assert len(world.able.times("bye")) == 1

    virtual.run(story())


def test_a_pre_stop_hook_that_does_not_end_is_cut_off() -> None:
    async def story() -> None:
        world = World()
        async with world.serving():
            await world.create(hooked(pre={"sleep": {"seconds": 500}}))
            await world.running()
            at = virtual.clock() - START
            await world.delete(20)
            await asyncio.sleep(5)
            assert kills(world) == []
            # Somebody has less patience.
            await world.delete(3)
            await world.ended()
            assert kills(world) == [(round(at + 8, 1), "c", 2.0)]
            assert world.notices == [("c", "FailedPreStopHook", "PreStopHook failed")]

    virtual.run(story())


def test_no_grace_no_hook_and_a_failed_hook_is_told() -> None:
    async def story() -> None:
        for grace in (0, 9):
            world = World()
            world.able.answers["bye"] = BAD
            async with world.serving():
                await world.create(hooked(pre=command("bye")))
                await world.running()
                await world.delete(grace)
                await world.ended()
                assert len(world.able.asked) == (1 if grace else 0)
                told = [("c", "FailedPreStopHook", "PreStopHook failed")] if grace else []
                assert world.notices == told

    virtual.run(story())


def test_a_container_that_has_ended_gets_no_hook() -> None:
    async def story() -> None:
        world = World()
        world.cloud.script["c", 0] = (5, 0)
        world.able.answers["bye"] = Answer(seconds=4)
        async with world.serving():
            await world.create(
                hooked(pre=command("bye")), {"name": "d", "image": "i"}, restartPolicy="Never"
            )
            await world.until(lambda facts: facts.containers[0].HasField("terminated"))
            await world.delete(30)
            await world.ended()
            assert world.able.asked == []

    virtual.run(story())


def test_a_probe_that_fails_runs_the_pre_stop_hook_within_its_grace() -> None:
    async def story() -> None:
        world = World()
        world.able.answers |= {"alive": in_turn(BAD, Answer()), "bye": Answer(seconds=4)}
        probe = command("alive", failureThreshold=1, terminationGracePeriodSeconds=10)
        async with world.serving():
            await world.create(hooked(pre=command("bye"), livenessProbe=probe))
            await world.running(restart=1)
            assert kills(world) == [(4.0, "c", 6.0)]
            assert len(world.able.times("bye")) == 1
            # The next run's end has a hook of its own.
            await world.delete(30)
            await world.ended()
            assert len(world.able.times("bye")) == 2

    virtual.run(story())


def test_a_sidecars_hook_runs_at_once_and_its_kill_waits_for_its_turn() -> None:
    async def story() -> None:
        world = World()
        world.cloud.dies_after = 6
        sidecar = hooked(pre=command("bye"), restartPolicy="Always") | {"name": "s"}
        async with world.serving():
            await world.create(main(), initContainers=[sidecar])
            await world.running()
            at = virtual.clock() - START
            await world.delete(30)
            await world.ended()
            assert world.able.times("bye", START) == [round(at, 3)]
            assert [(when, name) for when, name, _ in kills(world)] == [
                (round(at, 1), "c"),
                (round(at + 6, 1), "s"),
            ]

    virtual.run(story())


def test_the_deadline_runs_it_too() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["bye"] = Answer(seconds=2)
        async with world.serving():
            request = world.request(hooked(pre=command("bye")), activeDeadlineSeconds=60)
            request.recorded.start_time.FromSeconds(int(START))
            await world.provider.create_pod(request)
            facts = await world.ended()
            assert facts.failed
            assert kills(world) == [(62.0, "c", 28.0)]

    virtual.run(story())
