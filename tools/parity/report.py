"""The outcome in words: a summary for the terminal, and the page docs/parity.md. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tools.parity.cases import Case
from tools.parity.compare import Difference, Known, reason
from tools.parity.facets import RULES

_HEAD = """\
# Parity with the real kubelet

The same manifests on a real kubelet with containerd, and on a node that is `podbridge up` with the
`engine` backend, at the same control plane. Written by `make parity`; do not edit.

Kubernetes {version}, {number} manifests (`tools/parity/manifests`), {minutes:.1f} minutes.
**{same} are the same, {known} differ in what has its reason below, {unknown} in what has none.**

What is compared, for every pod: its phases, its conditions with their reasons, the states of each
container with reasons, exit codes, signals and restart counts, readiness, termination messages, the
events' reasons (and how often containers were created, started and killed), every byte of the logs;
which fields its status has; for Jobs their conditions and counts. Each is compared as the list of
the values that it had, in order.

What may differ and is not compared: times, addresses, UIDs, names of nodes and namespaces, IDs of
containers and images, messages in a runtime's own words, how one facet lies to another in time.
Such values may be missing on one side:

{rules}
"""


@dataclass(frozen=True)
class Outcome:
    """All of it."""

    version: str
    """Kubernetes', as `v1.36.3`."""
    cases: Sequence[Case]
    differences: Sequence[Difference]
    known: Sequence[Known]
    seconds: float
    excused: Mapping[str, int]
    """In how many cases single values of sets are on one side alone, by the reason."""
    again: Sequence[str] = ()
    """The cases that were played twice; the second time counts."""

    def of(self, case: Case) -> list[Difference]:
        """This case's."""
        return [one for one in self.differences if one.case == case.name]

    @property
    def unknown(self) -> list[Difference]:
        """Those without a reason."""
        return [one for one in self.differences if not reason(one, self.known)]

    @property
    def groups(self) -> Mapping[str, list[Case]]:
        """The cases: the same, with known differences only, with others."""
        made: dict[str, list[Case]] = {"same": [], "known": [], "unknown": []}
        for case in self.cases:
            mine = self.of(case)
            why = all(reason(one, self.known) for one in mine)
            made["same" if not mine else "known" if why else "unknown"].append(case)
        return made


def summary(outcome: Outcome) -> Iterator[str]:
    """What the terminal shows at the end."""
    for one in outcome.unknown:
        yield f"differs: {one}"
    used = {reason(one, outcome.known) for one in outcome.differences} | {*outcome.excused}
    for entry in outcome.known:
        if entry.reason not in used:
            yield f"known.yaml has a difference that is not there: {entry.reason}"
    counts = {name: len(found) for name, found in outcome.groups.items()}
    yield (
        f"{len(outcome.cases)} manifests: {counts['same']} the same, {counts['known']} with known"
        f" differences, {counts['unknown']} with others; {outcome.seconds:.0f} s"
    )


def page(outcome: Outcome) -> str:
    """docs/parity.md."""
    groups = outcome.groups
    head = _HEAD.format(
        version=outcome.version,
        number=len(outcome.cases),
        minutes=outcome.seconds / 60,
        rules="\n".join(f"- {rule}" for rule in RULES),
        **{name: len(found) for name, found in groups.items()},
    )
    parts = [head, *_everywhere(outcome), *_reasons(outcome), *_unknown(outcome)]
    if groups["same"]:
        rows = (f"| `{one.name}` | {_cell(one.shows)} |" for one in groups["same"])
        parts.append(
            "\n".join(["## The same", "", "| manifest | what it shows |", "|---|---|", *rows])
        )
    if outcome.again:
        names = ", ".join(f"`{one}`" for one in outcome.again)
        parts.append(f"## Played twice\n\nThe second time, with less beside it, counts: {names}.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _everywhere(outcome: Outcome) -> Iterator[str]:
    if outcome.excused:
        yield "## What only one of them tells"
        yield "Manifests that differ in nothing else count as the same."
        lines = (f"- {why.strip()} ({_times(number)})" for why, number in outcome.excused.items())
        yield "\n".join(lines)


def _times(number: int) -> str:
    return "one manifest" if number == 1 else f"{number} manifests"


def _reasons(outcome: Outcome) -> Iterator[str]:
    found: dict[str, list[Difference]] = {}
    for one in outcome.differences:
        if why := reason(one, outcome.known):
            found.setdefault(why, []).append(one)
    if found:
        yield "## What differs, and why"
    for why, mine in found.items():
        yield f"{why.strip()}\n\n{_table(mine)}"


def _unknown(outcome: Outcome) -> Iterator[str]:
    if outcome.unknown:
        yield f"## What differs, and nobody knows why\n\n{_table(outcome.unknown)}"


def _table(found: Sequence[Difference]) -> str:
    rows = ["| manifest | of | facet | kubelet | podbridge |", "|---|---|---|---|---|"]
    rows += [
        f"| `{one.case}` | {_cell(one.object)} | {_cell(one.facet)} | {_cell(one.real)} |"
        f" {_cell(one.ours)} |"
        for one in found
    ]
    return "\n".join(rows)


def _cell(words: str) -> str:
    shown = words.replace("\\", "\\\\").replace("|", "\\|").replace("<", "\\<").replace("\n", "\\n")
    return shown if len(shown) < 400 else f"{shown[:400]}… ({len(words)} characters)"
