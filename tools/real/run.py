"""One run: what it can cost, the suite, and what is left afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import io
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import botocore
import pytest

import bridge
from bridge.cli.bill import size_words
from bridge.cost.money import at_most, dollars, price
from bridge.errors import BridgeError, Invalid, QuotaExceeded, Unavailable, Violation
from tools.real import account as accounts
from tools.real import work
from tools.real.account import Look
from tools.real.meter import Meter, Terms
from tools.real.plugin import ROOT, SUITE, Account, Collected, Plugin
from tools.real.recorder import Recorder
from tools.real.redact import Redactor

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for."""

    config: str | None
    backend: str | None
    max_cost: Decimal
    """US dollars."""
    image: str = work.IMAGE
    to: Path | None = None
    """The transcript's file; None: one of the time's name, here."""
    only: str = ""
    """pytest's -k."""
    yes: bool = False
    pace: float = 2.0
    """Seconds between looks at what changes."""
    patience: float = 600.0
    """Seconds after which a test gives up."""


def run(wanted: Wanted, say: Say) -> int:
    """All of it; the exit code: 0, or 1 where a test failed or something may be left, 3 where
    money or an account stopped it, 130 after Ctrl-C. Invalid, QuotaExceeded, Unauthorized,
    Unavailable: nothing was started."""
    name, given = accounts.backend_of(wanted.config, wanted.backend)
    owner = f"podbridge-real-{secrets.token_hex(4)}"
    file = wanted.to or Path(f"transcript-aws-{datetime.now(UTC):%Y%m%dT%H%M%S}.jsonl")
    if file.exists():
        raise Invalid(violations=[Violation("--to", f"{file} is there: name another one")])
    tests = _tests(wanted.only)
    with tempfile.TemporaryDirectory(prefix="podbridge-real-") as state:
        options = accounts.narrowed(given, owner, pace=wanted.pace, state=state)
        seen = asyncio.run(accounts.look(name, options))
        terms = _terms(seen, tests, wanted.max_cost)
        for line in _told(name, seen, terms, tests, simulated=accounts.simulated(options)):
            say(line)
        _agreed(seen, terms, wanted, say)
        try:
            out = file.open("x", encoding="utf-8")
        except OSError as error:
            raise Invalid(violations=[Violation("--to", f"{file}: {error.strerror}")]) from None
        with out:
            redactor = Redactor(accounts.names(options, seen.region))
            if wanted.image != work.IMAGE:
                redactor.image(wanted.image)
            recorder = Recorder(out, redactor)
            recorder.begin(
                {
                    "cloud": "aws",
                    "simulated": accounts.simulated(options),
                    "day": f"{datetime.now(UTC):%Y-%m-%d}",
                    "podbridge": bridge.__version__,
                    "botocore": botocore.__version__,
                }
            )
            meter = Meter(terms)
            made = Account(
                name, options, wanted.image, meter, recorder, wanted.pace, wanted.patience
            )
            say(f"owner {owner}; transcript {file}")
            return _run(made, wanted.only, say)


def clean_up(config: str | None, backend: str | None, owner: str, say: Say) -> int:
    """Removes what a run has left; the exit code: 1 where something may still be there. Errors as
    of `run`."""
    name, given = accounts.backend_of(config, backend)
    with tempfile.TemporaryDirectory(prefix="podbridge-real-") as state:
        options = accounts.narrowed(given, owner, pace=1.0, state=state)
        left = asyncio.run(accounts.sweep(name, options, accounts.Made()))
    for one in left:
        say(f"left: {one}")
    say(f"nothing of {owner} runs" if not left else f"some of {owner} is left")
    say("task definitions and log streams are not looked for: they cost nothing")
    return 1 if left else 0


def _tests(only: str) -> list[str]:
    """The names of what the selection has. Invalid: nothing, or no selection."""
    found = Collected()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = pytest.main([*_arguments(only), "--collect-only"], plugins=[found])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise Invalid(violations=[Violation("-k", f'found "{only}"; pytest does not take it')])
    if not found.tests:
        raise Invalid(violations=[Violation("-k", f'found "{only}"; no test has such a name')])
    return found.tests


