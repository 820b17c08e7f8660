"""The listener: TLS, who gets in, which path is whose, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

from aiohttp import hdrs, web

from bridge.agent.provider import ProviderClient
from bridge.errors import Unavailable
from bridge.kubelet.api.auth import Gatekeeper, Reviews
from bridge.kubelet.api.door import FAREWELL, Door
from bridge.kubelet.api.exec import Commands
from bridge.kubelet.api.forward import Forwards
from bridge.kubelet.api.health import Health
from bridge.kubelet.api.logs import Logs
from bridge.kubelet.api.node import NodeInfo
from bridge.kubelet.api.pods import Pods
from bridge.kubelet.api.stats import Stats
from bridge.kubelet.api.tls import LiveContext
from bridge.kubelet.api.usage import Meters
from bridge.kubelet.client import Call

PORT = 10250
REQUESTS = 1024
"""Requests at once, logs and streams that go on included. More are told to come again."""
PATIENCE = 5.0
"""Seconds that a request about pods waits for the first list of them: where another replica has
just taken the node over, that takes no longer."""
SHORT = 64
"""Room besides those for requests that are answered at once."""

_PROXY = ("proxy",)
"""What a path needs that is not the kubelet's own kind (KEP-2862): the right to everything."""
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = logging.getLogger(__name__)


class _Route(NamedTuple):
    path: str
    handler: _Handler
    methods: tuple[str, ...] = ("GET",)
    subresources: tuple[str, ...] = _PROXY
    """Of `nodes`: one of them must be allowed. They are asked for in this order."""
    about_pods: bool = True
    """Whether nothing can be said there before the node's pods are known."""


