from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from commands_kit import container, fake_run, home, invoke, make_run, pod
from exec_kit import Machine, found, running

from bridge.cli import select, targets
from bridge.cli.commands import top
from bridge.cli.select import RunState
from bridge.cli.usage import (
    Meter,
    Use,
    cpu_words,
    lines_of,
    memory_words,
    metrics_of,
    rows,
    total,
)
from bridge.errors import Unavailable
from bridge.rpc.v1 import provider_pb2 as pb

__all__ = ["home"]

MI = 2**20
Measured = tuple[int | None, int | None]
"""(CPU nanoseconds, bytes)."""


def stats(time: float, **pods: dict[str, Measured]) -> pb.GetStatsResponse:
    """What pods have used by then, by name and container."""
    response = pb.GetStatsResponse()
    for name, containers in pods.items():
        one = response.pods.add()
        one.pod.uid = f"uid-{name}"
        for container_name, (cpu, memory) in containers.items():
            each = one.containers.add(name=container_name)
            each.time.FromNanoseconds(int(time * 1e9))
            if cpu is not None:
                each.cpu_usage_core_nanoseconds = cpu
            if memory is not None:
                each.memory_working_set_bytes = memory
    return response


def meter(*looks: pb.GetStatsResponse) -> Meter:
    made = Meter()
    for one in looks:
        made.take(one)
    return made


# What lies between two looks.


def test_cpu_is_the_mean_between_two_looks() -> None:
    made = meter(
        stats(10, a={"main": (1_000_000_000, 5)}), stats(12, a={"main": (2_000_000_000, 7 * MI)})
    )

    assert made.use("uid-a", "main") == Use(0.5, 7 * MI, 12.0, 2.0)


def test_one_look_tells_memory_alone() -> None:
    assert meter(stats(10, a={"main": (5, MI)})).use("uid-a", "main") == Use(None, MI, 10.0)
    assert meter().use("uid-a", "main") == Use()


def test_a_backend_that_has_not_measured_anew_changes_nothing() -> None:
    first, second = stats(10, a={"main": (0, MI)}), stats(11, a={"main": (10**9, MI)})

    assert meter(first, second, second).use("uid-a", "main").cpu == 1.0


def test_a_counter_that_went_back_is_of_another_run_of_the_container() -> None:
    made = meter(stats(10, a={"main": (10**9, MI)}), stats(11, a={"main": (5, MI)}))
    assert made.use("uid-a", "main").cpu is None

    made.take(stats(12, a={"main": (5 + 10**8, MI)}))
    assert made.use("uid-a", "main").cpu == pytest.approx(0.1)


def test_what_is_unknown_is_not_nothing() -> None:
    assert total([Use(), Use(None, 3)]) == Use(None, 3)
    assert total([]) == Use()
    assert total([Use(0.5, 1, 1.0, 2.0), Use(0.25, 2, 3.0, 1.0)]) == Use(0.75, 3, 3.0, 2.0)


def test_pods_that_have_gone_are_forgotten() -> None:
    made = meter(stats(1, a={"main": (1, 1)}, b={"main": (1, 1)}))

    made.keep(["uid-b"])

    assert made.use("uid-a", "main") == Use()
    assert made.use("uid-b", "main").memory == 1


@pytest.mark.parametrize(
    ("cores", "words"),
    [
        (None, "<unknown>"),
        (0.0, "0m"),
        (0.0001, "1m"),
        (0.003, "3m"),
        (1.5, "1500m"),
        (0.0011, "2m"),
    ],
)
def test_cores_are_printed_as_kubectl_does(cores: float | None, words: str) -> None:
    assert cpu_words(cores) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [(None, "<unknown>"), (0, "0Mi"), (12 * MI + 5, "12Mi"), (3000 * MI, "3000Mi")],
)
def test_memory_is_printed_as_kubectl_does(size: int | None, words: str) -> None:
    assert memory_words(size) == words


# Lines.


def _pods() -> tuple[list[Any], Meter]:
    two = pod(
        "b",
        spec={"containers": [{"name": "main"}, {"name": "side"}]},
        containerStatuses=[container(running={}), container("side", running={})],
    )
    made = meter(
        stats(10, a={"main": (0, MI)}, b={"main": (0, MI), "side": (0, MI)}),
        stats(
            11,
            a={"main": (3 * 10**6, 9 * MI)},
            b={"main": (10**6, 2 * MI), "side": (10**9, 3 * MI)},
        ),
    )
    return [found(running("a")), found(two), found(pod("c", phase="Pending"))], made


def _cells(**options: Any) -> list[list[str]]:
    pods, made = _pods()
    containers = options.get("containers", False)
    lines = lines_of(pods, made, containers=containers, sort_by=options.get("sort_by"))
    return [one[:4] for one in rows(lines, 0.0, containers=containers, runs=False)[1]]


def test_a_line_for_each_pod() -> None:
    assert _cells() == [
        ["a", "3m", "9Mi", "Running"],
        ["b", "1001m", "5Mi", "Running"],
        ["c", "<unknown>", "<unknown>", "Pending"],
    ]


