"""`process`: files and folders of the host as volumes, and the hard stop that needs nobody."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from contract import container, exit_of, log, until, workload
from process_kit import ProcessBench, exists, text
from test_process_check import BARE, ROOT, wrong

from adapters.process.keeper import child
from bridge.errors import Invalid, Unavailable
from bridge.workload import EmptyDir, Exit, HostPath, Mount, Security, Workload

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ProcessBench]:
    made = ProcessBench(tmp_path / "state")
    yield made
    await made.close()


def pod(script: str, *mounts: Mount, volumes: list[object], **more: object) -> Workload:
    """A pod of one shell script over these volumes."""
    one = container("sh", "-c", script, mounts=mounts, **more)
    return workload(one, volumes=volumes)


async def run(bench: ProcessBench, one: Workload) -> tuple[Exit, str]:
    """It, to its end and removed, and what it wrote."""
    adapter = await bench.adapter()
    assert adapter.check(one) == []
    await bench.launch(adapter, one)
    end = await exit_of(adapter, one.identity)
    said = (await log(adapter, one.identity)).decode()
    await adapter.delete(one.identity)
    return end, said


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder of the host with a file in it."""
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "in").write_text("there\n")
    return folder


async def test_a_folder_is_shared_and_stays(bench: ProcessBench, host: Path) -> None:
    script = "cat /mnt/no-such/in; echo made > /mnt/no-such/out"
    volume = HostPath("h", str(host), "Directory")
    end, said = await run(bench, pod(script, Mount("h", "/mnt/no-such"), volumes=[volume]))
    assert (end.code, said) == (0, "there\n")
    assert text(host / "out") == "made\n"
    assert not exists("/mnt/no-such")


async def test_at_its_own_place(bench: ProcessBench, host: Path) -> None:
    script = f"cat {host}/in {host}/in; echo made > {host}/out"
    one = pod(script, Mount("h", str(host)), volumes=[HostPath("h", str(host))])
    end, said = await run(bench, one)
    assert (end.code, said) == (0, "there\nthere\n")
    assert text(host / "out") == "made\n"


async def test_a_sub_path_and_read_only(bench: ProcessBench, host: Path) -> None:
    script = "echo x > /a/new; cat /b/in; (echo y > /b/new) 2>/dev/null || echo read-only"
    mounts = (Mount("h", "/a", sub_path="deep/er"), Mount("h", "/b", read_only=True))
    end, said = await run(bench, pod(script, *mounts, volumes=[HostPath("h", str(host))]))
    assert (end.code, said) == (0, "there\nread-only\n")
    assert text(host / "deep" / "er" / "new") == "x\n"
    assert not exists(host / "new")


async def test_a_read_only_root_leaves_it_writable(bench: ProcessBench, host: Path) -> None:
    one = pod(
        f"echo x > {host}/new",
        Mount("h", str(host)),
        volumes=[HostPath("h", str(host))],
        security=Security(read_only_root=True),
    )
    assert (await run(bench, one))[0].code == 0
    assert text(host / "new") == "x\n"


async def test_one_file(bench: ProcessBench, host: Path) -> None:
    script = "cat /etc/no-such/name; echo more >> /etc/no-such/name"
    volume = HostPath("h", str(host / "in"), "File")
    end, said = await run(bench, pod(script, Mount("h", "/etc/no-such/name"), volumes=[volume]))
    assert (end.code, said) == (0, "there\n")
    assert text(host / "in") == "there\nmore\n"


async def test_the_whole_host(bench: ProcessBench, host: Path) -> None:
    one = pod(f"cat /rootfs{host}/in", Mount("h", "/rootfs"), volumes=[HostPath("h", "/")])
    assert (await run(bench, one))[1] == "there\n"
    below = Mount("h", "/sub", sub_path=str(host)[1:])
    assert (await run(bench, pod("cat /sub/in", below, volumes=[HostPath("h", "/")])))[1] == (
        "there\n"
    )


