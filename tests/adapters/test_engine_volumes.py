"""`engine`: volumes on a real engine, and what is put into them without one."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tarfile
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import contract
import pytest
from contract import container, exit_of, is_running, log, until, workload
from engine_kit import IMAGE, EngineBench, engine_address, image  # noqa: F401 - a fixture

from adapters.engine import contents, hostpaths, mounts, names, subpaths, volumes
from adapters.engine.client import Engine
from adapters.engine.launch import Launcher
from bridge.adapter import Exec, Updates
from bridge.errors import Invalid, NotFound, Unavailable, Unsupported
from bridge.workload import (
    EmptyDir,
    File,
    Files,
    HostPath,
    Mount,
    Resources,
    Security,
    Volume,
    Workload,
)

slow = pytest.mark.slow


@pytest.fixture
async def bench() -> AsyncIterator[EngineBench]:
    made = EngineBench(engine_address())
    yield made
    await made.close()


async def local(bench: EngineBench) -> Engine:
    """The engine, where it is this machine's and we are root; skips the test elsewhere."""
    engine = await bench.engine()
    if not engine.local or not subpaths.allowed():
        pytest.skip("the engine is elsewhere, or we are not root")
    return engine


def pod(script: str, *held: Volume, at: Sequence[Mount] = (), **more: Any) -> Workload:
    return workload(
        container("sh", "-c", script, mounts=tuple(at), **more),
        volumes=held,  # type: ignore[arg-type]
    )


async def says(bench: EngineBench, one: Workload) -> str:
    """What a pod writes until its end, which has to be a good one."""
    adapter = await bench.adapter()
    await bench.launch(adapter, one)
    ended = await exit_of(adapter, one.identity)
    out = (await log(adapter, one.identity)).decode()
    assert ended.code == 0, (ended, out)
    return out


_CONFIG = Files(
    "config",
    (File("a", b"hello"), File("sub/b", b"there", 0o400), File("c", b"c", 0o755)),
    "r1",
)


@slow
async def test_files_of_every_kind_of_volume(bench: EngineBench) -> None:
    script = (
        "cat /c/a /c/sub/b; echo; ls -l /c/..data/ /c/..data/sub | grep -v total; readlink /c/a; "
        "touch /c/new 2>&1; stat -c '%a %g' /work /mem; touch /work/x /mem/x; df -k /mem | tail -1"
    )
    out = await says(
        bench,
        pod(
            f"{script}; true",
            _CONFIG,
            EmptyDir("work"),
            EmptyDir("mem", memory=True, size_limit=1 << 20),
            at=[Mount("config", "/c"), Mount("work", "/work"), Mount("mem", "/mem")],
            security=Security(run_as_user=1000, fs_group=4321),
        ),
    )
    lines = out.splitlines()
    assert lines[0] == "hello" + "there"
    shown = {line.split()[-1]: line.split()[0] for line in lines if line.startswith(("-", "d"))}
    assert shown == {
        "a": "-rw-r--r--",
        "b": "-r--r-----",
        "c": "-rwxr-xr-x",
        "sub": "drwxr-sr-x",
    }
    assert all("4321" in line for line in lines if line.startswith("-"))
    assert "..data/a" in lines
    assert "Read-only file system" in out
    assert lines.count("2777 4321") == 2
    assert lines[-1].split()[1] == "1024"


@slow
async def test_secrets_are_in_memory_and_stay_there(bench: EngineBench) -> None:
    secret = Files("secret", (File("key", b"very", secret=True),), "r1")
    one = pod("exec sleep 1000", secret, at=[Mount("secret", "/s")])
    adapter = await bench.adapter()
    await bench.launch(adapter, one)
    await until(adapter, one.identity, is_running)
    again = await bench.adapter()
    assert isinstance(again, Exec)
    channel = await again.exec(
        one.identity, "main", ["sh", "-c", "cat /s/key; stat -f -c %T /s"], stdin=False, tty=False
    )
    out = b""
    while (found := await channel.read())[0]:
        out += found[1]
    await channel.close()
    assert out == b"verytmpfs\n"


