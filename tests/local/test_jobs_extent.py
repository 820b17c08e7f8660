"""How many pods Jobs make at most; that the controller never makes more is in test_jobs_replay."""

from __future__ import annotations

from typing import Any

import pytest
from jobs_kit import a_job

from bridge.cost.worst import Extent
from bridge.local.jobs.extent import extent
from bridge.local.jobs.model import JobView

IGNORE = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
COUNT = {"rules": [{"action": "Count", "onPodConditions": [{"type": "DisruptionTarget"}]}]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, Extent(9, 2)),
        ({"backoffLimit": 0}, Extent(3, 2)),
        ({"parallelism": 10}, Extent(9, 3)),
        ({"parallelism": 0}, Extent(0, 0)),
        ({"completions": 0}, Extent(0, 0)),
        ({"activeDeadlineSeconds": 60}, Extent(9, 2, 60)),
        ({"completions": None, "parallelism": 4}, Extent(10, 4)),
        ({"completionMode": "Indexed", "backoffLimitPerIndex": 1}, Extent(6, 2)),
        (
            {"completionMode": "Indexed", "backoffLimitPerIndex": 1, "backoffLimit": None},
            Extent(6, 2),
        ),
        ({"podFailurePolicy": COUNT}, Extent(9, 2)),
    ],
)
def test_how_many_pods(spec: dict[str, Any], expected: Extent) -> None:
    assert extent(JobView.of(a_job(**spec))) == expected


def test_failures_that_do_not_count_have_no_limit() -> None:
    found = extent(JobView.of(a_job(podFailurePolicy=IGNORE)))
    assert found.pods is None
    assert "podFailurePolicy ignores failures" in found.endless
