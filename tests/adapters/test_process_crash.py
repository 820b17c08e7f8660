"""`process` when the provider is killed: what runs goes on, and the next provider has all of it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from contract import CLUSTER, exit_of, is_running, log, until
from process_kit import ProcessBench, exists, text, touch

from bridge.workload import Identity

pytestmark = pytest.mark.slow

PODS = 12
_PROVIDER = """
import asyncio, sys
from pathlib import Path
from adapters.process import Adapter, Options
from bridge.workload import Container, Identity, Role, Workload

async def main(root, count):
    adapter = Adapter("process", Options(root=Path(root)))
    await adapter.open()
    for number in range(count):
        wait = f"while [ ! -e {root}.go ]; do sleep 0.02; done"
        script = f"echo ran >> {root}.ran; {wait}; exit {number}"
        one = Container("main", Role.MAIN, "x", ("sh", "-c", script))
        who = Identity(sys.argv[3], "node", "default", f"pod-{number}", f"uid-{number}")
        pod = Workload(who, (one,))
        await adapter.run(pod)
        await adapter.start(pod, "main", 0)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ProcessBench]:
    made = ProcessBench(tmp_path / "state")
    yield made
    await made.close()


def who(number: int) -> Identity:
    """The pod that the provider above calls so."""
    return Identity(CLUSTER, "node", "default", f"pod-{number}", f"uid-{number}")


