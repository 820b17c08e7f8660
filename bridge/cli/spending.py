"""Whether a run may be begun at its price: told, held against the limits, asked about."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from bridge.cli.bill import lines, total
from bridge.cli.output import plain
from bridge.cost.money import at_most
from bridge.errors import Invalid, QuotaExceeded, Violation

if TYPE_CHECKING:
    from bridge.cli.bill import Bill


def money_of(text: str | None, flag: str) -> Decimal | None:
    """An amount that was typed, in US dollars. Invalid."""
    if text is None:
        return None
    from bridge.config import money

    try:
        return money(text)
    except ValueError as error:
        raise Invalid(violations=[Violation(flag, str(error))]) from None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may cost, in US dollars."""

    max_cost: Decimal | None
    """Above it, or where nobody can say, nothing is started; None: not given."""
    confirm_above: Decimal
    """Above it, or where nobody can say, somebody is asked."""
    yes: bool
    """Nobody need be asked."""


def settle(bill: Bill, limits: Limits, *, output: str, quiet: bool) -> None:
    """Returns where the run may begin.

    QuotaExceeded where it can cost more than it may; Invalid where it would have to be confirmed
    and nobody can, or did.
    """
    if not bill.bills:
        return
    if output == "text" and not quiet:
        for line in lines(bill, time.time()):
            click.echo(plain(line), err=True)
    _keep_limit(bill, limits.max_cost)
    dollars = bill.dollars
    confirm = limits.confirm_above
    if bill.simulated or limits.yes or (dollars is not None and dollars <= confirm):
        return
    said = f"{total(bill)}, and confirm_above is {at_most(confirm)}"
    if not (sys.stdin.isatty() and sys.stderr.isatty() and output == "text"):
        raise Invalid(violations=[Violation("--yes", f"required: {said}; nothing was started")])
    if not click.confirm(f"{said}. Run it?", err=True):
        raise Invalid("not confirmed; nothing was started")


def _keep_limit(bill: Bill, max_cost: Decimal | None) -> None:
    dollars = bill.dollars
    if max_cost is None or (dollars is not None and dollars <= max_cost):
        return
    limit = f"--max-cost allows {at_most(max_cost)} for the whole run"
    raise QuotaExceeded(f"{total(bill)}, and {limit}; nothing was started")
