"""UpdatePod: generations, what is applied, what is refused."""

from __future__ import annotations

from bridge.conformance.kit import Kit
from bridge.conformance.model import FIELDS, Broken, Skipped, expect
from bridge.conformance.pods import ENDLESS, words
from bridge.conformance.register import check

_SECTION = "UpdatePod"


@check(
    "update.older",
    "ignores an older generation",
    section=_SECTION,
    rule="An older generation is ignored; the answer says which one is applied.",
)
async def older(kit: Kit) -> None:
    """Generation 3, where 5 was created."""
    pod = kit.pod(ENDLESS)
    pod.generation = 5
    accepted = await kit.create(pod)
    expect(accepted.generation == 5, "generation 5 in `accepted`", accepted.generation)
    await kit.running(pod)
    pod.generation = 3
    pod.spec["activeDeadlineSeconds"] = 1
    answer = await kit.wire.unary("UpdatePod", pod.update())
    expect(answer.generation == 5, "generation 5, which is applied", answer.generation)
    await kit.watch().quiet(1.5)
    facts = await kit.running(pod)
    expect(facts.generation == 5, "generation 5 in the facts", words(facts))


@check(
    "update.applied",
    "applies a shorter deadline to a pod that runs",
    section=_SECTION,
    rule="A newer manifest is applied, and facts tell its generation; or it is refused by field.",
    needs=FIELDS,
)
async def applied(kit: Kit) -> None:
    """activeDeadlineSeconds."""
    pod = kit.pod(ENDLESS, grace=1)
    pod.acknowledged()
    await kit.create(pod)
    await kit.running(pod)
    pod.generation = 2
    pod.spec["activeDeadlineSeconds"] = 1
    refusal = await kit.wire.refused("UpdatePod", pod.update())
    if refusal is not None:
        expect(refusal.fields, "a refusal that names the field", refusal)
        raise Skipped(f"refused by field: {', '.join(refusal.fields)}")
    facts = await kit.ended(pod)
    expect(facts.reason == "DeadlineExceeded", "DeadlineExceeded", words(facts))
    expect(facts.generation == 2, "generation 2 in the facts", facts.generation)


@check(
    "update.refused",
    "refuses by field what cannot be changed, and applies nothing",
    section=_SECTION,
    rule="What cannot be changed on the pod's backend is refused by field, and nothing is applied.",
)
async def refused(kit: Kit) -> None:
    """The command of a container, which no API server lets change."""
    pod = kit.pod(ENDLESS)
    await kit.create(pod)
    await kit.running(pod)
    pod.generation = 2
    pod.spec["containers"][0]["command"] = ["sh", "-c", "exit 1"]
    refusal = await kit.wire.refused("UpdatePod", pod.update())
    field = "spec.containers[0].command"
    if refusal is None:
        raise Broken(f"a refusal that names {field}", "it was accepted")
    named = any(one.startswith(field) for one in refusal.fields)
    expect(named, f"a refusal that names {field}", refusal)
    await kit.watch().quiet(0.3)
    facts = await kit.running(pod)
    expect(facts.generation == 1, "generation 1 in the facts", facts.generation)


@check(
    "update.unknown",
    "knows no pod that was never created",
    section=_SECTION,
    rule="An update of a pod that the provider does not have is NotFound.",
)
async def unknown(kit: Kit) -> None:
    """A UID that was never created."""
    refusal = await kit.wire.refused("UpdatePod", kit.pod().update())
    if refusal is None:
        raise Broken("NotFound", "it was accepted")
    expect(refusal.code == "NOT_FOUND", "NOT_FOUND", refusal)
