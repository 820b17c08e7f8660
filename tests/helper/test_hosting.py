"""The provider's half, over a cloud on paper: real helpers that lose their provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from helper_kit import IDENTITY, Make, container
from support.channels import PATIENCE

from bridge.adapter import Channel, LogOptions
from bridge.errors import BridgeError, NotFound, Unavailable, Unsupported
from bridge.helper import state
from bridge.helper.hosting import Door, Hosting
from bridge.helper.tunnel import Tunnels
from bridge.helper.wrap import INSTALL, WATCH
from bridge.workload import (
    ContainerState,
    Exit,
    Identity,
    Observed,
    RestartPolicy,
    Running,
    State,
    Waiting,
    Workload,
)

pytestmark = pytest.mark.slow
ENDED = Exit(0, 3.0, started_at=2.0)
RUNS = Running(3.0)


@dataclass
class PaperCloud:
    """It runs nothing, and knows what the test says of the group."""

    watch: State = RUNS
    main: State = RUNS
    helped: bool = True
    log: bytes = b""
    errors: list[BridgeError] = field(default_factory=list)
    """Of the next looks at a log."""
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def group(self) -> Observed:
        main = ContainerState("m", self.main, container_id="paper://m")
        ours = (ContainerState(INSTALL, ENDED), ContainerState(WATCH, self.watch))
        containers = (ours[0], main, ours[1]) if self.helped else (main,)
        return Observed(IDENTITY, containers, accepted_at=1.0)

    async def look(self, _: Identity) -> Observed | None:
        return self.group()

    async def tail(self, _: Identity, container: str, size: int) -> bytes:
        if self.errors:
            raise self.errors.pop(0)
        return self.log[-size:] if container == WATCH else b""

    def tell(self, _: Identity) -> None:
        self.told.set()

    async def lines(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        yield f"{identity.uid} {container} {options.follow}".encode()

    async def news(self) -> None:
        """Returns when it is told to look again."""
        await self.told.wait()
        self.told.clear()


@asynccontextmanager
async def provider(folder: Path, cloud: PaperCloud) -> AsyncIterator[Hosting]:
    """One life of a provider, at the port that it had before."""
    made = Hosting("paper", cloud)
    await made.open(state.load(folder, "tests"), Door("127.0.0.1", 0, "127.0.0.1"))
    try:
        yield made
    finally:
        await made.close()


async def waits(hosting: Hosting, cloud: PaperCloud) -> ContainerState:
    """The container, once it waits for its third run."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = (await hosting.view(cloud.group())).container("m")
            if found is not None and found.restart == 1 and isinstance(found.state, Waiting):
                return found
            await cloud.news()


async def test_no_count_goes_back_while_helpers_come_back(make: Make, tmp_path: Path) -> None:
    cloud = PaperCloud()
    async with provider(tmp_path, cloud) as first:
        crashes = container("m", "exit 5", restart_policy=RestartPolicy.ALWAYS)
        tunnel = first.settings(Workload(IDENTITY, (crashes,))).tunnel
        pod = make(crashes, tunnel=tunnel, first_backoff=1000.0, longest_backoff=1000.0)
        pod.all()
        before = await waits(first, cloud)
        assert before.state.reason == "CrashLoopBackOff"  # type: ignore[union-attr]
    async with provider(tmp_path, cloud) as second, asyncio.timeout(PATIENCE):
        while not (shown := await second.view(cloud.group())).containers:
            assert not shown.ended
            await cloud.news()
        assert shown.containers == (before,)
        # A log can be had all the while.
        logs = second.logs(IDENTITY, "m", LogOptions())
        assert b"".join([piece async for piece in logs])


async def test_who_has_no_helpers_that_come_back_sees_what_the_cloud_sees(tmp_path: Path) -> None:
    cloud = PaperCloud()
    async with provider(tmp_path, cloud), provider(tmp_path, cloud) as onlooker:
        (shown,) = (await onlooker.view(cloud.group())).containers
        assert shown.state == RUNS


async def test_a_log_is_there_before_its_helper_is_back(tmp_path: Path) -> None:
    cloud = PaperCloud()
    async with provider(tmp_path, cloud):
        pass
    async with provider(tmp_path, cloud) as second:
        assert (await second.view(cloud.group())).containers == ()
        logs = second.logs(IDENTITY, "m", LogOptions())
        assert b"".join([piece async for piece in logs]) == b"uid-1 m False"


async def test_a_record_that_cannot_be_read_now_is_read_later(tmp_path: Path) -> None:
    cloud = PaperCloud(watch=ENDED, errors=[Unavailable("busy"), Unavailable("busy")])
    async with provider(tmp_path, cloud) as hosting, asyncio.timeout(PATIENCE):
        for _ in range(2):
            assert not (await hosting.view(cloud.group())).ended
            await cloud.news()
        shown = await hosting.view(cloud.group())
        assert shown.ended
        assert shown.failed


@pytest.mark.parametrize(("hard_stop", "days"), [(None, 7), (3600.0, 7), (30 * 86_400.0, 31)])
async def test_a_pods_certificate_is_good_for_as_long_as_it_may_run(
    tmp_path: Path, hard_stop: float | None, days: int
) -> None:
    async with provider(tmp_path, PaperCloud()) as hosting:
        pod = Workload(IDENTITY, (container("m", "true"),), hard_stop=hard_stop)
        tunnel = hosting.settings(pod).tunnel
        assert tunnel is not None
        made = x509.load_pem_x509_certificate(tunnel.cert.encode())
        left = made.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=days) - timedelta(minutes=5) < left <= timedelta(days=days)


async def test_who_asks_too_soon_is_told_that_nothing_has_started(tmp_path: Path) -> None:
    """As long as a pod is on its way in its cloud shows no helper; then it is as it is."""
    cloud = PaperCloud(main=Waiting("OutOfCapacity"), helped=False)
    async with provider(tmp_path, cloud) as hosting:
        with pytest.raises(NotFound, match=r"^m has not started yet: OutOfCapacity$"):
            await hosting.exec(IDENTITY, "m", ["true"], stdin=False, tty=False)
        with pytest.raises(NotFound, match=r"^m has not started yet: OutOfCapacity$"):
            await hosting.attach(IDENTITY, "m", stdin=False)
        with pytest.raises(NotFound, match=r"^the pod has not started yet: OutOfCapacity$"):
            await hosting.dial(IDENTITY, 80, inside=True)
        cloud.main = RUNS
        with pytest.raises(Unsupported, match="the pod has no helper"):
            await hosting.exec(IDENTITY, "m", ["true"], stdin=False, tty=False)


async def test_who_asks_a_helper_that_is_dying_is_told_that_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While its container runs the command may have begun: nobody can say that it has not."""

    async def breaks(*_: object, **__: object) -> Channel:
        raise Unavailable("the tunnel broke")

    monkeypatch.setattr(Tunnels, "exec", breaks)
    cloud = PaperCloud()
    async with provider(tmp_path, cloud) as hosting:
        with pytest.raises(Unavailable, match=r"^the tunnel broke$"):
            await hosting.exec(IDENTITY, "m", ["true"], stdin=False, tty=False)
        cloud.main = cloud.watch = ENDED
        with pytest.raises(NotFound, match=r"^m does not run$"):
            await hosting.exec(IDENTITY, "m", ["true"], stdin=False, tty=False)
