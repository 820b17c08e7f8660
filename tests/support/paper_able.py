"""The paper backend with commands, ports and resizing, all by script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from bridge.adapter import Size
from bridge.errors import BridgeError, Unavailable
from bridge.workload import Container, Identity
from support.paper import Cloud, PaperAdapter


@dataclass
class Answer:
    """What a command does: after `seconds` it writes `output` and exits with `code`."""

    code: int = 0
    output: bytes = b""
    seconds: float = 0.0
    error: BridgeError | None = None


@dataclass
class Able:
    """What commands and ports answer, and what was asked of them."""

    clock: Callable[[], float]
    answers: dict[str, Answer | Callable[[], Answer]] = field(default_factory=dict)
    """By the command's first word; a command that is not here succeeds."""
    asked: list[tuple[float, str, str]] = field(default_factory=list)
    """(when, container, the command's first word)."""
    open_channels: int = 0
    ports: dict[int, Callable[[], bytes]] = field(default_factory=dict)
    """What is read from a connection; a port that is not here refuses."""
    dials: list[tuple[float, int]] = field(default_factory=list)
    resized: list[tuple[str, Container]] = field(default_factory=list)
    resize_error: dict[str, BridgeError] = field(default_factory=dict)

    def times(self, word: str, since: float = 0.0) -> list[float]:
        """When that command was asked for, in seconds after `since`."""
        return [round(at - since, 3) for at, _, asked in self.asked if asked == word]


class PaperChannel:
    """A command on paper."""

    def __init__(self, able: Able, answer: Answer) -> None:
        self._able, self._answer = able, answer
        self._told = not answer.output
        self._closed = False
        able.open_channels += 1

    async def read(self) -> tuple[str, bytes]:
        if not self._told:
            self._told = True
            return "stdout", self._answer.output
        await asyncio.sleep(self._answer.seconds)
        return "", b""

    async def write(self, data: bytes) -> None:
        pass

    async def close_input(self) -> None:
        pass

    async def resize(self, size: Size) -> None:
        pass

    async def wait(self) -> int:
        return self._answer.code

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._able.open_channels -= 1


class AbleAdapter(PaperAdapter):
    """Paper, with `exec`, `dial` and `resize`."""

    type: ClassVar[str] = "paper"

    def __init__(self, cloud: Cloud, able: Able) -> None:
        super().__init__(cloud)
        self.able = able

    async def exec(
        self, identity: Identity, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> PaperChannel:
        word = command[0]
        self.able.asked.append((self.able.clock(), container, word))
        answer = self.able.answers.get(word, Answer())
        if not isinstance(answer, Answer):
            answer = answer()
        if answer.error is not None:
            raise answer.error
        return PaperChannel(self.able, answer)

    async def dial(self, identity: Identity, port: int, *, inside: bool) -> PaperChannel:
        assert not inside
        self.able.dials.append((self.able.clock(), port))
        if port not in self.able.ports:
            raise Unavailable("connect: connection refused")
        return PaperChannel(self.able, Answer(output=self.able.ports[port]()))

    async def resize(self, identity: Identity, container: Container) -> None:
        if (error := self.able.resize_error.get(container.name)) is not None:
            raise error
        self.able.resized.append((identity.name, container))
