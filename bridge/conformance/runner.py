"""Runs checks: several at once, each within its time, and none that leaves a pod behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bridge.conformance.kit import Kit
from bridge.conformance.model import (
    ABILITIES,
    RESTART,
    Broken,
    Check,
    Outcome,
    Result,
    Settings,
    Skipped,
)
from bridge.conformance.wire import Wire
from bridge.errors import BridgeError
from bridge.rpc.channel import Tls
from bridge.rpc.v1 import provider_pb2 as pb

OFFER = 5.0
"""Seconds that WatchNode may take to tell the abilities; without them no optional check runs."""
NOBODY = "00000000-0000-0000-0000-000000000000"
"""A cluster that has no pods."""


@dataclass(slots=True)
class Report:
    """What became of each check, in the register's order, and which pods may be left."""

    results: list[Result] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def of(self, outcome: Outcome) -> list[Result]:
        """Those with that outcome."""
        return [one for one in self.results if one.outcome is outcome]

    @property
    def failed(self) -> list[Result]:
        """Those that failed."""
        return self.of(Outcome.FAILED)


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of checks as they begin and end."""

    started: Callable[[Check], None] = lambda check: None
    ended: Callable[[Result], None] = lambda result: None


async def judge(
    address: str,
    chosen: Sequence[Check],
    settings: Settings,
    *,
    tls: Tls | None = None,
    listener: Listener | None = None,
    report: Report | None = None,
) -> Report:
    """Runs these checks against a provider. Unavailable where nobody answers at the address.

    `report` is filled as it goes on, for whoever interrupts it. What a check has made is removed
    also then.
    """
    report = Report() if report is None else report
    wire = Wire(address, tls)
    try:
        await wire.reach()
        judging = _Judging(wire, settings, listener or Listener(), report)
        await judging.ask_offer()
        try:
            await judging.together([one for one in chosen if one.needs != RESTART])
            for one in chosen:
                if one.needs == RESTART:
                    # Alone: nothing else survives a restart of the provider undisturbed.
                    await judging.together([one])
        finally:
            order = {one.id: at for at, one in enumerate(chosen)}
            report.results.sort(key=lambda one: order[one.check.id])
    finally:
        await wire.close()
    return report


class _Judging:
    """One judgement under way."""

    def __init__(self, wire: Wire, settings: Settings, listener: Listener, report: Report) -> None:
        self._wire = wire
        self._settings = settings
        self._listener = listener
        self._report = report
        self._slots = asyncio.Semaphore(settings.parallel)
        self._offer = pb.WatchNodeResponse()

    async def ask_offer(self) -> None:
        """Learns which abilities there are. That it is told at all is a check of its own."""
        request = pb.WatchNodeRequest(cluster=NOBODY, node="conformance")
        try:
            async with asyncio.timeout(min(OFFER, self._settings.timeout)):
                async for offer in self._wire.stream("WatchNode", request):
                    self._offer = offer
                    return
        except (TimeoutError, BridgeError):
            return

    async def together(self, chosen: Sequence[Check]) -> None:
        """Runs checks that do not disturb each other; returns when what they made is removed."""
        async with asyncio.TaskGroup() as tasks:
            for one in chosen:
                tasks.create_task(self._one(one), name=f"check {one.id}")

    async def _one(self, check: Check) -> None:
        if reason := self._cannot(check):
            self._tell(Result(check, Outcome.SKIPPED, 0.0, reason=reason))
            return
        kit = Kit(self._wire, self._settings, self._offer, check.needs)
        try:
            async with self._slots:
                self._listener.started(check)
                self._tell(await self._run(check, kit))
        finally:
            await self._clean(check, kit)

    async def _clean(self, check: Check, kit: Kit) -> None:
        """Removes what the check has made, also where it was interrupted meanwhile."""
        cleaning = asyncio.create_task(kit.close(), name=f"clean {check.id}")
        interrupted = False
        while not cleaning.done():
            try:
                await asyncio.shield(cleaning)
            except asyncio.CancelledError:
                interrupted = True
        self._report.left += [f"{check.id}: {one}" for one in cleaning.result()]
        if interrupted:
            raise asyncio.CancelledError

    async def _run(self, check: Check, kit: Kit) -> Result:
        began = time.monotonic()

        def result(outcome: Outcome, **words: str) -> Result:
            return Result(check, outcome, time.monotonic() - began, **words)

        try:
            async with asyncio.timeout(self._settings.timeout) as limit:
                await check.run(kit)
        except Skipped as skipped:
            return result(Outcome.SKIPPED, reason=str(skipped))
        except Broken as broken:
            return result(Outcome.FAILED, expected=broken.expected, seen=broken.seen)
        except BridgeError as error:
            seen = f"{error.kind}: {error.message}"
            return result(Outcome.FAILED, expected=kit.expected, seen=seen)
        except TimeoutError:
            if not limit.expired():
                raise
            expected = f"{kit.expected}, within {self._settings.timeout:g} s"
            return result(Outcome.FAILED, expected=expected, seen=kit.seen())
        except Exception as error:  # noqa: BLE001 - an answer that no check can make sense of
            seen = f"{type(error).__name__}: {error}"
            return result(Outcome.FAILED, expected=kit.expected, seen=seen)
        return result(Outcome.PASSED)

    def _cannot(self, check: Check) -> str:
        """Why this check cannot judge this provider; empty where it can."""
        if check.needs == RESTART:
            return "" if self._settings.restart else "no --restart-command was given"
        if check.needs not in ABILITIES:
            return ""
        if not self._offer.backends:
            return f"WatchNode tells no backend with the ability {check.needs}"
        lacking = [one.name for one in self._offer.backends if check.needs not in one.abilities]
        return f"no ability {check.needs}: {', '.join(lacking)}" if lacking else ""

    def _tell(self, result: Result) -> None:
        self._report.results.append(result)
        self._listener.ended(result)