async def test_other_volumes_within_it(bench: ProcessBench, host: Path) -> None:
    script = f"echo x > {host}/out; echo y > {host}/cache/own; ls {host}"
    mounts = (Mount("h", str(host)), Mount("e", f"{host}/cache"))
    end, said = await run(
        bench, pod(script, *mounts, volumes=[EmptyDir("e"), HostPath("h", str(host))])
    )
    assert (end.code, said) == (0, "cache\nin\nout\n")
    assert text(host / "out") == "x\n"
    assert not exists(host / "cache" / "own")


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("DirectoryOrCreate", stat.S_IFDIR | 0o755),
        ("", stat.S_IFDIR | 0o755),
        ("FileOrCreate", stat.S_IFREG | 0o644),
    ],
)
async def test_what_is_missing_is_made(
    bench: ProcessBench, host: Path, kind: str, mode: int
) -> None:
    place = host / "new" if kind == "FileOrCreate" else host / "new" / "deep"
    one = pod("true", Mount("h", "/mnt/x"), volumes=[HostPath("h", str(place), kind)])
    before = os.umask(0o077)
    try:
        assert (await run(bench, one))[0].code == 0
    finally:
        os.umask(before)
    assert os.stat(place).st_mode == mode
    assert stat.S_IMODE(os.stat(host / "new").st_mode) == stat.S_IMODE(mode)


def refused(volume: HostPath) -> dict[str, str]:
    return wrong(pod("true", Mount("h", "/mnt/x"), volumes=[EmptyDir("e"), volume]))


FIELD = "spec.volumes[1].hostPath.path"


@pytest.mark.parametrize("kind", ["Directory", "File", "Socket", "CharDevice", "BlockDevice"])
def test_what_must_be_there(host: Path, kind: str) -> None:
    found = refused(HostPath("h", str(host / "no-such"), kind))
    assert "no-such" in found[FIELD]
    assert f"does not exist; allowed by type {kind}" in found[FIELD]


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        ("Directory", "a directory"),
        ("DirectoryOrCreate", "a directory"),
        ("Socket", "a socket"),
        ("CharDevice", "a character device"),
        ("BlockDevice", "a block device"),
    ],
)
def test_what_is_something_else(host: Path, kind: str, allowed: str) -> None:
    place = str(host / "in")
    assert refused(HostPath("h", place, kind)) == {
        FIELD: f'found "{place}", a file; allowed by type {kind}: {allowed}'
    }


