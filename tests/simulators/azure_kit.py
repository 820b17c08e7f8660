"""The Azure simulator for tests: in a thread of its own, spoken to by Azure's SDK over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import websocket
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.mgmt.containerinstance import ContainerInstanceManagementClient
from azure.mgmt.containerinstance import models as m

from adapters.simulators.azure import Settings, Simulator

PATIENCE = 60.0
"""Seconds: far above what anything here takes."""
QUICK = 200.0
"""A time scale at which a group runs within a tenth of a second."""
PLACE = "eastus"
RG = "work"


class Cloud:
    """A simulator that runs."""

    def __init__(self, settings: Settings | None = None, scale: float = QUICK, **more: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator")
        self._thread.start()
        self._open: list[Any] = []
        try:
            self.simulator = self._call(self._make(settings, scale, more))
        except BaseException:
            self._end_loop()
            raise
        self.tls = ssl.create_default_context(cafile=self.simulator.certificates)

    async def _make(self, settings: Settings | None, scale: float, more: Any) -> Simulator:
        return await Simulator(settings, time_scale=scale, **more).__aenter__()

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def close(self) -> None:
        for one in self._open:
            one.close()
        self._call(self.simulator.__aexit__(None, None, None))
        self._call(self._loop.shutdown_default_executor())
        self._end_loop()

    def credential(self, **more: Any) -> ClientSecretCredential:
        """As the environment that the simulator tells makes it."""
        told = self.simulator.environment
        given = {
            "tenant_id": told["AZURE_TENANT_ID"],
            "client_id": told["AZURE_CLIENT_ID"],
            "client_secret": told["AZURE_CLIENT_SECRET"],
        }
        made = ClientSecretCredential(
            **(given | more),
            authority=self.simulator.endpoint,
            disable_instance_discovery=True,
            connection_verify=self.simulator.certificates,
            retry_total=0,
        )
        self._open.append(made)
        return made

    def client(self, credential: Any = None, **more: Any) -> ContainerInstanceManagementClient:
        """The SDK's client; it retries nothing, unless `retry_total` says so."""
        given = {"retry_total": 0, "polling_interval": 0.02}
        made = ContainerInstanceManagementClient(
            credential or self.credential(),
            self.simulator.environment["AZURE_SUBSCRIPTION_ID"],
            base_url=self.simulator.endpoint,
            connection_verify=self.simulator.certificates,
            **(given | more),
        )
        self._open.append(made)
        return made

    def http(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """A request without the SDK: status, JSON and headers of its answer."""
        data = None if body is None else json.dumps(body).encode()
        url = path if path.startswith("https:") else f"{self.simulator.endpoint}{path}"
        request = urllib.request.Request(url, data, dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE, context=self.tls) as answer:
                return answer.status, json.loads(answer.read() or b"null"), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null"), error.headers

    def arm(
        self, method: str, path: str, body: Any = None, version: str = "2023-05-01"
    ) -> tuple[int, Any, Mapping[str, str]]:
        """A request of the subscription's without the SDK, with a token."""
        place = f"/subscriptions/{self.simulator.environment['AZURE_SUBSCRIPTION_ID']}{path}"
        query = f"?api-version={version}" if version else ""
        return self.http(method, place + query, body, self.signed())

    def signed(self) -> dict[str, str]:
        """The header that says who calls."""
        token = self.credential().get_token("https://management.azure.com/.default").token
        return {"Authorization": f"Bearer {token}"}

    def control(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return self.http(method, f"/_podbridge/{path}", body)[:2]

    def fault(self, kind: str, **more: Any) -> str:
        status, answer = self.control("POST", "faults", {"kind": kind, **more})
        assert status == 201, answer
        return str(answer["id"])

    def ledger(self) -> Any:
        return self.control("GET", "ledger")[1]


@contextlib.contextmanager
def running(settings: Settings | None = None, scale: float = QUICK, **more: Any) -> Iterator[Cloud]:
    """A simulator; that it made no mistake of its own is asserted at the end."""
    cloud = Cloud(settings, scale, **more)
    try:
        yield cloud
        assert cloud.simulator.broken == []
    finally:
        cloud.close()


def until(true: Callable[[], Any]) -> Any:
    """What that gives, as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


def text(file: Path) -> str:
    """What is in it by now."""
    return file.read_text() if file.exists() else ""


@contextlib.contextmanager
def joined(uri: str, certificates: str, **more: Any) -> Iterator[websocket.WebSocket]:
    """A WebSocket by the library that the Azure CLI uses."""
    tls = {"ca_certs": certificates, "cert_reqs": ssl.CERT_REQUIRED}
    session = websocket.create_connection(uri, timeout=PATIENCE, sslopt=tls, **more)
    try:
        yield session
    finally:
        session.close()
        # Where the server has closed it first, that leaves the socket open.
        session.shutdown()


def container(*command: str, name: str = "main", **more: Any) -> m.Container:
    """A container that runs that command of this host."""
    wanted = m.ResourceRequests(cpu=more.pop("cpu", 1.0), memory_in_gb=more.pop("memory", 1.5))
    resources = m.ResourceRequirements(requests=wanted)
    return m.Container(
        name=name, image="example/image", command=list(command), resources=resources, **more
    )


def shell(script: str, name: str = "main", **more: Any) -> m.Container:
    """A container that runs a shell script."""
    return container("sh", "-c", script, name=name, **more)


def group(*containers: m.Container, policy: str = "Never", **more: Any) -> m.ContainerGroup:
    """A group of them."""
    given = {"location": PLACE, "os_type": "Linux", "restart_policy": policy}
    return m.ContainerGroup(containers=list(containers), **(given | more))


class Aci:
    """What most tests do with container groups."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.client = cloud.client()
        self.groups = self.client.container_groups
        self.containers = self.client.containers
        self.usage = self.client.location.list_usage

    def begin(self, given: m.ContainerGroup, name: str = "one") -> Any:
        """Its poller."""
        return self.groups.begin_create_or_update(RG, name, given)

    def put(self, given: m.ContainerGroup, name: str = "one") -> m.ContainerGroup:
        """The group, once it is deployed."""
        return self.begin(given, name).result(PATIENCE)

    def get(self, name: str = "one") -> m.ContainerGroup:
        return self.groups.get(RG, name)

    def when(self, state: str, name: str = "one") -> m.ContainerGroup:
        """The group as soon as it has that state."""

        def has() -> m.ContainerGroup | None:
            found = self.get(name)
            return found if found.instance_view.state == state else None

        return until(has)

    def log(self, name: str = "one", main: str = "main", **more: Any) -> str:
        return self.containers.list_logs(RG, name, main, **more).content

    def refused(self, given: m.ContainerGroup, name: str = "one") -> tuple[int, str, str]:
        """With which status, code and text a PUT is refused."""
        return refusal(lambda: self.begin(given, name))


def refusal(call: Callable[[], Any]) -> tuple[int, str, str]:
    """With which status, code and text a call is refused."""
    with pytest.raises(HttpResponseError) as caught:
        call()
    found = caught.value
    assert found.error is not None, found
    return found.status_code, found.error.code, found.error.message
