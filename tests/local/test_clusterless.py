"""What a run without a cluster says of what only a cluster has."""

from __future__ import annotations

import pytest

from bridge.local.clusterless import ignored, refused, refused_job
from bridge.pods import Manifest

TOKEN = {"serviceAccountToken": {"path": "token"}}


def a_pod(**spec: object) -> Manifest:
    return {"metadata": {"name": "p"}, "spec": {"containers": [], **spec}}


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"schedulingGates": [{"name": "g"}]}, ["spec.schedulingGates"]),
        (
            {"volumes": [{"name": "a"}, {"name": "b", "projected": {"sources": [{}, TOKEN]}}]},
            ["spec.volumes[1].projected.sources[1].serviceAccountToken"],
        ),
        ({"nodeSelector": {"a": "b"}}, []),
    ],
)
def test_what_would_wait_for_ever_is_refused(spec: Manifest, fields: list[str]) -> None:
    assert [one.field for one in refused(a_pod(**spec))] == fields


def test_what_makes_no_difference_is_said_unless_it_is_the_default() -> None:
    pod = a_pod(
        nodeSelector={"disk": "ssd"},
        affinity={},
        schedulerName="default-scheduler",
        serviceAccountName="builder",
    )
    assert [field for field, _ in ignored(pod)] == ["spec.nodeSelector", "spec.serviceAccountName"]


@pytest.mark.parametrize("manager", [None, "", "kubernetes.io/job-controller", "acme.com/kueue"])
def test_jobs_that_others_manage_are_refused(manager: str | None) -> None:
    job: Manifest = {"kind": "Job", "spec": {"managedBy": manager} if manager is not None else {}}
    cron: Manifest = {"kind": "CronJob", "spec": {"jobTemplate": {"spec": job["spec"]}}}
    theirs = manager == "acme.com/kueue"
    assert [one.field for one in refused_job(job)] == ["spec.managedBy"] * theirs
    assert [one.field for one in refused_job(cron)] == ["spec.jobTemplate.spec.managedBy"] * theirs
