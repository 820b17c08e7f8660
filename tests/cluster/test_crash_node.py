"""Crashes in the middle of a Job at a real API server: nothing runs twice, nothing is left, no exit
code is lost, and the node comes back by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import node_kit
import pytest
from control_plane_kit import ControlPlane, Namespace, Object
from node_kit import Place, container, until

pytestmark = pytest.mark.slow

INDEX = "batch.kubernetes.io/job-completion-index"


@pytest.fixture
def place(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Place]:
    with node_kit.place(control_plane, tmp_path / "place") as made:
        yield made


def runs(ran: Path) -> list[str]:
    return ran.read_text().split() if ran.exists() else []


def submit(place: Place, namespace: Namespace, ran: Path, pods: int, parallel: int) -> None:
    """A Job whose every pod notes that it runs, and ends with a code of its own (0 to 3)."""
    script = f'echo "$JOB_COMPLETION_INDEX" >> {ran}; sleep 0.3; exit $((JOB_COMPLETION_INDEX % 4))'
    template = {
        "restartPolicy": "Never",
        "nodeName": place.name,
        "containers": [container(script)],
    }
    spec = {
        "completionMode": "Indexed",
        "completions": pods,
        "parallelism": parallel,
        # A failed index is not tried again: any second run is a defect.
        "backoffLimitPerIndex": 0,
        "template": {"spec": template},
    }
    namespace.api.post(namespace.path("jobs"), {"metadata": {"name": "j"}, "spec": spec})


def has_run(ran: Path, count: int) -> None:
    until(lambda: len(runs(ran)) >= count, f"{count} pods have begun")


def over(namespace: Namespace, pods: int) -> None:
    """The Job ends as it must, each of its pods once, each with its own code."""
    failed = pods - len(range(0, pods, 4))

    def ended(job: Object) -> bool:
        conditions = job.get("status", {}).get("conditions") or ()
        return any(one["type"] in ("Complete", "Failed") for one in conditions)

    status = namespace.until("jobs", "j", ended)["status"]
    assert (status["succeeded"], status["failed"]) == (pods - failed, failed)
    where = f"{namespace.path('pods')}?labelSelector=job-name%3Dj"
    found = namespace.api.get(where)["items"]
    assert len(found) == pods
    codes: dict[int, Any] = {}
    for pod in found:
        (main,) = pod["status"]["containerStatuses"]
        assert main["restartCount"] == 0
        end = main["state"]["terminated"]
        codes[int(pod["metadata"]["annotations"][INDEX])] = (end["exitCode"], end["reason"])
    words = {0: "Completed"}
    assert codes == {at: (at % 4, words.get(at % 4, "Error")) for at in range(pods)}


def test_killed_in_the_middle_of_a_job(place: Place, namespace: Namespace, tmp_path: Path) -> None:
    ran, pods = tmp_path / "ran", 60
    settings = place.config(nodes=[])
    provider, address = place.provider(config=settings)
    config = place.config(backends=[])
    kubelet = place.kubelet(address, config=config)
    submit(place, namespace, ran, pods, 12)
    has_run(ran, 10)
    provider.kill()
    provider, _ = place.provider(config=settings)
    has_run(ran, 25)
    kubelet.kill()
    kubelet = place.kubelet(address, config=config)
    has_run(ran, 40)
    provider.kill()
    kubelet.kill()
    place.provider(config=settings)
    place.kubelet(address, config=config)
    over(namespace, pods)
    assert Counter(runs(ran)) == {str(at): 1 for at in range(pods)}
    place.ready()
    until(lambda: not place.work(), "nothing is left")


def test_the_api_server_goes_away_in_the_middle_of_a_job(
    place: Place, namespace: Namespace, tmp_path: Path, control_plane: ControlPlane
) -> None:
    ran, pods = tmp_path / "ran", 24
    up = place.up()
    submit(place, namespace, ran, pods, 8)
    has_run(ran, 10)
    with control_plane.without("kube-apiserver"):
        # What ran ends, with nobody to tell.
        until(lambda: not any("JOB_COMPLETION" in what for _, what in place.work()), "all end")
        before = len(runs(ran))
        assert up.process.poll() is None
    for api in (namespace.api, place.api):
        # Their connections ended with the server.
        api.close()
    assert before < pods
    over(namespace, pods)
    assert Counter(runs(ran)) == {str(at): 1 for at in range(pods)}
    place.ready(process=up)
    until(lambda: not place.work(), "nothing is left")
