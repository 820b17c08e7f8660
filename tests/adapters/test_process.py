"""`process`: the contract, on real processes, and what only this backend does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from contract import (
    CLUSTER,
    Bench,
    RealContract,
    container,
    exit_of,
    find,
    is_running,
    log,
    until,
    workload,
)
from process_kit import ProcessBench, exists, keeper_of, limit_files, processes_of, snapshot

from adapters.process import Adapter, Options
from adapters.process.keeper import files
from bridge.adapter import Updates
from bridge.errors import NotFound
from bridge.workload import EmptyDir, EnvVar, Exit, File, Files, Mount, Security, Workload

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ProcessBench]:
    made = ProcessBench(tmp_path / "state")
    yield made
    await made.close()


class TestProcess(RealContract):
    pass


async def run(bench: ProcessBench, pod: Workload) -> tuple[Exit, str]:
    """A pod of one container to its end, and what it wrote."""
    adapter = await bench.adapter()
    await bench.launch(adapter, pod)
    end = await exit_of(adapter, pod.identity)
    return end, (await log(adapter, pod.identity)).decode()


def sh(script: str, **more: object) -> Workload:
    """A pod of one shell script."""
    keys = {"volumes", "hostname"}
    pod = {key: more.pop(key) for key in keys & more.keys()}
    return workload(container("sh", "-c", script, **more), **pod)


async def test_the_parts_are_abilities(bench: ProcessBench) -> None:
    assert isinstance(await bench.adapter(), Updates)


async def test_orphans_end_with_the_container(bench: ProcessBench) -> None:
    end, text = await run(bench, sh("setsid sleep 100 & (setsid sleep 100 &) ; sleep 0.1; echo $$"))
    assert end.code == 0
    assert text


async def test_a_deaf_container_is_killed_when_its_grace_is_over(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    pod = sh("trap '' TERM; echo ready; sleep 100 & wait; while :; do sleep 100; done")
    await bench.launch(adapter, pod)
    await _says(bench, pod, b"ready\n")
    before = time.monotonic()
    await adapter.stop(pod.identity, 0.3)
    assert (await exit_of(adapter, pod.identity)).code == 137
    assert time.monotonic() - before >= 0.3


async def test_a_shorter_grace_wins_and_a_longer_one_does_not(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    pod = sh("trap '' TERM; echo ready; while :; do sleep 100; done")
    await bench.launch(adapter, pod)
    await _says(bench, pod, b"ready\n")
    await adapter.kill(pod.identity, "main", 1000)
    await adapter.kill(pod.identity, "main", 0.1)
    await adapter.kill(pod.identity, "main", 1000)
    assert (await exit_of(adapter, pod.identity)).code == 137


async def test_the_stop_signal_is_its_own(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    script = "trap 'exit 42' USR1; echo ready; while :; do sleep 0.01; done"
    pod = sh(script, stop_signal="SIGUSR1")
    await bench.launch(adapter, pod)
    await _says(bench, pod, b"ready\n")
    await adapter.stop(pod.identity, 30)
    assert (await exit_of(adapter, pod.identity)).code == 42


async def _says(bench: ProcessBench, pod: Workload, text: bytes) -> None:
    adapter = await bench.adapter()
    async with asyncio.timeout(20):
        while await log(adapter, pod.identity) != text:  # noqa: ASYNC110 - another process writes
            await asyncio.sleep(0.005)


async def test_a_killed_keeper_takes_its_tree_along(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    pod = sh("(setsid sleep 1000 &); sleep 1000 & echo ready; wait")
    await bench.launch(adapter, pod)
    await _says(bench, pod, b"ready\n")
    os.kill(keeper_of(bench.root, pod.identity), signal.SIGKILL)
    end = await exit_of(adapter, pod.identity)
    assert (end.code, end.reason) == (137, "ContainerStatusUnknown")
    assert processes_of(bench.root, pod.identity) == []
    assert await exit_of(adapter, pod.identity) == end
    # The mark says that it has started: it is never started again.
    await adapter.start(pod, "main", 0)
    assert await exit_of(adapter, pod.identity) == end


async def test_a_mark_without_an_exit_is_never_started(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    pod = sh("echo ran")
    await adapter.run(pod)
    folder = bench.folder(pod.identity) / "containers" / "main.0"
    folder.mkdir()
    (folder / files.STARTED).write_text(json.dumps({"started_at": 1.0, "boot": "another"}))
    await adapter.start(pod, "main", 0)
    assert (await exit_of(adapter, pod.identity)).reason == "ContainerStatusUnknown"
    assert not (folder / files.LOG).exists()


async def test_a_directory_without_a_mark_is_started(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    pod = sh("echo ran")
    await adapter.run(pod)
    (bench.folder(pod.identity) / "containers" / "main.0").mkdir()
    observed = await find(adapter, pod.identity)
    assert observed is not None
    assert observed.containers == ()
    await adapter.start(pod, "main", 0)
    assert (await exit_of(adapter, pod.identity)).code == 0


async def test_a_run_that_was_seen_before_its_mark_is_seen(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    pod = sh("exit 3")
    await bench.launch(adapter, pod)
    await exit_of(adapter, pod.identity)
    (bench.folder(pod.identity) / "containers" / "main.1").mkdir()
    observed = await find(adapter, pod.identity)
    assert observed is not None
    assert observed.containers[0].restart == 0
    await adapter.start(pod, "main", 1)
    async with asyncio.timeout(20):
        while observed is None or observed.containers[0].restart == 0:
            await asyncio.sleep(0.01)
            observed = await find(adapter, pod.identity)


async def test_strange_directories_are_skipped(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    pod = bench.endless()
    await bench.launch(adapter, pod)
    cluster = bench.root / CLUSTER
    (cluster / "strange").mkdir()
    (cluster / "file").write_text("x")
    (cluster / "broken.0" / "containers").mkdir(parents=True)
    (cluster / "broken.0" / "pod.json").write_text("{")
    (bench.root / "file").write_text("x")
    assert [one.identity for one in await adapter.list()] == [pod.identity]


async def test_secrets_are_in_no_file_of_ours(bench: ProcessBench) -> None:
    one = container("sh", "-c", "sleep 0.05")
    secret = EnvVar("TOKEN", "hunter2hunter2", secret=True)
    pod = workload(
        container("sleep", "1000"), volumes=[Files("v", (File("s", b"swordfish", 0o400, True),))]
    )
    pod = Workload(
        identity=pod.identity,
        containers=(_with_env(one, secret),),
        volumes=pod.volumes,
    )
    await run(bench, pod)
    held = [path for path in bench.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in held if b"hunter2" in path.read_bytes()]
    (file,) = [path for path in held if b"swordfish" in path.read_bytes()]
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert stat.S_IMODE(bench.root.stat().st_mode) == 0o700


def _with_env(one: object, *env: EnvVar) -> object:
    from dataclasses import replace

    return replace(one, env=env)


async def test_two_hundred_quick_pods(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    pods = [workload(container("sh", "-c", f"exit {one % 7}")) for one in range(200)]
    room = asyncio.Semaphore(20)

    async def one(pod: Workload) -> None:
        async with room:
            await bench.launch(adapter, pod)

    await asyncio.gather(*(one(pod) for pod in pods))
    for number, pod in enumerate(pods):
        assert (await exit_of(adapter, pod.identity)).code == number % 7
    assert all(one.ended for one in await adapter.list())


async def test_a_message_of_any_length_is_cut_to_its_end(bench: ProcessBench) -> None:
    script = (
        "head -c 9000 /dev/zero | tr '\\0' a > /dev/termination-log; echo b >> /dev/termination-log"
    )
    end, _ = await run(bench, sh(script))
    assert end.message == "a" * 4094 + "b\n"


async def test_the_message_may_be_anywhere(bench: ProcessBench) -> None:
    before = snapshot("/var", "/etc", "/dev")
    for path in ("/no-such-top/message", "/var/no-such/deep/message", "/etc/no-such"):
        end, text = await run(bench, sh(f"echo x > {path}", termination_message_path=path))
        assert (end.code, end.message, text) == (0, "x\n", "")
    assert snapshot("/var", "/etc", "/dev") == before


async def test_the_last_lines_stand_for_a_message(bench: ProcessBench) -> None:
    end, _ = await run(bench, sh("seq 1000; exit 1", logs_as_message=True))
    assert end.message == "".join(f"{one}\n" for one in range(921, 1001))
    end, _ = await run(bench, sh("seq 1000", logs_as_message=True))
    assert end.message == ""


@pytest.mark.parametrize(
    "path",
    [
        "/no-such-top",
        "/no-such-top/deep/er",
        "/var/no-such",
        "/etc/config",
        "/var/run/secrets/example",
        "/mnt",
        f"{Path.home()}/no-such",
    ],
)
async def test_volumes_appear_where_nothing_is(bench: ProcessBench, path: str) -> None:
    tops = ("/", "/var", "/etc", "/mnt", "/run", str(Path.home()))
    before = snapshot(*tops)
    volume = Files("v", (File("a", b"A\n", 0o640), File("deep/b", b"B\n")))
    script = f"cat {path}/a {path}/deep/b; stat -Lc %a {path}/a; echo no > {path}/c || echo denied"
    script += "; cat /etc/hostname >/dev/null; ls /usr/bin/env /proc/self/status /dev/null"
    pod = sh(script, mounts=[Mount("v", path)], volumes=[volume])
    end, text = await run(bench, pod)
    assert end.code == 0, (end, text)
    assert text.startswith("A\nB\n640\n")
    assert "denied" in text
    assert text.endswith("/usr/bin/env\n") or "/dev/null" in text
    assert snapshot(*tops) == before


async def test_a_new_root_leaves_the_rest_the_hosts(bench: ProcessBench) -> None:
    tops = ("/", "/var", "/etc", "/opt", "/usr")
    paths = ["/no-such-top", "/var/no-such", "/etc/no/such", "/opt/no-such", "/usr/no-such"]
    before = snapshot(*tops)
    mounts = [Mount("v", path) for path in paths]
    script = "".join(f"echo {path} > {path}/f; " for path in paths)
    pod = sh(f"{script} cat /no-such-top/f", mounts=mounts, volumes=[EmptyDir("v")])
    end, text = await run(bench, pod)
    assert (end.code, text) == (0, "/usr/no-such\n")
    assert snapshot(*tops) == before


async def test_containers_share_an_empty_dir(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    mount = Mount("work", "/work-of-pod/dir")
    first = container("sh", "-c", "echo from-first > /work-of-pod/dir/f", mounts=[mount], name="a")
    second = container("sh", "-c", "cat /work-of-pod/dir/f", mounts=[mount], name="b")
    pod = workload(first, second, volumes=[EmptyDir("work", memory=True)])
    await adapter.run(pod)
    await adapter.start(pod, "a", 0)
    assert (await exit_of(adapter, pod.identity, "a")).code == 0
    await adapter.start(pod, "b", 0)
    assert (await exit_of(adapter, pod.identity, "b")).code == 0
    assert await log(adapter, pod.identity, "b") == b"from-first\n"
    assert not exists("/work-of-pod")


async def test_mounts_within_mounts_and_sub_paths(bench: ProcessBench) -> None:
    volumes = [EmptyDir("work"), Files("conf", (File("x", b"X\n"), File("y", b"Y\n")))]
    mounts = [
        Mount("conf", "/pod/conf/only-x", sub_path="x"),
        Mount("conf", "/pod/conf/all"),
        Mount("work", "/pod"),
        Mount("work", "/pod/sub", sub_path="made/here"),
        Mount("work", "/pod/reading", sub_path="made", read_only=True),
    ]
    script = (
        "cat /pod/conf/only-x /pod/conf/all/y; echo s > /pod/sub/s; cat /pod/made/here/s"
        "; echo no 2>&- > /pod/reading/f; test -e /pod/reading/f || echo kept-out"
    )
    end, text = await run(bench, sh(script, mounts=mounts, volumes=volumes))
    assert end.code == 0
    assert text.splitlines()[:3] == ["X", "Y", "s"]
    assert "kept-out" in text.splitlines()


async def test_a_sub_path_cannot_lead_out(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    first = container("ln", "-s", "/etc", "/w/out", mounts=[Mount("v", "/w")], name="a")
    second = container("ls", "/x", mounts=[Mount("v", "/x", sub_path="out")], name="b")
    pod = workload(first, second, volumes=[EmptyDir("v")])
    await adapter.run(pod)
    await adapter.start(pod, "a", 0)
    await exit_of(adapter, pod.identity, "a")
    await adapter.start(pod, "b", 0)
    end = await exit_of(adapter, pod.identity, "b")
    assert end.reason == "StartError"
    assert "leads out of its volume" in end.message


async def test_a_program_from_a_volume(bench: ProcessBench) -> None:
    volume = Files("bin", (File("hello", b"#!/bin/sh\necho hello $1\n", 0o755),))
    pod = workload(
        container("/pod-bin/hello", "you", mounts=[Mount("bin", "/pod-bin")]), volumes=[volume]
    )
    adapter = await bench.adapter()
    assert adapter.check(pod) == []
    assert (await run(bench, pod))[1] == "hello you\n"


async def test_files_change_at_once(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    assert isinstance(adapter, Updates)
    script = "cat /conf/a; echo; while [ -e /conf/b ]; do sleep 0.01; done; cat /conf/a /conf/d/c"
    old = Files("v", (File("a", b"1"), File("b", b"")))
    pod = sh(script, mounts=[Mount("v", "/conf")], volumes=[old])
    await bench.launch(adapter, pod)
    await _says(bench, pod, b"1\n")
    await adapter.update_files(pod.identity, [Files("v", (File("a", b"2"), File("d/c", b"3")))])
    assert (await exit_of(adapter, pod.identity)).code == 0
    assert await log(adapter, pod.identity) == b"1\n23"
    with pytest.raises(NotFound):
        await adapter.update_files(pod.identity, [Files("other")])


async def test_the_files_of_an_ended_pod_go_and_its_log_stays(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    files = Files("v", (File("s", b"swordfish", 0o400, True),))
    pod = sh("cat /conf/s", mounts=[Mount("v", "/conf")], volumes=[files])
    await bench.launch(adapter, pod)
    assert (await exit_of(adapter, pod.identity)).code == 0
    for _ in range(2):
        await adapter.stop_sandbox(pod.identity)
    volumes = bench.folder(pod.identity) / "volumes"
    assert [one for one in volumes.rglob("*") if one.is_file()] == []
    assert await log(adapter, pod.identity) == b"swordfish"


async def test_a_read_only_root(bench: ProcessBench) -> None:
    place = f"/tmp/podbridge-test-{os.getpid()}"
    script = f"touch {place}; touch /dev/shm/x && rm /dev/shm/x; echo y > /rw/f && cat /rw/f"
    security = Security(read_only_root=True)
    pod = sh(script, mounts=[Mount("v", "/rw")], volumes=[EmptyDir("v")], security=security)
    end, text = await run(bench, pod)
    assert end.code == 0
    assert "Read-only file system" in text
    # Two streams: which comes first in the log is when each was read.
    assert "y\n" in text
    assert not exists(place)


async def test_the_working_directory_is_made(bench: ProcessBench) -> None:
    end, text = await run(bench, sh("pwd", working_dir="/no-such-dir/here"))
    assert (end.code, text) == (0, "/no-such-dir/here\n")
    assert not exists("/no-such-dir")


async def test_hostname_and_nothing_of_the_providers(
    bench: ProcessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_KEY", "abc")
    end, text = await run(bench, sh("uname -n; env; ls -l /proc/self/fd | wc -l", hostname="job-3"))
    assert end.code == 0
    assert text.startswith("job-3\n")
    assert "HOSTNAME=job-3" in text
    assert "CLOUD_KEY" not in text
    # stdin, stdout, stderr, and ls' own: and the line before them.
    assert text.splitlines()[-1] == "5"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run containers as others")
async def test_other_users(bench: ProcessBench) -> None:
    security = Security(
        run_as_user=12345,
        run_as_group=234,
        supplemental_groups=(7,),
        fs_group=99,
        no_new_privileges=True,
        drop_capabilities=("ALL",),
    )
    script = (
        "id -u; id -g; id -G; cat /v/s; touch /w/f; stat -c %g /w/f"
        "; grep -E 'CapBnd|NoNewPrivs' /proc/self/status | tr -d '\\t'"
        "; echo m > /dev/termination-log"
    )
    volumes = [Files("s", (File("s", b"secret\n", 0o400),)), EmptyDir("w")]
    mounts = [Mount("s", "/v"), Mount("w", "/w")]
    end, text = await run(bench, sh(script, security=security, volumes=volumes, mounts=mounts))
    assert text.splitlines()[:5] == ["12345", "234", "234 7 99", "secret", "99"]
    assert "NoNewPrivs:1" in text
    assert "CapBnd:0000000000000000" in text
    assert (end.code, end.message) == (0, "m\n")


async def test_a_thousand_ended_pods_are_listed_fast(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    one = workload(container("true"))
    await run(bench, one)
    template = bench.folder(one.identity)
    record = json.loads((template / "pod.json").read_text())
    for number in range(1000):
        record["identity"]["uid"] = f"uid-{number}"
        copy = template.parent / f"uid-{number}.0"
        (copy / "containers" / "main.0").mkdir(parents=True)
        (copy / "pod.json").write_text(json.dumps(record))
        exit_file = (template / "containers" / "main.0" / files.EXIT).read_text()
        (copy / "containers" / "main.0" / files.EXIT).write_text(exit_file)
    assert len(await adapter.list()) == 1001
    before = time.process_time()
    assert len(await adapter.list()) == 1001
    assert time.process_time() - before < 0.5


async def test_a_full_disk_loses_output_and_not_the_exit(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    script = "trap '' XFSZ; seq 100000; echo x > /dev/termination-log; exit 6"
    pod = sh(script)
    await adapter.run(pod)
    # A limit on the size of files stands for a full disk: the same write fails.
    limit_files(bench.zygote(adapter), 100_000)
    await adapter.start(pod, "main", 0)
    end = await exit_of(adapter, pod.identity)
    assert end.code == 6
    assert "bytes of its log were lost: no space left" in end.message
    text = await log(adapter, pod.identity)
    assert text.startswith(b"1\n2\n")
    assert text.endswith(b"\n")
    assert len(text) < 100000


async def test_a_dead_zygote_is_replaced(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    first = bench.endless()
    await bench.launch(adapter, first)
    os.kill(bench.zygote(adapter), signal.SIGKILL)
    second = bench.endless()
    await bench.launch(adapter, second)
    for pod in (first, second):
        await until(adapter, pod.identity, is_running)


async def test_a_long_root(tmp_path: Path) -> None:
    made = ProcessBench(tmp_path / ("x" * 100) / ("y" * 100))
    try:
        adapter = await made.adapter()
        pod = made.endless()
        await made.launch(adapter, pod)
        await until(adapter, pod.identity, is_running)
        await adapter.stop(pod.identity, 30)
        assert (await exit_of(adapter, pod.identity)).code == 143
    finally:
        await made.close()


def test_the_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert Options().place() == Path("/state/podbridge/process")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Options().place() == Path("/home/somebody/.local/state/podbridge/process")


def test_making_one_does_nothing(tmp_path: Path) -> None:
    Adapter("process", Options(root=tmp_path / "state"))
    assert list(tmp_path.iterdir()) == []


def test_it_is_a_bench(bench: Bench) -> None:
    assert bench.survives
