"""`process`: exec, attach, dial and stats on real processes, and what only this backend does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from contract import PATIENCE, container, exit_of, is_running, log, until, workload
from contract_streams import MIB, Rig, StreamsContract
from process_kit import ProcessBench, exists, keeper_of, text
from support.channels import drained, reads, soon

from adapters.process import adapter as adapter_module
from adapters.process.keeper import files, guests
from adapters.process.zygote import Isolation
from bridge.adapter import Channel, Size
from bridge.errors import Invalid, NotFound, Unavailable
from bridge.workload import Container, EmptyDir, File, Files, Mount, Security

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ProcessBench]:
    made = ProcessBench(tmp_path / "state")
    yield made
    await made.close()


class TestProcessStreams(StreamsContract):
    pass


async def rig(bench: ProcessBench, one: Container, **more: object) -> Rig:
    """A pod of that container, running."""
    adapter = await bench.adapter()
    pod = workload(one, **more)
    await bench.launch(adapter, pod)
    await until(adapter, pod.identity, is_running)
    return Rig(bench, adapter, pod)


def _held(pid: int) -> Counter[str]:
    """How much of each kind a process has open."""
    found: Counter[str] = Counter()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[os.readlink(one).partition(":")[0]] += 1
        except FileNotFoundError:
            # The look itself.
            continue
    return found


async def test_exec_sees_what_the_container_sees(bench: ProcessBench) -> None:
    volumes = [Files("s", (File("f", b"secret\n", 0o400),)), EmptyDir("w")]
    one = container(
        "sh",
        "-c",
        "echo own >/no-such/dir/own; exec sleep 1000",
        mounts=[Mount("s", "/etc/no-such"), Mount("w", "/no-such/dir")],
        env={"A": "1"},
        working_dir="/no-such/dir",
    )
    it = await rig(bench, one, volumes=volumes, hostname="named")
    script = (
        "until [ -e own ]; do :; done; cat own /etc/no-such/f; pwd; uname -n; echo $A $HOSTNAME"
    )
    assert await it.says(script) == b"own\nsecret\n/no-such/dir\nnamed\n1 named\n"
    assert await it.says("echo $TERM; env -u A | grep -c ^A=") == b"\n0\n"
    assert (await drained(await it.sh("echo $TERM", tty=True)))[0] == b"xterm\r\n"
    assert not exists("/no-such")
    # stdin, stdout, stderr, and ls' own.
    assert await it.says("ls /proc/self/fd | wc -l") == b"4\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run containers as others")
async def test_exec_is_as_the_container_is(bench: ProcessBench) -> None:
    security = Security(
        run_as_user=12345,
        run_as_group=234,
        supplemental_groups=(7,),
        no_new_privileges=True,
        drop_capabilities=("ALL",),
    )
    it = await rig(bench, container("sleep", "1000", security=security))
    status = "grep -E 'CapBnd|CapEff|NoNewPrivs' /proc/self/status | tr -d '\\t'"
    said = (await it.says(f"id -u; id -g; id -G; {status}")).decode()
    assert said.split()[:3] == ["12345", "234", "234"]
    assert "7" in said.splitlines()[2].split()
    assert "CapBnd:0000000000000000" in said
    assert "CapEff:0000000000000000" in said
    assert "NoNewPrivs:1" in said
    # Its terminal is its own: it can open it again by each of its names.
    channel = await it.sh("echo a >/dev/tty; echo b >$(tty); echo c >/dev/stderr", tty=True)
    assert (await drained(channel))[0] == b"a\r\nb\r\nc\r\n"


@pytest.mark.parametrize("tty", [False, True])
async def test_what_stays_in_the_background_holds_up_nobody(bench: ProcessBench, tty: bool) -> None:
    it = await rig(bench, container("sleep", "1000"))
    for background in ("sleep 1000", "yes"):
        # Without a terminal's hang-up, which would end it.
        channel = await it.sh(f"trap '' HUP; {background} & echo done; exit 3", tty=tty)
        out, _, code = await drained(channel)
        assert code == 3
        assert b"done" in out


async def test_exec_at_once_after_the_start(bench: ProcessBench) -> None:
    adapter = await bench.adapter()

    async def one() -> bytes:
        pod = workload(container("sleep", "1000", mounts=[Mount("v", "/no-such")]), volumes=VOLUMES)
        await adapter.run(pod)
        await adapter.start(pod, "main", 0)
        return await Rig(bench, adapter, pod).says("ls -d /no-such")

    assert await asyncio.gather(*(one() for _ in range(10))) == [b"/no-such\n"] * 10


VOLUMES = [EmptyDir("v")]


async def test_exec_in_what_could_not_be_started(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    pod = workload(container("/no/such/program"))
    await adapter.run(pod)
    await adapter.start(pod, "main", 0)
    with pytest.raises(NotFound, match="container main does not run"):
        await Rig(bench, adapter, pod).exec("true")


async def test_exec_without_namespaces(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    adapter._isolation = Isolation("", "not here", os.geteuid(), os.getegid(), frozenset())
    pod = workload(container("sleep", "1000"))
    await bench.launch(adapter, pod)
    assert await Rig(bench, adapter, pod).says("pwd") == b"/\n"


async def test_a_long_command(bench: ProcessBench) -> None:
    it = await rig(bench, container("sleep", "1000"))
    words = ["x" * 100_000, "y" * 100_000, "\u00e9" * 30_000]
    out, _, code = await drained(await it.exec("printf", "%s", *words))
    assert (out.decode() == "".join(words), code) == (True, 0)
    with pytest.raises(Invalid, match="argument list too long"):
        await it.exec("true", "x" * 200_000)
    with pytest.raises(Invalid, match="empty"):
        await it.exec()


async def test_channels_leave_nothing_open(bench: ProcessBench) -> None:
    it = await rig(bench, container("cat", stdin=True))
    keeper = keeper_of(bench.root, it.who)
    await it.says("true")
    ours, theirs = _held(os.getpid()), _held(keeper)
    for number in range(20):
        await it.says("echo x; echo y >&2")
        await (await it.sh("sleep 1000", stdin=True, tty=bool(number % 2))).close()
        await (await it.attach(stdin=True)).close()
        with pytest.raises(Invalid):
            await it.exec("no-such-program", tty=bool(number % 2))

    # What the first look still saw being closed may be gone by now.
    async def no_more_than_before() -> bool:
        return _held(os.getpid()) <= ours and _held(keeper) <= theirs

    await soon(no_more_than_before)


async def test_closing_wakes_who_reads_and_writes(bench: ProcessBench) -> None:
    it = await rig(bench, container("sleep", "1000"))
    channel = await it.sh("sleep 1000", stdin=True)

    async def write() -> None:
        while True:
            await channel.write(bytes(MIB))

    tasks = [asyncio.create_task(one) for one in (channel.read(), write(), channel.wait())]
    await asyncio.sleep(0)
    await channel.close()
    async with asyncio.timeout(PATIENCE):
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in ends] == [Unavailable] * 3


@pytest.mark.parametrize("attached", [False, True])
async def test_a_keeper_that_is_killed_breaks_its_channels(
    bench: ProcessBench, attached: bool
) -> None:
    it = await rig(bench, container("cat", stdin=True))
    channel: Channel
    if attached:
        channel = await it.attach(stdin=True)
    else:
        channel = await it.sh("echo begun; exec cat", stdin=True)
        await reads(channel, b"begun\n")
    os.kill(keeper_of(bench.root, it.who), signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unavailable):
            await channel.read()
        with pytest.raises(Unavailable):
            await channel.wait()
        with pytest.raises(Unavailable):
            await channel.write(b"x")
    await channel.close()
    assert (await exit_of(it.adapter, it.who)).reason == "ContainerStatusUnknown"
    with pytest.raises(NotFound):
        await it.attach()


_PROVIDER = """
import asyncio, sys
from pathlib import Path
from adapters.process import Adapter, Options

