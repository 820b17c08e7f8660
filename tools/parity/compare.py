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

    With `only_real` or `only_ours` it is about single values of a set (an event, a field) that are
    on one side alone: they are taken out before the rest is compared.
    """

    reason: str
    cases: Sequence[str] = (ANY,)
    object: str = ANY
    facet: str = ANY
    real: str = ANY
    ours: str = ANY
    only_real: Sequence[str] = ()
    only_ours: Sequence[str] = ()

    def covers(self, one: Difference) -> bool:
        """Whether it is this difference's reason."""
        return (
            not (self.only_real or self.only_ours)
            and any(fnmatchcase(one.case, case) for case in self.cases)
            and fnmatchcase(one.object, self.object)
            and fnmatchcase(one.facet, self.facet)
            and fnmatchcase(one.real, self.real)
            and fnmatchcase(one.ours, self.ours)
        )

    def excuses(self, case: str, key: Key, text: str, *, real: bool) -> bool:
        """Whether this value may be on the one side alone."""
        patterns = self.only_real if real else self.only_ours
        return (
            any(fnmatchcase(case, one) for one in self.cases)
            and fnmatchcase(key[1], self.facet)
            and any(fnmatchcase(text, one) for one in patterns)
        )

    @classmethod
    def read(cls, found: Iterable[Mapping[str, Any]]) -> list[Known]:
        """What a file has of them."""
        return [cls(**one) for one in found]


def excused(
    case: str,
    sides: tuple[Mapping[Key, Facet], Mapping[Key, Facet]],
    known: Sequence[Known],
) -> tuple[dict[Key, Facet], dict[Key, Facet], set[str]]:
    """Both sides, the real one first, without the values of sets that may be on one side alone,
    and the reasons."""
    reasons: set[str] = set()
    made: list[dict[Key, Facet]] = []
    for facets, others in (sides, sides[::-1]):
        left = dict(facets)
        for key, facet in facets.items():
            if not facet.ordered:
                there = {one.text for one in others.get(key, Facet(())).values}
                alone = [one for one in facet.values if one.text not in there]
                why = {
                    value: entry.reason
                    for value in alone
                    for entry in known
                    if entry.excuses(case, key, value.text, real=facets is sides[0])
                }
                reasons |= {*why.values()}
                kept = [one for one in facet.values if one not in why]
                left[key] = Facet(kept, ordered=False)
        made.append(left)
    return made[0], made[1], reasons


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


def reason(one: Difference, known: Sequence[Known]) -> str:
    """Why it is there; empty where nobody knows."""
    return next((entry.reason for entry in known if entry.covers(one)), "")