@slow
async def test_an_update_is_at_once_and_leaves_nothing_old(bench: EngineBench) -> None:
    one = pod(
        "while :; do [ -s /c/a ] || exit 9; x=$(cd /c/..data && cat a b) || continue; "
        'case "$x" in 11|22) ;; *) echo "torn $x"; exit 8;; esac; '
        "[ -e /c/new ] && [ ! -e /c/old ] && break; done; "
        "while [ -e /c/..r1 ]; do sleep 0.05; done; sleep 1; ls -A /c; cat /s; echo; "
        "stat -c %g /c/a/../..data/a /c/..data/a",
        Files("config", (File("a", b"1"), File("b", b"1"), File("old", b"o")), "r1"),
        at=[Mount("config", "/c"), Mount("config", "/s", sub_path="a")],
        security=Security(fs_group=77),
    )
    adapter = await bench.adapter()
    await bench.launch(adapter, one)
    await until(adapter, one.identity, is_running)
    assert isinstance(adapter, Updates)
    fresh = Files("config", (File("a", b"2"), File("b", b"2"), File("new", b"n")), "r2")
    for _ in range(2):
        await adapter.update_files(one.identity, [fresh])
    ended = await exit_of(adapter, one.identity)
    lines = (await log(adapter, one.identity)).decode().split()
    assert sorted(lines[:6]) == ["..data", "..data_tmp", "..r2", "a", "b", "new"], (ended, lines)
    # What was mounted by subPath stays what it was.
    assert lines[6] == "1"


@slow
async def test_volumes_are_shared_nested_and_gone_afterwards(bench: EngineBench) -> None:
    first = container(
        "sh", "-c", "echo shared > /work/f; sleep 1000", mounts=[Mount("work", "/work")]
    )
    second = container(
        "sh",
        "-c",
        "until [ -s /c/in/f ]; do sleep 0.05; done; cat /c/in/f; cat /c/a; ! touch /c/in/g",
        mounts=[Mount("work", "/c/in", read_only=True), Mount("config", "/c")],
    )
    one = workload(replace(first, name="first"), second, volumes=[EmptyDir("work"), _CONFIG])
    out = await says(bench, one)
    assert out.startswith("shared\nhello")
    adapter = await bench.adapter()
    assert await bench.leftovers(one.identity)
    await adapter.delete(one.identity)
    assert not await bench.leftovers(one.identity)


@slow
async def test_sub_paths(bench: EngineBench) -> None:
    await local(bench)
    first = container(
        "sh",
        "-c",
        "echo deep > /work/f; mkdir -p /work/real; echo in > /work/real/x; ln -s real /work/link; "
        "touch /work/ready; sleep 1000",
        name="first",
        mounts=[Mount("work", "/work")],
    )
    second = container(
        "sh",
        "-c",
        "cat /one /two/x; stat -c %a /made; touch /made/y; cat /cfg /dir/b; ls -d /none",
        mounts=[
            Mount("work", "/one", sub_path="f"),
            Mount("work", "/two", sub_path="link", read_only=True),
            Mount("work", "/made", sub_path="new/folder"),
            Mount("config", "/cfg", sub_path="a"),
            Mount("config", "/dir", sub_path="sub"),
            Mount("config", "/none", sub_path="missing"),
        ],
    )
    one = workload(first, second, volumes=[EmptyDir("work"), _CONFIG])
    adapter = await bench.adapter()
    await adapter.run(one)
    await adapter.start(one, "first", 0)
    await ready(bench, one)
    await adapter.start(one, "main", 0)
    assert (await exit_of(adapter, one.identity)).code == 0
    out = (await log(adapter, one.identity)).decode()
    assert out == "deep\nin\n777\nhellothere/none\n"
    engine = await bench.engine()
    assert len(mounted(engine, one)) == 3
    await adapter.delete(one.identity)
    assert not mounted(engine, one)
    assert not (subpaths.PLACE / mounts.held_of(engine, one.identity)).exists()


def mounted(engine: Engine, one: Workload) -> list[str]:
    """What the kernel says that is mounted for a pod's subPaths, in our own namespace."""
    place = str(subpaths.PLACE / mounts.held_of(engine, one.identity))
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(f"{place}/")]


@slow
async def test_parts_of_pods_that_somebody_removed_are_let_go(bench: EngineBench) -> None:
    engine = await local(bench)
    gone = pod("exec sleep 1000", EmptyDir("work"), at=[Mount("work", "/w", sub_path="x")])
    there = replace(gone, identity=contract.identity())
    adapter = await bench.adapter()
    for one in (gone, there):
        await bench.launch(adapter, one)
        assert mounted(engine, one)
    await adapter.close()
    for each in await bench.containers(gone.identity):
        params = {"force": True, "v": True, "timeout": 0, "depend": True}
        with suppress(NotFound):
            await engine.call("DELETE", f"containers/{each}", params=params, libpod=engine.podman)
    for name in await bench.leftovers(gone.identity):
        await engine.call("DELETE", f"volumes/{name}")
    other = EngineBench(bench.address)
    await (await other.adapter()).list()
    await other.close()
    assert mounted(engine, gone)  # Another owner sees to its own.
    again = await bench.adapter()
    await again.list()
    assert not mounted(engine, gone)
    assert mounted(engine, there)


