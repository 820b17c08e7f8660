"""The node's Lease as a lock between replicas: what to ask the API server next, and who may act.

Pure: no clock, thread or network. Whoever drives this makes the call that `next` names, and hands
the answer to `answered`.

Why two never act at once:

- Every write carries the version it was decided on. A Lease that names us, of an incarnation (UID)
  that we claimed by such a write, has named nobody else since.
- A holder counts its 15 s from *before* it sent the write that succeeded; the other one counts its
  25 s from *after* it saw the Lease change last. Both look at their own clocks only: what the two
  clocks say does not matter, only that both run on. The 10 s between are room for their rates, and
  for a holder's last call.
- A Lease that is missing proves nothing: it may have been deleted under a holder. Its holder makes
  it anew. Another replica waits until that one would have, makes it, and acts only when whoever
  held the old one has stopped. Only where the Node does not exist either did nobody ever hold it.

What remains: a Lease and its Node deleted by hand within the 15 s in which their holder cannot
reach the API server, and a replica that starts just then; a Lease deleted by hand within seconds of
being made for the first time, beside a replica that starts just then.

Every write moves renewTime on, whatever our clock says: the node lifecycle controller counts a
heartbeat only where that time grew. It does not care who the holder is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from bridge.errors import BridgeError, NotFound
from bridge.kubelet.client import Conflict, escaped
from bridge.pods import Manifest

NAMESPACE = "kube-node-lease"
DURATION = 40
"""leaseDurationSeconds, as the kubelet has it: the node lifecycle controller's grace."""
RENEW = 10.0
"""Seconds between two renewals."""
ACT = 15.0
"""Seconds after the last renewal (as it was sent) at which a holder stops acting."""
TAKE = 25.0
"""Seconds without a change after which another replica takes the Lease: within the 40 s in which
the node is still well."""
POLL = 2.0
"""Seconds between two looks of a replica that waits: a Lease that was handed over is found then."""
RETRY = 2.0
"""Seconds after a call that failed."""
FRESH = 5.0
"""Seconds for which it counts that there was neither a Lease nor a Node."""
_STEP = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Call:
    """One call to make."""

    kind: Literal["look", "node", "create", "renew", "take", "release"]
    method: str
    path: str
    body: Manifest | None
    sent: float
    """When it was asked for, by the clock that `next` was given."""


