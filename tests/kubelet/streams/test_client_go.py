"""What client-go, the library of kubectl and of the API server, makes of our streams."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from streams_server import PATIENCE, Server, pattern, serve

SOURCE = Path(__file__).parent / "goclient"
BUILD_TIME = 900.0
"""Seconds for a first build on a small machine: client-go and what it needs."""
MEGABYTE = 1024 * 1024

pytestmark = pytest.mark.slow

Client = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture(scope="session")
def program() -> Path:
    """The client, built once for each version of its source; in the user's cache."""
    if shutil.which("go") is None:
        pytest.skip("Go is not there: what client-go makes of our streams is not tested")
    files = [SOURCE / name for name in ("go.mod", "go.sum", "main.go")]
    version = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "podbridge" / "tests"
    root.mkdir(parents=True, exist_ok=True)
    built = root / f"streams-goclient-{version}"
    # Tests run in several processes, and one build is enough.
    with (root / "streams-goclient.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            build(built)
            for old in root.glob("streams-goclient-*"):
                if old != built:
                    old.unlink(missing_ok=True)
    return built


def build(target: Path) -> None:
    partial = target.with_suffix(".part")
    if (done := go("mod", "download")).returncode:
        pytest.skip(f"client-go cannot be downloaded here: {done.stderr.strip()[-300:]}")
    done = go("build", "-o", str(partial), ".")
    assert done.returncode == 0, done.stderr
    partial.rename(target)


def go(*words: str) -> subprocess.CompletedProcess[str]:
    # No other toolchain is fetched than the one that is here.
    env = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    return subprocess.run(
        ["go", *words],
        cwd=SOURCE,
        env=env,
        capture_output=True,
        text=True,
        timeout=BUILD_TIME,
        check=False,
    )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serve(tmp_path) as running:
        yield running


@pytest.fixture(params=["spdy", "websocket"])
def via(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def client(program: Path, server: Server, via: str) -> Client:
    async def call(path: str, *words: str, verb: str = "exec") -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            program,
            f"-url={server.url}{path}",
            f"-ca={server.authority}",
            f"-via={via}",
            *words,
            verb,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(2 * PATIENCE):
                out, said = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        got = json.loads(out) if process.returncode == 0 else {}
        return {**got, "log": said.decode()}

    return call


async def test_bytes_go_through_a_command_and_come_back(client: Client) -> None:
    got = await client("/exec?command=cat&input=1&output=1", f"-stdin={30 * MEGABYTE}")
    assert got["error"] == ""
    assert got["stdout"]["Bytes"] == 30 * MEGABYTE
    assert got["stdout"]["SHA256"] == got["sent"]


async def test_stdin_in_one_piece_arrives_whole(client: Client) -> None:
    # Over SPDY one frame of 16 MiB less a byte, over WebSocket one message.
    size = 16 * MEGABYTE - 1
    got = await client("/exec?command=hash&input=1&output=1", f"-stdin={size}", "-whole")
    assert got["stdout"]["Text"] == got["sent"]


async def test_much_output_arrives_before_the_end(client: Client) -> None:
    got = await client(f"/exec?command=give&command={40 * MEGABYTE}&output=1")
    assert (got["code"], got["error"]) == (0, "")
    assert got["stdout"]["SHA256"] == hashlib.sha256(pattern(40 * MEGABYTE)).hexdigest()


async def test_stdout_and_stderr_are_told_apart(client: Client) -> None:
    got = await client("/exec?command=both&command=abc&output=1&error=1", "-stderr")
    assert (got["stdout"]["Text"], got["stderr"]["Text"]) == ("abc", "cba")


async def test_an_exit_code_comes_behind_the_output(client: Client) -> None:
    got = await client("/exec?command=exit&command=42&output=1")
    assert (got["stdout"]["Text"], got["code"]) == ("before the end", 42)


async def test_a_command_may_end_before_its_input(client: Client) -> None:
    path = "/exec?command=first&input=1&output=1"
    got = await client(path, f"-stdin={5 * MEGABYTE}", "-open")
    assert (got["stdout"]["Bytes"], got["code"], got["error"]) == (1, 0, "")


async def test_a_terminal_is_resized(client: Client) -> None:
    path = "/exec?command=sizes&command=2&input=1&output=1&tty=1"
    got = await client(path, "-tty", "-sizes=80x24,100x30", "-stdin=0", "-open")
    assert got["stdout"]["Text"] == "(80, 24)(100, 30)"
    assert got["error"] == ""


@pytest.mark.parametrize("words", ["wait", "endless"])
async def test_a_client_that_goes_away_is_noticed(
    client: Client, server: Server, words: str
) -> None:
    got = await client(f"/exec?command={words}&output=1", "-enough=7")
    assert got["error"] == "context canceled"
    await server.until("gone")
    await server.until("ended")


@pytest.mark.parametrize(
    "version", ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"]
)
async def test_older_versions(client: Client, via: str, version: str) -> None:
    if via == "websocket" and version in {"v3.channel.k8s.io", "v2.channel.k8s.io"}:
        pytest.skip("no WebSocket speaks this version")
    offered = f"-protocols={version}"
    got = await client("/exec?command=give&command=100000&output=1", offered)
    assert (got["stdout"]["Bytes"], got["error"]) == (100000, "")
    if version == "channel.k8s.io":
        return  # Its client ends with whatever it sees first, output or error.
    got = await client("/exec?command=exit&command=3&output=1", offered)
    assert got["stdout"]["Text"] == "before the end"
    if version == "v4.channel.k8s.io":
        assert got["code"] == 3
    else:
        assert "command terminated with non-zero exit code: 3" in got["error"]


async def test_many_connections_are_forwarded_at_once(client: Client, server: Server) -> None:
    words = ("-connections=100", "-bytes=300000")
    got = await client("/forward", *words, verb="forward")
    assert (got["same"], got["wrong"]) == (100, [])
    await server.until("ended")


async def test_one_forwarded_connection_carries_much(client: Client) -> None:
    got = await client("/forward", f"-bytes={30 * MEGABYTE}", verb="forward")
    assert got["same"] == 1


async def test_a_refused_connection_says_why(client: Client, server: Server) -> None:
    got = await client("/forward", "-port=9", verb="forward")
    assert "error forwarding port 9 to pod p, uid u: refused" in got["log"]
    await server.until("ended")


async def test_a_protocol_that_is_not_spoken_is_refused(client: Client, via: str) -> None:
    got = await client("/exec?command=cat&output=1", "-protocols=v9.channel.k8s.io")
    # The first is how a WebSocket client tells a refusal, the second a SPDY client.
    words = {"websocket": "403 Forbidden", "spdy": 'client supports ["v9.channel.k8s.io"]'}
    assert words[via] in got["error"]