@slow
async def test_a_part_whose_mount_is_gone_is_mounted_again(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await local(bench)
    one = pod(
        "echo deep > /w/f; cat /w/f", EmptyDir("work"), at=[Mount("work", "/w", sub_path="x")]
    )
    adapter = await bench.adapter()

    async def dies(*_: Any) -> None:
        raise Unavailable("the provider is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Launcher, "_begin", dies)
        with pytest.raises(Unavailable):
            await bench.launch(adapter, one)
    assert len(await bench.containers(one.identity)) == 2
    assert mounted(engine, one)
    subpaths.release(mounts.held_of(engine, one.identity))
    assert await says(bench, one) == "deep\n"


@slow
@pytest.mark.parametrize("step", ["start", "fill"])
async def test_volumes_that_were_not_filled_yet(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    one = pod("cat /c/a", _CONFIG, at=[Mount("config", "/c")])
    adapter = await bench.adapter()

    async def dies(*_: Any) -> None:
        raise Unavailable("the provider is gone")

    with monkeypatch.context() as patch:
        if step == "start":
            patch.setattr(Launcher, "_prepare", dies)
        else:
            patch.setattr(volumes, "fill", dies)
        with pytest.raises(Unavailable):
            await adapter.run(one)
    again = await bench.adapter()
    await again.start(one, "main", 0)
    assert (await exit_of(again, one.identity)).code == 0
    assert await log(again, one.identity) == b"hello"


async def ready(bench: EngineBench, one: Workload) -> None:
    """Waits until the first container has said so in the volume."""
    adapter = await bench.adapter()
    assert isinstance(adapter, Exec)
    async with asyncio.timeout(contract.PATIENCE):
        while True:
            await until(adapter, one.identity, lambda seen: is_running(seen, "first"))
            channel = await adapter.exec(
                one.identity, "first", ["test", "-e", "/work/ready"], stdin=False, tty=False
            )
            while (await channel.read())[0]:
                pass
            code = await channel.wait()
            await channel.close()
            if code == 0:
                return


@slow
@pytest.mark.parametrize("sub_path", ["evil", "evil/etc", "evil/podbridge-new", "up/x"])
async def test_no_sub_path_leads_out_of_its_volume(bench: EngineBench, sub_path: str) -> None:
    engine = await local(bench)
    first = container(
        "sh",
        "-c",
        "ln -s / /work/evil; ln -s ../.. /work/up; touch /work/ready; sleep 1000",
        name="first",
        mounts=[Mount("work", "/work")],
    )
    second = container("ls", "/m", mounts=[Mount("work", "/m", sub_path=sub_path)])
    one = workload(first, second, volumes=[EmptyDir("work")])
    adapter = await bench.adapter()
    await adapter.run(one)
    await adapter.start(one, "first", 0)
    await ready(bench, one)
    with pytest.raises(Invalid, match="out of the volume"):
        await mounts.mounts(engine, one, second)
    await adapter.start(one, "main", 0)
    seen = await until(adapter, one.identity, lambda it: it.container("main") is not None)
    state = seen.container("main")
    assert state is not None
    assert "out of the volume" in getattr(state.state, "message", "")
    assert not _exists("/podbridge-new")


def _exists(path: str) -> bool:
    return os.path.lexists(path)


@slow
async def test_a_part_that_is_swapped_before_the_start_is_not_mounted(
    bench: EngineBench, tmp_path: Path
) -> None:
    await local(bench)
    base = tmp_path / "base"
    (base / "part").mkdir(parents=True)
    (base / "part" / "f").write_text("good")
    held = subpaths.hold("test-swap", "main.0", str(base), "part")
    try:
        (base / "part").rename(base / "away")
        (base / "part").symlink_to("/")
        out = await says(
            bench,
            pod("cat /m/f; ls /m", HostPath("held", held), at=[Mount("held", "/m")]),
        )
        assert out == "goodf\n"
    finally:
        subpaths.release("test-swap")
    assert not _exists(held)


@slow
async def test_host_paths(bench: EngineBench, tmp_path: Path) -> None:
    await local(bench)
    (tmp_path / "there").write_text("host")
    (tmp_path / "tree" / "x").mkdir(parents=True)
    made = tmp_path / "new" / "folder"
    out = await says(
        bench,
        pod(
            "cat /f; echo made > /made/x; ls /part; ! touch /f 2>&1; "
            "grep -E ' /(made|part) ' /proc/self/mountinfo",
            HostPath("file", str(tmp_path / "there"), "File"),
            HostPath("made", str(made), "DirectoryOrCreate"),
            HostPath("tree", str(tmp_path)),
            at=[
                Mount("file", "/f", read_only=True),
                Mount("made", "/made", propagation="HostToContainer"),
                Mount("tree", "/part", sub_path="tree"),
            ],
        ),
    )
    assert out.startswith("hostx\n")
    assert "Read-only file system" in out
    assert (made / "x").read_text() == "made\n"
    assert made.stat().st_mode & 0o777 == 0o755
    adapter = await bench.adapter()
    with pytest.raises(Unavailable, match="volume file: found nothing at"):
        await adapter.run(pod("true", HostPath("file", str(tmp_path / "no"), "File")))


# What needs no engine.


def unpacked(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {one.name: one for one in tar}


def test_the_layout_of_files() -> None:
    archive = contents.Archive(None)
    contents.first(archive, _CONFIG, {"in/side", "a/taken"})
    found = unpacked(archive.done())
    assert [(name, oct(one.mode), one.linkname) for name, one in found.items()] == [
        ("config", "0o777", ""),
        ("config/..r1", "0o755", ""),
        ("config/..r1/a", "0o644", ""),
        ("config/..r1/sub", "0o755", ""),
        ("config/..r1/sub/b", "0o400", ""),
        ("config/..r1/c", "0o755", ""),
        ("config/..data", "0o777", "..r1"),
        ("config/a", "0o777", "..data/a"),
        ("config/c", "0o777", "..data/c"),
        ("config/sub", "0o777", "..data/sub"),
        ("config/in", "0o755", ""),
        ("config/in/side", "0o755", ""),
    ]
    assert {(one.uid, one.gid) for one in found.values()} == {(0, 0)}


def test_everything_is_the_groups() -> None:
    archive = contents.Archive(5)
    contents.first(archive, _CONFIG)
    contents.empty(archive, EmptyDir("work"))
    found = unpacked(archive.done())
    assert {one.gid for one in found.values()} == {5}
    modes = {name: oct(one.mode) for name, one in found.items() if not one.issym()}
    assert modes == {
        "config": "0o2777",
        "config/..r1": "0o2755",
        "config/..r1/a": "0o644",
        "config/..r1/sub": "0o2755",
        "config/..r1/sub/b": "0o440",
        "config/..r1/c": "0o755",
        "work": "0o2777",
    }


def test_what_a_volume_says_of_itself() -> None:
    archive = contents.Archive(None)
    contents.first(archive, _CONFIG, {"in"})
    assert contents.seen(archive.done(), "config") == ("..r1", {"a", "sub", "c"})
    archive = contents.Archive(None)
    contents.empty(archive, EmptyDir("config"))
    assert contents.seen(archive.done(), "config") == ("", set())


def test_a_revision_without_a_name_has_one_by_its_content() -> None:
    plain = replace(_CONFIG, revision="")
    again = replace(_CONFIG, revision="../../evil")
    other = replace(plain, files=(File("a", b"other"),))
    assert contents.folder_of(plain) == contents.folder_of(again) != contents.folder_of(other)
    assert contents.folder_of(plain).startswith("..")
    assert "/" not in contents.folder_of(again)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "..data/x", "a//b", "", "."])
def test_a_file_outside_of_its_volume(path: str) -> None:
    with pytest.raises(Invalid, match="within"):
        contents.first(contents.Archive(None), Files("v", (File(path, b""),), "r"))


class Quiet(Engine):
    """An engine that is never asked."""

    def __init__(self, *, podman: bool = True, api: tuple[int, int] = (1, 41)) -> None:
        super().__init__("unix:///nowhere")
        self.podman, self.api = podman, api


@pytest.mark.parametrize(
    ("limit", "memory", "expected"),
    [(None, {}, None), (5000, {}, 2), (None, {"memory": 4096}, 1), (9000, {"memory": 4096}, 1)],
)
def test_the_size_of_memory(
    limit: int | None, memory: dict[str, int], expected: int | None
) -> None:
    held = EmptyDir("m", memory=True, size_limit=limit)
    one = workload(container("x", resources=Resources({}, memory)), volumes=[held])
    options = volumes._memory(Quiet(), volumes._memory_limit(one, held))["o"].split(",")
    assert [it for it in options if it.startswith("nr_blocks")] == (
        [] if expected is None else [f"nr_blocks={expected}"]
    )


async def test_an_engine_elsewhere_refuses_parts_of_what_is_written() -> None:
    one = pod("x", EmptyDir("work"), at=[Mount("work", "/m", sub_path="x")])
    (found,) = mounts.problems(Quiet(), one)
    assert found.field == "spec.containers[0].volumeMounts[0].subPath"
    with pytest.raises(Unsupported, match="out of the volume"):
        await mounts.mounts(Quiet(), one, one.containers[0])
    assert mounts.problems(Quiet(podman=False, api=(1, 45)), one) == []
    files = pod("x", _CONFIG, at=[Mount("config", "/m", sub_path="a")])
    assert mounts.problems(Quiet(), files) == []


async def test_mounts_in_their_order() -> None:
    one = pod(
        "x",
        _CONFIG,
        EmptyDir("work"),
        HostPath("host", "/srv"),
        at=[
            Mount("work", "/a/b"),
            Mount("config", "/a"),
            Mount("host", "/", propagation="Bidirectional"),
        ],
    )
    made = await mounts.mounts(Quiet(), one, one.containers[0])
    assert [(each["Target"], each["Type"], each["ReadOnly"]) for each in made] == [
        ("/", "bind", False),
        ("/a", "volume", True),
        ("/a/b", "volume", False),
    ]
    assert made[0]["BindOptions"]["Propagation"] == "rshared"
    assert made[1]["VolumeOptions"] == {"NoCopy": True}
    assert made[1]["Source"] == names.volume(one.identity, "config")
    assert [each["Target"] for each in volumes.pause_mounts(one)] == ["/v/config", "/v/work"]


@pytest.mark.parametrize(
    ("type_", "path", "words"),
    [
        ("", "relative", "an absolute path"),
        ("Odd", "/", 'found type "Odd"'),
        ("File", "/etc", "something else; allowed by type File: a file"),
        ("Directory", "/etc", ""),
        ("Directory", "/nonexistent", "found nothing"),
        ("DirectoryOrCreate", "/nonexistent", ""),
        ("CharDevice", "/dev/null", ""),
    ],
)
def test_types_of_host_paths(type_: str, path: str, words: str) -> None:
    found = hostpaths.problem(HostPath("v", path, type_))
    assert words in found
    assert bool(words) == bool(found)


def test_a_socket_and_a_new_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "s"))
    assert hostpaths.problem(HostPath("v", str(tmp_path / "s"), "Socket")) == ""
    hostpaths.make(HostPath("v", str(tmp_path / "f"), "FileOrCreate"))
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644
    with pytest.raises(Unavailable, match="cannot make"):
        hostpaths.make(HostPath("v", str(tmp_path / "f" / "x"), "DirectoryOrCreate"))