def test_what_fits(host: Path) -> None:
    # A socket's address may have 107 bytes.
    folder = os.open(host, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{folder}/socket")
        assert refused(HostPath("h", str(host / "socket"), "Socket")) == {}
    os.close(folder)
    assert refused(HostPath("h", "/dev/null", "CharDevice")) == {}
    assert refused(HostPath("h", str(host / "in"), "FileOrCreate")) == {}
    assert refused(HostPath("h", str(host / "new"), "FileOrCreate")) == {}


def test_what_cannot_be_made(host: Path) -> None:
    assert FIELD in refused(HostPath("h", str(host / "in" / "x"), "DirectoryOrCreate"))
    assert FIELD in refused(HostPath("h", str(host / "no" / "x"), "FileOrCreate"))
    assert FIELD in refused(HostPath("h", "relative", ""))
    assert FIELD in refused(HostPath("h", str(host), "Strange"))


def test_files_and_folders_are_mounted_on_their_like(host: Path) -> None:
    field = "spec.containers[0].volumeMounts[0].mountPath"
    file, folder = HostPath("h", str(host / "in")), HostPath("h", str(host))
    assert field in wrong(pod("true", Mount("h", "/etc"), volumes=[file]))
    assert field in wrong(pod("true", Mount("h", "/etc/passwd"), volumes=[folder]))
    assert wrong(pod("true", Mount("h", "/etc/passwd"), volumes=[file])) == {}


def test_without_namespaces_only_its_own_place(host: Path) -> None:
    field = "spec.containers[0].volumeMounts[0].mountPath"
    volumes: list[object] = [HostPath("h", str(host))]
    same = Mount("h", str(host))
    assert wrong(pod("true", same, volumes=volumes), BARE) == {}
    assert wrong(pod("true", same, volumes=volumes), ROOT) == {}
    for mount in (replace(same, read_only=True), replace(same, path="/other")):
        assert list(wrong(pod("true", mount, volumes=volumes), BARE)) == [field]


async def test_a_host_that_has_changed_since(bench: ProcessBench, host: Path) -> None:
    adapter = await bench.adapter()
    one = pod("true", Mount("h", "/x"), volumes=[HostPath("h", str(host / "no"), "Directory")])
    with pytest.raises(Unavailable, match="does not exist"):
        await adapter.run(one)
    assert await adapter.list() == []
    assert list(bench.root.glob("*/.new.*")) == []


def stopped(script: str, **more: object) -> Workload:
    """A pod with a hard stop."""
    return replace(workload(container("sh", "-c", script)), **more)


async def test_the_hard_stop(bench: ProcessBench) -> None:
    end, _ = await run(bench, stopped("sleep 1000", hard_stop=0.3))
    assert (end.code, end.signal, end.reason) == (143, 15, "Error")
    assert end.message == "the hard stop of 0.3 s was reached"


async def test_the_hard_stop_is_an_error_whatever_the_command_answers(
    bench: ProcessBench,
) -> None:
    script = "trap 'exit 0' TERM; while :; do sleep 0.01; done"
    end, _ = await run(bench, stopped(script, hard_stop=0.3))
    assert (end.code, end.signal, end.reason) == (143, 0, "Error")


async def test_the_hard_stop_kills_when_the_grace_is_over(bench: ProcessBench) -> None:
    script = "trap '' TERM; while :; do sleep 0.01; done"
    # Long enough for a shell on a busy machine to have heard that it is deaf.
    end, _ = await run(bench, stopped(script, hard_stop=1.5, grace=0.2))
    assert (end.code, end.signal) == (137, signal.SIGKILL)
    assert end.started_at is not None
    assert end.finished_at - end.started_at >= 1.65


async def test_who_ends_before_it_is_left_alone(bench: ProcessBench) -> None:
    end, _ = await run(bench, stopped("exit 3", hard_stop=1000))
    assert (end.code, end.reason, end.message) == (3, "Error", "")


async def test_the_hard_stop_needs_no_provider(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    one = stopped("sleep 1000", hard_stop=0.3)
    await bench.launch(adapter, one)
    await until(adapter, one.identity, lambda _: True)
    await adapter.close()
    mark = bench.folder(one.identity) / "containers" / "main.0" / "exit.json"
    deadline = time.monotonic() + 20
    while not exists(mark):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    again = await bench.adapter()
    assert (await exit_of(again, one.identity)).message.startswith("the hard stop")


def test_a_link_put_in_the_way_of_a_sub_path_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir(0o777)
    outside.mkdir(0o700)
    real = os.path.lexists

    def swap(path: str) -> bool:
        found = real(path)
        if not real(volume / "a"):
            (volume / "a").symlink_to(outside)
        return found

    monkeypatch.setattr(os.path, "lexists", swap)
    opened = os.open(volume, os.O_PATH)
    try:
        with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
            child._below(opened, "a/b")
    finally:
        os.close(opened)
    assert list(outside.iterdir()) == []


def test_sub_paths_are_made_as_the_volume_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o751)
    (tmp_path / "a").mkdir(0o700)
    opened = os.open(tmp_path, os.O_PATH)
    try:
        os.close(child._below(opened, "a/b/c"))
    finally:
        os.close(opened)
    modes = [stat.S_IMODE((tmp_path / one).stat().st_mode) for one in ("a", "a/b", "a/b/c")]
    assert modes == [0o700, 0o751, 0o751]


async def test_a_root_that_others_can_write_to_is_refused(bench: ProcessBench) -> None:
    bench.root.mkdir()
    bench.root.chmod(0o775)
    with pytest.raises(Invalid, match=r"other users can write to it.*chmod go-w"):
        await bench.adapter()
    bench.root.chmod(0o755)
    await bench.adapter()
    assert stat.S_IMODE(bench.root.stat().st_mode) == 0o700
