"""`install`, `run` and `watch` as processes: files, order, ends, restarts, messages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helper_kit import Make, container

from bridge.errors import NotFound
from bridge.helper.payload import tree
from bridge.helper.record import read
from bridge.workload import Exit, File, Files, Role

pytestmark = pytest.mark.slow


def test_a_pod_from_its_payload_to_its_record(make: Make, tmp_path: Path) -> None:
    volume = Files("v", (File("a/b.txt", b"one\ntwo", 0o640), File("c", b"", 0o600)))
    root = tmp_path / "volume"
    pod = make(container("m", f"cat {root}/a/b.txt; echo; echo err >&2; exit 7"))
    pod.install(tree(volume, str(root)))
    assert os.access(pod.folder / "helper", os.X_OK)
    pod.all()
    state = pod.states()["m"]
    end = state.state
    assert isinstance(end, Exit)
    assert (end.code, end.reason, end.signal, state.restart) == (7, "Error", 0, 0)
    assert end.started_at is not None
    assert end.started_at <= end.finished_at
    assert pod.join("m", 7) == (b"one\ntwo\n", b"err\n")
    assert (root / "a" / "b.txt").stat().st_mode & 0o7777 == 0o640
    assert (root / "c").stat().st_mode & 0o7777 == 0o600


def test_init_containers_come_in_order_and_then_the_main_ones(make: Make, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pod = make(
        container("i", f"echo i >> {trace}", Role.INIT),
        container("j", f"echo j >> {trace}", Role.INIT),
        container("m", f"echo m >> {trace}"),
    )
    pod.all()
    states = pod.states()
    assert trace.read_text().split() == ["i", "j", "m"]
    assert all(isinstance(one.state, Exit) and one.state.code == 0 for one in states.values())


def test_another_key_reads_nothing(make: Make) -> None:
    pod = make(container("m", "true"))
    pod.all()
    out, _ = pod.join("watch", 0)
    assert pod.record(out).by == "watch"
    with pytest.raises(NotFound, match="1 that the pod's key did not seal"):
        read(out, bytes(32), pod.workload.identity)
