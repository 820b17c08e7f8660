"""Two replicas of a node's shim over one provider: one acts, the other takes over when it goes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import node_kit
import pytest
from control_plane_kit import ControlPlane, Namespace
from node_kit import Place, Running, condition, until

from bridge.kubelet.lock import POLL, TAKE
from bridge.times import parse_rfc3339

pytestmark = pytest.mark.slow

SLACK = 10.0
"""Seconds beyond what the Lease's rules say, on a machine with much else to do."""


@pytest.fixture
def place(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Place]:
    with node_kit.place(control_plane, tmp_path) as made:
        yield made


class Replicas:
    """Those of one node, each with a port and a state folder of its own."""

    def __init__(self, place: Place, provider: str, name: str) -> None:
        self._place, self._provider, self.name = place, provider, name
        self._configs: dict[str, Path] = {}
        self.ports: dict[str, int] = {}

    def start(self, which: str) -> Running:
        """Starts it; it has joined, and acts where no other one does."""
        if which not in self._configs:
            node = self._place.node_config(name=self.name)
            self.ports[which] = node["port"]
            state = self._place.folder / f"{self.name}-{which}"
            self._configs[which] = self._place.config(nodes=[node], backends=[], state=state)
        one = self._place.kubelet(self._provider, config=self._configs[which], ready=False)
        one.says("joining")
        return one

    def acting(self) -> str:
        """Whose port the Node tells of: the one that acts, or acted last."""
        port = self._place.node(self.name)["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        return next(name for name, own in self.ports.items() if own == port)

    def takes_over(self, which: str, limit: float, since: float) -> None:
        """Returns once this one acts and answers. AssertionError where it has the Lease later than
        so many seconds after `since`, by its own clock."""
        until(lambda: self.acting() == which, f"{which} acts")
        took = parse_rfc3339(self._place.lease(self.name)["spec"]["acquireTime"]) - since
        assert took < limit, f"{which} has the Lease after {took:.1f} s"
        self._place.serves(self.name)


class Watch(threading.Thread):
    """Sees each state of a node's Ready condition, from its first one until it is asked."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place, self._over = place, threading.Event()
        self.seen: set[str] = set()

    def run(self) -> None:
        with closing(self._place.plane.api()) as api:
            while not self._over.wait(0.1):
                node = api.get(self._place.path())
                self.seen.add(condition(node, "Ready").get("status", "none"))

    def states(self) -> set[str]:
        """All of them."""
        self._over.set()
        self.join(node_kit.PATIENCE)
        return self.seen


def test_replicas_take_over_and_no_pod_notices(place: Place, namespace: Namespace) -> None:
    provider, address = place.provider()
    replicas = Replicas(place, address, place.name)
    hanging = Replicas(place, address, f"{place.name}-hangs")
    c = hanging.start("c")
    begun = place.folder / "begun"
    script = "echo {name} >> " + str(begun) + "; echo {name}; sleep 1000"
    a = replicas.start("a")
    place.ready(process=a)
    place.serves()
    first = place.holder()
    place.pod(namespace, "p", script.format(name="p"))
    place.running(namespace, "p")
    b = replicas.start("b")
    place.ready(hanging.name, c)
    third = place.holder(hanging.name)
    hanging.start("d")
    ready = Watch(place)
    ready.start()
    try:
        # It waits: the Lease stays with the first, and only that one's port is told and open.
        assert (place.holder(), replicas.acting()) == (first, "a")
        assert b.ended == ""

        # Told to go, the holder hands over at once.
        a.process.send_signal(signal.SIGTERM)
        since = time.time()
        assert a.end() == 0
        replicas.takes_over("b", POLL + SLACK, since)
        second = place.acting(first)
        assert namespace.kubectl("logs", "p").out == "p\n"
        assert namespace.kubectl("exec", "p", "--", "echo", "still").out == "still\n"

        # Killed, it is waited for; a pod that comes meanwhile waits too, and runs once.
        a = replicas.start("a")
        assert place.holder() == second
        b.kill()
        # That one does not even notice: it is stopped, as on a machine that hangs.
        with c.paused():
            since = time.time()
            place.pod(namespace, "q", script.format(name="q"))
            replicas.takes_over("a", TAKE + SLACK, since)
            hanging.takes_over("d", TAKE + SLACK, since)
        place.running(namespace, "q")
        # It has kept its name in its state folder.
        assert place.holder() == first
        for name in ("p", "q"):
            assert namespace.kubectl("logs", name).out == f"{name}\n"
        # Awake again it knows that it holds no more, and waits as the other one did.
        place.pod(namespace, "r", script.format(name="r"), node=hanging.name)
        place.running(namespace, "r")
        assert namespace.kubectl("logs", "r").out == "r\n"
        assert place.holder(hanging.name) not in ("", third)
        assert (hanging.acting(), c.ended) == ("d", "")

        # The next release: each is replaced in its turn, and whoever looks first takes over.
        b = replicas.start("b")
        assert a.stop() == 0
        a = replicas.start("a")
        until(place.holder, "one of them has the Lease")
        place.serves()
    finally:
        states = ready.states()
    assert states == {"True"}
    assert begun.read_text().split() == ["p", "q", "r"]
    for name in ("p", "q", "r"):
        pod = place.running(namespace, name)
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    assert provider.ended == ""
