"""Amounts of money as people read them."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal

HOUR = Decimal(3600)
"""Seconds."""
_SMALLEST = Decimal("0.0001")


def over(hourly: Decimal, seconds: float) -> Decimal:
    """What so many seconds cost at a price for an hour."""
    return hourly * Decimal(str(seconds)) / HOUR


def dollars(amount: Decimal) -> str:
    """`$12.35`, below a dollar `$0.0123`; what is not nothing is never shown as nothing."""
    return _shown(amount, ROUND_HALF_UP)


def at_most(amount: Decimal) -> str:
    """As `dollars`, rounded up: nothing costs more than what was said."""
    return _shown(amount, ROUND_CEILING)


def _shown(amount: Decimal, rounding: str) -> str:
    if 0 < amount < _SMALLEST:
        return f"${_SMALLEST}" if rounding == ROUND_CEILING else f"<${_SMALLEST}"
    step = Decimal("0.01") if amount >= 1 or not amount else _SMALLEST
    return f"${amount.quantize(step, rounding):,}"


def price(hourly: Decimal) -> str:
    """The price of an hour with all of its digits, at most six: `$0.012343`."""
    short = hourly.quantize(Decimal("0.000001"), ROUND_HALF_UP).normalize()
    return f"${short:f}"


def exact(amount: Decimal) -> str:
    """For programs: plain digits, to the millionth of a dollar."""
    return f"{amount.quantize(Decimal('0.000001'), ROUND_HALF_UP).normalize():f}"