def test_a_line_for_each_container() -> None:
    assert _cells(containers=True) == [
        ["a", "main", "3m", "9Mi"],
        ["b", "main", "1m", "2Mi"],
        ["b", "side", "1000m", "3Mi"],
        ["c", "main", "<unknown>", "<unknown>"],
    ]


def test_the_largest_first_and_the_unknown_last() -> None:
    assert [one[0] for one in _cells(sort_by="cpu")] == ["b", "a", "c"]
    assert [one[0] for one in _cells(sort_by="memory")] == ["a", "b", "c"]


def test_several_runs_are_told_apart() -> None:
    pods, made = _pods()
    lines = lines_of(pods, made, containers=False, sort_by=None)

    headers, cells = rows(lines, 0.0, containers=False, runs=True)

    assert headers == ["RUN", "NAME", "CPU(cores)", "MEMORY(bytes)", "STATUS", "AGE"]
    assert cells[0][:2] == ["words", "a"]


def test_the_metrics_apis_list_leaves_out_what_is_unknown() -> None:
    pods, made = _pods()

    listed = metrics_of(pods, made)

    assert (listed["kind"], listed["apiVersion"]) == ("PodMetricsList", "metrics.k8s.io/v1beta1")
    assert [one["metadata"]["name"] for one in listed["items"]] == ["a", "b"]
    assert listed["items"][0] == {
        "metadata": {"name": "a", "namespace": "default"},
        "timestamp": "1970-01-01T00:00:11Z",
        "window": "1.000s",
        "containers": [{"name": "main", "usage": {"cpu": "3000000n", "memory": "9216Ki"}}],
    }


# The command.


@pytest.fixture
def machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A run of two pods, one of them over, whose provider is this."""
    make_run("words")
    made = Machine(home)
    made.stats = [stats(1, a={"main": (0, MI)}), stats(2, a={"main": (5 * 10**8, 64 * MI)})]

    async def load(_: object) -> Sequence[RunState]:
        state = RunState(fake_run("words"), None)
        for one in (running("a"), pod("over", phase="Failed")):
            state.pods[one["metadata"]["uid"]] = one
        return [state]

    @asynccontextmanager
    async def reached(_: RunState) -> AsyncIterator[Machine]:
        yield made

    monkeypatch.setattr(select, "load", load)
    monkeypatch.setattr(targets, "reached", reached)
    monkeypatch.setattr(top, "_SAMPLE", 0.0)
    return made


@pytest.mark.usefixtures("machine")
def test_elsewhere_than_on_a_terminal_one_table_is_printed() -> None:
    code, out, error = invoke("top", "words")

    assert (code, error) == (0, "")
    header, line = out.splitlines()
    assert header.split() == ["NAME", "CPU(cores)", "MEMORY(bytes)", "STATUS", "AGE"]
    assert line.split()[:4] == ["a", "500m", "64Mi", "Running"]
    assert len(invoke("top", "--no-headers", "--containers")[1].splitlines()) == 1


@pytest.mark.usefixtures("machine")
def test_json_is_what_the_metrics_api_gives() -> None:
    code, out, _ = invoke("top", "-o", "json")

    assert code == 0
    (item,) = json.loads(out)["items"]
    assert item["containers"][0]["usage"] == {"cpu": "500000000n", "memory": "65536Ki"}


def test_a_backend_without_stats_is_listed_with_its_reason(machine: Machine) -> None:
    machine.abilities = ("logs",)

    code, out, error = invoke("top")

    assert code == 0
    assert out.splitlines()[1].split()[:3] == ["a", "<unknown>", "<unknown>"]
    assert error == "backend process tells no usage of its pods\n"


def test_names_and_notes_say_nothing_to_the_terminal(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\r"

    async def load(_: object) -> Sequence[RunState]:
        state = RunState(fake_run("words"), None, problem=f"no\n{evil}answer")
        one = running(f"a{evil}")
        one["spec"]["containers"][0]["name"] = f"main{evil}"
        state.pods[one["metadata"]["uid"]] = one
        return [state]

    async def fail(_: object) -> pb.GetStatsResponse:
        raise Unavailable(f"{evil}broken")

    monkeypatch.setattr(select, "load", load)
    monkeypatch.setattr(machine, "get_stats", fail)

    code, out, error = invoke("top", "words", "--containers")

    assert code == 0
    assert "a^[[2J^[]0;owned^G^M" in out
    assert "main^[[2J" in out
    assert error.splitlines() == [
        "words: no ^[[2J^[]0;owned^G^Manswer",
        "words: ^[[2J^[]0;owned^G^Mbroken",
    ]
    assert not set(out + error) & set("\x1b\x07\r")


@pytest.mark.usefixtures("machine")
def test_labels_and_namespaces_choose() -> None:
    said = "No resources found: no pod is running.\n"

    assert invoke("top", "-l", "app=x") == (0, "", said)
    assert invoke("top", "-n", "other") == (0, "", said)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["top", "nowhere"], 'no run named "nowhere"'),
        (["top", "--sort-by", "disk"], "'cpu', 'memory'"),
        (["top", "-o", "yaml"], "'json'"),
        (["top", "-l", "a b"], "-l: found"),
    ],
)
def test_what_is_typed_wrong_is_answered(words: list[str], said: str) -> None:
    code, out, error = invoke(*words)

    assert (code, out) == (2, "")
    assert said in error
