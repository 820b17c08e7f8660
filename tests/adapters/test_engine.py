"""`engine`: the contract on a real engine, and what only this backend does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract import (
    PATIENCE,
    Bench,
    container,
    exit_of,
    find,
    is_running,
    log,
    until,
    workload,
)
from engine_kit import (  # noqa: F401 - the fixture `image`
    IMAGE,
    EngineBench,
    EngineContract,
    Line,
    engine_address,
    image,
)
from support import engine

from adapters.engine import Adapter, Options
from bridge.adapter import LogOptions
from bridge.errors import Invalid, Unavailable
from bridge.workload import (
    Container,
    Exit,
    Observed,
    Port,
    Resources,
    Role,
    Security,
    Waiting,
)

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench() -> AsyncIterator[EngineBench]:
    made = EngineBench(engine_address())
    yield made
    await made.close()


class TestEngine(EngineContract):
    async def test_signals(self, bench: Bench) -> None:
        # Process 1 of a container cannot kill itself: here that is the pause container's.
        pod = workload(container("sh", "-c", "kill -9 $$"), share_processes=True)
        _, end = await self.finish(bench, pod)
        assert (end.code, end.signal, end.reason) == (137, 9, "Error")


async def finish(bench: EngineBench, one: Container, **more: Any) -> tuple[Exit, str]:
    """A pod of one container to its end, and what it wrote."""
    adapter = await bench.adapter()
    pod = workload(one, **more)
    await bench.launch(adapter, pod)
    end = await exit_of(adapter, pod.identity)
    return end, (await log(adapter, pod.identity)).decode()


async def together(bench: EngineBench, *containers: Container) -> dict[str, tuple[Exit, str]]:
    """One pod of several containers to its end, and what each wrote, by name."""
    adapter = await bench.adapter()
    pod = workload(*containers)
    await bench.launch(adapter, pod)
    return {
        one.name: (
            await exit_of(adapter, pod.identity, one.name),
            (await log(adapter, pod.identity, one.name)).decode(),
        )
        for one in containers
    }


def sh(script: str, **more: Any) -> Container:
    """A container that runs a shell script."""
    return container("sh", "-c", script, **more)


async def test_out_of_memory_is_told(bench: EngineBench) -> None:
    limit = Resources(limits={"memory": 32 << 20})
    end, _ = await finish(bench, container("tail", "/dev/zero", resources=limit))
    assert (end.code, end.reason, end.signal) == (137, "OOMKilled", 9)


async def test_limits_are_in_force(bench: EngineBench) -> None:
    size = Resources({"cpu": 250}, {"cpu": 500, "memory": 64 << 20})
    script = (
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; "
        "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max"
    )
    _, text = await finish(bench, sh(f"{{ {script}; }} 2>/dev/null || true", resources=size))
    assert text.split()[0] == str(64 << 20)
    assert text.split()[1] == "50000"


async def test_the_pods_names(bench: EngineBench) -> None:
    script = "hostname; cat /etc/hosts; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
    _, text = await finish(
        bench,
        sh(script),
        hostname="here",
        host_aliases=(("1.2.3.4", ("foo", "bar")),),
        sysctls=(("net.ipv4.ip_unprivileged_port_start", "7"),),
    )
    lines = text.splitlines()
    assert lines[0] == "here"
    assert lines[1] == "# Kubernetes-managed hosts file."
    assert "1.2.3.4\tfoo\tbar" in lines
    assert any(re.fullmatch(r"[0-9.]+\there", line) for line in lines)
    assert lines[-1] == "7"
    # Nothing of the engine's own comes in.
    assert not any("podbridge" in line for line in lines)


async def test_a_port_of_the_host(bench: EngineBench) -> None:
    number = free_port()
    port = Port(80, host_port=number, host_ip="127.0.0.1")
    adapter = await bench.adapter()
    pod = workload(sh("while :; do nc -l -p 80 -e echo hi; done", ports=(port,)))
    await bench.launch(adapter, pod)
    assert await said_at(number) == b"hi\n"
    await adapter.delete(pod.identity)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", number)


async def test_an_ended_pod_lets_go_of_its_port_and_address(bench: EngineBench) -> None:
    """And a later provider still sees the same end, its message and its log."""
    number = free_port()
    port = Port(80, host_port=number, host_ip="127.0.0.1")
    adapter = await bench.adapter()
    script = "echo words; echo why >/dev/termination-log; nc -l -p 80 -e echo hi; exit 3"
    pod = workload(sh(script, ports=(port,)))
    await bench.launch(adapter, pod)
    await until(adapter, pod.identity, is_running)
    await adapter.stop_sandbox(pod.identity)
    assert await said_at(number) == b"hi\n", "what runs keeps it"
    end = await exit_of(adapter, pod.identity)
    assert (end.code, end.message) == (3, "why\n")
    await adapter.stop_sandbox(pod.identity)
    await adapter.stop_sandbox(pod.identity)
    again = await bench.adapter()
    seen = await until(again, pod.identity, lambda one: not one.pod_ips)
    assert (seen.disrupted, seen.ended) == (False, True)
    assert await exit_of(again, pod.identity) == end
    assert await log(again, pod.identity) == b"words\n"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", number)


async def test_a_pod_that_failed_before_its_mains_lets_go_as_well(bench: EngineBench) -> None:
    number = free_port()
    port = Port(80, host_port=number, host_ip="127.0.0.1")
    adapter = await bench.adapter()
    first = sh("exit 5", name="first", role=Role.INIT)
    pod = workload(first, sh("sleep 1000", ports=(port,)))
    await adapter.run(pod)
    await adapter.start(pod, "first", 0)
    end = await exit_of(adapter, pod.identity, "first")
    await adapter.stop_sandbox(pod.identity)
    again = await bench.adapter()
    seen = await until(again, pod.identity, lambda one: not one.pod_ips)
    assert not seen.disrupted
    assert (end.code, await exit_of(again, pod.identity, "first")) == (5, end)
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", number))


async def test_the_hosts_network(bench: EngineBench) -> None:
    number = free_port()
    script = f"readlink /proc/self/ns/net; hostname; exec nc -l -p {number} -e echo hi"
    adapter = await bench.adapter()
    pod = workload(sh(script), host_network=True, hostname="ignored")
    await bench.launch(adapter, pod)
    assert await said_at(number) == b"hi\n"
    await exit_of(adapter, pod.identity)
    lines = (await log(adapter, pod.identity)).decode().split()
    if (await bench.engine()).local:
        assert lines == [os.readlink("/proc/self/ns/net"), socket.gethostname()]


def free_port() -> int:
    """A TCP port of this host that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def said_at(port: int) -> bytes:
    """What comes of a port of this host, once somebody answers there."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                # A forwarder of the engine's may be there before the pod's own server.
                said = await reader.read()
                writer.close()
            except OSError:
                said = b""
            if said:
                return said
            await asyncio.sleep(0.05)


async def test_containers_share_the_network_and_ipc(bench: EngineBench) -> None:
    adapter = await bench.adapter()
    script = "for name in net ipc uts; do readlink /proc/self/ns/$name; done"
    pod = workload(sh(script, name="a"), sh(script, name="b"))
    await bench.launch(adapter, pod)
    await until(adapter, pod.identity, lambda one: one.ended)
    first = await log(adapter, pod.identity, "a")
    assert len(first.split()) == 3
    assert await log(adapter, pod.identity, "b") == first


async def test_processes_are_shared_only_where_asked(bench: EngineBench) -> None:
    for shared, first in ((True, "/pause"), (False, "sh")):
        script = r"tr '\0' ' ' < /proc/1/cmdline; true"
        _, text = await finish(bench, sh(script), share_processes=shared)
        assert text.split()[0] == first


async def test_users_and_groups(bench: EngineBench) -> None:
    asked = Security(run_as_user=1000, run_as_group=2000, supplemental_groups=(7,), fs_group=3000)
    ends = await together(
        bench,
        sh("id -u; id -g; id -G", name="all", security=asked),
        # The user is the image's then.
        sh("id -u; id -g", name="group", security=Security(run_as_group=2000)),
    )
    user, group, groups = ends["all"][1].splitlines()
    assert (user, group) == ("1000", "2000")
    assert set(groups.split()) == {"2000", "3000", "7"}
    assert ends["group"][1].split() == ["0", "2000"]


async def test_privileges(bench: EngineBench) -> None:
    script = "grep -E '^(CapEff|NoNewPrivs)' /proc/self/status; touch /x || echo cannot"
    asked = Security(
        read_only_root=True,
        no_new_privileges=True,
        drop_capabilities=("ALL",),
        add_capabilities=("NET_BIND_SERVICE",),
    )
    _, text = await finish(bench, sh(f"{{ {script}; }} 2>&1", security=asked))
    found = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert int(found["CapEff"], 16) == 1 << 10
    assert found["NoNewPrivs"] == "1"
    assert "Read-only file system" in text
    assert text.endswith("cannot\n")


async def test_non_root_is_refused_till_it_is_mended(bench: EngineBench) -> None:
    adapter = await bench.adapter()
    pod = workload(sh("true", security=Security(run_as_non_root=True)))
    await bench.launch(adapter, pod)
    found = await find(adapter, pod.identity)
    assert found is not None
    state = found.containers[0].state
    assert isinstance(state, Waiting)
    assert state.reason == "CreateContainerConfigError"
    assert state.message.startswith("container has runAsNonRoot and image will run as root (pod:")
    mended = replace(pod.containers[0], security=Security(run_as_non_root=True, run_as_user=1))
    await bench.launch(adapter, replace(pod, containers=(mended,)))
    assert (await exit_of(adapter, pod.identity)).code == 0


async def test_messages_of_any_user(bench: EngineBench) -> None:
    asked = Security(run_as_user=1000, read_only_root=True)
    script = "head -c 5000 /dev/zero | tr '\\0' x > {0}; printf end >> {0}; exit 3"
    ends = await together(
        bench,
        *(
            sh(script.format(path), name=name, security=asked, termination_message_path=path)
            for name, path in (("usual", "/dev/termination-log"), ("own", "/tmp/its/own"))
        ),
    )
    for end, _ in ends.values():
        assert end.code == 3
        assert end.message == "x" * 4093 + "end"


async def test_a_long_log_stands_for_a_message_with_its_end(bench: EngineBench) -> None:
    ends = await together(
        bench,
        sh("seq 1 1000; exit 3", name="bad", logs_as_message=True),
        sh("seq 1 1000", name="good", logs_as_message=True),
    )
    assert ends["bad"][0].message.splitlines() == [str(one) for one in range(921, 1001)]
    assert ends["good"][0].message == ""


async def test_a_line_without_an_end_holds_no_exit_up(bench: EngineBench) -> None:
    script = "head -c 20000000 /dev/zero | tr '\\0' x; printf end; exit 3"
    end, _ = await finish(bench, sh(script, logs_as_message=True))
    assert end.code == 3
    assert end.message == "x" * 2045 + "end"


async def test_an_image_that_cannot_be_pulled(bench: EngineBench) -> None:
    adapter = await bench.adapter()
    pod = workload(replace(sh("true"), image="127.0.0.1:1/no/such:1"))
    await bench.launch(adapter, pod)

    def reason(observed: Observed) -> str:
        state = observed.containers[0].state if observed.containers else None
        return state.reason if isinstance(state, Waiting) else ""

    found = await until(adapter, pod.identity, lambda one: reason(one) == "ErrImagePull")
    state = found.containers[0].state
    assert isinstance(state, Waiting)
    assert "connection refused" in state.message
    assert not found.ended
    await adapter.start(pod, "main", 0)
    found = await until(adapter, pod.identity, lambda one: reason(one) == "ImagePullBackOff")
    state = found.containers[0].state
    assert isinstance(state, Waiting)
    assert state.message.startswith('Back-off pulling image "127.0.0.1:1/no/such:1": ')


async def test_a_failed_start_is_remembered(bench: EngineBench) -> None:
    adapter = await bench.adapter()
    pod = workload(container("/etc/passwd"))
    await bench.launch(adapter, pod)
    end = await exit_of(adapter, pod.identity)
    assert (end.code, end.reason) == (128, "StartError")
    assert "permission denied" in end.message
    again = await bench.adapter()
    assert await exit_of(again, pod.identity) == end
    await again.start(pod, "main", 0)
    assert await exit_of(again, pod.identity) == end


async def test_secrets_are_in_no_words(bench: EngineBench) -> None:
    end, _ = await finish(bench, container("/no/hidden", secret_words=("command[0]",)))
    assert end.reason == "StartError"
    kinds = ("executable file not found in $PATH", "no such file or directory")
    assert end.message in kinds


async def test_a_dead_pause_container_is_a_disruption(bench: EngineBench) -> None:
    adapter = await bench.adapter()
    pod = bench.endless()
    await bench.launch(adapter, pod)
    await until(adapter, pod.identity, is_running)
    engine = await bench.engine()
    await engine.call("POST", f"containers/{await bench.pause(pod.identity)}/kill")
    await until(adapter, pod.identity, lambda one: one.disrupted)
    await adapter.start(pod, "main", 1)
    found = await until(adapter, pod.identity, lambda one: one.disrupted)
    assert [one.restart for one in found.containers] == [0]


async def test_a_pause_container_that_dies_before_anything_ran_is_started_again(
    bench: EngineBench,
) -> None:
    """As where a provider is killed while it starts one: the engine may take that back."""
    adapter = await bench.adapter()
    pod = bench.brief(3)
    await adapter.run(pod)
    engine = await bench.engine()
    await engine.call("POST", f"containers/{await bench.pause(pod.identity)}/kill")
    again = await bench.adapter()
    seen = await until(again, pod.identity, lambda one: not one.pod_ips)
    assert (seen.disrupted, seen.ended) == (False, False)
    await again.run(pod)
    await again.start(pod, "main", 0)
    assert (await exit_of(again, pod.identity)).code == 3


async def test_one_that_dies_while_its_first_container_is_made_is_started_again(
    bench: EngineBench,
) -> None:
    adapter = await bench.adapter()
    pod = bench.brief(3)
    await adapter.run(pod)
    engine = await bench.engine()
    pause = await bench.pause(pod.identity)
    start = adapter.launcher._begin

    async def dies(run: Any) -> None:
        await engine.call("POST", f"containers/{pause}/kill")
        await until(adapter, pod.identity, lambda one: not one.pod_ips)
        await start(run)

    adapter.launcher._begin = dies  # type: ignore[method-assign]
    # Some engines start again what is joined, others refuse.
    with contextlib.suppress(Unavailable):
        await adapter.start(pod, "main", 0)
    adapter.launcher._begin = start  # type: ignore[method-assign]
    await adapter.start(pod, "main", 0)
    assert (await exit_of(adapter, pod.identity)).code == 3


async def test_a_deaf_container_is_killed_after_its_grace(bench: EngineBench) -> None:
    adapter = await bench.adapter()
    pod = workload(sh("trap '' TERM; echo ready; while :; do sleep 0.1; done"))
    await bench.launch(adapter, pod)
    await until(adapter, pod.identity, is_running)
    await adapter.kill(pod.identity, "main", 60)
    await adapter.kill(pod.identity, "main", 0.5)
    end = await exit_of(adapter, pod.identity)
    assert (end.code, end.signal, end.reason) == (137, 9, "Error")


async def test_the_stop_signal_is_the_containers(bench: EngineBench) -> None:
    adapter = await bench.adapter()
    one = sh("trap 'exit 4' USR1; trap '' TERM; echo ready; sleep 1000 & wait")
    pod = workload(replace(one, stop_signal="SIGUSR1"))
    await bench.launch(adapter, pod)
    await until(adapter, pod.identity, is_running)
    pieces = adapter.logs(pod.identity, "main", LogOptions(follow=True))
    async with asyncio.timeout(PATIENCE):
        assert await anext(aiter(pieces)) == b"ready\n"
    await pieces.aclose()
    await adapter.kill(pod.identity, "main", 60)
    assert (await exit_of(adapter, pod.identity)).code == 4


async def test_two_owners_do_not_see_each_other(bench: EngineBench) -> None:
    adapter = await bench.adapter()
    await adapter.run(bench.endless())
    other = EngineBench(bench.address)
    assert await (await other.adapter()).list() == []
    await other.close()
    assert len(await adapter.list()) == 1


async def test_an_engine_that_goes_and_comes_back(bench: EngineBench, tmp_path: Path) -> None:
    line = Line(bench.address, tmp_path / "engine.sock")
    await line.mend()
    adapter = await bench.adapter(line.address)
    pod = bench.endless()
    await bench.launch(adapter, pod)
    before = await until(adapter, pod.identity, is_running)
    seen: asyncio.Queue[Observed] = asyncio.Queue()

    async def watch() -> None:
        async for one in adapter.events():
            seen.put_nowait(one)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await line.cut()
    for call in (
        adapter.list(),
        adapter.run(pod),
        adapter.start(pod, "main", 1),
        adapter.stop(pod.identity, 0),
        adapter.delete(pod.identity),
        adapter.exec(pod.identity, "main", ["true"], stdin=False, tty=False),
    ):
        with pytest.raises(Unavailable):
            await call
    await line.mend()
    assert await find(adapter, pod.identity) == before
    await adapter.stop(pod.identity, 0)
    async with asyncio.timeout(PATIENCE):
        # What happened meanwhile is told once the engine is heard again.
        while not isinstance((await seen.get()).containers[0].state, Exit):
            pass
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await adapter.delete(pod.identity)
    await adapter.close()
    await line.cut()


async def test_no_engine_is_unavailable() -> None:
    adapter = Adapter("engine", Options(host="unix:///no/such.sock"))
    with pytest.raises(Unavailable, match="podman"):
        await adapter.open()
    with pytest.raises(Unavailable, match="not open"):
        await adapter.list()
    await adapter.close()


def _anonymous() -> set[str]:
    """Volumes that nobody gave a name."""
    found = engine.call("GET", "/volumes")["Volumes"] or []
    return {one["Name"] for one in found if re.fullmatch(r"[0-9a-f]{64}", one["Name"])}


@pytest.mark.parametrize("script", ["exit 0", "exec sleep 1000"])
async def test_what_an_image_declares_goes_with_the_pod(bench: EngineBench, script: str) -> None:
    name = f"localhost/volumes-{uuid.uuid4()}:1"
    repository, _, tag = name.rpartition(":")
    client = await bench.engine()
    made = await client.call("POST", "containers/create", body={"Image": IMAGE})
    try:
        params = {"container": made["Id"], "repo": repository, "tag": tag}
        params["changes"] = "VOLUME /data"
        await client.call("POST", "commit", params=params, body={})
    finally:
        await client.call("DELETE", f"containers/{made['Id']}", params={"force": True})
    try:
        adapter = await bench.adapter()
        pod = workload(replace(sh(f"echo x > /data/x; echo up; {script}"), image=name))
        await bench.launch(adapter, pod)
        await until(adapter, pod.identity, lambda seen: bool(seen.containers))
        (run,) = [
            one
            for one in await bench.containers(pod.identity)
            if one != await bench.pause(pod.identity)
        ]
        mounts = (await client.call("GET", f"containers/{run}/json"))["Mounts"]
        own = {one["Name"] for one in mounts if one.get("Destination") == "/data"}
        assert own <= _anonymous()
        assert own
        await adapter.delete(pod.identity)
        assert not own & _anonymous()
    finally:
        await client.call("DELETE", f"images/{name}", params={"force": True})


@pytest.mark.parametrize("size", [4096, 200_000])
async def test_a_command_longer_than_a_path_hangs_nothing(bench: EngineBench, size: int) -> None:
    end, _ = await finish(bench, container("/" + "x" * (size - 1)))
    assert (end.code, end.reason, end.message) == (128, "StartError", "file name too long")
    adapter = await bench.adapter()
    pod = bench.endless()
    await bench.launch(adapter, pod)
    await until(adapter, pod.identity, is_running)
    with pytest.raises(Invalid, match="file name too long"):
        await adapter.exec(pod.identity, "main", ["x" * size], stdin=False, tty=False)
