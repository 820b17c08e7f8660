from __future__ import annotations

from decimal import Decimal

import pytest

from bridge.adapter import Quote
from bridge.cost.money import at_most, dollars, exact, over, price
from bridge.cost.tariff import FREE, Rate, Tariff
from bridge.cost.worst import UNBOUNDED, Extent, Span, span, worst
from bridge.workload import Container, Identity, RestartPolicy, RestartRule, Role, Workload

D = Decimal
WHO = Identity("c", "n", "default", "p", "u")
HOURLY = Quote("1", "r", {}, {}, D("3.6"))
"""A dollar for a thousand seconds."""
NEVER, ON_FAILURE = RestartPolicy.NEVER, RestartPolicy.ON_FAILURE


def pod(
    *containers: tuple[Role, RestartPolicy], deadline: float | None = None, rule: bool = False
) -> Workload:
    rules = (RestartRule(True, frozenset({3})),) if rule else ()
    made = [
        Container(str(at), role, "busybox", restart_policy=policy, restart_rules=rules)
        for at, (role, policy) in enumerate(containers)
    ]
    return Workload(WHO, tuple(made), deadline=deadline)


@pytest.mark.parametrize(
    ("amount", "shown", "most", "plain"),
    [
        ("0", "$0.00", "$0.00", "0"),
        ("0.00001", "<$0.0001", "$0.0001", "0.00001"),
        ("0.01234321", "$0.0123", "$0.0124", "0.012343"),
        ("0.5", "$0.5000", "$0.5000", "0.5"),
        ("1", "$1.00", "$1.00", "1"),
        ("12.341", "$12.34", "$12.35", "12.341"),
        ("1234567.899", "$1,234,567.90", "$1,234,567.90", "1234567.899"),
    ],
)
def test_amounts_in_words(amount: str, shown: str, most: str, plain: str) -> None:
    assert (dollars(D(amount)), at_most(D(amount)), exact(D(amount))) == (shown, most, plain)


def test_prices_keep_their_digits_and_money_is_exact() -> None:
    assert price(D("0.04048") / 4 + D("0.004445") / 2) == "$0.012343"
    assert price(D(10)) == "$10"
    assert over(D("0.1"), 0.3) == D("0.1") * D("0.3") / 3600


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        (pod((Role.MAIN, NEVER)), Span(1000.0, "max_run 1000 s")),
        (
            pod((Role.INIT, NEVER), (Role.MAIN, NEVER), (Role.MAIN, NEVER)),
            Span(2000.0, "2 times max_run 1000 s"),
        ),
        (
            pod((Role.SIDECAR, RestartPolicy.ALWAYS), (Role.MAIN, NEVER)),
            Span(1000.0, "max_run 1000 s"),
        ),
        (pod((Role.MAIN, NEVER), deadline=60), Span(60, "activeDeadlineSeconds 60")),
        (pod((Role.MAIN, NEVER), deadline=5000), Span(1000.0, "max_run 1000 s")),
        (pod((Role.MAIN, ON_FAILURE)), Span(None, UNBOUNDED)),
        (pod((Role.MAIN, NEVER), rule=True), Span(None, UNBOUNDED)),
        (pod((Role.INIT, ON_FAILURE), (Role.MAIN, NEVER)), Span(None, UNBOUNDED)),
        (pod((Role.MAIN, ON_FAILURE), deadline=5000), Span(5000, "activeDeadlineSeconds 5000")),
    ],
)
def test_how_long_a_pod_may_run(workload: Workload, expected: Span) -> None:
    assert span(workload, 1000.0) == expected


LONG = Span(1000.0, "max_run 1000 s")
ENDLESS = Span(None, UNBOUNDED)


@pytest.mark.parametrize(
    ("extent", "longest", "times", "expected"),
    [
        (Extent(), LONG, (0, 0, 0), "1"),
        (Extent(), LONG, (30, 0, 20), "1.05"),
        (Extent(), Span(10, "x"), (0, 60, 0), "0.06"),
        (Extent(7, 2), LONG, (0, 0, 0), "7"),
        (Extent(7, 2, 100.0), LONG, (0, 0, 0), "0.2"),
        # Each pod that is begun is billed for a minute at least, however short it is.
        (Extent(7, 2, 100.0), LONG, (0, 60, 0), "0.62"),
        (Extent(7, 2, 100.0), ENDLESS, (10, 0, 0), "0.27"),
        (Extent(1, 1, 100.0), ENDLESS, (0, 60, 0), "0.1"),
        (Extent(0, 0), LONG, (0, 60, 0), "0"),
        (Extent(), ENDLESS, (0, 0, 0), None),
        (Extent(None, 2, 100.0, "endless"), LONG, (0, 0, 0), None),
    ],
)
def test_the_most_that_it_can_cost(
    extent: Extent, longest: Span, times: tuple[float, float, float], expected: str | None
) -> None:
    grace, least, around = times
    quote = Quote("1", "r", {}, {}, D("3.6"), least=least, around=around)
    found = worst(quote, extent, longest, grace).dollars
    assert found == (None if expected is None else D(expected))


def test_why_nobody_can_say() -> None:
    assert worst(HOURLY, Extent(), ENDLESS, 0).words == "unbounded: no activeDeadlineSeconds"
    assert worst(HOURLY, Extent(None, endless="because"), LONG, 0).words == "unbounded: because"
    unknown = Quote("1", "r", {}, {}, None, words="no price for r")
    assert worst(unknown, Extent(), LONG, 0).words == "no price for r"


def test_what_a_pod_has_cost() -> None:
    rates = {
        ("here", "Job/default/a"): Rate(D("3.6"), 60.0),
        ("there", "Job/default/b"): Rate(D(1)),
    }
    tariff = Tariff(rates, simulated=True)
    assert tariff.cost("here", "Job/default/a", 1000) == D(1)
    assert tariff.cost("here", "Job/default/a", 1) == D("0.06")
    assert tariff.cost("", "Job/default/b", 3600) == D(1)
    assert tariff.cost("there", "Job/default/a", 1) is None
    assert Tariff.from_json(tariff.to_json()) == tariff
    assert FREE.cost("here", "Job/default/a", 1) is None
