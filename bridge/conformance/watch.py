"""WatchPods: snapshot, sync marks, revisions, resumption, acknowledgements."""

from __future__ import annotations

import itertools
from functools import partial

from bridge.conformance.kit import Kit, code
from bridge.conformance.model import expect
from bridge.conformance.pods import ENDLESS, words
from bridge.conformance.register import check
from bridge.conformance.watching import Watch
from bridge.rpc.v1 import pod_pb2

_SECTION = "WatchPods"


def _kinds(watch: Watch) -> list[str]:
    return [str(one.WhichOneof("event")) for one in watch.events]


@check(
    "watch.snapshot",
    "begins with a snapshot of what there is",
    section=_SECTION,
    rule="The stream begins with snapshot_started, which names the backends whose sync marks will"
    " come; then the whole facts of every pod of the cluster's node.",
)
async def snapshot(kit: Kit) -> None:
    """A second watch, when there is a pod."""
    pod = kit.pod(ENDLESS)
    await kit.create(pod)
    await kit.running(pod)
    watch = kit.new_watch()
    await watch.until(lambda: watch.facts(pod.uid), "the facts of the running pod")
    kinds = _kinds(watch)
    expect(kinds[0] == "snapshot_started", "snapshot_started first", ", ".join(kinds[:5]))
    expect(watch.epoch, "an epoch", "none")
    names = sorted(one.name for one in kit.offer.backends)
    told = sorted(watch.backends or [])
    expect(told == names, f"the backends of WatchNode: {', '.join(names)}", ", ".join(told))


@check(
    "watch.sync",
    "sends a sync mark for each backend",
    section=_SECTION,
    rule="A sync mark for each backend says that all that it has is told: until then absence means"
    " nothing.",
)
async def sync(kit: Kit) -> None:
    """On an empty node, and on one with a pod, which must stand before the mark."""
    empty = kit.new_watch(node=f"{kit.node}-empty")
    await empty.until(lambda: empty.synced, "a sync mark for each backend, on an empty node")
    pod = kit.pod(ENDLESS)
    await kit.create(pod)
    await kit.running(pod)
    watch = kit.new_watch()
    await watch.until(lambda: watch.synced, "a sync mark for each backend")
    told = watch.facts(pod.uid)
    expect(told is not None, "the running pod before the last sync mark", ", ".join(_kinds(watch)))


@check(
    "watch.revision",
    "numbers its events, always rising",
    section=_SECTION,
    rule="The revision rises with each event of an epoch; a message is never empty.",
)
async def revision(kit: Kit) -> None:
    """The lives of three pods, on two watches."""
    second = kit.new_watch()
    for script in ("exit 0", "exit 1", "sleep 0.2"):
        pod = kit.pod(script)
        await kit.create(pod)
        await kit.ended(pod)
    newest = kit.watch().revision
    await second.until(lambda: second.revision >= newest, f"revision {newest} on both watches")
    for watch in (kit.watch(), second):
        told = [one.revision for one in watch.events]
        rises = all(one < other for one, other in itertools.pairwise(told))
        expect(rises, "revisions that rise", told)
        expect(not watch.empty, "no message without an event", f"{watch.empty} of them")
    same = kit.watch().epoch == second.epoch
    expect(same, "one epoch", f"{kit.watch().epoch} and {second.epoch}")


@check(
    "watch.resume",
    "goes on behind what the client has",
    section=_SECTION,
    rule="With the epoch and revision of the last message that the client has, the stream goes on"
    " behind it.",
)
async def resume(kit: Kit) -> None:
    """Resumes twice: with something new to tell, and before there is."""
    old, new = kit.pod(ENDLESS), kit.pod("exit 2")
    await kit.create(old)
    await kit.running(old)
    await kit.watch().quiet(0.2)
    epoch, last = kit.watch().epoch, kit.watch().revision
    early = kit.new_watch(epoch, last)
    await kit.create(new)
    await kit.ended(new)
    late = kit.new_watch(epoch, last)
    for watch in (early, late):
        await watch.until(partial(_ended, watch, new.uid), "the end of the new pod")
        again = [one for one in watch.events if one.WhichOneof("event") != "pod"]
        expect(not again, "no snapshot and no mark", ", ".join(_kinds(watch)))
        told = [one.revision for one in watch.events]
        expect(min(told) > last, f"only revisions behind {last}", told)
        expect(not watch.of(old.uid), "nothing of the pod that did not change", len(told))


def _ended(watch: Watch, uid: str) -> bool:
    facts = watch.facts(uid)
    return facts is not None and facts.stage >= pod_pb2.POD_STAGE_ENDED


@check(
    "watch.unknown-epoch",
    "gives a new snapshot to whoever comes from another epoch",
    section=_SECTION,
    rule="Resuming with an unknown epoch, or a revision that is compacted, gives a new snapshot.",
)
async def unknown_epoch(kit: Kit) -> None:
    """An epoch that never was."""
    pod = kit.pod(ENDLESS)
    await kit.create(pod)
    await kit.running(pod)
    watch = kit.new_watch("an-epoch-that-never-was", kit.watch().revision)
    await watch.until(lambda: watch.facts(pod.uid), "the running pod in a new snapshot")
    expect(_kinds(watch)[0] == "snapshot_started", "snapshot_started", ", ".join(_kinds(watch)))


@check(
    "watch.ends-kept",
    "keeps an end until it is acknowledged",
    section="Acknowledgements",
    rule="Ended facts are kept until they are acknowledged.",
)
async def ends_kept(kit: Kit) -> None:
    """Reconnects twice without an acknowledgement, then acknowledges too little."""
    pod = kit.pod("exit 19")
    await kit.create(pod)
    await kit.ended(pod)
    event = kit.watch().newest(pod.uid)
    for _ in range(2):
        watch = kit.reconnect()
        await watch.snapshot()
        facts = watch.facts(pod.uid)
        kept = facts is not None and _ended(watch, pod.uid) and code(facts) == 19
        expect(kept, "the end with 19 in each new snapshot", words(facts))
    expect(event is not None and event.revision > 0, "a revision of its own", event)


@check(
    "watch.other-epoch-ack",
    "ignores acknowledgements of another epoch",
    section="Acknowledgements",
    rule="Acknowledgements of another epoch, or of an older revision, are ignored.",
)
async def other_epoch_ack(kit: Kit) -> None:
    """A deletion that only a right acknowledgement lets go on."""
    pod = kit.pod("exit 18")
    await kit.create(pod)
    await kit.ended(pod)
    await kit.delete(pod)
    watch = kit.watch()
    epoch, event = watch.epoch, watch.newest(pod.uid)
    assert event is not None
    watch.epoch = "another-epoch"
    await kit.ack(pod)
    watch.epoch = epoch
    await watch.quiet(0.4)
    facts = watch.facts(pod.uid)
    kept = facts is not None and facts.stage == pod_pb2.POD_STAGE_ENDED
    expect(kept, "the end is kept", words(facts))


@check(
    "watch.apart",
    "tells a cluster's node its own pods only",
    section=_SECTION,
    rule="WatchPods tells the pods of the cluster and node that it asks for.",
)
async def apart(kit: Kit) -> None:
    """Another node of the same cluster."""
    other = kit.new_watch(node=f"{kit.node}-other")
    pod = kit.pod("exit 0")
    await kit.create(pod)
    await kit.ended(pod)
    await other.snapshot()
    strange = [words(one.pod) for one in other.events if one.HasField("pod")]
    expect(not strange, "nothing on another node", "; ".join(strange))
