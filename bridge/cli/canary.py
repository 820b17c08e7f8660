"""A canary: one pod that exits with a code of its own, to see that a backend really runs pods.

It goes the way of every run, by the same pod loop and provider, and is a run of its own as long as
it lives: whatever happens to this process, `podbridge delete` knows it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bridge.errors import BridgeError

if TYPE_CHECKING:
    from bridge.agent.provider import ProviderClient
    from bridge.cli.wiring import Target
    from bridge.config import BackendConfig
    from bridge.local.manifests import Objects
    from bridge.local.runs import Run
    from bridge.local.store import Change
    from bridge.pods import Manifest

CODE = 7
"""The exit code that it has to end with: no shell or runtime ends with that one by itself."""
IMAGE = "public.ecr.aws/docker/library/busybox:1.37"
"""An image with a shell, from a registry that asks for no login and counts no pulls."""
DEADLINE = 900
"""Seconds that it may take in all: clouds may take minutes to find a machine."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that has to go right."""

    name: str
    good: bool
    seconds: float
    words: str = ""


def objects(word: str, image: str = IMAGE) -> Objects:
    """The pod, which writes `word`."""
    from bridge.local.manifests import Raw, admit

    container = {
        "name": "main",
        "image": image,
        "command": ["/bin/sh", "-c", f"echo {word}; exit {CODE}"],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "canary"},
        "spec": {
            "containers": [container],
            "restartPolicy": "Never",
            "activeDeadlineSeconds": DEADLINE,
            "terminationGracePeriodSeconds": 1,
        },
    }
    return admit([Raw(pod, "canary")])


async def fly(target: Target, made: Objects, word: str, say: Callable[[str], None]) -> list[Step]:
    """Runs it on the one backend of `target`; what went right and what did not, in order. `say`
    hears what it waits for. Whatever happens, it is removed."""
    from bridge.cli.wiring import provider_of
    from bridge.local.runs import Runs

    (backend,) = target.backends
    name = f"canary-{backend.name[:40].rstrip('-')}-{secrets.token_hex(3)}"
    wanted = [loaded.obj for loaded in made]
    run = Runs().create(name, wanted, target.remember(), time.time())
    run.attend()
    steps: list[Step] = []
    try:
        async with provider_of(target) as provider:
            try:
                steps += await _run(run, provider, word, say)
            finally:
                began = time.monotonic()
                problem = await _delete(run, provider)
        problem = problem or await _left(run, backend)
        if problem:
            problem = f"{problem}; podbridge delete {run.name} goes on"
        else:
            run.remove()
        words = problem or "nothing is left of it"
        steps.append(Step("clean-up", not problem, time.monotonic() - began, words))
    finally:
        if target.simulated:
            # Its cloud ends with this command: there is nothing to come back to.
            run.remove()
        run.release()
    return steps


async def _run(
    run: Run, provider: ProviderClient, word: str, say: Callable[[str], None]
) -> list[Step]:
    from bridge.local.session import Session

    session = Session(run, provider)
    began = time.monotonic()
    telling = asyncio.create_task(tell_waits(session.store.changes(), say), name="waits")
    try:
        # Its own deadline ends it; this is for a backend that never says so.
        async with asyncio.timeout(2 * DEADLINE):
            await session.attend()
    except TimeoutError:
        return [Step("exit code", False, time.monotonic() - began, "the pod never ended")]
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    (pod,) = session.store.pods.values()
    ended = _judge(pod, time.monotonic() - began)
    return [ended, await _log(run, provider, pod, word)] if ended.good else [ended]


async def tell_waits(changes: AsyncIterator[Change], say: Callable[[str], None]) -> None:
    """Says what the pod waits for, each thing once; until cancelled."""
    said = {""}
    async for change in changes:
        words = waits(change.object) if change.kind == "Pod" else ""
        if words not in said:
            said.add(words)
            say(f"pod/{change.object['metadata']['name']} waits: {words}")


def waits(pod: Manifest) -> str:
    """What a pod waits for, in words; empty where it waits for nothing but its own start."""
    from bridge.cli.view.words import one_line, reason_words

    status = pod.get("status") or {}
    if status.get("phase") not in (None, "Pending"):
        return ""
    states = [one.get("state", {}) for one in status.get("containerStatuses") or ()]
    for why in (status, *(one["waiting"] for one in states if "waiting" in one)):
        reason, message = why.get("reason", ""), why.get("message", "")
        if message or reason not in ("", "ContainerCreating"):
            return ": ".join(filter(None, (reason_words(reason), one_line(message))))
    return ""


def _judge(pod: Manifest, seconds: float) -> Step:
    """Whether the pod ended as it should."""
    status = pod.get("status") or {}
    states = [one.get("state", {}) for one in status.get("containerStatuses") or ()]
    end: dict[str, Any] = next((one["terminated"] for one in states if "terminated" in one), {})
    if end.get("exitCode") == CODE:
        return Step("exit code", True, seconds, f"{CODE}, as it should be")
    reason = ": ".join(filter(None, (status.get("reason"), status.get("message"))))
    reason = reason or end.get("reason") or f"the pod is {status.get('phase', 'Pending')}"
    found = end.get("exitCode", "none")
    return Step("exit code", False, seconds, f"found {found}, wanted {CODE}: {reason}")


async def _log(run: Run, provider: ProviderClient, pod: Manifest, word: str) -> Step:
    """Whether the log has its only line."""
    from bridge.agent.request import identity
    from bridge.local.session import NODE
    from bridge.rpc.v1 import provider_pb2 as pb

    request = pb.GetContainerLogsRequest(
        pod=identity(run.wanted.uid, NODE, pod), container="main", follow=True
    )
    began, text = time.monotonic(), b""
    try:
        async with asyncio.timeout(DEADLINE), aclosing(_pieces(provider, request)) as pieces:
            async for piece in pieces:
                text += piece
        words = "its line is there" if text == f"{word}\n".encode() else f"found {text[:200]!r}"
    except TimeoutError:
        words = "it never came to an end"
    except BridgeError as error:
        words = error.message
    good = text == f"{word}\n".encode()
    return Step("log", good, time.monotonic() - began, words)


async def _pieces(provider: ProviderClient, request: Any) -> AsyncGenerator[bytes, None]:
    async for piece in provider.get_container_logs(request):
        yield piece.content


async def _delete(run: Run, provider: ProviderClient) -> str:
    """Deletes it; why that is not confirmed, empty where it is."""
    from bridge.local.session import Session

    run.order_deletion()
    try:
        async with asyncio.timeout(DEADLINE):
            await Session(run, provider).attend()
    except TimeoutError:
        return "the backend did not confirm its deletion"
    except BridgeError as error:
        return error.message
    return ""


async def _left(run: Run, backend: BackendConfig) -> str:
    """What the backend still has of it, asked anew."""
    from bridge.provider.registry import make

    adapter = make(backend)
    try:
        await adapter.open()
        try:
            found = [one for one in await adapter.list() if one.identity.cluster == run.wanted.uid]
        finally:
            await adapter.close()
    except BridgeError as error:
        return error.message
    return "the backend still lists it" if found else ""
