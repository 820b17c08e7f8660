"""Commands in containers through ECS ExecuteCommand, for pods that no tunnel reaches."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from adapters.fargate import session, wrapper
from adapters.fargate.clients import Clients
from adapters.fargate.names import Json
from adapters.fargate.session import Session
from adapters.fargate.tasks import Tasks
from bridge.adapter import Size
from bridge.errors import BridgeError, Invalid, NotFound, Unavailable, Unsupported

_log = logging.getLogger(__name__)

_AGENT = "ExecuteCommandAgent"
"""The name of what AWS puts into a container that takes commands."""
_COMING, _LOOK = 30.0, 0.5
"""Seconds for which an agent that has not begun is waited for, and between looks."""
_BEGINS = 60.0
"""Seconds in which a command has to begin: agents wait for one themselves before they read."""
_LEAVES = 5.0
"""Seconds in which a session whose command is over has to end by itself."""
_PIECE = 32 * 1024
_NO_SHELL = re.compile(r"executable file not found|no such file or directory", re.I)
_WORDS = 512
_LACKS_SHELL = "the image has no sh, which exec without a tunnel takes"


class Commands:
    """Starts commands in one cluster's tasks."""

    def __init__(self, clients: Clients, tasks: Tasks, cluster: str) -> None:
        self._clients = clients
        self._tasks = tasks
        self._cluster = cluster

    async def start(
        self, arn: str, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Command:
        """Starts one. NotFound: the container does not run; Invalid: it cannot be started;
        Unsupported: there it never can; Unavailable, Unauthorized."""
        word = secrets.token_hex(16)
        asked = wrapper.wrapped(command, word, stdin=stdin, tty=tty)
        await self._agent(arn, container)
        answer = await self._clients.call(
            "ecs", "execute_command", cluster=self._cluster, task=arn, container=container,
            command=asked, interactive=True,
        )  # fmt: skip
        said = answer["session"]
        try:
            opened = await session.connect(said["streamUrl"], said["tokenValue"])
        except BaseException:
            await self._terminate(said["sessionId"])
            raise
        parser = (wrapper.Terminal if tty else wrapper.Pipes)(wrapper.marked(word, stdin=stdin))
        made = Command(
            opened, parser, lambda: self._terminate(said["sessionId"]), stdin=stdin, tty=tty
        )
        try:
            await made.begin(command[0])
        except BaseException:
            await made.close()
            raise
        return made

    async def _agent(self, arn: str, container: str) -> None:
        """Waits until the container can take commands."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _COMING
        while True:
            task = (await self._tasks.describe([arn])).get(arn) or {}
            here = [one for one in task.get("containers") or () if one["name"] == container]
            if not here or here[0].get("lastStatus") != "RUNNING":
                raise NotFound(f"{container} does not run")
            if not task.get("enableExecuteCommand", True):
                raise Unsupported("its task was launched without ExecuteCommand")
            agent = _agent(here[0])
            status = agent.get("lastStatus", "RUNNING")
            if status == "RUNNING":
                return
            if status == "STOPPED" or loop.time() > until:
                words = str(agent.get("reason") or f"it is {status}")[:_WORDS]
                raise Unavailable(f"the agent that would start commands does not run: {words}")
            await asyncio.sleep(_LOOK)

    async def _terminate(self, identifier: str) -> None:
        """Has AWS end a session, and with it what runs in it."""
        try:
            await self._clients.call("ssm", "terminate_session", SessionId=identifier)
        except BridgeError as error:
            _log.warning("session %s may go on until it is idle: %s", identifier, error.message)


def _agent(container: Json) -> Json:
    agents = container.get("managedAgents") or ()
    return next((one for one in agents if one.get("name") == _AGENT), {})


class Command:
    """A command as `bridge.adapter.Channel`."""

    def __init__(
        self,
        opened: Session,
        parser: wrapper.Terminal | wrapper.Pipes,
        terminate: Callable[[], Awaitable[None]],
        *,
        stdin: bool,
        tty: bool,
    ) -> None:
        self._session = opened
        self._parser = parser
        self._terminate = terminate
        self._stdin = stdin
        self._tty = tty
        self._output: deque[tuple[str, bytes]] = deque()
        self._begun = False
        self._code: int | None = None
        self._over = False
        """Its last byte has come, and its exit code."""
        self._ended = asyncio.Event()
        """Whether by that or otherwise: `read` gives nothing more."""
        self._typing = asyncio.Lock()
        self._input_is_over = not stdin
        self._telling: asyncio.Task[None] | None = None
        self._closed = False

    async def begin(self, name: str) -> None:
        """Returns when the command runs. Invalid: it cannot be started; Unavailable."""
        try:
            async with asyncio.timeout(_BEGINS):
                while not self._begun:
                    await self._hear(name)
        except TimeoutError:
            raise Unavailable(
                f"the session has not begun to run the command within {_BEGINS:.0f} seconds"
            ) from None

    async def read(self) -> tuple[str, bytes]:
        """The next bytes. Unavailable."""
        try:
            while not self._output and not self._over:
                self._require_open()
                await self._hear("")
        except BridgeError:
            self._ended.set()
            raise
        if not self._output:
            self._ended.set()
            return "", b""
        stream, data = self._output.popleft()
        if len(data) > _PIECE:
            self._output.appendleft((stream, data[_PIECE:]))
        return stream, data[:_PIECE]

    async def _hear(self, name: str) -> None:
        data = await self._session.read()
        if not data:
            raise self._gone()
        for one in self._parser.feed(data):
            match one:
                case wrapper.Output(stream, written):
                    self._output.append((stream, written))
                case wrapper.Begun():
                    self._begun = True
                case wrapper.Lacks(what):
                    raise Invalid(_lacks(what, name))
                case wrapper.Ended(code):
                    self._code = code
                    self._input_is_over, was_over = True, self._input_is_over
                    if not self._tty and not was_over:
                        self._tell(wrapper.INPUT_ENDS)
                case wrapper.Over():
                    self._over = True
                    self._tell(wrapper.END)

    def _gone(self) -> BridgeError:
        """Why the session has ended before the command."""
        words = self._session.words or self._parser.noise.decode(errors="replace")
        words = " ".join(words.split())[:_WORDS]
        if not self._begun and _NO_SHELL.search(words):
            return Invalid(f"{_LACKS_SHELL}: {words}")
        return Unavailable("the session has ended before the command" + (words and f": {words}"))

    def _tell(self, line: bytes) -> None:
        """Types a line behind all that is being typed; whoever reads does not wait for it."""
        before = self._telling

        async def tell() -> None:
            if before is not None:
                await asyncio.wait([before])
            with suppress(BridgeError):
                async with self._typing:
                    await self._session.write(line)

        self._telling = asyncio.create_task(tell(), name="last line of a session")

    async def write(self, data: bytes) -> None:
        """Bytes for stdin; dropped where nobody reads them any more. Unavailable."""
        self._require_open()
        lines = [data] if self._tty else wrapper.input_lines(data)
        async with self._typing:
            for one in lines:
                if self._input_is_over:
                    return
                await self._session.write(one)
        self._require_open()

    async def close_input(self) -> None:
        """No more stdin. A terminal has no such end: there it is a key, as people press it."""
        if self._tty or self._input_is_over:
            return
        self._input_is_over = True
        self._tell(wrapper.INPUT_ENDS)

    async def resize(self, size: Size) -> None:
        """The terminal's size has changed; nothing to do where there is none. Unavailable."""
        if self._tty and not self._over:
            await self._session.resize(size)

    async def wait(self) -> int:
        """The exit code, once `read` has come to the end. Unavailable."""
        await self._ended.wait()
        if not self._over or self._code is None:
            raise Unavailable("the channel was closed, or broke")
        return self._code

    async def close(self) -> None:
        """Ends the session, and a command that still runs."""
        if self._closed:
            return
        self._closed = True
        self._ended.set()
        try:
            if not (self._over and await self._session.ended(_LEAVES)):
                await self._terminate()
        finally:
            if self._telling is not None:
                self._telling.cancel()
                await asyncio.wait([self._telling])
            await self._session.close()

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("the channel was closed")


def _lacks(what: str, name: str) -> str:
    if what == "command":
        return f'the command cannot be started: there is no program "{name}" that can be run'
    return f"the image has no {what}, which exec without a tunnel takes where there is no terminal"
