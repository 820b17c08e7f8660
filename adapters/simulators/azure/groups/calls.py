"""One call as its handler gets it, and the answers that handlers give."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import unquote

from adapters.simulators.azure.errors import ArmError
from adapters.simulators.common.web import Answer, Json, Request


@dataclass(frozen=True, slots=True)
class Call:
    """`parts`: names in the path, as sent. `told`: headers that its answer will have."""

    request: Request
    parts: Mapping[str, str]
    told: dict[str, str]

    def part(self, name: str) -> str:
        """A name in the path."""
        return unquote(self.parts[name])

    def body(self) -> Json:
        """The request's JSON. ArmError 400."""
        try:
            found = json.loads(self.request.body or b"null", parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise _unreadable(str(error)) from None
        if not isinstance(found, dict):
            raise _unreadable("the body is to be an object.")
        return found


def answer(status: int, body: Json | None, headers: Mapping[str, str] | None = None) -> Answer:
    """JSON, or nothing."""
    content = b"" if body is None else json.dumps(body).encode()
    return Answer(status, content, headers or {})


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number.")


def _unreadable(words: str) -> ArmError:
    text = f"The request content was invalid and could not be deserialized: '{words}'"
    return ArmError(400, "InvalidRequestContent", text)
