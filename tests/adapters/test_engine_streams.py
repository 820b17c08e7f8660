"""`engine`: exec, attach, dial, stats and logs on a real engine, and their parts without one."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import contract
import pytest
from contract import PATIENCE, container, exit_of, log
from contract_streams import Rig, StreamsContract, rig
from engine_kit import IMAGE, EngineBench, engine_address, image  # noqa: F401 - a fixture
from support.channels import drained, soon

from adapters.engine import amounts, dial, duplex, entries, stats, streams
from adapters.engine.entries import Entry
from adapters.engine.logs import FileReader
from adapters.engine.logs import logs as read_logs
from bridge.adapter import Exec, LogOptions, Logs, Resizes, Stats
from bridge.errors import Invalid, NotFound, Unavailable
from bridge.workload import Resources

slow = pytest.mark.slow
_MIB = 1024 * 1024


@pytest.fixture
async def bench() -> AsyncIterator[EngineBench]:
    made = EngineBench(engine_address())
    yield made
    await made.close()


_NO_LEAVING = "Podman ends a container's stdin with the first connection that leaves"


@slow
class TestEngineStreams(StreamsContract):
    async def test_attach_feeds_and_hears(self, bench: EngineBench) -> None:
        if (await bench.engine()).podman:
            pytest.skip(_NO_LEAVING)
        await super().test_attach_feeds_and_hears(bench)

    async def test_leaving_does_not_end_the_container(self, bench: EngineBench) -> None:
        if (await bench.engine()).podman:
            pytest.skip(_NO_LEAVING)
        await super().test_leaving_does_not_end_the_container(bench)


@slow
async def test_a_command_that_only_looks_like_one_that_was_refused(bench: EngineBench) -> None:
    it = await rig(bench, Exec)
    words = "OCI runtime exec failed: no"
    assert (await drained(await it.sh(f"echo {words} >&2; sleep 0.2; exit 127")))[1:] == (
        f"{words}\n".encode(),
        127,
    )
    with pytest.raises(Invalid, match="nosuch"):
        await it.exec("nosuch", tty=True)
    with pytest.raises(Invalid, match="permission denied"):
        await it.exec("/etc")


@slow
async def test_words_of_a_command_that_leaves_its_stdin_unread(bench: EngineBench) -> None:
    it = await rig(bench, Exec)
    # At the end of a command with stdin unread, Podman drops what it has not yet copied itself.
    channel = await it.sh("head -c 1 >/dev/null; echo enough; sleep 1; exit 6", stdin=True)

    async def feed() -> None:
        for _ in range(64):
            await channel.write(bytes(32 * 1024))

    feeding = asyncio.create_task(feed())
    assert await drained(channel) == (b"enough\n", b"", 6)
    await asyncio.wait_for(feeding, PATIENCE)


@slow
async def test_keys_that_detach_are_only_keys(bench: EngineBench) -> None:
    it = await rig(bench, Exec)
    channel = await it.sh(
        "stty raw -echo; echo ready; head -c 2 | od -An -tx1", stdin=True, tty=True
    )
    found = b""
    while b"ready" not in found:
        found += (await channel.read())[1]
    await channel.write(b"\x10\x11")
    out, _, code = await drained(channel)
    assert (b"10 11" in found + out, code) == (True, 0)


async def logged(bench: EngineBench, script: str, **more: Any) -> Rig:
    """A pod that has run that script to its end."""
    adapter = await bench.adapter()
    pod = contract.workload(container("sh", "-c", script, **more))
    await bench.launch(adapter, pod)
    return Rig(bench, adapter, pod)


_TRICKY = (
    "printf 'no newline'; sleep 0.1; echo ' end'; echo err >&2; sleep 0.1; "
    "printf '\\000\\377\\001\\n'; head -c 1048576 /dev/zero | tr '\\0' x; echo; printf tail"
)
_TRICKY_OUT = b"no newline end\n\0\xff\x01\n" + b"x" * _MIB + b"\ntail"


@slow
async def test_logs_to_the_byte(bench: EngineBench) -> None:
    it = await logged(bench, _TRICKY)
    assert await log(it.adapter, it.who, follow=True, stream="stdout") == _TRICKY_OUT
    assert await log(it.adapter, it.who, stream="stderr") == b"err\n"
    whole = await log(it.adapter, it.who)
    assert whole.startswith(b"no newline end\nerr\n\0\xff\x01\n")
    assert len(whole) == len(_TRICKY_OUT) + 4
    assert await log(it.adapter, it.who, tail_lines=2) == b"x" * _MIB + b"\ntail"
    assert await log(it.adapter, it.who, tail_lines=1, stream="stderr") == b"err\n"
    assert await log(it.adapter, it.who, tail_lines=0) == b""
    assert await log(it.adapter, it.who, limit_bytes=12) == b"no newline e"
    timed = await log(it.adapter, it.who, timestamps=True, stream="stderr")
    assert entries.canonical(timed[:30]) == timed[:30]
    assert timed[30:] == b" err\n"
    since = entries.nanoseconds(timed[:30]) / 1e9 + 0.05
    assert (await log(it.adapter, it.who, since=since)).startswith(b"\0\xff")


@slow
async def test_the_same_logs_by_the_api(bench: EngineBench) -> None:
    it = await logged(bench, _TRICKY)
    await exit_of(it.adapter, it.who)
    engine = await bench.engine()
    engine.local = False
    (run,) = [one for one in await bench.containers(it.who) if one != await bench.pause(it.who)]

    async def read(**options: Any) -> bytes:
        return b"".join([one async for one in read_logs(engine, run, LogOptions(**options))])

    assert await read(follow=True, stream="stdout") == _TRICKY_OUT
    assert await read(stream="stderr") == b"err\n"
    assert await read(stream="stdout", tail_lines=2) == b"x" * _MIB + b"\ntail"
    assert await read(limit_bytes=12) == b"no newline e"


@slow
async def test_a_followed_log_ends_after_its_last_byte(bench: EngineBench) -> None:
    count = 10_000
    script = f"seq {count}; printf last"
    for _ in range(4):
        it = await logged(bench, script)
        out = await log(it.adapter, it.who, follow=True)
        assert out == b"".join(b"%d\n" % one for one in range(1, count + 1)) + b"last"


@slow
async def test_a_log_that_nobody_reads_stops_nothing(bench: EngineBench) -> None:
    adapter = await bench.adapter()
    pod = contract.workload(container("sh", "-c", "yes 0123456789 | head -n 1000000; exit 5"))
    await bench.launch(adapter, pod)
    assert isinstance(adapter, Logs)
    reader = adapter.logs(pod.identity, "main", LogOptions(follow=True))
    first = await anext(reader)
    assert (await exit_of(adapter, pod.identity)).code == 5
    rest = b"".join([one async for one in reader])
    assert len(first) + len(rest) == 11 * 1_000_000


@slow
async def test_resize_puts_other_limits_in_force(bench: EngineBench) -> None:
    adapter = await bench.adapter()
    one = container("sleep", "1000", resources=Resources(limits={"memory": 64 * _MIB, "cpu": 500}))
    pod = contract.workload(one)
    await bench.launch(adapter, pod)
    assert isinstance(adapter, Resizes)
    engine = await bench.engine()
    if not engine.local:
        pytest.skip("the engine is elsewhere: its kernel is not to be seen")
    more = replace(one, resources=Resources({"cpu": 250}, {"memory": 96 * _MIB, "cpu": 700}))
    for _ in range(2):
        await adapter.resize(pod.identity, more)
    (run,) = [
        each
        for each in await bench.containers(pod.identity)
        if each != await bench.pause(pod.identity)
    ]
    pid = (await engine.call("GET", f"containers/{run}/json"))["State"]["Pid"]
    groups = stats.groups_of(stats._groups_text(pid))
    assert groups is not None
    name = "memory.max" if groups.unified else "memory.limit_in_bytes"
    assert int((groups.memory / name).read_text()) == 96 * _MIB
    with pytest.raises(Invalid):
        await adapter.resize(pod.identity, replace(one, resources=Resources({}, {"memory": 4096})))
    with pytest.raises(NotFound):
        await adapter.resize(replace(pod.identity, attempt=9), more)


@slow
async def test_stats_by_the_api_are_those_of_the_kernel(bench: EngineBench) -> None:
    it = await rig(bench, Stats, container("sh", "-c", "seq 200000 >/dev/null; sleep 1000"))
    assert isinstance(it.adapter, Stats)
    engine = await bench.engine()
    (run,) = [each for each in await bench.containers(it.who) if each != await bench.pause(it.who)]
    used = (await stats.Meter(engine).usage({run: "main"}))[run]
    engine.local = False
    asked = (await stats.Meter(engine).usage({run: "main"}))[run]
    assert used.container == asked.container == "main"
    assert (asked.cpu_nanoseconds or 0) >= (used.cpu_nanoseconds or 0) > 1_000_000
    assert 0 < (used.memory_bytes or 0) < 64 * _MIB


@slow
async def test_what_closing_kills_is_the_command_alone(bench: EngineBench) -> None:
    it = await rig(bench, Exec)
    if not (await bench.engine()).local or os.geteuid() != 0:
        pytest.skip("only on the engine's own host and as root a command can be killed")
    other = await it.sh("sleep 4321; true")
    mine = await it.sh("sleep 1234; true")
    await mine.close()

    async def gone() -> bool:
        return b"1234" not in await it.says("ps -o args | grep '[s]leep'")

    await soon(gone)
    assert b"4321" in await it.says("ps -o args | grep '[s]leep'")
    await other.close()


# What needs no engine.


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


class Torn:
    """A connection whose bytes come in pieces of any size."""

    def __init__(self, data: bytes, seed: int) -> None:
        self._data, self._random = data, random.Random(seed)

    async def read(self, most: int) -> bytes:
        size = self._random.randint(1, most)
        data, self._data = self._data[:size], self._data[size:]
        return data

    async def write(self, data: bytes) -> None:
        raise BrokenPipeError

    def close_output(self) -> None:
        return

    async def close(self) -> None:
        return


async def taken(frames: streams.Frames) -> dict[str, bytes]:
    found = {"stdout": b"", "stderr": b""}
    while (one := await frames.read())[0]:
        assert 0 < len(one[1]) <= 32 * 1024
        found[one[0]] += one[1]
    return found


@pytest.mark.parametrize("seed", range(20))
async def test_frames_however_they_are_torn(seed: int) -> None:
    chance = random.Random(seed)
    sent = [
        (chance.choice((1, 2)), chance.randbytes(chance.choice((0, 1, 8, 70_000))))
        for _ in range(10)
    ]
    data = b"".join(frame(*one) for one in sent)
    found = await taken(streams.Frames(Torn(data, seed), raw=False))
    for number, name in ((1, "stdout"), (2, "stderr")):
        assert found[name] == b"".join(one for stream, one in sent if stream == number)
    assert (await taken(streams.Frames(Torn(data, seed), raw=True)))["stdout"] == data


@pytest.mark.parametrize("cut", [1, 7, 8, 12])
async def test_a_stream_that_breaks_off(cut: int) -> None:
    with pytest.raises(Unavailable, match="broke off"):
        await taken(streams.Frames(Torn(frame(1, b"hello")[:cut], 0), raw=False))


async def test_a_stream_without_frames() -> None:
    with pytest.raises(Unavailable, match="no frames"):
        await taken(streams.Frames(Torn(b"plain text\n", 0), raw=False))


_LAST = b"Error: write unixpacket @->/proc/self/fd/16/attach: write: connection reset by peer\n"


@pytest.mark.parametrize("after", [[], [(1, b"more")], [(2, _LAST)]])
async def test_the_engines_last_words_are_not_the_commands(after: list[tuple[int, bytes]]) -> None:
    async def nothing(*_: object) -> int:
        raise AssertionError

    data = b"".join(frame(*one) for one in [(2, b"own\n"), (2, _LAST), *after])
    source = Torn(data, 0)
    source.read = functools.partial(_whole, source)  # type: ignore[method-assign]
    stream = streams.Stream(source, tty=False, code=nothing, resize=nothing)  # type: ignore[arg-type]
    found = b""
    while (one := await stream.read())[0]:
        found += one[1]
    kept = [_LAST] if after else []
    assert found == b"".join([b"own\n", *kept, *(data for _, data in after if data != _LAST)])


async def _whole(source: Torn, most: int) -> bytes:
    data, source._data = source._data[:most], source._data[most:]
    return data


async def test_a_connection_that_broke_for_writing_is_still_read() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    one = duplex.Socket(ours, b"before ")
    theirs.sendall(b"last words")
    theirs.shutdown(socket.SHUT_RD)
    with pytest.raises(BrokenPipeError):
        await one.write(bytes(64 * _MIB))
    theirs.close()
    assert await one.read(7) == b"before "
    assert await one.read(100) == b"last words"
    await one.close()


@pytest.mark.parametrize("rounds", range(4))
async def test_a_read_that_is_cancelled_when_bytes_arrive_loses_none(rounds: int) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    one = duplex.Socket(ours)
    reading = asyncio.create_task(one.read(8))
    await asyncio.sleep(0)
    theirs.sendall(b"first")
    for _ in range(rounds):  # Each finds the reader a step further.
        await asyncio.sleep(0)
    reading.cancel()
    (found,) = await asyncio.gather(reading, return_exceptions=True)
    theirs.sendall(b" second")
    said = found if isinstance(found, bytes) else b""
    async with asyncio.timeout(PATIENCE):
        while len(said) < 12:
            said += await one.read(100)
    assert said == b"first second"
    await one.close()
    theirs.close()


async def test_closing_wakes_who_reads_and_who_writes() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    one = duplex.Socket(ours)
    reading = asyncio.create_task(one.read(10))
    writing = asyncio.create_task(one.write(bytes(64 * _MIB)))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await one.close()
        assert await reading == b""
        with pytest.raises((BrokenPipeError, ConnectionError)):
            await writing
    with pytest.raises(ConnectionAbortedError):
        await one.read(1)
    theirs.close()


async def test_taking_over_what_was_read_ahead() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    theirs.sendall(b"HEAD\n" + b"x" * 1000)
    assert await reader.readline() == b"HEAD\n"
    theirs.sendall(b"y")
    one = await duplex.of(reader, writer)
    found = b""
    while len(found) < 1001:
        found += await one.read(300)
    assert found == b"x" * 1000 + b"y"
    await one.write(b"back")
    assert theirs.recv(10) == b"back"
    one.close_output()
    assert theirs.recv(10) == b""
    await one.close()
    theirs.close()


async def test_dial_says_who_does_not_answer() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port {port}: 127.0.0.1: connection refused"):
            await dial.dial(pid=None, pod_ip="127.0.0.1", port=port, inside=True)
    with pytest.raises(Unavailable, match="no address"):
        await dial.dial(pid=None, pod_ip="", port=1, inside=False)
    with pytest.raises(Unavailable, match="localhost of the pod: no such file"):
        await dial.dial(pid=2**22 + 1, pod_ip="", port=1, inside=True)


_LOG = b"""\
2026-01-02T03:04:05.100000000+02:00 stdout F one
2026-01-02T03:04:05.200000000+02:00 stdout P tw
2026-01-02T03:04:05.300000000+02:00 stderr F err
no entry
2026-01-02T03:04:05.400000000+02:00 stdout F o
2026-01-02T03:04:05.500000000+02:00 stdout P three
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, b"one\ntwerr\no\nthree"),
        ({"stream": "stdout"}, b"one\ntwo\nthree"),
        ({"stream": "stderr"}, b"err\n"),
        ({"tail_lines": 1}, b"three"),
        ({"tail_lines": 2}, b"o\nthree"),
        ({"tail_lines": 2, "stream": "stdout"}, b"two\nthree"),
        ({"tail_lines": 99}, b"one\ntwerr\no\nthree"),
        ({"tail_lines": 0}, b""),
        ({"limit_bytes": 6}, b"one\ntw"),
        ({"limit_bytes": 0}, b""),
        ({"since": 1767315845.3}, b"err\no\nthree"),
        (
            {"timestamps": True, "stream": "stdout"},
            b"2026-01-02T01:04:05.100000000Z one\n2026-01-02T01:04:05.200000000Z two\n"
            b"2026-01-02T01:04:05.500000000Z three",
        ),
    ],
)
def test_options_of_a_log(tmp_path: Path, options: dict[str, Any], expected: bytes) -> None:
    (tmp_path / "log").write_bytes(_LOG)
    descriptor = os.open(tmp_path / "log", os.O_RDONLY)
    try:
        reader = FileReader(descriptor, LogOptions(**options))
        assert b"".join(reader.read()) == expected
        assert b"".join(reader.read()) == b""
    finally:
        os.close(descriptor)


