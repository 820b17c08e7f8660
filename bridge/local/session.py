"""One run at work: the store, the Job controller and the pod loop, until all of it has ended."""

from __future__ import annotations

import asyncio
import copy
import time
import uuid
from collections.abc import Awaitable, Callable

from bridge.agent.loop import Agent, ProviderNote
from bridge.agent.provider import ProviderClient
from bridge.local.jobs.cronjobs import from_cronjob
from bridge.local.jobs.model import DELETED_FOR_ANNOTATION, Decision
from bridge.local.jobs.reconcile import reconcile
from bridge.local.jobs.views import finish_time
from bridge.local.outcome import Outcome, job_over, judge, owner, pod_over
from bridge.local.runs import Run
from bridge.local.store import Change, Store
from bridge.pods import Manifest
from bridge.pods.defaults import with_defaults
from bridge.times import rfc3339

NODE = "podbridge"
"""The name of the node that a run's pods are bound to."""
PAUSE_RATIO = 4
"""A Job is looked at again no sooner than this many times as long as the last look took: many pods
that change at once cost one look, and at most a fifth of a core."""


REPLAY_PATIENCE = 5.0
"""Seconds that a Job which is looked at again waits for the provider to tell of its pods."""
SETTLE = 0.03
"""Seconds without news after which nothing more is on its way within one process."""


