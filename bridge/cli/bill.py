"""What manifests would cost at most, put together from what backends say; and how that is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from bridge import quantity
from bridge.cost.money import at_most, exact, price
from bridge.cost.worst import Extent, Worst, span, worst

if TYPE_CHECKING:
    from bridge.adapter import Quote
    from bridge.cli.assess import Verdict
    from bridge.config import BackendConfig
    from bridge.cost.tariff import Tariff
    from bridge.local.manifests import Loaded

_FREE = Worst(Decimal(0), "free")


@dataclass(frozen=True, slots=True)
class Place:
    """One backend that can run an object, and the most that it can cost there."""

    verdict: Verdict
    worst: Worst

    @property
    def words(self) -> str:
        """`free`, `$0.37`, or why nobody can say."""
        if not self.verdict.bills:
            return "free"
        return self.worst.words if self.worst.dollars is None else at_most(self.worst.dollars)


@dataclass(frozen=True, slots=True)
class Item:
    """One object: how many pods it makes, and where they may run, the first choice first."""

    loaded: Loaded
    extent: Extent
    places: tuple[Place, ...]
    refusals: tuple[Verdict, ...]
    """Backends that cannot run it."""

    @property
    def name(self) -> str:
        """`job/words`."""
        return f"{self.loaded.obj['kind'].lower()}/{self.loaded.obj['metadata']['name']}"

    @property
    def pods(self) -> str:
        """`18 (3 at once)`."""
        count = "no limit" if self.extent.pods is None else str(self.extent.pods)
        once = self.extent.at_once
        return count if count == str(once) else f"{count} ({once} at once)"

    @property
    def dollars(self) -> Decimal | None:
        """The most that it can cost, wherever it runs in the end; None: nobody can say."""
        return _most(place.worst.dollars for place in self.places)


@dataclass(frozen=True, slots=True)
class Bill:
    """All objects of a run."""

    items: tuple[Item, ...]

    @property
    def dollars(self) -> Decimal | None:
        """The most that all of it can cost; None: nobody can say."""
        found = [item.dollars for item in self.items]
        return None if None in found else sum((one for one in found if one), Decimal(0))

    @property
    def bills(self) -> bool:
        """Whether any of it may run where that costs money."""
        return any(place.verdict.bills for item in self.items for place in item.places)

    @property
    def simulated(self) -> bool:
        """Whether all that would cost is only simulated."""
        billing = [
            place.verdict for item in self.items for place in item.places if place.verdict.bills
        ]
        return bool(billing) and all(one.simulated for one in billing)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Why nobody can say: each reason with its object, once."""
        found = {
            f"{item.name}: {place.worst.words}": None
            for item in self.items
            for place in item.places
            if place.worst.dollars is None
        }
        return tuple(found)


def _most(found: Iterator[Decimal | None]) -> Decimal | None:
    amounts = list(found)
    known = [one for one in amounts if one is not None]
    return max(known, default=Decimal(0)) if len(known) == len(amounts) else None


def eligible_names(
    verdicts: Sequence[Verdict], backends: Sequence[BackendConfig]
) -> dict[int, list[str]]:
    """By the `id` of a `Loaded`, the names of the backends on which it may be placed at all."""
    from bridge.cli.assess import eligible_for

    found = {id(one.loaded): one.loaded for one in verdicts}
    return {key: eligible_for(loaded, backends) for key, loaded in found.items()}


def bill(verdicts: Sequence[Verdict], max_run: float, eligible: dict[int, list[str]]) -> Bill:
    """`verdicts` of all objects; `eligible`: by the `id` of a `Loaded` the names of the backends on
    which it may be placed at all, in their order."""
    items = []
    for loaded in {id(one.loaded): one.loaded for one in verdicts}.values():
        names = eligible[id(loaded)]
        mine = [one for one in verdicts if one.loaded is loaded and one.backend in names]
        mine.sort(key=lambda one: names.index(one.backend))
        size = extent_of(loaded.obj)
        places = tuple(Place(one, _worst(one, size, max_run)) for one in mine if one.possible)
        items.append(Item(loaded, size, places, tuple(one for one in mine if not one.possible)))
    return Bill(tuple(items))


def extent_of(obj: dict[str, Any]) -> Extent:
    """How many pods a Pod, a Job or one run of a CronJob makes."""
    from bridge.local.jobs.cronjobs import from_cronjob
    from bridge.local.jobs.extent import extent
    from bridge.local.jobs.model import JobView
    from bridge.pods.defaults import with_defaults

    if obj["kind"] == "Pod":
        return Extent()
    job = with_defaults(from_cronjob(obj, 0.0)) if obj["kind"] == "CronJob" else obj
    return extent(JobView.of({**job, "metadata": {**job["metadata"], "uid": ""}}))


def _worst(verdict: Verdict, size: Extent, max_run: float) -> Worst:
    if not verdict.bills:
        return _FREE
    if verdict.quote is None or verdict.workload is None:
        return Worst(None, f"{verdict.backend} could not be asked for its price")
    workload = verdict.workload
    return worst(verdict.quote, size, span(workload, max_run), workload.grace)


def tariff_of(bill: Bill) -> Tariff:
    """The prices, for what the run has cost once it is over."""
    from bridge.cost.tariff import Rate, Tariff

    rates = {}
    for item in bill.items:
        for place in item.places:
            quote = place.verdict.quote
            if quote is not None and quote.hourly is not None:
                key = (place.verdict.backend, _owner(item.loaded.obj))
                rates[key] = Rate(quote.hourly, quote.least)
    return Tariff(rates, bill.simulated)


