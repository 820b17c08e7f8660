"""Liveness and readiness probes: exec and httpGet, with the model's defaults."""

from __future__ import annotations

import asyncio

import aiohttp

from adapters.simulators.azure.groups.records import Record, happen
from adapters.simulators.azure.groups.world import World
from adapters.simulators.common.web import Json
from bridge.workload import Identity

_DEFAULTS = {
    "initialDelaySeconds": 0,
    "periodSeconds": 10,
    "failureThreshold": 3,
    "successThreshold": 1,
    "timeoutSeconds": 1,
}


async def watch(one: Record, identity: Identity, world: World) -> None:
    """Asks a container's probes until it is cancelled. A liveness probe that fails too often kills
    the container; a readiness probe only leaves events."""
    async with asyncio.TaskGroup() as group:
        for kind in ("livenessProbe", "readinessProbe"):
            given = one.definition["properties"].get(kind)
            if given is not None:
                probe = {**_DEFAULTS, **given}
                group.create_task(
                    _ask(one, kind, probe, identity, world), name=f"{kind} {one.name}"
                )


async def _ask(one: Record, kind: str, probe: Json, identity: Identity, world: World) -> None:
    failed, word = 0, kind.removesuffix("Probe").capitalize()
    await world.clock.sleep(probe["initialDelaySeconds"])
    while True:
        if await _holds(one, probe, identity, world):
            failed = 0
        else:
            failed += 1
            now = world.clock.now()
            happen(one.events, "Unhealthy", f"{word} probe failed", now, "Warning")
            if kind == "livenessProbe" and failed >= probe["failureThreshold"]:
                words = f"Container {one.name} failed liveness probe, will be restarted"
                happen(one.events, "Killing", words, now)
                grace = world.clock.real(world.settings.timing.grace)
                await world.runner.kill(identity, one.name, grace)
                return
        await world.clock.sleep(probe["periodSeconds"])


async def _holds(one: Record, probe: Json, identity: Identity, world: World) -> bool:
    # What a container does takes its own time: so does its answer.
    try:
        async with asyncio.timeout(probe["timeoutSeconds"]):
            if "exec" in probe:
                command = probe["exec"].get("command", [])
                return await world.runner.succeeds(identity, one.name, command)
            return await _get(probe["httpGet"], world.runner.address(identity.uid) or "127.0.0.1")
    except (TimeoutError, aiohttp.ClientError, ValueError):
        return False


async def _get(given: Json, host: str) -> bool:
    url = f"{given.get('scheme', 'http')}://{host}:{given['port']}{given.get('path', '/')}"
    headers = {item["name"]: item.get("value", "") for item in given.get("httpHeaders", ())}
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers, ssl=False, allow_redirects=False) as answer,
    ):
        return 200 <= answer.status < 400
