"""The tunnel's own life: states as they change, stops, files, cuts, strangers, no provider."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helper_kit import IDENTITY, PATIENCE, Make, container
from support.channels import drained, soon
from tunnel_kit import DAY, SECRET, gone, listening, rig, settings, state_of

from bridge.errors import Invalid, Unavailable
from bridge.helper.keys import SERVER_NAME, Authority
from bridge.helper.payload import Tree, tree
from bridge.helper.tunnel import Connected, Lost, NotConnected
from bridge.helper.tunnel import server as tunnel_server
from bridge.workload import ExecAction, Exit, File, Files, Role, Running, Waiting

pytestmark = pytest.mark.slow
STAYS = "exec sleep 1000"


async def test_states_come_as_they_change(make: Make, tmp_path: Path) -> None:
    wait = f"while ! test -e {tmp_path}/go; do sleep 0.005; done; date +%s.%N; exit 3"
    async with listening() as (tunnels, address):
        pod = make(container("i", wait, Role.INIT), container("m", STAYS), tunnel=settings(address))
        pod.all()
        await state_of(tunnels, "i", lambda state: isinstance(state, Running))
        (tmp_path / "go").touch()
        report = await state_of(tunnels, "i", lambda state: isinstance(state, Exit))
        heard = time.time()
        state = report.record.containers[0].state
        assert isinstance(state, Exit)
        assert (report.key, state.code) == (IDENTITY.key, 3)
        assert heard - state.finished_at < 0.05
        assert isinstance(report.record.containers[1].state, Waiting)
        assert (await asyncio.to_thread(pod.end)).containers[0].state == state


async def test_notices_come_with_the_states_and_are_not_in_the_record(
    make: Make, tmp_path: Path
) -> None:
    async with listening() as (tunnels, address):
        # It fails once somebody hears of it.
        script = f"until test -e {tmp_path}/go; do sleep 0.02; done; exit 1"
        hook = ExecAction(("/bin/sh", "-c", script))
        one = container("m", "sleep 1000", post_start=hook)
        pod = make(one, tunnel=settings(address))
        pod.all()
        await state_of(tunnels, "m", lambda state: isinstance(state, Running))
        (tmp_path / "go").touch()
        report = await state_of(tunnels, "m", lambda state: isinstance(state, Exit))
        words = [(one.container, one.reason, one.message) for one in report.record.notices]
        assert words == [
            ("m", "FailedPostStartHook", "PostStartHook failed"),
            ("m", "Killing", "FailedPostStartHook"),
        ]
        assert (await asyncio.to_thread(pod.end)).notices == ()


async def test_a_run_without_a_watcher_tells_its_own_states(make: Make) -> None:
    async with listening() as (tunnels, address):
        pod = make(
            container("m", "read x; exit 5", stdin=True), tunnel=settings(address), record=True
        )
        pod.run("m")
        await state_of(tunnels, "m", lambda state: isinstance(state, Running))
        channel = await tunnels.attach(IDENTITY, "m", stdin=True)
        await channel.write(b"\n")
        report = await state_of(tunnels, "m", lambda state: isinstance(state, Exit))
        assert report.record.by == "run"
        assert await drained(channel) == (b"", b"", 5)
        await asyncio.to_thread(pod.join, "m", 5)


async def test_stop_reaches_all_containers_through_the_watcher(make: Make, tmp_path: Path) -> None:
    deaf = f"trap '' TERM; touch {tmp_path}/deaf; while :; do sleep 0.05; done"

    async def is_deaf() -> bool:
        return (tmp_path / "deaf").exists()

    async with rig(make, container("m", deaf), container("n", STAYS)) as made:
        await soon(is_deaf)
        assert await made.tunnels.stop(IDENTITY, 600)
        await state_of(made.tunnels, "n", lambda state: isinstance(state, Exit))
        began = time.monotonic()
        assert await made.tunnels.stop(IDENTITY, 2.5)
        report = await state_of(
            made.tunnels, "m", lambda state: isinstance(state, Exit) and state.code == 137
        )
        assert 1.5 < time.monotonic() - began < 10
        assert report.record.by == "watch"
        await asyncio.to_thread(made.pod.end)
    assert not await made.tunnels.stop(IDENTITY, 1)


async def test_files_are_replaced_while_somebody_reads(make: Make, tmp_path: Path) -> None:
    root = tmp_path / "volume"

    def version(number: int, *more: str) -> Tree:
        content = str(number).encode() * 5000
        files = [File(name, content, 0o640) for name in ("a", "d/b", *more)]
        return tree(Files("v", tuple(files)), str(root))

    # Both files through one look at the folder: as whoever wants both of one content reads them.
    reader = f"cd {root}; while :; do cd -P ..data; cat a d/b; echo; cd ..; done"
    async with rig(make, container("m", STAYS)) as made:
        await made.tunnels.update_files(IDENTITY, [version(0, "old")], "m")
        channel = await made.sh(reader)
        lines, seen = b"", set()
        for number in range(1, 10):
            await made.tunnels.update_files(IDENTITY, [version(number)], "m" if number % 2 else "")
            while True:
                name, data = await channel.read()
                # A folder that has just gone is an error, and never half of a file.
                lines += data if name == "stdout" else b""
                *whole, lines = lines.split(b"\n")
                for line in whole:
                    assert len({*line}) <= 1
                    assert len(line) in (0, 5000, 10000)
                    seen.add(line[:1])
                if str(number).encode() in seen:
                    break
        await channel.close()
        assert sorted(one.name for one in root.iterdir() if one.name[0] != ".") == ["a", "d"]
        assert len(list(root.iterdir())) == 4
        assert (root / "d" / "b").read_bytes() == b"9" * 5000
        with pytest.raises(Invalid, match="no path of a file"):
            await made.tunnels.update_files(
                IDENTITY, [Tree(str(root), (("../x", 0o644, b""),))], "m"
            )


async def test_links_in_a_volume_lead_no_update_elsewhere(make: Make, tmp_path: Path) -> None:
    root, outside = tmp_path / "volume", tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    one = Tree(str(root), (("a", 0o644, b"1"),), atomic=True)
    async with rig(make, container("m", STAYS)) as made:
        for name, target in (("..data", outside), ("a", outside), ("..data_tmp", outside)):
            await made.tunnels.update_files(IDENTITY, [one], "m")
            with contextlib.suppress(OSError):
                (root / name).unlink()
            (root / name).symlink_to(target)
            await made.tunnels.update_files(IDENTITY, [one], "m")
            assert (root / "a").read_bytes() == b"1"
            assert [found.name for found in outside.iterdir()] == ["kept"]


class Cut:
    """A way to the provider that can be cut and closed."""

    def __init__(self) -> None:
        self.target = ("", 0)
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(*self.target)
            self.writers += [writer, back]
            async with asyncio.TaskGroup() as group:
                group.create_task(self.carry(reader, back))
                group.create_task(self.carry(there, writer))

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        for one in self.writers:
            one.transport.abort()
        self.writers.clear()


@asynccontextmanager
async def through(cut: Cut, address: str) -> AsyncIterator[str]:
    host, port = address.rsplit(":", 1)
    cut.target = (host, int(port))
    server = await asyncio.start_server(cut.serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        cut.cut()


async def test_a_cut_ends_what_was_begun_and_the_helper_comes_back(make: Make) -> None:
    cut = Cut()
    async with listening() as (tunnels, address), through(cut, address) as way:
        pod = make(container("m", STAYS), tunnel=settings(way))
        pod.all()
        await state_of(tunnels, "m", lambda state: isinstance(state, Running))
        heard = tunnels.events()

        async def until(wanted: object) -> None:
            async with asyncio.timeout(PATIENCE):
                async for event in heard:
                    if event == wanted:
                        return

        await until(Connected(IDENTITY.key, "m"))
        channel = await tunnels.exec(
            IDENTITY, "m", ["sh", "-c", "sleep 1000 & echo $! $$; wait"], stdin=True, tty=False
        )
        pids = [int(one) for one in (await channel.read())[1].split()]
        cut.cut()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(channel.read(), PATIENCE)
        with pytest.raises(Unavailable):
            await channel.write(b"x" * 1024 * 1024)
        with pytest.raises(Unavailable):
            await channel.wait()
        await channel.close()
        await until(Lost(IDENTITY.key, "m"))
        await until(Connected(IDENTITY.key, "m"))

        async def over() -> bool:
            return all(gone(one) for one in pids)

        await soon(over)
        assert await drained(
            await tunnels.exec(IDENTITY, "m", ["echo", "back"], stdin=False, tty=False)
        ) == (b"back\n", b"", 0)
        await state_of(tunnels, "m", lambda state: isinstance(state, Running))
        assert pod.running["m"].poll() is None


async def test_a_provider_that_starts_again_is_found(make: Make) -> None:
    async with listening() as (tunnels, address):
        port = int(address.rsplit(":", 1)[1])
        pod = make(container("m", STAYS), tunnel=settings(address))
        pod.all()
        await state_of(tunnels, "m", lambda state: isinstance(state, Running))
    async with listening(SECRET, port) as (tunnels, _):
        await state_of(tunnels, "m", lambda state: isinstance(state, Running))
        assert await tunnels.stop(IDENTITY, 1)
        await asyncio.to_thread(pod.end)


async def test_a_helper_that_is_yet_to_come_can_be_waited_for(make: Make) -> None:
    async with listening() as (tunnels, address):
        assert not await tunnels.arrival(IDENTITY, "m", 0.05)
        waits = [asyncio.create_task(tunnels.arrival(IDENTITY, one, 20)) for one in ("m", "")]
        await asyncio.sleep(0)
        with pytest.raises(NotConnected):
            await tunnels.attach(IDENTITY, "m", stdin=False)
        pod = make(container("m", STAYS), tunnel=settings(address))
        pod.all()
        assert await asyncio.gather(*waits) == [True, True]
        assert await tunnels.arrival(IDENTITY, "m", 0)
        assert not await tunnels.arrival(IDENTITY, "other", 0.05)
        assert await tunnels.stop(IDENTITY, 1)
        await asyncio.to_thread(pod.end)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_without_a_provider_all_is_as_without_a_tunnel(make: Make) -> None:
    pod = make(
        container("m", "echo out; echo err >&2; exit 7"),
        tunnel=settings(f"127.0.0.1:{free_port()}"),
    )
    began = time.monotonic()
    pod.all()
    states = pod.states()
    assert time.monotonic() - began < 9
    assert isinstance(states["m"].state, Exit)
    assert states["m"].state.code == 7
    assert pod.join("m", 7) == (b"out\n", b"err\n")


async def test_a_provider_that_says_nothing_holds_up_no_exit(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        pod = make(container("m", "exit 7"), tunnel=settings(f"127.0.0.1:{port}"))
        began = time.monotonic()
        pod.all()
        assert (await asyncio.to_thread(pod.states))["m"].state.code == 7  # type: ignore[union-attr]
        assert time.monotonic() - began < 9


async def test_another_providers_authority_is_refused_by_the_helper(make: Make) -> None:
    async with listening(b"another " * 8) as (tunnels, address):
        pod = make(container("m", "sleep 1"), tunnel=settings(address))
        pod.all()
        await asyncio.to_thread(pod.end)
        assert tunnels.pod(IDENTITY.key) is None


def asked(address: str, *, cert: bytes = b"", key: bytes = b"", folder: Path) -> bytes:
    """What a stranger with that certificate gets from the provider."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=Authority(SECRET).certificate.decode())
    context.set_alpn_protocols(["h2"])
    if cert:
        (folder / "pair").write_bytes(cert + key)
        context.load_cert_chain(folder / "pair")
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as raw:
        with context.wrap_socket(raw, server_hostname=SERVER_NAME) as connection:
            return connection.recv(1024)


