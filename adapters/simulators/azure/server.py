"""The server: one port that is Azure Resource Manager and the authority that gives out tokens."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from adapters.simulators.azure.certificates import serving
from adapters.simulators.azure.dispatch import Dispatcher
from adapters.simulators.azure.groups.sessions import PATH
from adapters.simulators.azure.settings import Fault, Settings
from adapters.simulators.azure.subscription import Subscription
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.control import PREFIX, Control
from adapters.simulators.common.running import Runner
from adapters.simulators.common.web import Answer, Request, Site


class Simulator:
    """Azure on this machine, as a context manager. `run_on` is `process`, `engine` or `null`,
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
        self.settings = settings or Settings()
        self._runner = Runner(run_on, "azure")
        self.subscription = Subscription(
            self.settings, Clock(time_scale), self._runner, lambda: self.endpoint
        )
        self._dispatcher = Dispatcher(self.subscription)
        self._control = Control(self.subscription, Fault)
        tls, certificate = serving(host)
        self._files = _Files(certificate)
        streams = {PATH: self.subscription.sessions.serve}
        self._site = Site(host, port, self._answer, streams, tls)
        self.endpoint = ""
        """Where it is, once it is entered: `https://127.0.0.1:4567`."""

    @property
    def broken(self) -> list[str]:
        """What only a mistake of the simulator's own can have caused."""
        return self.subscription.mistakes

    @property
    def certificates(self) -> str:
        """The file (PEM) by which clients know the server, while it is entered."""
        return self._files.path

    @property
    def environment(self) -> dict[str, str]:
        """What azure-identity and its transports read, and where Resource Manager is. The secret is
        none."""
        client, secret = next(iter(self.settings.clients.items()))
        return {
            "AZURE_AUTHORITY_HOST": self.endpoint,
            "AZURE_TENANT_ID": self.settings.tenant,
            "AZURE_CLIENT_ID": client,
            "AZURE_CLIENT_SECRET": secret,
            "AZURE_SUBSCRIPTION_ID": self.settings.subscription,
            "ARM_ENDPOINT": self.endpoint,
            "REQUESTS_CA_BUNDLE": self.certificates,
            "SSL_CERT_FILE": self.certificates,
        }

    async def __aenter__(self) -> Simulator:
        await self._runner.open()
        try:
            self._files.write()
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
        await self.subscription.close()
        await self._runner.close()
        self._files.remove()

    async def _answer(self, request: Request) -> Answer:
        if request.path.startswith(PREFIX):
            return await self._control.answer(request)
        return await self._dispatcher.answer(request)


class _Files:
    """The server's certificate in a folder of its own."""

    def __init__(self, certificate: bytes) -> None:
        self._certificate = certificate
        self._folder: Path | None = None
        self.path = ""

    def write(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="podbridge-azure-"))
        file = self._folder / "azure.pem"
        file.write_bytes(self._certificate)
        self.path = str(file)

    def remove(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