def _arguments(only: str) -> list[str]:
    return [
        *("--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), str(SUITE)),
        *("-p", "no:cacheprovider", "-o", "faulthandler_timeout=0", "-vv", "--tb", "short"),
        *(("-k", only) if only else ()),
    ]


# Money.


def _terms(seen: Look, tests: Sequence[str], limit: Decimal) -> Terms:
    quote = seen.quote
    if quote.hourly is None:
        raise Unavailable(quote.words)
    longest = work.LIFE + work.GRACE + quote.around
    return Terms(quote.hourly, quote.least, longest, work.most(tests), limit)


def _told(
    name: str, seen: Look, terms: Terms, tests: Sequence[str], *, simulated: bool
) -> Iterator[str]:
    quote = seen.quote
    mark = " (an address of its own: nothing may be billed)" if simulated else ""
    yield f"{name}: account {quote.account}, {seen.region}{mark}"
    yield f"  {len(tests)} tests, at most {terms.tasks} tasks of {size_words(quote.billed)}"
    longest = f"{terms.longest:g} s ({terms.longest / 3600:.2f} h) at most"
    yield f"  each ends by itself once it has started: {longest}"
    when = f"list prices of {quote.priced_on}, {quote.source}"
    yield f"  {price(terms.hourly)} an hour for each; {when}"
    yield f"  {at_most(terms.worst * terms.tasks)} at most; the limit is {at_most(terms.limit)}"


def _agreed(seen: Look, terms: Terms, wanted: Wanted, say: Say) -> None:
    """Returns where it may begin."""
    most = terms.worst * terms.tasks
    if most > terms.limit:
        words = f"it can cost {at_most(most)}, and --max-cost allows {at_most(terms.limit)}"
        raise QuotaExceeded(f"{words}; nothing was started. -k selects fewer tests")
    if seen.problems:
        for one in seen.problems:
            say(f"{one.subject}: {one.message}")
            if one.remedy:
                say(f"what mends it:\n{one.remedy}")
        raise Unavailable("the account is not ready for it, as said above; nothing was started")
    if wanted.yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        words = "required where there is no terminal to ask; nothing was started"
        raise Invalid(violations=[Violation("--yes", words)])
    try:
        said = input("Run it? [y/N] ")
    except EOFError:
        said = ""
    if said.strip().lower() not in ("y", "yes"):
        raise Invalid("not confirmed; nothing was started")


# The suite.


def _run(made: Account, only: str, say: Say) -> int:
    plugin = Plugin(made)
    told: list[int] = []

    def interrupt(number: int, _: object) -> None:
        told.append(number)
        raise KeyboardInterrupt

    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        # nohup ignores the latter.
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    code: int = pytest.ExitCode.INTERRUPTED
    try:
        code = pytest.main(_arguments(only), plugins=[plugin])
    except KeyboardInterrupt:
        say("interrupted")
    finally:
        left = _swept(made, say)
        for number, handler in before.items():
            signal.signal(number, handler)
    meter, recorder = made.meter, made.recorder
    billed = f"{meter.tasks} tasks were started; they cost about {dollars(meter.spent)}"
    say(f"{billed} (at most {at_most(meter.committed)})")
    say(f"{recorder.calls} calls, of which {recorder.written} are in the transcript")
    if problem := plugin.stopped or meter.refused:
        say(f"stopped: {problem}")
        return 3
    if code == pytest.ExitCode.INTERRUPTED:
        return 128 + (told[0] if told else signal.SIGINT)
    return 1 if code or left else 0


def _swept(made: Account, say: Say) -> bool:
    """Whether anything that is billed may be left; all that is left is said."""
    say("removing what is left")
    again = f"python -m tools.real clean-up {made.options.owner}"
    try:
        left = asyncio.run(_bounded(made))
    except KeyboardInterrupt:
        say(f"interrupted: something may be left; {again}")
        return True
    except (BridgeError, TimeoutError) as error:
        words = str(error) or "it took too long"
        say(f"something may be left ({words}); {again}")
        return True
    for one in left:
        say(f"left: {one}")
    if made.meter.unknown:
        say(f"nobody answered for {made.meter.unknown} {accounts.TASKS}; {again}")
    elif not left:
        say("nothing is left")
    return bool(made.meter.unknown) or any(what in one for one in left for what in accounts.BILLED)


async def _bounded(made: Account) -> Sequence[str]:
    # Whatever is tried again ends before that.
    async with asyncio.timeout(2 * made.patience):
        return await accounts.sweep(made.name, made.options, made.made, made.patience)
