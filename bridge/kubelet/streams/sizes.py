"""The terminal's sizes, as they come on a resize stream: JSON objects one behind the other."""

from __future__ import annotations

import asyncio
import json
from collections import deque

_LONGEST = 256
"""Bytes that one size may have: `{"Width":65535,"Height":65535}` has 30. Too few to nest deeply."""
_KEPT = 16
"""Sizes that wait to be read; of more, the oldest are forgotten: only the last one matters."""
_LARGEST = 65535
"""Columns or rows: Kubernetes' TerminalSize has 16 bits for each."""


class Sizes:
    """Takes bytes as they come, gives sizes. What is not a size ends them, as in the kubelet: a
    broken resize must not end the command."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._sizes: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        self._ended = False
        self._news = asyncio.Event()

    def put(self, content: bytes) -> None:
        """More bytes."""
        for start in range(0, len(content), _LONGEST):
            if not self._ended:
                self._text += content[start : start + _LONGEST]
                self._parse()

    def end(self, _error: str | None = None) -> None:
        """No more will come."""
        self._ended = True
        self._text.clear()
        self._news.set()

    async def read(self) -> tuple[int, int] | None:
        """The next (width, height); None: no more will come."""
        while not self._sizes:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        return self._sizes.popleft()

    def _parse(self) -> None:
        # An object ends with the first brace: a size has none inside.
        while (end := self._text.find(b"}")) >= 0:
            size = _size(bytes(self._text[: end + 1]))
            del self._text[: end + 1]
            if size is None:
                self.end()
                return
            self._sizes.append(size)
            self._news.set()
        if len(self._text) > _LONGEST:
            self.end()


def _size(text: bytes) -> tuple[int, int] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    # Go reads field names without regard to case, and what is not there as 0.
    fields = {str(name).lower(): number for name, number in value.items()}
    width, height = fields.get("width", 0), fields.get("height", 0)
    for number in (width, height):
        if type(number) is not int or not 0 <= number <= _LARGEST:
            return None
    return width, height
