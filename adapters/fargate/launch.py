"""Launches pods: the order first, then the task; what is not known for sure is looked up.

A task is asked for with the token in the order. What AWS refuses was not done, and is asked for
with a new token. What nobody answered may have been done: it is looked for, and asked for again
with the same token, which gives the same task. A token whose time may be over is used no more.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from adapters.fargate import observe
from adapters.fargate.errors import Conflict, Inactive, meant
from adapters.fargate.names import Json, task_id
from adapters.fargate.order import Order, request, started_by
from adapters.fargate.pods import Pod, Pods
from adapters.fargate.store import Kept, Store
from adapters.fargate.tasks import Tasks
from bridge.errors import Ambiguous, BridgeError, OutOfCapacity, Unavailable
from bridge.groups.pods import Ending
from bridge.workload import Waiting

_SEEN = 60.0
"""Seconds after RunTask by which ListTasks is sure to have its task."""

Prepare = Callable[[Pod], Awaitable[Order]]
"""All that a pod needs in AWS before its task, and the order for that."""


class Launcher:
    """ECS as the `GroupCloud` of one backend's pods. `settings`: RunTask's arguments that are the
    same for all pods. `revived`: a task definition in the place of one that was deregistered.
    `clock`: AWS's."""

    def __init__(
        self,
        *,
        owner: str,
        pods: Pods,
        store: Store,
        tasks: Tasks,
        prepare: Prepare,
        settings: Callable[[Order], Json],
        revived: Callable[[str], Awaitable[str]],
        gives_up: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._owner = owner
        self._pods = pods
        self._store = store
        self._tasks = tasks
        self._prepare = prepare
        self._settings = settings
        self._revived = revived
        self._gives_up = gives_up
        self._clock = clock

    async def end(self, pod: Pod, why: Ending) -> None:
        """StopTask."""
        await self._tasks.stop(pod.arn, observe.REASONS[why])

    async def find_out(self, pod: Pod) -> None:
        """Whether a RunTask that nobody answered has launched a task."""
        if pod.kept is None or pod.task is not None or pod.lost_at is not None:
            return
        order = pod.kept.order
        if not await self._adopt(pod, order) and pod.unused != order.token:
            raise Unavailable("nobody knows yet whether its task was launched")

    async def launch(self, pod: Pod) -> bool:
        """Its order, then its task."""
        kept = pod.kept or await self._ordered(pod)
        if pod.never_started:
            # It may have been for want of an address there.
            following = kept.order.subnet + 1
            kept = await self._renew(pod, kept, subnet=following, dead=task_id(pod.arn))
            pod.task, pod.arn, pod.seen = None, "", False
        elif await self._adopt(pod, kept.order):
            return True
        if kept.order.is_lost(self._clock()):
            if await self._adopt_stopped(pod, kept.order):
                return True
            if not self._gives_up():
                raise Unavailable("its task is not found; its last event may still come")
            pod.lost_at = self._clock()
            return True
        for _ in kept.order.subnets:
            if pod.is_halted:
                break
            is_first = pod.unused == kept.order.token
            try:
                await self._ask(pod, kept.order)
                return True
            except (Ambiguous, Conflict):
                pod.doubted_at = self._clock()
                raise
            except BridgeError as error:
                if not is_first:
                    # This call came to nothing. The one before it may have launched a task.
                    raise
                # It was refused as a whole: no task can come of that token.
                pod.unused = kept.order.token
                here = kept.order.subnet
                if isinstance(error, OutOfCapacity):
                    # The next subnet may be in a zone that has room.
                    self._pods.waits(pod, Waiting(error.kind, error.message))
                    kept = await self._renew(pod, kept, subnet=here + 1)
                elif isinstance(error, Inactive):
                    other = await self._revived(kept.order.definition)
                    kept = await self._renew(pod, kept, subnet=here, definition=other)
                else:
                    await self._renew(pod, kept, subnet=here)
                    raise
        return False

    async def _ordered(self, pod: Pod) -> Kept:
        """The pod's order, made now or before, by us or another provider."""
        made = replace(await self._prepare(pod), nonce=secrets.token_hex(4))
        order = made.again(secrets.token_hex(16), self._clock())
        kept = await self._store.create(order)
        if kept is not None:
            pod.unused = order.token
        else:
            kept = await self._store.read(pod.mark)
            if kept is None:
                raise Unavailable("its order has come and gone")
            self._doubt(pod, kept, order)
        pod.kept = kept
        return kept

    async def _renew(
        self, pod: Pod, kept: Kept, *, subnet: int = 0, dead: str = "", definition: str = ""
    ) -> Kept:
        made = kept.order.again(
            secrets.token_hex(16), self._clock(), subnet=subnet, dead=dead, definition=definition
        )
        try:
            changed = await self._store.change(kept, made)
            pod.unused = made.token
        except Conflict:
            # Another provider was first: its order holds.
            found = await self._store.read(pod.mark)
            if found is None:
                raise Unavailable("its order is gone") from None
            changed = found
            self._doubt(pod, found, made)
        pod.kept = changed
        return changed

    def _doubt(self, pod: Pod, found: Kept, made: Order) -> None:
        """What is found in place of an order of ours is ours all the same where only the answer was
        lost: nobody else has its token."""
        if found.order.token == made.token:
            pod.unused = made.token
        else:
            pod.doubted_at = self._clock()

    async def _adopt(self, pod: Pod, order: Order) -> bool:
        """Whether the task of an earlier try, or of another provider, is there, or was. Where that
        is sure not to be so, the token is unused."""
        if pod.task is not None:
            return True
        if order.end is not None:
            pod.learn(observe.from_event(order.end))
            return True
        if pod.unused == order.token:
            return False
        who = started_by(order, self._owner)
        arns = [one for one in await self._tasks.started_by(who) if task_id(one) not in order.dead]
        for task in (await self._tasks.describe(arns)).values():
            pod.learn(task)
            pod.seen = True
            return True
        if self._clock() < max(pod.doubted_at, order.asked_at) + _SEEN:
            return False
        if await self._adopt_stopped(pod, order):
            return True
        pod.unused = order.token
        return False

    async def _adopt_stopped(self, pod: Pod, order: Order) -> bool:
        """Whether its task ran and has stopped: ListTasks by `startedBy` leaves such ones out."""
        return await self._adopt_of(pod, order, sorted(await self._tasks.all()))

    async def _adopt_of(self, pod: Pod, order: Order, arns: Sequence[str]) -> bool:
        """Whether one of these is its task."""
        who = started_by(order, self._owner)
        for arn, task in (await self._tasks.describe(arns)).items():
            if task.get("startedBy") == who and task_id(arn) not in order.dead:
                pod.learn(task)
                pod.seen = True
                return True
        return False

    async def _ask(self, pod: Pod, order: Order) -> None:
        """RunTask, or the task of the same token that was asked for in other words. OutOfCapacity
        names the subnet."""
        subnet = order.subnets[order.subnet % len(order.subnets)]
        pod.unused = ""
        try:
            answer = await self._tasks.run(request(order, self._owner, self._settings(order)))
        except OutOfCapacity as error:
            raise OutOfCapacity(f"{subnet}: {error.message}") from None
        except Conflict as error:
            # The backend was configured otherwise when it was asked for.
            if await self._adopt_of(pod, order, error.of):
                return
            raise
        for one in answer.get("failures") or ():
            said = "; ".join(str(one[key]) for key in ("reason", "detail") if one.get(key))
            raise (meant(said) or OutOfCapacity)(f"{subnet}: {said}")
        for task in answer["tasks"]:
            pod.learn(task)
            return
        raise Ambiguous("RunTask answers neither a task nor a failure")