def test_an_entry_that_is_being_written_is_read_later(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(_LOG[:-10])
    descriptor = os.open(file, os.O_RDONLY)
    try:
        reader = FileReader(descriptor, LogOptions())
        first = b"".join(reader.read())
        file.write_bytes(_LOG)
        assert first == b"one\ntwerr\no\n"
        assert b"".join(reader.read()) == b"three"
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("lines", [1, 7, 1000, 5000])
def test_the_tail_of_a_long_log(tmp_path: Path, lines: int) -> None:
    time = b"2026-01-02T03:04:05.100000000+00:00"
    (tmp_path / "log").write_bytes(
        b"".join(time + b" stdout F %d %s\n" % (one, b"z" * 100) for one in range(6000))
    )
    descriptor = os.open(tmp_path / "log", os.O_RDONLY)
    try:
        out = b"".join(FileReader(descriptor, LogOptions(tail_lines=lines)).read())
    finally:
        os.close(descriptor)
    assert [int(one.split()[0]) for one in out.splitlines()] == list(range(6000 - lines, 6000))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"t stdout F a b", Entry(b"t", "stdout", True, b"a b")),
        (b"t stderr P ", Entry(b"t", "stderr", False, b"")),
        (b"t stderr X a", None),
        (b"", None),
    ],
)
def test_entries(line: bytes, expected: Entry | None) -> None:
    assert entries.parse(line) == expected


