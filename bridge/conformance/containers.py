"""Containers of one pod: their order, and who is started again."""

from __future__ import annotations

import itertools

from bridge.conformance.kit import Kit, code, of, state
from bridge.conformance.model import FIELDS, expect
from bridge.conformance.pods import ENDLESS, Pod, words
from bridge.conformance.register import check
from bridge.rpc.v1 import pod_pb2

_SECTION = "Restarts"
_POLICY = "The provider restarts containers by their restart policy, with the kubelet's back-off."


async def _stays_ended(kit: Kit, pod: Pod, expected: int) -> None:
    await kit.create(pod)
    facts = await kit.ended(pod)
    await kit.watch().quiet(0.5)
    last = kit.watch().facts(pod.uid) or facts
    once = of(last).restart_count == 0 and not of(last).HasField("last_termination")
    expect(code(last) == expected and once, f"one run, that ends with {expected}", words(last))


@check(
    "containers.never",
    "restarts nothing under Never",
    section=_SECTION,
    rule=_POLICY,
)
async def never(kit: Kit) -> None:
    """A failure."""
    await _stays_ended(kit, kit.pod("exit 5", restart="Never"), 5)


@check(
    "containers.on-failure-succeeds",
    "restarts no success under OnFailure",
    section=_SECTION,
    rule=_POLICY,
    needs=FIELDS,
)
async def on_failure_succeeds(kit: Kit) -> None:
    """A success."""
    await _stays_ended(kit, kit.pod("exit 0", restart="OnFailure"), 0)


async def _starts_again(kit: Kit, restart: str, script: str, expected: int) -> None:
    pod = kit.pod(script, restart=restart)
    await kit.create(pod)
    facts = await kit.until(
        pod, lambda one: one.containers and of(one).restart_count >= 1, "a restart is counted"
    )
    one = of(facts)
    expect(
        one.HasField("last_termination") and one.last_termination.exit_code == expected,
        f"last_termination with exit code {expected}",
        f"{words(facts)}; last_termination {one.last_termination}",
    )
    counts = [of(one).restart_count for one in kit.watch().of(pod.uid) if one.containers]
    expect(counts == sorted(counts), "counts that only rise", counts)
    stages = [one.stage for one in kit.watch().of(pod.uid)]
    expect(max(stages) < pod_pb2.POD_STAGE_ENDED, "the pod has not ended", words(facts))


@check(
    "containers.on-failure",
    "starts a failure again under OnFailure, and counts it",
    section=_SECTION,
    rule=_POLICY,
    needs=FIELDS,
)
async def on_failure(kit: Kit) -> None:
    """Fails each time."""
    await _starts_again(kit, "OnFailure", "exit 5", 5)


@check(
    "containers.always",
    "starts a success again under Always, and counts it",
    section=_SECTION,
    rule=_POLICY,
    needs=FIELDS,
)
async def always(kit: Kit) -> None:
    """Succeeds each time."""
    await _starts_again(kit, "Always", "exit 0", 0)


@check(
    "containers.init-order",
    "runs init containers one after the other, then the others",
    section=_SECTION,
    rule="Init containers run in order, each to its end, before any other container starts.",
    needs=FIELDS,
)
async def init_order(kit: Kit) -> None:
    """Two init containers and a main one."""
    inits = [kit.container("first", "sleep 0.3"), kit.container("second", "sleep 0.1")]
    pod = kit.pod(initContainers=inits, containers=[kit.container("main", "exit 6")])
    await kit.create(pod)
    facts = await kit.ended(pod)
    expect(code(facts) == 6, "main exits with 6", words(facts))
    ends = [of(facts, name).terminated for name in ("first", "second", "main")]
    for one, other in itertools.pairwise(ends):
        began, over = other.started_at.ToNanoseconds(), one.finished_at.ToNanoseconds()
        expect(began >= over, "each starts after the end of the one before", words(facts))
    for told in kit.watch().of(pod.uid):
        early = state(told, "first") == "running" and state(told, "main") == "running"
        expect(not early, "main waits for first", words(told))


@check(
    "containers.init-fails",
    "starts nothing behind an init container that fails",
    section=_SECTION,
    rule="Init containers run in order, each to its end, before any other container starts.",
    needs=FIELDS,
)
async def init_fails(kit: Kit) -> None:
    """Under Never."""
    inits = [kit.container("first", "exit 9")]
    pod = kit.pod(initContainers=inits, containers=[kit.container("main", "exit 0")])
    await kit.create(pod)
    facts = await kit.ended(pod)
    expect(code(facts, "first") == 9, "first exits with 9", words(facts))
    ran = [one for one in kit.watch().of(pod.uid) if state(one, "main") == "running"]
    expect(not ran, "main never runs", words(facts))
    main = [one for one in facts.containers if one.name == "main" and one.HasField("terminated")]
    expect(not main, "main has not ended, since it never started", words(facts))


@check(
    "containers.sidecar",
    "keeps a sidecar for as long as the main containers, and no longer",
    section=_SECTION,
    rule="An init container with restartPolicy Always is a sidecar: it starts in order, stays, and"
    " is ended after the main containers.",
    needs=FIELDS,
)
async def sidecar(kit: Kit) -> None:
    """The sidecar itself never ends."""
    helper = kit.container("helper", ENDLESS, restartPolicy="Always")
    main = kit.container("main", "sleep 0.4; exit 3")
    pod = kit.pod(initContainers=[helper], containers=[main])
    await kit.create(pod)
    facts = await kit.ended(pod)
    expect(code(facts) == 3, "main exits with 3", words(facts))
    helped, ran = of(facts, "helper").terminated, of(facts).terminated
    # From the times: a brief main need not be told while it runs.
    early = helped.started_at.ToNanoseconds() <= ran.started_at.ToNanoseconds()
    expect(early, "helper starts before main", words(facts))
    late = helped.finished_at.ToNanoseconds() >= ran.finished_at.ToNanoseconds()
    expect(late, "helper ends after main", words(facts))