class LeaseLock:
    """One replica's view of one Lease. Times are seconds of a clock of ours that never stops; only
    what is written into the Lease is the time of day."""

    def __init__(self, node: str, identity: str, *, returning: bool = False) -> None:
        """`identity` is this replica's name. `returning`: whoever had it before is known to be
        dead, so that a Lease which names it is ours at once; else it must be a new one."""
        self.node, self.identity = node, identity
        self.owner = ""
        """The Node's UID; empty: not known yet."""
        self.until = float("-inf")
        """When we stop acting, unless we renew."""
        self.act_from = float("inf")
        """When we may start."""
        self.releasing = False
        self.released = False
        """Whether that is done, or there was nothing to hand over."""
        self._returning = returning
        self._lease: Manifest | None = None
        self._known = False
        self._look = True
        self._seen = float("-inf")
        self._due = float("-inf")
        self._claimed = ""
        self._fresh: bool | None = None
        """Of a Lease that is missing: whether nobody ever had it; None: not asked yet."""
        self._looked_at = float("-inf")

    def holds(self, now: float) -> bool:
        """Whether we may act."""
        return not self.releasing and self.act_from <= now < self.until

    @property
    def holder(self) -> str:
        """Who has it, as far as we have seen; empty: nobody."""
        return str(((self._lease or {}).get("spec") or {}).get("holderIdentity") or "")

    def release(self, now: float) -> None:
        """From now on the Lease is handed over instead of renewed. Whatever acts has stopped."""
        self.releasing, self._due = True, now

    # What to do.

    def next(self, now: float, today: datetime) -> Call | float:
        """The call to make now, or the time until which there is none. `today` is the time of day
        (UTC), for what is written."""
        if self.releasing and (self.holder != self.identity or not self._is_claimed()):
            self.released = True
        if self.released:
            return float("inf")
        if now < self._due:
            return self._due
        if self._look:
            return self._call("look", "GET", now)
        if self._lease is None:
            return self._next_missing(now, today)
        if self.releasing:
            return self._call("release", "PUT", now, self._body(now, today, holder=None))
        if self.holder == self.identity and self._is_claimed():
            return self._call("renew", "PUT", now, self._body(now, today, holder=self.identity))
        if not self.holder or now >= self._seen + TAKE:
            return self._call("take", "PUT", now, self._body(now, today, holder=self.identity))
        self._look, self._due = True, min(now + POLL, self._seen + TAKE)
        return self._due

    def _next_missing(self, now: float, today: datetime) -> Call | float:
        if not self.holds(now):
            if self._fresh and now > self._looked_at + FRESH:
                # Somebody may have come and gone since.
                self._look, self._fresh = True, None
                return self._call("look", "GET", now)
            if self._fresh is None:
                return Call("node", "GET", f"/api/v1/nodes/{escaped(self.node)}", None, now)
            if not self._fresh and now < self._seen + ACT:
                # Its holder would have made it anew by then.
                self._look, self._due, self._fresh = True, min(now + POLL, self._seen + ACT), None
                return self._due
        return self._call("create", "POST", now, self._body(now, today, holder=self.identity))

    def _call(
        self,
        kind: Literal["look", "create", "renew", "take", "release"],
        method: str,
        now: float,
        body: Manifest | None = None,
    ) -> Call:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
        if method != "POST":
            path = f"{path}/{escaped(self.node)}"
        return Call(kind, method, path, body, now)

    def _body(self, now: float, today: datetime, *, holder: str | None) -> Manifest:
        old = self._lease or {}
        metadata: Manifest = dict(old.get("metadata") or {"name": self.node})
        metadata.setdefault("namespace", NAMESPACE)
        if self.owner:
            # With the Node goes its Lease.
            owner = {"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": self.owner}
            metadata["ownerReferences"] = [owner]
        spec: Manifest = dict(old.get("spec") or {})
        renewed = _after(today, spec.get("renewTime"))
        spec |= {"leaseDurationSeconds": DURATION, "renewTime": renewed}
        if holder is None:
            spec.pop("holderIdentity", None)
        elif holder != self.holder:
            spec["acquireTime"] = renewed
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + bool(old)
        if holder is not None:
            spec["holderIdentity"] = holder
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": spec,
        }

    # What came of it.

    def answered(self, call: Call, now: float, answer: Manifest | BridgeError) -> None:
        """`call` was answered at `now`: with an object, or with an error of `bridge.errors`."""
        handle: Callable[[Call, float, Manifest | BridgeError], None] = {
            "look": self._looked,
            "node": self._asked_node,
        }.get(call.kind, self._wrote)
        handle(call, now, answer)

    def _looked(self, call: Call, now: float, answer: Manifest | BridgeError) -> None:
        if isinstance(answer, NotFound):
            self._observe(None, now)
        elif isinstance(answer, BridgeError):
            self._due = now + RETRY
            return
        else:
            self._observe(answer, now)
        self._look, self._due, self._looked_at = False, now, call.sent

    def _asked_node(self, _call: Call, now: float, answer: Manifest | BridgeError) -> None:
        if isinstance(answer, BridgeError) and not isinstance(answer, NotFound):
            self._due = now + RETRY
            return
        self._fresh = isinstance(answer, NotFound)

    def _wrote(self, call: Call, now: float, answer: Manifest | BridgeError) -> None:
        if call.kind == "create" and isinstance(answer, BridgeError):
            # Whether nobody ever had it was true a moment ago only.
            self._fresh, self._look = None, True
            self._due = now if isinstance(answer, Conflict) else now + RETRY
        elif isinstance(answer, (NotFound, Conflict)):
            # Not as we thought: look anew at once.
            self._look, self._due = True, now
        elif isinstance(answer, BridgeError):
            # It may have happened: the next try conflicts then, and we look. A take that may have
            # happened was decided on a version, and only that one could give way to it.
            if call.kind == "take":
                self._claimed = _uid(self._lease)
                self._start_from(now)
            self._due = now + RETRY
        else:
            self._done(call, now, answer)

    def _done(self, call: Call, now: float, lease: Manifest) -> None:
        if call.kind == "release":
            self._observe(lease, now)
            self.until, self.released = float("-inf"), True
            return
        if call.kind == "create" and not self.holds(now):
            self._start_from(now if self._fresh else now + TAKE)
        elif call.kind == "take":
            self._start_from(now)
        self._claimed = _uid(lease)
        self._observe(lease, now)
        self.until = call.sent + ACT
        self._due = now if self.releasing else call.sent + RENEW

    def _start_from(self, moment: float) -> None:
        self.act_from, self.until = moment, float("-inf")

    def _observe(self, lease: Manifest | None, now: float) -> None:
        if not self._known or _version(lease) != _version(self._lease):
            self._seen = now
        first, self._known = not self._known, True
        was, self._lease = self._lease, lease
        if lease is None:
            if was is not None or first:
                self._fresh = None
            return
        if self.holder != self.identity:
            # Lost, if it was ours: whoever has it now may have waited long enough.
            self._claimed = ""
            self._start_from(float("inf"))
            self._fresh = None
        elif _uid(lease) != self._claimed:
            self._adopt(lease, now, first=first)

    def _adopt(self, lease: Manifest, now: float, *, first: bool) -> None:
        """The Lease names us, and we do not know that we made it so: the answer to our creating it
        was lost, or it is from before we started."""
        if first and self._returning:
            self._start_from(now)
        elif not self.holds(now):
            self._start_from(now if self._fresh else now + TAKE)
        self._claimed = _uid(lease)

    def _is_claimed(self) -> bool:
        return self._lease is not None and _uid(self._lease) == self._claimed


def _uid(lease: Manifest | None) -> str:
    return str(((lease or {}).get("metadata") or {}).get("uid") or "")


def _version(lease: Manifest | None) -> tuple[str, str]:
    return (_uid(lease), str(((lease or {}).get("metadata") or {}).get("resourceVersion") or ""))


def micro_time(moment: datetime) -> str:
    """As metav1.MicroTime."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _after(today: datetime, before: object) -> str:
    """Now, or as little as possible after `before`, where that lies ahead."""
    try:
        ahead = datetime.fromisoformat(str(before)) + _STEP if before else today
        return micro_time(max(today, ahead))
    except (ValueError, OverflowError, TypeError):
        # A time that somebody else wrote, and not as Kubernetes does.
        return micro_time(today)
