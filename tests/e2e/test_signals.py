"""Signals that come before anybody could act on them are not lost, and leave nothing half begun."""

from __future__ import annotations

import signal

import pytest
from e2e_kit import Place, pod, until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_as_it_begins_is_deleted(place: Place, number: int) -> None:
    file = place.write("pod.yaml", pod("long", "sleep 1000"))
    going = place.start("run", "--on", "process", "-f", file, "--name", "it")
    until((place.runs / "it" / "lock").exists, "the run is attended", going.process.poll)
    going.signal(number)
    done = going.end()
    assert done.code == 128 + number, done.said
    assert place.run_names() == []


def test_a_terminal_that_closes_as_a_run_begins_takes_nothing_with_it(place: Place) -> None:
    file = place.write(
        "pod.yaml", pod("brief", f"until [ -e {place.path}/go ]; do sleep 0.02; done")
    )
    going = place.start("run", "--on", "process", "-f", file, "--name", "it")
    until((place.runs / "it" / "lock").exists, "the run is attended", going.process.poll)
    going.signal(signal.SIGHUP)
    until(lambda: place.status("it") == "Running", "the run goes on", going.process.poll)
    (place.path / "go").touch()
    assert going.end().code == 0
    assert place.status("it") == "Succeeded"
    place.podbridge("delete", "it")
