"""What pods refer to: ConfigMaps and Secrets one object at a time, tokens, and Services.

A node may read only what its pods refer to, each object by its name. So each is listed by its name
when a pod is put together, and watched for as long as some pod needs it: one watch for all of them.
Objects that never change (`immutable`) need none. Where more objects are needed than may be
watched, the rest is read again each time, at most every few seconds.

Tokens are asked for each pod by itself, bound to it, and again when most of their life is over.

Values of Secrets are here and nowhere else in this package: nothing of an object is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from bridge.errors import BridgeError, NotFound, Unavailable
from bridge.kubelet.client import ApiClient, Forbidden, escaped
from bridge.kubelet.watch import Listed, ListWatch
from bridge.pods import Manifest
from bridge.pods.environment import references
from bridge.times import parse_rfc3339

WATCHES = 200
"""Objects that are watched at the same time: each is a connection."""
FRESH = 5.0
"""Seconds that an object which is not watched is good for, so that the pods of one Job ask once."""
LAG = 5.0
"""Seconds after a pod came in which the node authoriser may not know of it yet."""
LAG_FIRST, LAG_LONGEST = 0.02, 0.5
"""Seconds between tries in that time: doubling from the first to the longest."""
TOKEN_SHARE = 0.8
"""Of a token's life after which it is renewed."""
TOKEN_LONGEST = 24 * 3600.0
"""Seconds after which it is renewed however long it lives (maxTTL of the kubelet's manager)."""
RETRY = 30.0
"""Seconds until a token that could not be renewed is asked for again."""
SYNC = 10.0
"""Seconds to wait for the first list of the Services."""

_PLURALS = {"ConfigMap": "configmaps", "Secret": "secrets"}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""Of an object that can exist. Pods may refer to any text, and none of it may end up in a path."""

Key = tuple[str, str, str]
"""Kind, namespace, name."""
T = TypeVar("T")


def is_name(text: str) -> bool:
    """Whether an object could be called that."""
    return _NAME.fullmatch(text) is not None


async def patiently(
    call: Callable[[], Awaitable[T]],
    until: float,
    *,
    pod: str = "",
    jitter: Callable[[], float] = random.random,
) -> T:
    """Calls again while the answer is 403, or that there is no such `pod`, up to the loop's time
    `until`: parts of the API server hear of the pod, for whose sake it is asked, after us.
    Raises these two (Forbidden, NotFound) only then, and every other error of the call at once."""
    loop = asyncio.get_running_loop()
    pause = LAG_FIRST
    while True:
        try:
            return await call()
        except (Forbidden, NotFound) as error:
            is_late = isinstance(error, Forbidden) or (pod and f'pod "{pod}" not' in error.message)
            if not is_late or loop.time() + pause > until:
                raise
        await asyncio.sleep(pause * (0.5 + jitter()))
        pause = min(pause * 2, LAG_LONGEST)


@dataclass(slots=True)
class _Object:
    """One object that some pod needs."""

    key: Key
    since: float
    holders: set[str] = field(default_factory=set)
    value: Manifest | None = field(default=None, repr=False)
    read: float | None = None
    """When it was last read, in the loop's time; None: never."""
    fetching: asyncio.Future[None] | None = None
    watching: asyncio.Task[None] | None = None

    @property
    def is_current(self) -> bool:
        """Whether `value` may be used as it is."""
        if self.read is None:
            return False
        if self.watching is not None or (self.value or {}).get("immutable"):
            return True
        return asyncio.get_running_loop().time() - self.read < FRESH