@pytest.mark.parametrize(
    ("requests", "limits", "expected"),
    [
        ({}, {}, amounts.Amounts(2, None, None)),
        ({"cpu": 250}, {}, amounts.Amounts(256, None, None)),
        ({"cpu": 1}, {"cpu": 1}, amounts.Amounts(2, 1000, None)),
        ({}, {"cpu": 1500, "memory": 7}, amounts.Amounts(1536, 150_000, 7)),
        ({"cpu": 10**6}, {}, amounts.Amounts(262_144, None, None)),
    ],
)
def test_amounts(
    requests: dict[str, int], limits: dict[str, int], expected: amounts.Amounts
) -> None:
    assert amounts.of(Resources(requests, limits)) == expected


def test_counters_of_both_versions_of_cgroups(tmp_path: Path) -> None:
    old = tmp_path / "old"
    for name, files in {
        "cpuacct/a": {"cpuacct.usage": "5000\n"},
        "memory/b": {"memory.usage_in_bytes": "900\n", "memory.stat": "total_inactive_file 100\n"},
    }.items():
        (old / name).mkdir(parents=True)
        for file, text in files.items():
            (old / name / file).write_text(text)
    groups = stats.groups_of("4:memory:/b\n2:cpu,cpuacct:/a\n0::/c\n", old)
    assert groups is not None
    used = stats.read(groups, "main")
    assert used is not None
    assert (used.cpu_nanoseconds, used.memory_bytes) == (5000, 800)

    new = tmp_path / "new" / "c"
    new.mkdir(parents=True)
    (new / "cpu.stat").write_text("usage_usec 7\nuser_usec 3\n")
    (new / "memory.current").write_text("50\n")
    (new / "memory.stat").write_text("inactive_file 60\n")
    groups = stats.groups_of("0::/c\n", tmp_path / "new")
    assert groups is not None
    used = stats.read(groups, "main")
    assert used is not None
    assert (used.cpu_nanoseconds, used.memory_bytes) == (7000, 0)
    assert stats.groups_of("0::/gone\n", tmp_path / "new") is None
    assert stats.groups_of("", tmp_path) is None
