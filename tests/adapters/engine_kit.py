"""A place for `engine` adapters on a real engine, and looks at what they leave there."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import contract
import pytest
from contract import (
    Bench,
    RealContract,
    container,
    exit_of,
    is_running,
    log,
    until,
    workload,
)
from support import engine

from adapters.engine import Adapter, Options
from adapters.engine.client import Engine, part
from adapters.engine.names import OWNER
from bridge.errors import BridgeError
from bridge.workload import Identity, Observed, Running, Workload

IMAGE = engine.BUSYBOX
"""What containers of tests run."""


@pytest.fixture(autouse=True)
def image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract's containers run an image that is there."""
    monkeypatch.setattr(contract, "IMAGE", IMAGE)


def engine_address() -> str:
    """Where the engine for tests is; skips the test, with the reason, where there is none."""
    if problem := engine.problem():
        pytest.skip(problem)
    return engine.address()


class Line:
    """A socket before the engine's own, which can be cut and mended, or answers in its place."""

    def __init__(self, address: str, path: Path) -> None:
        self.address = f"unix://{path}"
        self._path = path
        self._target = address.removeprefix("unix://")
        self._server: asyncio.Server | None = None
        self._busy: set[asyncio.Task[None]] = set()

    def answer(self, request: bytes) -> bytes:
        """What is answered in the engine's place to what begins so; empty: the engine answers."""
        return b""

    async def mend(self) -> None:
        """Answers again."""
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def cut(self) -> None:
        """Breaks all connections, and takes no more."""
        assert self._server is not None
        self._server.close()
        self._path.unlink(missing_ok=True)
        for task in self._busy:
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            try:
                await asyncio.gather(
                    self._ask(reader, writer, far_writer), _pipe(far_reader, writer)
                )
            finally:
                far_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._busy.discard(task)
            writer.close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            if said := self.answer(data):
                writer.write(said)
                await writer.drain()
                break
            far.write(data)
            await far.drain()
        far.write_eof()


def refusal(message: str) -> bytes:
    """An engine's answer that something went wrong there."""
    said = json.dumps({"message": message}).encode()
    head = f"HTTP/1.1 500 Oh\r\nConnection: close\r\nContent-Length: {len(said)}\r\n\r\n"
    return head.encode() + said


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


class EngineBench(Bench):
    """Adapters of one owner on one engine. Closing it removes all that they made."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.owner = f"test-{uuid.uuid4()}"
        self._made: list[Adapter] = []
        self._engine: Engine | None = None

    async def adapter(self, address: str = "") -> Adapter:
        options = Options(host=address or self.address, owner=self.owner)
        made = Adapter("engine", options)
        await made.open()
        self._made.append(made)
        return made

    async def engine(self) -> Engine:
        """The engine itself, to look and act behind the adapters' backs."""
        if self._engine is None:
            self._engine = Engine(self.address, owner=self.owner)
            await self._engine.open()
        return self._engine

    async def vanish(self, adapter: object, who: Identity) -> None:
        await (await self.adapter()).delete(who)

    def endless(self) -> Workload:
        # Process 1 of a container is deaf to what it does not handle.
        return workload(container("sh", "-c", "trap 'exit 143' TERM; sleep 1000 & wait"))

    def brief(self, code: int = 0) -> Workload:
        return workload(container("sh", "-c", f"exit {code}"))

    async def containers(self, who: Identity | None = None) -> Sequence[str]:
        """The IDs of this bench's containers, or of one pod's."""
        wanted = [f"{OWNER}={self.owner}"]
        if who is not None:
            wanted += [f"podbridge.io/uid={who.uid}", f"podbridge.io/attempt={who.attempt}"]
        said = await (await self.engine()).call(
            "GET", "containers/json", params={"all": True, "filters": {"label": wanted}}
        )
        return [str(one["Id"]) for one in said or ()]

    async def pause(self, who: Identity) -> str:
        """The ID of a pod's pause container."""
        engine = await self.engine()
        for one in await self.containers(who):
            said = await engine.call("GET", f"containers/{part(one)}/json")
            if "podbridge.io/container" not in said["Config"]["Labels"]:
                return one
        raise AssertionError("no pause container")

    async def leftovers(self, who: Identity) -> Sequence[str]:
        return [*await self.containers(who), *await self._volumes(who.uid)]

    async def _volumes(self, uid: str = "") -> Sequence[str]:
        said = await (await self.engine()).call(
            "GET", "volumes", params={"filters": {"label": [f"{OWNER}={self.owner}"]}}
        )
        found = (said or {}).get("Volumes") or ()
        return [
            str(one["Name"])
            for one in found
            if not uid or one["Labels"].get("podbridge.io/uid") == uid
        ]

    async def _sweeper(self) -> tuple[Adapter, Sequence[Observed]]:
        """An adapter that is still open and reaches the engine, and all that it finds there."""
        for adapter in self._made:
            with suppress(BridgeError):
                return adapter, await adapter.list()
        made = await self.adapter()
        return made, await made.list()

    async def close(self) -> None:
        """Removes everything, and makes sure of it."""
        sweeper, left = await self._sweeper()
        for _ in range(3):
            outcomes = await asyncio.gather(
                *(sweeper.delete(one.identity) for one in left), return_exceptions=True
            )
            if all(outcome is None for outcome in outcomes):
                break
            left = await sweeper.list()
        # Of the sweeper's connection: another one costs a third of a second on a busy machine.
        self._engine = self._engine or sweeper.client
        problems = [one for one in outcomes if isinstance(one, BaseException)]
        left_over = [*await self.containers(), *await self._volumes()]
        for adapter in self._made:
            await adapter.close()
        if self._engine is not None:
            await self._engine.close()
        assert not problems, problems
        assert not left_over, left_over


class EngineContract(RealContract):
    """The suite, with what is exact where real images run."""

    async def test_facts_are_whole(self, bench: Bench) -> None:
        adapter = await bench.adapter()
        pod = bench.endless()
        await bench.launch(adapter, pod)
        observed = await until(adapter, pod.identity, is_running)
        assert observed.identity == pod.identity
        assert observed.accepted_at is not None
        assert not observed.ended
        assert observed.pod_ips
        assert observed.host_ips
        state = observed.containers[0]
        assert isinstance(state.state, Running)
        assert state.state.started_at >= observed.accepted_at - 1
        # The engine's own name, as a node of a cluster has it.
        assert re.fullmatch(r"(docker|podman)://[0-9a-f]{64}", state.container_id)
        assert state.image == IMAGE
        assert re.search(r"@sha256:[0-9a-f]{64}$", state.image_id)

    async def test_the_environment_is_exact(self, bench: Bench) -> None:
        env = {"A": "1", "EMPTY": "", "SPACES": " a  b ", "LINES": "x\ny", "UTF": "\u00e9"}
        pod = workload(container("env", "-0", env={**env, "PATH": "/bin"}), hostname="here")
        adapter = await bench.adapter()
        await bench.launch(adapter, pod)
        await exit_of(adapter, pod.identity)
        got = (await log(adapter, pod.identity)).decode().split("\0")[:-1]
        found = dict(one.split("=", 1) for one in got)
        assert found.pop("HOME") == "/root"
        assert found.pop("HOSTNAME") == "here"
        assert found == {**env, "PATH": "/bin"}
