"""What is known of the tests: which do not pass and why, which are the quick ones, which pass on a
node that runs nothing. Each is a file beside this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tools.conformance.suite import Result

_HERE = Path(__file__).resolve().parent
MISSES, QUICK, IDLE = (_HERE / name for name in ("known.yaml", "quick.txt", "idle.txt"))


@dataclass(frozen=True)
class Verdict:
    """How the results differ from what is known."""

    surprises: Sequence[Result]
    """Failed, and nobody knows why."""
    mended: Sequence[Result]
    """Passed, though they are known not to."""

    @property
    def good(self) -> bool:
        """Whether all is as known."""
        return not self.surprises and not self.mended


def misses(more: Sequence[str] = ()) -> Mapping[str, str]:
    """Why a test does not pass, by its name; `more`: the files that count besides."""
    files = [MISSES, *(_HERE / name for name in more)]
    found = [yaml.safe_load(one.read_text("utf-8")) or {} for one in files]
    return {name: reason for one in found for reason, names in one.items() for name in names}


def lines(path: Path) -> list[str]:
    """The names in a file of one a line."""
    if not path.exists():
        return []
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]


def judge(results: Iterable[Result], known: Mapping[str, str]) -> Verdict:
    """What is not as known."""
    results = list(results)
    return Verdict(
        [one for one in results if one.state == "failed" and one.name not in known],
        [one for one in results if one.state == "passed" and one.name in known],
    )
