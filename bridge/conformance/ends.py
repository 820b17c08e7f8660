"""Ends: each container's own exit code, told exactly, and for ever."""

from __future__ import annotations

import asyncio

from bridge.conformance.kit import Facts, Kit, code, of
from bridge.conformance.model import FIELDS, expect
from bridge.conformance.pods import ENDLESS, words
from bridge.conformance.register import check
from bridge.rpc.v1 import pod_pb2

_SECTION = "Facts"
_EXACT = (
    "Every container's own exit code, reason, signal and times; never 0 for a code that is not"
    " known."
)


@check(
    "ends.exit-code",
    "tells exit codes exactly",
    section=_SECTION,
    rule=_EXACT,
)
async def exit_code(kit: Kit) -> None:
    """0, 1, 3, 255, and one that a signal makes."""
    asked = {0: "exit 0", 1: "exit 1", 3: "exit 3", 255: "exit 255"}
    # As process 1 of its own namespace a shell does not see this signal: then it says so itself.
    asked[137] = "kill -9 $$; exit 137"
    pods = {expected: kit.pod(script) for expected, script in asked.items()}
    await asyncio.gather(*(kit.create(pod) for pod in pods.values()))
    for expected, pod in pods.items():
        facts = await kit.ended(pod)
        end = of(facts).terminated
        expect(code(facts) == expected, f"exit code {expected}", words(facts))
        expect(end.signal in ((0, 9) if expected == 137 else (0,)), "its signal", words(facts))
        reason = "Completed" if expected == 0 else "Error"
        expect(end.reason == reason, f"reason {reason} for {expected}", words(facts))


@check(
    "ends.by-name",
    "tells each container's own code",
    section=_SECTION,
    rule=_EXACT,
    needs=FIELDS,
)
async def by_name(kit: Kit) -> None:
    """Three containers, in an order that is not that of their ends."""
    scripts = {"slow": "sleep 0.4; exit 7", "good": "exit 0", "other": "sleep 0.2; exit 9"}
    pod = kit.pod(containers=[kit.container(name, script) for name, script in scripts.items()])
    await kit.create(pod)
    facts = await kit.ended(pod)
    for name, expected in (("slow", 7), ("good", 0), ("other", 9)):
        expect(code(facts, name) == expected, f"{name} exits with {expected}", words(facts))
    told = [one.name for one in facts.containers]
    expect(told == list(scripts), f"the manifest's order: {', '.join(scripts)}", ", ".join(told))


@check(
    "ends.whole-facts",
    "tells whole facts at every change",
    section=_SECTION,
    rule="Facts are always whole, never a difference: identity, backend, stage, every container"
    " with its times.",
)
async def whole_facts(kit: Kit) -> None:
    """Looks at every event of one pod's life."""
    pod = kit.pod("sleep 0.2; exit 5")
    accepted = await kit.create(pod)
    await kit.ended(pod)
    for facts in kit.watch().of(pod.uid):
        expect(facts.pod == pod.identity, f"the identity {pod.identity}", facts.pod)
        expect(facts.stage, "a stage", words(facts))
        expect(facts.generation == pod.generation, f"generation {pod.generation}", facts)
        if facts.stage >= pod_pb2.POD_STAGE_ACTIVE:
            expect(facts.backend == accepted.backend, accepted.backend, facts.backend)
        _whole(facts)
    last = kit.watch().facts(pod.uid)
    told = last is not None and last.HasField("accepted_at")
    expect(told, "accepted_at, since the backend has accepted it", last)


def _whole(facts: Facts) -> None:
    for one in facts.containers:
        match one.WhichOneof("state"):
            case "waiting":
                expect(one.waiting.reason, "a reason of each that waits", words(facts))
            case "running":
                expect(one.running.HasField("started_at"), "started_at", one)
                expect("://" in one.container_id, "container_id <type>://<id>", one.container_id)
            case "terminated":
                end = one.terminated
                expect(end.reason, "a reason of each that has ended", words(facts))
                expect(end.HasField("finished_at"), "finished_at", words(facts))
                began, over = end.started_at.ToNanoseconds(), end.finished_at.ToNanoseconds()
                expect(0 < began <= over, "started_at before finished_at", end)
                expect("://" in end.container_id, "container_id <type>://<id>", end.container_id)


@check(
    "ends.final",
    "never takes an end back",
    section=_SECTION,
    rule="Ended is final: no later facts of the pod tell an earlier stage or another end.",
)
async def final(kit: Kit) -> None:
    """Watches on for a second after the ends, one good and one bad."""
    pods = [kit.pod("exit 0"), kit.pod("exit 1")]
    for pod in pods:
        await kit.create(pod)
    for pod in pods:
        await kit.ended(pod)
    await kit.watch().quiet(1.0)
    for pod, expected in zip(pods, (0, 1), strict=True):
        over = False
        for facts in kit.watch().of(pod.uid):
            over = over or facts.stage >= pod_pb2.POD_STAGE_ENDED
            expect(
                not over or (facts.stage >= pod_pb2.POD_STAGE_ENDED and code(facts) == expected),
                f"the end with {expected} for ever",
                f"afterwards: {words(facts)}",
            )


@check(
    "ends.cannot-start",
    "tells of a command that cannot be started",
    section=_SECTION,
    rule="A command that cannot be started is refused by field, or its container ends with a code"
    " that is not 0; it never succeeds.",
)
async def cannot_start(kit: Kit) -> None:
    """A program that is nowhere."""
    pod = kit.pod()
    pod.spec["containers"][0]["command"] = ["/no/such/program"]
    refusal = await kit.refused(pod)
    if refusal is not None:
        expect(refusal.fields, "a refusal that names the field", refusal)
        return
    facts = await kit.ended(pod)
    expect(code(facts) not in (0, None), "an exit code that is not 0", words(facts))


@check(
    "ends.deadline",
    "ends a pod at its deadline",
    section=_SECTION,
    rule="activeDeadlineSeconds counts from recorded.start_time, and ends the pod: failed, with the"
    " reason DeadlineExceeded.",
    needs=FIELDS,
)
async def deadline(kit: Kit) -> None:
    """One second."""
    pod = kit.pod(ENDLESS, activeDeadlineSeconds=1, grace=1)
    pod.acknowledged()
    await kit.create(pod)
    facts = await kit.ended(pod)
    told = facts.failed and facts.reason == "DeadlineExceeded"
    expect(told, "failed, reason DeadlineExceeded", words(facts))


@check(
    "ends.message",
    "brings back the termination message",
    section=_SECTION,
    rule="terminated.message is what the container wrote to its terminationMessagePath, at most"
    " 4,096 bytes.",
    needs=FIELDS,
)
async def message(kit: Kit) -> None:
    """Written to a path of the author's own choice, which nobody may drop."""
    path = f"/tmp/conformance-{kit.node}"  # noqa: S108 - within the container
    script = f"printf 'the last words' > {path} || exit 3; exit 2"
    main = kit.container("main", script, terminationMessagePath=path)
    pod = kit.pod(containers=[main])
    await kit.create(pod)
    facts = await kit.ended(pod)
    expect(of(facts).terminated.message == "the last words", "the last words", words(facts))
