"""Plays the same manifests on a real kubelet and on a virtual node, and says what differs.

Usage: python -m tools.parity [--only PATTERN ...] [--report FILE] [--folder FOLDER] [--replay]

Builds a control plane, a kubelet and containerd from their Go modules where they are not in the
cache. Runs as root. Exit code 0 where every difference has its reason in known.yaml, 1 where one
has none, 3 where something is missing here.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from tools.conformance import images as stand_ins
from tools.conformance import node
from tools.conformance.containers import engine
from tools.conformance.variants import VARIANTS, Around
from tools.control_plane import assets, build, handle, toolchain
from tools.control_plane.components import API_SERVER
from tools.control_plane.recipes import VERSIONS, cache_folder, recipes, release
from tools.parity import cases, compare, images, kubelet, play, report
from tools.parity.cases import Case
from tools.parity.facets import facets
from tools.parity.recording import Recording

KNOWN = Path(__file__).resolve().with_name("known.yaml")
NODES = {"real": kubelet.NAME, "ours": node.NAME}
"""By side. Sides are as long as one another: they are in the names of namespaces."""
PROGRAMS = (*kubelet.PROGRAMS, "agnhost")
AT_ONCE = 5
"""Cases at a time on each node."""
AGAIN, AGAIN_AT_ONCE = 25, 2
"""How many cases with differences that nobody knows are played once more at most, and how many of
them at a time: on a machine with much else to do a node may tell of a state too late to be seen."""
EMPTY = 60.0
"""Seconds in which the pods must be gone at the end."""


def main(arguments: Sequence[str]) -> int:
    """The command."""
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _told)
    try:
        chosen = [one for one in cases.load() if _is_chosen(one, given.only)]
        if not chosen:
            raise cases.Wrong("no manifest has such a name")
        with handle.folder_at(given.folder, "podbridge-parity-") as folder:
            return _run(given, chosen, folder)
    except (
        assets.Missing,
        engine.Missing,
        stand_ins.NotHere,
        toolchain.CannotBeHad,
        kubelet.Missing,
        kubelet.NotReady,
        node.NotReady,
        cases.Wrong,
    ) as error:
        _say(f"error: {error}")
        return 3
    except (handle.NotRunning, build.Failed) as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    words = __doc__.partition("\n")[0] if __doc__ else None
    parser = argparse.ArgumentParser(prog="python -m tools.parity", description=words)
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="manifests of these names")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"cases at a time ({AT_ONCE})")
    parser.add_argument("--report", type=Path, help="write the page there, as Markdown")
    parser.add_argument("--folder", type=Path, help="keep logs and recordings there")
    parser.add_argument(
        "--replay", action="store_true", help="start nothing: compare the folder's recordings"
    )
    return parser


def _is_chosen(case: Case, patterns: Sequence[str] | None) -> bool:
    return not patterns or any(fnmatchcase(case.name, one) for one in patterns)


def _run(given: argparse.Namespace, chosen: Sequence[Case], folder: Path) -> int:
    began = time.monotonic()
    known = compare.Known.read(yaml.safe_load(KNOWN.read_text("utf-8")) or ())
    again: list[str] = []
    if not given.replay:
        if words := kubelet.lacking():
            raise kubelet.Missing(words)
        with _alone(), _nodes(folder) as plane:
            _say(f"{len(chosen)} manifests, {given.at_once} at a time; logs are in {folder}")
            ear, api = play.Ear(), plane.api()
            ear.listen(api)
            _play_all(play.Theatre(api, ear, NODES), chosen, folder, given.at_once)
            odd = [one for one in chosen if _is_odd(one, folder, known)]
            if 0 < len(odd) <= AGAIN:
                _say(f"{len(odd)} that differ once more, with less beside them")
                again = [one.name for one in odd]
                _play_all(play.Theatre(api, ear, NODES, "-2"), odd, folder, AGAIN_AT_ONCE)
            with contextlib.suppress(AssertionError):
                api.until("/api/v1/pods", lambda found: not found["items"], limit=EMPTY)
            api.close()
        _run_file(folder).write_text(json.dumps([time.monotonic() - began, again]), "utf-8")
    seconds, again = json.loads(_run_file(folder).read_text("utf-8"))
    verdicts = [_judged(one, folder, known) for one in chosen]
    outcome = report.Outcome(release(VERSIONS[0]), chosen, verdicts, known, seconds, again)
    for line in report.summary(outcome, whole=not given.only):
        _say(line)
    if given.report:
        given.report.write_text(report.page(outcome), "utf-8")
    return 1 if outcome.unknown else 0


def _run_file(folder: Path) -> Path:
    """How long the run took, and what was played twice in it."""
    return folder / "run.json"


def _judged(case: Case, folder: Path, known: Sequence[compare.Known]) -> compare.Verdict:
    real, ours = (
        facets(Recording.read(play.kept(folder, side, case.name).read_text("utf-8")))
        for side in NODES
    )
    return compare.judge(case.name, real, ours, known)


def _is_odd(case: Case, folder: Path, known: Sequence[compare.Known]) -> bool:
    found = _judged(case, folder, known).differences
    return any(compare.reason(one, known) is None for one in found)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """A machine has one real node at a time: its control groups have a name."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "parity.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another run is under way: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _nodes(folder: Path) -> Iterator[handle.ControlPlane]:
    """A control plane with both nodes; what is needed for them is built first."""
    version = VERSIONS[0]
    wanted = [one for one in recipes(version, e2e=True, oracle=True) if one.name in PROGRAMS]
    build.build([*recipes(version), *wanted], version, _say)
    programs = assets.locate(version, PROGRAMS)
    _say("images")
    archive = images.archive(programs["agnhost"], folder / "images.tar")
    _say("control plane and nodes")
    # The nodes' certificates are their own: nobody here would approve others.
    trusting = {API_SERVER: ["--kubelet-certificate-authority="]}
    owner = f"parity-{uuid.uuid4().hex[:8]}"
    place = folder / "node"
    place.mkdir()
    with (
        handle.running(folder / "cluster", extra=trusting) as plane,
        kubelet.running(plane, programs, archive, folder / "real-node"),
        VARIANTS["engine"].backend(Around(place, owner, ())) as backend,
        node.up(plane, place, owner, backend),
    ):
        archive.unlink()
        yield plane


def _play_all(theatre: play.Theatre, chosen: Sequence[Case], folder: Path, at_once: int) -> None:
    with ThreadPoolExecutor(2 * at_once) as pool:
        # Both sides of a case at the same time: they share what the machine has.
        done = [
            (case, side, pool.submit(_play, theatre.stage(case, side), case))
            for case in chosen
            for side in NODES
        ]
        for number, (case, side, future) in enumerate(done, 1):
            try:
                recording, seconds = future.result()
            except BaseException:
                theatre.ear.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            file = play.kept(folder, side, case.name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(recording.dump(), "utf-8")
            problem = f": {recording.problem}" if recording.problem else ""
            _say(f"  {number}/{len(done)} {case.name} {side} {seconds:.0f} s{problem}")


def _play(stage: play.Stage, case: Case) -> tuple[Recording, float]:
    began = time.monotonic()
    try:
        return stage.play(case), time.monotonic() - began
    finally:
        stage.clear()
        # This thread's connection.
        stage.api.close()


def _told(_: int, __: object) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
