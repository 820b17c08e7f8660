"""What is known of a pod, and what it looks like for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from groups_kit import WAITS, PaperPod, a_pod, identity

from bridge.groups.pods import Pods, mark
from bridge.workload import Exit, Identity, State, Waiting


def test_a_mark_is_of_the_attempt_alone() -> None:
    who = identity()
    assert mark(who.key) == mark(replace(who, name="other", namespace="other").key)
    assert mark(who.key) != mark(replace(who, attempt=who.attempt + 1).key)
    # Names that run into one another are told apart.
    pair = Identity("a", "", "", "", "b-c"), Identity("a-b", "", "", "", "c")
    assert len({mark(one.key) for one in pair}) == 2
    assert len(mark(who.key)) == 32
    assert mark(who.key).isalnum()


def refused(pod: PaperPod) -> None:
    pod.refused = Waiting("Invalid", "no such size")


def lost(pod: PaperPod) -> None:
    pod.lost_at = 7.0


def halted(pod: PaperPod) -> None:
    pod.is_halted = True


def in_doubt(pod: PaperPod) -> None:
    pod.is_halted = True
    pod.is_settled = False


def unstarted(pod: PaperPod) -> None:
    pod.has_group = pod.is_stopped = pod.never_started = True


@pytest.mark.parametrize(
    ("change", "state", "ended", "failed"),
    [
        (refused, Waiting("Invalid", "no such size"), True, True),
        (lost, Exit(137, 7.0, "ContainerStatusUnknown", message="nobody finds it"), True, True),
        (halted, WAITS, True, False),
        # A launch that nobody has answered may still have come to something.
        (in_doubt, WAITS, False, False),
        (unstarted, WAITS, False, False),
    ],
)
def test_what_a_pod_looks_like(
    change: Callable[[PaperPod], None], state: State, *, ended: bool, failed: bool
) -> None:
    pod = a_pod()
    change(pod)
    found = pod.group()
    assert found is not None
    assert [(one.name, one.state) for one in found.containers] == [("main", state)]
    assert (found.ended, found.failed) == (ended, failed)
    assert pod.is_over is (ended or pod.never_started)


async def test_what_is_on_its_way_is_not_what_was_there() -> None:
    pod = a_pod()
    assert pod.group() is None, "nobody launches it"
    pod.launch = asyncio.create_task(asyncio.sleep(0))
    found = pod.group()
    assert found is not None
    assert not found.ended
    pod.has_group = True
    assert found == pod.group(), "it is not known yet whether that one will do"
    await pod.launch
    pod.launch = None
    assert pod.group() == pod.shown()
    pod.missing = True
    assert pod.group() is None


async def test_each_change_is_told_once() -> None:
    pods = Pods[PaperPod]()
    first, second = pods.add(a_pod()), pods.add(a_pod())
    assert pods.add(replace(first)) is first
    with pods.listen() as listener:
        pods.tell(first)
        pods.tell(second)
        pods.tell(first)
        assert await listener.take() == [first, second]
        pods.forget(second)
        assert await listener.take() == [second]
    assert pods.of(second.identity) is None
    assert list(pods) == [first]
