"""What an API server is asked first, and where it finds us."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import BridgeError, Invalid, NotFound, Unavailable
from bridge.kubelet.client import Forbidden
from bridge.kubelet.discovery import cluster_id, own_address, server_version

UID = "0c8b4c3e-2f4d-4a53-9d0c-5f1f3f1d2a4b"


class One:
    """An API that answers one thing."""

    def __init__(self, answer: dict[str, Any] | BridgeError) -> None:
        self.answer = answer

    async def get(self, path: str) -> dict[str, Any]:
        if isinstance(self.answer, BridgeError):
            raise self.answer
        return self.answer


async def test_the_cluster_is_its_kube_system() -> None:
    there = One({"metadata": {"uid": UID}})
    assert await cluster_id(there, None) == UID
    assert await cluster_id(One(NotFound("")), "configured") == "configured"


@pytest.mark.parametrize("answer", [Forbidden("may not"), NotFound("none"), {"metadata": {}}])
async def test_a_cluster_that_does_not_say_which_it_is(answer: Any) -> None:
    with pytest.raises(Invalid, match=r"cluster\.id: missing"):
        await cluster_id(One(answer), None)


async def test_a_cluster_that_is_away_is_no_mistake() -> None:
    with pytest.raises(Unavailable):
        await cluster_id(One(Unavailable("away")), None)


async def test_the_version() -> None:
    assert await server_version(One({"gitVersion": "v1.36.3"})) == "v1.36.3"
    with pytest.raises(Unavailable, match="is it one"):
        await server_version(One({"paths": []}))


def test_the_address_at_which_we_are_reached() -> None:
    assert own_address("https://api:6443", {"POD_IP": "10.1.2.3"}) == "10.1.2.3"
    assert own_address("https://127.0.0.1:6443", {}) == "127.0.0.1"
    with pytest.raises(Invalid, match="POD_IP"):
        own_address("https://127.0.0.1", {"POD_IP": "here"})
    with pytest.raises(Unavailable, match="no way to"):
        own_address("https://no-such-host.invalid", {})
