"""The backends side by side, in docs/conformance.md: read from the page that each one's run wrote.

Pure but for `refresh`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tools.conformance.suite import CORE, GROUPS

BEGIN, END = "<!-- backends:begin -->", "<!-- backends:end -->"
PAGES: Mapping[str, str] = {
    "engine": "conformance.md",
    "engine, `helper: always`": "conformance-helper.md",
    "fargate, simulated": "conformance-fargate.md",
}
"""By column: the page."""
_TOGETHER = "**the four together**"


def counts(page: str) -> Mapping[str, str]:
    """By group, as `passed of run`, from a page's first table."""
    found: dict[str, str] = {}
    for line in page.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(row) > 2 and row[1].isdigit():
            found.setdefault(row[0], f"{row[2]} of {row[1]}")
    return found


def table(pages: Mapping[str, str]) -> str:
    """`pages`: the pages' texts by column."""
    columns = {title: counts(page) for title, page in pages.items()}
    links = [f"[{title}]({PAGES[title]})" for title in columns]
    lines = [f"| group | {' | '.join(links)} |", f"|---|{'---|' * len(columns)}"]
    for group in (*CORE, _TOGETHER, *(one for one in GROUPS if one not in CORE)):
        cells = [one.get(group, "-") for one in columns.values()]
        if set(cells) != {"-"}:
            lines.append(f"| {group} | {' | '.join(cells)} |")
    return "\n".join(lines)


def inserted(page: str, text: str) -> str:
    """The page with that between its markers."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{text}\n{END}", page)


def refresh(folder: Path) -> None:
    """Writes the columns anew, where that folder has the pages."""
    there = {title: folder / name for title, name in PAGES.items() if (folder / name).exists()}
    main = folder / PAGES["engine"]
    if main.exists():
        text = table({title: path.read_text("utf-8") for title, path in there.items()})
        main.write_text(inserted(main.read_text("utf-8"), text), "utf-8")
