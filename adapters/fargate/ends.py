"""Keeps how tasks ended, for when ECS no longer knows: it forgets a stopped task after an hour."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace

from adapters.fargate import observe
from adapters.fargate.due import Due
from adapters.fargate.errors import Conflict
from adapters.fargate.names import Json, task_id
from adapters.fargate.options import Options
from adapters.fargate.pods import Pods
from adapters.fargate.poll import Poll
from adapters.fargate.store import Kept, Store
from bridge.errors import NotFound

_log = logging.getLogger(__name__)

_LATE = 90.0
"""Seconds after a start for which an event may still be hidden, since who read it was killed."""


class Ends:
    """What events have told of the ends of one backend's tasks."""

    def __init__(self, *, options: Options, pods: Pods, store: Store, due: Due, poll: Poll) -> None:
        self._waits_until = time.monotonic() + _LATE if options.queue_url else -math.inf
        self._pods = pods
        self._store = store
        self._due = due
        self._poll = poll
        self.recent: dict[str, Kept] = {}
        """Orders of which an event has told the end since the last look at all orders began."""

    async def heard(self, mark: str, nonce: str, detail: Json) -> None:
        """An event of a task that may be the pod's. That of its end is kept with the order before
        the event goes: ECS forgets the task, and nobody may be here for longer than it takes to."""
        pod = self._pods.get(mark)
        self._poll.heard(mark)
        if detail.get("lastStatus") != "STOPPED":
            return
        try:
            task = observe.from_event(detail)
        except ValueError as error:
            _log.warning("an event of pod %s makes no sense: %s", mark, error)
            return
        if observe.never_started(task) and pod is not None and pod.task is not None:
            # Another one takes its place.
            return
        kept = pod.kept if pod is not None and pod.task is not None else None
        kept = await self._keep_end(mark, nonce, detail, kept)
        if kept is None:
            return
        # It may have been found meanwhile, or its order may just have been read as it was before.
        self.recent[mark] = kept
        if (pod := self._pods.get(mark)) is not None:
            pod.kept = kept
            if pod.task is None or pod.missing:
                self._due.learn(pod, task)

    async def _keep_end(
        self, mark: str, nonce: str, detail: Json, kept: Kept | None
    ) -> Kept | None:
        """The order, with the end of its task. `kept`: as known here. None: it is gone, or the
        task is not what became of it."""
        while kept := kept or await self._store.read(mark):
            order, task = kept.order, task_id(str(detail.get("taskArn", "")))
            if order.nonce != nonce or task in order.dead:
                return None
            if order.end is not None:
                return kept
            try:
                return await self._store.change(kept, replace(order, end=observe.slim(detail)))
            except (Conflict, NotFound):
                # Another provider has changed it, or an answer of ours was lost.
                kept = None
        return None

    def gives_up(self) -> bool:
        """Whether no event can still tell of a task that nobody finds."""
        return time.monotonic() > self._waits_until
