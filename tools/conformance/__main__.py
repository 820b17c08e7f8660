"""Run Kubernetes' own end-to-end tests on a node with one of the backends.

Usage: python -m tools.conformance [--quick | --core | --focus REGEX | --idle] [--on VARIANT]
       [--report FILE] ...

Builds nothing: `python -m tools.control_plane.build --e2e` makes the programs. Exit code 0 where
all is as known.yaml says, 1 where a test fails that should pass or passes that is known not to, 3
where something is missing here.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.conformance import columns, images, known, node, report, suite
from tools.conformance.containers import engine
from tools.conformance.variants import VARIANTS, Around, Variant
from tools.control_plane import assets, handle
from tools.control_plane.components import API_SERVER
from tools.control_plane.recipes import VERSIONS

_AGAIN, _AGAIN_LIMIT = 12, 420.0
"""How many failed tests are run once more at most, and for how many seconds: the tests' own limits
are for machines that have nothing else to do."""
_PROGRAMS = ("agnhost", "ginkgo", "e2e.test", "kubectl")


def main(arguments: Sequence[str]) -> int:
    """The command."""
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _told)
    try:
        with handle.folder_at(given.folder, "podbridge-conformance-") as folder:
            return _run(given, folder)
    except (assets.Missing, engine.Missing, images.NotHere, node.NotReady) as error:
        _say(f"error: {error}")
        return 3
    except (handle.NotRunning, suite.Broken) as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    words = __doc__.partition("\n")[0] if __doc__ else None
    parser = argparse.ArgumentParser(prog="python -m tools.conformance", description=words)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--quick", action="store_true", help="some that pass within minutes")
    what.add_argument("--core", action="store_true", help="without the other controllers")
    what.add_argument("--focus", metavar="REGEX", help="just these, also others than ours")
    what.add_argument("--idle", action="store_true", help="on a node that runs nothing")
    parser.add_argument("--on", choices=[*VARIANTS], default="engine", help="what runs its pods")
    parser.add_argument("--procs", type=int, default=12, help="tests at a time (12)")
    parser.add_argument("--limit", type=float, help="seconds for all tests")
    parser.add_argument("--report", type=Path, help="write the table there, as Markdown")
    parser.add_argument("--junit", type=Path, help="write what ginkgo says there, as JUnit XML")
    parser.add_argument("--folder", type=Path, help="keep logs and results there")
    return parser


def _run(given: argparse.Namespace, folder: Path) -> int:
    programs = assets.locate(VERSIONS[0], _PROGRAMS)
    assets.locate(VERSIONS[0])
    names: Sequence[str] = ()
    if not given.idle:
        _say("images")
        names = images.provide(programs["agnhost"])
    order = _order(given)
    variant = VARIANTS[given.on]
    misses = known.misses(variant.known)
    _say("control plane and node")
    began = time.monotonic()
    with _cluster(folder, variant, names, idle=given.idle) as plane:
        _say(f"tests, {order.procs} at a time; logs are in {folder}")
        began = time.monotonic()
        results = suite.run(plane, programs, order, folder / "tests", _say)
        failed = known.judge(results, misses).surprises
        if not given.idle and 0 < len(failed) <= _AGAIN:
            _say(f"{len(failed)} that failed once more, with less beside them")
            focus = suite.exactly([one.name for one in failed])
            second = suite.Order(focus, "", min(order.procs, 4), _AGAIN_LIMIT)
            results = suite.merged(
                results, suite.run(plane, programs, second, folder / "again", _say)
            )
    seconds = time.monotonic() - began
    if given.junit:
        shutil.copy(folder / "tests" / "junit.xml", given.junit)
    if given.idle:
        return _keep_idle(results)
    verdict = known.judge(results, misses)
    for line in report.summary(results, verdict, seconds):
        _say(line)
    if given.report:
        done = report.Run(results, plane.version, seconds, order.procs, variant)
        page = report.page(done, misses, set(known.lines(known.IDLE)))
        given.report.write_text(page, "utf-8")
        columns.refresh(given.report.parent)
    return 0 if verdict.good else 1


def _order(given: argparse.Namespace) -> suite.Order:
    procs, limit = given.procs, given.limit
    if given.focus:
        return suite.Order(given.focus, "", procs, limit or 1200)
    if given.quick:
        return suite.Order(suite.exactly(known.lines(known.QUICK)), "", procs, limit or 420)
    groups = suite.CORE if given.core or given.idle else tuple(suite.GROUPS)
    return suite.Order(suite.conformance(groups), suite.APART, procs, limit or 1500)


@contextlib.contextmanager
def _cluster(
    folder: Path, variant: Variant, names: Sequence[str], *, idle: bool
) -> Iterator[handle.ControlPlane]:
    """A control plane with one node."""
    # The node's certificate is its own: nobody here would approve another one.
    trusting = {API_SERVER: ["--kubelet-certificate-authority="]}
    with handle.running(folder / "cluster", extra=trusting) as plane:
        if idle:
            with node.idle(plane):
                yield plane
        else:
            owner = f"conformance-{uuid.uuid4().hex[:8]}"
            place = folder / "node"
            place.mkdir(parents=True)
            with (
                variant.backend(Around(place, owner, names)) as backend,
                node.up(plane, place, owner, backend),
            ):
                yield plane


def _keep_idle(results: Sequence[suite.Result]) -> int:
    passed = [one.name for one in results if one.state == "passed"]
    known.IDLE.write_text("".join(f"{name}\n" for name in passed), "utf-8")
    _say(f"{len(passed)} of {len(results)} pass on a node that runs nothing")
    return 0


def _told(_: int, __: object) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
