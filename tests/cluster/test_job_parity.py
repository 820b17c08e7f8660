"""Each example ends the same way without a cluster and under the real Job controller: the Job's
status, and the phases, exit codes and restart counts of its pods."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import control_plane_kit
import node_kit
import pytest
import yaml
from control_plane_kit import ControlPlane, Namespace, Object
from node_kit import ROOT, Place, until

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
RUNNABLE = {
    str(path.relative_to(EXAMPLES)): path
    for path in sorted(
        [
            *EXAMPLES.glob("*.yaml"),
            *EXAMPLES.glob("retry/*.yaml"),
            *(
                one
                for one in EXAMPLES.iterdir()
                if one.name != "retry" and one.is_dir() and any(one.glob("*.yaml"))
            ),
        ]
    )
}
"""Each by itself; the two of `retry` end differently."""
INDEX = "batch.kubernetes.io/job-completion-index"
LONG = 300.0
"""Seconds that an example may take on a machine with much else to do; it takes half a minute."""
COUNTS = ("succeeded", "failed", "completedIndexes", "failedIndexes", "active")


def documents(path: Path) -> Iterator[Object]:
    for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
        yield from (one for one in yaml.safe_load_all(file.read_text()) if one)


def names(path: Path) -> tuple[list[str], list[str]]:
    """Of the Jobs and pods that an example makes."""
    found = [(one["kind"], one["metadata"]["name"]) for one in documents(path)]
    jobs = [
        name if kind == "Job" else f"{name}-manual"
        for kind, name in found
        if kind in ("Job", "CronJob")
    ]
    return jobs, [name for kind, name in found if kind == "Pod"]


# -- in one way and in the other -------------------------------------------------------------------


def run(place: Place, path: Path, name: str) -> tuple[list[Object], list[Object]]:
    """Jobs and pods as a run leaves them."""
    podbridge = [sys.executable, "-m", "podbridge"]

    def call(*words: str, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            [*podbridge, *words],
            cwd=ROOT,
            env=place.environment,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
        assert done.returncode in codes, done.stdout + done.stderr
        return done.stdout

    call("run", "-q", "-f", str(path), "--on", "process", "--name", name, codes=(0, 1))
    found = [
        json.loads(call("get", kind, "--run", name, "-o", "json"))["items"]
        for kind in ("jobs", "pods")
    ]
    call("delete", name)
    return found[0], found[1]


def is_over(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions") or ()
    return any(one["type"] in ("Complete", "Failed") for one in conditions)


def submit(namespace: Namespace, path: Path) -> None:
    namespace.kubectl("apply", "-f", str(path))
    for one in documents(path):
        if one["kind"] == "CronJob":
            # Once and now, and by the name that a run gives it.
            name = one["metadata"]["name"]
            namespace.kubectl("create", "job", f"{name}-manual", f"--from=cronjob/{name}")


def ended(namespace: Namespace, path: Path) -> tuple[list[Object], list[Object]]:
    """Jobs and pods as the cluster leaves them."""
    try:
        return _ended(namespace, path)
    finally:
        # This thread's connection.
        namespace.api.close()


def _ended(namespace: Namespace, path: Path) -> tuple[list[Object], list[Object]]:
    jobs, pods = names(path)
    for name in jobs:
        namespace.api.until(namespace.path("jobs", name), is_over, limit=LONG)
    alone = [
        namespace.until("pods", name, lambda pod: pod["status"]["phase"] in ("Succeeded", "Failed"))
        for name in pods
    ]
    if not jobs:
        return [], alone
    where = f"{namespace.path('pods')}?labelSelector=job-name+in+({','.join(jobs)})"
    over = ("Succeeded", "Failed")
    made = until(
        lambda: (
            all(
                pod["status"]["phase"] in over and "deletionTimestamp" not in pod["metadata"]
                for pod in namespace.api.get(where)["items"]
            )
            and namespace.api.get(where)
        ),
        "every pod has ended",
    )
    # As they are now that nothing of them is on its way any more.
    found = [namespace.api.get(namespace.path("jobs", name)) for name in jobs]
    return found, [*alone, *made["items"]]


# -- what is compared ------------------------------------------------------------------------------


def of_jobs(jobs: list[Object]) -> Object:
    return {
        job["metadata"]["name"]: {
            **{name: job["status"].get(name) or 0 for name in COUNTS},
            "conditions": sorted(
                (one["type"], one["status"], one.get("reason", ""))
                for one in job["status"]["conditions"]
            ),
        }
        for job in jobs
    }


def of_pods(pods: list[Object]) -> list[Any]:
    """In an order that has nothing to do with the names that controllers make up."""

    def containers(status: Object) -> list[Any]:
        return [
            (one["name"], one["restartCount"], end.get("exitCode"), end.get("reason"))
            for key in ("initContainerStatuses", "containerStatuses")
            for one in status.get(key) or ()
            for end in [one["state"].get("terminated") or {}]
        ]

    def belongs(pod: Object) -> str:
        owners = pod["metadata"].get("ownerReferences")
        return str(owners[0]["name"] if owners else pod["metadata"]["name"])

    return sorted(
        (
            belongs(pod),
            (pod["metadata"].get("annotations") or {}).get(INDEX, ""),
            pod["status"]["phase"],
            pod["status"].get("reason", ""),
            containers(pod["status"]),
        )
        for pod in pods
    )


@pytest.fixture(scope="module")
def results(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """All of them at once, as most of their time is waiting: how each ended, in both ways."""
    folder = tmp_path_factory.mktemp("parity")
    with ExitStack() as stack:
        place = stack.enter_context(node_kit.place(control_plane, folder))
        place.up()
        pool = stack.enter_context(ThreadPoolExecutor(len(RUNNABLE)))
        spaces = {
            name: stack.enter_context(control_plane_kit.namespace(control_plane))
            for name in RUNNABLE
        }
        for name, path in RUNNABLE.items():
            submit(spaces[name], path)
        runs = {
            name: pool.submit(run, place, path, f"r{at}")
            for at, (name, path) in enumerate(RUNNABLE.items())
        }
        here = {name: pool.submit(ended, spaces[name], path) for name, path in RUNNABLE.items()}
        yield {name: (runs[name], here[name]) for name in RUNNABLE}
        # Another worker may be asked for the rest; who waits for a Job that is deleted waits long.
        wait([*runs.values(), *here.values()], 2 * LONG)
        # The API server ends connections that were idle for 90 seconds.
        for one in (place, *spaces.values()):
            one.api.close()


@pytest.mark.parametrize("name", RUNNABLE)
def test_an_example_ends_in_the_same_way(results: dict[str, Any], name: str) -> None:
    (run_jobs, run_pods), (jobs, pods) = (one.result(2 * LONG) for one in results[name])
    assert jobs or pods
    assert of_jobs(run_jobs) == of_jobs(jobs)
    assert of_pods(run_pods) == of_pods(pods)
