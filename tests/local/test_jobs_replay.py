"""Random runs with crashes: whatever happens, the same pods come, once each, and never too many."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jobs_kit import INDEX, World, a_job

from bridge.local.jobs import SERIAL_ANNOTATION, Decision, reconcile
from bridge.local.jobs.extent import extent
from bridge.local.jobs.model import JobView
from bridge.pods import Manifest

IGNORE_7 = {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}}]}


@st.composite
def jobs(draw: st.DrawFn) -> Manifest:
    completions = draw(st.integers(0, 8))
    spec: dict[str, Any] = {
        "completions": completions,
        "parallelism": draw(st.integers(1, 5)),
        "backoffLimit": draw(st.integers(0, 5)),
        "completionMode": draw(st.sampled_from(["Indexed", "NonIndexed"])),
    }
    if draw(st.booleans()):
        spec["podReplacementPolicy"] = "Failed"
    if spec["completionMode"] == "Indexed":
        if draw(st.booleans()):
            spec["backoffLimitPerIndex"] = draw(st.integers(0, 2))
        if completions and draw(st.booleans()):
            count = draw(st.integers(1, completions))
            spec["successPolicy"] = {"rules": [{"succeededCount": count}]}
    elif draw(st.booleans()):
        spec["completions"] = None
    return a_job(**spec)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["finish", "finish", "finish", "wait", "crash", "delete"]),
        st.integers(0, 10**6),
        st.sampled_from([0, 0, 1, 7]),
    ),
    max_size=40,
)


def do(world: World, what: str, number: int, code: int) -> None:
    running = world.running()
    if what == "crash":
        world.crash()
    elif what == "wait":
        world.now = world.last.wake_at or world.now + number % 30
    elif running:
        uid = running[number % len(running)]
        if what == "finish":
            world.finish(uid, code)
        else:
            metadata = world.pods[uid]["metadata"]
            metadata.setdefault("deletionTimestamp", "2023-11-14T22:13:20Z")


def outline(decision: Decision) -> tuple[Any, ...]:
    orders = [(order.manifest["metadata"]["uid"], order.not_before) for order in decision.create]
    conditions = [(one["type"], one["reason"]) for one in decision.status.get("conditions", [])]
    counts = [decision.status[key] for key in ("active", "succeeded", "failed", "terminating")]
    return orders, decision.delete, decision.delete_reason, conditions, counts


def check(world: World, *, deletions: bool) -> None:
    spec = world.job["spec"]
    pods = list(world.pods.values())
    active = [
        pod
        for pod in pods
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]
    assert len(active) <= spec["parallelism"]
    serials: dict[str, list[int]] = {}
    for pod in pods:
        annotations = pod["metadata"]["annotations"]
        serials.setdefault(annotations.get(INDEX, ""), []).append(
            int(annotations[SERIAL_ANNOTATION])
        )
    for numbers in serials.values():
        assert sorted(numbers) == list(range(len(numbers)))
    assert len({pod["metadata"]["name"] for pod in pods}) == len(pods)
    if spec["completionMode"] == "Indexed":
        indexes = [pod["metadata"]["annotations"][INDEX] for pod in active]
        assert len(set(indexes)) == len(indexes)
        if spec["podReplacementPolicy"] == "Failed" or not deletions:
            running = [world.pods[uid]["metadata"]["annotations"][INDEX] for uid in world.running()]
            assert len(set(running)) == len(running)
    most = extent(JobView.of(world.job)).pods
    assert most is not None
    assert len(pods) <= most


@settings(max_examples=150, deadline=None)
@given(jobs(), STEPS)
def test_any_run(job: Manifest, steps: list[tuple[str, int, int]]) -> None:
    world = World(job)
    settled: set[str] = set()
    # A pod that someone else deleted may fail after its Job was complete. That it was complete is
    # then known from the status alone, so without it the Job may be judged otherwise.
    deletions = any(what == "delete" for what, _, _ in steps)
    steps = [step for step in steps if not (deletions and step[0] == "crash")]
    for step in steps:
        do(world, *step)
        forgetful = {key: value for key, value in world.job.items() if key != "status"}
        pods = list(world.pods.values())
        if not settled:
            with_status = reconcile(world.job, pods, world.now)
            assert outline(reconcile(forgetful, pods, world.now)) == outline(with_status)
        created = set(world.pods)
        decision = world.settle()
        ended = {
            one["type"]
            for one in decision.status.get("conditions", [])
            if one["type"] in {"FailureTarget", "SuccessCriteriaMet"}
        }
        if settled:
            assert ended == settled
            assert set(world.pods) == created
        settled = ended
        check(world, deletions=deletions)


@settings(max_examples=60, deadline=None)
@given(jobs(), st.randoms(use_true_random=False), st.integers(0, 60))
def test_every_run_ends_and_a_crash_changes_nothing(
    job: Manifest, random: Any, crash_at: int
) -> None:
    def play(crash: int | None) -> tuple[list[str], tuple[Any, ...]]:
        world = World(job)
        for step in range(400):
            names = {one["type"] for one in world.last.status.get("conditions", [])}
            if names & {"Complete", "Failed"}:
                return list(world.pods), outline(world.last)
            if step == crash:
                world.crash()
            running = world.running()
            if running:
                uid = running[choices[step] % len(running)]
                world.finish(uid, [0, 0, 1, 7][choices[step] % 4])
            else:
                assert world.last.wake_at is not None, "nothing runs and nothing is awaited"
                world.now = world.last.wake_at
            world.settle()
        raise AssertionError("the Job does not end")

    choices = [random.randrange(10**6) for _ in range(400)]
    assert play(crash_at) == play(None)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.lists(st.sampled_from([0, 7]), max_size=60))
def test_ignored_failures_are_retried_without_end(
    completions: int, parallelism: int, codes: list[int]
) -> None:
    world = World(
        a_job(
            completions=completions,
            parallelism=parallelism,
            completionMode="Indexed",
            backoffLimit=0,
            podFailurePolicy=IGNORE_7,
        )
    )
    for code in [*codes, *[0] * completions]:
        if not world.running() and world.last.wake_at is not None:
            world.now = world.last.wake_at
            world.settle()
        if running := world.running():
            world.finish(running[0], code)
            world.settle()
    assert world.last.status["succeeded"] == completions
    assert world.last.status["failed"] == 0
