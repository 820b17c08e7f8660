"""What every adapter does alike: one suite, run on each of them.

A test module gives its `bench` fixture: where an adapter lives, how to have a second one in the
same place, and what can be done behind its back.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
from support.channels import PATIENCE

from bridge.adapter import Adapter, Containers, Events, LogOptions, Logs
from bridge.errors import Ambiguous, NotFound
from bridge.workload import (
    Container,
    ContainerState,
    EmptyDir,
    EnvVar,
    Exit,
    Files,
    Identity,
    Mount,
    Observed,
    RestartPolicy,
    Role,
    Running,
    Security,
    Workload,
)

CLUSTER = "5f1f4c53-6d7c-4f5c-9d7e-0d8a3b6a3c11"
IMAGE = "example/image"
"""What the suite's containers run; a backend of real images has its own one here."""
PACE = 0.005
"""Seconds between looks at what changes; on a real account each look is a call."""

_numbers = itertools.count()


def identity(name: str = "", attempt: int = 0) -> Identity:
    """A pod that nothing else names."""
    uid = str(uuid.uuid4())
    name = name or f"pod-{next(_numbers)}"
    return Identity(CLUSTER, "node", "default", name, uid, attempt)


def container(
    *command: str,
    name: str = "main",
    role: Role = Role.MAIN,
    env: Mapping[str, str] | None = None,
    mounts: Sequence[Mount] = (),
    security: Security | None = None,
    **more: Any,
) -> Container:
    """A container that runs that command."""
    return Container(
        name=name,
        role=role,
        image=IMAGE,
        command=command,
        env=tuple(EnvVar(key, value) for key, value in (env or {}).items()),
        mounts=tuple(mounts),
        security=security or Security(),
        restart_policy=RestartPolicy.NEVER,
        **more,
    )


def workload(
    *containers: Container,
    volumes: Sequence[EmptyDir | Files] = (),
    annotations: Mapping[str, str] | None = None,
    who: Identity | None = None,
    **more: Any,
) -> Workload:
    """A pod of those containers."""
    return Workload(
        identity=who or identity(),
        containers=containers,
        volumes=tuple(volumes),
        restart_policy=RestartPolicy.NEVER,
        annotations=annotations or {},
        **more,
    )


async def find(adapter: Adapter, who: Identity) -> Observed | None:
    """The pod in the adapter's list."""
    found = [one for one in await adapter.list() if one.identity.key == who.key]
    assert len(found) <= 1
    return found[0] if found else None


async def until(adapter: Adapter, who: Identity, true: Callable[[Observed], bool]) -> Observed:
    """The pod as soon as that is true of it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            observed = await find(adapter, who)
            if observed is not None and true(observed):
                return observed
            await asyncio.sleep(PACE)


async def exit_of(adapter: Adapter, who: Identity, name: str = "main", restart: int = 0) -> Exit:
    """How that run ended, as soon as it has."""

    def over(observed: Observed) -> bool:
        state = observed.container(name)
        return state is not None and state.restart == restart and isinstance(state.state, Exit)

    state = (await until(adapter, who, over)).container(name)
    assert state is not None
    assert isinstance(state.state, Exit)
    return state.state


def is_running(observed: Observed, name: str = "main") -> bool:
    """Whether that container runs."""
    state = observed.container(name)
    return state is not None and isinstance(state.state, Running)


async def log(adapter: Adapter, who: Identity, name: str = "main", **options: Any) -> bytes:
    """A container's log."""
    assert isinstance(adapter, Logs)
    pieces = [one async for one in adapter.logs(who, name, LogOptions(**options))]
    assert all(0 < len(one) <= 32 * 1024 for one in pieces)
    return b"".join(pieces)


