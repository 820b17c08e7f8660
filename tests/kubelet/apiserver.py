"""A small API server on a real socket: objects in memory, list, watch, PATCH, tokens, and faults.

It keeps to what the real one does where a client can tell: versions that rise with each change,
bookmarks, 410, preconditions, finalizers, strategic merge of a pod's status, pages of a list.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from bridge.kubelet.credentials import Credentials
from bridge.times import rfc3339

Object = dict[str, Any]
KINDS = {
    "pods": "Pod",
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "services": "Service",
    "events": "Event",
    "nodes": "Node",
    "leases": "Lease",
}
MERGED = {"conditions": "type", "podIPs": "ip", "hostIPs": "ip"}


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Fault:
    """What is answered instead: a status, or with `code` 0 nothing. `after`: it is done first.
    With a gate the answer is the right one, but comes when the gate is opened."""

    matches: Callable[[Request], bool]
    code: int
    status: Object
    times: int
    headers: dict[str, str]
    after: bool = False
    gate: asyncio.Event | None = None


@dataclass(eq=False)
class Watcher:
    resource: str
    keeps: Callable[[Object], bool]
    queue: asyncio.Queue[Object | None] = field(default_factory=asyncio.Queue)
    transport: Any = None


class Refused(Exception):
    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.status = {
            "apiVersion": "v1",
            "kind": "Status",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": message,
            "details": details,
        }


async def eventually(met: Callable[[], Any], limit: float = 10.0) -> None:
    """Returns once it is so, for what nobody tells of."""
    async with asyncio.timeout(limit):
        while not met():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.002)


class ApiServer:
    """`async with ApiServer.started() as server`; then `server.credentials()`."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.version = 100
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.connections = 0
        self.address = ""
        self._history: list[tuple[int, str, Object]] = []
        self._compacted = 0
        self._watchers: set[Watcher] = set()
        self._lists: dict[str, list[Object]] = {}
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @classmethod
    @asynccontextmanager
    async def started(cls, tls: ssl.SSLContext | None = None) -> AsyncIterator[ApiServer]:
        server = cls()
        await server.start(tls)
        try:
            yield server
        finally:
            await server.stop()

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Again on the same port where it had one."""
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=tls).start()
        self._port = self._runner.addresses[0][1]
        self.address = f"http{'s' if tls else ''}://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    def credentials(self, authorization: str = "") -> Credentials:
        async def header(_renew: bool) -> str:
            return authorization

        return Credentials(self.address, lambda: None, header)

    # What others do in the cluster.

    def put(self, resource: str, one: Object) -> Object:
        """Creates or replaces."""
        metadata = one["metadata"]
        metadata.setdefault("uid", str(uuid.uuid4()))
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        return self._store("MODIFIED" if key in self.objects else "ADDED", resource, one)

    def change(self, resource: str, namespace: str, name: str, **metadata: Any) -> Object:
        """Changes an object's metadata."""
        one = self.objects[resource, namespace, name]
        return self.put(resource, {**one, "metadata": {**one["metadata"], **metadata}})

    def remove(self, resource: str, namespace: str, name: str) -> None:
        one = self.objects.pop((resource, namespace, name))
        self._store("DELETED", resource, one)

    def order_deletion(self, namespace: str, name: str, grace: int = 30) -> Object:
        """What `kubectl delete pod` does."""
        return self.change(
            "pods",
            namespace,
            name,
            deletionTimestamp=rfc3339(time.time() + grace),
            deletionGracePeriodSeconds=grace,
        )

    def pod(self, name: str, namespace: str = "default") -> Object:
        return self.objects["pods", namespace, name]

    def bookmark(self) -> None:
        for watcher in self._watchers:
            metadata = {"resourceVersion": str(self.version)}
            watcher.queue.put_nowait({"type": "BOOKMARK", "object": {"metadata": metadata}})

    def tell_error(self, code: int) -> None:
        """An ERROR event on every watch."""
        for watcher in self._watchers:
            status = {"kind": "Status", "code": code, "message": "an error event"}
            watcher.queue.put_nowait({"type": "ERROR", "object": status})

    def tell_line(self, line: bytes) -> None:
        for watcher in self._watchers:
            watcher.queue.put_nowait({"raw": line})

    def end_watches(self) -> None:
        """As their timeoutSeconds does."""
        for watcher in self._watchers:
            watcher.queue.put_nowait(None)

    def drop_watches(self) -> None:
        """As a broken line does."""
        for watcher in list(self._watchers):
            if watcher.transport is not None:
                watcher.transport.abort()

    def compact(self) -> None:
        """Forgets what was before now: older watches are answered 410."""
        self._compacted = self.version
        self._history.clear()

    def fail(
        self,
        method: str,
        part: str,
        code: int,
        *,
        times: int = 1,
        status: Object | None = None,
        headers: dict[str, str] | None = None,
        after: bool = False,
    ) -> None:
        """Has the next calls whose path has `part` fail so. Code 0: the connection breaks."""

        def matches(request: Request) -> bool:
            return request.method == method and part in request.path

        self.faults.append(Fault(matches, code, status or {}, times, headers or {}, after))

    def delay(self, method: str, part: str) -> asyncio.Event:
        """Has the answer to the next such call wait until the gate is opened."""
        self.fail(method, part, 200, after=True)
        gate = self.faults[-1].gate = asyncio.Event()
        return gate

    async def until(self, met: Callable[[], Any], limit: float = 10.0) -> None:
        """Returns once it is so; asked after each request and change."""

        async def wait() -> None:
            while not met():
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(wait(), limit)

    def made(self, method: str, part: str) -> list[Request]:
        return [one for one in self.requests if one.method == method and part in one.path]

    def watches(self, resource: str) -> int:
        return sum(1 for one in self._watchers if one.resource == resource)

    # How it answers.

    def _store(self, kind: str, resource: str, one: Object) -> Object:
        self.version += 1
        one["metadata"]["resourceVersion"] = str(self.version)
        one.setdefault("apiVersion", "v1")
        one.setdefault("kind", KINDS[resource])
        event = json.loads(json.dumps({"type": kind, "object": one}))
        if kind != "DELETED":
            key = (resource, one["metadata"].get("namespace", ""), one["metadata"]["name"])
            self.objects[key] = one
        self._history.append((self.version, resource, event))
        for watcher in self._watchers:
            if watcher.resource == resource and watcher.keeps(one):
                watcher.queue.put_nowait(event)
        self._changed.set()
        return one

    async def _handle(self, raw: web.Request) -> web.StreamResponse:
        content = await raw.read()
        body = json.loads(content) if content else None
        query = dict(raw.query)
        request = Request(raw.method, raw.path, query, dict(raw.headers), body)
        self.requests.append(request)
        try:
            fault = next((one for one in self.faults if one.matches(request)), None)
            if fault is not None:
                fault.times -= 1
                if not fault.times:
                    self.faults.remove(fault)
                answer = self._answer(request) if fault.after else None
                if fault.gate is not None:
                    await fault.gate.wait()
                    return web.json_response(answer)
                if fault.code == 0:
                    assert raw.transport is not None
                    raw.transport.abort()
                    return web.Response()
                return web.json_response(fault.status, status=fault.code, headers=fault.headers)
            if "watch" in query:
                return await self._watch(raw, request)
            return web.json_response(self._answer(request))
        except Refused as refused:
            return web.json_response(refused.status, status=refused.code)
        finally:
            self._changed.set()

    def _answer(self, request: Request) -> Object:
        resource, namespace, name, sub = _parse(request.path)
        if sub == "token":
            return self._token(request, namespace)
        if request.method == "GET":
            return self._get(resource, namespace, name) if name else self._list(request)
        if request.method == "POST":
            metadata = request.body["metadata"]
            if namespace:
                metadata["namespace"] = namespace
            if (resource, namespace, metadata["name"]) in self.objects:
                raise Refused(409, "AlreadyExists", f'{resource} "{metadata["name"]}" exists')
            return self.put(resource, request.body)
        one = self._get(resource, namespace, name)
        if request.method == "PATCH":
            return self._patch(request, resource, one, sub)
        if request.method == "PUT":
            return self.put(resource, request.body)
        return self._delete(request, resource, one)

    def _get(self, resource: str, namespace: str, name: str) -> Object:
        found = self.objects.get((resource, namespace, name))
        if found is None:
            raise Refused(404, "NotFound", f'{resource} "{name}" not found')
        return found

    def _list(self, request: Request) -> Object:
        resource, _, _, _ = _parse(request.path)
        query = request.query
        if token := query.get("continue"):
            if "resourceVersion" in query:
                raise Refused(400, "BadRequest", "no resource version together with continue")
            found = self._lists.pop(token)
        else:
            keeps = _keeps(request)
            found = [
                one for (kind, _, _), one in self.objects.items() if kind == resource and keeps(one)
            ]
        limit = int(query.get("limit", 0)) or len(found)
        metadata: Object = {"resourceVersion": str(self.version)}
        if len(found) > limit:
            token = str(uuid.uuid4())
            self._lists[token] = found[limit:]
            found, metadata["continue"] = found[:limit], token
        items = [
            {key: value for key, value in one.items() if key not in ("kind", "apiVersion")}
            for one in found
        ]
        if "PartialObjectMetadataList" in request.headers.get("Accept", ""):
            items = [{"metadata": one["metadata"]} for one in items]
        kind = f"{KINDS[resource]}List"
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "items": items}

    def _patch(self, request: Request, resource: str, one: Object, sub: str) -> Object:
        patch = request.body
        wanted = (patch.get("metadata") or {}).get("uid")
        if wanted is not None and wanted != one["metadata"]["uid"]:
            # Not a conflict, as it is for a DELETE.
            cause = {"field": "metadata.uid", "message": "field is immutable"}
            raise Refused(422, "Invalid", "metadata.uid: field is immutable", causes=[cause])
        if sub == "status":
            allowed = {"uid", "annotations"}
            assert set(patch.get("metadata") or {}) <= allowed, patch
            assert set(patch) <= {"metadata", "status"}, patch
        changed = merged(one, patch)
        if changed == one:
            return one
        return self.put(resource, changed)

    def _delete(self, request: Request, resource: str, one: Object) -> Object:
        metadata, options = one["metadata"], request.body or {}
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted is not None and wanted != metadata["uid"]:
            message = f"Precondition failed: UID in precondition: {wanted}"
            raise Refused(409, "Conflict", message)
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if metadata.get("finalizers"):
            grace = options.get("gracePeriodSeconds", 30)
            if metadata.get("deletionGracePeriodSeconds") == grace:
                return one
            return self.order_deletion(namespace, name, grace)
        if resource == "pods":
            # In two steps: marked, then removed.
            one = self.order_deletion(namespace, name, options.get("gracePeriodSeconds", 30))
        self.remove(resource, namespace, name)
        return one

    def _token(self, request: Request, namespace: str) -> Object:
        spec = request.body["spec"]
        bound = spec["boundObjectRef"]
        pod = self.objects.get(("pods", namespace, bound["name"]))
        if pod is None or pod["metadata"]["uid"] != bound["uid"]:
            raise Refused(409, "Conflict", "the UID in the bound object reference does not match")
        until = rfc3339(time.time() + spec["expirationSeconds"])
        token = f"token-{len(self.requests)}"
        return {**request.body, "status": {"token": token, "expirationTimestamp": until}}

    async def _watch(self, raw: web.Request, request: Request) -> web.StreamResponse:
        resource, _, _, _ = _parse(request.path)
        since = int(request.query.get("resourceVersion") or 0)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        watcher = Watcher(resource, _keeps(request), transport=raw.transport)
        if since < self._compacted:
            status = {"kind": "Status", "code": 410, "message": "too old resource version"}
            watcher.queue.put_nowait({"type": "ERROR", "object": status})
            watcher.queue.put_nowait(None)
        for version, kind, event in self._history:
            if version > since and kind == resource and watcher.keeps(event["object"]):
                watcher.queue.put_nowait(event)
        self._watchers.add(watcher)
        try:
            await response.prepare(raw)
            self._changed.set()
            while (event := await watcher.queue.get()) is not None:
                line = event.get("raw") or json.dumps(event).encode() + b"\n"
                await response.write(line)
        except (ConnectionError, asyncio.CancelledError):
            # The client has gone, or we are stopped.
            pass
        finally:
            self._watchers.discard(watcher)
            self._changed.set()
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response


