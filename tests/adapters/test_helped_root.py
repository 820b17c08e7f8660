"""What root in one container of a pod can do to the helpers of others, on every backend that has
helpers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract import Bench, container, exit_of, until, workload
from deprived_kit import DeprivedBench, says_running
from engine_kit import engine_address, image  # noqa: F401 - a fixture
from fargate_kit import HelpedBench, helper  # noqa: F401 - a fixture
from support.channels import drained

from bridge.helper.payload import FOLDER, PROGRAM_FOLDER
from bridge.workload import EmptyDir, File, Files, Identity, Mount, Observed, RestartPolicy, Running

pytestmark = pytest.mark.slow


@pytest.fixture(params=["engine", "fargate"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "engine":
        request.getfixturevalue("image")
        made: Any = DeprivedBench(engine_address(), tmp_path)
    else:
        made = HelpedBench(tmp_path)
    yield made
    await made.close()


async def said(adapter: Any, who: Identity, name: str, script: str) -> list[str]:
    """The lines that a script writes in that container."""
    command = ["sh", "-c", f"exec 2>&1; {script}"]
    channel = await adapter.exec(who, name, command, stdin=False, tty=False)
    return (await drained(channel))[0].decode().splitlines()


def all_run(observed: Observed) -> bool:
    return len(observed.containers) == 2 and all(map(says_running, observed.containers))


async def test_root_cannot_replace_the_program(bench: Bench) -> None:
    adapter = await bench.adapter()
    pod = workload(container("sleep", "1000"), container("sleep", "1000", name="other"))
    await adapter.run(pod)
    await until(adapter, pod.identity, all_run)
    tries = (
        f"id -u; cd {PROGRAM_FOLDER}; echo x 3>helper; echo x >new; rm -f helper; mv helper /tmp/;"
        " ln -s /bin/sh sh; chmod 777 .; ls"
    )
    lines = await said(adapter, pod.identity, "other", tries)
    assert (lines[0], lines[-1]) == ("0", "helper")
    refused = lines[1:-1]
    assert len(refused) == 6, lines
    assert all("Read-only file system" in one for one in refused), lines
    assert await said(adapter, pod.identity, "main", f"{PROGRAM_FOLDER}/helper version") == [
        "podbridge-helper, payloads of version 2"
    ]


async def test_root_cannot_change_what_others_read(bench: Bench, tmp_path: Path) -> None:
    """A ConfigMap's files, which two containers have."""
    adapter = await bench.adapter()
    # Where tasks are processes, a volume is at its path of this host in a namespace of the task's.
    place = tmp_path / "config"
    place.mkdir()
    one = container("sleep", "1000", mounts=[Mount("config", str(place))])
    config = Files("config", (File("file", b"kept\n", 0o644),), "1")
    pod = workload(one, replace(one, name="other"), volumes=[config])
    await adapter.run(pod)
    await until(adapter, pod.identity, all_run)
    (refused,) = await said(adapter, pod.identity, "other", f"echo x >{place}/file")
    assert "Read-only file system" in refused
    assert await said(adapter, pod.identity, "main", f"cat {place}/file") == ["kept"]


async def test_root_cannot_speak_for_another_container(bench: Bench, tmp_path: Path) -> None:
    """Another file in the place of its lock, another state in that of its own, a stop like none."""
    adapter = await bench.adapter()
    go = f"/tmp/podbridge-test-{tmp_path.name}-{id(bench)}"
    script = f"until rm {go} 2>/dev/null; do sleep 0.1; done; exit 7"
    main = replace(container("sh", "-c", script), restart_policy=RestartPolicy.NEVER)
    pod = workload(main, container("sleep", "1000", name="other"))
    await adapter.run(pod)
    await until(adapter, pod.identity, all_run)
    tries = (
        f"cd {FOLDER}/state; mv .main.lock away; : >.main.lock; cp other main; mkfifo .stop;"
        " (exec 3<>.stop; sleep 1000) >/dev/null 2>&1 & echo $!"
    )
    (child,) = await said(adapter, pod.identity, "other", tries)
    assert child.isdigit()
    # What is told after that was seen on the board after that.
    await said(adapter, pod.identity, "main", f": >{go}")
    end = await exit_of(adapter, pod.identity)
    assert (end.code, end.reason) == (7, "Error")

    def only_main_is_over(observed: Observed) -> bool:
        other = observed.container("other")
        return other is not None and isinstance(other.state, Running)

    await until(adapter, pod.identity, only_main_is_over)


@pytest.mark.parametrize(
    "path", [PROGRAM_FOLDER, f"{PROGRAM_FOLDER}/helper/", FOLDER, f"//{FOLDER}/state"]
)
async def test_a_mount_in_the_helpers_way_is_refused(bench: Bench, path: str) -> None:
    adapter = await bench.adapter()
    one = container("true", mounts=[Mount("work", "/work"), Mount("work", path)])
    (wrong,) = adapter.check(workload(one, volumes=[EmptyDir("work")]))
    assert wrong.field == "spec.containers[0].volumeMounts[1].mountPath"
    assert wrong.message.startswith(f'found "{path}"; allowed: any path but /podbridge and')
