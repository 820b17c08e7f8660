"""`engine`: images and their pulls, with a clock and a registry of the test's own."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from test_engine_pure import WHO, container

from adapters.engine import (
    references,
)
from adapters.engine.client import lines
from adapters.engine.images import Backoff, Image, Images
from bridge.errors import (
    NotFound,
)
from bridge.workload import (
    Identity,
    PullCredential,
    Waiting,
    Workload,
)


class Registry:
    """An engine of which only images are asked for."""

    def __init__(self) -> None:
        self.images: set[str] = set()
        self.failure = ""
        self.pulls: list[tuple[str, Mapping[str, str]]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, method: str, path: str, **_: Any) -> Any:
        reference = path.removeprefix("images/").removesuffix("/json")
        if reference not in self.images:
            raise NotFound("no such image")
        return {"Id": "sha256:1", "RepoDigests": [], "Config": {"User": "app"}}

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, params: Mapping[str, str], headers: Mapping[str, str]
    ) -> AsyncIterator[Any]:
        self.pulls.append((params["fromImage"], headers))
        await self.gate.wait()
        if not self.failure:
            self.images.add(params["fromImage"])

        said = b'{"status": "Pulling"}\nnonsense\n'
        if self.failure:
            said += json.dumps({"error": self.failure}).encode() + b"\n"
        yield _answer(said, 7)


def _answer(said: bytes, size: int) -> Any:
    """An answer that comes in pieces of so many bytes."""

    async def pieces(_: int) -> AsyncIterator[bytes]:
        for at in range(0, len(said), size):
            yield said[at : at + size]

    return SimpleNamespace(content=SimpleNamespace(iter_chunked=pieces))


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
async def test_a_line_of_any_length_is_read_within_bounds(size: int) -> None:
    """Labels of images come in the engine's events, words of registries in its pulls."""
    said = b"one\n\n" + b"x" * (300 * 1024 if size > 3 else 9) + b"\nlast"
    found = [one async for one in lines(_answer(said, size))]
    assert (found[0], found[1], found[3]) == (b"one", b"", b"last")
    assert found[2] == b"x" * (256 * 1024 if size > 3 else 9)


class TestImages:
    """With a clock of their own: no test waits for a back-off."""

    @pytest.fixture(autouse=True)
    async def made(self) -> AsyncIterator[None]:
        self.now = 1000.0
        self.told: asyncio.Queue[tuple[str, Waiting | None]] = asyncio.Queue()
        self.registry = Registry()
        engine: Any = self.registry
        self.images = Images(engine, self.tell, lambda: self.now)
        yield
        await self.images.close()

    def tell(self, who: Identity, name: str, restart: int, waiting: Waiting | None) -> None:
        self.told.put_nowait((who.uid, waiting))

    async def need(self, policy: str = "IfNotPresent", uid: str = "uid", **more: Any) -> Any:
        one = replace(container(image_pull_policy=policy), **more)
        pod = Workload(replace(WHO, uid=uid), (one,))
        return await self.images.need(pod, one, 0)

    async def test_a_pull_is_waited_for_outside(self) -> None:
        assert await self.need() == Waiting("ContainerCreating", 'Pulling image "busybox"')
        assert await self.told.get() == ("uid", None)
        found = await self.need()
        assert isinstance(found, Image)
        assert (found.id, found.user) == ("sha256:1", "app")
        assert len(self.registry.pulls) == 1

    async def test_a_registry_s_words_are_few_and_without_the_login(self) -> None:
        login = PullCredential("docker.io", "me", "sentinel-password")
        basic = base64.b64encode(b"me:sentinel-password").decode()
        (sent,) = references.header(login).values()
        self.registry.failure = f'denied: "sentinel-password" {basic} {sent} {"y" * 99999}'
        pod = Workload(WHO, (container(),), pull_credentials=(login,))
        await self.images.need(pod, pod.containers[0], 0)
        _, waiting = await self.told.get()
        assert waiting.reason == "ErrImagePull"
        assert waiting.message.startswith('denied: "***" *** *** yyy')
        assert len(waiting.message) == 1024

    async def test_pods_share_a_pull(self) -> None:
        self.registry.gate.clear()
        for uid in ("a", "b", "a"):
            assert (await self.need(uid=uid)).reason == "ContainerCreating"
        self.registry.gate.set()
        assert {(await self.told.get())[0] for _ in range(2)} == {"a", "b"}
        assert len(self.registry.pulls) == 1

    async def test_always_pulls_for_every_run(self) -> None:
        self.registry.images.add("docker.io/library/busybox:latest")
        assert isinstance(await self.need(), Image)
        for _ in range(2):
            assert (await self.need("Always")).reason == "ContainerCreating"
            await self.told.get()
            assert isinstance(await self.need("Always"), Image)
        assert len(self.registry.pulls) == 2

    async def test_never_is_never(self) -> None:
        found = await self.need("Never")
        assert found.reason == "ErrImageNeverPull"
        assert "not present with pull policy of Never" in found.message
        assert self.registry.pulls == []

    async def test_a_wrong_name(self) -> None:
        found = await self.need(image="NO SUCH")
        assert found.reason == "InvalidImageName"

    async def test_failures_back_off(self) -> None:
        self.registry.failure = "no such host"
        for delay in (10, 20, 40, 80, 160, 300, 300):
            assert (await self.need()).reason == "ContainerCreating"
            assert await self.told.get() == ("uid", Waiting("ErrImagePull", "no such host"))
            found = await self.need()
            assert found.reason == "ImagePullBackOff"
            assert found.message == 'Back-off pulling image "busybox": no such host'
            self.now += delay - 1
            assert (await self.need()).reason == "ImagePullBackOff"
            self.now += 1
        self.registry.failure = ""
        assert (await self.need()).reason == "ContainerCreating"
        await self.told.get()
        assert isinstance(await self.need(), Image)

    async def test_another_pods_failure_holds_nobody_up(self) -> None:
        self.registry.failure = "denied"
        await self.need(uid="a")
        await self.told.get()
        assert (await self.need(uid="a")).reason == "ImagePullBackOff"
        assert (await self.need(uid="b")).reason == "ContainerCreating"
        await self.told.get()

    async def test_who_is_gone_is_told_nothing(self) -> None:
        self.registry.gate.clear()
        await self.need(uid="a")
        await self.need(uid="b")
        self.images.forget(replace(WHO, uid="a"))
        self.registry.gate.set()
        assert (await self.told.get())[0] == "b"
        assert self.told.empty()

    async def test_each_login_is_tried(self) -> None:
        logins = [PullCredential("r.io", "u", "p"), PullCredential("r.io/team", "u", "p")]
        self.registry.failure = "denied"
        one = replace(container(), image="r.io/team/a")
        await self.images.need(Workload(WHO, (one,), pull_credentials=tuple(logins)), one, 0)
        assert (await self.told.get())[1] == Waiting("ErrImagePull", "denied")
        assert [image for image, _ in self.registry.pulls] == ["r.io/team/a:latest"] * 2
        assert all("X-Registry-Auth" in headers for _, headers in self.registry.pulls)

    def test_a_long_quiet_clears_the_backoff(self) -> None:
        one = Backoff()
        for _ in range(4):
            one.fail(0.0, "x")
        assert one.until == 80.0
        one.fail(80.0 + 601.0, "x")
        assert one.until == 681.0 + 10.0
