"""The Lease as a lock: single steps, and many runs of several replicas under faults."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import BridgeError, NotFound, Unauthorized, Unavailable
from bridge.kubelet.client import AlreadyExists, Conflict
from bridge.kubelet.lock import ACT, RENEW, TAKE, Call, LeaseLock

TODAY = datetime(2027, 1, 15, 8, tzinfo=UTC)


def copied(lease: dict[str, Any]) -> dict[str, Any]:
    return {key: dict(value) if isinstance(value, dict) else value for key, value in lease.items()}


class Server:
    """An API server with one Lease and perhaps the Node."""

    def __init__(self, node: bool = False) -> None:
        self.node = node
        self.lease: dict[str, Any] | None = None
        self._numbers = itertools.count(1)

    def do(self, call: Call) -> dict[str, Any] | BridgeError:
        if call.kind == "node":
            return {"metadata": {"name": "n"}} if self.node else NotFound("no node")
        if call.method == "POST":
            if self.lease is not None:
                return AlreadyExists("there is one")
            return self._store(call, f"uid-{next(self._numbers)}")
        if self.lease is None:
            return NotFound("no lease")
        if call.method == "PUT":
            wanted, there = (one["metadata"] for one in (call.body or {}, self.lease))
            if any(wanted[key] != there[key] for key in ("uid", "resourceVersion")):
                return Conflict("not that version")
            return self._store(call, there["uid"])
        return copied(self.lease)

    def _store(self, call: Call, uid: str) -> dict[str, Any]:
        lease = copied(call.body or {})
        lease["metadata"] |= {"uid": uid, "resourceVersion": str(next(self._numbers))}
        self.lease = lease
        return copied(lease)


def turn(lock: LeaseLock, server: Server, now: float, today: datetime = TODAY) -> list[str]:
    """Makes calls until there is nothing to do at `now`; their kinds."""
    kinds = []
    while isinstance(call := lock.next(now, today), Call):
        kinds.append(call.kind)
        lock.answered(call, now, server.do(call))
    return kinds


def held_by(other: str, server: Server, now: float = 0.0) -> LeaseLock:
    lock = LeaseLock("n", other)
    turn(lock, server, now)
    assert lock.holds(now)
    server.node = True
    return lock


def test_the_first_one_ever_acts_at_once() -> None:
    server, lock = Server(), LeaseLock("n", "n_a")
    assert turn(lock, server, 0.0) == ["look", "node", "create"]
    assert lock.holds(0.0)
    assert lock.holds(ACT - 0.001)
    assert not lock.holds(ACT)
    assert server.lease is not None
    assert server.lease["spec"] == {
        "holderIdentity": "n_a",
        "leaseDurationSeconds": 40,
        "renewTime": "2027-01-15T08:00:00.000000Z",
        "acquireTime": "2027-01-15T08:00:00.000000Z",
        "leaseTransitions": 0,
    }
    assert server.lease["metadata"]["name"] == "n"
    assert server.lease["metadata"]["namespace"] == "kube-node-lease"


def test_it_is_renewed_every_ten_seconds_and_belongs_to_the_node() -> None:
    server, lock = Server(), LeaseLock("n", "n_a")
    turn(lock, server, 0.0)
    lock.owner = "node-uid"
    assert lock.next(RENEW - 0.1, TODAY) == RENEW
    assert turn(lock, server, RENEW) == ["renew"]
    assert lock.holds(RENEW + ACT - 0.001)
    assert server.lease is not None
    assert server.lease["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "node-uid"}
    ]


def test_another_one_takes_it_after_25_seconds_without_a_change() -> None:
    server = Server()
    held_by("n_a", server)
    lock = LeaseLock("n", "n_b")
    assert turn(lock, server, 3.0) == ["look"]
    now = 3.0
    while now < 3.0 + TAKE:
        assert not lock.holds(now)
        assert set(turn(lock, server, now)) <= {"look"}
        now += 1.0
    assert "take" in turn(lock, server, 3.0 + TAKE)
    assert lock.holds(3.0 + TAKE)
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 1


def test_a_change_starts_the_25_seconds_anew() -> None:
    server = Server()
    first = held_by("n_a", server)
    lock = LeaseLock("n", "n_b")
    for now in range(3, 35):
        if now == 10:
            turn(first, server, 10.0)
        assert "take" not in turn(lock, server, float(now))
    assert lock.holder == "n_a"


def test_the_time_of_day_decides_nothing_and_renew_time_only_grows() -> None:
    server = Server()
    first = LeaseLock("n", "n_a")
    turn(first, server, 0.0, TODAY + timedelta(hours=5))
    server.node = True
    lock = LeaseLock("n", "n_b")
    turn(lock, server, 0.0, TODAY - timedelta(hours=5))
    assert not turn(lock, server, 1.0, TODAY - timedelta(hours=5))
    for now in (10.0, 20.0, TAKE):
        turn(lock, server, now, TODAY - timedelta(hours=5))
    assert lock.holds(TAKE)
    assert server.lease is not None
    assert server.lease["spec"]["renewTime"] == "2027-01-15T13:00:00.000001Z"


def test_who_cannot_renew_stops_and_goes_on_when_nobody_took_it() -> None:
    server = Server()
    lock = held_by("n_a", server)
    now = RENEW
    while now < 100.0:
        call = lock.next(now, TODAY)
        if isinstance(call, Call):
            lock.answered(call, now, Unavailable("away"))
            assert lock.holds(now) == (now < ACT)
        else:
            now = call
    assert turn(lock, server, now) == ["renew"]
    assert lock.holds(now)


def test_who_was_overtaken_stops_at_once() -> None:
    server = Server()
    lock = held_by("n_a", server)
    assert server.lease is not None
    server.lease["spec"]["holderIdentity"] = "n_b"
    server.lease["metadata"]["resourceVersion"] = "77"
    assert turn(lock, server, RENEW) == ["renew", "look"]
    assert not lock.holds(RENEW)
    assert lock.holder == "n_b"


def test_it_is_handed_over_at_once() -> None:
    server = Server()
    first = held_by("n_a", server)
    lock = LeaseLock("n", "n_b")
    turn(lock, server, 1.0)
    first.release(5.0)
    assert not first.holds(5.0)
    assert turn(first, server, 5.0) == ["release"]
    assert first.released
    assert server.lease is not None
    assert "holderIdentity" not in server.lease["spec"]
    assert turn(lock, server, 5.5) == ["look", "take"]
    assert lock.holds(5.5)


def test_who_holds_nothing_hands_nothing_over() -> None:
    server = Server()
    held_by("n_a", server)
    lock = LeaseLock("n", "n_b")
    turn(lock, server, 1.0)
    lock.release(2.0)
    assert turn(lock, server, 2.0) == []
    assert lock.released


def test_a_renewal_whose_answer_was_lost_is_ours_all_the_same() -> None:
    server = Server()
    lock = held_by("n_a", server)
    call = lock.next(RENEW, TODAY)
    assert isinstance(call, Call)
    server.do(call)
    lock.answered(call, RENEW + 1.0, Unavailable("lost"))
    assert turn(lock, server, RENEW + 3.0) == ["renew", "look", "renew"]
    assert lock.holds(RENEW + 4.0)


def test_a_take_whose_answer_was_lost_is_ours_all_the_same() -> None:
    server = Server()
    held_by("n_a", server)
    lock = LeaseLock("n", "n_b")
    turn(lock, server, 0.0)
    turn(lock, server, TAKE - 1.0)
    look = lock.next(TAKE, TODAY)
    assert isinstance(look, Call)
    lock.answered(look, TAKE, server.do(look))
    call = lock.next(TAKE, TODAY)
    assert isinstance(call, Call)
    assert call.kind == "take"
    server.do(call)
    lock.answered(call, TAKE, Unavailable("lost"))
    assert not lock.holds(TAKE)
    assert turn(lock, server, TAKE + 2.0) == ["take", "look", "renew"]
    assert lock.holds(TAKE + 2.0)


def test_a_lease_that_was_deleted_is_made_anew_by_its_holder() -> None:
    server = Server()
    lock = held_by("n_a", server)
    server.lease = None
    assert turn(lock, server, RENEW) == ["renew", "look", "create"]
    assert lock.holds(RENEW + ACT - 0.1)


def test_a_lease_that_was_deleted_proves_nothing_to_others() -> None:
    server = Server(node=True)
    lock = LeaseLock("n", "n_b")
    assert turn(lock, server, 0.0) == ["look", "node"]
    for now in range(1, int(ACT)):
        assert set(turn(lock, server, float(now))) <= {"look", "node"}
    assert turn(lock, server, ACT)[-1] == "create"
    now = ACT
    while now < ACT + TAKE:
        assert not lock.holds(now)
        now += 1.0
        turn(lock, server, now)
    assert lock.holds(ACT + TAKE)


def test_who_comes_back_has_its_own_lease_at_once() -> None:
    server = Server()
    held_by("n_a", server)
    again = LeaseLock("n", "n_a", returning=True)
    assert turn(again, server, 1.0) == ["look", "renew"]
    assert again.holds(1.0)
    stranger = LeaseLock("n", "n_a")
    turn(stranger, server, 1.0)
    assert not stranger.holds(1.0)


def test_that_nobody_ever_had_it_counts_for_a_moment_only() -> None:
    server, lock = Server(), LeaseLock("n", "n_b")
    look = lock.next(0.0, TODAY)
    assert isinstance(look, Call)
    lock.answered(look, 30.0, server.do(look))
    node = lock.next(30.0, TODAY)
    assert isinstance(node, Call)
    lock.answered(node, 31.0, server.do(node))
    server.node = True
    assert turn(lock, server, 31.0) == ["look", "node"]
    assert not lock.holds(31.0)


@pytest.mark.parametrize("error", [Unauthorized("no"), Unavailable("away"), BridgeError("odd")])
def test_errors_are_tried_again_after_a_while(error: BridgeError) -> None:
    lock = LeaseLock("n", "n_a")
    call = lock.next(0.0, TODAY)
    assert isinstance(call, Call)
    lock.answered(call, 1.0, error)
    assert lock.next(1.0, TODAY) == 3.0


def test_a_time_that_is_none_hinders_nobody() -> None:
    server = Server()
    lock = held_by("n_a", server)
    assert server.lease is not None
    server.lease["spec"]["renewTime"] = "yesterday"
    server.lease["metadata"]["resourceVersion"] = "99"
    assert turn(lock, server, RENEW) == ["renew", "look", "renew"]


# Several replicas, and everything that can go wrong between them and the API server.


@dataclass
class Replica:
    """A process with its own clock, which runs a little fast or slow."""

    lock: LeaseLock
    offset: float
    rate: float
    skew: timedelta
    asleep_until: float = 0.0
    cut_until: float = 0.0
    """Until then nothing of what it sends arrives, or no answer comes back."""
    cut: str = "lost"
    dead: bool = False
    calling: int = 0
    """Which of its calls it waits for; answers to older ones come too late."""

    def now(self, at: float) -> float:
        return self.offset + at * self.rate

    def holds(self, at: float) -> bool:
        return not self.dead and self.lock.holds(self.now(at))


@dataclass
class World:
    """True time. Things happen in its order; what happens is drawn."""

    draw: random.Random
    calm_after: float
    server: Server = field(default_factory=Server)
    replicas: list[Replica] = field(default_factory=list)
    at: float = 0.0
    settled: bool = False
    """Whether the Node has been there for a while."""
    _heap: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: Any = field(default_factory=itertools.count)
    names: Any = field(default_factory=itertools.count)

    def later(self, delay: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.at + delay, next(self._order), do))

    def start(self, identity: str | None = None) -> Replica:
        draw = self.draw
        lock = LeaseLock("n", identity or f"n_{next(self.names)}", returning=identity is not None)
        made = Replica(
            lock,
            offset=draw.uniform(-1e6, 1e6),
            rate=draw.uniform(0.9, 1.1),
            skew=timedelta(seconds=draw.uniform(-90000, 90000)),
        )
        self.replicas.append(made)
        self.later(0.0, lambda: self.step(made))
        return made

    def step(self, one: Replica) -> None:
        if one.dead or one.lock.released:
            return
        if self.at < one.asleep_until:
            self.later(one.asleep_until - self.at, lambda: self.step(one))
            return
        now = one.now(self.at)
        due = one.lock.next(now, TODAY + timedelta(seconds=self.at) + one.skew)
        if isinstance(due, float):
            if due != float("inf"):
                self.later(max(0.001, (due - now) / one.rate), lambda: self.step(one))
            return
        self.send(one, due)

    def send(self, one: Replica, call: Call) -> None:
        draw, calm = self.draw, self.at >= self.calm_after
        one.calling += 1
        serial = one.calling
        fate = "ok" if calm else draw.choice(["ok"] * 9 + ["refused", "lost", "answer lost"])
        if not calm and self.at < one.cut_until:
            fate = one.cut
        slow = 0.0 if calm else draw.choice([0.0] * 12 + [1.0, 5.0, 20.0, 60.0])
        commit = draw.uniform(0.001, 0.05) + draw.random() * slow
        answer = commit + draw.uniform(0.001, 0.05) + draw.random() * slow

        def back(what: dict[str, Any] | BridgeError) -> None:
            if one.calling != serial or one.dead:
                return
            if self.at < one.asleep_until:
                self.later(one.asleep_until - self.at, lambda: back(what))
                return
            one.calling += 1
            one.lock.answered(call, one.now(self.at), what)
            self.step(one)

        def commits() -> None:
            what = self.server.do(call)
            if fate == "ok":
                self.later(answer - commit, lambda: back(what))

        if fate == "refused":
            self.later(commit, lambda: back(Unavailable("503")))
            return
        if fate != "lost":
            self.later(commit, commits)
        # Most give up after a few seconds, some hang for as long as it takes.
        self.later(draw.choice([4.0] * 8 + [8.0, 8.0, 90.0]), lambda: back(Unavailable("timeout")))

    def trouble(self) -> None:
        """Something happens to a replica, or to the Lease."""
        if self.at >= self.calm_after:
            return
        draw = self.draw
        self.replicas = alive = [
            one for one in self.replicas if not one.dead and not one.lock.released
        ]
        one = draw.choice(alive) if alive else None
        what = draw.choice(
            ["kill", "kill", "sleep", "leave", "delete", "start", "touch", "nothing"]
        )
        if what == "delete" and self.settled:
            self.server.lease = None
        elif what == "touch" and self.server.lease is not None:
            self.server.lease["metadata"]["resourceVersion"] = f"touched-{self.at}"
        elif what == "start" and len(alive) < 4:
            self.start()
        elif one is not None and what == "cut":
            holders = [some for some in alive if some.holds(self.at)]
            one = draw.choice(holders or alive)
            one.cut_until = self.at + draw.uniform(5.0, 45.0)
            one.cut = draw.choice(["lost", "lost", "answer lost", "refused"])
        elif one is not None and what == "kill":
            one.dead = True
            identity = one.lock.identity if draw.random() < 0.5 else None
            self.later(draw.uniform(0.0, 20.0), lambda: self.start(identity) and None)
        elif one is not None and what == "sleep":
            one.asleep_until = self.at + draw.uniform(0.0, 90.0)
        elif one is not None and what == "leave" and not one.lock.releasing:
            one.lock.release(one.now(self.at))
            self.later(draw.uniform(0.0, 20.0), lambda: self.start() and None)
        # Not within the first moments: see what remains, in the module's own words.
        self.settled = self.server.node
        self.later(draw.uniform(0.0, 20.0), self.trouble)

    def run(self, until: float, check: Callable[[], None]) -> None:
        while self._heap and self._heap[0][0] <= until:
            when, _, do = heapq.heappop(self._heap)
            # Between two events only clocks go on; there a holder can only start or stop.
            for middle in (self.at + (when - self.at) * part for part in (0.25, 0.5, 0.75)):
                self.at = max(self.at, middle)
                check()
            self.at = when
            do()
            check()


def acting(world: World) -> list[str]:
    at = world.at
    return [one.lock.identity for one in world.replicas if one.holds(at)]


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(draw=st.randoms(use_true_random=False), count=st.integers(2, 3))
def test_never_two_act_at_once_and_in_the_end_one_does(draw: random.Random, count: int) -> None:
    world = World(random.Random(draw.getrandbits(64)), calm_after=400.0)
    for _ in range(count):
        world.later(world.draw.uniform(0.0, 5.0), lambda: world.start() and None)
    world.later(10.0, world.trouble)
    renewed: list[str] = []

    def check() -> None:
        now = acting(world)
        assert len(now) <= 1, f"at {world.at}: {now}"
        if now:
            # Whoever acts makes the Node, before anything else.
            world.server.node = True
        if world.server.lease is not None:
            renewed.append(world.server.lease["spec"]["renewTime"])

    world.run(400.0, check)
    world.start()
    world.run(620.0, check)
    assert len(acting(world)) == 1
    # While a Lease lives its renewTime only grows; one that was deleted starts anew.
    tail = renewed[-50:]
    assert tail == sorted(tail)
