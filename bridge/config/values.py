"""The small types of the configuration: durations, addresses, quantities, names, secret references.

Each parser takes what YAML, a flag or a variable holds and raises ValueError with what was found
and what is allowed. A secret's reference never shows what it was given: it may be the secret.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from bridge import quantity
from bridge.errors import Invalid, Violation

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:h|ms|m|s|us|µs|ns)")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_DURATION = 10 * 365 * 24 * 3600.0
"""Seconds. Ten years: more is a slip of the unit, and overflows the clouds' own fields."""

DURATION_ALLOWED = 'a duration ("24h", "90s", "1h30m") or a number of seconds, above 0'


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was most likely meant to be, whatever its case and dashes."""
    folded = {_fold(one): one for one in known}
    match = difflib.get_close_matches(_fold(name[:80]), folded, n=1, cutoff=0.6)
    return folded[match[0]] if match else None


def _fold(name: str) -> str:
    return name.lower().replace("-", "_")


def shown(value: object, *, secret: bool = False) -> str:
    """A value as error messages name it: `string "abc"`, `integer 3`; with `secret` its type."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    name = {bool: "boolean", int: "integer", float: "number", str: "string"}.get(type(value), "")
    name = name or type(value).__name__
    if secret:
        return name
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return "an integer of many digits"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = f"{text[:37]}..." if len(text) > 40 else text
    return f'{name} "{text}"' if isinstance(value, str) else f"{name} {text}"


def duration(value: object) -> float:
    """Seconds of "24h", "90s", "1h30m" (Go's units) or of a plain number of seconds; above 0."""
    seconds: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(min(value, 10**12))
    elif isinstance(value, str) and len(value) <= 64:
        text = value.strip()
        if re.fullmatch(r"\d+(\.\d*)?", text, re.ASCII):
            seconds = float(text)
        elif text and re.fullmatch(f"(?:{_DURATION.pattern})+", text, re.ASCII):
            seconds = sum(_term(term) for term in _DURATION.findall(text))
    if seconds is None or math.isnan(seconds) or not seconds > 0:
        raise ValueError(f"found {shown(value)}; allowed: {DURATION_ALLOWED}")
    if seconds > _LONGEST_DURATION:
        raise ValueError(f"found {shown(value)}; allowed: at most ten years (87600h)")
    return seconds


def _term(term: str) -> float:
    number = term.rstrip("hmsuµn")
    return float(number) * _UNITS[term[len(number) :]]


def label(value: object) -> str:
    """A DNS-1123 label."""
    if not isinstance(value, str) or not _LABEL.fullmatch(value):
        raise ValueError(
            f"found {shown(value)}; allowed: at most 63 of a-z, 0-9 and -, "
            "with a letter or digit at both ends"
        )
    return value


def address(value: object) -> str:
    """`unix:///absolute/path`, or `host:port` (IPv6 in brackets; port 0: a free one)."""
    if isinstance(value, str):
        if value.startswith("unix:///") and len(value) > len("unix:///") and "\0" not in value:
            return value
        host, colon, port = value.rpartition(":")
        if (
            (colon and host and re.fullmatch(r"0|[1-9]\d{0,4}", port, re.ASCII))
            and int(port) < 65536
            and re.fullmatch(r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+", host)
        ):
            return value
    raise ValueError(
        f'found {shown(value)}; allowed: "unix:///path" or "host:port" ("127.0.0.1:7443")'
    )


def _positive(amount: int, value: object) -> int:
    if not 0 < amount < 2**63:
        raise ValueError(f"found {shown(value)}; allowed: an amount above 0")
    return amount


def cores(value: object) -> int:
    """Millicores of a CPU quantity."""
    return _positive(quantity.millicores(_quantity(value)), value)


def size(value: object) -> int:
    """Bytes of a memory quantity."""
    return _positive(quantity.as_int(_quantity(value)), value)


def _quantity(value: object) -> str | int | float:
    if isinstance(value, (str, int, float)):
        return value
    raise ValueError(f"found {shown(value)}; allowed: {quantity.ALLOWED}")


MONEY_ALLOWED = 'US dollars, 0 or more, with at most 6 decimals ("10", "$0.50")'


def money(value: object) -> Decimal:
    """US dollars, exact: "10", "$0.50", 10."""
    if isinstance(value, (str, int, float, Decimal)) and not isinstance(value, bool):
        text = str(value).strip().removeprefix("$")
        if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", text, re.ASCII):
            return Decimal(text)
    raise ValueError(f"found {shown(value)}; allowed: {MONEY_ALLOWED}")


def path(value: object) -> Path:
    """A file's path, `~` expanded; a relative one counts from the working directory."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"found {shown(value)}; allowed: the path of a file")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"found {shown(value)}: {error}") from None


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret is: `env:NAME` or `file:PATH`. The secret itself is read when it is used."""

    kind: str
    """env or file."""
    place: str

    @classmethod
    def parse(cls, value: object) -> SecretRef:
        """Of `env:NAME` or `file:PATH`; ValueError, which does not show the value, for others."""
        if isinstance(value, SecretRef):
            return value
        if isinstance(value, str):
            kind, _, place = value.partition(":")
            if kind == "env" and _VARIABLE.fullmatch(place):
                return cls("env", place)
            if kind == "file" and place and "\0" not in place and "\n" not in place:
                return cls("file", place)
        raise ValueError(
            f"found a {shown(value, secret=True)} that is not a reference; allowed: "
            "env:NAME or file:PATH (a secret itself never stands in the configuration)"
        )

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}"

    def read(self, env: Mapping[str, str]) -> bytes:
        """The secret. Raises Invalid where the variable or the file is not there."""
        if self.kind == "env":
            value = env.get(self.place)
            if value is None:
                raise Invalid(violations=[Violation("", "this variable is not set", str(self))])
            return value.encode("utf-8", "surrogateescape")
        try:
            return Path(self.place).expanduser().read_bytes()
        except (OSError, RuntimeError) as error:
            words = getattr(error, "strerror", None) or str(error)
            raise Invalid(violations=[Violation("", words, str(self))]) from None

    def text(self, env: Mapping[str, str]) -> str:
        """The secret as text, without the line end that editors add. Invalid as `read`."""
        try:
            return self.read(env).decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise Invalid(violations=[Violation("", "this is not UTF-8 text", str(self))]) from None

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$"}


_TEXT_OR_NUMBER = WithJsonSchema({"type": ["string", "number"]})

Duration = Annotated[float, BeforeValidator(duration), _TEXT_OR_NUMBER]
"""Seconds."""
Cores = Annotated[int, BeforeValidator(cores), _TEXT_OR_NUMBER]
"""Millicores."""
Size = Annotated[int, BeforeValidator(size), _TEXT_OR_NUMBER]
"""Bytes."""
Money = Annotated[Decimal, BeforeValidator(money), _TEXT_OR_NUMBER]
"""US dollars."""
Label = Annotated[str, BeforeValidator(label), WithJsonSchema({"type": "string"})]
Address = Annotated[str, BeforeValidator(address), WithJsonSchema({"type": "string"})]
FilePath = Annotated[Path, BeforeValidator(path), WithJsonSchema({"type": "string"})]
