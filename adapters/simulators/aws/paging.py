"""Lists in pages: tokens that hold the place, as text that means nothing to the caller."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any

from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.shapes import Json


def page(
    given: Json,
    items: Sequence[Any],
    member: str,
    *,
    limit: int,
    refuse: Callable[[str], ApiError],
    names: tuple[str, str] = ("nextToken", "maxResults"),
) -> Json:
    """One page of `items` as `{member: [...], "nextToken": ...}`. `names`: those of the token and
    of the wanted length, which may not be above `limit`."""
    token, length = names
    size = given.get(length, limit)
    if not 1 <= size <= limit:
        raise refuse(f"{length} must be between 1 and {limit}, found {size}.")
    start = read(given[token], refuse) if token in given else 0
    answer: Json = {member: list(items[start : start + size])}
    if start + size < len(items):
        answer[token] = write(start + size)
    return answer


def write(place: int) -> str:
    """The token of a place."""
    return base64.urlsafe_b64encode(f"place/{place}".encode()).decode()


def read(token: str, refuse: Callable[[str], ApiError]) -> int:
    """The place of a token; raises what `refuse` makes where it is none of ours."""
    try:
        kind, _, place = base64.urlsafe_b64decode(token).decode().partition("/")
        if kind == "place" and place.isdigit():
            return int(place)
    except (binascii.Error, ValueError):
        pass
    raise refuse("Invalid token.")