def _owner(obj: dict[str, Any]) -> str:
    from bridge.local.jobs.cronjobs import from_cronjob

    made = from_cronjob(obj, 0.0) if obj["kind"] == "CronJob" else obj
    metadata = made["metadata"]
    return f"{made['kind']}/{metadata.get('namespace', 'default')}/{metadata['name']}"


# For people.


def lines(bill: Bill, now: float) -> Iterator[str]:
    """What a run says before the first call that costs: where, what, how much an hour, how much at
    most. Nothing where all of it is free."""
    if not bill.bills:
        return
    told: set[str] = set()
    for item in bill.items:
        for place in item.places:
            verdict = place.verdict
            if not verdict.bills:
                continue
            if verdict.backend not in told:
                told.add(verdict.backend)
                yield account_line(verdict, now)
            yield f"  {item.name}: {_pods(item)}: {_limit(place)}"
            if (quote := verdict.quote) is not None:
                yield f"    {_sizes(quote)}"
    yield total(bill)


def total(bill: Bill) -> str:
    """`the run can cost at most $0.37`."""
    run = "the run (simulated) would cost" if bill.simulated else "the run can cost"
    if (dollars := bill.dollars) is not None:
        return f"{run} at most {at_most(dollars)}"
    return f"nobody can say what {run} at most: {'; '.join(bill.unknown)}"


def account_line(verdict: Verdict, now: float) -> str:
    """`fargate: account 123456789012, us-east-1; list prices of 2026-11-22 (7 days old)`."""
    simulated = " (simulated)" if verdict.simulated else ""
    if (quote := verdict.quote) is None:
        return f"{verdict.backend}{simulated}: its price is not known: {verdict.problem}"
    where = f"account {quote.account}, {quote.region}"
    return f"{verdict.backend}{simulated}: {where}{_origin(quote, now)}"


def _origin(quote: Quote, now: float) -> str:
    if quote.priced_on is None:
        return ""
    return f"; list prices of {quote.priced_on} ({_age(quote.priced_on, now)})"


def _age(day: date, now: float) -> str:
    days = (datetime.fromtimestamp(now, UTC).date() - day).days
    if days <= 0:
        return "today"
    return f"{days} day{'' if days == 1 else 's'} old"


def _pods(item: Item) -> str:
    if item.extent.pods == 1:
        return "1 pod"
    count = "any number of" if item.extent.pods is None else f"at most {item.extent.pods}"
    return f"{count} pods, {item.extent.at_once} at once"


def _sizes(quote: Quote) -> str:
    asked = size_words(quote.requested) or "nothing"
    each = "price not known" if quote.hourly is None else f"{price(quote.hourly)} an hour"
    more = f" ({quote.words})" if quote.words else ""
    return f"each requests {asked}; billed {size_words(quote.billed)}: {each}{more}"


def size_words(size: Any) -> str:
    """`250m CPU, 512Mi memory`."""
    names = {"cpu": "CPU", "memory": "memory", "ephemeral-storage": "storage"}
    shown = []
    for name, word in names.items():
        if (amount := size.get(name)) is not None:
            text = quantity.format_cpu(amount) if name == "cpu" else quantity.format_bytes(amount)
            shown.append(f"{text} {word}")
    return ", ".join(shown)


def _limit(place: Place) -> str:
    if place.worst.dollars is None:
        return place.worst.words
    return f"at most {at_most(place.worst.dollars)} ({place.worst.words})"


# For programs.


def as_json(bill: Bill) -> dict[str, Any]:
    """Money is decimal text in US dollars; `atMost` null: nobody can say, `unknown` says why."""
    return {
        "currency": "USD",
        "simulated": bill.simulated,
        "atMost": _text(bill.dollars),
        "unknown": list(bill.unknown),
        "objects": [_item(one) for one in bill.items],
    }


def _item(item: Item) -> dict[str, Any]:
    return {
        "object": item.name,
        "namespace": item.loaded.obj["metadata"]["namespace"],
        "source": item.loaded.source,
        "pods": {"atMost": item.extent.pods, "atOnce": item.extent.at_once},
        "atMost": _text(item.dollars) if item.places else None,
        "places": [_place(one) for one in item.places],
        "refused": [
            {
                "backend": one.backend,
                "reasons": [
                    {"field": each.field, "message": each.message} for each in one.violations
                ],
            }
            for one in item.refusals
        ],
    }


def _place(place: Place) -> dict[str, Any]:
    verdict = place.verdict
    out: dict[str, Any] = {
        "backend": verdict.backend,
        "simulated": verdict.simulated,
        "free": not verdict.bills,
        "atMost": _text(place.worst.dollars),
        "why": place.worst.words,
    }
    if verdict.problem:
        out["problem"] = verdict.problem
    if (quote := verdict.quote) is not None:
        out |= {
            "account": quote.account,
            "region": quote.region,
            "requested": _amounts(quote.requested),
            "billed": _amounts(quote.billed),
            "perHour": _text(quote.hourly),
            "leastSeconds": quote.least,
            "spot": quote.spot,
            "prices": {"date": str(quote.priced_on or ""), "source": quote.source},
            "words": quote.words,
        }
    return out


def _amounts(size: Any) -> dict[str, str]:
    return {
        name: quantity.format_cpu(amount) if name == "cpu" else quantity.format_bytes(amount)
        for name, amount in size.items()
    }


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else exact(amount)
