"""What was told of a case, as it came. It can be written to a file and read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Object = dict[str, Any]
FOREVER = 1e12


@dataclass(frozen=True)
class News:
    """One change of one object."""

    at: float
    """Seconds, of a clock that only runs forward."""
    type: str
    """ADDED, MODIFIED, DELETED."""
    object: Object = field(repr=False)

    @property
    def kind(self) -> str:
        """Of its object."""
        return str(self.object.get("kind", ""))

    @property
    def name(self) -> str:
        """Of its object."""
        return str(self.object["metadata"]["name"])


@dataclass(frozen=True)
class Recording:
    """One case on one node."""

    case: str
    news: Sequence[News]
    logs: dict[str, str]
    """By `POD/CONTAINER`, and `POD/CONTAINER before` for the run before."""
    cut: float = FOREVER
    """What was told later does not count."""
    problem: str = ""
    """The step that did not come true, or that the API server refused."""

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def read(cls, text: str) -> Recording:
        """What `dump` gave."""
        found = json.loads(text)
        news = [News(**one) for one in found.pop("news")]
        return cls(news=news, **found)
