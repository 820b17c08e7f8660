"""A simulated AWS account whose tasks the engine runs, with the stand-ins in a registry there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tools.conformance import registry
from tools.conformance.containers import MORTAL, engine
from tools.conformance.images import REGISTRY, NotHere

_SCALE = 20
"""How many times faster AWS's own time goes: half a minute to RUNNING is 1.5 seconds."""
_VCPUS = 500
_START, _STOP = 60.0, 60.0
"""Seconds in which the simulator is there, and in which it has removed what it ran."""


@contextlib.contextmanager
def on_engine(folder: Path, images: Sequence[str]) -> Iterator[Mapping[str, object]]:
    """The options of a `fargate` backend. `images`: the stand-ins' names. NotHere."""
    scenario = folder / "scenario.yaml"
    scenario.write_text(json.dumps({"fargate_vcpus": _VCPUS, "fargate_spot_vcpus": _VCPUS}))
    words = ["--run-on", "engine", "--time-scale", str(_SCALE), "--scenario", str(scenario)]
    command = [*MORTAL, sys.executable, "-m", "podbridge", "simulate", "aws", *words, "-o", "json"]
    said, log = folder / "simulator.json", folder / "simulator.log"
    with said.open("wb") as out, log.open("wb") as wrong:
        process = subprocess.Popen(
            command,
            env={**os.environ, "DOCKER_HOST": engine.address()},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=wrong,
            start_new_session=True,
        )
    try:
        endpoint, environment = _told(process, said, log)
        with registry.serving(images, REGISTRY) as address:
            options = asyncio.run(_furnished(endpoint, environment))
            rewrite = {"rewrite": {f"{REGISTRY}/": f"{address}/"}}
            yield {**options, "images": rewrite, "helper_state": str(folder / "helper")}
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _furnished(endpoint: str, environment: Mapping[str, str]) -> Mapping[str, object]:
    from adapters.fargate import furnish  # noqa: PLC0415 - heavy

    return await furnish(endpoint, environment, "engine")


def _told(process: subprocess.Popen[bytes], said: Path, log: Path) -> tuple[str, Mapping[str, str]]:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(ValueError, KeyError):
            told = json.loads(said.read_text())
            return str(told["endpoint"]), told["environment"]
        time.sleep(0.1)
    raise NotHere(log.read_text(errors="replace").strip()[-2000:] or "the simulator says nothing")
