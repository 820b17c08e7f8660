"""Commands that talk to a running container, as people type them, with real runs."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl

import pytest
from e2e_kit import PATIENCE, ROOT, Manifest, Place, container, pod
from support import engine

pytestmark = pytest.mark.slow


@contextmanager
def running(place: Place, *pods: Manifest, name: str = "web") -> Iterator[None]:
    """A run in the background whose pods all run."""
    place.run("-d", "-f", place.write(f"{name}.yaml", *pods), "--name", name)
    try:
        deadline = time.monotonic() + PATIENCE
        while any(one["status"].get("phase") != "Running" for one in place.pods(name)):
            assert time.monotonic() < deadline
        yield
    finally:
        place.podbridge("delete", name, "--grace-period", "0", code=None)


def one(name: str = "web", **more: object) -> Manifest:
    """A pod that goes on, with a second container where `more` has one."""
    return pod(name, "trap 'exit 0' TERM; while :; do sleep 0.05; done", **more)


def two(name: str = "web") -> Manifest:
    made = one(name)
    made["spec"]["containers"].append(container("sleep 1000", name="side"))
    return made


def test_exit_codes_streams_and_words(place: Place) -> None:
    with running(place, two()):
        done = place.podbridge(
            "exec", "web", "-c", "side", "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7
        )
        assert (done.out, done.err) == ("out\n", "err\ncommand terminated with exit code 7\n")
        quiet = place.podbridge("exec", "-q", "web", "--", "sh", "-c", "exit 3", code=3)
        assert (quiet.out, quiet.err) == ("", "")
        told = place.podbridge("exec", "web", "web", "--", "echo", "-n", "--", "x")
        assert told.out == "-- x"
        assert told.err == 'Defaulted container "main" out of: main, side\n'
        killed = place.podbridge("exec", "-q", "web", "--", "sh", "-c", "kill -9 $$", code=137)
        assert killed.err == ""
        place.podbridge("exec", "web", "-c", "side", "--", "no-such-program", code=2)
        wrong = place.podbridge("exec", "web", "-c", "x", "--", "ls", code=2)
        assert 'container "x" is not in pod "web"; allowed: main, side' in wrong.err
        warned = place.podbridge("exec", "-it", "web", "-c", "main", "--", "cat", stdin=b"in")
        assert warned.out == "in"
        assert "Unable to use a TTY" in warned.err


def test_helpers_are_reached_through_whoever_attends_the_run(
    place: Place, helper: dict[str, str]
) -> None:
    """They are connected to that process alone, and a second one does not disturb it."""
    if problem := engine.problem():
        pytest.skip(problem)
    place.variables = helper
    place.use_engine(helper="always")
    with running(place, one()):
        for code in (7, 8):
            script = f"echo out; cat; exit {code}"
            done = place.podbridge(
                "exec", "-i", "web", "--", "sh", "-c", script, stdin=b"in", code=code
            )
            assert done.out == "out\nin"
            assert "port" not in done.err
        (item,) = place.podbridge("top", "web", "-o", "json").json()["items"]
        assert item["containers"][0]["usage"]["memory"]
        assert place.pods("web")[0]["status"]["phase"] == "Running"
        (socket,) = place.runs.glob("*/provider.sock")
        assert socket.stat().st_mode & 0o777 == 0o600
    assert list(place.runs.glob("*/provider.sock")) == []


def test_a_pod_that_is_over_is_refused(place: Place) -> None:
    place.run("-f", place.write("a.yaml", pod("over", "exit 0")), "--name", "over")

    done = place.podbridge("exec", "over", "--", "ls", code=2)
    forward = place.podbridge("port-forward", "over", "8080", code=2)

    words = "cannot exec into a container in a completed pod; current phase is Succeeded"
    assert done.errors == [f"error: {words}"]
    assert "current phase is Succeeded" in forward.err


def _pipe(place: Place, words: list[str], data: bytes) -> bytes:
    ended = subprocess.run(
        [sys.executable, "-m", "podbridge", *words],
        cwd=ROOT,
        env=place.environment,
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    return ended.stdout


def test_binary_goes_both_ways_and_a_closed_reader_is_no_error(place: Place) -> None:
    data = os.urandom(20_000_000)
    with running(place, one()):
        assert _pipe(place, ["exec", "-i", "web", "--", "cat"], data) == data
        ended = subprocess.run(
            f"{sys.executable} -m podbridge exec web -- yes | head -n 1",
            shell=True,
            cwd=ROOT,
            env=place.environment,
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        assert (ended.stdout, ended.stderr) == (b"y\n", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_there_too(place: Place, number: signal.Signals) -> None:
    with running(place, one()):
        mark = place.path / "mark"
        script = f"echo $$ > {mark}; echo up; exec sleep 1000"
        going = place.start("exec", "web", "--", "sh", "-c", script)
        going.says("up")
        going.signal(number)
        assert going.end().code == 128 + number
        pid = int(mark.read_text())
        deadline = time.monotonic() + PATIENCE
        while os.path.exists(f"/proc/{pid}"):
            assert time.monotonic() < deadline
            time.sleep(0.01)


# A terminal.


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, place: Place, *words: str) -> None:
        self.far, near = pty.openpty()
        self.resize(80, 24)
        self.before = termios.tcgetattr(near)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "podbridge", *words],
            cwd=ROOT,
            env=place.environment,
            stdin=near,
            stdout=near,
            stderr=near,
            start_new_session=True,
        )
        self.near = near
        self.shown = b""

    def resize(self, columns: int, rows: int) -> None:
        ioctl(self.far, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.far, text.encode())

    def shows(self, words: str) -> None:
        """Waits until this is on the screen."""
        self._read_until(lambda: words.encode() in self.shown, words)

    def end(self) -> int:
        """Its exit code, once it has given the terminal back as it was."""
        self._read_until(lambda: self.process.poll() is not None, "its end")
        assert termios.tcgetattr(self.near) == self.before
        return self.process.returncode

    def raw(self) -> None:
        """Waits until keys go straight to the command."""
        self._read_until(lambda: not termios.tcgetattr(self.near)[3] & termios.ICANON, "raw mode")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.far)
        os.close(self.near)

    def _read_until(self, ready: object, what: str) -> None:
        assert callable(ready)
        deadline = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < deadline, f"not shown: {what}; shown: {self.shown!r}"
            if select.select([self.far], [], [], 0.05)[0]:
                self.shown += os.read(self.far, 65536)


@contextmanager
def terminal(place: Place, *words: str) -> Iterator[Terminal]:
    made = Terminal(place, *words)
    try:
        yield made
    finally:
        made.close()


def test_a_shell_in_a_terminal(place: Place) -> None:
    with running(place, one()), terminal(place, "exec", "-it", "web", "--", "sh") as screen:
        screen.raw()
        screen.type("stty size; tty > /dev/null && echo is-a-$((1))tty\n")
        screen.shows("24 80")
        screen.shows("is-a-1tty")
        screen.resize(100, 40)
        screen.process.send_signal(signal.SIGWINCH)
        screen.type(
            "until test \"$(stty size)\" = '40 100'; do sleep 0.01; done; echo grew$((1))\n"
        )
        screen.shows("grew1")
        # Ctrl-C is the command's: it ends that and nothing else. Who says that it has begun is in
        # the foreground already: a key that came before would be the shell's. And it starts nobody
        # else: dash loses a signal that comes in the middle of that (`vforked` in its trap.c).
        screen.type("sh -c 'echo begun$((1)); exec sleep 1000'\n")
        screen.shows("begun1")
        screen.type("\x03")
        screen.type("echo code-$?\n")
        screen.shows("code-130")
        screen.type("exit 5\n")
        assert screen.end() == 5


def test_a_terminal_is_given_back_when_a_signal_ends_it(place: Place) -> None:
    with running(place, one()), terminal(place, "exec", "-it", "web", "--", "cat") as screen:
        screen.raw()
        screen.process.terminate()
        assert screen.end() == 143


def test_top_is_live_on_a_terminal(place: Place) -> None:
    with running(place, two()), terminal(place, "top", "--containers") as screen:
        screen.shows("MEMORY(bytes)")
        screen.shows("side")
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == 130
        assert screen.shown.endswith(b"\x1b[?25h\x1b[?1049l")


# Files, usage, ports.


def test_files_go_to_a_pod_and_come_back(place: Place) -> None:
    here, there = place.path / "here", place.path / "there"
    (here / "sub").mkdir(parents=True)
    there.mkdir()
    data = os.urandom(5_000_000)
    (here / "sub" / "data").write_bytes(data)
    (here / "run.sh").write_text("#!/bin/sh\n")
    (here / "run.sh").chmod(0o755)
    with running(place, one()):
        place.podbridge("cp", str(here), f"web:{there}")
        assert (there / "here" / "sub" / "data").read_bytes() == data
        back = place.path / "back"
        place.podbridge("cp", f"web/web:{there}/here", str(back))
        assert (back / "sub" / "data").read_bytes() == data
        assert os.access(back / "run.sh", os.X_OK)
        done = place.podbridge("cp", f"web:{there}/nowhere", str(back), code=1)
        assert "No such file" in done.err
        assert "ended with exit code 2" in done.err
        gone = place.podbridge("cp", str(here / "nowhere"), "web:/tmp", code=2)
        assert "doesn't exist in local filesystem" in gone.err


def test_top_tells_who_is_busy(place: Place) -> None:
    busy = pod("busy", "trap 'exit 0' TERM; while :; do :; done")
    with running(place, one("calm"), busy):
        done = place.podbridge("top", "web", "--sort-by", "cpu")
        lines = [line.split() for line in done.out.splitlines()]
        assert lines[0] == ["NAME", "CPU(cores)", "MEMORY(bytes)", "STATUS", "AGE"]
        assert [line[0] for line in lines[1:]] == ["busy", "calm"]
        assert all(re.fullmatch(r"\d+m", line[1]) for line in lines[1:]), done.said
        assert all(re.fullmatch(r"\d+Mi", line[2]) for line in lines[1:]), done.said
        items = place.podbridge("top", "web", "-o", "json").json()["items"]
        assert {one["metadata"]["name"] for one in items} == {"busy", "calm"}


def _server(place: Place) -> Manifest:
    """Answers on a free port of its own, which it writes into a file."""
    code = (
        "import http.server, os, socketserver\n"
        f"os.chdir({str(place.path)!r})\n"
        "class Server(socketserver.ThreadingTCPServer):\n"
        "    daemon_threads = True\n"
        "server = Server(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n"
        "open('port.new', 'w').write(str(server.server_address[1]))\n"
        "os.rename('port.new', 'port')\n"
        "server.serve_forever()\n"
    )
    return pod(
        "server",
        {"name": "main", "image": "python", "command": [sys.executable, "-c", code]},
    )


def test_connections_go_into_a_pod_until_it_ends(place: Place) -> None:
    data = os.urandom(10_000_000)
    (place.path / "data").write_bytes(data)
    with running(place, _server(place)):
        while not (place.path / "port").exists():
            time.sleep(0.01)
        port = (place.path / "port").read_text()
        going = place.start("port-forward", "web", f":{port}", ":1")
        going.says(f"-> {port}\n")
        going.says("-> 1\n")
        found = re.findall(r"Forwarding from 127\.0\.0\.1:(\d+) -> (\d+)", going.out.read_text())
        local = {remote: number for number, remote in found}
        taken = place.podbridge("port-forward", "web", f"{local[port]}:{port}", code=2)
        assert f"unable to listen on port {local[port]}" in taken.err
        with urllib.request.urlopen(f"http://127.0.0.1:{local[port]}/data") as answer:
            assert answer.read() == data
        with (
            pytest.raises(OSError, match="reset by peer"),
            urllib.request.urlopen(f"http://127.0.0.1:{local['1']}/"),
        ):
            pass
        going.says(f"an error occurred forwarding {local['1']} -> 1")
        with urllib.request.urlopen(f"http://127.0.0.1:{local[port]}/port") as answer:
            assert answer.read().decode() == port
        assert going.out.read_text().count(f"Handling connection for {local[port]}\n") == 2
        place.podbridge("delete", "web")
        done = going.end()
        assert done.code == 1
        assert 'error: lost connection to pod: pod "server"' in done.err


def test_ctrl_c_ends_forwarding(place: Place) -> None:
    with running(place, one()):
        going = place.start("port-forward", "web", ":80")
        going.says("Forwarding from 127.0.0.1")
        going.signal(signal.SIGINT)
        done = going.end()
        assert (done.code, done.err) == (130, "")


def test_the_log_of_the_run_before(place: Place) -> None:
    script = "test -e again && { echo second; sleep 1000; }; touch again; echo first; exit 3"
    with running_again(place, script):
        assert place.podbridge("logs", "-p", "web").out == "first\n"
        assert place.podbridge("logs", "web").out == "second\n"


@contextmanager
def running_again(place: Place, script: str) -> Iterator[None]:
    """A run whose one container runs for the second time."""
    main = container(script, workingDir=str(place.path))
    place.run(
        "-d", "-f", place.write("web.yaml", pod("web", main, restartPolicy="Always")),
        "--name", "web",
    )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while not _second(place):
            assert time.monotonic() < deadline
        yield
    finally:
        place.podbridge("delete", "web", "--grace-period", "0", code=None)


def _second(place: Place) -> bool:
    statuses = [
        each for one in place.pods("web") for each in (one["status"].get("containerStatuses") or ())
    ]
    return any("running" in one["state"] and one["restartCount"] for one in statuses)


def test_an_unattended_run_is_reached_as_well(place: Place) -> None:
    with running(place, one()):
        (line,) = place.podbridge("ps", "-o", "json").json()["items"]
        os.kill(line["status"]["attendant"], signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while place.status("web") != "Unattended":
            assert time.monotonic() < deadline
        assert place.podbridge("exec", "web", "--", "echo", "still here").out == "still here\n"
        assert place.podbridge("top", "web", "--no-headers").out.startswith("web ")
