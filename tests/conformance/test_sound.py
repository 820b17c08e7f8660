"""The provider as people start it keeps the contract, also when it is killed; and the command that
says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support import engine

from bridge.conformance import checks
from bridge.conformance.model import CORE, RESTART

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0
"""Seconds for the whole judgement on a machine with much else to do; it takes ten or so, and a
minute in containers."""

pytestmark = pytest.mark.slow

MAY_BE_REFUSED = {
    "process": {"secrets.not-in-arguments"},
    "engine": {"secrets.not-in-arguments"},
}
"""What a backend refuses by field: everybody on their hosts sees arguments."""


def podbridge(*words: str) -> list[str]:
    script = "import sys; sys.path.insert(0, sys.argv.pop(1)); import podbridge; podbridge.main()"
    return [sys.executable, "-c", script, str(ROOT), *words]


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Served:
    """`podbridge provider` in a place of its own, and a script that kills and starts it."""

    def __init__(self, place: Path, on: str = "process") -> None:
        self.place = place
        self.on = on
        self.owner = f"conformance-{uuid.uuid4()}"
        self.address = f"unix://{place}/s"
        self.pid = place / "pid"
        self.script = place / "restart"
        serve = podbridge("provider", "--on", on, "--listen", self.address)
        quoted = " ".join(f"'{word}'" for word in serve)
        self.script.write_text(
            f"""#!/bin/sh
cd '{place}'
if [ -f pid ]; then kill -9 "$(cat pid)"; while kill -0 "$(cat pid)" 2>&-; do sleep 0.05; done; fi
setsid {quoted} > said 2>&1 < /dev/null &
echo $! > pid
until grep -q listening said; do kill -0 "$(cat pid)" || exit 9; sleep 0.05; done
"""
        )
        self.script.chmod(0o700)
        self.environ = {
            **{name: value for name, value in os.environ.items() if "PODBRIDGE" not in name},
            "XDG_STATE_HOME": str(place / "state"),
            "XDG_CONFIG_HOME": str(place / "config"),
        }

        if on == "engine":
            config = place / "config/podbridge/config.yaml"
            config.parent.mkdir(parents=True)
            backend = {"name": on, "type": on, "host": engine.address(), "owner": self.owner}
            config.write_text(json.dumps({"apiVersion": "podbridge.io/v1", "backends": [backend]}))

    def start(self) -> None:
        subprocess.run([self.script], check=True, timeout=PATIENCE, env=self.environ)

    def stop(self) -> None:
        os.kill(int(self.pid.read_text()), signal.SIGKILL)

    def judge(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            podbridge("conformance", self.address, *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ,
            cwd=self.place,
        )

    def pods(self) -> list[str]:
        """Pods, or parts of pods, that its backend still has."""
        if self.on == "engine":
            return engine.owned(self.owner)
        return [str(one) for one in (self.place / "state/podbridge/process").glob("*-*/*.*")]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture(params=["process", "engine"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    if request.param == "engine" and (problem := engine.problem()):
        pytest.skip(problem)
    made = Served(tmp_path, request.param)
    made.start()
    yield made
    made.stop()
    engine.remove(made.owner)


def test_our_provider_passes_every_check_also_when_it_is_killed(anywhere: Served) -> None:
    served = anywhere
    words = ("--restart-command", str(served.script), "--junit", "report.xml", "-o", "json")
    # A container takes longer than a process to start, and other tests have the same engine.
    judging = served.judge(*words, *(("--timeout", "90") if served.on == "engine" else ()))
    out, err = judging.communicate(timeout=PATIENCE)
    events = [json.loads(line) for line in out.splitlines()]
    failed = [one for one in events if one["type"] == "failed"]
    assert not failed, json.dumps(failed, indent=1)
    assert judging.returncode == 0, err
    skipped = {one["check"] for one in events if one["type"] == "skipped"}
    assert skipped <= MAY_BE_REFUSED[served.on]
    passed = {one["check"] for one in events if one["type"] == "passed"}
    assert passed >= {one.id for one in checks() if one.needs in (CORE, RESTART)}
    assert passed | skipped == {one.id for one in checks()}
    last = events[-1]
    assert (last["type"], last["passed"], last["left"]) == ("result", len(passed), [])
    root = ElementTree.parse(served.place / "report.xml").getroot()
    assert root.get("tests") == str(len(checks()))
    assert root.get("failures") == "0"
    assert served.pods() == []


def test_an_interrupt_leaves_no_pod_behind(served: Served) -> None:
    judging = served.judge("--focus", "^delete[.](kill|shorter)", "-o", "json")
    until(served.pods, "a pod of the checks")
    judging.send_signal(signal.SIGINT)
    out, err = judging.communicate(timeout=PATIENCE)
    assert judging.returncode == 130, err
    last = json.loads(out.splitlines()[-1])
    assert (last["type"], last["left"]) == ("result", [])
    assert served.pods() == []


def test_without_a_restart_command_it_says_what_was_not_judged(served: Served) -> None:
    judging = served.judge("--focus", "^(restart|service[.]health)")
    out, err = judging.communicate(timeout=PATIENCE)
    assert judging.returncode == 0, err
    lines = out.splitlines()
    assert lines[-1] == "1 passed, 0 failed, 3 skipped (3 no --restart-command was given)"
    assert sum(line.startswith("SKIP  restart.") for line in lines) == 3
    assert sum(line.startswith("PASS  service.health") for line in lines) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--focus", "("), 2, "no regular expression"),
        (("--focus", "nothing-has-this"), 2, "matches no check; their themes are: service,"),
        (("--junit", "/no/such/folder/r.xml"), 2, "--junit"),
        (("--focus", "^service"), 3, "does not answer"),
    ],
)
def test_bad_input_and_nobody_there(
    words: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    ran = subprocess.run(
        podbridge("conformance", f"unix://{tmp_path}/nobody", *words),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == code, ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
