"""`podbridge conformance`: judges any provider by the contract, over the wire."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.errors import Invalid, Unavailable, Violation

if TYPE_CHECKING:
    from bridge.conformance import Check, Report, Result, Settings
    from bridge.rpc.channel import Tls

_EXAMPLES = """
\b
Examples:
  podbridge conformance unix:///run/user/1000/podbridge.sock
  podbridge conformance 127.0.0.1:7443 --focus '^(create|delete)' --junit report.xml
  podbridge conformance unix:///tmp/p.sock --restart-command './restart-my-provider'

It runs small pods there, in a cluster and on nodes of their own, and removes them. Each check names
the part of docs/contract.md that it judges. Off this host it uses the configuration's provider.tls.
Exit codes: 0 all passed; 1 a check failed, or a pod is left; 2 bad input; 3 nobody answers.
"""


@click.command(epilog=_EXAMPLES)
@click.argument("address")
@click.option("--focus", metavar="REGEX", help="Only checks whose id matches (^watch, logs|exec).")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write a report.")
@click.option("--image", metavar="IMAGE", help="What pods run: it needs sh and busybox's tools.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long one check may take. Default: 30.",
)
@click.option(
    "--parallel",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many checks run at once. Default: 8.",
)
@click.option(
    "--restart-command",
    metavar="CMD",
    help="Run by sh: kills the provider, starts it again at the same address, and ends then.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="json: one event a line.",
)
@click.pass_obj
def command(
    obj: dict[str, str | None],
    /,
    *,
    address: str,
    focus: str | None,
    junit: Path | None,
    restart_command: str | None,
    output: str,
    **given: Any,
) -> int:
    """Judge the provider at ADDRESS: does it keep the contract?"""
    from bridge.cli.view.junit import check_writable
    from bridge.cli.wiring import load_config, read_tls
    from bridge.conformance import Report, Settings

    chosen = _chosen(focus)
    if junit is not None:
        check_writable(junit)
    restart = _restart(restart_command) if restart_command else None
    values = {name: value for name, value in given.items() if value is not None}
    settings = Settings(**values, restart=restart)
    tls = read_tls(load_config(obj["config"]))
    report = Report()
    try:
        stopped = asyncio.run(_judge(address, chosen, settings, tls, report, output=output))
    finally:
        _last_words(report, output)
        if junit is not None and report.results:
            _write(junit, report, address)
    return stopped or (1 if report.failed or report.left else 0)


def _chosen(focus: str | None) -> Sequence[Check]:
    from bridge.conformance import checks

    try:
        pattern = re.compile(focus or "")
    except re.error as error:
        raise _wrong("--focus", f"{focus!r} is no regular expression: {error}") from None
    if found := [one for one in checks() if pattern.search(one.id)]:
        return found
    themes = ", ".join(dict.fromkeys(one.theme for one in checks()))
    raise _wrong("--focus", f"{focus!r} matches no check; their themes are: {themes}")


def _wrong(flag: str, words: str) -> Invalid:
    return Invalid(violations=[Violation(flag, words)])


def _restart(words: str) -> Callable[[], Awaitable[None]]:
    async def restart() -> None:
        quiet = asyncio.subprocess.DEVNULL
        # What it starts outlives it, and must hold no pipe of ours open.
        process = await asyncio.create_subprocess_shell(
            words, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        if code := await process.wait():
            raise Unavailable(f"--restart-command exited with {code}")

    return restart


async def _judge(
    address: str,
    chosen: Sequence[Check],
    settings: Settings,
    tls: Tls | None,
    report: Report,
    *,
    output: str,
) -> int:
    """0, or the exit code of the signal that stopped it: also then every pod is removed first."""
    from bridge.conformance import judge

    task, stopped = asyncio.current_task(), 0
    assert task is not None

    def stop(number: int) -> None:
        nonlocal stopped
        stopped = 128 + number
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        with _listener(output, len(chosen)) as listener:
            await judge(address, chosen, settings, tls=tls, listener=listener, report=report)
    except asyncio.CancelledError:
        if not stopped:
            raise
    return stopped


@contextmanager
def _listener(output: str, total: int) -> Any:
    from bridge.conformance import report as words
    from bridge.conformance.runner import Listener

    if output == "json":
        yield Listener(
            lambda check: _event(words.started_event(check)),
            lambda result: _event(words.ended_event(result)),
        )
    elif sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        with _progress(total) as listener:
            yield listener
    else:
        yield Listener(ended=lambda result: print("\n".join(_plain(result)), flush=True))


def _event(event: dict[str, Any]) -> None:
    import json
    from datetime import UTC, datetime

    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    print(json.dumps({"time": now, **event}), flush=True)


def _plain(result: Result) -> list[str]:
    from bridge.cli.output import plain
    from bridge.conformance.report import lines

    return [plain(line) for line in lines(result)]


@contextmanager
def _progress(total: int) -> Any:
    """Lines as checks end, and below them what goes on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    from bridge.conformance.runner import Listener

    columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"))
    colours = {"PASS": "green", "FAIL": "red", "SKIP": "yellow"}
    going: dict[str, None] = {}
    with Progress(*columns, console=Console(highlight=False), transient=True) as progress:
        bar = progress.add_task("", total=total)

        def show() -> None:
            progress.update(bar, description=", ".join(going)[:60])

        def started(check: Check) -> None:
            going[check.id] = None
            show()

        def ended(result: Result) -> None:
            going.pop(result.check.id, None)
            head, *rest = _plain(result)
            line = Text(head)
            line.stylize(colours[result.outcome], 0, 4)
            progress.console.print(line, *map(Text, rest), sep="\n", soft_wrap=True)
            progress.advance(bar)
            show()

        yield Listener(started, ended)


def _last_words(report: Report, output: str) -> None:
    from bridge.cli.output import plain
    from bridge.conformance.report import result_event, summary

    if output == "json":
        _event(result_event(report))
        return
    for one in report.left:
        print(f"left behind: {plain(one)}", file=sys.stderr)
    if report.results:
        print(plain(summary(report)))


def _write(path: Path, report: Report, address: str) -> None:
    """Writes the report at once: no reader ever sees half of it. OSError."""
    from bridge.conformance.report import junit

    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(junit(report, address))
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(out.fileno(), 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        # Whatever it was: no half report stays behind.
        os.unlink(name)
        raise
