"""The server: one port on which boto3 finds every simulated service."""

from __future__ import annotations

from types import TracebackType

from aiohttp import web

from adapters.simulators.aws.account import Account
from adapters.simulators.aws.clock import Clock
from adapters.simulators.aws.control import PREFIX, Control
from adapters.simulators.aws.dispatch import Dispatcher
from adapters.simulators.aws.errors import Lost
from adapters.simulators.aws.protocols import Answer
from adapters.simulators.aws.restxml import Request
from adapters.simulators.aws.running import Runner
from adapters.simulators.aws.sessions import PATH
from adapters.simulators.aws.settings import Settings

MAX_BODY = 1024**3
"""Bytes of a request: an object of S3 is held in memory."""
_GRACE = 1.0
"""Seconds that connections have to end when the server stops."""


class Simulator:
    """AWS on this machine, as a context manager. `run_on` is `process`, `engine` or `null`,
    which runs nothing.

    Entering raises Unavailable where nothing can be run here, OSError where the port is taken.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        time_scale: float = 1.0,
        run_on: str = "process",
    ) -> None:
        self._host = host
        self._port = port
        self._runner = Runner(run_on)
        self.account = Account(
            settings or Settings(), Clock(time_scale), self._runner, lambda: self.endpoint
        )
        self._dispatcher = Dispatcher(self.account)
        self._control = Control(self.account)
        self._site: web.AppRunner | None = None
        self.endpoint = ""
        """Where it is, once it is entered: `http://127.0.0.1:4566`."""

    @property
    def broken(self) -> list[str]:
        """Answers that did not fit the services' models, and the like: its own mistakes."""
        return self.account.mistakes

    @property
    def environment(self) -> dict[str, str]:
        """What an SDK needs in its environment to come here. The keys are no secrets."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": self.account.place.region,
            "AWS_DEFAULT_REGION": self.account.place.region,
            "AWS_ACCESS_KEY_ID": "simulated",
            "AWS_SECRET_ACCESS_KEY": "simulated",
        }

    async def __aenter__(self) -> Simulator:
        await self._runner.open()
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # What is stored with a Content-Encoding must come back as it was sent.
        self._site = web.AppRunner(
            app, access_log=None, shutdown_timeout=_GRACE, auto_decompress=False
        )
        try:
            await self._site.setup()
            await web.TCPSite(self._site, self._host, self._port).start()
        except BaseException:
            await self._close()
            raise
        host, port = self._site.addresses[0][:2]
        self.endpoint = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        if self._site is not None:
            await self._site.cleanup()
        await self.account.close()
        await self._runner.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith(PATH):
            return await self.account.ecs.commands.sessions.serve(request)
        given = Request(
            request.method,
            request.raw_path.partition("?")[0],
            request.rel_url.raw_query_string,
            {name.lower(): value for name, value in request.headers.items()},
            await request.read(),
        )
        if given.path.startswith(PREFIX):
            return _response(await self._control.answer(given), given.method)
        try:
            return _response(await self._dispatcher.answer(given), given.method)
        except Lost:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)


def _response(answer: Answer, method: str) -> web.Response:
    headers = dict(answer.headers)
    if method == "HEAD":
        # Its length is that of the body that it does not have.
        return web.Response(status=answer.status, headers=headers)
    headers.pop("Content-Length", None)
    return web.Response(status=answer.status, body=answer.body, headers=headers)
