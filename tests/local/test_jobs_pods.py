"""The pods that a Job orders: identity, names, labels, environment, and CronJobs' Jobs."""

from __future__ import annotations

import copy
import re
from typing import Any
from uuid import UUID, uuid5

import pytest
from jobs_kit import FAILURES, IGNORED, INDEX, JOB_UID, T0, a_job, a_pod, indexed

from bridge.local.jobs import from_cronjob, reconcile
from bridge.local.jobs.indexes import format_indexes, parse_indexes
from bridge.pods import Manifest


def ordered(job: Manifest, *pods: Manifest, now: float = T0) -> list[Manifest]:
    return [order.manifest for order in reconcile(job, pods, now).create]


def test_a_plain_pod() -> None:
    job = a_job(parallelism=1)
    (pod,) = ordered(job)
    metadata = pod["metadata"]
    assert re.fullmatch(r"work-[bcdfghjklmnpqrstvwxz2456789]{5}", metadata["name"])
    assert metadata["uid"] == str(uuid5(UUID(JOB_UID), "/0"))
    assert metadata["namespace"] == "batch"
    assert metadata["annotations"] == {"podbridge.io/serial": "0"}
    assert metadata["labels"] == {
        "app": "demo",
        "job-name": "work",
        "controller-uid": JOB_UID,
        "batch.kubernetes.io/job-name": "work",
        "batch.kubernetes.io/controller-uid": JOB_UID,
    }
    assert metadata["ownerReferences"] == [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": "work",
            "uid": JOB_UID,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    assert pod["spec"] == job["spec"]["template"]["spec"]
    assert (pod["apiVersion"], pod["kind"]) == ("v1", "Pod")


def test_a_manual_selector_leaves_the_labels_alone() -> None:
    (pod,) = ordered(a_job(parallelism=1, manualSelector=True))
    assert pod["metadata"]["labels"] == {"app": "demo"}


def test_an_indexed_pod() -> None:
    job = indexed(parallelism=1)
    template = job["spec"]["template"]["spec"]
    template["initContainers"] = [{"name": "prepare", "env": [{"name": "A", "value": "1"}]}]
    template["containers"].append(
        {"name": "own", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "mine"}]}
    )
    before = copy.deepcopy(job)
    (pod,) = ordered(job)
    assert job == before
    assert re.fullmatch(r"work-0-[a-z0-9]{5}", pod["metadata"]["name"])
    assert pod["metadata"]["uid"] == str(uuid5(UUID(JOB_UID), "0/0"))
    assert pod["metadata"]["annotations"][INDEX] == pod["metadata"]["labels"][INDEX] == "0"
    assert pod["spec"]["hostname"] == "work-0"
    index = {
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}},
    }
    assert pod["spec"]["initContainers"][0]["env"] == [{"name": "A", "value": "1"}, index]
    assert pod["spec"]["containers"][0]["env"] == [index]
    assert pod["spec"]["containers"][1]["env"] == [
        {"name": "JOB_COMPLETION_INDEX", "value": "mine"}
    ]


@pytest.mark.parametrize("mode", ["Indexed", "NonIndexed"])
def test_names_and_uids_of_a_huge_job_are_unique_and_repeatable(mode: str) -> None:
    job = a_job(completionMode=mode, completions=500, parallelism=500)
    pods = ordered(job)
    later = [a_pod("Running", index=0 if mode == "Indexed" else None, serial=10_000)]
    pods += ordered(job, *later)
    assert pods[:500] == ordered(job)
    names = {pod["metadata"]["name"] for pod in pods}
    uids = {pod["metadata"]["uid"] for pod in pods}
    # Of an Indexed Job the second batch has only indexes that the first had, as the same pods.
    assert len(names) == len(uids) == (500 if mode == "Indexed" else 999)


def test_many_serials_share_no_name() -> None:
    job = a_job(completions=None, parallelism=500)
    names: set[str] = set()
    for first in range(0, 20_000, 500):
        earlier = [a_pod("Failed", serial=first - 1, finished=T0)] if first else []
        names |= {pod["metadata"]["name"] for pod in ordered(job, *earlier)}
    assert len(names) == 20_000


