"""What adapters with exec, attach, dial or stats do alike: cases for whoever really runs commands.

Written from the docstrings of `bridge.adapter`. Commands are those of a busybox image and of any
Linux. A case whose ability an adapter does not have is skipped, and says so.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from contract import (
    PATIENCE,
    Bench,
    container,
    exit_of,
    find,
    identity,
    is_running,
    log,
    until,
    workload,
)
from support.channels import drained, reads, soon

from bridge.adapter import Adapter, Attach, Channel, Containers, Dial, Exec, Size, Stats, Usage
from bridge.errors import Invalid, NotFound, Unavailable
from bridge.workload import Container, EmptyDir, Exit, Mount, Role, Workload

MIB = 1024 * 1024
_STILL = 5
"""Looks at something that no longer changes."""
ECHOES = 'while read line; do echo "got $line"; done; echo over; exit 4'


def has(adapter: Adapter, ability: type) -> None:
    """Skips the case where the adapter does not have that ability."""
    if not isinstance(adapter, ability):
        pytest.skip(f"{adapter.type} has no {ability.__name__}")


class Rig:
    """A running pod, and short words for what is done to it."""

    def __init__(self, bench: Bench, adapter: Adapter, pod: Workload) -> None:
        self.bench = bench
        self.adapter = adapter
        self.pod = pod
        self.who = pod.identity

    async def exec(
        self, *command: str, stdin: bool = False, tty: bool = False, name: str = "main"
    ) -> Channel:
        """A command in it."""
        assert isinstance(self.adapter, Exec)
        return await self.adapter.exec(self.who, name, command, stdin=stdin, tty=tty)

    async def sh(self, script: str, *, stdin: bool = False, tty: bool = False) -> Channel:
        """A script in it."""
        return await self.exec("sh", "-c", script, stdin=stdin, tty=tty)

    async def says(self, script: str) -> bytes:
        """What a script in it writes."""
        return (await drained(await self.sh(script)))[0]

    async def attach(self, *, stdin: bool = False) -> Channel:
        """Its own streams."""
        assert isinstance(self.adapter, Attach)
        return await self.adapter.attach(self.who, "main", stdin=stdin)


async def rig(bench: Bench, ability: type, one: Container | None = None) -> Rig:
    """A pod of that container (one that does nothing, with a shared folder /work), running."""
    adapter = await bench.adapter()
    has(adapter, ability)
    one = one or container("sleep", "1000", mounts=[Mount("work", "/work")])
    volumes = [EmptyDir("work")] if one.mounts else []
    pod = workload(one, volumes=volumes)
    await bench.launch(adapter, pod)
    await until(adapter, pod.identity, is_running)
    return Rig(bench, adapter, pod)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class ExecContract:
    """Commands in a running container: where, and how they end."""

    @pytest.mark.parametrize("code", [0, 3, 255])
    async def test_exec_ends_with_its_own_code(self, bench: Bench, code: int) -> None:
        one = await rig(bench, Exec)
        assert await drained(await one.sh(f"exit {code}")) == (b"", b"", code)

    @pytest.mark.parametrize("number", [9, 15])
    async def test_exec_that_dies_of_a_signal(self, bench: Bench, number: int) -> None:
        one = await rig(bench, Exec)
        assert (await drained(await one.sh(f"kill -{number} $$")))[2] == 128 + number

    async def test_exec_where_nothing_runs(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        with pytest.raises(NotFound):
            await one.exec("true", name="other")
        with pytest.raises(NotFound):
            await Rig(bench, one.adapter, workload(who=identity())).exec("true")
        await one.adapter.stop(one.who, 0)
        await exit_of(one.adapter, one.who)
        with pytest.raises(NotFound):
            await one.exec("true")

    @pytest.mark.parametrize("command", ["no-such-program", "/no/such/program", "/etc"])
    async def test_exec_of_what_cannot_be_started(self, bench: Bench, command: str) -> None:
        one = await rig(bench, Exec)
        with pytest.raises(Invalid, match=command) as caught:
            await one.exec(command)
        assert "Traceback" not in caught.value.message
        assert await one.says("echo still here") == b"still here\n"

    async def test_exec_after_the_provider_started_again(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        if not bench.survives:
            pytest.skip("nothing survives its provider here")
        await one.adapter.close()
        again = Rig(bench, await bench.adapter(), one.pod)
        await bench.reachable(again.adapter, one.who)
        assert await again.says("echo again") == b"again\n"

    async def test_exec_of_a_container_that_ends(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        channel = await one.sh("echo begun; exec sleep 1000")
        await reads(channel, b"begun\n")
        await one.adapter.stop(one.who, 0)
        assert await drained(channel) == (b"", b"", 137)


class ExecStreamsContract:
    """What goes to and fro between a command and its caller."""

    async def test_exec_keeps_stderr_apart(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        channel = await one.sh("echo out; echo err >&2; echo out")
        assert await drained(channel) == (b"out\nout\n", b"err\n", 0)

    async def test_exec_reads_stdin_to_its_end(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        channel = await one.sh("cat; echo end", stdin=True)
        await channel.write(b"a\n")
        assert await reads(channel, b"a\n") == b"a\n"
        await channel.write(b"b")
        await channel.close_input()
        assert await drained(channel) == (b"bend\n", b"", 0)

    async def test_exec_without_stdin_has_nothing_to_read(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        channel = await one.sh("cat; echo end")
        await channel.write(b"for nobody")
        assert await drained(channel) == (b"end\n", b"", 0)

    async def test_exec_drops_input_that_nobody_wants(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        channel = await one.sh("exec <&-; echo closed; sleep 1000", stdin=True)
        await reads(channel, b"closed\n")
        async with asyncio.timeout(PATIENCE):
            for _ in range(8):
                await channel.write(bytes(32 * 1024))
        await channel.close()

    async def test_exec_passes_any_bytes_both_ways(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        channel = await one.exec("cat", stdin=True)
        data = os.urandom(MIB)

        async def feed() -> None:
            for start in range(0, MIB, 50_000):
                await channel.write(data[start : start + 50_000])
            await channel.close_input()

        feeding = asyncio.create_task(feed())
        out, err, code = await drained(channel)
        await feeding
        assert (out == data, err, code) == (True, b"", 0)

    async def test_exec_says_the_exit_after_the_last_byte(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        channel = await one.sh("head -c 300000 /dev/zero; exit 7")
        ending = asyncio.create_task(channel.wait())
        size = 0
        while size < 300_000:
            assert not ending.done()
            size += len((await channel.read())[1])
            await asyncio.sleep(0.005)
        assert await drained(channel) == (b"", b"", 7)
        assert await ending == 7

    async def test_exec_blocks_who_writes_for_a_reader_that_stops(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        before = _resident()
        script = (
            "i=0; while [ $i -lt 32 ]; do head -c 1048576 /dev/zero; i=$((i+1)); echo $i >/work/n"
        )
        channel = await one.sh(f"{script}; done")
        written, looks = b"", 0
        while looks < _STILL:
            now = await one.says("cat /work/n 2>/dev/null")
            looks, written = (looks + 1 if now == written else 0), now
            await asyncio.sleep(0.05)
        assert int(written or b"0") < 24
        assert _resident() - before < 16 * MIB
        out, err, code = await drained(channel)
        assert (len(out), err, code) == (32 * MIB, b"", 0)

    async def test_exec_on_a_terminal(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        script = "read x; stty size; test -t 0 && test -t 1 && test -t 2 && echo $x >&2; exit 5"
        channel = await one.sh(script, stdin=True, tty=True)
        await channel.resize(Size(width=100, height=40))
        await channel.write(b"word\n")
        out, err, code = await drained(channel)
        assert (err, code) == (b"", 5)
        assert out.replace(b"\r\n", b"\n") == b"word\n40 100\nword\n"

    async def test_exec_resizes_while_data_is_blocked(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        # No trap of SIGWINCH: a shell may be about to wait, and looks at its traps after that only.
        looks = "while sleep 0.05; do stty size >/work/size 2>/dev/null; echo >>/work/turns; done"
        script = f"echo ready; yes & {looks}"
        channel = await one.sh(script, tty=True)
        await asyncio.wait_for(channel.read(), PATIENCE)

        async def begun() -> bool:
            # By then `yes` has filled whatever lies between.
            return len(await one.says("cat /work/turns 2>/dev/null")) > 5

        await soon(begun)
        await channel.resize(Size(width=77, height=33))

        async def resized() -> bool:
            return await one.says("cat /work/size 2>/dev/null") == b"33 77\n"

        await soon(resized)
        await asyncio.wait_for(channel.close(), PATIENCE)

    async def test_closing_an_exec_ends_all_its_processes(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        channel = await one.sh("sleep 1000 & echo $! $$ >/work/pids; wait")

        async def gone() -> bool:
            # A zombie has ended: whether its parent looks is not the adapter's matter.
            script = (
                "for p in $(cat /work/pids); do grep -qs '^State:.[^ZX]' /proc/$p/status && echo $p"
            )
            return await one.says(f"{script}; done") == b""

        async def written() -> bool:
            return len((await one.says("cat /work/pids 2>/dev/null")).split()) == 2

        await soon(written)
        assert not await gone()
        await channel.close()
        await channel.close()
        await soon(gone)
        assert await find(one.adapter, one.who) is not None

    async def test_many_execs_at_once(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        said = await asyncio.gather(*(one.says(f"echo {number}") for number in range(20)))
        assert said == [b"%d\n" % number for number in range(20)]


class AttachContract:
    """The streams of a container's own process."""

    async def test_attach_feeds_and_hears(self, bench: Bench) -> None:
        one = await rig(bench, Attach, container("sh", "-c", ECHOES, stdin=True))
        first, second = await one.attach(stdin=True), await one.attach()
        await first.write(b"a\n")
        assert await reads(first, b"got a\n") == b"got a\n"
        assert await reads(second, b"got a\n") == b"got a\n"
        await first.close_input()
        await first.close()
        third = await one.attach(stdin=True)
        await third.write(b"b\n")
        assert await reads(second, b"got b\n") == b"got b\n"
        # From now on: what was before is not heard.
        assert await reads(third, b"got b\n") == b"got b\n"
        await one.adapter.stop(one.who, 0)
        assert await drained(second) == (b"", b"", 137)
        assert await drained(third) == (b"", b"", 137)

    async def test_stdin_once_ends_with_its_first_attachment(self, bench: Bench) -> None:
        one = await rig(bench, Attach, container("sh", "-c", ECHOES, stdin=True, stdin_once=True))
        hearing = await one.attach()
        feeding = await one.attach(stdin=True)
        await feeding.write(b"a\n")
        await feeding.close_input()
        assert await drained(hearing) == (b"got a\nover\n", b"", 4)
        assert await drained(feeding) == (b"got a\nover\n", b"", 4)
        assert (await exit_of(one.adapter, one.who)).code == 4
        assert await log(one.adapter, one.who) == b"got a\nover\n"

    async def test_a_container_without_stdin_reads_its_end(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = workload(container("sh", "-c", ECHOES))
        await bench.launch(adapter, pod)
        assert (await exit_of(adapter, pod.identity)).code == 4

    async def test_attach_keeps_stderr_apart(self, bench: Bench) -> None:
        script = "read x; echo out; echo err >&2; exit 6"
        one = await rig(bench, Attach, container("sh", "-c", script, stdin=True))
        channel = await one.attach(stdin=True)
        await channel.write(b"\n")
        assert await drained(channel) == (b"out\n", b"err\n", 6)

    async def test_attach_on_a_terminal(self, bench: Bench) -> None:
        script = "read x; stty size; echo err >&2; read x; exit 3"
        one = await rig(bench, Attach, container("sh", "-c", script, stdin=True, tty=True))
        channel = await one.attach(stdin=True)
        await channel.resize(Size(width=90, height=30))
        await channel.write(b"go\n")
        said = await reads(channel, b"err\r\n")
        assert said == b"go\r\n30 90\r\nerr\r\n"
        await channel.write(b"\n")
        assert (await drained(channel))[1:] == (b"", 3)
        assert await log(one.adapter, one.who, stream="stdout") == said + b"\r\n"

    async def test_leaving_does_not_end_the_container(self, bench: Bench) -> None:
        one = await rig(bench, Attach, container("sh", "-c", ECHOES, stdin=True))
        channel = await one.attach(stdin=True)
        await channel.close()
        await channel.close()
        again = await one.attach(stdin=True)
        await again.write(b"a\n")
        assert await reads(again, b"got a\n") == b"got a\n"
        await again.close()

    async def test_attach_where_nothing_runs(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        has(adapter, Attach)
        assert isinstance(adapter, Attach)
        pod = bench.brief()
        with pytest.raises(NotFound):
            await adapter.attach(pod.identity, "main", stdin=False)
        await bench.launch(adapter, pod)
        await exit_of(adapter, pod.identity)
        with pytest.raises(NotFound):
            await adapter.attach(pod.identity, "main", stdin=False)


class DialContract:
    """Connections to ports."""

    @pytest.mark.parametrize("inside", [True, False])
    async def test_dial_reaches_who_listens(self, bench: Bench, inside: bool) -> None:
        port = bench.port()
        one = await rig(bench, Dial, bench.echo(port))
        channel = await _dial(one, port, inside)
        data = os.urandom(MIB)

        async def feed() -> None:
            await channel.write(data)
            await channel.close_input()

        feeding = asyncio.create_task(feed())
        out, err, code = await drained(channel)
        await feeding
        assert (out == data, err, code) == (True, b"", 0)

    async def test_dial_blocks_who_writes_for_a_reader_that_stops(self, bench: Bench) -> None:
        port = bench.port()
        one = await rig(bench, Dial, bench.echo(port))
        channel = await _dial(one, port, True)
        taken, before = 0, _resident()
        while taken < 64 * MIB:
            writing = asyncio.create_task(channel.write(bytes(256 * 1024)))
            if not (await asyncio.wait([writing], timeout=1))[0]:
                break
            taken += 256 * 1024
        writing.cancel()
        assert taken < 64 * MIB
        assert _resident() - before < 16 * MIB
        await channel.close()

    @pytest.mark.parametrize("inside", [True, False])
    async def test_dial_where_nobody_listens(self, bench: Bench, inside: bool) -> None:
        one = await rig(bench, Dial)
        assert isinstance(one.adapter, Dial)
        with pytest.raises(Unavailable):
            await one.adapter.dial(one.who, bench.port(), inside=inside)

    async def test_dial_where_nothing_runs(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        has(adapter, Dial)
        assert isinstance(adapter, Dial)
        with pytest.raises(NotFound):
            await adapter.dial(identity(), bench.port(), inside=True)


async def _dial(one: Rig, port: int, inside: bool) -> Channel:
    """As soon as somebody listens."""
    assert isinstance(one.adapter, Dial)
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await one.adapter.dial(one.who, port, inside=inside)
            except Unavailable:
                await asyncio.sleep(0.02)


class StatsContract:
    """What containers use."""

    async def test_stats_grow(self, bench: Bench) -> None:
        one = await rig(bench, Stats, container("sh", "-c", "while :; do :; done"))
        first = await _usage(one)
        assert first is not None
        assert first.container == "main"

        async def more() -> bool:
            now = await _usage(one)
            assert now is not None
            assert now.time >= first.time
            if not now.memory_bytes:
                # It is just about to begin.
                return False
            return (now.cpu_nanoseconds or 0) > (first.cpu_nanoseconds or 0) + 20_000_000

        await soon(more)

    async def test_stats_leave_out_what_is_not_known(self, bench: Bench) -> None:
        one = await rig(bench, Stats)
        assert isinstance(one.adapter, Stats)
        found = await one.adapter.stats([identity(), one.who])
        assert list(found) == [one.who.uid]
        assert await one.adapter.stats([]) == {}


async def _usage(one: Rig) -> Usage | None:
    assert isinstance(one.adapter, Stats)
    found = (await one.adapter.stats([one.who])).get(one.who.uid, ())
    return found[0] if found else None


class StreamsContract(
    ExecContract, ExecStreamsContract, AttachContract, DialContract, StatsContract
):
    """The suite. Subclass it in a module that has a fixture `bench`."""

    async def test_an_ephemeral_container_joins_a_running_pod(self, bench: Bench) -> None:
        one = await rig(bench, Exec)
        has(one.adapter, Containers)
        assert isinstance(one.adapter, Containers)
        debug = container(
            "sh",
            "-c",
            "cat; exit 9",
            name="debug",
            role=Role.EPHEMERAL,
            mounts=[Mount("work", "/work")],
            stdin=True,
            stdin_once=True,
        )
        pod = replace(one.pod, containers=(*one.pod.containers, debug))
        await one.adapter.start(pod, "debug", 0)
        await one.adapter.start(pod, "debug", 0)
        await until(one.adapter, one.who, lambda found: is_running(found, "debug"))
        assert await drained(await one.exec("true", name="debug")) == (b"", b"", 0)
        assert isinstance(one.adapter, Attach)
        channel = await one.adapter.attach(one.who, "debug", stdin=True)
        await channel.write(b"hello\n")
        await channel.close_input()
        assert await drained(channel) == (b"hello\n", b"", 9)
        end = await exit_of(one.adapter, one.who, "debug")
        assert isinstance(end, Exit)
        assert end.code == 9
        observed = await find(one.adapter, one.who)
        assert observed is not None
        assert is_running(observed)
        assert not observed.ended
        await one.adapter.stop(one.who, 0)
        assert (await until(one.adapter, one.who, lambda found: found.ended)).ended
