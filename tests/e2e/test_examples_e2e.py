"""Every example runs to the end that its readers are told of, as processes and in containers."""

from __future__ import annotations

import pytest
from e2e_kit import ROOT, Done, Place

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
EXPECTED: dict[str, tuple[int, list[str]]] = {
    "hello.yaml": (0, ["Hello from hello-"]),
    "wordcount": (0, ["   1. the       1641 ####", "  10. alice      386 ####"]),
    "sweep": (0, ["#index,contacts,days,vaccinated", "\n11,0.40,10,0.65,4.00,"]),
    "retry/retriable.yaml": (
        0,
        ["meter 2 does not answer", "meter 2: 3.19 kWh (failures before: 1)"],
    ),
    "retry/fatal.yaml": (1, ["/readings/meter-1.csv is corrupt: exit code 3, no try will mend it"]),
    "config": (0, ["prices.csv: OK", "sum                      25.60 EUR", "a file of mode 400"]),
    "ci": (0, ["unit: 6 of 6 passed", "lint: 0 findings in 3 files"]),
    "cron": (0, ["160 requests of 10 visitors", "Rotated 160 lines"]),
    "sidecar": (0, ["90 orders, 18679.25 in all", "shipped 90 lines in 4 batches"]),
}

ON_FARGATE: dict[str, tuple[int, list[str]]] = {
    # Its host's name is AWS's.
    "hello.yaml": (0, ["Hello from ip-"]),
    "wordcount": (
        2,
        ["spec.template.spec.volumes[1].hostPath: there is no host to share files with"],
    ),
}
"""What is otherwise there."""


def test_no_example_is_forgotten() -> None:
    found = [path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*.yaml")]
    assert [one for one in found if not {str(one), one.parts[0]} & EXPECTED.keys()] == []


@pytest.mark.parametrize("name", EXPECTED)
def test_example(anywhere: Place, name: str) -> None:
    place = anywhere
    code, lines = EXPECTED[name]
    done = place.run("-f", str(EXAMPLES / name), code=code)
    says(done, lines)
    (run,) = place.run_names()
    place.podbridge("delete", run)
    assert place.run_names() == []


@pytest.mark.parametrize("name", EXPECTED)
def test_example_on_a_simulated_fargate(place: Place, helper: dict[str, str], name: str) -> None:
    code, lines = ON_FARGATE.get(name, EXPECTED[name])
    words = ("run", "--on", "fargate", "--simulate", "-f", str(EXAMPLES / name))
    says(place.podbridge(*words, code=code, env=helper), lines)
    # The cloud is gone, and all that was in it.
    assert place.run_names() == []


def says(done: Done, lines: list[str]) -> None:
    # Each line is behind the name of its pod: the words are what is looked for.
    text = "\n".join(line.partition(" | ")[2] or line for line in done.said.splitlines())
    for line in lines:
        assert line in text, done.said
