"""The tunnel out of a real container: a read-only image, a user who is not root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import uuid
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from helper_kit import IDENTITY, KEY, PATIENCE, workload
from support.channels import drained, reads, soon
from tunnel_kit import listening, settings

from bridge.adapter import Channel, Size
from bridge.helper.payload import (
    FOLDER,
    PROGRAM_FOLDER,
    Settings,
    Tree,
    encode,
    install_payload,
    run_payload,
)
from bridge.helper.tunnel import Tunnels
from bridge.workload import Container, RestartPolicy, Role

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("podman") or not shutil.which("busybox"),
        reason="needs root, podman and busybox",
    ),
]
RUNTIME = ["--runtime", "runc"] if shutil.which("runc") else []
USER = 1234


@pytest.fixture
def image(tmp_path: Path) -> Path:
    made = tmp_path / "image"
    for below in ("proc", "dev", "sys", "etc", "run", "tmp", "podbridge", "bin", "config"):
        (made / below).mkdir(parents=True, exist_ok=True)
    busybox = made / "bin" / "busybox"
    shutil.copy2(str(shutil.which("busybox")), busybox)
    for name in ("sh", "cat", "id", "ls", "stty", "sleep", "head", "wc"):
        (made / "bin" / name).symlink_to("busybox")
    return made


@pytest.fixture
def name() -> Iterator[str]:
    made = f"helper-{uuid.uuid4().hex[:12]}"
    yield made
    subprocess.run(
        ["podman", "rm", "-f", "-i", "-t", "0", made], capture_output=True, timeout=60, check=False
    )


@asynccontextmanager
async def running(
    tunnels: Tunnels, address: str, program: Path, image: Path, name: str
) -> AsyncIterator[Process]:
    board, own, config = (image.parent / name for name in ("board", "bin", "config"))
    for one in (board, own, config):
        one.mkdir()
    config.chmod(0o777)
    main = Container(
        "m", Role.MAIN, "i", command=("/bin/sh", "-c", "exec sleep 1000"), working_dir="/",
        restart_policy=RestartPolicy.NEVER,
    )  # fmt: skip
    made = Settings(KEY, str(board), str(own), barrier=False, tunnel=settings(address))
    pod = workload(main)
    installing = await asyncio.create_subprocess_exec(
        program, "install", env=dict(encode(install_payload(pod, made)))
    )
    assert await asyncio.wait_for(installing.wait(), PATIENCE) == 0
    made = Settings(KEY, barrier=False, tunnel=made.tunnel)
    env = image.parent / "env"
    text = "".join(f"{key}={value}\n" for key, value in encode(run_payload(pod, "m", made)).items())
    env.write_text(text)
    process = await asyncio.create_subprocess_exec(
        "podman", *RUNTIME, "run", "--rm", "--name", name, "--network", "host", "--read-only",
        "--log-driver=none", "--user", f"{USER}:{USER}", "--env-file", str(env),
        "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
        "-v", f"{board}:{FOLDER}", "-v", f"{own}:{PROGRAM_FOLDER}:ro", "-v", f"{config}:/config",
        "-e", "PATH=/bin", "--rootfs", str(image), f"{PROGRAM_FOLDER}/helper", "run",
        cwd=image.parent, stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip

    async def there() -> bool:
        if process.returncode is not None:
            assert process.stderr is not None
            words = await process.stderr.read()
            if b"OCI runtime" in words or process.returncode in (125, 126):
                pytest.skip(f"podman runs nothing here: {words.decode()[-200:]}")
            raise AssertionError(words)
        return tunnels.pod(IDENTITY.key) is not None

    try:
        await soon(there)
        yield process
    finally:
        await tunnels.stop(IDENTITY, 0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.communicate(), PATIENCE)


async def test_all_of_the_tunnel_in_a_container(program: Path, image: Path, name: str) -> None:
    async with listening() as (tunnels, address):
        async with running(tunnels, address, program, image, name) as process:

            async def sh(script: str) -> Channel:
                command = ["sh", "-c", script]
                return await tunnels.exec(IDENTITY, "m", command, stdin=False, tty=False)

            script = "id -u; cat /proc/1/environ /proc/1/maps /proc/1/mem; ls /proc/1/fd; exit 3"
            out, err, code = await drained(await sh(script))
            assert (out, code) == (b"%d\n" % USER, 3)
            assert err.count(b"ermission denied") == 4
            out, err, code = await drained(await sh("ls /proc/self/fd"))
            assert out.split() == [b"0", b"1", b"2", b"3"]

            terminal = await tunnels.exec(
                IDENTITY, "m", ["sh", "-c", "read x; stty size; exit 4"], stdin=True, tty=True
            )
            await terminal.resize(Size(70, 30))
            await terminal.write(b"go\n")
            assert await drained(terminal) == (b"go\r\n30 70\r\n", b"", 4)

            feeding = await tunnels.exec(IDENTITY, "m", ["cat"], stdin=True, tty=False)
            await feeding.write(b"there and back\n")
            assert await reads(feeding, b"back\n") == b"there and back\n"
            await feeding.close()

            volume = Tree("/config", (("key", 0o440, b"new"),), atomic=True)
            await tunnels.update_files(IDENTITY, [volume], "m")
            out, _, _ = await drained(await sh("cat /config/key"))
            assert out == b"new"

            (usage,) = (await tunnels.stats([IDENTITY]))[IDENTITY.uid]
            assert usage.memory_bytes
            assert usage.cpu_nanoseconds
            attached = await tunnels.attach(IDENTITY, "m", stdin=False)
            assert await tunnels.stop(IDENTITY, 5)
            assert await drained(attached) == (b"", b"", 143)
            assert await asyncio.wait_for(process.wait(), PATIENCE) == 143