async def test_strangers_get_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = datetime.now(UTC)
    other = Authority(b"another " * 8).client(IDENTITY.key, now, DAY)
    old = Authority(SECRET).client(IDENTITY.key, now - 2 * DAY, DAY)
    servers = Authority(SECRET).server(now, DAY)
    async with listening() as (tunnels, address):
        for pair in (None, other, old, servers) * 5:
            cert, key = (b"", b"") if pair is None else (pair.certificate, pair.key)
            with contextlib.suppress(OSError):
                assert not await asyncio.to_thread(
                    asked, address, cert=cert, key=key, folder=tmp_path
                )
        assert tunnels.pod(IDENTITY.key) is None
        assert len(caplog.records) <= 1
        good = Authority(SECRET).client(IDENTITY.key, now, DAY)
        said = await asyncio.to_thread(
            asked, address, cert=good.certificate, key=good.key, folder=tmp_path
        )
        assert said.startswith(b"PRI * HTTP/2.0")


async def test_handshakes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_server, "HANDSHAKE", 0.3)
    monkeypatch.setattr(tunnel_server, "HANDSHAKES", 2)
    async with listening() as (_, address):
        host, port = address.rsplit(":", 1)
        pairs = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        # The third is turned away at once, the others when their time is over.
        async with asyncio.timeout(PATIENCE):
            for reader, writer in reversed(pairs):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()


