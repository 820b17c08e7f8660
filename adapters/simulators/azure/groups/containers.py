"""What is asked of single containers: logs, exec, attach."""

from __future__ import annotations

from functools import partial

from adapters.simulators.azure import shapes
from adapters.simulators.azure.errors import ArmError, transitioning
from adapters.simulators.azure.groups.calls import Call, answer
from adapters.simulators.azure.groups.lifecycle import Life
from adapters.simulators.azure.groups.records import Record
from adapters.simulators.azure.groups.sessions import Sessions
from adapters.simulators.azure.groups.world import World
from adapters.simulators.common.web import Answer
from bridge.adapter import Channel, Size
from bridge.errors import BridgeError
from bridge.workload import Identity

RUNNING_LOG = 4 * 1024 * 1024
"""Bytes of a running container's log ("Resource availability & quota limits for ACI")."""
STOPPED_LOG, STOPPED_LINES = 16 * 1024, 1000
"""Of a stopped one's, whichever is less."""


class Containers:
    """Of all groups."""

    def __init__(self, world: World, sessions: Sessions) -> None:
        self._world = world
        self._sessions = sessions

    async def logs(self, life: Life, call: Call) -> Answer:
        """`{"content": ...}`: the end of the log of its latest run. ArmError."""
        name = call.part("container")
        record = _record(life, name)
        if life.identity is None or not record.has_run:
            if life.group.transitioning:
                raise transitioning(life.group.name)
            raise _no_log(life, name)
        tail = _number(call.request.parameters.get("tail"))
        timestamps = call.request.parameters.get("timestamps", "").lower() == "true"
        stopped = record.state != "Running"
        lines = min(tail or STOPPED_LINES, STOPPED_LINES) if stopped else tail
        try:
            content = await self._world.runner.log(
                life.identity,
                name,
                tail=lines,
                timestamps=timestamps,
                most=STOPPED_LOG if stopped else RUNNING_LOG,
            )
        except BridgeError:
            raise _no_log(life, name) from None
        return answer(200, {"content": content.decode("utf-8", "replace")})

    def exec(self, life: Life, call: Call) -> Answer:
        """Offers a session with a new process. ArmError.

        "You cannot pass command arguments": the whole text is the name of a program."""
        name, values = call.part("container"), shapes.read(call.body(), "ContainerExecRequest")
        command = values.get("command", "")
        if not command:
            raise ArmError(400, "InvalidCommand", "The command is not specified.")
        identity = self._running(life, name)
        size = values.get("terminalSize", {})

        async def open_() -> Channel:
            channel = await self._world.runner.terminal(identity, name, [command])
            if size.get("rows") and size.get("cols"):
                await channel.resize(Size(size["cols"], size["rows"]))
            return channel

        return answer(200, self._sessions.offer("exec", open_))

    def attach(self, life: Life, call: Call) -> Answer:
        """Offers a session with what the container writes from now on. ArmError."""
        name = call.part("container")
        identity = self._running(life, name)
        opening = partial(self._world.runner.attach, identity, name)
        return answer(200, self._sessions.offer("attach", opening))

    def _running(self, life: Life, name: str) -> Identity:
        if _record(life, name).state != "Running" or life.identity is None:
            words = f"The container '{name}' in '{life.group.name}' is not running."
            raise ArmError(409, "ContainerNotRunning", words)
        return life.identity


def _record(life: Life, name: str) -> Record:
    for one in (*life.group.containers, *life.group.inits):
        if one.name == name:
            return one
    words = f"The container '{name}' in container group '{life.group.name}' is not found."
    raise ArmError(404, "ContainerNotFound", words)


def _no_log(life: Life, name: str) -> ArmError:
    return ArmError(
        404,
        "ContainerLogNotAvailable",
        f"Log of container '{name}' in container group '{life.group.name}' is not available yet."
        " Please check container 'InstanceView' for more information or retry later.",
    )


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise ArmError(400, "InvalidTail", f"tail is to be a number above 0, found '{text}'.")
    return int(text)