class Bench(ABC):
    """Where one kind of adapter is tested."""

    survives = True
    """A second adapter in the same place finds what the first one made."""
    real = True
    """Commands are really run."""
    caught = 15
    """The signal that is told of who catches SIGTERM and leaves with 143: 15 where nobody can tell
    that from an end by the signal, else 0."""
    at_once = 137
    """The code of who does not catch SIGTERM and is stopped without a grace."""

    @abstractmethod
    async def adapter(self) -> Adapter:
        """An opened adapter, in the same place each time; closed with the bench."""

    @abstractmethod
    async def vanish(self, adapter: Adapter, who: Identity) -> None:
        """Somebody removes the pod without the adapter's knowledge."""

    @abstractmethod
    def endless(self) -> Workload:
        """A pod that runs until it is stopped."""

    @abstractmethod
    def brief(self, code: int = 0) -> Workload:
        """A pod that ends by itself, soon, with that code."""

    def port(self) -> int:
        """A TCP port on which nothing of a new pod listens."""
        return 7007

    def echo(self, port: int) -> Container:
        """A container that answers on that port with what it is told, till its other half closes.

        As a busybox image can do it.
        """
        return container("sh", "-c", f"while :; do nc -l -p {port} -e cat; done")

    def is_told(self, observed: Observed) -> bool:
        """Whether all is told of a pod that runs."""
        return is_running(observed)

    def settle(self) -> None:
        """Lets what is brief come to its end, where time is not the real one."""
        return

    async def launch(self, adapter: Adapter, pod: Workload) -> None:
        """Makes it, and starts what it has to start."""
        await adapter.run(pod)
        if isinstance(adapter, Containers):
            for one in pod.containers:
                await adapter.start(pod, one.name, 0)

    async def reachable(self, adapter: Adapter, who: Identity) -> None:
        """Returns when a new adapter reaches into that pod, where that takes a while."""
        return

    async def leftovers(self, who: Identity) -> Sequence[str]:
        """What is still there of a deleted pod."""
        return ()


