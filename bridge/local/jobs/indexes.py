"""Sets of completion indexes, and their text form: "0-2,5,7,8"."""

from __future__ import annotations

from collections.abc import Container, Iterable
from itertools import islice


def parse_indexes(text: str, completions: int) -> set[int]:
    """Read checked index text; what lies outside 0..completions-1 is left out."""
    indexes: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first:
            indexes.update(range(int(first), min(int(last or first) + 1, completions)))
    return indexes


def format_indexes(indexes: Iterable[int]) -> str:
    """Write indexes as Kubernetes does: a run of three or more as "first-last", two as "a,b"."""
    runs: list[tuple[int, int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index - 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return ",".join(
        str(first) if first == last else f"{first}{',' if last == first + 1 else '-'}{last}"
        for first, last in runs
    )


def first_pending(count: int, completions: int, taken: Container[int]) -> list[int]:
    """Give the `count` lowest indexes below `completions` that are not taken."""
    pending = (index for index in range(completions) if index not in taken)
    return list(islice(pending, count))