async def killed_provider(root: Path, *options: str) -> int:
    """A provider that has started all its pods and was then killed; its zygote."""
    process = await asyncio.create_subprocess_exec(
        *options,
        sys.executable,
        "-c",
        _PROVIDER,
        str(root),
        str(PODS),
        CLUSTER,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    children = text(f"/proc/{process.pid}/task/{process.pid}/children").split()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    return int(children[0])


async def test_every_pod_is_adopted_and_ran_once(bench: ProcessBench) -> None:
    zygote = await killed_provider(bench.root)
    adapter = await bench.adapter()
    found = await adapter.list()
    assert {one.identity for one in found} == {who(number) for number in range(PODS)}
    assert all(is_running(one) for one in found)
    touch(f"{bench.root}.go")
    for number in range(PODS):
        assert (await exit_of(adapter, who(number))).code == number
    assert text(f"{bench.root}.ran") == "ran\n" * PODS
    async with asyncio.timeout(20):
        while exists(f"/proc/{zygote}/cmdline"):  # noqa: ASYNC110 - another process ends
            await asyncio.sleep(0.01)


async def test_exits_while_nobody_looks_are_kept(bench: ProcessBench) -> None:
    touch(f"{bench.root}.go")
    await killed_provider(bench.root)
    adapter = await bench.adapter()
    for number in range(PODS):
        assert (await exit_of(adapter, who(number))).code == number
    for one in await adapter.list():
        await adapter.delete(one.identity)
    assert not (bench.root / CLUSTER).exists()


async def test_adopted_pods_can_be_stopped_and_followed(bench: ProcessBench) -> None:
    await killed_provider(bench.root)
    adapter = await bench.adapter()
    following = asyncio.create_task(log(adapter, who(1), follow=True))
    await adapter.stop(who(1), 30)
    assert (await exit_of(adapter, who(1))).code == 143
    assert await following == b""


async def test_dead_providers_sockets_are_swept(bench: ProcessBench) -> None:
    await killed_provider(bench.root)
    assert len(list((bench.root / "notify").iterdir())) == 1
    await bench.adapter()
    (left,) = (bench.root / "notify").iterdir()
    assert left.name.startswith(f"{os.getpid()}-")


def _nobody_can() -> str:
    """Why this cannot be tried; empty: it can."""
    if os.geteuid() != 0:
        return "this test starts as root: as any other user all the others test this"
    words = ["setpriv", "--reuid", "65534", "--clear-groups", "unshare", "-Urm", "true"]
    tried = subprocess.run(words, capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"this host has no namespaces for users: {tried.stderr.strip()}"
    version = subprocess.run(["/usr/bin/python3", "-c", ""], capture_output=True, check=False)
    return "no /usr/bin/python3" if version.returncode else ""


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that an ordinary user owns and can reach."""
    if why := _nobody_can():
        pytest.skip(why)
    made = Path(tempfile.mkdtemp(prefix="podbridge-", dir="/tmp"))
    os.chown(made, 65534, 65534)
    yield made
    shutil.rmtree(made)


_USER = """
import asyncio, json, os, sys
from pathlib import Path
from adapters.process import Adapter, Options
from bridge.adapter import LogOptions
from bridge.workload import *

# Afterwards this Python's own files may be out of reach.
import concurrent.futures.thread
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
if not os.access(sys.executable, os.X_OK):
    # This Python is in somebody's home; what runs apart from the provider runs on any.
    sys.executable = "/usr/bin/python3"

LOOK = ("sh", "-c", "id -u; cat /var/no-such/a; uname -n; test -t 0 && echo terminal")

async def said(channel):
    found = b""
    while (data := (await channel.read())[1]):
        found += data
    await channel.wait()
    await channel.close()
    return found.decode()

async def main(root):
    adapter = Adapter("process", Options(root=Path(root)))
    await adapter.open()
    script = "id -u; cat /conf/a /var/no-such/a; echo said > /dev/termination-log; uname -n"
    script += "; read x; exit 3"
    mounts = (Mount("v", "/conf"), Mount("v", "/var/no-such"), Mount("e", "/etc/x/y"))
    one = Container("main", Role.MAIN, "x", ("sh", "-c", script), mounts=mounts, stdin=True)
    who = Identity("cluster", "node", "default", "pod", "uid")
    volumes = (Files("v", (File("a", b"A\\n", 0o400),)), EmptyDir("e"))
    pod = Workload(who, (one,), volumes, hostname="named")
    root = Security(run_as_user=0, run_as_group=0, fs_group=1)
    root_only = Workload(who, (Container("main", Role.MAIN, "x", ("true",), security=root),))
    wrong = [one.field for one in adapter.check(root_only)]
    right = [str(one) for one in adapter.check(pod)]
    await adapter.run(pod)
    await adapter.start(pod, "main", 0)
    inside = [await said(await adapter.exec(who, "main", LOOK, stdin=False, tty=False))]
    inside.append(await said(await adapter.exec(who, "main", LOOK, stdin=False, tty=True)))
    channel = await adapter.attach(who, "main", stdin=True)
    await channel.write(b"\\n")
    await said(channel)
    pieces = [one async for one in adapter.logs(who, "main", LogOptions(follow=True))]
    end = (await adapter.list())[0].containers[0].state
    await adapter.delete(who)
    await adapter.close()
    print(json.dumps([b"".join(pieces).decode(), end.code, end.message, wrong, right, inside]))

asyncio.run(main(sys.argv[1]))
"""


async def test_as_an_ordinary_user(home: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _USER,
        str(home / "state"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    text, code, message, wrong, right, inside = json.loads(out)
    assert inside == ["65534\nA\nnamed\n", "65534\r\nA\r\nnamed\r\nterminal\r\n"]
    assert (code, message, text) == (3, "said\n", "65534\nA\nA\nnamed\n")
    assert right == []
    prefix = "spec.containers[0].securityContext."
    assert wrong == [
        f"{prefix}runAsUser",
        f"{prefix}runAsGroup",
        "spec.securityContext.fsGroup",
    ]


async def test_two_providers_share_a_place(bench: ProcessBench) -> None:
    one, two = await bench.adapter(), await bench.adapter()
    pods = [bench.endless() for _ in range(5)]
    await asyncio.gather(*(bench.launch(adapter, pod) for pod in pods for adapter in (one, two)))
    for pod in pods:
        await until(two, pod.identity, is_running)
    await asyncio.gather(*(adapter.delete(pods[0].identity) for adapter in (one, two)))
    assert len(await one.list()) == len(await two.list()) == 4


async def test_who_asked_for_a_start_is_killed_before_the_answer(bench: ProcessBench) -> None:
    adapter = await bench.adapter()
    pod = bench.brief(7)
    await adapter.run(pod)
    made = adapter._store.make_run(pod.identity, "main", 0)
    assert made is not None
    data = json.dumps(adapter._spec(pod, pod.containers[0], made)).encode()
    ours, theirs = socket.socketpair()
    ours.sendall(struct.pack("!I", len(data)) + data)
    # The keeper that gets this end cannot answer any more.
    ours.shutdown(socket.SHUT_RD)
    await adapter._zygote._pass(theirs)
    assert (await exit_of(adapter, pod.identity)).code == 7
    ours.close()


async def test_half_made_pods_of_dead_providers_are_swept(bench: ProcessBench) -> None:
    await bench.adapter()
    cluster = bench.root / CLUSTER
    (cluster / ".new.dead" / "volumes").mkdir(parents=True)
    (cluster / ".new.alive").mkdir()
    maker = os.open(cluster / ".new.alive", os.O_RDONLY)
    fcntl.flock(maker, fcntl.LOCK_EX)
    await bench.adapter()
    assert [one.name for one in cluster.iterdir()] == [".new.alive"]
    os.close(maker)
    await bench.adapter()
    assert list(cluster.iterdir()) == []


async def test_an_adapter_that_is_cancelled_while_it_opens_leaves_nothing(
    bench: ProcessBench,
) -> None:
    adapter = await bench.adapter()
    await adapter.close()
    zygote = adapter._zygote
    opening = asyncio.create_task(adapter.open())
    async with asyncio.timeout(20):
        while zygote._process is None:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0)
    started = zygote._process
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert list((bench.root / "notify").iterdir()) == []
    assert started.returncode is not None
