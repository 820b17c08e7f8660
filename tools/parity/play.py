"""Plays a case on one of the nodes and writes down all that the API server tells of it."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tools.control_plane.api import STRATEGIC, Api, ApiError
from tools.parity import conditions
from tools.parity.cases import Case, Object, Step, is_later, path, pinned
from tools.parity.facets import EVENTS_LATE
from tools.parity.images import SHORT
from tools.parity.recording import FOREVER, News, Recording

STEP = 240.0
"""Seconds that one step may take; most take two."""
QUIET, SETTLE = 2.5, 30.0
"""A case is over when nothing was told of it for so long (the kubelet looks at its containers once
a second), or after this."""
WATCHED = ("/api/v1/pods", "/apis/batch/v1/jobs", "/api/v1/events")
_LONG = 3600.0


@dataclass
class Ear:
    """Hears of every pod, Job and event in the cluster, and keeps it by namespace."""

    heard: dict[str, list[News]] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    stopped: bool = False

    def stop(self) -> None:
        """Whoever waits for something waits no longer."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def listen(self, api: Api) -> None:
        """Begins; ends with the API server."""
        for one in WATCHED:
            threading.Thread(target=self._watch, args=(api, one), daemon=True).start()

    def _watch(self, api: Api, where: str) -> None:
        # Its end is the API server's.
        with contextlib.suppress(OSError, ApiError, http.client.HTTPException, ValueError):
            for one in api.watch(where, timeout=_LONG):
                self._keep(one["type"], one["object"])

    def _keep(self, kind: str, found: Object) -> None:
        with self.changed:
            namespace = found.get("metadata", {}).get("namespace", "")
            self.heard.setdefault(namespace, []).append(News(time.monotonic(), kind, found))
            self.changed.notify_all()

    def of(self, namespace: str) -> list[News]:
        """All that was told of it up to now."""
        with self.changed:
            return [*self.heard.get(namespace, ())]

    def until(self, namespace: str, true: Callable[[Sequence[News]], bool], limit: float) -> bool:
        """Whether this came true of what was told, in time and before `stop`."""
        deadline = time.monotonic() + limit
        with self.changed:
            while not true(self.heard.get(namespace, ())):
                left = deadline - time.monotonic()
                if left <= 0 or self.stopped:
                    return False
                self.changed.wait(left)
        return True

    def quiet(self, namespace: str) -> None:
        """Returns once nothing is told of it any more, for a while."""
        deadline = time.monotonic() + SETTLE
        while time.monotonic() < deadline:
            known = len(self.of(namespace))
            if not self.until(namespace, lambda news, n=known: len(news) > n, QUIET):  # type: ignore[misc]
                return