class KubeletApi:
    """The HTTPS API of one node. Use as a context manager, or call `start` and `stop`.

    `context` gives the TLS context of new connections (`tls.server_context` makes one): it is asked
    at the start, and again by `reload`, after a certificate or the client CAs have changed.
    """

    def __init__(
        self,
        *,
        cluster: str,
        node: str,
        pods: Pods,
        provider: ProviderClient,
        reviews: Reviews,
        context: Callable[[], ssl.SSLContext],
        address: str = "0.0.0.0",  # noqa: S104 - the API server comes from elsewhere
        port: int = PORT,
        problem: Callable[[], str] = lambda: "",
        calls: Mapping[Call, int] | None = None,
        configuration: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
        patience: float = PATIENCE,
    ) -> None:
        self._address = address
        self._patience = patience
        self._port = port
        self._context = context
        self._live: LiveContext | None = None
        self._gate = Gatekeeper(reviews, clock=clock)
        self._configuration = {"address": address, "port": port, **(configuration or {})}
        self._pods = pods
        self._health = Health(problem)
        self._info = NodeInfo(
            pods,
            node,
            calls={} if calls is None else calls,
            configuration=self._configuration,
            clock=clock,
        )
        self._logs = Logs(pods, provider)
        self._commands = Commands(pods, provider)
        self._forwards = Forwards(pods, provider)
        self._stats = Stats(Meters(pods, provider, cluster, node, clock=clock), node)
        self._needs: dict[web.AbstractRoute, _Route] = {}
        self._runner: web.AppRunner | None = None
        self._door: Door | None = None
        self._serving: dict[asyncio.Task[Any], web.Request] = {}

    async def __aenter__(self) -> KubeletApi:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port if self._door is None else self._door.port

    async def start(self) -> None:
        """Listens. Unavailable: the address is not free, or not ours. Or what `context` raises."""
        self._live = LiveContext(self._context())
        runner = web.AppRunner(
            self._application(),
            handler_cancellation=True,
            shutdown_timeout=FAREWELL,
        )
        await runner.setup()
        assert runner.server is not None
        try:
            self._door = Door(self._address, self._port, runner.server, self._live)
        except OSError as error:
            await runner.cleanup()
            where = f"{self._address}:{self._port}"
            raise Unavailable(f"cannot listen on {where}: {error.strerror or error}") from None
        self._runner = runner
        self._configuration["port"] = self.port

    def reload(self) -> None:
        """New connections meet a new context; idle ones are closed, busy ones once they are done:
        whom an old CA has let in must show their certificate anew. What `context` raises is raised,
        and all stays as it is."""
        if self._live is None or self._runner is None or self._runner.server is None:
            return
        self._live.current = self._context()
        busy = {request.protocol for request in self._serving.values()}
        for one in self._runner.server.connections:
            if one not in busy:
                one.force_close()

    async def stop(self) -> None:
        """Ends every request and closes every connection. May be repeated."""
        if self._door is not None:
            await self._door.close()
            self._door = None
        runner, self._runner = self._runner, None
        if runner is None or runner.server is None:
            return
        transports = [one.transport for one in runner.server.connections]
        if serving := list(self._serving):
            for task in serving:
                task.cancel()
            _, late = await asyncio.wait(serving, timeout=FAREWELL)
            if late:
                _log.warning("%d requests did not end within %g seconds", len(late), FAREWELL)
        await runner.cleanup()
        await self._gate.close()
        for transport in transports:
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._admit])
        app.on_response_prepare.append(_plain_headers)
        for route in self._routes():
            for method in route.methods:
                added = app.router.add_route(method, route.path, route.handler)
                self._needs[added] = route
        return app

    def _routes(self) -> list[_Route]:
        both = ("GET", "POST")
        info, pod = self._info, "{namespace}/{pod}"
        routes = [
            _Route(f"/containerLogs/{pod}/{{container}}", self._logs.get),
            _Route(f"/portForward/{pod}", self._forwards.forward, both),
            _Route(f"/portForward/{pod}/{{uid}}", self._forwards.forward, both),
            _Route("/stats/summary", self._stats.summary, both, ("stats",)),
            _Route("/metrics/resource", self._stats.resource, subresources=("metrics",)),
            _Route("/metrics", info.metrics, subresources=("metrics",), about_pods=False),
            _Route("/pods", info.pods, subresources=("pods", "proxy")),
            _Route("/configz", info.configz, ("GET",), ("configz", "proxy"), False),
            _Route("/healthz", self._health.all, ("GET",), ("healthz", "proxy"), False),
        ]
        for handler, word in ((self._commands.exec, "exec"), (self._commands.attach, "attach")):
            routes += [
                _Route(f"/{word}/{pod}/{{container}}", handler, both),
                _Route(f"/{word}/{pod}/{{uid}}/{{container}}", handler, both),
            ]
        for path in self._health.paths:
            routes.append(_Route(path, self._health.one, ("GET",), ("healthz", "proxy"), False))
        for path in ("/runningpods", "/runningpods/"):
            routes.append(_Route(path, info.running_pods, subresources=("pods", "proxy")))
        # What is not there is told to those who might have it if it were.
        for word, subresource in (("stats", "stats"), ("metrics", "metrics")):
            path = f"/{word}/{{rest:.*}}"
            routes.append(_Route(path, _absent, tuple(_METHODS), (subresource,), False))
        rest = "/healthz/{rest:.*}"
        routes.append(_Route(rest, _absent, ("GET",), ("healthz", "proxy"), False))
        for path in ("/logs", "/logs/{rest:.*}"):
            routes.append(_Route(path, _no_node_logs, tuple(_METHODS), ("log",), False))
        return routes

    @web.middleware
    async def _admit(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """The way of every request, those to paths that are not there included."""
        task = asyncio.current_task()
        live = self._live
        if task is None or live is None:
            raise web.HTTPServiceUnavailable(text="not serving")
        self._serving[task] = request
        try:
            user = await self._gate.authenticate(request, live.current)
            route = self._needs.get(request.match_info.route)
            needs = _PROXY if route is None else route.subresources
            await self._gate.authorize(user, request.method, needs)
            # Whoever follows logs keeps nobody from asking how the node is.
            room = REQUESTS + (SHORT if _is_short(request.path) else 0)
            if len(self._serving) > room:
                raise web.HTTPServiceUnavailable(
                    text="too many requests at once", headers={"Retry-After": "1"}
                )
            if request.match_info.http_exception is None:
                self._info.requests[request.method, request.path.split("/", 2)[1]] += 1
            if (
                route is not None
                and route.about_pods
                and not await self._pods.listed(self._patience)
            ):
                # Whoever was told that a pod is not there might believe it.
                raise web.HTTPServiceUnavailable(
                    text="the pods of this node are not known yet", headers={"Retry-After": "1"}
                )
            return await handler(request)
        except web.HTTPException as refusal:
            if refusal.status in {401, 403}:
                # Who is not let in holds no connection.
                refusal.force_close()
            raise
        finally:
            del self._serving[task]
            self._close_outdated(request, live)

    def _close_outdated(self, request: web.Request, live: LiveContext) -> None:
        """What `reload` found busy is closed once its answer is out."""
        transport = request.transport
        shown = transport.get_extra_info("ssl_object") if transport is not None else None
        if shown is not None and shown.context is not live.current:
            request.protocol.close()


def _is_short(path: str) -> bool:
    return path.split("/", 2)[1] in (
        "healthz",
        "metrics",
        "stats",
        "pods",
        "runningpods",
        "configz",
    )


_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


async def _absent(_: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound(text="404 page not found\n")


async def _no_node_logs(_: web.Request) -> web.StreamResponse:
    # The kubelet's words where enableSystemLogHandler is off.
    raise web.HTTPMethodNotAllowed("", (), text="logs endpoint is disabled.\n")


async def _plain_headers(_: web.Request, response: web.StreamResponse) -> None:
    # Whom we answer need not know by what; and what a pod has written is no page.
    response.headers.popall(hdrs.SERVER, None)
    response.headers["X-Content-Type-Options"] = "nosniff"
