from __future__ import annotations

import pytest

from bridge.errors import Invalid, Unsupported, Violation
from bridge.provider.capabilities import Assessment
from bridge.provider.placement import (
    Place,
    candidates,
    eligible,
    split,
    wanted,
)
from bridge.workload import Resources

FINE = Assessment()
SMALL = Resources(requests={"cpu": 500, "memory": 1 << 30})
A = Place("east", "fargate")
B = Place("west", "fargate")
C = Place("azure", "aci")
HOST = Place("host", "process", limits={"pods": 50})
NULL = Place("nothing", "null", simulated=True)


def names(places: tuple[Place, ...]) -> list[str]:
    return [place.name for place in places]


def refused(*fields: str) -> Assessment:
    return Assessment(tuple(Violation(field, "cannot") for field in fields))


@pytest.mark.parametrize(
    ("places", "asked", "expected"),
    [
        ([A, B, C], [], ["east", "west", "azure"]),
        ([A, B, C], ["azure", "east"], ["east", "azure"]),
        ([A, C], ["fargate"], ["east"]),
        # Never a fallback, unless it is named or there is nothing else.
        ([A, HOST], [], ["east"]),
        ([A, HOST, NULL], ["host"], ["host"]),
        ([A, HOST], ["process", "east"], ["east", "host"]),
        ([HOST], [], ["host"]),
        ([NULL], [], ["nothing"]),
        ([A, NULL], [], ["east"]),
        ([NULL, Place("other", "null", simulated=True)], [], ["nothing", "other"]),
    ],
)
def test_eligible(places: list[Place], asked: list[str], expected: list[str]) -> None:
    assert names(eligible(places, asked)) == expected


@pytest.mark.parametrize(
    ("places", "asked", "words"),
    [
        ([A, B], ["fargate"], "which 2 backends have: name one of east, west"),
        ([A, C], ["esat"], 'did you mean "east"'),
        ([A], ["x", "y"], 'found backend "x".*found backend "y"'),
        ([], [], "no backend is configured"),
        ([], ["x"], "no backend is configured"),
        ([HOST, NULL], [], "none of these is chosen without its name: host, nothing"),
        ([HOST, Place("host2", "process")], [], "without its name: host, host2"),
    ],
)
def test_not_eligible(places: list[Place], asked: list[str], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        eligible(places, asked)


def test_the_source_of_the_names_is_named() -> None:
    with pytest.raises(Invalid) as caught:
        eligible([A], ["x"], "--on")
    assert caught.value.violations[0].field == "--on"


def test_the_annotation() -> None:
    manifest = {"metadata": {"annotations": {"podbridge.io/backend": "a, b,,a"}}}
    assert wanted(manifest) == ("a", "b")
    assert wanted({"metadata": {}}) == wanted({}) == ()
    assert split(" ,") == ()


def test_skips_what_cannot_run_it_and_waits_for_what_is_full() -> None:
    full = Place("full", "process", limits={"pods": 50}, used={"pods": 50})
    tight = Place("tight", "aci", limits={"cpu": 4000}, used={"cpu": 3600})
    found = candidates(
        [full, A, B, tight],
        {"full": FINE, "east": refused("spec.hostPID"), "west": FINE, "tight": FINE},
        SMALL,
    )
    assert found.ready == ("west",)
    assert found.waiting == (
        ("full", "waiting for a place on full: 50 of 50 pods"),
        ("tight", "waiting for cpu on tight: 3600m of 4"),
    )
    assert found.names == ("west", "full", "tight")


def test_none_can_run_it() -> None:
    little = Place("little", "aci", limits={"memory": 1 << 20})
    with pytest.raises(Unsupported) as caught:
        candidates(
            [A, little],
            {"east": refused("spec.hostPID", "spec.hostIPC"), "little": FINE},
            SMALL,
        )
    assert [(one.source, one.field) for one in caught.value.violations] == [
        ("east", "spec.hostPID"),
        ("east", "spec.hostIPC"),
        ("little", "spec.containers[].resources.requests[memory]"),
    ]
    assert "none of 2 backends can run this pod: east: spec.hostPID: cannot" in str(caught.value)
    assert "1Gi in all; the backend has 1Mi" in str(caught.value)


def test_one_backend_alone_says_so() -> None:
    with pytest.raises(
        Unsupported, match=r"^the backend cannot run this pod: host: spec\.x: cannot"
    ):
        candidates([HOST], {"host": refused("spec.x")}, SMALL)
