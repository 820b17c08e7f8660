"""`podbridge`: finds the command that was typed, and turns errors into words and exit codes.

Nothing is imported here that `--help` does not need: each command's module is loaded when it runs.
"""

from __future__ import annotations

import difflib
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

import bridge

if TYPE_CHECKING:
    from bridge.errors import BridgeError

COMMANDS = {
    "demo": "See it work: no account, no cluster",
    "run": "Run pods and Jobs from manifests, or one command, to their end",
    "check": "Which backends can run these manifests, and what each refuses",
    "plan": "Where these manifests would run, and the most they can cost",
    "ps": "List runs",
    "get": "List pods, jobs or events of runs",
    "describe": "Everything about one run, job or pod, and why it waits",
    "logs": "Print a pod's log",
    "exec": "Run a command in a container",
    "cp": "Copy files to and from a container",
    "port-forward": "Forward local ports to a pod",
    "top": "What pods use of CPU and memory, live",
    "attach": "Come back to a run without losing a line",
    "wait": "Wait until a run is over; exit as the run does",
    "delete": "Stop a run and remove what is left of it",
    "init": "Write a configuration from what a cloud account has",
    "backends": "List the backends and what they can do",
    "config": "Show, check and change the configuration",
    "up": "Join a cluster as a virtual node, with a provider of its own",
    "kubelet": "Join a cluster as a virtual node, whose pods run at a provider",
    "provider": "Serve the backends to other processes, by the contract",
    "install": "Print manifests that keep nodes from inside a cluster",
    "doctor": "Say what is wrong between here, the API server and the provider",
    "conformance": "Judge any provider by the contract, over the wire",
    "simulate": "Run a cloud on this machine, for its own SDKs",
    "completion": "Print shell completion",
    "version": "Print versions",
}
"""Every command in the order in which help shows them, with its line there."""

_NEXT = """
\b
First steps:
  podbridge demo                                  see it work
  podbridge run hello --on process -- echo hi     one command, as a pod
  podbridge run -f job.yaml --on process          your own manifests
  podbridge check -f job.yaml                     what each backend would say
  podbridge plan -f job.yaml                      where it would run, and what it can cost
"""


class Commands(click.Group):
    """A group that loads a command's module only when it is used, and knows the nearest word."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of that name, loaded now."""
        if name not in COMMANDS:
            return None
        module = import_module(f"bridge.cli.commands.{name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but an unknown word is answered with the nearest one."""
        word = args[0]
        if word not in COMMANDS and not word.startswith("-"):
            near = difflib.get_close_matches(word, [*COMMANDS, "kill", "rm", "ls"], n=1, cutoff=0.5)
            known = {"kill": "delete", "rm": "delete", "ls": "ps", "apply": "run", "stop": "delete"}
            guess = known.get(word) or (known.get(near[0], near[0]) if near else "")
            hint = f'; did you mean "{guess}"?' if guess else "; see podbridge --help"
            ctx.fail(f'unknown command "{word}"{hint}')
        return super().resolve_command(ctx, args)


@click.command(
    cls=Commands,
    epilog=_NEXT,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(bridge.__version__, prog_name="podbridge")
@click.option("--config", "config_file", metavar="FILE", help="Configuration to read.")
@click.option("-v", "--verbose", count=True, help="Say more about what goes on (-vv: each step).")
@click.pass_context
def cli(context: click.Context, config_file: str | None, verbose: int) -> None:
    """Run Kubernetes pods and Jobs on serverless backends, with or without a cluster."""
    context.obj = {"config": config_file}
    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(name)s: %(message)s")
        if verbose > 1:
            # The clouds' own libraries log whole requests, secrets in them.
            for name in ("bridge", "adapters"):
                logging.getLogger(name).setLevel(logging.DEBUG)


def main() -> None:
    """The console script."""
    try:
        code = cli.main(prog_name="podbridge", standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = 2
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        code = _say(f"{error.filename or 'this machine'}: {error.strerror or error}", 2)
    except Exception as error:
        # Only to tell ours from others without importing them for `--help`.
        from bridge.errors import BridgeError

        if not isinstance(error, BridgeError):
            raise
        code = _say_error(error)
    sys.exit(code if isinstance(code, int) else 0)


def _say_error(error: BridgeError) -> int:
    from bridge.errors import Invalid, NotFound, Unsupported

    if error.violations:
        for violation in error.violations:
            _say(str(violation), 0)
    else:
        _say(error.message, 0)
    return 2 if isinstance(error, (Invalid, Unsupported, NotFound)) else 3


def _say(message: str, code: int) -> int:
    from bridge.cli.output import plain

    print(f"error: {plain(message)}", file=sys.stderr)
    return code
