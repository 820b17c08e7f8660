"""Metrics in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiohttp import web

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Family:
    """One metric: its name, its words, its kind (gauge, counter), its samples."""

    def __init__(self, name: str, words: str, kind: str = "gauge") -> None:
        self.name = name
        self.words = words
        self.kind = kind
        self._samples: list[str] = []

    def add(
        self, value: float, labels: Mapping[str, str] | None = None, at: float | None = None
    ) -> None:
        """One sample. `at`, in seconds since the epoch, is when it was measured; else it is now."""
        named = ",".join(
            f'{name}="{text.translate(_ESCAPES)}"' for name, text in sorted((labels or {}).items())
        )
        when = "" if at is None else f" {round(at * 1000)}"
        self._samples.append(f"{self.name}{f'{{{named}}}' if named else ''} {value!r}{when}\n")

    def text(self) -> str:
        """The lines; none where there are no samples."""
        if not self._samples:
            return ""
        head = f"# HELP {self.name} {self.words}\n# TYPE {self.name} {self.kind}\n"
        return head + "".join(self._samples)


def answer(families: Iterable[Family]) -> web.Response:
    """A whole answer."""
    return web.Response(
        text="".join(family.text() for family in families),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )
