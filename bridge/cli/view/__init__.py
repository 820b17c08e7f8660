"""What is seen of a run while it goes on and when it ends: on a terminal, plain, as JSON, in CI."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import IO, Literal

from bridge.cli.view.base import View
from bridge.cli.view.closing import Closing, gather

__all__ = ["Closing", "View", "gather", "make_view"]


def make_view(
    output: Literal["text", "json"],
    stdout: IO[str],
    stderr: IO[str],
    run: str,
    *,
    quiet: bool = False,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> View:
    """The view that fits where stdout and stderr go. `quiet`: only logs, and why it failed."""
    environ = os.environ if environ is None else environ
    # What was printed before must not come after what views write past these buffers.
    stdout.flush()
    stderr.flush()
    if output == "json":
        from bridge.cli.view.json import JsonView

        return JsonView(stdout, stderr, run, clock=clock, quiet=quiet)
    if environ.get("GITHUB_ACTIONS") == "true":
        from bridge.cli.view.github import GitHubView

        return GitHubView(stdout, stderr, run, clock=clock, quiet=quiet, environ=environ)
    if _is_terminal(stdout, stderr, environ):
        from bridge.cli.view.terminal import TerminalView

        return TerminalView(stdout, stderr, run, clock=clock, quiet=quiet)
    from bridge.cli.view.plain import PlainView

    return PlainView(stdout, stderr, run, clock=clock, quiet=quiet)


def _is_terminal(stdout: IO[str], stderr: IO[str], environ: Mapping[str, str]) -> bool:
    if environ.get("CI", "false") not in ("", "0", "false"):
        return False
    if environ.get("TERM", "dumb") == "dumb":
        return False
    return stdout.isatty() and stderr.isatty()
