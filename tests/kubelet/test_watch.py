"""List and watch: what is heard when the line breaks, versions are forgotten, or nobody answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kubelet.apiserver import ApiServer, eventually

from bridge.kubelet import watch as watch_module
from bridge.kubelet.client import ApiClient
from bridge.kubelet.watch import Changed, Listed, ListWatch


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(watch_module, "LONGEST_PAUSE", 0.05)


def a_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "managedFields": [{"manager": "x"}]},
        "data": data,
    }


class Heard:
    """What a ListWatch tells, as it comes."""

    def __init__(self, watch: ListWatch, listed: Listed | None = None) -> None:
        self.watch = watch
        self.objects: list[dict[str, Any]] = []
        self.told: list[str] = []
        self._news = asyncio.Event()
        self._listed = listed

    async def run(self) -> None:
        async for change in self.watch.follow(self._listed):
            if isinstance(change, Listed):
                names = sorted(one["metadata"]["name"] for one in change.items)
                self.told.append(f"LIST {' '.join(names)}".strip())
                self.objects += change.items
            else:
                assert isinstance(change, Changed)
                self.told.append(f"{change.type} {change.object['metadata']['name']}")
                self.objects.append(change.object)
            self._news.set()

    async def until(self, *told: str) -> None:
        async def wait() -> None:
            while self.told[-len(told) :] != list(told):
                self._news.clear()
                await self._news.wait()

        try:
            await asyncio.wait_for(wait(), 10)
        except TimeoutError:
            raise AssertionError(f"{told} not in {self.told}") from None


@asynccontextmanager
async def heard(
    server: ApiServer, listed: Listed | None = None, **options: Any
) -> AsyncIterator[Heard]:
    async with ApiClient(server.credentials()) as client:
        watch = ListWatch(client, "/api/v1/configmaps", **options)
        made = Heard(watch, listed)
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_list_then_changes() -> None:
    async with ApiServer.started() as server:
        server.put("configmaps", a_map("a"))
        async with heard(server) as heard_:
            await heard_.until("LIST a")
            await server.until(lambda: server.watches("configmaps"))
            server.put("configmaps", a_map("b"))
            server.put("configmaps", a_map("a", k="v"))
            server.remove("configmaps", "default", "b")
            await heard_.until("ADDED b", "MODIFIED a", "DELETED b")
            assert all("managedFields" not in one["metadata"] for one in heard_.objects)
            assert all(one["kind"] == "ConfigMap" for one in heard_.objects)
            watch = server.made("GET", "configmaps")[1].query
            assert watch["allowWatchBookmarks"] == "true"
            assert 1800 <= int(watch["timeoutSeconds"]) <= 3600
        await server.until(lambda: not server.watches("configmaps"))


async def test_only_what_the_selector_matches() -> None:
    async with ApiServer.started() as server:
        server.put("configmaps", a_map("a"))
        async with heard(server, fields="metadata.name=b", cached=True) as heard_:
            await heard_.until("LIST")
            await server.until(lambda: server.watches("configmaps"))
            server.put("configmaps", a_map("c"))
            server.put("configmaps", a_map("b"))
            await heard_.until("ADDED b")
            assert server.requests[0].query["resourceVersion"] == "0"


@pytest.mark.parametrize("end", ["end_watches", "drop_watches"])
async def test_a_watch_that_ends_or_breaks_goes_on_where_it_was(end: str) -> None:
    async with ApiServer.started() as server:
        server.put("configmaps", a_map("a"))
        async with heard(server) as heard_:
            for number in range(3):
                await server.until(lambda: server.watches("configmaps"))
                server.put("configmaps", a_map(f"b{number}"))
                await heard_.until(f"ADDED b{number}")
                getattr(server, end)()
                server.put("configmaps", a_map(f"c{number}"))
                await heard_.until(f"ADDED c{number}")
            assert [one for one in heard_.told if one.startswith("LIST")] == ["LIST a"]


async def test_a_bookmark_keeps_the_version_fresh() -> None:
    async with ApiServer.started() as server:
        async with heard(server) as heard_:
            await heard_.until("LIST")
            await server.until(lambda: server.watches("configmaps"))
            server.put("secrets", {"metadata": {"name": "s", "namespace": "default"}})
            server.bookmark()
            fresh = str(server.version)
            server.put("configmaps", a_map("a"))
            await heard_.until("ADDED a")
            server.requests.clear()
            server.bookmark()
            server.put("configmaps", a_map("b"))
            await heard_.until("ADDED b")
            server.compact()
            server.drop_watches()
            await server.until(lambda: server.requests and server.watches("configmaps"))
            again = server.requests[0].query
            assert int(again["resourceVersion"]) > int(fresh)
            # Nothing was forgotten that we had not heard: no new list.
            server.put("configmaps", a_map("c"))
            await heard_.until("ADDED c")
            assert sum(one.startswith("LIST") for one in heard_.told) == 1


@pytest.mark.parametrize("code", [410, 500])
async def test_after_an_error_event_all_is_listed_anew(code: int) -> None:
    async with ApiServer.started() as server:
        server.put("configmaps", a_map("a"))
        async with heard(server) as heard_:
            await heard_.until("LIST a")
            await server.until(lambda: server.watches("configmaps"))
            server.tell_error(code)
            await heard_.until("LIST a", "LIST a")


async def test_a_forgotten_version_is_listed_anew() -> None:
    async with ApiServer.started() as server:
        server.put("configmaps", a_map("a"))
        async with heard(server) as heard_:
            await heard_.until("LIST a")
            await server.until(lambda: server.watches("configmaps"))
            await server.stop()
            server.remove("configmaps", "default", "a")
            server.put("configmaps", a_map("b"))
            server.compact()
            await server.start()
            await heard_.until("LIST a", "LIST b")


async def test_410_as_an_answer_is_listed_anew() -> None:
    async with ApiServer.started() as server:
        async with heard(server) as heard_:
            await heard_.until("LIST")
            await server.until(lambda: server.watches("configmaps"))
            server.fail("GET", "configmaps", 410)
            server.end_watches()
            await heard_.until("LIST", "LIST")


async def test_it_goes_on_by_itself_while_nobody_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with ApiServer.started() as server:
        server.put("configmaps", a_map("a"))
        async with heard(server) as heard_:
            await heard_.until("LIST a")
            await server.until(lambda: server.watches("configmaps"))
            await server.stop()
            await eventually(lambda: heard_.watch.problem)
            assert "does not answer" in heard_.watch.problem
            calls = heard_.watch._client.calls
            await eventually(lambda: sum(calls[one] for one in calls if not one.code) >= 5)
            server.put("configmaps", a_map("b"))
            await server.start()
            await heard_.until("ADDED b")
            assert not heard_.watch.problem
        assert len(caplog.messages) == 2, "once when it broke, once when it went on"


@pytest.mark.parametrize("code", [401, 403, 429, 503])
async def test_refusals_are_tried_again(code: int) -> None:
    async with ApiServer.started() as server:
        server.fail("GET", "configmaps", code, times=3, headers={"Retry-After": "0"})
        async with heard(server) as heard_:
            await heard_.until("LIST")
            server.fail("GET", "configmaps", code, times=3)
            await server.until(lambda: server.watches("configmaps"))
            server.put("configmaps", a_map("a"))
            await heard_.until("ADDED a")


@pytest.mark.parametrize(
    "line", [b"{\n", b"7\n", b"{}\n", b'{"type":"ADDED","object":{}}\n', b'{"type":"ERROR"}\n']
)
async def test_a_line_that_is_no_event_ends_that_watch_only(line: bytes) -> None:
    async with ApiServer.started() as server:
        async with heard(server) as heard_:
            await heard_.until("LIST")
            await server.until(lambda: server.watches("configmaps"))
            server.tell_line(line)
            await server.until(lambda: len(server.made("GET", "configmaps")) == 3)
            server.put("configmaps", a_map("a"))
            await heard_.until("ADDED a")


async def test_it_can_go_on_from_a_list() -> None:
    async with ApiServer.started() as server:
        server.put("configmaps", a_map("a"))
        async with ApiClient(server.credentials()) as client:
            listed = await ListWatch(client, "/api/v1/configmaps").list()
        server.put("configmaps", a_map("b"))
        async with heard(server, listed) as heard_:
            await heard_.until("ADDED b")
            assert heard_.told == ["ADDED b"]
