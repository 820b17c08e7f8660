"""What pods refer to: read once, watched while somebody needs it, told when it changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kubelet.apiserver import ApiServer, eventually

from bridge.errors import NotFound, Unavailable
from bridge.kubelet import references as references_module
from bridge.kubelet.client import ApiClient, Forbidden
from bridge.kubelet.references import References, Services, Tokens, service_variables

POD_UID = "11111111-0000-0000-0000-000000000000"


def a_pod(name: str = "p", *, maps: Iterable[str] = (), secrets: Iterable[str] = ()) -> Any:
    sources = [{"configMapRef": {"name": one}} for one in maps]
    sources += [{"secretRef": {"name": one}} for one in secrets]
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}"},
        "spec": {"containers": [{"name": "c", "envFrom": sources}]},
    }


def an_object(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns"}, **more}


class World:
    def __init__(self, server: ApiServer, client: ApiClient, watches: int) -> None:
        self.server = server
        self.changed: list[set[str]] = []
        self.news = asyncio.Event()
        self.references = References(client, self._changed, watches=watches)

    def _changed(self, uids: Iterable[str]) -> None:
        self.changed.append(set(uids))
        self.news.set()

    async def told(self) -> set[str]:
        """The pods of the next change."""
        if not self.changed:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 10)
        return self.changed.pop(0)

    def asked(self, resource: str = "configmaps") -> int:
        return sum("watch" not in one.query for one in self.server.made("GET", resource))


@asynccontextmanager
async def a_world(watches: int = 10) -> AsyncIterator[World]:
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        world = World(server, client, watches)
        try:
            yield world
        finally:
            await world.references.close()


async def test_an_object_is_read_once_for_all_its_pods_and_watched() -> None:
    async with a_world() as world:
        world.server.put("configmaps", an_object("a", data={"k": "1"}))
        for name in ("p", "q"):
            world.references.hold(a_pod(name, maps=["a"]))
        found = await asyncio.gather(
            *(world.references.get("ConfigMap", "ns", "a") for _ in range(20))
        )
        assert [one["data"] for one in found if one] == [{"k": "1"}] * 20
        assert world.asked() == 1
        assert world.server.requests[0].path == "/api/v1/namespaces/ns/configmaps"
        assert world.server.requests[0].query["fieldSelector"] == "metadata.name=a"
        await world.server.until(lambda: world.server.watches("configmaps") == 1)
        world.server.put("configmaps", an_object("a", data={"k": "2"}))
        assert await world.told() == {"uid-p", "uid-q"}
        again = await world.references.get("ConfigMap", "ns", "a")
        assert again is not None
        assert again["data"] == {"k": "2"}
        assert world.asked() == 1


async def test_what_is_missing_is_told_when_it_appears_and_when_it_goes() -> None:
    async with a_world() as world:
        world.references.hold(a_pod(secrets=["s"]))
        assert await world.references.get("Secret", "ns", "s") is None
        await world.server.until(lambda: world.server.watches("secrets"))
        world.server.put("secrets", an_object("s", data={}))
        assert await world.told() == {"uid-p"}
        assert await world.references.get("Secret", "ns", "s") is not None
        world.server.remove("secrets", "ns", "s")
        assert await world.told() == {"uid-p"}
        assert await world.references.get("Secret", "ns", "s") is None


async def test_the_last_pod_ends_the_watch() -> None:
    async with a_world() as world:
        world.references.hold(a_pod("p", maps=["a", "b"]))
        world.references.hold(a_pod("q", maps=["a"]))
        for name in ("a", "b"):
            await world.references.get("ConfigMap", "ns", name)
        await world.server.until(lambda: world.server.watches("configmaps") == 2)
        world.references.release("uid-p")
        await world.server.until(lambda: world.server.watches("configmaps") == 1)
        world.references.hold(a_pod("q", maps=[]))
        await world.server.until(lambda: world.server.watches("configmaps") == 0)
        assert world.references._watching == 0
        assert not world.references._objects


async def test_a_change_missed_while_the_server_was_away_is_told() -> None:
    async with a_world() as world:
        world.server.put("configmaps", an_object("a"))
        world.references.hold(a_pod(maps=["a"]))
        await world.references.get("ConfigMap", "ns", "a")
        await world.server.until(lambda: world.server.watches("configmaps"))
        await world.server.stop()
        world.server.remove("configmaps", "ns", "a")
        world.server.compact()
        await world.server.start()
        assert await world.told() == {"uid-p"}
        assert await world.references.get("ConfigMap", "ns", "a") is None


async def test_what_never_changes_is_not_watched() -> None:
    async with a_world() as world:
        world.server.put("configmaps", an_object("a", immutable=True))
        world.server.put("configmaps", an_object("b"))
        world.references.hold(a_pod(maps=["a", "b"]))
        for _ in range(3):
            await world.references.get("ConfigMap", "ns", "a")
            await world.references.get("ConfigMap", "ns", "b")
        assert world.asked() == 2
        await world.server.until(lambda: world.server.watches("configmaps") == 1)
        world.server.put("configmaps", an_object("b", immutable=True))
        await world.told()
        await world.server.until(lambda: world.server.watches("configmaps") == 0)
        await world.references.get("ConfigMap", "ns", "b")
        assert world.asked() == 2


async def test_beyond_the_room_for_watches_objects_are_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_world(watches=1) as world:
        world.references.hold(a_pod(maps=["a", "b"]))
        for _ in range(5):
            await world.references.get("ConfigMap", "ns", "a")
            await world.references.get("ConfigMap", "ns", "b")
        assert world.asked() == 2
        world.server.put("configmaps", an_object("b"))
        monkeypatch.setattr(references_module, "FRESH", 0.0)
        assert await world.references.get("ConfigMap", "ns", "b") is not None
        assert world.asked() == 3
        await world.server.until(lambda: world.server.watches("configmaps") == 1)


async def test_an_object_that_no_pod_holds_is_read_each_time() -> None:
    async with a_world() as world:
        world.server.put("configmaps", an_object("a"))
        for _ in range(2):
            assert await world.references.get("ConfigMap", "ns", "a") is not None
        assert world.asked() == 2
        assert not world.server.watches("configmaps")


@pytest.mark.parametrize(
    "name", ["", "../secrets/x", "a,metadata.namespace=kube-system", "A", "a b", "-a", "x" * 254]
)
async def test_a_name_that_no_object_can_have_asks_nobody(name: str) -> None:
    async with a_world() as world:
        assert await world.references.get("ConfigMap", "ns", name) is None
        assert await world.references.get("Node", "ns", "n") is None
        assert not world.server.requests


async def test_the_authoriser_may_lag_behind_a_new_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_world() as world:
        world.server.put("secrets", an_object("s"))
        world.server.fail("GET", "secrets", 403, times=3)
        world.references.hold(a_pod(secrets=["s"]))
        assert await world.references.get("Secret", "ns", "s") is not None
        assert world.asked("secrets") == 4
        # Not for ever: what is forbidden is said.
        monkeypatch.setattr(references_module, "LAG", 0.05)
        world.server.fail("GET", "secrets", 403, times=100)
        world.references.hold(a_pod(secrets=["s", "t"]))
        with pytest.raises(Forbidden):
            await world.references.get("Secret", "ns", "t")


async def test_an_error_is_everybodys_own() -> None:
    async with a_world() as world:
        world.references.hold(a_pod(maps=["a"]))
        world.server.fail("GET", "configmaps", 503, times=2)
        got = await asyncio.gather(
            *(world.references.get("ConfigMap", "ns", "a") for _ in range(4)),
            return_exceptions=True,
        )
        assert sum(isinstance(one, Unavailable) for one in got) == 2
        assert got.count(None) == 2


# Tokens.


def a_token_pod() -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": POD_UID},
        "spec": {"serviceAccountName": "builder", "containers": []},
    }


class TokenWorld:
    def __init__(self, server: ApiServer, client: ApiClient) -> None:
        self.server = server
        self.now = time.time()
        self.due: list[str] = []
        self.tokens = Tokens(client, self.due.extend, clock=lambda: self.now, jitter=lambda: 0.0)
        self.pod = a_token_pod()
        server.put("pods", a_token_pod())

    async def get(self, audience: str = "", seconds: int = 3600) -> str:
        return await self.tokens.get(self.pod, audience, seconds, 0.0)


@asynccontextmanager
async def a_token_world() -> AsyncIterator[TokenWorld]:
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        world = TokenWorld(server, client)
        try:
            yield world
        finally:
            world.tokens.close()


async def test_a_token_is_bound_to_the_pod_and_kept() -> None:
    async with a_token_world() as world:
        first = await world.get()
        assert await world.get() == first
        other = await world.get("vault", 600)
        assert other != first
        one, two = world.server.made("POST", "/token")
        assert one.path == "/api/v1/namespaces/ns/serviceaccounts/builder/token"
        assert one.body["spec"] == {
            "expirationSeconds": 3600,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": POD_UID},
        }
        assert two.body["spec"]["audiences"] == ["vault"]


@pytest.mark.parametrize(("seconds", "due"), [(3600, 2880), (14 * 86400, 86400)])
async def test_a_token_is_renewed_when_most_of_its_life_is_over(seconds: int, due: int) -> None:
    async with a_token_world() as world:
        first = await world.get(seconds=seconds)
        world.now += due - 2
        assert await world.get(seconds=seconds) == first
        world.now += 4
        assert await world.get(seconds=seconds) != first


async def test_somebody_is_told_when_a_token_is_due() -> None:
    async with a_token_world() as world:
        # Due at once by a clock that has run on: told after the shortest pause.
        world.now += 3600 * 24
        await world.get(seconds=3600)
        await eventually(lambda: world.due)
        assert world.due == [POD_UID]
        world.tokens.release(POD_UID)
        assert not world.tokens._timers


async def test_the_old_token_serves_while_no_new_one_can_be_had() -> None:
    async with a_token_world() as world:
        first = await world.get()
        world.now += 3000
        world.server.fail("POST", "/token", 503)
        assert await world.get() == first
        assert await world.get() == first
        assert len(world.server.made("POST", "/token")) == 2
        world.now += references_module.RETRY
        assert await world.get() != first
        world.now += 4000
        world.server.fail("POST", "/token", 503)
        with pytest.raises(Unavailable):
            await world.get()


async def test_nothing_is_kept_for_a_pod_that_is_not_there() -> None:
    async with a_token_world() as world:
        await world.tokens.get(world.pod, "", 3600, None)
        assert not world.tokens._tokens
        assert not world.tokens._timers


async def test_a_token_of_the_lagging_authoriser() -> None:
    async with a_token_world() as world:
        world.server.fail("POST", "/token", 403, times=3)
        since = asyncio.get_running_loop().time()
        assert await world.tokens.get(world.pod, "", 3600, since)
        world.server.fail("POST", "/token", 403)
        with pytest.raises(Forbidden):
            await world.tokens.get(world.pod, "other", 3600, since - 60)


async def test_a_token_of_an_admission_that_lags() -> None:
    async with a_token_world() as world:
        late = {"message": 'pod "p" not found'}
        world.server.fail("POST", "/token", 404, times=3, status=late)
        since = asyncio.get_running_loop().time()
        assert await world.tokens.get(world.pod, "", 3600, since)
        missing = {"message": 'serviceaccounts "builder" not found'}
        world.server.fail("POST", "/token", 404, status=missing)
        with pytest.raises(NotFound):
            await world.tokens.get(world.pod, "other", 3600, since)
        assert len(world.server.made("POST", "/token")) == 5


async def test_an_answer_without_a_token_is_an_error_without_its_content() -> None:
    async with a_token_world() as world:
        body = {"status": {"token": "secret-token"}}
        world.server.fail("POST", "/token", 200, status=body)
        with pytest.raises(Unavailable) as caught:
            await world.get()
        assert "secret" not in str(caught.value)
        assert "secret" not in repr(await _kept(world))


async def _kept(world: TokenWorld) -> Any:
    await world.get()
    return world.tokens._tokens


# Services.


def a_service(name: str, namespace: str, address: str, *ports: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "ports": list(ports), "selector": {"app": "x"}},
    }


def test_service_variables_are_the_kubelets() -> None:
    service = a_service(
        "my-db",
        "ns",
        "10.0.0.1",
        {"name": "sql-main", "port": 5432, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    )
    headless = a_service("headless", "ns", "None", {"port": 1})
    external = {"metadata": {"name": "x"}, "spec": {"type": "ExternalName", "externalName": "y"}}
    six = a_service("six", "ns", "fd00::1", {"port": 80})
    found = service_variables([service, headless, external, six])
    assert dict(found) == {
        "MY_DB_SERVICE_HOST": "10.0.0.1",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_SQL_MAIN": "5432",
        "MY_DB_SERVICE_PORT_DNS": "53",
        "MY_DB_PORT": "tcp://10.0.0.1:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.0.0.1:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.0.0.1",
        "MY_DB_PORT_53_UDP": "udp://10.0.0.1:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "10.0.0.1",
        "SIX_SERVICE_HOST": "fd00::1",
        "SIX_SERVICE_PORT": "80",
        "SIX_PORT": "tcp://[fd00::1]:80",
        "SIX_PORT_80_TCP": "tcp://[fd00::1]:80",
        "SIX_PORT_80_TCP_PROTO": "tcp",
        "SIX_PORT_80_TCP_PORT": "80",
        "SIX_PORT_80_TCP_ADDR": "fd00::1",
    }


async def hosts(services: Services, namespace: str = "ns", **spec: Any) -> dict[str, str]:
    pod = {"metadata": {"name": "p", "namespace": namespace}, "spec": spec}
    found = await services.variables(pod)
    return {name: value for name, value in found if name.endswith("_SERVICE_HOST")}


@asynccontextmanager
async def some_services(**options: Any) -> AsyncIterator[tuple[ApiServer, Services]]:
    async with ApiServer.started() as server, ApiClient(server.credentials()) as client:
        https = {"name": "https", "port": 443, "protocol": "TCP"}
        server.put("services", a_service("kubernetes", "default", "10.0.0.1", https))
        server.put("services", a_service("web", "default", "10.0.0.2", {"port": 80}))
        server.put("services", a_service("db", "ns", "10.0.0.3", {"port": 80}))
        services = Services(client, **options)
        try:
            yield server, services
        finally:
            await services.close()


async def test_a_pod_sees_its_namespace_and_the_api_server() -> None:
    async with some_services() as (server, services):
        assert await hosts(services) == {
            "DB_SERVICE_HOST": "10.0.0.3",
            "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        }
        assert await hosts(services, enableServiceLinks=False) == {
            "KUBERNETES_SERVICE_HOST": "10.0.0.1"
        }
        assert await hosts(services, "default") == {
            "WEB_SERVICE_HOST": "10.0.0.2",
            "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        }
        found = await services.get("ns", "db")
        assert found is not None
        assert found["spec"]["clusterIP"] == "10.0.0.3"
        assert await services.get("ns", "web") is None
        await server.until(lambda: server.watches("services"))
        server.put("services", a_service("new", "ns", "10.0.0.4", {"port": 1}))
        server.remove("services", "ns", "db")
        await eventually(lambda: "db" not in services._by_namespace["ns"])
        assert "NEW_SERVICE_HOST" in await hosts(services)
        assert len(server.requests) == 2


async def test_a_service_of_ones_own_called_kubernetes_comes_first() -> None:
    async with some_services(api_server=("api.example.org", 6443)) as (server, services):
        server.put("services", a_service("kubernetes", "ns", "10.9.9.9", {"port": 1}))
        assert (await hosts(services))["KUBERNETES_SERVICE_HOST"] == "10.9.9.9"


@pytest.mark.parametrize("namespace", ["ns", "default"])
async def test_the_configured_address_of_the_api_server_wins(namespace: str) -> None:
    async with some_services(api_server=("api.example.org", 6443)) as (server, services):
        pod = {
            "metadata": {"name": "p", "namespace": namespace},
            "spec": {"enableServiceLinks": False},
        }
        found = dict(await services.variables(pod))
        assert not server.requests
        assert found["KUBERNETES_SERVICE_HOST"] == "api.example.org"
        assert found["KUBERNETES_SERVICE_PORT"] == "6443"
        assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == "6443"
        pod["spec"]["enableServiceLinks"] = True
        linked = dict(await services.variables(pod))
        assert linked["KUBERNETES_SERVICE_HOST"] == "api.example.org"


async def test_services_that_cannot_be_listed_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references_module, "SYNC", 0.1)
    async with some_services() as (server, services):
        server.fail("GET", "services", 403, status={"message": "no"}, times=1000)
        with pytest.raises(Unavailable, match="the Services could not be listed: no"):
            await hosts(services)
