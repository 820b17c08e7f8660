"""Kubernetes quantities ("250m", "2Gi", "1e3") as exact numbers.

The grammar and the rounding are those of `resource.Quantity` in k8s.io/apimachinery, less three
accidents of its parser: a lone sign or point (which it reads as 0) and an exponent that no
resource could have are refused.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_SCALE: dict[str, Fraction] = {
    **{suffix: Fraction(10) ** power for suffix, power in _DECIMAL.items()},
    **{suffix: Fraction(2**power) for suffix, power in _BINARY.items()},
}

_PATTERN = re.compile(
    r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)"
    r"(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]+))?"
)
_LONGEST = 64
"""Characters: int64 has 19 digits and a quantity at most 9 decimals."""

_LARGEST_EXPONENT = 30
"""Either way: beyond 2**63 there is no resource, and 10**-9 is the smallest step there is."""

_CAP = 2**63 - 1
"""Kubernetes caps quantities with a binary suffix here (maxAllowed in quantity.go)."""

_NANO = 10**9

ALLOWED = (
    "a number, alone or with one of n u m k M G T P E Ki Mi Gi Ti Pi Ei, or an exponent "
    '("250m", "0.5", "2Gi", "1e3")'
)
"""What a quantity may be, in the words of every error message about one."""

_SLIPS = {"K": "k", "KI": "Ki", "KB": "k", "KIB": "Ki"} | {
    written: meant
    for unit in "MGTPE"
    for written, meant in (
        (f"{unit}I", f"{unit}i"),
        (f"{unit}B", unit),
        (f"{unit}IB", f"{unit}i"),
        (unit, unit),
    )
}


def parse(text: str | int | float) -> Fraction:
    """The exact value of a quantity, in units of the resource (cores, bytes, pieces).

    What is finer than a nano is rounded away from zero, as the API server does. Raises ValueError
    with what was found and what is allowed.
    """
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise ValueError(f"found {_shown(text)}; allowed: {ALLOWED}")
    return _parse(text.strip() if isinstance(text, str) else repr(text))


@lru_cache(maxsize=1024)
def _parse(text: str) -> Fraction:
    match = _PATTERN.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(f"found {_shown(text)}; allowed: {ALLOWED}{_hint(text)}")
    sign, digits, suffix, exponent = match.groups()
    value = Fraction(digits)
    if exponent is not None:
        power = int(exponent)
        if abs(power) > _LARGEST_EXPONENT:
            raise ValueError(
                f"found {_shown(text)}; allowed: an exponent from "
                f"-{_LARGEST_EXPONENT} to {_LARGEST_EXPONENT}"
            )
        value *= Fraction(10) ** power
    elif suffix:
        value *= _SCALE[suffix]
        if suffix in _BINARY:
            value = min(value, Fraction(_CAP))
    if _NANO % value.denominator:
        value = Fraction(math.ceil(value * _NANO), _NANO)
    return -value if sign == "-" else value


def _shown(value: object) -> str:
    text = str(value)
    return f'"{text[:37]}..."' if len(text) > 40 else f'"{text}"'


def _hint(text: str) -> str:
    split = re.fullmatch(r"([+-]?[0-9.]+)\s*([A-Za-z]+)", text)
    if split is None:
        return ""
    meant = _SLIPS.get(split[2].upper())
    return f'; did you mean "{split[1]}{meant}"?' if meant else ""


def millicores(quantity: str | int | float | Fraction) -> int:
    """Thousandths of a core, rounded up. Raises ValueError as `parse` does."""
    return math.ceil(_value(quantity) * 1000)


def as_int(quantity: str | int | float | Fraction) -> int:
    """Whole units (bytes, pieces), rounded up. Raises ValueError as `parse` does."""
    return math.ceil(_value(quantity))


def _value(quantity: str | int | float | Fraction) -> Fraction:
    return quantity if isinstance(quantity, Fraction) else parse(quantity)


def format_cpu(millis: int) -> str:
    """The canonical text of a number of millicores: 2000 is "2", 250 is "250m"."""
    return str(millis // 1000) if millis % 1000 == 0 else f"{millis}m"


def format_bytes(count: int) -> str:
    """The canonical text of a number of bytes, in the largest binary unit that divides it."""
    for suffix, power in reversed(_BINARY.items()):
        if count and count % (1 << power) == 0:
            return f"{count >> power}{suffix}"
    return str(count)


def format_decimal(quantity: str | int | float | Fraction) -> str:
    """The canonical text of any value by decimal suffixes, exact: 3/2 is "1500m"."""
    value = _value(quantity)
    for suffix in ("E", "P", "T", "G", "M", "k", "", "m", "u", "n"):
        scaled = value / _SCALE[suffix]
        if scaled.denominator == 1 and (scaled or suffix == ""):
            return f"{scaled.numerator}{suffix}"
    return f"{math.ceil(value * _NANO)}n"
