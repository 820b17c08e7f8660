"""What a provider still knows when it was killed and started again."""

from __future__ import annotations

from bridge.conformance.kit import Kit, code, of, state
from bridge.conformance.model import RESTART, expect
from bridge.conformance.pods import ENDLESS, Pod, words
from bridge.conformance.register import check
from bridge.conformance.watching import Watch

_SECTION = "When the provider starts anew"


async def _anew(kit: Kit) -> Watch:
    """Starts the provider anew; the watch of its new life, whose snapshot is whole."""
    restart = kit.settings.restart
    assert restart is not None
    with kit.waiting("--restart-command ends"):
        await restart()
    with kit.waiting("the provider answers again"):
        await kit.wire.reach(kit.settings.timeout, patient=True)
    watch = kit.reconnect()
    await watch.snapshot()
    return watch


def _seen(pod: Pod, backend: str) -> None:
    """What Kubernetes' side records of a pod that it has seen running."""
    pod.acknowledged(backend)
    pod.recorded.started = True


@check(
    "restart.adopts",
    "adopts what runs, and starts none of it again",
    section=_SECTION,
    rule="It lists its backends before it creates anything: what runs is told before the sync mark,"
    " and a repeated CreatePod adopts it.",
    needs=RESTART,
)
async def adopts(kit: Kit) -> None:
    """A pod that runs on meanwhile."""
    pod = kit.pod(f"echo ran; {ENDLESS}")
    backend = (await kit.create(pod)).backend
    before = await kit.running(pod)
    watch = await _anew(kit)
    after = watch.facts(pod.uid)
    expect(after is not None, "the running pod in the snapshot, before its sync mark", "not there")
    _seen(pod, backend)
    await kit.create(pod)
    await watch.quiet(1.0)
    after = await kit.running(pod)
    one, other = of(before), of(after)
    same = one.container_id == other.container_id and not other.restart_count
    same = same and one.running.started_at == other.running.started_at
    expect(same, f"the same run, {words(before)}", f"{words(after)}, {other.container_id}")
    if kit.can("logs"):
        found = await kit.log(pod)
        expect(found == b"ran\n", "one line of log from one run", found[:200])


@check(
    "restart.keeps-ends",
    "still tells an end that was not acknowledged",
    section=_SECTION,
    rule="Ended facts that were not acknowledged are told again, each exit code as it was.",
    needs=RESTART,
)
async def keeps_ends(kit: Kit) -> None:
    """A pod that ended before, and one that ends while nobody looks or soon after."""
    ended, ending = kit.pod("exit 17"), kit.pod("sleep 1; exit 23")
    backend = (await kit.create(ended)).backend
    await kit.create(ending)
    await kit.ended(ended)
    await kit.began(ending)
    watch = await _anew(kit)
    told = watch.facts(ended.uid)
    expect(told is not None, "the ended pod in the snapshot, before its sync mark", "not there")
    for pod, expected in ((ended, 17), (ending, 23)):
        facts = await kit.until(
            pod,
            lambda one: state(one) == "terminated",
            f"the end with {expected}, without a new CreatePod",
        )
        expect(code(facts) == expected, f"exit code {expected}", words(facts))
        _seen(pod, backend)
        await kit.create(pod)
        facts = await kit.ended(pod)
        once = code(facts) == expected and of(facts).restart_count == 0
        expect(once, f"the end with {expected}, after one run", words(facts))


@check(
    "restart.epoch",
    "has another epoch, and answers the old one with a snapshot",
    section=_SECTION,
    rule="The epoch changes whenever the provider has started anew.",
    needs=RESTART,
)
async def epoch(kit: Kit) -> None:
    """Resumes with what was told before."""
    pod = kit.pod("exit 0")
    await kit.create(pod)
    await kit.ended(pod)
    before, last = kit.watch().epoch, kit.watch().revision
    await _anew(kit)
    watch = kit.new_watch(before, last)
    await watch.until(lambda: watch.backends is not None, "a new snapshot for the old epoch")
    expect(watch.epoch != before, "another epoch", watch.epoch)