async def test_a_helper_speaks_for_its_own_pod_only(make: Make) -> None:
    other = replace(IDENTITY, uid="uid-2")
    async with listening() as (tunnels, address):
        pod = make(container("m", STAYS))
        # A pod that has another's payload, and its own certificate.
        pod.settings = replace(pod.settings, tunnel=tunnels.settings(other, address, DAY))
        pod.run("m")
        pod.watch()
        async with asyncio.timeout(PATIENCE):
            async for event in tunnels.events():
                assert event.key == other.key
                assert isinstance(event, Connected | Lost)
                if isinstance(event, Lost):
                    break
        assert tunnels.pod(IDENTITY.key) is None


async def test_a_helper_that_comes_again_takes_its_old_place(
    make: Make, program: Path, tmp_path: Path
) -> None:
    async with listening() as (tunnels, address):
        first = make(container("m", STAYS), tunnel=settings(address))
        first.run("m")
        heard = tunnels.events()
        assert await anext(heard) == Connected(IDENTITY.key, "m")
        second = type(first)(program, tmp_path / "2", first.workload, tunnel=settings(address))
        second.run("m")
        async with asyncio.timeout(PATIENCE):
            assert isinstance(await anext(heard), Connected | Lost)
        second.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run as another user")
async def test_nobody_of_the_helpers_own_user_reads_its_key(make: Make, tmp_path: Path) -> None:
    look = (
        "cat /proc/$PPID/environ /proc/$PPID/maps /proc/$PPID/mem; ls /proc/$PPID/fd /proc/self/fd"
    )
    async with listening() as (tunnels, address):
        pod = make(container("m", f"{STAYS}", working_dir="/"), tunnel=settings(address))
        for one in (tmp_path, *list(tmp_path.parents)[:3]):
            one.chmod(0o755)
        pod.install()
        pod.program = pod.bin / "helper"
        pod.run("m", user=65534, group=65534, extra_groups=[])
        async with asyncio.timeout(PATIENCE):
            assert await anext(tunnels.events()) == Connected(IDENTITY.key, "m")
        channel = await tunnels.exec(IDENTITY, "m", ["sh", "-c", look], stdin=False, tty=False)
        out, err, _ = await drained(channel)
        assert err.count(b"ermission denied") == 4
        assert out.split() == [b"/proc/self/fd:", b"0", b"1", b"2", b"3"]
        found = [path for path in pod.folder.rglob("*") if path.is_file()]
        assert not [one for one in found if b"PRIVATE KEY" in one.read_bytes()]


