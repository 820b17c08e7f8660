from __future__ import annotations

from pathlib import Path

import pytest
from commands_kit import fake_run, home, make_run, pod

from bridge.cli.select import RunState, find, find_run, kind_of, objects, selector
from bridge.errors import Invalid, NotFound
from bridge.local.store import Change

__all__ = ["home"]

LABELS = {"app": "words", "tier": "batch"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("app=words", True),
        ("app==words", True),
        ("app = words", True),
        ("app=other", False),
        ("app!=other", True),
        ("none!=x", True),
        ("app in (words, other)", True),
        ("app in (other)", False),
        ("none in (x)", False),
        ("app notin (words)", False),
        ("none notin (x)", True),
        ("app", True),
        ("none", False),
        ("!none", True),
        ("! app", False),
        ("app=words,tier in (batch,web),!none", True),
        ("app=words,tier=web", False),
    ],
)
def test_selectors_mean_what_they_mean_to_kubectl(text: str, matches: bool) -> None:
    chosen = selector(text)
    assert chosen is not None
    assert chosen(LABELS) is matches


@pytest.mark.parametrize("text", ["app=", "", None])
def test_an_empty_value_or_selector(text: str | None) -> None:
    chosen = selector(text)
    assert (chosen is None) == (not text)
    assert chosen is None or chosen({"app": ""})


@pytest.mark.parametrize("text", ["=x", "a b", "a in x", "a in (x", "a,,b", "a>1"])
def test_a_selector_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="-l: found"):
        selector(text)


def test_names_that_are_not_there_are_answered_with_the_nearest(home: Path) -> None:
    with pytest.raises(NotFound, match='no run named "word": there are none'):
        find_run("word")
    make_run("words")
    make_run("hello")
    with pytest.raises(NotFound, match='did you mean "words"'):
        find_run("word")
    with pytest.raises(NotFound, match="there are: hello, words"):
        find_run("zzz")
    assert find_run("run/words").name == "words"


def test_kinds_and_the_nearest_of_them() -> None:
    assert kind_of("po") == "Pod"
    assert kind_of("Jobs") == "Job"
    with pytest.raises(Invalid, match='did you mean "pod"'):
        kind_of("podz")


def state(name: str, *pods: str) -> RunState:
    out = RunState(fake_run(name), None)
    for each in pods:
        out.pods[f"{name}/{each}"] = pod(each)
    return out


def test_objects_come_in_the_order_of_their_numbers() -> None:
    found = objects([state("a", "w-10", "w-2", "w-1")], "Pod")
    assert [one.name for one in found] == ["w-1", "w-2", "w-10"]


def test_a_name_in_two_runs_is_ambiguous() -> None:
    both = [state("a", "web"), state("b", "web")]
    with pytest.raises(Invalid, match=r'"web" is in several runs: a, b; name one with --run'):
        find(both, "Pod", "web")
    assert find(both[:1], "Pod", "web").state.name == "a"
    with pytest.raises(NotFound, match='no pod named "wbe" in run a; did you mean "web"'):
        find(both[:1], "Pod", "wbe")


def test_a_run_stands_as_its_objects_do() -> None:
    one = RunState(fake_run(), 1)
    assert one.apply(Change("ADDED", "Pod", pod("a", phase="Running")))
    assert (one.status, one.counts) == ("Running", (0, 1, 0))
    one.attendant = None
    assert (one.status, one.resumable) == ("Unattended", True)
    one.apply(Change("MODIFIED", "Pod", pod("a", phase="Failed")))
    assert (one.status, one.counts) == ("Failed", (0, 1, 1))
    one.problem = "no answer"
    assert one.status == "Unknown"
    assert one.apply(Change("DELETED", "Pod", pod("a")))
    assert not one.pods