@dataclass
class Stage:
    """One namespace on one node."""

    api: Api
    ear: Ear
    namespace: str
    node: str
    logs: dict[str, str] = field(default_factory=dict)
    cut: float = FOREVER

    def play(self, case: Case) -> Recording:
        """All steps. What does not come true in time is the recording's problem."""
        problem = ""
        self._open()
        for one in case.objects:
            if not is_later(one):
                self._create(one)
        for step in case.steps:
            try:
                done = self._do(case, step)
            except (ApiError, LookupError) as error:
                problem = f"{step}: {error}"
                break
            if not done:
                problem = f"not within {STEP:.0f} s: {step}"
                break
        if self.cut == FOREVER:
            self.ear.quiet(self.namespace)
        else:
            self.ear.until(self.namespace, lambda _: False, EVENTS_LATE)
        self._read_logs()
        news = self.ear.of(self.namespace)
        return Recording(case.name, news, dict(self.logs), self.cut, problem)

    def clear(self) -> None:
        """Removes everything, at once."""
        with contextlib.suppress(ApiError):
            for kind in ("Job", "Pod"):
                self.api.delete(path(kind, self.namespace), grace=0)
            self.api.delete(f"/api/v1/namespaces/{self.namespace}")

    def _open(self) -> None:
        self.api.ensure("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        for kind, name in (("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")):
            self.api.until(path(kind, self.namespace, name), bool, limit=STEP)

    def _create(self, one: Object) -> None:
        made = pinned(one, self.namespace, self.node, SHORT)
        self.api.post(path(one["kind"], self.namespace), made)

    def _do(self, case: Case, step: Step) -> bool:
        where = path(step.kind, self.namespace, step.name)
        body = step.body or {}
        match step.verb:
            case "until":
                return self.ear.until(self.namespace, lambda news: _hold(step, news), STEP)
            case "patch":
                self.api.patch(where, body)
            case "resize":
                self.api.patch(f"{where}/resize", body)
            case "ephemeral":
                image = SHORT.get(body.get("image", "busybox"), body.get("image"))
                one = {**body, "image": image}
                changed = {"spec": {"ephemeralContainers": [one]}}
                self.api.call("PATCH", f"{where}/ephemeralcontainers", changed, STRATEGIC)
            case "create":
                self._create(
                    next(
                        one
                        for one in case.objects
                        if (one["kind"], one["metadata"]["name"]) == (step.kind, step.name)
                    )
                )
            case "delete":
                self._read_logs()
                options: Object = {"propagationPolicy": "Background"}
                if step.words:
                    options["gracePeriodSeconds"] = int(step.words[0])
                self.api.call("DELETE", where, options)
            case "evict":
                meta = {"name": step.name, "namespace": self.namespace}
                asked = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
                self.api.post(f"{where}/eviction", asked)
            case "cut":
                self.cut = time.monotonic()
        return True

    def _read_logs(self) -> None:
        """Of all containers that have been started, also of their run before. What was read once
        stays where it cannot be read any more."""
        for pod in latest(self.ear.of(self.namespace), "Pod").values():
            meta, status = pod["metadata"], pod.get("status") or {}
            for name, run in _started(status):
                where = path("Pod", self.namespace, meta["name"])
                for previous in (False, True) if run else (False,):
                    query = urlencode({"container": name, "previous": str(previous).lower()})
                    code, said = self.api.request("GET", f"{where}/log?{query}")
                    key = f"{meta['name']}/{name}{' before' if previous else ''}"
                    text = said.decode(errors="replace")
                    if code == 200:
                        self.logs[key] = text
                    else:
                        self.logs.setdefault(key, f"<{code}>")


def latest(news: Sequence[News], kind: str) -> dict[str, Object]:
    """What was last told of each object of a kind that is there, by name."""
    found: dict[str, Object] = {}
    for one in news:
        if one.kind == kind:
            found[one.name] = one.object
            if one.type == "DELETED":
                del found[one.name]
    return found


def _hold(step: Step, news: Sequence[News]) -> bool:
    there = latest(news, step.kind)
    if step.name not in there and not any(
        one.kind == step.kind and one.name == step.name for one in news
    ):
        return False
    events = [
        one
        for one in latest(news, "Event").values()
        if one["involvedObject"].get("name", "").startswith(step.name)
    ]
    found = there.get(step.name)
    if found is None:
        # A Job is gone when its pods are.
        pods = latest(news, "Pod").values()
        found = next((one for one in pods if _job_of(one) == step.name), None)
    return all(conditions.holds(word, found, events) for word in step.words)


def _job_of(pod: Object) -> str:
    labels = pod["metadata"].get("labels") or {}
    return str(labels.get("batch.kubernetes.io/job-name", ""))


def _started(status: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for group in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for one in status.get(group) or ():
            if one.get("containerID"):
                yield one["name"], int(one.get("restartCount") or 0)


@dataclass(frozen=True)
class Theatre:
    """Where cases are played. Namespaces of both sides are equally long, as are nodes' names."""

    api: Api
    ear: Ear
    nodes: Mapping[str, str]
    """Their names, by side."""
    suffix: str = ""
    """Of namespaces: those of a second time are others."""

    def stage(self, case: Case, side: str) -> Stage:
        """For one case on one side."""
        return Stage(self.api, self.ear, f"{side}-{case.name}{self.suffix}", self.nodes[side])


def kept(folder: Path, side: str, case: str) -> Path:
    """Where a recording lies."""
    return folder / side / f"{case}.json"
