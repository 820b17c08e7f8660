"""exec, attach and ports through the tunnel of a real helper."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
from pathlib import Path

import pytest
from helper_kit import IDENTITY, PATIENCE, Make, container
from support.channels import drained, reads, soon
from tunnel_kit import MIB, gone, resident, rig

from bridge.adapter import Size
from bridge.errors import Invalid, NotFound, Unavailable
from bridge.workload import EnvVar, Security

pytestmark = pytest.mark.slow
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run as another user")
STAYS = "exec sleep 1000"
ECHOES = 'while read line; do echo "got $line"; done; echo over; exit 4'


async def test_exec_has_its_own_code_streams_and_place(make: Make, tmp_path: Path) -> None:
    one = container("m", STAYS, env=(EnvVar("OWN", "value"),), working_dir=str(tmp_path))
    async with rig(make, one) as made:
        script = "echo out $OWN $IMAGE; pwd; echo err >&2; exit 7"
        said = f"out value from the image\n{tmp_path}\n".encode()
        assert await drained(await made.sh(script)) == (said, b"err\n", 7)
        assert await drained(await made.sh("kill -9 $$")) == (b"", b"", 137)
        # Nothing to read where no stdin was asked for, and what is written is dropped.
        channel = await made.sh("cat; echo end")
        await channel.write(b"for nobody")
        assert await drained(channel) == (b"end\n", b"", 0)
        # What it leaves in the background holds nobody up.
        behind = "sleep 1000 & echo $! >behind; echo x; exit 3"
        assert await drained(await made.sh(behind)) == (b"x\n", b"", 3)
        os.kill(int((tmp_path / "behind").read_text()), signal.SIGKILL)
        found = await asyncio.gather(*(made.says(f"echo {number}") for number in range(20)))
        assert found == [b"%d\n" % number for number in range(20)]


@as_root
async def test_exec_is_the_containers_user_and_has_nothing_of_the_helpers(make: Make) -> None:
    security = Security(run_as_user=1234, supplemental_groups=(77,))
    async with rig(make, container("m", STAYS, working_dir="/", security=security)) as made:
        script = "id -u; id -G; ls /proc/self/fd | wc -l; cat /proc/$PPID/environ /proc/$PPID/maps"
        out, err, _ = await drained(await made.sh(script))
        user, groups, files = out.decode().splitlines()
        assert (user, "77" in groups.split(), int(files)) == ("1234", True, 4)
        assert err.count(b"ermission denied") == 2


async def test_exec_of_what_cannot_be_started(make: Make) -> None:
    async with rig(make, container("m", STAYS)) as made:
        for command, words in (
            (["no-such-program"], "not found"),
            (["/etc"], "denied"),
            ([], "no command"),
            ([""], "no command"),
            (["/bin/echo", "x" * 3 * MIB], "argument list too long"),
        ):
            with pytest.raises(Invalid, match=words):
                await made.tunnels.exec(IDENTITY, "m", command, stdin=False, tty=False)
        with pytest.raises(NotFound):
            await made.tunnels.exec(IDENTITY, "other", ["true"], stdin=False, tty=False)
        assert await made.says("echo still here") == b"still here\n"


async def test_a_terminal_has_its_size_and_its_kind(make: Make) -> None:
    async with rig(make, container("m", STAYS)) as made:
        script = "read x; stty size; test -t 0 && test -t 2 && echo $x $TERM >&2; exit 5"
        channel = await made.sh(script, stdin=True, tty=True)
        await channel.resize(Size(width=100, height=40))
        await channel.write(b"word\n")
        out, err, code = await drained(channel)
        assert (err, code) == (b"", 5)
        assert out.replace(b"\r\n", b"\n") == b"word\n40 100\nword xterm\n"


async def test_a_terminal_is_resized_while_its_data_is_blocked(make: Make, tmp_path: Path) -> None:
    async with rig(make, container("m", STAYS, working_dir=str(tmp_path))) as made:
        looks = "while sleep 0.05; do stty size >size.new; mv size.new size; echo >>turns; done"
        channel = await made.sh(f"yes & {looks}", tty=True)

        async def begun() -> bool:
            return len(await made.says("cat turns 2>/dev/null")) > 5

        await soon(begun)
        await channel.resize(Size(width=77, height=33))

        async def resized() -> bool:
            return await made.says("cat size 2>/dev/null") == b"33 77\n"

        await soon(resized)
        await asyncio.wait_for(channel.close(), PATIENCE)


async def test_much_data_out_for_a_reader_that_stops(make: Make) -> None:
    async with rig(make, container("m", STAYS)) as made:
        helper = made.pod.running["m"].pid
        await made.says("true")
        before, ours = resident(helper), resident(os.getpid())
        channel = await made.sh("head -c 67108864 /dev/zero; exit 6")
        # Others are not held up, and by then whatever lies between is full.
        for _ in range(20):
            assert await made.says("echo x") == b"x\n"
        assert resident(helper) - before < 4 * MIB
        assert resident(os.getpid()) - ours < 8 * MIB
        found, size = hashlib.sha256(), 0
        async with asyncio.timeout(PATIENCE):
            while True:
                name, data = await channel.read()
                if not name:
                    break
                found.update(data)
                size += len(data)
        assert (size, await channel.wait()) == (64 * MIB, 6)
        assert found.digest() == hashlib.sha256(bytes(64 * MIB)).digest()
        assert resident(helper) - before < 4 * MIB
        await channel.close()


async def test_much_data_in_for_a_process_that_stops(make: Make, tmp_path: Path) -> None:
    async with rig(make, container("m", STAYS, working_dir=str(tmp_path))) as made:
        helper = made.pod.running["m"].pid
        await made.says("true")
        before, ours = resident(helper), resident(os.getpid())
        script = "while ! test -e go; do sleep 0.02; done; sha256sum | cut -d' ' -f1"
        channel = await made.sh(script, stdin=True)
        piece, found, taken = os.urandom(MIB), hashlib.sha256(), 0

        async def feed() -> None:
            nonlocal taken
            for _ in range(64):
                await channel.write(piece)
                found.update(piece)
                taken += MIB
            await channel.close_input()

        feeding = asyncio.create_task(feed())
        for _ in range(20):
            assert await made.says("echo x") == b"x\n"
        assert taken < 8 * MIB
        assert resident(helper) - before < 4 * MIB
        assert resident(os.getpid()) - ours < 8 * MIB
        (tmp_path / "go").touch()
        out, _, code = await drained(channel)
        await feeding
        assert (out.decode().strip(), code) == (found.hexdigest(), 0)


async def test_input_that_nobody_wants_is_dropped(make: Make) -> None:
    async with rig(make, container("m", STAYS)) as made:
        channel = await made.sh("exec <&-; echo closed; exec sleep 1000", stdin=True)
        await reads(channel, b"closed\n")
        async with asyncio.timeout(PATIENCE):
            for _ in range(64):
                await channel.write(bytes(32 * 1024))
        await channel.close()


@pytest.mark.parametrize("tty", [False, True])
async def test_closing_ends_all_processes_though_data_is_blocked(make: Make, tty: bool) -> None:
    async with rig(make, container("m", STAYS)) as made:
        channel = await made.sh("sleep 1000 & echo $! $$; exec yes", tty=tty)
        line = (await channel.read())[1].split(b"\n")[0]
        pids = [int(one) for one in line.split()]
        assert len(pids) == 2
        await asyncio.wait_for(channel.close(), PATIENCE)
        await channel.close()

        async def over() -> bool:
            return all(gone(one) for one in pids)

        await soon(over)
        with pytest.raises(Unavailable):
            await channel.read()


async def test_the_end_of_the_container_ends_what_runs_in_it(make: Make) -> None:
    async with rig(make, container("m", STAYS)) as made:
        channel = await made.sh("echo begun; exec sleep 1000")
        await reads(channel, b"begun\n")
        assert await made.tunnels.stop(IDENTITY, 0)
        assert await drained(channel) == (b"", b"", 137)


async def test_attach_feeds_and_hears(make: Make) -> None:
    async with rig(make, container("m", ECHOES, stdin=True)) as made:
        attach = made.tunnels.attach
        first = await attach(IDENTITY, "m", stdin=True)
        second = await attach(IDENTITY, "m", stdin=False)
        await first.write(b"a\n")
        assert await reads(first, b"got a\n") == b"got a\n"
        assert await reads(second, b"got a\n") == b"got a\n"
        await first.close_input()
        await first.close()
        third = await attach(IDENTITY, "m", stdin=True)
        await third.write(b"b\n")
        assert await reads(third, b"got b\n") == b"got b\n"
        await made.tunnels.stop(IDENTITY, 0)
        out, err, code = await drained(second)
        assert (out, err, code) == (b"got b\n", b"", 143)
        assert await drained(third) == (b"", b"", 143)
        assert (await asyncio.to_thread(made.pod.join, "m", 143))[0] == b"got a\ngot b\n"


async def test_stdin_once_ends_with_its_first_attachment(make: Make) -> None:
    async with rig(make, container("m", ECHOES, stdin=True, stdin_once=True)) as made:
        hearing = await made.tunnels.attach(IDENTITY, "m", stdin=False)
        feeding = await made.tunnels.attach(IDENTITY, "m", stdin=True)
        await feeding.write(b"a\n")
        await feeding.close_input()
        for one in (hearing, feeding):
            assert await drained(one) == (b"got a\nover\n", b"", 4)
        assert await asyncio.to_thread(made.pod.join, "m", 4) == (b"got a\nover\n", b"")


async def test_a_container_with_a_terminal(make: Make) -> None:
    script = "read x; stty size; echo err $TERM >&2; read x; exit 3"
    async with rig(make, container("m", script, stdin=True, tty=True)) as made:
        channel = await made.tunnels.attach(IDENTITY, "m", stdin=True)
        await channel.resize(Size(width=90, height=30))
        await channel.write(b"go\n")
        said = await reads(channel, b"err xterm\r\n")
        assert said == b"go\r\n30 90\r\nerr xterm\r\n"
        await channel.write(b"\n")
        assert (await drained(channel))[1:] == (b"", 3)
        assert (await asyncio.to_thread(made.pod.join, "m", 3))[0] == said + b"\r\n"


async def test_who_hears_too_slowly_is_cut_off_and_holds_up_nobody(
    make: Make, tmp_path: Path
) -> None:
    script = (
        f"while ! test -e {tmp_path}/go; do sleep 0.02; done; head -c 8388608 /dev/zero; {STAYS}"
    )
    async with rig(make, container("m", script)) as made:
        channel = await made.tunnels.attach(IDENTITY, "m", stdin=False)
        (tmp_path / "go").touch()
        process = made.pod.running["m"]
        assert process.stdout is not None
        wrote = await asyncio.to_thread(process.stdout.read, 8 * MIB)
        assert len(wrote) == 8 * MIB
        with pytest.raises(Unavailable):
            await drained(channel)
        await channel.close()


@pytest.mark.parametrize("inside", [True, False])
async def test_a_port_of_the_pod(make: Make, inside: bool) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with rig(make, container("m", STAYS)) as made:
        channel = await made.tunnels.dial(IDENTITY, port, inside=inside)
        data = os.urandom(MIB)

        async def feed() -> None:
            await channel.write(data)
            await channel.close_input()

        feeding = asyncio.create_task(feed())
        out, err, code = await drained(channel)
        await feeding
        assert (out == data, err, code) == (True, b"", 0)
        server.close()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            with pytest.raises(Unavailable, match="refused"):
                await made.tunnels.dial(IDENTITY, free.getsockname()[1], inside=inside)


async def test_usage_grows(make: Make) -> None:
    async with rig(make, container("m", "while :; do :; done")) as made:
        (first,) = (await made.tunnels.stats([IDENTITY]))[IDENTITY.uid]

        async def more() -> bool:
            (now,) = (await made.tunnels.stats([IDENTITY]))[IDENTITY.uid]
            assert now.memory_bytes
            return (now.cpu_nanoseconds or 0) > (first.cpu_nanoseconds or 0) + 20_000_000

        await soon(more)