def _parse(path: str) -> tuple[str, str, str, str]:
    """(resource, namespace, name, subresource)."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if not rest:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource, name, sub = [*rest, "", "", ""][:3]
    if resource not in KINDS and resource != "serviceaccounts":
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    return resource, namespace, name, sub


def _keeps(request: Request) -> Callable[[Object], bool]:
    _, namespace, _, _ = _parse(request.path)
    selector = request.query.get("fieldSelector", "")
    wanted = [one.split("=", 1) for one in selector.split(",") if one]

    def keeps(one: Object) -> bool:
        if namespace and one["metadata"].get("namespace") != namespace:
            return False
        for path, value in wanted:
            found: Any = one
            for key in path.split("."):
                found = (found or {}).get(key)
            if (found or "") != value:
                return False
        return True

    return keeps


def merged(old: Any, patch: Any) -> Any:
    """A strategic merge patch of a pod: lists of conditions and addresses merge by their key."""
    if not isinstance(old, dict) or not isinstance(patch, dict):
        return patch
    made = dict(old)
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif key in MERGED and isinstance(value, list):
            made[key] = _merged_list(made.get(key) or [], value, MERGED[key])
        elif isinstance(value, dict):
            made[key] = merged(made.get(key) or {}, value)
        else:
            made[key] = value
    return made


def _merged_list(old: list[Object], patch: list[Object], key: str) -> list[Object]:
    if any(one.get("$patch") == "replace" for one in patch):
        return [one for one in patch if "$patch" not in one]
    made = list(old)
    for one in patch:
        at = next((i for i, known in enumerate(made) if known[key] == one[key]), None)
        if one.get("$patch") == "delete":
            if at is not None:
                del made[at]
        elif at is None:
            made.append(merged({}, one))
        else:
            made[at] = merged(made[at], one)
    return made
