"""Commands in containers through ECS ExecuteCommand, for pods that no tunnel reaches."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import shlex
from collections.abc import Callable, Sequence
from functools import partial

from adapters.fargate import session
from adapters.fargate.clients import Clients
from adapters.fargate.names import Json
from adapters.fargate.tasks import Tasks
from bridge.errors import BridgeError, NotFound, Unavailable, Unsupported
from bridge.groups import command, wrapper
from bridge.groups.command import Command, Joined

_log = logging.getLogger(__name__)

_AGENT = "ExecuteCommandAgent"
"""The name of what AWS puts into a container that takes commands."""
_COMING, _LOOK = 30.0, 2.0
"""Seconds for which an agent that has not begun is waited for, and between looks."""
_TERMINATES = 15.0
"""Seconds for which somebody who lets go waits for AWS to end a session."""
_WORDS = 512


class Commands(command.Commands):
    """Starts commands in one cluster's tasks."""

    def __init__(self, clients: Clients, tasks: Tasks, cluster: str) -> None:
        super().__init__()
        self._clients = clients
        self._tasks = tasks
        self._cluster = cluster

    async def start(
        self,
        arn: str,
        container: str,
        words: Sequence[str],
        *,
        stdin: bool,
        tty: bool,
        known: Json | None = None,
    ) -> Command:
        """Starts one. NotFound: the container does not run; Invalid: it cannot be started;
        Unsupported: there it never can; Unavailable, Unauthorized.

        `known`: the task as it was told of last."""
        word = secrets.token_hex(16)
        asked = quoted(wrapper.wrapped(words, word, stdin=stdin, tty=tty))
        is_known = _takes_commands(known or {}, container)
        if not is_known:
            await self._agent(arn, container)

        async def join(require_wanted: Callable[[], None]) -> Joined:
            try:
                said = await self._session(arn, container, asked)
            except Unavailable:
                if not is_known:
                    raise
                # It was so once.
                await self._agent(arn, container, require_wanted)
                said = await self._session(arn, container, asked)
            try:
                require_wanted()
                opened = await session.connect(said["streamUrl"], said["tokenValue"])
            except BaseException:
                await self._terminate(said["sessionId"])
                raise
            return Joined(opened, partial(self._terminate, said["sessionId"]))

        return await self.begun(join, words[0], word, stdin=stdin, tty=tty)

    async def _session(self, arn: str, container: str, asked: str) -> Json:
        """What AWS says of a session for that command."""
        answer = await self._clients.call(
            "ecs", "execute_command", cluster=self._cluster, task=arn, container=container,
            command=asked, interactive=True,
        )  # fmt: skip
        found: Json = answer["session"]
        return found

    async def _agent(
        self, arn: str, container: str, may_go_on: Callable[[], None] = lambda: None
    ) -> None:
        """Waits until the container can take commands."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _COMING
        while True:
            may_go_on()
            task = (await self._tasks.describe([arn])).get(arn) or {}
            here = [one for one in task.get("containers") or () if one["name"] == container]
            if not here or here[0].get("lastStatus") != "RUNNING":
                raise NotFound(f"{container} does not run")
            if not task.get("enableExecuteCommand", True):
                raise Unsupported("its task was launched without ExecuteCommand")
            agent = _agent(here[0])
            status = agent.get("lastStatus", "RUNNING")
            if status == "RUNNING":
                may_go_on()
                return
            if status == "STOPPED" or loop.time() > until:
                words = str(agent.get("reason") or f"it is {status}")[:_WORDS]
                raise Unavailable(f"the agent that would start commands does not run: {words}")
            await asyncio.sleep(_LOOK)

    async def _terminate(self, identifier: str) -> None:
        """Has AWS end a session, and with it what runs in it."""
        words = f"no answer within {_TERMINATES:.0f} seconds"
        try:
            async with asyncio.timeout(_TERMINATES):
                await self._clients.call("ssm", "terminate_session", SessionId=identifier)
            return
        except BridgeError as error:
            words = error.message
        except TimeoutError:
            pass
        _log.warning("session %s may go on until it is idle: %s", identifier, words)


def quoted(words: Sequence[str]) -> str:
    """What ExecuteCommand is given: the agent splits it as a shell would."""
    # It travels as a parameter of a Systems Manager document, where {{name}} is another one. All
    # braces are in single quotes here, which may end and begin anew between two of them.
    return re.sub(r"\{(?=\{)", "{''", shlex.join(words))


def _takes_commands(task: Json, container: str) -> bool:
    """Whether ECS has said that it does."""
    return any(
        one["name"] == container
        and one.get("lastStatus") == "RUNNING"
        and _agent(one).get("lastStatus") == "RUNNING"
        for one in task.get("containers") or ()
    )


def _agent(container: Json) -> Json:
    agents = container.get("managedAgents") or ()
    return next((one for one in agents if one.get("name") == _AGENT), {})
