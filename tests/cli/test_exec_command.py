from __future__ import annotations

import asyncio
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from commands_kit import container, fake_run, home, invoke, make_run, pod
from exec_kit import Machine, found, running

from bridge.adapter import Size
from bridge.cli import entry, select, targets, terminal_mode
from bridge.cli.execution import require_running, start_of
from bridge.cli.interruption import until_interrupted
from bridge.cli.piping import Ends, pipe
from bridge.cli.select import RunState
from bridge.errors import Invalid, NotFound, Unavailable, Unsupported
from bridge.rpc.streams import open_exec
from bridge.rpc.v1 import stream_pb2

__all__ = ["home"]


# What was typed.


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["exec"], 'no "--"'),
        (["exec", "web", "ls", "-l"], "podbridge exec [RUN] POD -- COMMAND"),
        (["exec", "web", "--"], "found no command"),
        (["exec", "--", "ls"], "found no pod"),
        (["exec", "web", "--", "ls"], 'no run, pod or job named "web"'),
        (["exec", "a", "b", "c", "--", "ls"], "found 3 names: a, b, c; allowed: a run and a pod"),
        (["exec", "--run", "a", "b", "c", "--", "ls"], "allowed: a run and a pod"),
        (["exec", "--run", "a", "b", "--", "ls"], 'no run named "a"'),
        (["exec", "event/a", "--", "ls"], "an event has no containers"),
    ],
)
def test_what_is_typed_wrong_is_answered(words: list[str], said: str) -> None:
    code, out, error = invoke(*words)

    assert (code, out) == (2, "")
    assert said in error


@pytest.mark.usefixtures("home")
def test_help_needs_no_dashes() -> None:
    code, out, _ = invoke("exec", "--help")

    assert code == 0
    assert "podbridge exec -it web -c proxy -- sh" in out


# Which pod.


def _states(monkeypatch: pytest.MonkeyPatch, *pods: dict[str, Any], name: str = "words") -> None:
    make_run(name)
    state = RunState(fake_run(name), None, pods={one["metadata"]["uid"]: one for one in pods})

    async def load(_: object) -> Sequence[RunState]:
        return [state]

    monkeypatch.setattr(select, "load", load)


@pytest.mark.usefixtures("home")
async def test_the_words_mean_one_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    over = pod("old", phase="Succeeded")
    _states(monkeypatch, running("a"), running("b"), over)

    assert (await targets.one_pod(["words", "a"])).name == "a"
    assert (await targets.one_pod(["pod/b"])).name == "b"
    assert (await targets.one_pod(["old"])).name == "old"
    assert (await targets.one_pod(["a"], run="words")).name == "a"
    with pytest.raises(Invalid, match="run words has several pods; name one: a, b"):
        await targets.one_pod(["words"])
    with pytest.raises(NotFound, match='no pod named "c" in run words'):
        await targets.one_pod(["words", "c"])
    with pytest.raises(NotFound, match='no run, pod or job named "olt"; did you mean pod "old"'):
        await targets.one_pod(["olt"])


@pytest.mark.usefixtures("home")
async def test_the_only_pod_that_is_not_over_needs_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    _states(monkeypatch, pod("old", phase="Failed"), running("new"))

    assert (await targets.one_pod(["words"])).name == "new"
    assert (await targets.one_pod([], run="words")).name == "new"


@pytest.mark.usefixtures("home")
async def test_a_run_without_pods_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _states(monkeypatch)

    with pytest.raises(NotFound, match=r"run words has no pods \(yet\)"):
        await targets.one_pod(["words"])


async def test_a_backend_that_cannot_is_said_by_name(tmp_path: Path) -> None:
    one = found(running())
    provider: Any = Machine(tmp_path, abilities=("logs",))

    with pytest.raises(Unsupported, match="backend process runs no further commands"):
        await targets.require(provider, one.state, one.object, "exec", "runs no further commands")


# Whether it can be run there now.


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_is_over_is_refused_as_kubectl_does(phase: str) -> None:
    said = f"cannot exec into a container in a completed pod; current phase is {phase}"

    with pytest.raises(Invalid, match=said):
        start_of(found(pod(phase=phase)), "", ["ls"])


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
            "it is waiting to start: CrashLoopBackOff: back-off 10s",
        ),
        ({"terminated": {"exitCode": 3}}, "it has ended with exit code 3"),
        ({}, "it is waiting to start: ContainerCreating"),
    ],
)
def test_a_container_that_does_not_run_is_told_in_the_kubelets_words(
    state: dict[str, Any], said: str
) -> None:
    one = pod(containerStatuses=[container(**state)])

    with pytest.raises(NotFound) as caught:
        require_running(one, "main")
    assert caught.value.message == f'container not found ("main"): {said}'


def test_a_container_that_nobody_chose_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    state = {"running": {}}
    one = pod(
        spec={"containers": [{"name": "main"}, {"name": "proxy"}]},
        containerStatuses=[container(**state), container("proxy", **state)],
    )

    start = start_of(found(one), "", ["sh"], stdin=True, tty=True)

    assert 'Defaulted container "main" out of: main, proxy' in capsys.readouterr().err
    assert (start.container, start.stdin, start.stderr, start.tty) == ("main", True, False, True)
    assert start_of(found(one), "proxy", ["sh"]).stderr
    assert capsys.readouterr().err == ""
    with pytest.raises(Invalid, match='container "x" is not in pod "web"; allowed: main, proxy'):
        start_of(found(one), "x", ["sh"])


# Streams.


