"""A view for when nobody looks: a run in the background."""

from __future__ import annotations

import os

from bridge.cli.view.base import BaseView


class SilentView(BaseView):
    """Keeps the model that reports are made from, and writes nothing."""

    def __init__(self, run: str) -> None:
        null = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
        super().__init__(null, null, run, quiet=True)

    def log(self, pod: object, container: str, data: bytes) -> None:
        """`View.log`."""

    def note(self, note: object) -> None:
        """`View.note`."""

    async def finish(self, closing: object) -> None:
        """`View.finish`."""
