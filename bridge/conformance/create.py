"""CreatePod: it runs a pod once, however often it is asked."""

from __future__ import annotations

import asyncio

from bridge.conformance.kit import Facts, Kit, code, of, state
from bridge.conformance.model import FIELDS, Broken, Skipped, expect
from bridge.conformance.pods import ENDLESS, Pod, words
from bridge.conformance.register import check
from bridge.errors import BridgeError
from bridge.rpc.v1 import pod_pb2

_SECTION = "CreatePod"
_ONCE = "Idempotent by (cluster, UID): a repeated call adopts what runs, and never starts it again."


def _run(facts: Facts) -> tuple[str, int, int]:
    """What tells one run of the container from another."""
    one = of(facts)
    when = one.running.started_at if one.HasField("running") else one.terminated.started_at
    return one.container_id, one.restart_count, when.ToNanoseconds()


def _same(kit: Kit, pod: Pod, first: Facts) -> None:
    """Broken where any facts since tell another run than the first."""
    for one in kit.watch().of(pod.uid):
        container = of(one) if one.containers else None
        if container is None or container.WhichOneof("state") in (None, "waiting"):
            continue
        same = _run(one) == _run(first) and not container.HasField("last_termination")
        expect(same, f"one run for ever, {_run(first)}", f"{_run(one)}: {words(one)}")


async def _wrote_once(kit: Kit, pod: Pod) -> None:
    if not kit.can("logs"):
        return
    found = await kit.log(pod)
    expect(found == b"ran\n", "one line of log from one run", found[:200])


@check(
    "create.idempotent",
    "runs a pod once when it is created again while it runs",
    section=_SECTION,
    rule=_ONCE,
)
async def idempotent(kit: Kit) -> None:
    """Creates it thrice more while it runs."""
    pod = kit.pod(f"echo ran; {ENDLESS}")
    accepted = await kit.create(pod)
    first = await kit.running(pod)
    await kit.watch().quiet(0.25)
    for _ in range(3):
        again = await kit.create(pod)
        expect(
            (again.backend, again.attempt) == (accepted.backend, accepted.attempt),
            f"backend {accepted.backend!r}, attempt {accepted.attempt}",
            f"backend {again.backend!r}, attempt {again.attempt}",
        )
    await kit.watch().quiet(0.7)
    _same(kit, pod, first)
    await _wrote_once(kit, pod)


@check(
    "create.concurrent",
    "runs a pod once when eight ask for it at once",
    section=_SECTION,
    rule=_ONCE,
)
async def concurrent(kit: Kit) -> None:
    """Eight calls side by side."""
    pod = kit.pod("echo ran; sleep 0.3; exit 6")
    first = await kit.create(pod) if len(kit.offer.backends) > 1 else None
    answers = await asyncio.gather(*(kit.create(pod) for _ in range(8)))
    told = {(one.backend, one.attempt) for one in [*answers, *([first] if first else [])]}
    expect(len(told) == 1, "one backend and attempt", sorted(told))
    ended = await kit.ended(pod)
    _same(kit, pod, ended)
    expect(code(ended) == 6, "exit code 6", words(ended))
    await _wrote_once(kit, pod)


@check(
    "create.after-end",
    "does not run a pod again that has ended",
    section=_SECTION,
    rule="A pod that has had its end never runs again.",
)
async def after_end(kit: Kit) -> None:
    """Creates it again when its end was told, before and after that is acknowledged."""
    pod = kit.pod("echo ran; exit 4")
    await kit.create(pod)
    ended = await kit.ended(pod)
    await kit.create(pod)
    await kit.ack(pod)
    await kit.create(pod)
    await kit.watch().quiet(0.25)
    _same(kit, pod, ended)
    await _wrote_once(kit, pod)