class References:
    """The ConfigMaps and Secrets of the node's pods. `changed` is called with the UIDs of the pods
    that refer to an object which has appeared, changed or gone."""

    def __init__(
        self,
        client: ApiClient,
        changed: Callable[[Iterable[str]], None],
        *,
        watches: int = WATCHES,
    ) -> None:
        self._client = client
        self._changed = changed
        self._watches = watches
        self._watching = 0
        self._objects: dict[Key, _Object] = {}
        self._held: dict[str, set[Key]] = {}

    def hold(self, pod: Manifest) -> None:
        """Keeps what the pod refers to at hand until `release`; again after the pod has changed."""
        uid, namespace = pod["metadata"]["uid"], pod["metadata"].get("namespace", "default")
        wanted = {(kind, namespace, name) for kind, name, _ in references(pod)}
        before = self._held.get(uid, set())
        if wanted == before:
            return
        for key in wanted - before:
            if (one := self._objects.get(key)) is None:
                now = asyncio.get_running_loop().time()
                one = self._objects[key] = _Object(key, now)
            one.holders.add(uid)
            if one.read is None:
                one.since = asyncio.get_running_loop().time()
        self._held[uid] = wanted
        self._drop(uid, before - wanted)

    def release(self, uid: str) -> None:
        """The pod needs nothing any more."""
        self._drop(uid, self._held.pop(uid, set()))

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """The object, None where there is none. Raises as `ApiClient.list`."""
        if kind not in _PLURALS or not is_name(name):
            return None
        key = (kind, namespace, name)
        one = self._objects.get(key)
        if one is None:
            return _only(await self._list_watch(key).list())
        while not one.is_current:
            if one.fetching is None:
                await self._fetch(one)
                break
            await asyncio.shield(one.fetching)
        return one.value

    async def close(self) -> None:
        """Ends all watches."""
        tasks = [one.watching for one in self._objects.values() if one.watching is not None]
        self._objects.clear()
        self._held.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _list_watch(self, key: Key) -> ListWatch:
        kind, namespace, name = key
        path = f"/api/v1/namespaces/{escaped(namespace)}/{_PLURALS[kind]}"
        return ListWatch(self._client, path, fields=f"metadata.name={name}")

    async def _fetch(self, one: _Object) -> None:
        loop = asyncio.get_running_loop()
        one.fetching = loop.create_future()
        try:
            watch = self._list_watch(one.key)
            listed = await patiently(watch.list, one.since + LAG)
            one.value, one.read = _only(listed), loop.time()
            immutable = one.value is not None and one.value.get("immutable")
            if one.holders and not immutable and self._watching < self._watches:
                self._watching += 1
                one.watching = asyncio.create_task(
                    self._follow(one, watch, listed), name=f"watch {'/'.join(one.key)}"
                )
        finally:
            # Whoever waits looks for itself: after an error it is its turn to ask.
            one.fetching.set_result(None)
            one.fetching = None

    async def _follow(self, one: _Object, watch: ListWatch, listed: Listed) -> None:
        try:
            async with aclosing(watch.follow(listed)) as changes:
                async for change in changes:
                    if isinstance(change, Listed):
                        value = _only(change)
                    else:
                        value = None if change.type == "DELETED" else change.object
                    if _version(value) != _version(one.value):
                        one.value = value
                        self._changed(tuple(one.holders))
                    if value is not None and value.get("immutable"):
                        return
        finally:
            self._watching -= 1
            one.watching = None
            one.read = asyncio.get_running_loop().time()

    def _drop(self, uid: str, keys: Iterable[Key]) -> None:
        for key in keys:
            one = self._objects.get(key)
            if one is None:
                continue
            one.holders.discard(uid)
            if not one.holders:
                del self._objects[key]
                if one.watching is not None:
                    one.watching.cancel()


def _only(listed: Listed) -> Manifest | None:
    return listed.items[0] if listed.items else None


def _version(one: Manifest | None) -> str:
    return "" if one is None else str(one["metadata"].get("resourceVersion", ""))


@dataclass(slots=True)
class _Token:
    value: str = field(repr=False)
    due: float
    """Epoch seconds from which it is renewed."""
    until: float


