"""`--simulate`: a cloud for one command, without an account."""

from __future__ import annotations

import os
import signal

import pytest
from e2e_kit import ROOT, container, job, pod, until
from paid_kit import PaidPlace, paid, words

__all__ = ["paid"]

pytestmark = pytest.mark.slow

REAL = {
    "AWS_ACCESS_KEY_ID": "AKIAREALREALREALREAL",
    "AWS_SECRET_ACCESS_KEY": "real-secret",
    "AWS_SESSION_TOKEN": "real-token",
    "AWS_PROFILE": "real-profile",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
}


def bounded(place: PaidPlace, script: str = "echo hi") -> str:
    made = pod("hello", container(script), activeDeadlineSeconds=60)
    return place.write("pod.yaml", made)


def test_a_run_on_a_cloud_that_ends_with_it(paid: PaidPlace) -> None:
    done = paid.do("run", "-f", bounded(paid), "--on", "clouded", "--simulate", env=REAL)
    lines = words(done)
    assert lines[0] == "aws: simulated here, plain processes; nothing is billed"
    assert lines[1].startswith("process: plain processes of this machine")
    assert lines[2].startswith("clouded (simulated): account 123456789012, us-east-1;")
    assert lines[5] == "the run (simulated) would cost at most $0.9000"
    assert "hello" in lines[-1]
    assert "(simulated): succeeded in" in lines[-1]
    assert lines[-1].endswith("would have cost about $0.6000")
    assert done.out == "hi\n"
    assert paid.run_names() == []
    assert "real" not in done.said.lower().replace("really", "")


def test_each_row_says_so(paid: PaidPlace) -> None:
    file = paid.write(
        "job.yaml",
        job("two", "exit 0", completions=2, activeDeadlineSeconds=60),
        pod("one", "exit 3"),
    )
    done = paid.do("run", "-f", file, "--on", "clouded", "--simulate", code=1)
    rows = [
        line
        for line in done.err.splitlines()
        if line.startswith(("two-", "one ")) and "  clouded" in line
    ]
    assert len(rows) == 3
    assert all("clouded (simulated)" in one for one in rows), done.said
    assert "podbridge logs" not in done.err
    events = paid.do(
        "run", "-f", file, "--on", "clouded", "--simulate", "-o", "json", code=1
    ).lines()
    places = {one["backend"] for one in events if "backend" in one}
    assert places == {"clouded (simulated)"}


def test_nothing_is_asked_and_the_limit_holds(paid: PaidPlace) -> None:
    file = paid.write("pod.yaml", pod("endless", "exit 0", restartPolicy="OnFailure"))
    paid.do("run", "-f", file, "--on", "clouded", "--simulate")
    paid.do("run", "-f", file, "--on", "clouded", "--simulate", "--max-cost", "1", code=3)


@pytest.mark.parametrize("moment", ["aws: simulated here", "clouded (simulated): account"])
def test_ctrl_c_leaves_nothing(paid: PaidPlace, moment: str) -> None:
    file = bounded(paid, "sleep 1000")
    going = paid.begin("run", "-f", file, "--on", "clouded", "--simulate")
    going.says(moment)
    going.signal(signal.SIGINT)
    done = going.end()
    assert done.code == 130, done.said
    assert "destroyed" not in done.err
    assert "Traceback" not in done.err
    assert paid.run_names() == []


def test_a_canary_that_is_interrupted_leaves_no_run(paid: PaidPlace) -> None:
    going = paid.begin("backends", "clouded", "--canary", "--simulate")
    going.says("a canary is on its way")
    going.signal(signal.SIGINT)
    going.end()
    assert paid.run_names() == []


def test_who_looks_from_elsewhere_is_told(paid: PaidPlace) -> None:
    file = bounded(paid, f"touch {paid.path}/ran; sleep 1000")
    going = paid.begin("run", "-f", file, "--on", "clouded", "--simulate")
    until(paid.exists("ran"), "the pod runs")
    (name,) = paid.run_names()
    asked = (("ps",), ("get", "pods", "-o", "wide"), ("describe", f"run/{name}"))
    assert all("clouded (simulated)" in paid.do(*one).out for one in asked)
    going.signal(signal.SIGINT)
    going.end()


def test_plan_check_and_backends(paid: PaidPlace) -> None:
    file = bounded(paid)
    done = paid.do("plan", "-f", file, "--on", "clouded", "--simulate")
    assert "clouded (simulated)" in done.out
    assert "would cost at most $0.9000" in done.out
    done = paid.do("check", "-f", file, "--on", "clouded", "--simulate")
    assert "(simulated)" in done.out
    done = paid.do("backends", "clouded", "--simulate")
    assert "simulated" in done.out.splitlines()[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--on", "process"), '--on: found "process", which has no simulator; allowed: clouded'),
        (("--on", "nonsense"), '--on: found "nonsense", which has no simulator'),
        ((), "--on: required with --simulate; allowed: clouded"),
        (("--on", "clouded", "-d"), "-d: not with --simulate: the simulated cloud ends with"),
        (("--provider", "unix:///x"), "--simulate starts a cloud here"),
    ],
)
def test_what_cannot_be_simulated(paid: PaidPlace, given: tuple[str, ...], said: str) -> None:
    done = paid.do("run", "-f", bounded(paid), "--simulate", *given, code=2)
    assert said in done.err
    assert paid.run_names() == []


def test_fargate_says_what_a_run_costs(paid: PaidPlace, helper: dict[str, str]) -> None:
    file = os.fspath(ROOT / "examples/hello.yaml")
    done = paid.do("run", "-f", file, "--on", "fargate", "--simulate", env={**REAL, **helper})
    assert "Hello from" in done.out
    assert "fargate (simulated): account 123456789012, us-east-1; list prices of" in done.err
    assert "at most $2.10" in done.err
    assert "would have cost about $0.0002" in done.err
    assert paid.run_names() == []