async def test_a_payload_with_a_tunnel_that_cannot_be_is_refused(make: Make) -> None:
    tunnel = settings("127.0.0.1:1")
    assert tunnel.key not in repr(tunnel)
    for wrong in (
        replace(tunnel, key=tunnel.cert),
        replace(tunnel, ca="nothing"),
        replace(tunnel, address="nowhere"),
        replace(tunnel, server_name=""),
    ):
        pod = make(container("m", "true"), tunnel=wrong)
        pod.run("m")
        words = pod.join("m", 121)[1]
        assert b"payload: tunnel: not a" in words
        assert b"PRIVATE" not in words


async def test_sigterm_still_ends_a_pod_that_has_a_tunnel(make: Make) -> None:
    async with rig(make, container("m", STAYS)) as made:
        channel = await made.tunnels.attach(IDENTITY, "m", stdin=False)
        made.pod.running["m"].send_signal(signal.SIGTERM)
        assert await drained(channel) == (b"", b"", 143)
        await asyncio.to_thread(made.pod.join, "m", 143)


async def test_silent_strangers_keep_no_helper_out(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel_server, "HANDSHAKE", 1000.0)
    async with listening() as (tunnels, address):
        host, _, port = address.rpartition(":")
        with contextlib.ExitStack() as strangers:
            for _ in range(300):
                one = strangers.enter_context(socket.socket())
                one.bind(("127.0.0.9", 0))
                one.setblocking(False)
                one.connect_ex((host, int(port)))
                await asyncio.sleep(0)
            pod = make(container("m", "sleep 60"), tunnel=settings(address))
            pod.all()
            assert await tunnels.arrival(IDENTITY, "m", PATIENCE)
