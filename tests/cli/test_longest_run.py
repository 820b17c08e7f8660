"""What bounds a run though nobody lives to see to it."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.cli.launch import longest_run
from bridge.local.manifests import Raw, admit

DAY = 86400.0


def pod(name: str = "p", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "busybox"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": containers, **spec},
    }


def job(own: float | None = None, **template: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"template": {"spec": pod(**template)["spec"]}}
    if own is not None:
        spec["activeDeadlineSeconds"] = own
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": spec}


def cronjob(own: float) -> dict[str, Any]:
    spec = {"schedule": "0 3 * * *", "jobTemplate": {"spec": job(own)["spec"]}}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": spec}


@pytest.mark.parametrize(
    ("manifests", "expected"),
    [
        ([pod()], DAY),
        ([pod(activeDeadlineSeconds=600)], 600 + 30 + 60),
        ([pod(activeDeadlineSeconds=600, terminationGracePeriodSeconds=5)], 600 + 5 + 60),
        ([pod(activeDeadlineSeconds=600), pod("q", activeDeadlineSeconds=900)], 900 + 30 + 60),
        ([pod(activeDeadlineSeconds=600), pod("q")], DAY),
        ([pod(activeDeadlineSeconds=100_000)], DAY),
        ([job(600)], 600 + 30 + 60),
        ([job(600, activeDeadlineSeconds=60)], 60 + 30 + 60),
        ([job(activeDeadlineSeconds=60)], 60 + 30 + 60),
        ([job()], DAY),
        ([cronjob(600)], 600 + 30 + 60),
    ],
)
def test_the_longest_that_any_container_may_run(
    manifests: list[dict[str, Any]], expected: float
) -> None:
    objects = admit([Raw(one, "test") for one in manifests])
    assert longest_run(objects, DAY) == expected
