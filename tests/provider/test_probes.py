"""Probes as a pod sees them, on the paper backend, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

from probing_kit import BAD, GOOD, WHO, Facts, World, command, in_turn, main, named, ready
from support import virtual
from support.paper_able import Answer

from bridge.errors import NotFound
from bridge.rpc.v1 import pod_pb2

START = virtual.EPOCH


def test_readiness_comes_with_enough_successes_and_goes_with_enough_failures() -> None:
    async def story() -> None:
        world = World()
        turns = (BAD, GOOD, GOOD, BAD, BAD, GOOD, BAD, BAD, BAD, GOOD)
        world.able.answers["ask"] = in_turn(*turns)
        async with world.serving():
            await world.create(
                main(readinessProbe=command("ask", periodSeconds=5, successThreshold=2))
            )
            await world.until(ready)
            assert virtual.clock() - START < 10.1
            await world.until(lambda facts: not ready(facts))
            # Two failures and a success in between do not count.
            assert 40 <= virtual.clock() - START < 40.2
            assert world.able.times("ask", START)[:9] == [5.0 * turn for turn in range(9)]
            assert world.shown[-3:] == [
                "running started unready",
                "running started ready",
                "running started unready",
            ]
            assert world.notices == [("c", "Unhealthy", "Readiness probe failed: not yet\n")]
            assert world.cloud.kills == []

    virtual.run(story())


def test_startup_gates_liveness_and_readiness() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["up"] = in_turn(BAD, BAD, GOOD)
        world.able.answers["ask"] = Answer(seconds=0.5)
        async with world.serving():
            await world.create(
                main(
                    startupProbe=command("up", initialDelaySeconds=3, periodSeconds=2),
                    livenessProbe=command("alive", periodSeconds=7),
                    readinessProbe=command("ask"),
                )
            )
            await world.until(ready)
            await asyncio.sleep(10)
            assert world.able.times("up", START) == [3.0, 5.0, 7.0]
            assert world.able.times("alive", START) == [7.0, 14.0]
            assert world.able.times("ask", START) == [7.0, 17.0]
            assert world.shown == [
                "running starting unready",
                "running started unready",
                "running started ready",
            ]

    virtual.run(story())


def test_a_failed_liveness_probe_restarts_the_container() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["alive"] = in_turn(GOOD, BAD, BAD, BAD, GOOD)
        world.able.answers["ask"] = Answer(seconds=0.5)
        probe = command("alive", initialDelaySeconds=1, terminationGracePeriodSeconds=7)
        async with world.serving():
            await world.create(main(livenessProbe=probe, readinessProbe=command("ask")))
            await world.until(ready)
            facts = await world.running(restart=1)
            assert world.cloud.kills == [(START + 31, "c", 0, 7.0)]
            last = named(facts, "c")
            assert last is not None
            assert last.last_termination.exit_code == 143
            # It has to become ready anew.
            assert not last.ready
            await world.until(ready)
            assert world.notices == [
                ("c", "Unhealthy", "Liveness probe failed: not yet\n"),
                ("c", "Killing", "Container c failed liveness probe, will be restarted"),
            ]

    virtual.run(story())


def test_a_failed_startup_probe_ends_a_pod_that_never_restarts() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["up"] = BAD
        async with world.serving():
            await world.create(
                main(startupProbe=command("up", periodSeconds=1, failureThreshold=4)),
                restartPolicy="Never",
                terminationGracePeriodSeconds=9,
            )
            facts = await world.ended()
            assert len(world.able.asked) == 4
            assert world.cloud.kills == [(START + 3, "c", 0, 9.0)]
            assert world.notices[-1] == ("c", "Killing", "Container c failed startup probe")
            assert facts.containers[0].terminated.exit_code == 143

    virtual.run(story())


def test_containers_that_fail_fast_back_off() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["alive"] = BAD
        async with world.serving():
            await world.create(
                main(livenessProbe=command("alive", periodSeconds=1, failureThreshold=2))
            )
            await world.running(restart=4)
            # As the kubelet counts: from the end before, as long as that is the later.
            first = world.able.times("alive", START)[::2]
            assert first == [0.0, 1.1, 2.2, 13.3, 34.4]
            assert "CrashLoopBackOff" in world.shown
            assert [restart for _, _, restart in world.cloud.runs] == [0, 1, 2, 3, 4]

    virtual.run(story())


def test_a_probe_that_hangs_fails_by_its_timeout() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["ask"] = Answer(seconds=100)
        async with world.serving():
            await world.create(main(readinessProbe=command("ask", timeoutSeconds=4)))
            await world.until(lambda facts: len(facts.notices) > 0)
            assert virtual.clock() - START < 4.2
            message = "Readiness probe failed: command timed out after 4s"
            assert world.notices == [("c", "Unhealthy", message)]

    virtual.run(story())


def test_what_cannot_be_tried_counts_for_nothing() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["alive"] = Answer(error=NotFound("no such container"))
        async with world.serving():
            await world.create(main(livenessProbe=command("alive", failureThreshold=1)))
            await world.running()
            await asyncio.sleep(45)
            assert world.cloud.kills == []
            # Three tries at each of five turns.
            assert len(world.able.asked) == 15
            words = "Liveness probe errored and resulted in unknown state: no such container"
            assert world.notices == [("c", "Unhealthy", words)]

    virtual.run(story())


def test_a_sidecar_lets_the_next_one_start_once_it_has_started() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["up"] = in_turn(BAD, BAD, BAD, GOOD)
        sidecar = {
            "name": "s",
            "image": "i",
            "restartPolicy": "Always",
            "startupProbe": command("up", periodSeconds=4, failureThreshold=9),
        }
        async with world.serving():
            await world.create(main(), initContainers=[sidecar])
            facts = await world.running()
            assert virtual.clock() - START >= 12
            assert named(facts, "s").started  # type: ignore[union-attr]
            assert [name for _, name, _ in world.cloud.runs] == ["s", "c"]

    virtual.run(story())


def test_deletion_stops_liveness_and_leaves_readiness() -> None:
    async def story() -> None:
        world = World()
        world.cloud.dies_after = 25
        async with world.serving():
            await world.create(main(livenessProbe=command("alive"), readinessProbe=command("ask")))
            await world.until(ready)
            await asyncio.sleep(5)
            world.able.answers["alive"] = BAD
            await world.delete(60)
            await world.ended()
            assert world.able.times("alive", START) == [0.0]
            assert world.able.times("ask", START) == [0.0, 10.0, 20.0, 30.0]

    virtual.run(story())


def test_a_new_provider_goes_on_where_kubernetes_record_stands() -> None:
    probes = {"startupProbe": command("up"), "readinessProbe": command("ask")}

    async def adopted(recorded: bool) -> tuple[Facts, World]:
        world = World()
        async with world.serving():
            await world.create(main(**probes))
            await world.until(ready)
        world.facts = None
        world.able.asked.clear()
        world.able.answers["up"] = Answer(seconds=0.5)
        await asyncio.sleep(1000)
        async with world.serving():
            request = world.request(main(**probes))
            request.recorded.started = True
            if recorded:
                request.recorded.running.add(
                    container="c", container_id="paper://c.0", started=True, ready=True
                )
            await world.provider.create_pod(request)
            facts = await world.until(lambda facts: facts.generation == 1)
            if recorded:
                assert ready(facts)
                await asyncio.sleep(30)
                assert not world.able.times("up")
                assert len(world.able.times("ask")) >= 2
                assert ready(world.facts)  # type: ignore[arg-type]
            else:
                assert not ready(facts)
                await world.until(ready)
        return facts, world

    async def story() -> None:
        await adopted(recorded=True)
        _, world = await adopted(recorded=False)
        assert world.able.times("up")
        assert len(world.cloud.runs) == 1

    virtual.run(story())


def test_a_port_that_refuses_and_one_that_opens() -> None:
    async def story() -> None:
        world = World()
        probe: dict[str, Any] = {"tcpSocket": {"port": "web"}, "periodSeconds": 3}
        async with world.serving():
            await world.create(
                main(ports=[{"name": "web", "containerPort": 80}], readinessProbe=probe)
            )
            await world.until(lambda facts: len(facts.notices) > 0)
            words = "Readiness probe failed: dial tcp 10.0.0.1:80: connect: connection refused"
            assert world.notices == [("c", "Unhealthy", words)]
            world.able.ports[80] = lambda: b""
            await world.until(ready)
            assert virtual.clock() - START < 3.1

    virtual.run(story())


def test_a_port_name_that_is_none() -> None:
    async def story() -> None:
        world = World()
        async with world.serving():
            await world.create(main(livenessProbe={"tcpSocket": {"port": "web"}}))
            await world.until(lambda facts: len(facts.notices) > 0)
            assert world.notices[0][2].endswith("the container has no port of that name")
            assert not world.able.dials

    virtual.run(story())


def test_the_same_failure_is_noted_once_a_minute() -> None:
    async def story() -> None:
        world = World()
        world.able.answers["ask"] = BAD
        async with world.serving():
            await world.create(main(readinessProbe=command("ask", periodSeconds=1)))
            await world.running()
            await asyncio.sleep(170)
            assert len(world.notices) == 3
            assert world.facts is not None
            assert len(world.facts.notices) == 3
            assert isinstance(world.facts.pod, pod_pb2.PodIdentity)
            assert world.facts.pod == WHO

    virtual.run(story())
