"""What `podbridge backends --verify` and `--canary` ask of backends, and how the answers read."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.output import plain
from bridge.errors import BridgeError, Unavailable

if TYPE_CHECKING:
    from bridge.adapter import Finding
    from bridge.cli.canary import Step
    from bridge.cli.spending import Limits
    from bridge.config import BackendConfig

OPENING = 60.0
"""Seconds that a backend may take to say what it has."""


# Verification.


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of one backend."""

    backend: str
    findings: tuple[Finding, ...]
    simulated: bool = False

    @property
    def bad(self) -> bool:
        """Whether pods cannot run there."""
        return any(one.severity == "problem" for one in self.findings)


async def verify(backends: Sequence[BackendConfig]) -> list[Verified]:
    """What stands in the way of pods on each backend. Nothing is changed."""
    return list(await asyncio.gather(*(_verify(one) for one in backends)))


async def _verify(config: BackendConfig) -> Verified:
    from bridge.adapter import Finding, Severity, Verifies
    from bridge.provider.registry import make

    adapter = make(config)
    simulated = adapter.simulated or config.simulated
    try:
        if isinstance(adapter, Verifies):
            return Verified(config.name, tuple(await adapter.verify()), simulated)
        async with asyncio.timeout(OPENING):
            await adapter.open()
            try:
                await adapter.list()
            finally:
                await adapter.close()
        found = Finding(Severity.OK, "backend", "it opens and lists; there is no account to verify")
    except TimeoutError:
        words = f"no answer within {OPENING:g} seconds"
        found = Finding(Severity.PROBLEM, "backend", words)
    except BridgeError as error:
        found = Finding(Severity.PROBLEM, "backend", error.message)
    return Verified(config.name, (found,), simulated)


def tell_verified(verified: Sequence[Verified], output: str | None) -> int:
    """Prints it; the exit code: 3 where pods cannot run somewhere."""
    from bridge.cli.output import print_table, print_value

    code = 3 if any(one.bad for one in verified) else 0
    if output in ("json", "yaml"):
        print_value([_verified(one) for one in verified], output)
        return code
    rows = [
        [_row(one), each.severity.value, each.subject, each.message]
        for one in verified
        for each in one.findings
    ]
    print_table(["BACKEND", "FINDING", "ABOUT", "MESSAGE"], rows)
    for one in verified:
        for each in one.findings:
            if each.remedy:
                print(plain(f"\n{_row(one)}: {each.subject}: {each.message}. What mends it:"))
                print(plain("\n".join(f"  {line}" for line in each.remedy.splitlines())))
    return code


def _row(one: Verified | Flown) -> str:
    return f"{one.backend} (simulated)" if one.simulated else one.backend


def _verified(one: Verified) -> dict[str, Any]:
    return {
        "backend": one.backend,
        **({"simulated": True} if one.simulated else {}),
        "findings": [
            {
                "severity": each.severity.value,
                "about": each.subject,
                "message": each.message,
                **({"remedy": each.remedy} if each.remedy else {}),
            }
            for each in one.findings
        ],
    }


# Canaries.


@dataclass(frozen=True, slots=True)
class Canary:
    """What was asked of canaries."""

    image: str | None
    limits: Limits
    max_run: float
    """Seconds that any container may run."""


@dataclass(frozen=True, slots=True)
class Flown:
    """How a canary fared on one backend; `problem`: why none could be sent."""

    backend: str
    steps: tuple[Step, ...] = ()
    problem: str = ""
    simulated: bool = False

    @property
    def good(self) -> bool:
        """Whether all of it went right."""
        return bool(self.steps) and all(step.good for step in self.steps)


def send_canaries(
    backends: Sequence[BackendConfig], asked: Canary, output: str | None
) -> list[Flown]:
    """One canary to each backend, one after the other; what it costs is said before."""
    return [_send(one, asked, output) for one in backends]


def _send(backend: BackendConfig, asked: Canary, output: str | None) -> Flown:
    from bridge.cli.assess import assess_objects
    from bridge.cli.bill import bill, eligible_names
    from bridge.cli.canary import IMAGE, fly, objects
    from bridge.cli.interruption import until_interrupted
    from bridge.cli.launch import longest_run
    from bridge.cli.spending import settle
    from bridge.cli.wiring import Target
    from bridge.provider.registry import module

    if module(backend.type).Adapter.simulated:
        return Flown(backend.name, problem="nothing really runs there", simulated=True)
    word = f"canary-{secrets.token_hex(8)}"
    made = objects(word, asked.image or IMAGE)
    target = Target((backend,), None, longest_run(made, asked.max_run))
    try:
        verdicts = assess_objects(made, [backend])
        if problem := verdicts[0].problem:
            raise Unavailable(problem)
        most = bill(verdicts, target.max_run, eligible_names(verdicts, [backend]))
        # It says so on stderr, whatever the answer is to be.
        settle(most, asked.limits, output="text", quiet=False)

        def say(words: str) -> None:
            if output is None:
                click.echo(plain(f"{backend.name}: {words}"), err=True)

        say("a canary is on its way")
        steps: list[Step] = []

        async def work() -> int:
            steps.extend(await fly(target, made, word, say))
            return 0

        if code := asyncio.run(until_interrupted(work())):
            raise click.exceptions.Exit(code)
    except BridgeError as error:
        return Flown(backend.name, problem=error.message, simulated=backend.simulated)
    return Flown(backend.name, tuple(steps), simulated=backend.simulated)


def tell_canaries(flown: Sequence[Flown], output: str | None) -> int:
    """Prints it; the exit code: 1 where something went wrong, 3 where none could be sent."""
    from bridge.cli.output import print_table, print_value

    code = _code(flown)
    if output in ("json", "yaml"):
        print_value([_canary(one) for one in flown], output)
        return code
    rows = []
    for one in flown:
        if one.problem:
            rows.append([_row(one), "launch", "failed", "-", one.problem])
        for step in one.steps:
            result = "ok" if step.good else "failed"
            rows.append([_row(one), step.name, result, f"{step.seconds:.1f} s", step.words])
    print_table(["BACKEND", "STEP", "RESULT", "TOOK", "MESSAGE"], rows)
    return code


def _code(flown: Sequence[Flown]) -> int:
    if all(one.good for one in flown):
        return 0
    return 1 if any(one.steps for one in flown) else 3


def _canary(one: Flown) -> dict[str, Any]:
    return {
        "backend": one.backend,
        **({"simulated": True} if one.simulated else {}),
        "good": one.good,
        **({"problem": one.problem} if one.problem else {}),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "steps": [
            {
                "name": step.name,
                "good": step.good,
                "seconds": round(step.seconds, 3),
                "message": step.words,
            }
            for step in one.steps
        ],
    }


# One after the other.


def verify_and_send(backends: Sequence[BackendConfig], asked: Canary, output: str | None) -> int:
    """Verifies, then sends canaries where nothing stands in their way, and prints both; the exit
    code: 3 where pods cannot run somewhere, else as of `tell_canaries`."""
    from bridge.cli.output import print_value

    verified = asyncio.run(verify(backends))
    bad = {one.backend for one in verified if one.bad}
    free = [one for one in backends if one.name not in bad]
    if output in ("json", "yaml"):
        flown = send_canaries(free, asked, output)
        found = {
            "verified": [_verified(one) for one in verified],
            "canaries": [_canary(one) for one in flown],
        }
        print_value(found, output)
        return max(3 if bad else 0, _code(flown))
    code = tell_verified(verified, output)
    if not free:
        return code
    print()
    return max(code, tell_canaries(send_canaries(free, asked, output), output))
