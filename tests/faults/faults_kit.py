"""What goes wrong at a cloud, and what must hold all the same: on every simulated cloud alike.

A cloud gives a `Sky`: where it is, how its backend is configured, what can be made to go wrong
there, and what is left of pods. The pods are one Job's, attended as `podbridge run` attends it; the
one that attends it, its provider with it, is killed at any call and comes back from what is on
disk and in the cloud. Each pod has a variable from a Secret and a login for its image's registry;
those with files, which the helper brings on most clouds, also have a volume from a Secret.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from bridge.cli.wiring import make_provider
from bridge.config import BackendConfig
from bridge.local.manifests import load
from bridge.local.runs import Run, Runs
from bridge.local.session import Session
from bridge.pods import Manifest

PATIENCE = 120.0
"""Seconds: far above what anything here takes alone."""
PODS = 5
IMAGE = "registry.example/team/app:1"
WORD = "hunter2"
"""What only the pods may know: as a variable, and where they have files as one."""


class Trouble(StrEnum):
    """What can be made to go wrong, in the words of no cloud."""

    THROTTLED = "calls are refused for their number"
    LOST = "calls are done, and their answers lost"
    BROKEN = "calls are answered with an error of the server's"
    SLOW = "calls take longer"
    UNSEEN = "what was just made is not seen yet"
    FULL = "there is no capacity"
    STUCK = "what was launched never starts"
    REPEATED = "news of pods come twice"
    UNORDERED = "news come late and out of order"
    EXPIRED = "credentials are refused as expired"


class Sky(ABC):
    """One simulated cloud that runs. `path` is a folder of this machine's that pods can write."""

    path: Path

    @abstractmethod
    def backend(self) -> BackendConfig:
        """The backend, with short waits."""

    @abstractmethod
    def trouble(self, what: Trouble, chance: float, times: int | None = None) -> None:
        """Makes it go wrong from now on: with that chance, so many times at most."""

    @abstractmethod
    def calm(self) -> None:
        """Takes all trouble back."""

    @abstractmethod
    def calls(self, hear: Callable[[str], None]) -> None:
        """Has `hear` called with a call's name once the cloud has done it, before the answer."""

    @abstractmethod
    async def left(self) -> Sequence[str]:
        """All that costs or tells something of a pod, and should be gone with it."""

    @abstractmethod
    async def templates(self) -> int:
        """How many things the cloud keeps for pods that are alike, and that stay when they go."""

    @abstractmethod
    def launched(self) -> int:
        """How many launches the cloud has done."""

    @abstractmethod
    def skip(self, seconds: float) -> None:
        """So much of the cloud's time passes at once."""