class Session:
    """Attends one run. With `observe`, which returns once the provider has nothing to do, it only
    finds out how things stand, and changes nothing (its provider must be read-only too). A run that
    is not new may have had an earlier life, of which the backends tell: its Jobs are judged only by
    pods that they have told of."""

    def __init__(
        self,
        run: Run,
        provider: ProviderClient,
        *,
        clock: Callable[[], float] = time.time,
        note: Callable[[ProviderNote], None] = lambda _: None,
        observe: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.run = run
        self._clock = clock
        self._observe = observe
        self._replaying: set[str] = set()
        """Jobs whose pods of an earlier life are not all found again yet."""
        self._ended = run.ended()
        wanted = run.wanted
        self.store = Store(
            wanted.uid,
            NODE,
            [one for one in wanted.objects if one["kind"] in ("ConfigMap", "Secret")],
            clock=clock,
            on_ended=(lambda _: None) if observe else run.record_ended,
        )
        self._agent = Agent(self.store, provider, clock=clock, note=note)
        self._jobs_changed = asyncio.Event()
        self._moved = asyncio.Event()
        """Something has changed that may end the run."""
        self._dirty: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._deleting = run.deleting
        self.cut_short = self._deleting and run.end() is None
        """Its deletion was ordered before it was over."""
        self.deleted = False
        """The backends have confirmed that nothing of it is left: it may be forgotten."""
        self.over = asyncio.Event()
        """Set once nothing of the run is left to do."""

    async def attend(self) -> Outcome:
        """Runs until everything has ended, or, once deletion was ordered, until nothing is left."""
        self._load()
        tasks = [
            asyncio.create_task(self._agent.run(), name="agent"),
            asyncio.create_task(self._control_jobs(), name="jobs"),
            asyncio.create_task(self._see_changes(), name="changes"),
        ]
        done = asyncio.create_task(self._until_over(), name="over")
        try:
            await asyncio.wait([*tasks, done], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    # None of them ends by itself: this raises what ended it.
                    task.result()
        finally:
            for task in (*tasks, done):
                task.cancel()
            await asyncio.gather(*tasks, done, return_exceptions=True)
            for timer in self._timers.values():
                timer.cancel()
        if not self._deleting:
            jobs, pods = self.store.jobs.values(), self.store.pods.values()
            known = {"Job": list(jobs), "Pod": list(pods), "Event": list(self.store.events)}
            self.run.record_end(known)
        self.over.set()
        return self.outcome()

    async def settled(self) -> None:
        """Returns once all that can be known without waiting is known, to whoever only looks."""
        while True:
            before = self.store.version
            await self._all_told()
            quiet = not self._dirty and not self._replaying
            if quiet and self.store.version == before:
                return

    async def _all_told(self) -> None:
        assert self._observe is not None
        for pause in (SETTLE, 0.0):
            await self._observe()
            await self._agent.settled()
            # News may be on its way between the two.
            await asyncio.sleep(pause)

    def outcome(self) -> Outcome:
        """How the run stands."""
        return judge(self.store.jobs.values(), self.store.pods.values())

    def delete(self, grace: float | None = None) -> None:
        """Orders the deletion of the whole run; again with a shorter grace to hurry it."""
        if not self._deleting:
            self._deleting = True
            self.cut_short = not self._is_over()
            self.run.order_deletion()
            self.store.tell_run({"name": self.run.name, "phase": "Deleting"})
        self.store.complete = True
        for uid in list(self.store.pods):
            self.store.order_deletion(uid, grace)
        self._moved.set()

    def _load(self) -> None:
        if self._deleting:
            # Nothing is wanted any more: whatever a backend still has is an orphan of this run.
            self.store.complete = True
            return
        wanted, run_is_new = self.run.wanted, self.run.new
        now = rfc3339(wanted.created)
        for loaded in wanted.objects:
            one = copy.deepcopy(loaded)
            if one["kind"] == "CronJob":
                one = with_defaults(from_cronjob(one, wanted.created))
            kind = one["kind"]
            if kind not in ("Pod", "Job"):
                continue
            metadata = one["metadata"]
            named = f"{kind}/{metadata.get('namespace', 'default')}/{metadata['name']}"
            metadata["uid"] = str(uuid.uuid5(uuid.UUID(wanted.uid), named))
            metadata.setdefault("creationTimestamp", now)
            if kind == "Job":
                if not one["spec"].get("suspend"):
                    one["status"] = {"startTime": now}
                if not run_is_new:
                    self._replaying.add(metadata["uid"])
                self.store.put_job(one)
                self._touch(metadata["uid"])
            else:
                self._add_pod(one)
        self._jobs_changed.set()

    def _add_pod(self, pod: Manifest) -> None:
        self.store.add_pod(pod, self._ended.get(pod["metadata"]["uid"]))

    async def _see_changes(self) -> None:
        async for change in self.store.changes():
            if change.kind == "Pod" and (name := owner(change.object)):
                self._pod_of_job_changed(change, name)
            self._moved.set()

    def _pod_of_job_changed(self, change: Change, name: str) -> None:
        for reference in change.object["metadata"]["ownerReferences"]:
            if reference["kind"] == "Job" and reference["name"] == name:
                self._touch(reference["uid"])

    def _touch(self, uid: str) -> None:
        self._dirty.add(uid)
        self._jobs_changed.set()

    async def _control_jobs(self) -> None:
        while True:
            await self._jobs_changed.wait()
            self._jobs_changed.clear()
            took = 0.0
            for uid in list(self._dirty):
                self._dirty.discard(uid)
                if uid in self.store.jobs and not self._deleting:
                    began = time.perf_counter()
                    created = self._decide(uid)
                    took += time.perf_counter() - began
                    if uid in self._replaying:
                        await self._replay(uid, created)
            self._moved.set()
            await asyncio.sleep(PAUSE_RATIO * took)

    async def _replay(self, uid: str, created: list[str]) -> None:
        """Waits until what was created just now is found as it stands, before the next decision:
        a pod that ended in an earlier life must not look as if it still ran."""
        if not created:
            self._replaying.discard(uid)
            return
        self._touch(uid)
        waits = [asyncio.create_task(self._agent.answered(created), name="answered")]
        if self._observe is not None:
            # A provider that has started anew knows no manifests, and an onlooker gives it none:
            # of some pods there is nothing to wait for.
            waits.append(asyncio.create_task(self._told_of(created), name="told"))
        patience = REPLAY_PATIENCE if self._observe is None else None
        try:
            await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _told_of(self, pods: list[str]) -> None:
        await self._agent.asked(pods)
        await self._all_told()

    def _decide(self, uid: str) -> list[str]:
        """Carries out what the Job controller decides; the UIDs of the pods that it created."""
        job = self.store.jobs[uid]
        pods = [
            pod
            for pod in (*self.store.removed.values(), *self.store.pods.values())
            if any(one["uid"] == uid for one in pod["metadata"].get("ownerReferences", ()))
        ]
        now = self._clock()
        decision = reconcile(job, pods, self._moment(uid, pods, now))
        if decision.status != job.get("status"):
            self.store.put_job({**job, "status": decision.status})
        for kind, reason, message in decision.events:
            self.store.record_event(job, kind, reason, message)
        return self._carry_out(uid, decision, now)

    def _moment(self, uid: str, pods: list[Manifest], now: float) -> float:
        """The moment of a decision. While an earlier life is replayed nothing is late before its
        pods are found again, and what was settled then was settled when its last pod had ended."""
        if uid not in self._replaying:
            return now
        if not pods:
            return self.run.wanted.created
        ends = [finish_time(pod) for pod in pods if pod_over(pod)]
        return min(now, max(ends) + 1) if any(ends) and len(ends) == len(pods) else now

    def _carry_out(self, uid: str, decision: Decision, now: float) -> list[str]:
        why = {DELETED_FOR_ANNOTATION: decision.delete_reason}
        for doomed in decision.delete:
            self.store.order_deletion(doomed, annotations=why)
        created = []
        for order in decision.create:
            pod = order.manifest["metadata"]["uid"]
            if order.not_before <= now and pod not in self.store.pods:
                self._add_pod(order.manifest)
                created.append(pod)
        if (timer := self._timers.pop(uid, None)) is not None:
            timer.cancel()
        if decision.wake_at is not None and self._observe is None:
            delay = max(0.0, decision.wake_at - now)
            self._timers[uid] = asyncio.get_running_loop().call_later(delay, self._touch, uid)
        # Those that had been deleted have nothing to tell.
        return [pod for pod in created if pod in self.store.pods]

    async def _until_over(self) -> None:
        while not self._deleting and not self._is_over():
            self._moved.clear()
            await self._moved.wait()
        if self._deleting:
            await self._agent.settled()
            await self._agent.emptied()
            self.deleted = True

    def _is_over(self) -> bool:
        if self._dirty or self._observe is not None or self._replaying:
            return False
        return self.outcome().over and all(
            job_over(job) or job["spec"].get("suspend") for job in self.store.jobs.values()
        )