class Pipes:
    """This process's ends, as files that a test writes and reads."""

    def __init__(self, folder: Path, stdin: bytes | None = None) -> None:
        self._files = [folder / name for name in ("in", "out", "err")]
        self._files[0].write_bytes(stdin or b"")
        self._opened = [
            os.open(self._files[0], os.O_RDONLY),
            *(os.open(one, os.O_CREAT | os.O_WRONLY) for one in self._files[1:]),
        ]
        self.ends = Ends(None if stdin is None else self._opened[0], *self._opened[1:])

    def close(self) -> tuple[bytes, bytes]:
        """(stdout, stderr)."""
        for one in self._opened:
            os.close(one)
        return self._files[1].read_bytes(), self._files[2].read_bytes()


async def _piped(machine: Machine, command: list[str], ends: Ends) -> int:
    start = stream_pb2.ExecStart(command=command, stdin=ends.stdin is not None)
    remote = await open_exec(machine, start)
    try:
        return await pipe(remote, ends)
    finally:
        await remote.close()


@pytest.mark.slow
async def test_each_stream_goes_to_its_own_and_the_code_comes_back(tmp_path: Path) -> None:
    pipes = Pipes(tmp_path)

    code = await _piped(
        Machine(tmp_path), ["sh", "-c", "echo out; echo err >&2; exit 7"], pipes.ends
    )

    assert code == 7
    assert pipes.close() == (b"out\n", b"err\n")


@pytest.mark.slow
async def test_any_bytes_come_through_both_ways_and_end(tmp_path: Path) -> None:
    sent = os.urandom(3_000_000) + bytes(range(256))
    pipes = Pipes(tmp_path, sent)

    async with asyncio.timeout(60):
        assert await _piped(Machine(tmp_path), ["cat"], pipes.ends) == 0

    assert pipes.close() == (sent, b"")


@pytest.mark.slow
async def test_a_command_that_ends_before_its_input_does_is_over(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    pipes = Pipes(tmp_path)
    try:
        async with asyncio.timeout(60):
            ends = Ends(reading, pipes.ends.stdout, pipes.ends.stderr)
            assert await _piped(Machine(tmp_path), ["true"], ends) == 0
    finally:
        os.close(writing)
        pipes.close()


@pytest.mark.slow
async def test_an_output_that_nobody_reads_any_more_ends_the_command(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        async with asyncio.timeout(60):
            with pytest.raises(BrokenPipeError):
                await _piped(Machine(tmp_path), ["yes"], Ends(stdout=writing))
    finally:
        os.close(writing)


async def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no shell here"):
        await _piped(Machine(tmp_path, refuse="no shell here"), ["sh"], Ends())


def test_why_it_cannot_be_started_says_nothing_to_the_terminal(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(home, refuse="no shell\x1b]0;owned\x07\x1b[2J\r here\x9b2J")

    @asynccontextmanager
    async def reached(_: RunState) -> AsyncIterator[Machine]:
        yield machine

    _states(monkeypatch, running("a"))
    monkeypatch.setattr(targets, "reached", reached)
    monkeypatch.setattr(sys, "argv", ["podbridge", "exec", "a", "--", "sh"])

    with pytest.raises(SystemExit) as ended:
        entry.main()

    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no shell^[]0;owned^G^[[2J^M here^[2J\n"


# Signals and the terminal.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_the_work_and_is_its_exit_code(number: signal.Signals) -> None:
    let_go = []

    async def work() -> int:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            let_go.append(True)
        return 0

    async with asyncio.timeout(30):
        assert await until_interrupted(work()) == 128 + number
    assert let_go == [True]


async def test_work_that_ends_by_itself_keeps_its_code_and_its_error() -> None:
    async def work(result: Callable[[], int]) -> int:
        return result()

    def fail() -> int:
        raise Unavailable("gone")

    assert await until_interrupted(work(lambda: 5)) == 5
    with pytest.raises(Unavailable):
        await until_interrupted(work(fail))


@pytest.fixture
def terminal() -> Any:
    """A terminal's near end."""
    far, near = pty.openpty()
    yield near
    os.close(far)
    os.close(near)


def test_a_raw_terminal_is_as_it_was_after_an_error(terminal: int) -> None:
    before = termios.tcgetattr(terminal)
    inside = None

    def use() -> None:
        nonlocal inside
        with terminal_mode.raw(terminal):
            inside = termios.tcgetattr(terminal)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()

    assert inside is not None
    assert not inside[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    assert termios.tcgetattr(terminal) == before


def _set_size(terminal: int, columns: int, rows: int) -> None:
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


async def test_the_size_is_told_first_and_after_each_change(terminal: int) -> None:
    told: asyncio.Queue[Size] = asyncio.Queue()
    _set_size(terminal, 80, 24)

    async with asyncio.timeout(30):
        with terminal_mode.resized(terminal, told.put):
            assert await told.get() == Size(80, 24)
            _set_size(terminal, 100, 30)
            os.kill(os.getpid(), signal.SIGWINCH)
            assert await told.get() == Size(100, 30)


def test_a_terminal_without_a_size_tells_none(terminal: int, tmp_path: Path) -> None:
    _set_size(terminal, 0, 0)
    assert terminal_mode.size_of(terminal) is None
    with (tmp_path / "file").open("w") as file:
        assert terminal_mode.size_of(file.fileno()) is None


@pytest.mark.slow
async def test_a_resize_reaches_the_command(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    start = stream_pb2.ExecStart(command=["cat"], stdin=True)
    remote = await open_exec(machine, start)
    try:
        await remote.resize(Size(90, 20))
        await remote.close_input()
        assert await pipe(remote, Ends()) == 0
    finally:
        await remote.close()
    assert machine.sizes == [(90, 20)]
