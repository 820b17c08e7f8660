"""The helper as the first process of real containers: an image with nothing else, and OOM kills."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from helper_kit import IDENTITY, KEY, workload

from bridge.helper.payload import (
    FOLDER,
    PROGRAM_FOLDER,
    Settings,
    encode,
    install_payload,
    run_payload,
    tree,
    watch_payload,
)
from bridge.helper.record import read
from bridge.workload import Container, Exit, File, Files, RestartPolicy, Role, Security

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("podman") or not shutil.which("busybox"),
        reason="needs root, podman and busybox",
    ),
]
RUNTIME = ["--runtime", "runc"] if shutil.which("runc") else []
SETTINGS = Settings(KEY, peer_wait=20.0, barrier=False)

Contain = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture
def contain(program: Path, tmp_path: Path) -> Iterator[Contain]:
    """Runs one container over `<tmp>/<image>`; its code and both streams."""
    shared, own = tmp_path / "shared", tmp_path / "own"
    for one in (shared, own):
        one.mkdir()
    scratch, image = tmp_path / "scratch", tmp_path / "image"
    for one in (scratch, image):
        for below in ("", "proc", "dev", "sys", "etc", "run", "tmp", "podbridge", "bin"):
            (one / below).mkdir(exist_ok=True)
    shutil.copy2(program, scratch / "helper")
    (image / "etc" / "passwd").write_text("root:x:0:0::/root:/\nworker:x:7:8::/home/w:/\n")
    (image / "etc" / "group").write_text("one:x:9:worker\n")
    shutil.copy2(str(shutil.which("busybox")), image / "bin" / "busybox")
    made: list[str] = []

    def run(
        folder: str, payload: Mapping[str, object], command: list[str], *options: str
    ) -> tuple[int, bytes, bytes]:
        name = f"helper-{uuid.uuid4().hex[:12]}"
        made.append(name)
        env = tmp_path / "env"
        env.write_text("".join(f"{key}={value}\n" for key, value in encode(dict(payload)).items()))
        words = [
            "podman",
            *RUNTIME,
            "run",
            "--rm",
            "--name",
            name,
            "--network",
            "none",
            "--log-driver=none",
        ]
        words += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        words += ["--env-file", str(env), "-v", f"{shared}:{FOLDER}", "-e", "PATH=/bin", *options]
        mode = "rw" if command[1:] == ["install"] else "ro"
        words += ["-v", f"{own}:{PROGRAM_FOLDER}:{mode}"]
        done = subprocess.run(
            [*words, "--rootfs", str(tmp_path / folder), *command],
            # Podman's monitor notes an OOM kill in the folder that it is started in.
            cwd=tmp_path,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=90, check=False,
        )  # fmt: skip
        if b"OCI runtime" in done.stderr or done.returncode in (125, 126):
            pytest.skip(f"podman runs nothing here: {done.stderr.decode()[-200:]}")
        return done.returncode, done.stdout, done.stderr

    yield run
    for name in made:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ["podman", "rm", "-f", "-i", "-t", "0", name],
                capture_output=True, timeout=60, check=False,
            )  # fmt: skip


def shell(name: str, script: str, **more: object) -> Container:
    return Container(
        name, Role.MAIN, "i", command=("/bin/busybox", "sh", "-c", script),
        restart_policy=RestartPolicy.NEVER, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_install_watch_and_run_in_containers(contain: Contain, tmp_path: Path) -> None:
    script = """
    echo pid $$ parent $PPID; for flag in u g G; do busybox id -$flag; done; echo $HOME
    busybox cat /config/file; busybox cat /proc/1/environ; echo said > /dev/termination-log; exit 3
    """
    one = shell("m", script, security=Security(run_as_user=7, supplemental_groups=(10,)))
    pod = workload(one)
    volume = tree(Files("v", (File("file", b"content\n", 0o440),)), f"{FOLDER}/v", fs_group=10)
    assert (
        contain("scratch", install_payload(pod, SETTINGS, [volume]), ["/helper", "install"])[0] == 0
    )
    assert (tmp_path / "own" / "helper").exists()
    code, out, err = contain(
        "image", run_payload(pod, "m", SETTINGS), [f"{PROGRAM_FOLDER}/helper", "run"],
        "-v", f"{tmp_path}/shared/v:/config:ro",
    )  # fmt: skip
    assert code == 3, err
    lines = out.decode().splitlines()
    assert lines[0].endswith("parent 1")
    assert lines[1:3] == ["7", "8"]
    assert set(lines[3].split()) == {"8", "9", "10"}
    assert lines[4:6] == ["/home/w", "content"]
    assert b"ermission denied" in err
    code, out, _ = contain("scratch", watch_payload(pod, SETTINGS), ["/helper", "watch"])
    end = read(out, KEY, IDENTITY).containers[0].state
    assert isinstance(end, Exit)
    assert (code, end.code, end.message) == (0, 3, "said\n")


def test_a_kill_for_want_of_memory_is_told(contain: Contain) -> None:
    pod = workload(shell("m", "x=xxxxxxxx; while :; do x=$x$x; done"))
    contain("scratch", install_payload(pod, SETTINGS), ["/helper", "install"])
    options = ["--memory", "48m", "--memory-swap", "48m"]
    settings = Settings(KEY, barrier=False, record=True)
    code, out, err = contain(
        "image", run_payload(pod, "m", settings), [f"{PROGRAM_FOLDER}/helper", "run"], *options
    )
    assert code == 137, err
    end = read(out, KEY, IDENTITY).containers[0].state
    assert isinstance(end, Exit)
    assert (end.code, end.signal, end.reason) == (137, 9, "OOMKilled")


def test_a_read_only_image_and_a_user_who_is_not_root(contain: Contain) -> None:
    pod = workload(shell("m", "echo fine; busybox id -u; exit 4", working_dir="/"))
    contain("scratch", install_payload(pod, SETTINGS), ["/helper", "install"])
    settings = Settings(KEY, barrier=False, record=True)
    code, out, err = contain(
        "image", run_payload(pod, "m", settings), [f"{PROGRAM_FOLDER}/helper", "run"],
        "--read-only", "--user", "1234:1234",
    )  # fmt: skip
    assert code == 4, err
    assert out.splitlines()[:2] == [b"fine", b"1234"]
    end = read(out, KEY, IDENTITY).containers[0].state
    assert isinstance(end, Exit)
    assert end.code == 4
