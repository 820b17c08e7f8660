"""What a watcher hears, whenever it comes and however slow it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st
from support import virtual

from bridge.provider.journal import BATCH, Journal
from bridge.rpc.channel import MAX_MESSAGE
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb


def facts(uid: str, generation: int = 0) -> pod_pb2.PodFacts:
    return pod_pb2.PodFacts(pod=pod_pb2.PodIdentity(uid=uid), generation=generation)


async def heard(watch: AsyncIterator[pb.WatchPodsResponse]) -> list[pb.WatchPodsEvent]:
    """All that comes without waiting."""
    found: list[pb.WatchPodsEvent] = []
    while True:
        following = asyncio.ensure_future(anext(watch))
        await asyncio.wait([following], timeout=1)
        if not following.done():
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            return found
        found += following.result().events


def test_a_snapshot_comes_before_the_marks_though_pods_changed_since() -> None:
    async def story() -> None:
        journal = Journal("e", ["b"])
        journal.publish(facts("1"))
        journal.synced("b")
        journal.publish(facts("1", 2))
        events = await heard(journal.watch("", 0))
        assert [one.WhichOneof("event") for one in events] == ["snapshot_started", "pod", "synced"]
        revisions = [one.revision for one in events[1:]]
        assert revisions == sorted(set(revisions))

    virtual.run(story())


def test_many_events_come_in_bounded_messages() -> None:
    async def story() -> None:
        journal = Journal("e", [])
        for number in range(3 * BATCH):
            journal.publish(facts(str(number)))
        async for message in journal.watch("", 0):
            assert len(message.events) <= BATCH
            if message.events[-1].revision == 3 * BATCH:
                break

    virtual.run(story())


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.integers(0, 4)),
            st.tuples(st.just("forget"), st.integers(0, 4)),
            st.tuples(st.just("sync"), st.just(0)),
        ),
        max_size=20,
    ),
    cut=st.integers(0, 20),
)
def test_whoever_resumes_knows_what_a_fresh_watcher_knows(
    steps: list[tuple[str, int]], cut: int
) -> None:
    async def story() -> None:
        journal = Journal("e", ["b"])
        known: dict[str, int] = {}
        synced = False
        epoch, revision = "", 0

        async def listen() -> None:
            nonlocal revision, epoch, synced
            for event in await heard(journal.watch(epoch, revision)):
                match event.WhichOneof("event"):
                    case "snapshot_started":
                        known.clear()
                        synced = False
                    case "pod":
                        known[event.pod.pod.uid] = event.pod.generation
                    case "synced":
                        synced = True
                revision = max(revision, event.revision)
            epoch = "e"

        truth: dict[str, int] = {}
        for number, (what, which) in enumerate(steps):
            if number == cut:
                await listen()
            match what:
                case "publish":
                    truth[str(which)] = number
                    journal.publish(facts(str(which), number))
                case "forget":
                    truth.pop(str(which), None)
                    journal.forget(str(which))
                case "sync":
                    journal.synced("b")
        await listen()
        assert {uid: known[uid] for uid in truth} == truth
        assert synced == any(what == "sync" for what, _ in steps)
        # What a resumed watcher still holds of forgotten pods it was told as gone before.
        fresh: dict[str, int] = {}
        for event in await heard(journal.watch("", 0)):
            if event.HasField("pod"):
                fresh[event.pod.pod.uid] = event.pod.generation
        assert fresh == truth

    virtual.run(story())


def test_no_message_is_longer_than_the_channel_takes() -> None:
    async def story() -> None:
        journal = Journal("e", ["b"])
        for number in range(60):
            one = facts(str(number), 1)
            for name in "abcde":
                one.containers.add(name=name).waiting.message = "x" * 60_000
            journal.publish(one)
        told: list[str] = []
        async for message in journal.watch("", 0):
            assert message.ByteSize() < MAX_MESSAGE / 2
            told += [event.pod.pod.uid for event in message.events if event.HasField("pod")]
            if len(told) == 60:
                break
        assert told == [str(number) for number in range(60)]

    virtual.run(story())
