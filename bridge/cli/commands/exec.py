"""`podbridge exec`: a command in a container of a running pod."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from bridge.cli.select import complete_runs

if TYPE_CHECKING:
    from bridge.rpc.streams import Remote
    from bridge.rpc.v1 import stream_pb2

_EXAMPLES = """
\b
Examples:
  podbridge exec hello -- date                 a run of one pod: its name is enough
  podbridge exec words words-3-x7fkp -- ls /   one pod of a run
  podbridge exec -it web -c proxy -- sh        a shell in one of its containers
  podbridge exec -i web -- tar xf - < data.tar what it reads comes from here

\b
The exit code is the command's own.
"""
_TYPE = "podbridge exec [RUN] POD -- COMMAND [ARGS...]"
_NO_TTY = "Unable to use a TTY - input is not a terminal or the right kind of file"


class _Dashed(click.Command):
    """A command whose words after `--` belong to another one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keeps what comes after `--` from being read as our own options."""
        if "--" in args:
            at = args.index("--")
            ctx.meta["command"] = args[at + 1 :]
            args = args[:at]
        elif not {"-h", "--help"} & set(args) and not ctx.resilient_parsing:
            ctx.fail(f'found no "--" before a command; type: {_TYPE}')
        return super().parse_args(ctx, args)


@click.command(cls=_Dashed, epilog=_EXAMPLES, options_metavar="[OPTIONS]")
@click.argument(
    "words", nargs=-1, metavar="[RUN] POD -- COMMAND [ARGS]...", shell_complete=complete_runs
)
@click.option("-c", "--container", default="", metavar="C", help="In this container.")
@click.option("-i", "--stdin", is_flag=True, help="Pass on what comes in here.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal (with -i).")
@click.option("-q", "--quiet", is_flag=True, help="Print only what the command prints.")
@click.option("-n", "--namespace", metavar="NS", help="Of this namespace only.")
@click.option("--run", "run", metavar="RUN", shell_complete=complete_runs, help="Of this run only.")
@click.pass_context
def command(
    context: click.Context,
    *,
    words: tuple[str, ...],
    container: str,
    stdin: bool,
    tty: bool,
    quiet: bool,
    namespace: str | None,
    run: str | None,
) -> int:
    """Run a command in a container."""
    from bridge.cli.interruption import until_interrupted

    typed: list[str] = context.meta["command"]
    if not typed:
        raise click.UsageError(f'found no command after "--"; type: {_TYPE}')
    if not words and not run:
        raise click.UsageError(f"found no pod; type: {_TYPE}")
    tty = tty and stdin
    if tty and not os.isatty(0):
        tty = False
        if not quiet:
            print(_NO_TTY, file=sys.stderr)
    task = _Task(words, run, namespace, container, typed, stdin, tty, quiet)
    return asyncio.run(until_interrupted(task.run()))


@dataclass(frozen=True, slots=True)
class _Task:
    words: Sequence[str]
    of_run: str | None
    namespace: str | None
    container: str
    command: Sequence[str]
    stdin: bool
    tty: bool
    quiet: bool

    async def run(self) -> int:
        """Runs it; its exit code."""
        from bridge.cli import execution
        from bridge.cli.targets import one_pod, reached, require
        from bridge.rpc.streams import open_exec

        found = await one_pod(self.words, run=self.of_run, namespace=self.namespace)
        start = execution.start_of(
            found, self.container, self.command, stdin=self.stdin, tty=self.tty, quiet=self.quiet
        )
        async with reached(found.state) as provider:
            await require(provider, found.state, found.object, "exec", "runs no further commands")
            remote = await open_exec(provider, start)
            try:
                code = await self._join(remote, start)
            finally:
                await remote.close()
        if code and not self.quiet:
            print(f"command terminated with exit code {code}", file=sys.stderr)
        return code

    async def _join(self, remote: Remote, start: stream_pb2.ExecStart) -> int:
        from bridge.cli import terminal_mode
        from bridge.cli.piping import Ends, pipe

        with ExitStack() as kept:
            if start.tty:
                kept.enter_context(terminal_mode.raw(0))
                kept.enter_context(terminal_mode.resized(0, remote.resize))
            return await pipe(remote, Ends(0 if start.stdin else None))
