"""The outcome in words: a summary for the terminal, and the page docs/parity.md. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tools.parity.cases import Case
from tools.parity.compare import Difference, Known, Verdict, reason
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
    verdicts: Sequence[Verdict]
    known: Sequence[Known]
    seconds: float
    again: Sequence[str] = ()
    """The cases that were played twice; the second time counts."""

    @property
    def unknown(self) -> list[Difference]:
        """Those without a reason."""
        every = (one for verdict in self.verdicts for one in verdict.differences)
        return [one for one in every if reason(one, self.known) is None]

    @property
    def groups(self) -> Mapping[str, list[Case]]:
        """The cases: the same, with known differences only, with others."""
        made: dict[str, list[Case]] = {"same": [], "known": [], "unknown": []}
        by_name = {one.case: one for one in self.verdicts}
        for case in self.cases:
            made[self._group(by_name[case.name])].append(case)
        return made

    def _group(self, verdict: Verdict) -> str:
        if any(reason(one, self.known) is None for one in verdict.differences):
            return "unknown"
        special = [one for one in verdict.excused if not one.general]
        return "known" if verdict.differences or special else "same"

    def found(self, entry: Known) -> tuple[list[str], list[Difference]]:
        """The cases with single values that this excuses, and the differences that it covers."""
        names = [one.case for one in self.verdicts if entry in one.excused]
        every = (one for verdict in self.verdicts for one in verdict.differences)
        return names, [one for one in every if reason(one, self.known) == entry]


def summary(outcome: Outcome, *, whole: bool = True) -> Iterator[str]:
    """What the terminal shows at the end. `whole`: all manifests were played."""
    for one in outcome.unknown:
        yield f"differs: {one}"
    for entry in outcome.known:
        if whole and not entry.sometimes and outcome.found(entry) == ([], []):
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
    parts = [head, *_unknown(outcome), *_everywhere(outcome), *_reasons(outcome)]
    if groups["same"]:
        rows = (f"| `{one.name}` | {_cell(one.shows)} |" for one in groups["same"])
        parts.append(
            "\n".join(["## The same", "", "| manifest | what it shows |", "|---|---|", *rows])
        )
    if outcome.again:
        names = _names(outcome.again)
        parts.append(f"## Played twice\n\nThe second time, with less beside it, counts: {names}.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _everywhere(outcome: Outcome) -> Iterator[str]:
    """What differs on any pod."""
    general = [(entry, outcome.found(entry)[0]) for entry in outcome.known if entry.general]
    lines = [
        f"- {entry.reason.strip()} ({len(names)} {'manifest' if len(names) == 1 else 'manifests'})"
        for entry, names in general
        if names
    ]
    if lines:
        yield "## What differs on any pod, and why"
        yield "Manifests that differ in nothing else count as the same."
        yield "\n".join(lines)


def _reasons(outcome: Outcome) -> Iterator[str]:
    special = [(one, *outcome.found(one)) for one in outcome.known if not one.general]
    there = [(entry, names, found) for entry, names, found in special if names or found]
    if there:
        yield "## What differs, and why"
    for entry, names, found in there:
        if names:
            sides = (("the kubelet", entry.only_real), ("podbridge", entry.only_ours))
            words = "; ".join(f"{side} alone has {_names(one)}" for side, one in sides if one)
            yield f"{entry.reason.strip()}\n\nIn {_names(names)}: {words}."
        else:
            yield f"{entry.reason.strip()}\n\n{_table(found)}"


def _unknown(outcome: Outcome) -> Iterator[str]:
    if outcome.unknown:
        yield f"## What differs, and nobody knows why\n\n{_table(outcome.unknown)}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{one}`" for one in names)


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
