"""The differences between two recordings of a case, and which of them are known. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tools.parity.facets import Facet, Key, Seen

ANY = "*"


@dataclass(frozen=True)
class Difference:
    """One facet that is not the same on both nodes."""

    case: str
    object: str
    facet: str
    real: str
    """On the real kubelet: its values, or those that only it has."""
    ours: str

    def __str__(self) -> str:
        return f"{self.case}: {self.object}: {self.facet}: kubelet: {self.real}; ours: {self.ours}"


@dataclass(frozen=True)
class Known:
    """Differences that have their reason: patterns as in file names.

    With `only_real` or `only_ours` it is about single values (an event, a field, one state among
    others) that may be missing on the other side; else about a difference as a whole.
    """

    reason: str
    cases: Sequence[str] = (ANY,)
    object: str = ANY
    facet: str = ANY
    real: str = ANY
    ours: str = ANY
    only_real: Sequence[str] = ()
    only_ours: Sequence[str] = ()
    general: bool = False
    """Of any pod: a manifest that differs in nothing else is the same."""
    sometimes: bool = False
    """By chance: nobody wonders where it is not there."""

    def covers(self, one: Difference) -> bool:
        """Whether it is this difference's reason."""
        return (
            not (self.only_real or self.only_ours)
            and self._is_about(one.case, one.object, one.facet)
            and fnmatchcase(one.real, self.real)
            and fnmatchcase(one.ours, self.ours)
        )

    def excuses(self, case: str, key: Key, text: str, *, real: bool) -> bool:
        """Whether this value may be on the one side alone."""
        patterns = self.only_real if real else self.only_ours
        return self._is_about(case, *key) and any(fnmatchcase(text, one) for one in patterns)

    def _is_about(self, case: str, thing: str, facet: str) -> bool:
        return (
            any(fnmatchcase(case, one) for one in self.cases)
            and fnmatchcase(thing, self.object)
            and fnmatchcase(facet, self.facet)
        )

    @classmethod
    def read(cls, found: Iterable[Mapping[str, Any]]) -> list[Known]:
        """What a file has of them."""
        return [cls(**one) for one in found]


@dataclass(frozen=True)
class Verdict:
    """What became of one case."""

    case: str
    differences: Sequence[Difference]
    """What differs as a whole, with a reason or without."""
    excused: Sequence[Known]
    """Why single values are on one side alone."""


def judge(
    case: str,
    real: Mapping[Key, Facet],
    ours: Mapping[Key, Facet],
    known: Sequence[Known],
) -> Verdict:
    """Compares both sides of a case."""
    excused: dict[str, Known] = {}
    left, right = dict(real), dict(ours)
    for one in compare(case, real, ours):
        key = (one.object, one.facet)
        for side, others in ((left, ours), (right, real)):
            if key in side:
                values, why = _excused(
                    case, key, (side[key], others.get(key, Facet(()))), known, real=side is left
                )
                side[key] = values
                excused |= why
    return Verdict(case, compare(case, left, right), list(excused.values()))


def _excused(
    case: str,
    key: Key,
    both: tuple[Facet, Facet],
    known: Sequence[Known],
    *,
    real: bool,
) -> tuple[Facet, dict[str, Known]]:
    """The first of both without what may be there alone (in a list: as what may be missing), and
    the reasons, by their words."""
    mine, other = both
    there = {one.text for one in other.values}
    kept, why = [], {}
    for value in mine.values:
        alone = mine.ordered or value.text not in there
        entry = next((one for one in known if one.excuses(case, key, value.text, real=real)), None)
        if entry is None or not alone:
            kept.append(value)
            continue
        why[entry.reason] = entry
        if mine.ordered:
            kept.append(Seen(value.text, brief=True))
    return Facet(kept, mine.ordered), why


def compare(case: str, real: Mapping[Key, Facet], ours: Mapping[Key, Facet]) -> list[Difference]:
    """What differs between the facets of two recordings."""
    made = []
    nothing = Facet(())
    for key in sorted({*real, *ours}):
        mine, theirs = ours.get(key, nothing), real.get(key, nothing)
        if not agree(theirs, mine):
            made.append(Difference(case, *key, *_shown(theirs, mine)))
    return made


def agree(one: Facet, other: Facet) -> bool:
    """Whether they say the same, but for values that were there too briefly."""
    if not (one.ordered and other.ordered):
        return {value.text for value in one.values} == {value.text for value in other.values}
    return distance(one.values, other.values) == 0


def distance(one: Sequence[Seen], other: Sequence[Seen]) -> int:
    """How many values one has and the other lacks, in the best alignment; brief ones are free."""
    # Values that are the same once a brief one between them is left out are one value.
    row = [0]
    for value in other:
        row.append(row[-1] + (not value.brief))
    for mine in one:
        above, row = row, [row[0] + (not mine.brief)]
        for number, value in enumerate(other, 1):
            best = min(above[number] + (not mine.brief), row[-1] + (not value.brief))
            if mine.text == value.text:
                # The same one may stand for several: between them was what the other did not see.
                best = min(best, above[number - 1], above[number], row[-1])
            row.append(best)
    return row[-1]


def _shown(real: Facet, ours: Facet) -> tuple[str, str]:
    if real.ordered and ours.ordered:
        return str(real), str(ours)
    texts = [{value.text for value in one.values} for one in (real, ours)]
    mine, theirs = (
        Facet([Seen(one) for one in sorted(found)], ordered=False)
        for found in (
            texts[0] - texts[1],
            texts[1] - texts[0],
        )
    )
    return str(mine), str(theirs)


def reason(one: Difference, known: Sequence[Known]) -> Known | None:
    """Why it is there; None where nobody knows."""
    return next((entry for entry in known if entry.covers(one)), None)
