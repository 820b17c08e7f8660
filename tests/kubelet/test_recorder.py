"""Events: how they are named and counted, and that none is lost while the API server is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kubelet.apiserver import ApiServer

from bridge.kubelet import recorder as recorder_module
from bridge.kubelet.client import ApiClient
from bridge.kubelet.recorder import Recorder

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(recorder_module, "LONGEST_PAUSE", 0.05)


@asynccontextmanager
async def a_recorder(server: ApiServer, **options: Any) -> AsyncIterator[Recorder]:
    async with ApiClient(server.credentials()) as client:
        recorder = Recorder(client, "node-1", **options)
        try:
            yield recorder
        finally:
            await recorder.close(0)


def events(server: ApiServer) -> list[dict[str, Any]]:
    return [one for (kind, _, _), one in server.objects.items() if kind == "events"]


async def test_an_event_says_what_a_kubelets_says() -> None:
    async with ApiServer.started() as server, a_recorder(server, clock=lambda: 1e9) as recorder:
        recorder.record(POD, "Normal", "Started", "Container started", "spec.containers{c}")
        assert await recorder.flush()
        (one,) = events(server)
        assert one["metadata"]["namespace"] == "ns"
        assert one["metadata"]["name"] == f"p.{10**18:x}"
        assert one["involvedObject"] == {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "ns",
            "name": "p",
            "uid": "u",
            "resourceVersion": "7",
            "fieldPath": "spec.containers{c}",
        }
        assert one["source"] == {"component": "podbridge", "host": "node-1"}
        assert (one["type"], one["reason"], one["count"]) == ("Normal", "Started", 1)
        assert one["firstTimestamp"] == one["lastTimestamp"] == "2001-09-09T01:46:40Z"
        assert one["message"] == "Container started"


async def test_the_same_again_is_counted() -> None:
    now = 1e9
    async with ApiServer.started() as server:
        async with a_recorder(server, clock=lambda: now) as recorder:
            for number in range(3):
                recorder.record(POD, "Warning", "BackOff", "again")
                assert await recorder.flush()
                assert events(server)[0]["count"] == number + 1
                now += 10
            (one,) = events(server)
            assert one["firstTimestamp"] == "2001-09-09T01:46:40Z"
            assert one["lastTimestamp"] == "2001-09-09T01:47:00Z"
            assert len(server.made("POST", "events")) == 1
            assert server.made("PATCH", "events")[1].body == {
                "count": 3,
                "lastTimestamp": "2001-09-09T01:47:00Z",
            }
            # What differs is another event, under another name, however little time is between.
            recorder.record(POD, "Warning", "BackOff", "other")
            recorder.record({**POD, "metadata": {**POD["metadata"], "uid": "v"}}, *ONE)
            assert await recorder.flush()
            assert len(events(server)) == 3


ONE = ("Warning", "BackOff", "again")


async def test_a_burst_is_one_call() -> None:
    async with ApiServer.started() as server, a_recorder(server) as recorder:
        for _ in range(100):
            recorder.record(POD, *ONE)
        assert await recorder.flush()
        assert [one["count"] for one in events(server)] == [100]
        assert len(server.requests) == 1


async def test_the_same_while_it_is_being_written_is_counted_too() -> None:
    async with ApiServer.started() as server, a_recorder(server) as recorder:
        gate = server.delay("POST", "events")
        recorder.record(POD, *ONE)
        await server.until(lambda: events(server))
        recorder.record(POD, *ONE)
        gate.set()
        assert await recorder.flush()
        assert [one["count"] for one in events(server)] == [2]


async def test_one_whose_answer_was_lost_is_counted_on() -> None:
    async with ApiServer.started() as server, a_recorder(server) as recorder:
        server.fail("POST", "events", 0, after=True)
        for _ in range(2):
            recorder.record(POD, *ONE)
            assert await recorder.flush()
        assert [one["count"] for one in events(server)] == [2]


async def test_an_event_that_has_expired_is_made_anew() -> None:
    async with ApiServer.started() as server, a_recorder(server) as recorder:
        recorder.record(POD, *ONE)
        assert await recorder.flush()
        name = events(server)[0]["metadata"]["name"]
        server.remove("events", "ns", name)
        recorder.record(POD, *ONE)
        assert await recorder.flush()
        assert [one["count"] for one in events(server)] == [2]


async def test_nothing_is_lost_while_the_api_server_is_away() -> None:
    async with ApiServer.started() as server, a_recorder(server) as recorder:
        await server.stop()
        for number in range(300):
            recorder.record(POD, "Normal", "Started", f"number {number}")
        assert not await recorder.flush(0.05)
        await server.start()
        server.fail("POST", "events", 503, times=20)
        server.fail("POST", "events", 429, times=20, headers={"Retry-After": "0"})
        # Done, but the answer is lost: found there, and not told twice.
        server.fail("POST", "events", 0, times=20, after=True)
        assert await recorder.flush()
        assert len(events(server)) == 300
        assert not recorder.dropped


async def test_closing_writes_what_there_is_within_its_limit() -> None:
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        recorder = Recorder(client, "n")
        for number in range(50):
            recorder.record(POD, "Warning", "Failed", f"number {number}")
        await recorder.close()
        assert len(events(server)) == 50


async def test_closing_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        await server.stop()
        recorder = Recorder(client, "n")
        recorder.record(POD, *ONE)
        await asyncio.wait_for(recorder.close(0.05), 5)
        assert caplog.messages == ["1 events could not be written"]


async def test_a_namespace_that_ends_takes_its_events_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    message = (
        'events "p.1" is forbidden: unable to create new content in namespace ns because it is '
        "being terminated"
    )
    async with ApiServer.started() as server, a_recorder(server) as recorder:
        server.fail("POST", "events", 403, status={"message": message})
        recorder.record(POD, *ONE)
        assert await recorder.flush()
        server.fail("POST", "events", 404, status={"message": 'namespaces "ns" not found'})
        recorder.record(POD, *ONE)
        assert await recorder.flush()
        assert not events(server)
        assert not caplog.messages
        assert not recorder.dropped


async def test_what_is_refused_is_dropped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with ApiServer.started() as server, a_recorder(server) as recorder:
        server.fail("POST", "events", 403, status={"message": "not allowed"})
        recorder.record(POD, *ONE)
        assert await recorder.flush()
        assert recorder.dropped == 1
        assert caplog.messages == ["an event of ns/p was refused: not allowed"]
        recorder.record(POD, *ONE)
        assert await recorder.flush()
        assert len(events(server)) == 1


async def test_room_and_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "REMEMBERED", 10)
    async with ApiServer.started() as server, a_recorder(server, room=20) as recorder:
        for number in range(30):
            recorder.record(POD, "Normal", "Started", f"number {number}")
        assert recorder.dropped == 10
        # One that waits is still counted up.
        recorder.record(POD, "Normal", "Started", "number 0")
        assert await recorder.flush()
        recorder.record(POD, "Normal", "Started", "one more")
        assert await recorder.flush()
        assert len(recorder._events) <= 11
        assert len(events(server)) == 21
        assert max(one["count"] for one in events(server)) == 2


async def test_a_long_message_and_an_object_without_namespace() -> None:
    async with ApiServer.started() as server, a_recorder(server) as recorder:
        node = {"kind": "Node", "metadata": {"name": "node-1", "uid": "node-1"}}
        recorder.record(node, "Warning", "Problem", "x" * 5000)
        assert await recorder.flush()
        (one,) = events(server)
        assert len(one["message"]) == 1024
        assert one["metadata"]["namespace"] == "default"
        assert one["involvedObject"] == {
            "apiVersion": "v1",
            "kind": "Node",
            "name": "node-1",
            "uid": "node-1",
        }
