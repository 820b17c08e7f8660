"""Write docs/capabilities.md: what each backend makes of each field of a pod.

Usage: python tools/capability_matrix.py [--check]

With --check nothing is written: exit code 1 where the file is not what would be written.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bridge.adapter import Level, Support
from bridge.errors import BridgeError
from bridge.pods.schema import walk_fields
from bridge.provider import registry
from bridge.provider.capabilities import BASE, Table, lookup, merged

TARGET = Path(__file__).parent.parent / "docs" / "capabilities.md"
LISTS = ("spec.initContainers[]", "spec.ephemeralContainers[]")
HEAD = """# What each backend can do

Written by `tools/capability_matrix.py` from the tables in `bridge/provider/capabilities.py` and
`adapters/`; do not edit it by hand.

- `yes`: as Kubernetes means it.
- `about`: it means a little less; an event on the pod says how, in the words of the note.
- `no`: a pod that asks for it is refused by the field's name, before anything starts.
- `-`: the fields below it have rows of their own.

Only what a pod's author chose is judged: what the API server fills in and what admission injects is
never refused. A field that has no row is as the nearest row above that holds it, and the fields of
init and ephemeral containers without a row are as those of `containers`. Some values of a field
that says `yes` can still be refused, by the field's name.
"""

Cells = tuple[Support | None, ...]


def tables() -> dict[str, Table]:
    """The merged table of each backend type, by its name; and of what its options make of it."""
    found: dict[str, Table] = {}
    for name in registry.types():
        module = registry.module(name)
        for variant, adapter in getattr(module, "VARIANTS", {"": module.Adapter}).items():
            found[", ".join(filter(None, (name, variant)))] = merged(adapter)
    return found


def render(columns: Mapping[str, Table]) -> str:
    """The whole page."""
    notes: dict[str, int] = {}
    lines = [HEAD, "| field | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for path, cells in rows(columns):
        texts = " | ".join(_cell(cell, notes) for cell in cells)
        lines.append(f"| `{path}` | {texts} |")
    if notes:
        lines.append("\n## Notes\n")
        lines += [f"{number}. {words}" for words, number in notes.items()]
    return "\n".join(lines) + "\n"


def rows(columns: Mapping[str, Table]) -> list[tuple[str, Cells]]:
    """(field, a cell for each column), of every field that is not wholly as what holds it."""
    fields = list(walk_fields("Pod", "spec"))
    cells = {path: tuple(lookup(table, path) for table in columns.values()) for path in fields}
    out = []
    for path in fields:
        above = _above(path)
        twin = next((path.replace(one, "spec.containers[]", 1) for one in LISTS if one in path), "")
        if cells[path] not in (cells.get(above), cells.get(twin)):
            out.append((path, cells[path]))
    return out


def _above(path: str) -> str:
    return path.rpartition(".")[0].removesuffix("[]")


def _cell(support: Support | None, notes: dict[str, int]) -> str:
    if support is None:
        return "-"
    text = {Level.SUPPORTED: "yes", Level.APPROXIMATED: "about", Level.UNSUPPORTED: "no"}
    if not support.words:
        return text[support.level]
    number = notes.setdefault(support.words, len(notes) + 1)
    return f"{text[support.level]} [{number}](#notes)"


def main(arguments: list[str]) -> int:
    """Writes or checks the page; the exit code."""
    try:
        columns: dict[str, Any] = {"base": BASE, **tables()}
    except BridgeError as error:
        print(error, file=sys.stderr)
        return 3
    text = render(columns)
    if "--check" in arguments:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            print(f"{TARGET.name} is stale: run python tools/capability_matrix.py", file=sys.stderr)
            return 1
        return 0
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
