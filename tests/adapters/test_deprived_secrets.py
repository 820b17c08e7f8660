"""`engine` with `helper: always`: where a pod's secrets are not."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract import container, until, workload
from deprived_kit import DeprivedBench, helper, says_started  # noqa: F401 - a fixture
from engine_kit import engine_address, image  # noqa: F401 - a fixture
from support.channels import drained

from adapters.engine import deprived
from adapters.engine.client import part
from bridge.errors import BridgeError
from bridge.helper.payload import Settings
from bridge.helper.wrap import Process, wrap
from bridge.workload import EnvVar, File, Files, Identity, Mount, Workload

pytestmark = pytest.mark.slow

IN_ENV, IN_FILE = "sentinel-of-a-variable-4711", "sentinel-of-a-file-4712"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[DeprivedBench]:
    made = DeprivedBench(engine_address(), tmp_path)
    yield made
    await made.close()


async def test_a_secret_is_nowhere_but_in_the_payload_and_where_the_pod_wants_it(
    bench: DeprivedBench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("DEBUG")
    secrets = Secrets()
    monkeypatch.setattr(deprived, "wrap", secrets.wrap)
    adapter = await bench.adapter()
    one = replace(
        container("sleep", "1000", mounts=[Mount("secret", "/secret")]),
        env=(EnvVar("TOKEN", IN_ENV, secret=True),),
    )
    volume = Files("secret", (File("token", IN_FILE.encode(), 0o400, secret=True),), "1")
    pod = workload(one, volumes=[volume])
    await bench.launch(adapter, pod)
    said = [repr(await until(adapter, pod.identity, says_started))]
    assert await _runs(adapter, pod.identity, 'test "$TOKEN" = "$1"', IN_ENV) == 0
    assert await _runs(adapter, pod.identity, 'test "$(cat /secret/token)" = "$1"', IN_FILE) == 0
    with pytest.raises(BridgeError) as caught:
        await adapter.exec(pod.identity, "main", ["/none"], stdin=False, tty=False)
    said.append(str(caught.value))
    # The container sees what is in it, and not what the helper was given.
    shown = await _said(adapter, pod.identity, "cat /proc/*/environ /proc/*/cmdline 2>/dev/null")
    secrets.payloads_are_not_in("the processes", shown)
    async for place, words in _of_the_engine(bench, pod.identity):
        secrets.are_not_in(place, words)
    await adapter.stop(pod.identity, 30)
    said.append(repr(await until(adapter, pod.identity, lambda found: found.ended)))
    async for place, words in _of_the_engine(bench, pod.identity):
        secrets.are_not_in(place, words)
    for words in (*said, caplog.text):
        secrets.are_not_in("the provider", words)


class Secrets:
    """What must not be seen: the pod's own secrets, and what would give them away."""

    def __init__(self) -> None:
        self._plain = [IN_ENV, IN_FILE]
        self._payloads: list[str] = []

    def wrap(
        self, pod: Workload, processes: Mapping[str, Process], settings: Settings, own: str
    ) -> Workload:
        """`wrap`, whose payloads and key are secrets from then on."""
        made = wrap(pod, processes, settings, own)
        for one in made.containers:
            for each in one.env:
                # Each piece has its place and its number before what it holds.
                self._payloads.append(each.value.rpartition(".")[2][:80])
        key = settings.key
        self._payloads += [key.hex(), base64.b64encode(key).decode()]
        assert settings.tunnel is not None
        self._payloads += settings.tunnel.key.splitlines()[1:-1]
        assert len(self._payloads) >= 6
        assert all(len(one) >= 20 for one in self._payloads)
        return made

    def are_not_in(self, place: str, words: str) -> None:
        """Neither plainly nor as base64."""
        for sentinel in self._plain:
            for shape in (sentinel, base64.b64encode(sentinel.encode()).decode()[:-3]):
                assert shape not in words, place
        self.payloads_are_not_in(place, words)

    def payloads_are_not_in(self, place: str, words: str) -> None:
        """Nor the keys that they hold."""
        for one in self._payloads:
            assert one not in words, place


async def _runs(adapter: Any, who: Identity, script: str, *words: str) -> int:
    command = ["sh", "-c", script, "sh", *words]
    return (await drained(await adapter.exec(who, "main", command, stdin=False, tty=False)))[2]


async def _said(adapter: Any, who: Identity, script: str) -> str:
    command = ["sh", "-c", script]
    channel = await adapter.exec(who, "main", command, stdin=False, tty=False)
    return (await drained(channel))[0].decode(errors="replace")


async def _of_the_engine(bench: DeprivedBench, who: Identity) -> AsyncIterator[tuple[str, str]]:
    """All that the engine shows of a pod, but for the variables with the payload."""
    engine = await bench.engine()
    filters = {"label": [f"podbridge.io/owner={bench.owner}"]}
    yield "volumes", json.dumps(await engine.call("GET", "volumes", params={"filters": filters}))
    listed = await engine.call("GET", "containers/json", params={"all": True, "filters": filters})
    yield "the list", json.dumps(listed)
    for one in await bench.containers(who):
        found = await engine.call("GET", f"containers/{part(one)}/json")
        env = found["Config"].pop("Env") or []
        yield "variables", json.dumps([v for v in env if not v.startswith("PODBRIDGE_PAYLOAD_")])
        # Podman has the command that made it as well, and it is the engine's own.
        yield "inspect", json.dumps(found)
        for place, content in _on_disk(found.get("Mounts") or ()):
            yield place, content
        if found["HostConfig"]["LogConfig"]["Type"] == "none":
            continue
        query = {"stdout": True, "stderr": True}
        async with engine.stream("GET", f"containers/{part(one)}/logs", params=query) as answer:
            yield "logs", (await answer.read()).decode(errors="replace")


def _on_disk(mounts: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Files of a pod's volumes that lie on a disk of this machine."""
    for mount in mounts:
        folder = Path(str(mount.get("Source") or "/none"))
        if not os.access(folder, os.R_OK | os.X_OK) or _file_system(folder) == "tmpfs":
            continue
        for path in folder.rglob("*"):
            if path.is_file() and path.stat().st_size < 1 << 20:
                yield str(path), path.read_bytes().decode(errors="replace")


def _file_system(folder: Path) -> str:
    done = subprocess.run(
        ["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