@dataclass
class Attended:
    """A Job, and whoever attends it; some of them are killed."""

    sky: Sky
    run: Run
    lives: int = 0
    _tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    session: Session | None = None
    _doomed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        """Somebody attends it from now on, with a provider that knows nothing."""
        self.lives += 1
        provider = make_provider([self.sky.backend()], max_run=3600)
        known = Runs(self.sky.path / "state").find(self.run.name)
        assert known is not None
        known.new = self.lives == 1
        self.session = Session(known, provider)
        self._tasks = [
            asyncio.create_task(provider.run(), name="provider"),
            asyncio.create_task(self.session.attend(), name="session"),
        ]

    async def kill(self) -> None:
        """Both are gone, wherever they were."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.session = None

    async def over(self) -> None:
        """Returns once whoever attends it says that nothing is left to do."""
        assert self.session is not None
        async with asyncio.timeout(PATIENCE):
            waiting = asyncio.create_task(self.session.over.wait())
            await asyncio.wait([waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        assert self.session.over.is_set(), [one for one in self._tasks if one.done()]

    def doom(self, *calls: int) -> None:
        """Kills it once the cloud has done so many calls, and again after so many more."""
        left = list(calls)

        def count(_: str) -> None:
            if left:
                left[0] -= 1
                if left[0] <= 0:
                    left.pop(0)
                    self._doomed.set()

        self.sky.calls(count)

    async def revived(self) -> None:
        """`over`, whoever is killed on the way there: another one comes at once."""
        while True:
            over = asyncio.create_task(self.over())
            doom = asyncio.create_task(self._doomed.wait())
            await asyncio.wait([over, doom], return_when=asyncio.FIRST_COMPLETED)
            doom.cancel()
            if not self._doomed.is_set():
                return over.result()
            over.cancel()
            await asyncio.gather(over, return_exceptions=True)
            self._doomed.clear()
            await self.kill()
            self.begin()

    def pods(self) -> list[Manifest]:
        """The pods as they are shown."""
        assert self.session is not None
        return list(self.session.store.pods.values())

    async def delete(self) -> None:
        """All of it is to go: somebody comes for that."""
        await self.kill()
        self.run.order_deletion()
        self.begin()

    def ran(self) -> Counter[str]:
        """How often each pod has begun to run, by its index."""
        with contextlib.suppress(FileNotFoundError):
            return Counter((self.sky.path / "ran").read_text().split())
        return Counter()


def job(
    sky: Sky, pods: int = PODS, script: str = "", *, files: bool = False, **spec: Any
) -> Sequence[Manifest]:
    """An Indexed Job, and the Secrets that it needs. Each pod writes its index to a file, looks
    whether it has what it was given, does `script`, and exits with the index modulo 3. Pods that a
    cloud takes back are made again; those that fail are not. `files`: it has some."""
    # Where tasks are processes of this host, a volume is there in a namespace of the task's.
    (place := sky.path / "words").mkdir(exist_ok=True)
    looks = [f'[ "$WORD" = {WORD} ] || exit 99']
    looks += [f'[ "$(cat {place}/word)" = {WORD} ] || exit 98'] if files else []
    command = "; ".join(
        [
            "i=$JOB_COMPLETION_INDEX",
            f"echo $i >> {sky.path}/ran",
            *looks,
            script or ":",
            "exit $((i % 3))",
        ]
    )
    variable = {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "words", "key": "word"}}}
    container: dict[str, Any] = {
        "name": "main",
        "image": IMAGE,
        "command": ["/bin/sh", "-c", command],
        "env": [variable],
    }
    template: dict[str, Any] = {
        "restartPolicy": "Never",
        "containers": [container],
        "imagePullSecrets": [{"name": "registry"}],
    }
    if files:
        container["volumeMounts"] = [{"name": "words", "mountPath": str(place)}]
        template["volumes"] = [{"name": "words", "secret": {"secretName": "words"}}]
    ignored = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    made = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "work"},
        "spec": {
            "completionMode": "Indexed",
            "completions": pods,
            "parallelism": pods,
            "backoffLimitPerIndex": 0,
            "podFailurePolicy": {"rules": [ignored]},
            "template": {"spec": template},
            **spec,
        },
    }
    return [made, *_secrets()]


def _secrets() -> Sequence[Manifest]:
    """What pods are given, and the login for their image's registry."""
    login = {"auth": base64.b64encode(f"me:{WORD}".encode()).decode()}
    logins = json.dumps({"auths": {IMAGE.partition("/")[0]: login}})
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "type": kind,
            "stringData": {key: value},
        }
        for name, kind, key, value in (
            ("words", "Opaque", "word", WORD),
            ("registry", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", logins),
        )
    ]


@contextlib.asynccontextmanager
async def attended(sky: Sky, manifests: Sequence[Manifest]) -> AsyncIterator[Attended]:
    """The Job, attended. Afterwards nobody is at it."""
    file = sky.path / "job.yaml"
    file.write_text("\n---\n".join(map(json.dumps, manifests)))
    objects = [one.obj for one in load([str(file)])]
    run = Runs(sky.path / "state").create("work", objects, {}, time.time())
    made = Attended(sky, run)
    made.begin()
    try:
        yield made
    finally:
        await made.kill()


async def until(true: Callable[[], Any]) -> None:
    """Returns as soon as that is true."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.02)


def codes(pods: Sequence[Manifest]) -> dict[str, list[int]]:
    """The exit codes of pods that were not taken away, by index."""
    found: dict[str, list[int]] = {}
    for pod in pods:
        conditions = pod["status"].get("conditions", ())
        if any(one["type"] == "DisruptionTarget" for one in conditions):
            continue
        index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        for one in pod["status"].get("containerStatuses", ()):
            end = one["state"].get("terminated")
            found.setdefault(index, []).append(-1 if end is None else end["exitCode"])
    return found


def proven(work: Attended, pods: int = PODS) -> None:
    """Every pod has run once, and its code is its own."""
    assert work.ran() == Counter(map(str, range(pods)))
    assert codes(work.pods()) == {str(index): [index % 3] for index in range(pods)}


def storm(sky: Sky, dice: random.Random) -> list[Trouble]:
    """Some troubles together, by chance."""
    found = dice.sample([*Trouble], dice.randint(1, 3))
    for one in found:
        sky.trouble(one, dice.choice((0.1, 0.3, 0.6)), times=dice.randint(2, 12))
    return found
