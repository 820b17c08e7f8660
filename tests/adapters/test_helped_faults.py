"""Pods whose helpers cannot do their work, on every backend that has helpers: a reason in the
container's status, and an end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract import Bench, container, is_running, until, workload
from deprived_kit import DeprivedBench
from engine_kit import engine_address, image  # noqa: F401 - a fixture
from fargate_kit import HelpedBench, helper  # noqa: F401 - a fixture
from support.channels import drained, soon

from adapters.engine import deprived
from bridge.groups import prepare
from bridge.helper.wrap import INSTALL, WATCH
from bridge.workload import (
    Container,
    EnvVar,
    Exit,
    File,
    Files,
    Mount,
    Observed,
    RestartPolicy,
    Role,
    Workload,
)

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


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The payload of that container of every pod loses its middle on the way."""

    def begin(name: str) -> None:
        for module in (deprived, prepare):
            wrap = module.wrap

            def damaged(*given: Any, wrap: Any = wrap) -> Workload:
                pod: Workload = wrap(*given)
                containers = (_damaged(one) if one.name == name else one for one in pod.containers)
                return replace(pod, containers=tuple(containers))

            monkeypatch.setattr(module, "wrap", damaged)

    return begin


def _damaged(one: Container) -> Container:
    env = (EnvVar(each.name, each.value[:200] + each.value[260:], secret=True) for each in one.env)
    return replace(one, env=tuple(env))


def state_of(observed: Observed, name: str) -> Exit:
    """How that container ended."""
    found = observed.container(name)
    assert found is not None
    assert isinstance(found.state, Exit), found
    return found.state


async def test_a_damaged_payload_is_told_and_ends_the_pod(
    bench: Bench, damage: Callable[[str], None]
) -> None:
    damage("main")
    adapter = await bench.adapter()
    waits = container("sleep", "1000", name="other")
    pod = workload(container("true"), waits)
    await adapter.run(pod)
    observed = await until(adapter, pod.identity, lambda one: one.ended)
    end = state_of(observed, "main")
    assert (end.code, end.reason) == (128, "StartError")
    assert "the payload" in end.message
    assert state_of(observed, "other").code == 143
    assert observed.failed
    assert not observed.disrupted
    # Whoever comes later says the same.
    again = await bench.adapter()
    later = await until(again, pod.identity, lambda one: one.ended)
    assert state_of(later, "main").message == end.message
    assert later.failed


async def test_an_init_container_with_a_damaged_payload_keeps_nobody_waiting(
    bench: Bench, damage: Callable[[str], None]
) -> None:
    damage("first")
    adapter = await bench.adapter()
    pod = workload(container("true", name="first", role=Role.INIT), container("true"))
    await adapter.run(pod)
    observed = await until(adapter, pod.identity, lambda one: one.ended)
    assert state_of(observed, "first").reason == "StartError"
    main = observed.container("main")
    assert main is not None
    assert not isinstance(main.state, Exit) or main.state.code != 0
    assert observed.failed


@pytest.mark.parametrize("name", [INSTALL, WATCH])
async def test_a_helper_of_the_pods_own_that_cannot_work_is_told(
    bench: Bench, damage: Callable[[str], None], name: str
) -> None:
    damage(name)
    adapter = await bench.adapter()
    pod = workload(container("sleep", "1000"))
    await adapter.run(pod)
    observed = await until(adapter, pod.identity, lambda one: one.ended)
    assert observed.failed
    assert observed.reason == "HelperFailed"
    assert "the payload" in observed.message
    # It would do so again: nothing was taken away from the pod.
    assert not observed.disrupted
    await adapter.delete(pod.identity)
    assert await adapter.list() == []


async def test_files_that_change_reach_the_pod(bench: Bench, tmp_path: Path) -> None:
    """ConfigMaps, Secrets and tokens: each volume at once, by the tunnel."""
    adapter = await bench.adapter()
    # Where tasks are processes, a volume is at its path of this host in a namespace of the task's.
    place = tmp_path / "token"
    place.mkdir()
    old = Files("token", (File("token", b"first", 0o400, secret=True),), "1")
    pod = workload(container("sleep", "1000", mounts=[Mount("token", str(place))]), volumes=[old])
    await bench.launch(adapter, pod)
    await bench.reachable(adapter, pod.identity)

    async def holds(content: bytes) -> bool:
        command = ["cat", f"{place}/token"]
        channel = await adapter.exec(pod.identity, "main", command, stdin=False, tty=False)
        return (await drained(channel))[:1] == (content,)

    assert await holds(b"first")
    new = Files("token", (File("token", b"second", 0o400, secret=True),), "2")
    await adapter.update_files(pod.identity, [new])
    await soon(lambda: holds(b"second"))
    observed = await until(adapter, pod.identity, is_running)
    assert observed.containers[0].restart == 0


async def test_a_code_of_the_commands_own_is_no_failure_of_the_helper(bench: Bench) -> None:
    adapter = await bench.adapter()
    script = "echo podbridge-helper: a lie >&2; exit 121"
    one = replace(container("sh", "-c", script), restart_policy=RestartPolicy.NEVER)
    pod = workload(one)
    await adapter.run(pod)
    observed = await until(adapter, pod.identity, lambda one: one.ended)
    end = state_of(observed, "main")
    assert (end.code, end.reason, end.message) == (121, "Error", "")
