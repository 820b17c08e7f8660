from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", Fraction(0)),
        ("250m", Fraction(1, 4)),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("5.", Fraction(5)),
        ("+1", Fraction(1)),
        ("-1Ki", Fraction(-1024)),
        ("1.5Gi", Fraction(3 * 2**29)),
        ("1E", Fraction(10**18)),
        ("1E3", Fraction(1000)),
        ("1e-3", Fraction(1, 1000)),
        ("12e6", Fraction(12_000_000)),
        ("1n", Fraction(1, 10**9)),
        ("0.1n", Fraction(1, 10**9)),
        ("-0.1n", Fraction(-1, 10**9)),
        ("100u", Fraction(1, 10**4)),
        (" 1Gi ", Fraction(2**30)),
        ("16Ei", Fraction(2**63 - 1)),
        (2, Fraction(2)),
        (0.1, Fraction(1, 10)),
    ],
)
def test_value(text: str | float, value: Fraction) -> None:
    assert quantity.parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "-", "1e", "1K", "1ki", "1 Gi", "1Gi2", "1.2.3", "a", "0x10", "1e99", "1_000"),
        *("١", "9" * 65, float("inf"), float("nan"), True, None),
    ],
)
def test_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"found .*; allowed: "):
        quantity.parse(text)


@pytest.mark.parametrize(
    ("text", "meant"), [("1GB", "1G"), ("2gi", "2Gi"), ("3K", "3k"), ("4 mib", "4Mi")]
)
def test_slips_are_named(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f'did you mean "{meant}"'):
        quantity.parse(text)


def test_rounding_is_up() -> None:
    assert quantity.millicores("0.1m") == 1
    assert quantity.millicores("1.5") == 1500
    assert quantity.as_int("1.1") == 2
    assert quantity.as_int(Fraction(1, 3)) == 1


def test_formats() -> None:
    assert quantity.format_cpu(2000) == "2"
    assert quantity.format_cpu(250) == "250m"
    assert quantity.format_bytes(2**31) == "2Gi"
    assert quantity.format_bytes(1000) == "1000"
    assert quantity.format_bytes(0) == "0"
    assert quantity.format_decimal("1500m") == "1500m"
    assert quantity.format_decimal(0) == "0"


@given(st.fractions(0, 10**15, max_denominator=1000))
def test_format_decimal_keeps_what_a_nano_can_hold(value: Fraction) -> None:
    rounded = quantity.parse(quantity.format_decimal(value))
    assert 0 <= rounded - value < Fraction(1, 10**9)


@given(st.text(max_size=12))
def test_only_value_errors(text: str) -> None:
    with contextlib.suppress(ValueError):
        quantity.parse(text)
