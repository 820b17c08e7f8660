"""What is seen of a run while it goes on and when it ends: on a terminal, plain, as JSON, in CI."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Literal

from bridge.cli.view.base import View
from bridge.cli.view.closing import Closing, gather

if TYPE_CHECKING:
    from bridge.local.runs import Run

__all__ = ["Closing", "View", "gather", "make_view", "view_of"]


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


def view_of(run: Run, output: Literal["text", "json"], *, quiet: bool) -> View:
    """The view of a run on our own stdout and stderr, which knows what its pods cost."""
    made = make_view(output, sys.stdout, sys.stderr, run.name, quiet=quiet)
    made.model.tariff = run.prices()
    backends = run.wanted.options.get("backends") or ()
    if backends and all(one.get("simulated") for one in backends):
        made.model.simulated = tuple(one["config"]["name"] for one in backends)
    return made


def _is_terminal(stdout: IO[str], stderr: IO[str], environ: Mapping[str, str]) -> bool:
    if environ.get("CI", "false") not in ("", "0", "false"):
        return False
    if environ.get("TERM", "dumb") == "dumb":
        return False
    return stdout.isatty() and stderr.isatty()
