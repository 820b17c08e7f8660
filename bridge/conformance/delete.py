"""DeletePod: signal, grace, kill; told, acknowledged, and then nothing is left."""

from __future__ import annotations

import asyncio
import time

from bridge.conformance.kit import Facts, Kit, code, of
from bridge.conformance.model import expect
from bridge.conformance.pods import ENDLESS, STUBBORN, Pod, words
from bridge.conformance.register import check
from bridge.errors import BridgeError
from bridge.rpc.v1 import pod_pb2

_SECTION = "DeletePod"
_ENDS = "Ends a pod: signal, grace period, kill."
_LONG = 60
"""Seconds of grace that no check waits out: an end that comes sooner came by the order."""


def _slack(kit: Kit) -> float:
    """Seconds by which an end may come late: a backend may be behind with what it tells."""
    return kit.settings.timeout / 3


async def _up(kit: Kit, pod: Pod) -> None:
    """Returns when the pod runs and its script has set its trap, as far as can be told."""
    await kit.create(pod)
    await kit.running(pod)
    await kit.watch().quiet(0.5)


async def _took(kit: Kit, pod: Pod) -> tuple[Facts, float]:
    """The pod's end, and how many seconds it took from now."""
    began = time.monotonic()
    facts = await kit.ended(pod)
    return facts, time.monotonic() - began


@check(
    "delete.gone",
    "tells the end, then that the pod is gone, and forgets it when both are acknowledged",
    section=_SECTION,
    rule="Once its terminal facts are acknowledged all that is left of it is removed; gone facts"
    " are kept until acknowledged; then it is absent.",
)
async def gone(kit: Kit) -> None:
    """From the order to the absence, with a reconnection on the way."""
    pod = kit.pod(ENDLESS)
    await _up(kit, pod)
    await kit.delete(pod, grace=5)
    facts = await kit.ended(pod)
    expect(of(facts).HasField("terminated"), "its container's end", words(facts))
    await kit.watch().quiet(0.4)
    early = kit.watch().facts(pod.uid)
    expect(
        early is not None and early.stage == pod_pb2.POD_STAGE_ENDED,
        "gone only after the end was acknowledged",
        words(early),
    )
    await kit.gone(pod)
    kit.reconnect()
    await kit.until(
        pod, lambda one: one.stage == pod_pb2.POD_STAGE_GONE, "gone, told again after reconnecting"
    )
    await kit.ack(pod)
    watch = kit.reconnect()
    await watch.snapshot()
    left = watch.facts(pod.uid)
    expect(left is None, "nothing of the pod after the last acknowledgement", words(left))


@check(
    "delete.ended",
    "removes a pod that had ended by itself",
    section=_SECTION,
    rule="Once its terminal facts are acknowledged all that is left of it is removed.",
)
async def ended(kit: Kit) -> None:
    """Acknowledged first, deleted then; its exit code stays."""
    pod = kit.pod("exit 16")
    await kit.create(pod)
    await kit.ended(pod)
    await kit.ack(pod)
    await kit.delete(pod)
    facts = await kit.until(
        pod, lambda one: one.stage == pod_pb2.POD_STAGE_GONE, "the pod is told gone"
    )
    if facts.containers:
        expect(code(facts) == 16, "its exit code to the last", words(facts))


@check(
    "delete.unknown",
    "tells a pod gone that it never knew",
    section=_SECTION,
    rule="A pod that is not known is gone, which is told by WatchPods.",
)
async def unknown(kit: Kit) -> None:
    """Twice, since it is idempotent."""
    pod = kit.pod()
    kit.watch()
    await kit.delete(pod)
    await kit.delete(pod, grace=0)
    await kit.until(pod, lambda one: one.stage == pod_pb2.POD_STAGE_GONE, "the pod is told gone")


@check(
    "delete.term-first",
    "sends the stop signal first",
    section=_SECTION,
    rule=_ENDS,
)
async def term_first(kit: Kit) -> None:
    """The container answers the signal with an exit code of its own."""
    pod = kit.pod("trap 'exit 9' TERM; while :; do sleep 0.1; done", grace=_LONG)
    await _up(kit, pod)
    await kit.delete(pod)
    facts, took = await _took(kit, pod)
    expect(code(facts) == 9, "exit code 9, by its own trap", words(facts))
    slack = _slack(kit)
    expect(took < slack, f"the end when it comes, within {slack:g} s", f"after {took:.1f} s")


@check(
    "delete.kill-after-grace",
    "kills what is left at the end of the grace period",
    section=_SECTION,
    rule=_ENDS,
)
async def kill_after_grace(kit: Kit) -> None:
    """A container that ignores the signal."""
    pod = kit.pod(STUBBORN, grace=_LONG)
    await _up(kit, pod)
    await kit.delete(pod, grace=2)
    facts, took = await _took(kit, pod)
    expect(code(facts) == 137, "exit code 137", words(facts))
    expect(of(facts).terminated.signal in (0, 9), "signal 9, where one is told", words(facts))
    expect(1.5 < took < 2 + _slack(kit), "the kill 2 s after the order", f"after {took:.1f} s")


@check(
    "delete.shorter",
    "lets a later call shorten the grace, and none lengthen it",
    section=_SECTION,
    rule="Idempotent; a later call may shorten the grace.",
)
async def shorter(kit: Kit) -> None:
    """A minute first, then two seconds, then a minute again."""
    pod = kit.pod(STUBBORN)
    await _up(kit, pod)
    for grace in (60, 2, 60):
        await kit.delete(pod, grace=grace)
    facts, took = await _took(kit, pod)
    expect(code(facts) == 137, "exit code 137", words(facts))
    expect(took < 2 + _slack(kit), "the kill by the shortest grace, 2 s", f"after {took:.1f} s")


@check(
    "delete.at-once",
    "kills at once with a grace of 0",
    section=_SECTION,
    rule="0: kill at once.",
)
async def at_once(kit: Kit) -> None:
    """A container that ignores the signal."""
    pod = kit.pod(STUBBORN, grace=_LONG)
    await _up(kit, pod)
    await kit.delete(pod, grace=0)
    facts, took = await _took(kit, pod)
    expect(code(facts) == 137, "exit code 137", words(facts))
    expect(took < _slack(kit), "the kill at once", f"after {took:.1f} s")


@check(
    "delete.nothing-left",
    "leaves nothing that runs, and no log",
    section=_SECTION,
    rule="Gone: the backend has confirmed that nothing of it is left.",
    needs="logs",
)
async def nothing_left(kit: Kit) -> None:
    """A container that writes for ever, whose log is followed meanwhile."""
    pod = kit.pod("while :; do echo tick; sleep 0.1; done")
    await kit.create(pod)
    await kit.running(pod)
    ticks, ticking = 0, asyncio.Event()

    async def follow() -> None:
        nonlocal ticks
        try:
            async for piece in kit.log_pieces(pod, follow=True):
                ticks += piece.count(b"tick")
                ticking.set()
        except BridgeError:
            # The log was removed under its reader, which ends it as well.
            return

    following = asyncio.create_task(follow(), name="follow the log")
    try:
        async with asyncio.timeout(_slack(kit)):
            await ticking.wait()
        await kit.delete(pod, grace=0)
        await kit.gone(pod)
        told = ticks
        await asyncio.wait([following], timeout=2.0)
        still = f"its log goes on: {ticks - told} more lines"
        expect(following.done(), "the followed log ends with the container", still)
    except TimeoutError:
        expect(ticks, "a followed log", "nothing of it")
        raise
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    await kit.ack(pod)
    await kit.has_no_log(pod)