@check(
    "create.after-gone",
    "does not run a pod again that is gone and not acknowledged",
    section=_SECTION,
    rule="A pod that has had its end never runs again.",
)
async def after_gone(kit: Kit) -> None:
    """Creates it again between its end and the last acknowledgement."""
    pod = kit.pod(ENDLESS)
    await kit.create(pod)
    first = await kit.running(pod)
    await kit.delete(pod, grace=5)
    await kit.gone(pod)
    refused = await kit.refused(pod)
    await kit.watch().quiet(0.3)
    last = kit.watch().facts(pod.uid)
    told = f"{words(last)}; CreatePod said {refused or 'accepted'}"
    expect(last is not None and last.stage == pod_pb2.POD_STAGE_GONE, "the pod stays gone", told)
    _same(kit, pod, first)


@check(
    "create.lost",
    "launches nothing for a pod that had run and cannot be found",
    section=_SECTION,
    rule="With recorded.started a pod that no backend has is lost: ContainerStatusUnknown, 137,"
    " never launched again.",
)
async def lost(kit: Kit) -> None:
    """A pod that Kubernetes' side says it has seen running."""
    pod = kit.pod("echo ran; exit 0")
    pod.acknowledged(kit.offer.backends[0].name)
    pod.recorded.started = True
    await kit.create(pod)
    facts = await kit.ended(pod)
    end = of(facts).terminated
    unknown = end.exit_code == 137 and end.reason == "ContainerStatusUnknown"
    expect(unknown, "137, ContainerStatusUnknown", words(facts))
    expect(facts.disrupted, "disrupted", words(facts))
    ran = [words(one) for one in kit.watch().of(pod.uid) if state(one) == "running"]
    expect(not ran, "nothing ever runs", "; ".join(ran))


@check(
    "create.proposal",
    "proposes one of several backends, and starts nothing",
    section=_SECTION,
    rule="With several candidate backends and no recorded placement it answers `proposed` and"
    " starts nothing; with one there is no proposal.",
)
async def proposal(kit: Kit) -> None:
    """Asks without a recorded placement."""
    pod = kit.pod()
    watch = kit.watch()
    while True:
        try:
            answer = await kit.wire.unary("CreatePod", pod.create())
            break
        except BridgeError as error:
            if error.permanent:
                raise
            await asyncio.sleep(0.2)
    one_only = len(kit.offer.backends) < 2
    if answer.HasField("accepted"):
        if not one_only:
            raise Skipped("the pod has one candidate backend: it was accepted without a proposal")
        return
    expect(not one_only, "`accepted`: there is one backend", "`proposed`")
    names = [one.name for one in kit.offer.backends]
    proposed = answer.proposed.backend
    expect(proposed in names, f"one of {', '.join(names)}", proposed)
    await watch.quiet(0.5)
    expect(not watch.of(pod.uid), "no facts before the placement is recorded", watch.of(pod.uid))
    accepted = await kit.create(pod)
    expect(accepted.backend == proposed, f"the recorded backend {proposed}", accepted.backend)


@check(
    "create.recorded-backend",
    "refuses a recorded backend that it does not have",
    section=_SECTION,
    rule="A recorded backend that the provider does not have is Invalid.",
)
async def recorded_backend(kit: Kit) -> None:
    """A made-up name."""
    pod = kit.pod()
    pod.recorded.backend = "no-such-backend"
    refusal = await kit.refused(pod)
    if refusal is None:
        raise Broken("Invalid", "the pod was accepted")
    expect(refusal.kind == "Invalid", "Invalid", refusal)


@check(
    "create.not-ready",
    "waits with a container whose environment is not whole",
    section=_SECTION,
    rule="A container with not_ready waits with that reason; CreatePod is called again once it can"
    " start.",
    needs=FIELDS,
)
async def not_ready(kit: Kit) -> None:
    """First not ready, then ready."""
    pod = kit.pod("exit 8")
    pod.not_ready = {"main": "configmap conformance is not there"}
    await kit.create(pod)
    waits = await kit.until(
        pod,
        lambda one: one.containers and of(one).waiting.reason == "CreateContainerConfigError",
        "main waits with the reason CreateContainerConfigError",
    )
    told = of(waits).waiting.message
    expect("conformance" in told, "the message of not_ready", told)
    pod.not_ready = {}
    await kit.create(pod)
    ended = await kit.ended(pod)
    expect(code(ended) == 8, "it runs, and exits with 8", words(ended))
