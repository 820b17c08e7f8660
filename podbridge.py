"""The console script: makes sure that the packages found are ours, then hands over to the CLI.

`adapters` and `bridge` are names that others use too; with one of theirs in the environment the
imports would fail far from the cause, or half succeed.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

MARK = "podbridge"
"""Stands in the first line of each of our packages' `__init__.py`."""


def foreign_package() -> str:
    """What is wrong with this environment's packages, with the fix; empty where all is well."""
    home = Path(__file__).resolve().parent
    for name in ("bridge", "adapters"):
        ours = home / name / "__init__.py"
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found == ours and MARK in ours.read_text(encoding="utf-8").split("\n", 1)[0]:
            continue
        where = found or (spec and spec.submodule_search_locations and spec.name) or "nowhere"
        return (
            f'the package "{name}" here is not podbridge\'s (found: {where}); install podbridge'
            ' into an environment of its own: "pipx install podbridge" or "uv tool install'
            ' podbridge"'
        )
    return ""


def main() -> None:
    """Runs the command line."""
    if problem := foreign_package():
        sys.stderr.write(f"error: {problem}\n")
        sys.exit(2)
    # Only now: with somebody else's packages here this import is what would fail.
    from bridge.cli.entry import main as cli_main  # noqa: PLC0415

    cli_main()


if __name__ == "__main__":
    main()
