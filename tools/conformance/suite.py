"""Which of Kubernetes' tests are run, and what became of each.

`ginkgo` runs them in parallel and writes a JUnit file at its end, of every test that there is;
those that were not asked for stand there as skipped without a word why.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tools.conformance.containers import MORTAL
from tools.conformance.images import REGISTRIES
from tools.control_plane.handle import ControlPlane

GROUPS: Mapping[str, str] = {
    "sig-node: pods and containers": r"\[sig-node\]",
    "sig-storage: volumes of configuration": (
        r"\[sig-storage\] (ConfigMap|Secrets|Projected|Downward API|EmptyDir|Subpath)"
    ),
    "sig-apps: Job and CronJob": r"\[sig-apps\] (Job|CronJob)",
    "sig-cli: run and logs": r"\[sig-cli\] Kubectl (client Kubectl run|logs)",
    "sig-apps: other controllers": (
        r"\[sig-apps\] (Deployment|ReplicaSet|ReplicationController|StatefulSet)"
    ),
}
"""Title and regular expression of what is run, all of it [Conformance]."""
CORE = tuple(GROUPS)[:4]
"""The 205 about pods, configuration, Jobs and kubectl: what a node is judged by."""
APART = r"\[Serial\]|\[Disruptive\]"
"""Tests that stand no others beside them."""
_EVERY = 15.0
"""Seconds between two lines of progress."""
_GRACE = 150.0
"""Seconds for the report after all tests were told to end."""


class Broken(Exception):
    """No results: ginkgo, or the tests themselves, ended early; the text has the last words."""


@dataclass(frozen=True)
class Result:
    """One test."""

    name: str
    state: str
    """`passed`, `failed` or `skipped`."""
    seconds: float
    words: str
    """Why it failed or was skipped: the first line of it."""
    tries: int = 1
    """2: it failed first, and that was what became of it when it was run again."""

    @property
    def group(self) -> str:
        """Its group's title."""
        found = (title for title, wanted in GROUPS.items() if re.search(wanted, self.name))
        return next(found, "others")


@dataclass(frozen=True)
class Order:
    """What to run, and how."""

    focus: str
    skip: str = APART
    procs: int = 12
    limit: float = 1200.0
    """Seconds for all of it."""


def conformance(groups: Iterable[str]) -> str:
    """The regular expression for these groups."""
    return rf"({'|'.join(GROUPS[one] for one in groups)}).*\[Conformance\]"


def exactly(names: Sequence[str]) -> str:
    """The regular expression for just these."""
    return "|".join(re.escape(one).replace("\\-", "-").replace("\\ ", " ") + "$" for one in names)


def run(
    plane: ControlPlane,
    programs: Mapping[str, Path],
    order: Order,
    folder: Path,
    say: Callable[[str], None],
) -> list[Result]:
    """Runs them and waits. Raises Broken where there are no results."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "ginkgo.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            _command(plane, programs, order, folder),
            cwd=folder,
            env=_environment(plane, folder),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, order.limit + _GRACE, log, say)
    finally:
        _end(process)
    junit = folder / "junit.xml"
    if not junit.exists():
        raise Broken(log.read_text(errors="replace")[-3000:])
    results = read(junit, apart=bool(order.skip))
    if not results:
        raise Broken("no test was run: nothing has such a name")
    return results


def _command(
    plane: ControlPlane, programs: Mapping[str, Path], order: Order, folder: Path
) -> list[str]:
    flags = {
        "kubeconfig": plane.kubeconfig,
        "kubectl-path": programs["kubectl"],
        "provider": "skeleton",
        "num-nodes": 1,
        "disable-log-dump": "true",
        "dump-logs-on-failure": "false",
        "prepull-images": "false",
    }
    return [
        *MORTAL,
        str(programs["ginkgo"]),
        "run",
        "--no-color",
        "--silence-skips",
        f"--procs={order.procs}",
        f"--timeout={order.limit:.0f}s",
        "--grace-period=10s",
        f"--focus={order.focus}",
        *([f"--skip={order.skip}"] if order.skip else []),
        "--junit-report=junit.xml",
        f"--output-dir={folder}",
        str(programs["e2e.test"]),
        "--",
        *(f"--{name}={value}" for name, value in flags.items()),
    ]


def _environment(plane: ControlPlane, folder: Path) -> dict[str, str]:
    """No proxy stands before the API server; what kubectl caches belongs to this cluster."""
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    registries = folder / "registries.yaml"
    registries.write_text(json.dumps(REGISTRIES))
    own = {
        "HOME": str(folder),
        "KUBECONFIG": str(plane.kubeconfig),
        "KUBE_TEST_REPO_LIST": str(registries),
    }
    return {**kept, **own}


def _wait(
    process: subprocess.Popen[bytes], limit: float, log: Path, say: Callable[[str], None]
) -> None:
    began = time.monotonic()
    while time.monotonic() - began < limit:
        try:
            process.wait(_EVERY)
        except subprocess.TimeoutExpired:
            text = log.read_text(errors="replace")
            ended = text.count("•")
            failed = len(re.findall(r"^• ?\[(?:FAILED|PANICKED|TIMEDOUT)", text, re.MULTILINE))
            say(f"  {ended} ended, {failed} of them failed, {time.monotonic() - began:.0f} s")
        else:
            return
    say("  not done in time")


def _end(process: subprocess.Popen[bytes]) -> None:
    """With the tests' own processes, which are in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read(junit: Path, *, apart: bool) -> list[Result]:
    """The tests that were run, by name. What nobody asked for is left out, except, with `apart`,
    those of ours that stand no other test beside them."""
    out = []
    for case in ET.parse(junit).iter("testcase"):
        name = case.get("name", "")
        if not name.startswith("[It] "):
            continue
        # Its labels stand behind its name, where they are said for the second time.
        name = re.sub(r" \[[^\]]*, [^\]]*\]$", "", name.removeprefix("[It] "))
        status = case.get("status", "")
        trouble = case.find("failure")
        if trouble is None:
            trouble = case.find("error")
        skipped = case.find("skipped")
        words = "" if trouble is None else trouble.get("message", "") or trouble.text or ""
        state = "passed" if status == "passed" else "failed"
        if skipped is not None:
            state, words = "skipped", skipped.get("message", "").partition(" - ")[2]
            if not words:
                if not (apart and _stands_alone(name)):
                    continue
                words = "it stands no other test beside it"
        seconds = float(case.get("time") or 0)
        out.append(Result(name, state, seconds, _first(words, status)))
    return sorted(out, key=lambda one: one.name)


def merged(first: Iterable[Result], second: Iterable[Result]) -> list[Result]:
    """The results of a run, some of which were run again."""
    again = {one.name: replace(one, tries=2) for one in second}
    return [again.get(one.name, one) for one in first]


def _stands_alone(name: str) -> bool:
    """Whether a test is one of ours but not run."""
    return bool(re.search(conformance(GROUPS), name) and re.search(APART, name))


def _first(words: str, status: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return lines[0][:300] if lines else ("" if status == "passed" else status)
