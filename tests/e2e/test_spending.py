"""What a run costs, as people see it: before it begins, at its end, in plans, against limits."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from e2e_kit import container, job, pod
from paid_kit import PaidPlace, paid, words

__all__ = ["paid"]

pytestmark = pytest.mark.slow

ASKING = {"resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}


def short(place: PaidPlace, script: str = "echo hi", **spec: Any) -> str:
    """A Job of at most two pods of a minute each, 36 dollars an hour: $1.80 with their grace."""
    made = job("words", container(script, **ASKING), completions=1, backoffLimit=1, **spec)
    made["spec"]["template"]["spec"]["activeDeadlineSeconds"] = 60
    return place.write("job.yaml", made)


def test_it_is_told_before_and_after(paid: PaidPlace) -> None:
    done = paid.do("run", "-f", short(paid), "--on", "paid")
    lines = words(done)
    assert lines[0].startswith("paid: account 4711, here-1; list prices of 2026-11-22 (")
    assert lines[1:4] == [
        "  job/words: at most 2 pods, 1 at once: at most $1.80 (activeDeadlineSeconds 60)",
        "    each requests 100m CPU, 64Mi memory; billed 250m CPU, 512Mi memory: $36 an hour",
        "the run can cost at most $1.80",
    ]
    # A second of work, of which a minute is billed.
    assert lines[-1].endswith("cost about $0.6000")
    assert done.out.endswith(" | hi\n")
    (name,) = paid.run_names()
    again = paid.do("attach", name)
    assert again.err.splitlines()[-1].endswith("cost about $0.6000")


def test_it_is_told_before_a_run_is_left_to_itself(paid: PaidPlace) -> None:
    done = paid.do("run", "-f", short(paid), "--on", "paid", "-d", "--name", "left")
    assert "the run can cost at most $1.80" in done.err
    assert paid.do("attach", "left").err.splitlines()[-1].endswith("cost about $0.6000")
    # What is known has begun before: nothing more is told, nor asked.
    assert "can cost" not in paid.do("run", "-f", short(paid), "--on", "paid", "--name", "left").err


def test_programs_get_it_as_events(paid: PaidPlace) -> None:
    events = paid.do("run", "-f", short(paid), "--on", "paid", "-o", "json").lines()
    assert (events[0]["type"], events[0]["cost"]) == ("plan", "1.8")
    (end,) = [one for one in events if one["type"] == "pod" and one["phase"] == "Succeeded"]
    assert end["cost"] == "0.6"
    assert (events[-1]["type"], events[-1]["cost"]) == ("result", "0.6")


def test_nothing_starts_above_the_limit(paid: PaidPlace) -> None:
    file = short(paid, f"touch {paid.path}/ran")
    for limit in ("1.79", "$0"):
        done = paid.do("run", "-f", file, "--on", "paid", "--max-cost", limit, code=3)
        assert "--max-cost allows $" in done.err
        assert "for the whole run; nothing was started" in done.err
    assert not paid.exists("ran")()
    assert paid.run_names() == []
    paid.do("run", "-f", file, "--on", "paid", "--max-cost", "1.80")
    assert paid.exists("ran")()


def test_what_has_no_limit_passes_no_limit(paid: PaidPlace) -> None:
    file = paid.write("pod.yaml", pod("endless", "exit 0", restartPolicy="OnFailure"))
    done = paid.do("run", "-f", file, "--on", "paid", "--max-cost", "1000", code=3)
    assert "pod/endless: unbounded: no activeDeadlineSeconds" in done.err
    done = paid.do("run", "-f", file, "--on", "paid", code=2)
    assert "--yes: required: nobody can say what the run can cost at most" in done.err
    assert paid.run_names() == []
    paid.do("run", "-f", file, "--on", "paid", "--yes")


@pytest.mark.parametrize(
    ("answer", "code", "end"),
    [("y", 0, "cost about $0.6000"), ("n", 2, "not confirmed; nothing was started")],
)
def test_a_terminal_is_asked(paid: PaidPlace, answer: str, code: int, end: str) -> None:
    paid.write("config/podbridge/config.yaml", "confirm_above: 1\n")
    found, said = paid.do_on_terminal(answer, "run", "-f", short(paid), "--on", "paid")
    assert (found, end in said) == (code, True), said
    assert "confirm_above is $1.00. Run it? [y/N]" in said


def test_a_bad_amount_is_told_by_flag(paid: PaidPlace) -> None:
    done = paid.do("run", "-f", short(paid), "--on", "paid", "--max-cost", "ten", code=2)
    assert '--max-cost: found string "ten"; allowed: US dollars' in done.err


def test_a_plan_says_it_without_running(paid: PaidPlace) -> None:
    done = paid.do("plan", "-f", short(paid), "--on", "paid,process", "-o", "json")
    plan = json.loads(done.out)
    assert plan["atMost"] == "1.8"
    (item,) = plan["objects"]
    assert item["pods"] == {"atMost": 2, "atOnce": 1}
    (first,) = item["places"]
    assert (first["backend"], first["account"], first["region"]) == ("paid", "4711", "here-1")
    assert first["requested"] == {"cpu": "100m", "memory": "64Mi"}
    assert first["billed"] == {"cpu": "250m", "memory": "512Mi"}
    assert (first["perHour"], first["atMost"], first["free"]) == ("36", "1.8", False)
    done = paid.do("plan", "-f", short(paid), "--on", "paid")
    assert "job/words   2 (1 at once)   paid" in done.out
    assert "$36          $1.80" in done.out
    assert done.out.splitlines()[-1] == "the run can cost at most $1.80"
    assert paid.run_names() == []


def test_a_plan_says_what_cannot_run_and_why(paid: PaidPlace) -> None:
    bad = pod("bad", container("true", command=None))
    file = paid.write("bad.yaml", bad)
    done = paid.do("plan", "-f", file, "--on", "paid", code=2)
    assert "paid cannot run pod/bad" in done.out
    assert "spec.containers[0].command" in done.out
    assert "no backend that was asked can run pod/bad" in done.err


def test_a_price_that_nobody_knows(paid: PaidPlace) -> None:
    paid.write(
        "config/podbridge/config.yaml",
        "backends: [{name: far, type: paid, region: nowhere-1}]\n",
    )
    done = paid.do("plan", "-f", short(paid))
    assert "unknown" in done.out
    assert "job/words: no price is known for nowhere-1" in done.out
    paid.do("run", "-f", short(paid), "--max-cost", "100", code=3)


def test_prices_are_read_anew_on_request(paid: PaidPlace) -> None:
    done = paid.do("plan", "-f", short(paid), "--on", "paid", "--refresh-prices")
    assert words(done) == ["paid: read 2 prices of here-1"]


def test_backends_without_prices_are_free(paid: PaidPlace) -> None:
    done = paid.do("plan", "-f", short(paid), "--on", "process")
    assert done.out.splitlines()[-1] == "free: none of these backends bills"
    done = paid.do("run", "-f", short(paid), "--on", "process", "--max-cost", "0")
    assert "cost" not in done.err


def test_a_provider_elsewhere_has_its_own_prices(paid: PaidPlace) -> None:
    address = f"unix://{paid.path}/provider.sock"
    serving = paid.start("provider", "--on", "process", "--listen", address)
    serving.says("listening on")
    file = short(paid)
    done = paid.do("run", "-f", file, "--provider", address, "--max-cost", "5", code=2)
    assert "--max-cost: prices are not known here" in done.err
    done = paid.do("run", "-f", file, "--provider", address)
    assert "prices are not known here" in done.err
    serving.signal(signal.SIGTERM)
    serving.end()
