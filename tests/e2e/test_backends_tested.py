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
    assert "clouded   clean-up    ok" in done.out
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


def test_which_backends(paid: PaidPlace) -> None:
    for flag in ("--verify", "--canary"):
        done = paid.do("backends", flag, code=2)
        assert "NAME: required with --verify and --canary" in done.err