async def main(root):
    adapter = Adapter("process", Options(root=Path(root)))
    await adapter.open()
    (pod,) = await adapter.list()
    script = "sleep 1000 & echo $$ $!; wait"
    channel = await adapter.exec(
        pod.identity, "main", ["sh", "-c", script], stdin=True, tty=False
    )
    print((await channel.read())[1].decode(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main(sys.argv[1]))
"""


async def test_a_provider_that_is_killed_leaves_no_command(bench: ProcessBench) -> None:
    it = await rig(bench, container("sleep", "1000"))
    provider = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROVIDER,
        str(bench.root),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert provider.stdout is not None
    async with asyncio.timeout(PATIENCE):
        pids = (await provider.stdout.readline()).split()
    assert len(pids) == 2
    assert all(exists(f"/proc/{int(one)}") for one in pids)
    provider.kill()
    await provider.wait()

    async def gone() -> bool:
        return not any(exists(f"/proc/{int(one)}") for one in pids)

    await soon(gone)
    # The next one sweeps what the dead one listened on.
    again = await bench.adapter()
    assert is_running(await until(again, it.who, lambda _: True))


FLOOD = "read x; seq 300000; echo end; exit 2"


async def test_a_slow_attachment_misses_nothing(bench: ProcessBench) -> None:
    it = await rig(bench, container("sh", "-c", FLOOD, stdin=True))
    slow, quick = await it.attach(stdin=True), await it.attach()
    await slow.write(b"\n")
    fast = asyncio.create_task(drained(quick))
    found = bytearray()
    while data := (await slow.read())[1]:
        found += data
        await asyncio.sleep(0.001)
    whole = b"".join(b"%d\n" % one for one in range(1, 300_001)) + b"end\n"
    assert (bytes(found) == whole, await slow.wait()) == (True, 2)
    out, _, code = await fast
    assert (out == whole, code) == (True, 2)
    assert await log(it.adapter, it.who) == whole
    await slow.close()


async def test_an_attachment_that_never_reads_is_cut_off(
    bench: ProcessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_module, "_STALLED", 0.3)
    it = await rig(bench, container("sh", "-c", FLOOD, stdin=True))
    deaf, hearing = await it.attach(), await it.attach(stdin=True)
    await hearing.write(b"\n")
    out, _, code = await drained(hearing)
    assert (out[-10:], code) == (b"300000\nend\n"[-10:], 2)
    assert (await exit_of(it.adapter, it.who)).code == 2
    assert (await log(it.adapter, it.who)).endswith(b"300000\nend\n")
    # What had come is there, and then the reason.
    sizes: list[int] = []

    async def listen() -> None:
        while True:
            sizes.append(len((await deaf.read())[1]))

    with pytest.raises(Unavailable, match=r"none of the container's output for 0\.3 s"):
        await listen()
    assert 0 < sum(sizes) < MIB
    await deaf.close()


async def test_the_end_waits_for_no_attachment(bench: ProcessBench) -> None:
    it = await rig(bench, container("sh", "-c", "read x; seq 50000; exit 2", stdin=True))
    channel = await it.attach(stdin=True)
    await channel.write(b"\n")
    # More than its pipe holds, and less than this with what the keeper still has at the end.
    assert (await exit_of(it.adapter, it.who)).code == 2
    await it.adapter.delete(it.who)
    out, _, code = await drained(channel)
    assert (out, code) == (b"".join(b"%d\n" % one for one in range(1, 50_001)), 2)


async def test_a_terminal_may_be_let_go_and_opened_again(bench: ProcessBench) -> None:
    script = "exec </dev/null >/dev/null 2>&1; sleep 0.1; echo back >/dev/tty; seq 20000 >/dev/tty"
    it = await rig(bench, container("sh", "-c", script, tty=True))
    assert (await exit_of(it.adapter, it.who)).code == 0
    whole = b"".join(b"%d\r\n" % one for one in range(1, 20_001))
    assert await log(it.adapter, it.who) == b"back\r\n" + whole


async def test_a_terminals_container_without_stdin_ignores_input(bench: ProcessBench) -> None:
    it = await rig(bench, container("sh", "-c", "sleep 0.2; echo late; read x", tty=True))
    channel = await it.attach(stdin=True)
    await channel.resize(Size(10, 10))
    await channel.write(b"nobody asked\n")

    async def said() -> bool:
        return (await log(it.adapter, it.who)).endswith(b"late\r\n")

    await soon(said)
    # A terminal shows what it is given.
    assert await log(it.adapter, it.who) == b"late\r\n"
    assert is_running(await until(it.adapter, it.who, lambda _: True))
    await channel.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="a host lets only root use /dev/pts/ptmx")
async def test_programs_in_it_can_make_terminals(bench: ProcessBench) -> None:
    it = await rig(bench, container("sleep", "1000"))
    assert await it.says("exec 3<>/dev/ptmx && echo made") == b"made\n"


async def test_all_of_a_terminals_last_words(bench: ProcessBench) -> None:
    it = await rig(bench, container("sleep", "1000"))
    channel = await it.sh("seq 20000", tty=True)
    out, _, code = await drained(channel)
    assert (len(out), code) == (sum(len(str(one)) + 2 for one in range(1, 20_001)), 0)


async def test_strange_messages_are_nothing(bench: ProcessBench) -> None:
    it = await rig(bench, container("sleep", "1000"))
    folder = bench.folder(it.who) / "containers" / "main.0"
    place = os.open(folder, os.O_PATH)
    null = os.open("/dev/null", os.O_RDONLY)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    broken = os.memfd_create("x")
    os.write(broken, b"[")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, ours, theirs:
        sender.connect(f"/proc/self/fd/{place}/{files.CONTROL}")
        for given in ([null], [null, null], [theirs.fileno(), broken], [null] * 9):
            socket.send_fds(sender, [b"{}"], given)
        sender.send(b"\xff")
        assert await it.says("echo fine") == b"fine\n"
    for one in (place, null, broken):
        os.close(one)
    assert await it.says("echo fine") == b"fine\n"


def test_only_the_same_user_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert guests._is_ours(theirs)
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
        assert not guests._is_ours(theirs)


async def test_the_control_socket_is_the_users_own(bench: ProcessBench) -> None:
    it = await rig(bench, container("sleep", "1000"))
    folder = bench.folder(it.who) / "containers" / "main.0"
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / files.CONTROL).stat().st_mode & 0o077 == 0


async def test_time_of_what_has_ended_still_counts(bench: ProcessBench) -> None:
    script = "(sh -c 'ulimit -t 1; while :; do :; done' &) ; sleep 1000"
    it = await rig(bench, container("sh", "-c", script))

    async def counted() -> bool:
        (one,) = (await it.adapter.stats([it.who]))[it.who.uid]
        return (one.cpu_nanoseconds or 0) >= 300_000_000

    await soon(counted)
    keeper = keeper_of(bench.root, it.who)

    async def alone() -> bool:
        return len(text(f"/proc/{keeper}/task/{keeper}/children").split()) == 1

    await soon(alone)
    assert await counted()
    await it.adapter.stop(it.who, 0)
    await exit_of(it.adapter, it.who)
    assert await it.adapter.stats([it.who]) == {}