class Tokens:
    """Service account tokens of pods, by UID, audience and life. `changed` is called with the UID
    of a pod of which a token is due, so that somebody asks for the new one."""

    def __init__(
        self,
        client: ApiClient,
        changed: Callable[[Iterable[str]], None],
        *,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._changed = changed
        self._clock = clock
        self._jitter = jitter
        self._tokens: dict[str, dict[tuple[str, int], _Token]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def get(self, pod: Manifest, audience: str, seconds: int, since: float | None) -> str:
        """A token bound to the pod; `since` is when the pod came in, in the loop's time (None: it
        is not there any more, and nothing is kept for it). Raises as `ApiClient.post`."""
        uid = pod["metadata"]["uid"]
        known, now = self._tokens.get(uid, {}).get((audience, seconds)), self._clock()
        if known is not None and now < known.due:
            return known.value
        try:
            made = await self._request(pod, audience, seconds, since or 0.0)
        except BridgeError:
            if known is not None and now < known.until:
                # The old one still serves; it is asked for again soon.
                known.due = min(now + RETRY, known.until)
                self._wake_at(uid)
                return known.value
            raise
        if since is not None:
            self._tokens.setdefault(uid, {})[audience, seconds] = made
            self._wake_at(uid)
        return made.value

    def release(self, uid: str) -> None:
        """The pod needs none any more."""
        self._tokens.pop(uid, None)
        if (timer := self._timers.pop(uid, None)) is not None:
            timer.cancel()

    def close(self) -> None:
        """Forgets all."""
        for uid in list(self._tokens):
            self.release(uid)

    async def _request(self, pod: Manifest, audience: str, seconds: int, since: float) -> _Token:
        metadata = pod["metadata"]
        account = pod["spec"].get("serviceAccountName") or "default"
        path = f"/api/v1/namespaces/{escaped(metadata.get('namespace', 'default'))}"
        path += f"/serviceaccounts/{escaped(account)}/token"
        bound = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        spec: Manifest = {"expirationSeconds": seconds, "boundObjectRef": bound}
        if audience:
            spec["audiences"] = [audience]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await patiently(
            lambda: self._client.post(path, body),
            since + LAG,
            pod=metadata["name"],
            jitter=self._jitter,
        )
        now = self._clock()
        status = answer.get("status") or {}
        try:
            until = parse_rfc3339(status["expirationTimestamp"])
            value = str(status["token"])
        except (KeyError, TypeError, ValueError):
            raise Unavailable("the API server answered a TokenRequest without a token") from None
        # A little apart, so that the tokens of pods which came together are not due together.
        life = min((until - now) * TOKEN_SHARE, TOKEN_LONGEST) * (1 - 0.05 * self._jitter())
        return _Token(value, now + life, until)

    def _wake_at(self, uid: str) -> None:
        due = min(one.due for one in self._tokens[uid].values()) - self._clock()
        if (timer := self._timers.pop(uid, None)) is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[uid] = loop.call_later(max(1.0, due), self._changed, (uid,))


class Services:
    """All Services, listed and watched from the first time that somebody asks.

    `api_server` (host, port) is what pods are told of the API server where the Service `kubernetes`
    leads nowhere, as it does outside the cluster's network.
    """

    def __init__(self, client: ApiClient, *, api_server: tuple[str, int] | None = None) -> None:
        self._watch = ListWatch(client, "/api/v1/services", cached=True)
        self._api_server = api_server
        self._by_namespace: dict[str, dict[str, Manifest]] = {}
        self._synced = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def get(self, namespace: str, name: str) -> Manifest | None:
        """One Service. Unavailable before they could be listed."""
        await self._ready()
        return self._by_namespace.get(namespace, {}).get(name)

    async def variables(self, pod: Manifest) -> list[tuple[str, str]]:
        """The service variables of a pod: the API server's, and with enableServiceLinks those of
        its namespace. Unavailable before the Services could be listed."""
        links = pod["spec"].get("enableServiceLinks") is not False
        master = None if self._api_server is None else _api_service(*self._api_server)
        visible: dict[str, Manifest] = {}
        if links or master is None:
            await self._ready()
        if links:
            visible |= self._by_namespace.get(pod["metadata"].get("namespace", "default"), {})
        master = master or self._by_namespace.get("default", {}).get("kubernetes")
        if master is not None:
            visible.setdefault("kubernetes", master)
            if self._api_server is not None and pod["metadata"].get("namespace") == "default":
                visible["kubernetes"] = master
        return service_variables(visible[name] for name in sorted(visible))

    async def close(self) -> None:
        """Ends the watch."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
            self._following = None

    async def _ready(self) -> None:
        if self._following is None:
            self._following = asyncio.create_task(self._follow(), name="watch services")
        if self._synced.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SYNC):
                await self._synced.wait()
        if not self._synced.is_set():
            reason = self._watch.problem or "no answer yet"
            raise Unavailable(f"the Services could not be listed: {reason}")

    async def _follow(self) -> None:
        async with aclosing(self._watch.follow()) as changes:
            async for change in changes:
                if isinstance(change, Listed):
                    self._by_namespace.clear()
                    for one in change.items:
                        self._put(one)
                    self._synced.set()
                elif change.type == "DELETED":
                    metadata = change.object["metadata"]
                    self._by_namespace.get(metadata["namespace"], {}).pop(metadata["name"], None)
                else:
                    self._put(change.object)

    def _put(self, one: Manifest) -> None:
        metadata, spec = one["metadata"], one.get("spec") or {}
        # Only what variables are made of: a cluster may have thousands.
        kept = {key: spec[key] for key in ("clusterIP", "ports") if key in spec}
        slim = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": metadata["namespace"], "name": metadata["name"]},
            "spec": kept,
        }
        self._by_namespace.setdefault(metadata["namespace"], {})[metadata["name"]] = slim


def _api_service(host: str, port: int) -> Manifest:
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    return {"metadata": {"name": "kubernetes"}, "spec": {"clusterIP": host, "ports": ports}}


def service_variables(services: Iterable[Manifest]) -> list[tuple[str, str]]:
    """Docker's links and Kubernetes' own, in the kubelet's order (FromServices in
    pkg/kubelet/envvars). Services without an address of their own are left out."""
    made: list[tuple[str, str]] = []
    for one in services:
        spec = one.get("spec") or {}
        address, ports = spec.get("clusterIP") or "None", spec.get("ports") or ()
        if address == "None" or not ports:
            continue
        name = _variable(one["metadata"]["name"])
        made.append((f"{name}_SERVICE_HOST", address))
        made.append((f"{name}_SERVICE_PORT", str(ports[0]["port"])))
        made += [
            (f"{name}_SERVICE_PORT_{_variable(port['name'])}", str(port["port"]))
            for port in ports
            if port.get("name")
        ]
        host = f"[{address}]" if ":" in address else address
        for index, port in enumerate(ports):
            protocol, number = port.get("protocol") or "TCP", port["port"]
            url = f"{protocol.lower()}://{host}:{number}"
            if index == 0:
                made.append((f"{name}_PORT", url))
            link = f"{name}_PORT_{number}_{protocol.upper()}"
            made.append((link, url))
            made.append((f"{link}_PROTO", protocol.lower()))
            made.append((f"{link}_PORT", str(number)))
            made.append((f"{link}_ADDR", address))
    return made


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")
