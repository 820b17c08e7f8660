"""What a registry asks for before it answers: WWW-Authenticate, read. Pure.

Challenges are those of RFC 9110, section 11.6.1; what a bearer one means is in the distribution
project's token specification (docs/content/spec/auth/token.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for a word
_PIECE = re.compile(
    rf'(?P<name>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>{_TOKEN}))'
    rf"|(?P<scheme>{_TOKEN})(?=\s|,|$)"
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a registry offers."""

    scheme: str
    """In lower case: `bearer`, `basic`."""
    parameters: Mapping[str, str]
    """Names in lower case."""


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """All that the headers offer, in their order; what cannot be read is passed over."""
    found: list[tuple[str, dict[str, str]]] = []
    for header in headers:
        for piece in _PIECE.finditer(header):
            if piece["scheme"]:
                found.append((piece["scheme"].lower(), {}))
            elif found:
                plain = piece["plain"] or re.sub(r"\\(.)", r"\1", piece["quoted"] or "")
                found[-1][1].setdefault(piece["name"].lower(), plain)
    return [Challenge(scheme, parameters) for scheme, parameters in found]
