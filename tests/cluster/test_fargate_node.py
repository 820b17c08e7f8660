"""A virtual node of which each pod is a task on a simulated Fargate: what people type, and what the
Job controller decides."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import node_kit
import pytest
from control_plane_kit import ControlPlane, Namespace, Object
from node_kit import Place, container, until
from support import helper_program

from adapters.fargate import furnish

pytestmark = pytest.mark.slow

SCALE = 100
"""Half a minute of Fargate's is a third of a second."""
INDEX = "batch.kubernetes.io/job-completion-index"
WAIT = "until test -e {0}; do sleep 0.05; done"


class Account:
    """The simulated one."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def ask(self, path: str, body: Any = None) -> Any:
        """Of its control API."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self._endpoint}/_podbridge/{path}", data, 60) as answer:
            return json.load(answer)

    def launched(self) -> int:
        """How many tasks there were."""
        return len(self.ask("ledger")["tasks"])


@pytest.fixture(scope="module")
def both(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Place, Account]]:
    """A node, Ready, and the account that is its own."""
    helper_program.built()
    with node_kit.place(control_plane, tmp_path_factory.mktemp("fargate")) as made:
        cloud = made.start("simulate", "aws", "--time-scale", str(SCALE))
        found = until(
            lambda: re.search(r"^# AWS is simulated at (\S+)$", cloud.said, re.MULTILINE),
            "the simulator is there",
            lambda: cloud.ended,
        )
        options = asyncio.run(furnish(found[1], {}, "process"))
        backend = {"name": "fargate", "type": "fargate", "max_pods": 20, **options}
        made.up(backends=[{**backend, "cpu": "16", "memory": "64Gi", "poll": "500ms"}])
        yield made, Account(found[1])


@pytest.fixture
def place(both: tuple[Place, Account]) -> Place:
    return both[0]


@pytest.fixture
def account(both: tuple[Place, Account]) -> Account:
    return both[1]


def job(place: Place, name: str, script: str, *, meta: Object | None = None, **spec: Any) -> Object:
    pod = {
        "restartPolicy": "Never",
        "nodeName": place.name,
        "containers": [container(script)],
    }
    template = {"metadata": meta or {}, "spec": pod}
    return {"metadata": {"name": name}, "spec": {"template": template, **spec}}


def pods(namespace: Namespace, job: str) -> list[Object]:
    found = namespace.api.get(f"{namespace.path('pods')}?labelSelector=job-name%3D{job}")
    return list(found["items"])


def over(namespace: Namespace, name: str) -> Object:
    """A Job's status, once it has an end."""

    def has_end(one: Object) -> bool:
        conditions = one.get("status", {}).get("conditions") or ()
        return any(each["type"] in ("Complete", "Failed") for each in conditions)

    found: Object = namespace.until("jobs", name, has_end)["status"]
    return found


def test_a_job_with_logs_exec_and_cp(
    place: Place, account: Account, namespace: Namespace, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    launched = account.launched()
    script = f"echo begun; {WAIT.format(go)}; seq 1000; echo over >&2"
    namespace.api.post(namespace.path("jobs"), job(place, "work", script))
    until(lambda: pods(namespace, "work"), "its pod is made")
    (pod,) = pods(namespace, "work")
    name = pod["metadata"]["name"]
    place.running(namespace, name)
    done = namespace.kubectl(
        "exec", name, "--", "sh", "-c", "echo out; echo err >&2; exit 7", fails=True
    )
    assert (done.code, done.out) == (7, "out\n")
    assert done.err.startswith("err\n")
    there, back = tmp_path / "there", tmp_path / "back"
    (tmp_path / "sent").write_bytes(bytes(range(256)) * 1000)
    namespace.kubectl("cp", str(tmp_path / "sent"), f"{name}:{there}")
    namespace.kubectl("cp", f"{name}:{there}", str(back))
    assert back.read_bytes() == there.read_bytes() == (tmp_path / "sent").read_bytes()
    go.touch()
    followed = namespace.kubectl("logs", "-f", "job/work").out.splitlines()
    assert sorted(followed) == sorted(["begun", *map(str, range(1, 1001)), "over"])
    status = over(namespace, "work")
    assert (status["succeeded"], status.get("failed")) == (1, None)
    assert account.launched() == launched + 1


def test_an_indexed_job_forgives_what_spot_takes_away(
    place: Place, account: Account, namespace: Namespace, tmp_path: Path
) -> None:
    """One index fails of itself and is not tried again; one is reclaimed, which does not count."""
    go = tmp_path / "go"
    launched = account.launched()
    # After a while in which it runs, and two minutes' notice.
    account.ask("faults", {"kind": "spot-reclaim", "seconds": SCALE, "times": 1})
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {
            "action": "FailIndex",
            "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]},
        },
    ]
    script = f"{WAIT.format(go)}; test $JOB_COMPLETION_INDEX != 1 || exit 42"
    made = job(
        place,
        "sweep",
        script,
        meta={"annotations": {"podbridge.io/capacity-type": "spot"}},
        completionMode="Indexed",
        completions=3,
        parallelism=3,
        backoffLimitPerIndex=0,
        podFailurePolicy={"rules": rules},
    )
    namespace.api.post(namespace.path("jobs"), made)

    def reclaimed() -> Object | None:
        failed = [one for one in pods(namespace, "sweep") if one["status"]["phase"] == "Failed"]
        return failed[0] if failed else None

    taken = until(reclaimed, "one is taken away")
    (disrupted,) = (c for c in taken["status"]["conditions"] if c["type"] == "DisruptionTarget")
    assert disrupted["status"] == "True"
    assert taken["status"]["reason"] == "SpotInterruption"
    go.touch()
    status = over(namespace, "sweep")
    assert status["completedIndexes"] == "0,2"
    assert status["failedIndexes"] == "1"
    assert (status["succeeded"], status["failed"]) == (2, 1)
    assert account.launched() == launched + 4
    indexes = [one["metadata"]["annotations"][INDEX] for one in pods(namespace, "sweep")]
    assert sorted(indexes).count(taken["metadata"]["annotations"][INDEX]) == 2