class Losing:
    """An adapter whose every call is done, and whose answers are then lost once each."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._lost: set[str] = set()

    async def call(self, name: str, *arguments: Any) -> None:
        """Calls until an answer arrives, as the provider does."""
        while True:
            try:
                await self._once(name, *arguments)
            except Ambiguous:
                continue
            return

    async def _once(self, name: str, *arguments: Any) -> None:
        method: Callable[..., Awaitable[Any]] = getattr(self._adapter, name)
        await method(*arguments)
        if name not in self._lost:
            self._lost.add(name)
            raise Ambiguous("the answer was lost")


class Contract:
    """The suite. Subclass it in a module that has a fixture `bench`."""

    async def test_has_the_protocols_shape(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        assert isinstance(adapter, Adapter)
        assert adapter.name
        assert all(path.startswith("spec") for path in adapter.capabilities)

    async def test_an_empty_place_lists_nothing(self, bench: Bench) -> None:
        assert await (await bench.adapter()).list() == []

    async def test_run_twice_is_one_pod(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        await bench.launch(adapter, pod)
        first = await until(adapter, pod.identity, is_running)
        await bench.launch(adapter, pod)
        assert await find(adapter, pod.identity) == first

    async def test_run_at_once_from_two_sides_is_one_pod(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        await asyncio.gather(*(bench.launch(adapter, pod) for _ in range(8)))
        observed = await until(adapter, pod.identity, is_running)
        assert [one.restart for one in observed.containers] == [0]

    async def test_attempts_are_apart(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        other = Workload(
            identity=Identity(*_fields(pod.identity), attempt=1), containers=pod.containers
        )
        await bench.launch(adapter, pod)
        await bench.launch(adapter, other)
        await adapter.delete(pod.identity)
        assert await find(adapter, pod.identity) is None
        assert await find(adapter, other.identity) is not None

    async def test_facts_are_whole(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        await bench.launch(adapter, pod)
        observed = await until(adapter, pod.identity, bench.is_told)
        assert observed.identity == pod.identity
        assert observed.accepted_at is not None
        assert not observed.ended
        assert observed.pod_ips
        state = observed.containers[0]
        assert isinstance(state.state, Running)
        assert state.container_id.startswith(f"{adapter.type}://")
        assert state.state.started_at >= observed.accepted_at - 1

    async def test_lists_are_stable(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        for _ in range(5):
            await adapter.run(bench.endless())
        first = await adapter.list()
        assert [one.identity for one in await adapter.list()] == [one.identity for one in first]

    async def test_stop_ends_it_and_keeps_the_facts(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        await bench.launch(adapter, pod)
        await until(adapter, pod.identity, is_running)
        await adapter.stop(pod.identity, 30)
        end = await exit_of(adapter, pod.identity)
        assert (end.code, end.signal, end.reason) == (143, bench.caught, "Error")
        observed = await until(adapter, pod.identity, lambda one: one.ended)
        await adapter.stop(pod.identity, 0)
        assert await find(adapter, pod.identity) == observed

    async def test_stop_without_grace_kills(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        await bench.launch(adapter, pod)
        await until(adapter, pod.identity, is_running)
        await adapter.stop(pod.identity, 0)
        assert (await exit_of(adapter, pod.identity)).code == bench.at_once

    async def test_nothing_to_do_for_unknown_pods(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        who = identity()
        await adapter.stop(who, 30)
        await adapter.delete(who)
        await adapter.delete(who)
        assert await adapter.list() == []

    @pytest.mark.parametrize("code", [0, 3, 255])
    async def test_ends_with_its_own_code(self, bench: Bench, code: int) -> None:
        adapter = await bench.adapter()
        pod = bench.brief(code)
        await bench.launch(adapter, pod)
        bench.settle()
        end = await exit_of(adapter, pod.identity)
        assert end.code == code
        assert end.reason == ("Error" if code else "Completed")
        assert end.signal == 0
        assert end.started_at is not None
        assert end.started_at <= end.finished_at
        assert (await until(adapter, pod.identity, lambda one: one.ended)).ended

    async def test_ended_pods_keep_their_facts_till_they_are_deleted(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.brief(7)
        await bench.launch(adapter, pod)
        bench.settle()
        await exit_of(adapter, pod.identity)
        facts = await until(adapter, pod.identity, lambda one: one.ended)
        await bench.launch(adapter, pod)
        assert await find(adapter, pod.identity) == facts
        await adapter.delete(pod.identity)
        assert await find(adapter, pod.identity) is None

    async def test_delete_leaves_nothing(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        await bench.launch(adapter, pod)
        await until(adapter, pod.identity, is_running)
        await adapter.delete(pod.identity)
        assert await find(adapter, pod.identity) is None
        assert list(await bench.leftovers(pod.identity)) == []
        await adapter.delete(pod.identity)

    async def test_a_deleted_key_may_run_again(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        await bench.launch(adapter, pod)
        await adapter.delete(pod.identity)
        await bench.launch(adapter, pod)
        await until(adapter, pod.identity, is_running)

    async def test_restart_midway(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pods = [bench.endless(), bench.endless()]
        for pod in pods:
            await bench.launch(adapter, pod)
            await until(adapter, pod.identity, is_running)
        before = await adapter.list()
        again = await bench.adapter()
        if not bench.survives:
            assert await again.list() == []
            return
        assert await again.list() == before
        await bench.launch(again, pods[0])
        assert await again.list() == before
        await again.delete(pods[0].identity)
        assert [one.identity for one in await adapter.list()] == [pods[1].identity]

    async def test_vanishes_remotely(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        await bench.launch(adapter, pod)
        await until(adapter, pod.identity, is_running)
        await bench.vanish(adapter, pod.identity)
        assert await find(adapter, pod.identity) is None
        if isinstance(adapter, Containers):
            with pytest.raises(NotFound):
                await adapter.start(pod, "main", 1)
        await adapter.stop(pod.identity, 0)
        await adapter.delete(pod.identity)
        assert await find(adapter, pod.identity) is None

    async def test_lost_answers(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        losing = Losing(adapter)
        pod = bench.endless()
        await losing.call("run", pod)
        if isinstance(adapter, Containers):
            await losing.call("start", pod, "main", 0)
        observed = await until(adapter, pod.identity, is_running)
        assert observed.containers[0].restart == 0
        await losing.call("stop", pod.identity, 0.0)
        await exit_of(adapter, pod.identity)
        await losing.call("delete", pod.identity)
        assert await adapter.list() == []

    async def test_slow_lists_lose_nothing(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        made: list[Identity] = []

        async def make() -> None:
            for _ in range(20):
                pod = bench.endless()
                await adapter.run(pod)
                made.append(pod.identity)

        async def look() -> None:
            for _ in range(20):
                before = {one.key for one in made}
                found = {one.identity.key for one in await adapter.list()}
                assert before <= found

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(look())
            tasks.create_task(make())
        assert {one.identity for one in await adapter.list()} == set(made)

    async def test_events_tell_of_changes(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        if not isinstance(adapter, Events):
            pytest.skip("this adapter has no events")
        pod = bench.endless()
        seen: asyncio.Queue[ContainerState | None] = asyncio.Queue()

        async def watch() -> None:
            async for observed in adapter.events():
                if observed.identity == pod.identity:
                    seen.put_nowait(observed.container("main"))

        watching = asyncio.create_task(watch())
        # The listener is there as soon as the task waits for the first time.
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(PATIENCE):
                await bench.launch(adapter, pod)
                while not isinstance(getattr(await seen.get(), "state", None), Running):
                    pass
                await adapter.stop(pod.identity, 0)
                while not isinstance(getattr(await seen.get(), "state", None), Exit):
                    pass
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


class RealContract(Contract):
    """What adapters that really run commands do alike besides. Commands are those of any Linux."""

    async def finish(self, bench: Bench, pod: Workload) -> tuple[Adapter, Exit]:
        """Runs a pod of one container to its end."""
        adapter = await bench.adapter()
        await bench.launch(adapter, pod)
        return adapter, await exit_of(adapter, pod.identity)

    async def test_signals(self, bench: Bench) -> None:
        _, end = await self.finish(bench, workload(container("sh", "-c", "kill -9 $$")))
        assert (end.code, end.signal, end.reason) == (137, 9, "Error")

    async def test_logs_to_the_byte(self, bench: Bench) -> None:
        script = r"printf 'a\0b\377\n\r\nlast'; printf 'to stderr\n' >&2"
        pod = workload(container("sh", "-c", script))
        adapter, _ = await self.finish(bench, pod)
        assert await log(adapter, pod.identity, stream="stdout") == b"a\0b\xff\n\r\nlast"
        assert await log(adapter, pod.identity, stream="stderr") == b"to stderr\n"
        assert len(await log(adapter, pod.identity)) == 21

    async def test_a_long_line_is_one_line(self, bench: Bench) -> None:
        script = "head -c 1048576 /dev/zero | tr '\\0' x; echo; echo end"
        pod = workload(container("sh", "-c", script))
        adapter, _ = await self.finish(bench, pod)
        assert await log(adapter, pod.identity) == b"x" * 1048576 + b"\nend\n"
        assert await log(adapter, pod.identity, tail_lines=1) == b"end\n"
        assert len(await log(adapter, pod.identity, tail_lines=2)) == 1048576 + 5

    async def test_who_only_looks_finds_every_run(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = workload(container("sh", "-c", "cat /proc/sys/kernel/random/uuid"))
        await adapter.run(pod)
        onlooker = await bench.adapter()
        # It has seen the pod before there was anything in it.
        await onlooker.list()
        logs = set()
        assert isinstance(adapter, Containers)
        for restart in range(3):
            await adapter.start(pod, "main", restart)
            await exit_of(adapter, pod.identity, restart=restart)
            written = await log(adapter, pod.identity)
            assert await log(onlooker, pod.identity) == written
            logs.add(written)
        assert len(logs) == 3

    async def test_many_lines(self, bench: Bench) -> None:
        pod = workload(container("seq", "10000"))
        adapter, _ = await self.finish(bench, pod)
        whole = b"".join(b"%d\n" % one for one in range(1, 10001))
        assert await log(adapter, pod.identity) == whole
        assert await log(adapter, pod.identity, tail_lines=3) == b"9998\n9999\n10000\n"
        assert await log(adapter, pod.identity, tail_lines=0) == b""
        assert await log(adapter, pod.identity, tail_lines=99999) == whole
        assert await log(adapter, pod.identity, limit_bytes=7) == b"1\n2\n3\n4"
        stamped = await log(adapter, pod.identity, timestamps=True, tail_lines=1)
        time, _, text = stamped.partition(b" ")
        assert text == b"10000\n"
        assert len(time) == len(b"2026-01-02T03:04:05.123456789Z")

    async def test_follows_to_the_very_end(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        script = "for i in 1 2 3; do echo $i; sleep 0.05; done; printf end"
        pod = workload(container("sh", "-c", script))
        await bench.launch(adapter, pod)
        async with asyncio.timeout(PATIENCE):
            assert await log(adapter, pod.identity, follow=True) == b"1\n2\n3\nend"
        assert (await exit_of(adapter, pod.identity)).code == 0

    async def test_no_logs_of_what_never_ran(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        with pytest.raises(NotFound):
            await log(adapter, pod.identity)
        await bench.launch(adapter, pod)
        await until(adapter, pod.identity, is_running)
        with pytest.raises(NotFound):
            await log(adapter, pod.identity, "other")
        with pytest.raises(NotFound):
            await log(adapter, pod.identity, previous=True)

    async def test_runs_are_numbered(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        assert isinstance(adapter, Containers)
        pod = workload(container("sh", "-c", "echo run; exit 4"))
        await adapter.run(pod)
        for restart in range(4):
            await adapter.start(pod, "main", restart)
            await adapter.start(pod, "main", restart)
            await exit_of(adapter, pod.identity, restart=restart)
        observed = await until(adapter, pod.identity, lambda one: one.ended)
        state = observed.containers[0]
        assert state.restart == 3
        assert state.previous is not None
        assert state.previous.code == 4
        assert state.previous.container_id != state.container_id
        assert await log(adapter, pod.identity, previous=True) == b"run\n"
        # The first run is long gone, and still never run again.
        await adapter.start(pod, "main", 0)
        assert (await find(adapter, pod.identity)) == observed

    async def test_the_environment_is_exact(self, bench: Bench) -> None:
        env = {
            "A": "1",
            "EMPTY": "",
            "SPACES": " a  b ",
            "LINES": "x\ny",
            "UTF": "é",
            "PATH": "/bin",
        }
        pod = workload(container("env", "-0", env=env))
        adapter, _ = await self.finish(bench, pod)
        got = (await log(adapter, pod.identity)).decode().split("\0")[:-1]
        found = dict(one.split("=", 1) for one in got)
        assert found.pop("HOME")
        assert found == env

    async def test_a_command_that_cannot_start(self, bench: Bench) -> None:
        _, end = await self.finish(bench, workload(container("/no/such/program")))
        assert (end.code, end.reason) == (128, "StartError")
        assert "no such file" in end.message

    async def test_a_message_is_read(self, bench: Bench) -> None:
        script = "printf 'what happened' > /dev/termination-log; exit 1"
        _, end = await self.finish(bench, workload(container("sh", "-c", script)))
        assert end.message == "what happened"

    async def test_the_log_stands_for_a_message(self, bench: Bench) -> None:
        one = container("sh", "-c", "echo early; echo late; exit 1", logs_as_message=True)
        _, end = await self.finish(bench, workload(one))
        assert end.message == "early\nlate\n"


def _fields(who: Identity) -> tuple[str, str, str, str, str]:
    return (who.cluster, who.node, who.namespace, who.name, who.uid)
