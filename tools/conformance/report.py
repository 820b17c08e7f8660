"""The results in words: a summary for the terminal, and the page docs/conformance.md. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tools.conformance import columns
from tools.conformance.known import Verdict
from tools.conformance.suite import CORE, GROUPS, Result
from tools.conformance.variants import Variant

_HEAD = """\
# Conformance{title}

Kubernetes' own end-to-end tests, on a node that is `podbridge up` with the {what}.
Written by `make {target}`; do not edit.

Kubernetes {version}, {procs} tests at a time, {minutes:.1f} minutes. What is run is all of the pod
set that carries `[Conformance]`; the first four groups are what a node is judged by. No registry
was asked for anything: stand-ins take the place of the tests' images
(`tools/conformance/images.py`). A real kubelet of this version with containerd and simpler
stand-ins passes 199 of the 205: four of its misses are the stand-in's shell, which drops variables
that it cannot name, one an image for `nonewprivs`, one an image as a volume. The stand-ins here
have such a shell and the former image.

The last column is what passes on a node that is Ready and runs nothing (pods that have waited half
a minute fail there, so that the tests end): those tests ask the control plane only.
"""


_SIDE_BY_SIDE = f"""\
## Backends side by side

{columns.BEGIN}
{columns.END}
"""


@dataclass(frozen=True)
class Run:
    """One run of all of it."""

    results: Sequence[Result]
    version: str
    """Kubernetes', as `v1.36.3`."""
    seconds: float
    procs: int
    variant: Variant


def summary(results: Sequence[Result], verdict: Verdict, seconds: float) -> Iterator[str]:
    """What the terminal shows at the end."""
    for one in verdict.surprises:
        yield f"failed: {one.name} ({one.seconds:.0f} s): {one.words}"
    for one in verdict.mended:
        yield f"passes, though known.yaml says that it does not: {one.name}"
    counts = ", ".join(
        f"{_count(results, state)} {state}" for state in ("passed", "failed", "skipped")
    )
    yield f"{counts}; {seconds:.0f} s"


def _count(results: Sequence[Result], state: str) -> int:
    return sum(one.state == state for one in results)


def page(run: Run, known: Mapping[str, str], idle: Collection[str]) -> str:
    """docs/conformance.md. `known`: why a test does not pass, by name. `idle`: the names of those
    that pass on a node that runs nothing."""
    head = _HEAD.format(
        version=run.version,
        procs=run.procs,
        minutes=run.seconds / 60,
        title=run.variant.title,
        what=run.variant.what,
        target=run.variant.target,
    )
    parts = [head, "\n".join(_table(run.results, idle))]
    if run.variant.compares:
        parts += [_SIDE_BY_SIDE]
    parts += ["\n".join(_failed(run.results, known)), "\n".join(_skipped(run.results))]
    parts += ["\n".join(_late(run.results)), "\n".join(_passed(run.results))]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _table(results: Sequence[Result], idle: Collection[str]) -> Iterator[str]:
    yield "| group | run | passed | failed | skipped | passes on a node that runs nothing |"
    yield "|---|---|---|---|---|---|"
    core = [one for one in results if one.group in CORE]
    for title in GROUPS:
        mine = [one for one in results if one.group == title]
        if mine:
            yield _row(title, mine, idle)
        if title == CORE[-1]:
            yield _row("**the four together**", core, idle)
    yield _row("**all**", results, idle)


def _row(title: str, results: Sequence[Result], idle: Collection[str]) -> str:
    run = len(results) - _count(results, "skipped")
    counts = [run, *(_count(results, state) for state in ("passed", "failed", "skipped"))]
    # Only those of the four groups were tried there.
    tried = any(one.group in CORE for one in results)
    nothing = sum(one.name in idle for one in results) if tried else "-"
    return f"| {title} | {' | '.join(map(str, counts))} | {nothing} |"


def _failed(results: Sequence[Result], known: Mapping[str, str]) -> Iterator[str]:
    failed = [one for one in results if one.state == "failed"]
    if not failed:
        return
    yield "## What does not pass, and why\n"
    reasons: dict[str, list[Result]] = {}
    for one in failed:
        reasons.setdefault(known.get(one.name, f"not known: {one.words}"), []).append(one)
    for reason, mine in reasons.items():
        yield f"{_shown(reason)}\n"
        for one in mine:
            yield f"- {one.name}"
        yield ""


def _skipped(results: Sequence[Result]) -> Iterator[str]:
    skipped = [one for one in results if one.state == "skipped"]
    if not skipped:
        return
    yield "## Skipped\n"
    for one in skipped:
        yield f"- {one.name}: {_shown(one.words)}"


def _late(results: Sequence[Result]) -> Iterator[str]:
    late = [one for one in results if one.state == "passed" and one.tries > 1]
    if late:
        yield "## What passed at the second try, with less beside it\n"
        yield from (f"- {one.name}" for one in late)


def _passed(results: Sequence[Result]) -> Iterator[str]:
    yield "## What passes\n"
    for title in GROUPS:
        mine = [one for one in results if one.group == title and one.state == "passed"]
        if mine:
            yield f"### {title}\n"
            yield from (f"- {one.name}" for one in mine)
            yield ""


def _shown(words: str) -> str:
    """As plain text in Markdown."""
    return words.replace("<", "\\<").replace("|", "\\|").strip()
