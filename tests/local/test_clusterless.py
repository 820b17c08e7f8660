"""What a run without a cluster says of what only a cluster has."""

from __future__ import annotations

import pytest

from bridge.local.clusterless import ignored, refused
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