@pytest.mark.parametrize("mode", ["Indexed", "NonIndexed"])
def test_long_job_names_are_cut_but_the_index_is_kept(mode: str) -> None:
    name = "n" * 61
    (pod,) = ordered(a_job(name=name, completionMode=mode, parallelism=1))
    made = pod["metadata"]["name"]
    assert len(made) == 63
    assert made.startswith("n" * 55 + "-0-" if mode == "Indexed" else "n" * 58)


def test_serials_go_on_from_the_highest() -> None:
    pods = (a_pod("Failed", serial=4), a_pod("Succeeded", serial=2, finished=T0 + 1))
    serials = [
        pod["metadata"]["annotations"]["podbridge.io/serial"] for pod in ordered(a_job(), *pods)
    ]
    assert serials == ["5", "6"]


def test_serials_of_an_index_count_its_attempts() -> None:
    pods = (a_pod("Failed", index=1, serial=0), a_pod("Failed", index=1, serial=1))
    uids = [pod["metadata"]["uid"] for pod in ordered(indexed(), *pods, now=T0 + 60)]
    assert uids == [str(uuid5(UUID(JOB_UID), stem)) for stem in ("0/0", "1/2")]


IGNORE_42 = {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}}]}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (None, {FAILURES: "0"}),
        (a_pod("Failed", index=0, failures=0), {FAILURES: "1"}),
        (a_pod("Failed", index=0, failures=2, ignored=1), {FAILURES: "3", IGNORED: "1"}),
        (a_pod("Failed", index=0, code=42, failures=2), {FAILURES: "2", IGNORED: "1"}),
        (a_pod("Failed", index=0), {FAILURES: "1"}),
    ],
)
def test_failures_of_an_index_are_carried_on(
    pod: Manifest | None, expected: dict[str, str]
) -> None:
    job = indexed(completions=1, parallelism=1, backoffLimitPerIndex=9, podFailurePolicy=IGNORE_42)
    (made,) = ordered(job, *([pod] if pod else []))
    annotations = made["metadata"]["annotations"]
    assert {key: annotations[key] for key in (FAILURES, IGNORED) if key in annotations} == expected


def test_an_index_carries_on_from_its_newest_failure() -> None:
    pods = [a_pod("Failed", index=0, serial=n, failures=n, finished=T0 + n) for n in (1, 2, 0)]
    (made,) = ordered(indexed(completions=1, backoffLimitPerIndex=9), *pods)
    assert made["metadata"]["annotations"][FAILURES] == "3"


@pytest.mark.parametrize(
    ("indexes", "text"),
    [
        ([], ""),
        ([3], "3"),
        ([1, 0], "0,1"),
        ([0, 1, 2], "0-2"),
        ([0, 2, 4, 5, 7, 8, 9], "0,2,4,5,7-9"),
    ],
)
def test_index_text(indexes: list[int], text: str) -> None:
    assert format_indexes(indexes) == text
    assert parse_indexes(text, 100) == set(indexes)


def test_index_text_ends_at_completions() -> None:
    assert parse_indexes("1,3-7,9", 5) == {1, 3, 4}


def a_cronjob(**metadata: Any) -> Manifest:
    template = {
        "metadata": {"labels": {"app": "report"}, "annotations": {"note": "x"}},
        "spec": a_job()["spec"],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "report", "namespace": "batch", "uid": "c-1"} | metadata,
        "spec": {"schedule": "0 3 * * *", "suspend": True, "jobTemplate": template},
    }


def test_a_cronjobs_job() -> None:
    cronjob = a_cronjob()
    job = from_cronjob(cronjob, T0)
    assert job["metadata"] == {
        "name": "report-manual",
        "namespace": "batch",
        "creationTimestamp": "2023-11-14T22:13:20Z",
        "labels": {"app": "report"},
        "annotations": {"cronjob.kubernetes.io/instantiate": "manual", "note": "x"},
        "ownerReferences": [
            {
                "apiVersion": "batch/v1",
                "kind": "CronJob",
                "name": "report",
                "uid": "c-1",
                "controller": True,
            }
        ],
    }
    assert job["spec"] == a_job()["spec"]
    assert job["spec"] is not cronjob["spec"]["jobTemplate"]["spec"]


def test_a_long_cronjob_name_stays_a_label() -> None:
    name = from_cronjob(a_cronjob(name="c" * 63), T0)["metadata"]["name"]
    assert name == "c" * 56 + "-manual"
