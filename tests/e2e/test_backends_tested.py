"""`podbridge backends --verify` and `--canary`, as people type them."""

from __future__ import annotations

import json

import pytest
from paid_kit import PaidPlace, paid, words

__all__ = ["paid"]

pytestmark = pytest.mark.slow


def test_a_canary_flies_and_leaves_nothing(paid: PaidPlace) -> None:
    done = paid.do("backends", "process", "--canary", "-o", "json")
    (one,) = json.loads(done.out)
    assert (one["backend"], one["good"]) == ("process", True)
    assert [(step["name"], step["good"]) for step in one["steps"]] == [
        ("exit code", True),
        ("log", True),
        ("clean-up", True),
    ]
    assert paid.run_names() == []


def test_it_says_what_it_costs(paid: PaidPlace) -> None:
    done = paid.do("backends", "paid", "--canary")
    said = words(done)
    assert said[0].startswith("paid: account 4711, here-1;")
    assert said[1].startswith("  pod/canary: 1 pod: at most $9.01 (activeDeadlineSeconds 900)")
    assert "exit code   ok" in done.out
    assert paid.run_names() == []


def test_a_canary_above_the_limit_is_not_sent(paid: PaidPlace) -> None:
    paid.write("config/podbridge/config.yaml", "confirm_above: 1\n")
    done = paid.do("backends", "paid", "--canary", code=3)
    assert "--yes: required" in done.out
    done = paid.do("backends", "paid", "--canary", "-o", "json", code=3)
    assert "paid: account 4711, here-1;" in done.err
    assert "--yes: required" in json.loads(done.out)[0]["problem"]
    paid.do("backends", "paid", "--canary", "--yes")
    assert paid.run_names() == []


def test_a_backend_that_cannot_open_gets_none(paid: PaidPlace) -> None:
    config = "backends: [{name: bad, type: process, path: /nowhere, root: /proc/nowhere}]\n"
    paid.write("config/podbridge/config.yaml", config)
    done = paid.do("backends", "--canary", code=3)
    assert done.out.splitlines()[1].startswith("bad       launch   failed   -")


def test_where_nothing_runs_none_is_sent(paid: PaidPlace) -> None:
    done = paid.do("backends", "null", "--canary", code=3)
    assert "nothing really runs there" in done.out


def test_a_canary_on_a_simulated_cloud(paid: PaidPlace) -> None:
    done = paid.do("backends", "clouded", "--canary", "--simulate")
    assert "clouded (simulated)   clean-up    ok" in done.out
    assert "(simulated)" in done.err


def test_findings_and_what_mends_them(paid: PaidPlace) -> None:
    done = paid.do("backends", "paid,process", "--verify", code=3)
    lines = done.out.splitlines()
    assert lines[0].split() == ["BACKEND", "FINDING", "ABOUT", "MESSAGE"]
    assert lines[1].split() == ["paid", "ok", "account", "it", "is", "there"]
    assert "it opens and lists; there is no account to verify" in lines[3]
    assert lines[-2:] == [
        "paid: subnet s-1: it has no way out. What mends it:",
        "  cloud make-route s-1",
    ]
    (one,) = json.loads(paid.do("backends", "paid", "--verify", "-o", "json", code=3).out)
    assert one["findings"][1] == {
        "severity": "problem",
        "about": "subnet s-1",
        "message": "it has no way out",
        "remedy": "cloud make-route s-1",
    }
    assert paid.do("backends", "process", "--verify").code == 0


def test_a_canary_only_where_nothing_is_in_its_way(paid: PaidPlace) -> None:
    both = ("backends", "paid,process", "--verify", "--canary")
    done = paid.do(*both, code=3)
    findings, canaries = done.out.split("\n\n")[0], done.out.split("\n\n")[-1]
    assert "it has no way out" in findings
    rows = [line.split()[0] for line in canaries.splitlines()]
    assert rows == ["BACKEND", "process", "process", "process"]
    found = json.loads(paid.do(*both, "-o", "json", code=3).out)
    assert [one["backend"] for one in found["verified"]] == ["paid", "process"]
    assert [(one["backend"], one["good"]) for one in found["canaries"]] == [("process", True)]
    done = paid.do("backends", "paid", "--verify", "--canary", code=3)
    assert "exit code" not in done.out


def test_what_is_simulated_says_so(paid: PaidPlace) -> None:
    asked = ("backends", "clouded", "--simulate", "-o", "json")
    (one,) = json.loads(paid.do(*asked, "--verify", code=3).out)
    assert (one["backend"], one["simulated"]) == ("clouded", True)
    done = paid.do("backends", "clouded", "--simulate", "--verify", code=3)
    assert done.out.splitlines()[1].startswith("clouded (simulated)   ok")
    (one,) = json.loads(paid.do("backends", "null", "--canary", "-o", "json", code=3).out)
    assert one["simulated"] is True


def test_what_is_for_canaries_alone(paid: PaidPlace) -> None:
    for flags in (("--yes",), ("--image", "busybox")):
        done = paid.do("backends", "process", "--verify", *flags, code=2)
        assert f"{flags[0]} goes with --canary" in done.err


def test_which_backends(paid: PaidPlace) -> None:
    for flag in ("--verify", "--canary"):
        done = paid.do("backends", flag, code=2)
        assert "NAME: required with --verify and --canary" in done.err
