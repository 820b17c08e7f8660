"""The server: one port on which boto3 finds every simulated service."""

from __future__ import annotations

from types import TracebackType

from adapters.simulators.aws.account import Account
from adapters.simulators.aws.dispatch import Dispatcher
from adapters.simulators.aws.sessions import PATH
from adapters.simulators.aws.settings import Fault, Settings
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.control import PREFIX, Control
from adapters.simulators.common.running import Runner
from adapters.simulators.common.web import Answer, Request, Site


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
        self._runner = Runner(run_on, "aws")
        self.account = Account(
            settings or Settings(), Clock(time_scale), self._runner, lambda: self.endpoint
        )
        self._dispatcher = Dispatcher(self.account)
        self._control = Control(self.account, Fault)
        streams = {PATH: self.account.ecs.commands.sessions.serve}
        self._site = Site(host, port, self._answer, streams)
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
        try:
            self.endpoint = await self._site.open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        await self._site.close()
        await self.account.close()
        await self._runner.close()

    async def _answer(self, request: Request) -> Answer:
        if request.path.startswith(PREFIX):
            return await self._control.answer(request)
        return await self._dispatcher.answer(request)
