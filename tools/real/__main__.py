"""Runs the adapters' contract on a real account, and keeps what was said there, redacted.

Usage:
  python -m tools.real aws --max-cost DOLLARS [--config FILE] [--backend NAME] [--yes] [-k WHICH]
  python -m tools.real replay TRANSCRIPT
  python -m tools.real clean-up OWNER [--config FILE] [--backend NAME]

Exit code 0 where all went right, 1 where a test failed, something is left or a replay differs, 2
for bad input, 3 where money, credentials or the account stand in the way, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bridge.config import money
from bridge.errors import BridgeError, Invalid, NotFound, Unsupported, Violation
from tools.real import work
from tools.real.replay import compare
from tools.real.run import Wanted, clean_up, run


def main(arguments: Sequence[str]) -> int:
    """The command."""
    given = _parser().parse_args(arguments)
    try:
        if given.command == "replay":
            return compare(given.transcript, _say)
        if given.command == "clean-up":
            return clean_up(given.config, given.backend, given.owner, _say)
        return run(_wanted(given), _say)
    except BridgeError as error:
        for line in error.violations or (error.message,):
            print(f"error: {line}", file=sys.stderr)
        return 2 if isinstance(error, Invalid | NotFound | Unsupported) else 3
    except KeyboardInterrupt:
        return 130


def _wanted(given: argparse.Namespace) -> Wanted:
    try:
        limit = money(given.max_cost)
    except ValueError as error:
        raise Invalid(violations=[Violation("--max-cost", str(error))]) from None
    if not given.pace > 0:
        words = f"found {given.pace:g}; allowed: seconds, more than 0"
        raise Invalid(violations=[Violation("--pace", words)])
    return Wanted(
        given.config,
        given.backend,
        limit,
        image=given.image,
        to=given.to,
        only=given.only,
        yes=given.yes,
        pace=given.pace,
    )


def _parser() -> argparse.ArgumentParser:
    words = __doc__.partition("\n")[0] if __doc__ else None
    parser = argparse.ArgumentParser(prog="python -m tools.real", description=words)
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", metavar="FILE", help="podbridge's configuration")
    shared.add_argument("--backend", metavar="NAME", help="which, where several are of fargate")
    aws = commands.add_parser("aws", parents=[shared], help="the contract on an account of AWS")
    aws.add_argument("--max-cost", required=True, metavar="DOLLARS", help="nothing costs more")
    aws.add_argument("--image", default=work.IMAGE, help=f"with sh and sleep ({work.IMAGE})")
    aws.add_argument("--to", type=Path, metavar="FILE", help="the transcript")
    aws.add_argument("-k", dest="only", default="", metavar="WHICH", help="as pytest's -k")
    aws.add_argument("--yes", action="store_true", help="nobody is asked")
    aws.add_argument("--pace", type=float, default=2.0, metavar="SECONDS", help="between looks (2)")
    replay = commands.add_parser("replay", help="a transcript against a simulator, compared")
    replay.add_argument("transcript", type=Path)
    clean = commands.add_parser("clean-up", parents=[shared], help="remove what a run has left")
    clean.add_argument("owner", help="as the run has said it")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