def opened(base: Path, sub_path: str) -> str:
    descriptor = subpaths._open(str(base), sub_path)
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def test_what_a_sub_path_opens(tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "a").mkdir(parents=True)
    base.chmod(0o777)
    (base / "in").symlink_to("a")
    assert opened(base, "a") == opened(base, "in") == str(base / "a")
    assert opened(base, "in/new/more") == str(base / "a" / "new" / "more")
    assert (base / "a" / "new").stat().st_mode & 0o777 == 0o777
    (base / "f").touch()
    assert opened(base, "f") == str(base / "f")
    for name, target in {"abs": "/", "up": "..", "gone": "nowhere", "loop": "loop"}.items():
        (base / name).symlink_to(target)
    for sub_path in ("abs", "abs/etc", "abs/new", "up", "up/new", "../x", "gone", "loop", "f/x"):
        with pytest.raises(OSError, match=r".+"):
            opened(base, sub_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["base"]


def test_a_part_that_becomes_a_link_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    (base / "a").mkdir(parents=True)
    real = os.path.realpath

    def swapped(path: str, *, strict: bool = False) -> str:
        found = real(path, strict=strict)
        (base / "a").rmdir()
        (base / "a").symlink_to("/")
        return found

    monkeypatch.setattr(os.path, "realpath", swapped)
    with pytest.raises(OSError, match="has become a symbolic link"):
        subpaths._open(str(base), "a")
