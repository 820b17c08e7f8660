"""`install`, `run` and `watch` as processes: files, order, ends, restarts, messages."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from helper_kit import BASE, IDENTITY, KEY, Make, Pod, container, line_of

from bridge.helper.logs import Marks
from bridge.helper.payload import Tree, tree
from bridge.workload import (
    EnvVar,
    ExecAction,
    Exit,
    File,
    Files,
    HttpAction,
    Probe,
    RestartPolicy,
    RestartRule,
    Role,
    Security,
    SleepAction,
    TcpAction,
    Waiting,
)

pytestmark = pytest.mark.slow
ALWAYS, ON_FAILURE = RestartPolicy.ALWAYS, RestartPolicy.ON_FAILURE
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run as another user")
NOBODY = 65534


def end_of(pod: Pod, name: str = "m") -> Exit:
    state = pod.states()[name].state
    assert isinstance(state, Exit), state
    return state


def test_a_pod_from_its_payload_to_its_record(make: Make, tmp_path: Path) -> None:
    volume = Files("v", (File("a/b.txt", b"one\ntwo", 0o640), File("c", b"", 0o600)))
    root = tmp_path / "volume"
    pod = make(container("m", f"cat {root}/a/b.txt; echo; echo err >&2; exit 7"))
    pod.install(tree(volume, str(root)))
    assert os.access(pod.bin / "helper", os.X_OK)
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


@as_root
def test_files_belong_to_the_group_that_may_read_them(make: Make, tmp_path: Path) -> None:
    volume = Files("v", (File("d/one", b"1", 0o400), File("other", b"2")))
    whole, part, single = (tmp_path / name for name in ("whole", "part", "single"))
    pod = make(container("m", "true"))
    pod.install(
        tree(volume, str(whole), fs_group=77),
        tree(volume, str(part), "d"),
        tree(volume, str(single / "file"), "d/one"),
    )
    found = (whole / "d" / "one").stat()
    assert (found.st_gid, found.st_mode & 0o7777) == (77, 0o440)
    found = (whole / "d").stat()
    assert (found.st_gid, found.st_mode & 0o7777) == (77, 0o2775)
    assert [one.name for one in part.iterdir()] == ["one"]
    assert (single / "file").read_bytes() == b"1"


def test_files_are_written_anew_and_never_through_a_link(make: Make, tmp_path: Path) -> None:
    root, outside = tmp_path / "v", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "file").write_text("old")
    (root / "link").symlink_to(outside)
    pod = make(container("m", "true"))
    pod.install(Tree(str(root), (("file", 0o644, b"new"),)))
    assert (root / "file").read_text() == "new"
    process = pod.start(
        "install",
        "install",
        pod.payload("install", trees=[Tree(str(root), (("link/x", 0o644, b"escaped"),))]),
    )
    assert b"cannot" in pod.join("install", 122)[1]
    assert process.returncode == 122
    assert list(outside.iterdir()) == []


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


def test_a_failed_init_container_ends_the_pod(make: Make, tmp_path: Path) -> None:
    pod = make(
        container("s", "trap 'exit 0' TERM; while :; do sleep 0.05; done", Role.SIDECAR),
        container("i", "exit 3", Role.INIT),
        container("m", f"touch {tmp_path}/ran"),
    )
    pod.all()
    states = pod.states()
    assert isinstance(states["i"].state, Exit)
    assert states["i"].state.code == 3
    assert states["m"].state == Waiting("PodInitializing")
    assert isinstance(states["s"].state, Exit)
    assert not (tmp_path / "ran").exists()
    pod.join("i", 3)
    pod.join("m", 123)


def test_sidecars_start_first_and_end_last_in_reverse_order(make: Make, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    def sidecar(name: str, **more: Any) -> Any:
        script = f"trap 'echo -{name} >> {trace}; exit 0' TERM; echo +{name} >> {trace};"
        return container(name, script + "while :; do sleep 0.02; done", Role.SIDECAR, **more)

    def begun(name: str) -> Probe:
        return Probe(ExecAction(("/bin/sh", "-c", f"grep -q +{name} {trace}")), period=0.1)

    pod = make(
        sidecar("s", startup_probe=begun("s")),
        sidecar("t", startup_probe=begun("t")),
        container("m", f"echo +m >> {trace}; sleep 0.1; echo -m >> {trace}"),
    )
    pod.all()
    states = pod.states()
    assert trace.read_text().split() == ["+s", "+t", "+m", "-m", "-t", "-s"]
    assert states["s"].started is not None
    pod.join("s", 0)


def test_the_environment_is_the_images_and_the_pods(make: Make) -> None:
    env = (EnvVar("A", "one\ntwo='x' $y"), EnvVar("EMPTY", ""), EnvVar("IMAGE", "the pod's"))
    pod = make(container("m", 'printf "%s|" "$A" "${EMPTY-unset}" "$IMAGE" "$KEPT"; env', env=env))
    pod.run("m", env={**BASE, "KEPT": "kept"})
    out, _ = pod.join("m", 0)
    assert out.startswith(b"one\ntwo='x' $y||the pod's|kept|")
    assert b"PODBRIDGE" not in out


def test_the_working_directory_is_made(make: Make, tmp_path: Path) -> None:
    pod = make(container("m", "pwd", working_dir=str(tmp_path / "a" / "b")))
    pod.run("m")
    assert pod.join("m", 0)[0].decode().strip() == str(tmp_path / "a" / "b")


@as_root
def test_it_runs_as_the_user_that_the_pod_names(make: Make, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    security = Security(run_as_user=12345, run_as_group=23456, supplemental_groups=(34567,))
    script = "id -u; id -g; id -G; echo $HOME; grep NoNewPrivs /proc/self/status"
    pod = make(
        container("m", script, security=security, working_dir="/"),
        container(
            "n", script, security=Security(run_as_user=NOBODY, no_new_privileges=True),
            working_dir="/",
        ),
    )  # fmt: skip
    pod.all()
    pod.end()
    lines = pod.join("m", 0)[0].decode().splitlines()
    assert lines[:2] == ["12345", "23456"]
    assert set(lines[2].split()) == {"23456", "34567"}
    assert lines[3:] == ["/", "NoNewPrivs:\t0"]
    lines = pod.join("n", 0)[0].decode().splitlines()
    assert lines[0] == str(NOBODY)
    assert lines[4] == "NoNewPrivs:\t1"


@as_root
def test_a_helper_that_is_not_root_cannot_change_the_user(make: Make, tmp_path: Path) -> None:
    shared = tmp_path / "podbridge"
    for one in (tmp_path, *list(tmp_path.parents)[:3]):
        one.chmod(0o755)
    pod = make(container("m", "id -u", security=Security(run_as_user=1)), container("n", "id -u"))
    pod.install()
    assert (shared / "state").stat().st_mode & 0o7777 == 0o1777
    # What was built is in a folder of this user only.
    pod.program = pod.bin / "helper"
    for name in ("m", "n"):
        pod.run(name, user=NOBODY, group=NOBODY, extra_groups=[])
    pod.watch()
    end = end_of(pod)
    assert (end.code, end.reason) == (128, "StartError")
    assert end.message.startswith("cannot run as user 1, group 1: the helper runs as user 65534")
    pod.join("m", 128)
    assert pod.join("n", 0)[0] == b"65534\n"


def test_signals_are_passed_on_and_term_has_a_grace(make: Make) -> None:
    script = (
        "trap 'echo usr' USR1; trap 'echo term; exit 9' TERM; echo on; while :; do sleep 0.02; done"
    )
    pod = make(container("m", script))
    process = pod.run("m")
    assert line_of(process) == b"on\n"
    process.send_signal(signal.SIGUSR1)
    assert line_of(process) == b"usr\n"
    process.terminate()
    assert pod.join("m", 9)[0] == b"term\n"


def test_whoever_ignores_the_stop_signal_is_killed_with_all_of_its_own(make: Make) -> None:
    script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; sleep 60' & sleep 60; sleep 60"
    pod = make(container("m", script), spec={"grace": 0.3})
    process = pod.run("m")
    pod.watch()
    pid = int(line_of(process))
    process.terminate()
    end = end_of(pod)
    assert (end.code, end.signal, end.reason) == (137, 9, "Error")
    pod.join("m", 137)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_another_stop_signal(make: Make) -> None:
    script = "trap 'exit 4' INT; echo on; while :; do sleep 0.02; done"
    pod = make(container("m", script, stop_signal="SIGINT"))
    process = pod.run("m")
    line_of(process)
    process.terminate()
    pod.join("m", 4)


def test_what_a_container_leaves_behind_ends_with_it_and_zombies_are_reaped(make: Make) -> None:
    # A grandchild that is orphaned and ends; one that stays; one that left the session.
    script = """
    (true & ); sleep 60 & setsid sleep 61 & echo $!
    while cat /proc/[0-9]*/stat 2>&- | grep -q " Z $PPID "; do sleep 0.02; done
    exit 6
    """
    pod = make(container("m", script))
    pod.run("m")
    pid = int(pod.join("m", 6)[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_signal_is_told_from_a_code(make: Make) -> None:
    pod = make(container("m", "kill -SEGV $$"), container("n", "exit 139"))
    pod.all()
    states = pod.states()
    first, second = states["m"].state, states["n"].state
    assert isinstance(first, Exit)
    assert isinstance(second, Exit)
    assert (first.code, first.signal) == (139, 11)
    assert (second.code, second.signal) == (139, 0)


@pytest.mark.parametrize("through", [False, True])
def test_both_streams_are_whole_and_apart(make: Make, through: bool) -> None:
    script = "head -c 3000000 /dev/urandom | tee /dev/stderr; echo $? >&2; printf end"
    pod = make(container("m", script, logs_as_message=through))
    pod.run("m")
    out, err = pod.join("m", 0)
    assert out.endswith(b"end")
    assert err.endswith(b"0\n")
    assert len(out) == 3000003
    assert hashlib.sha256(out[:-3]).digest() == hashlib.sha256(err[:-2]).digest()


def test_a_termination_message_is_the_files_end(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "message"
    pod = make(
        container("m", f"printf said > {path}", termination_message_path=str(path)),
        container(
            "n", f"head -c 5000 /dev/zero | tr '\\0' a > {path}2; printf z >> {path}2",
            termination_message_path=f"{path}2",
        ),
        container("o", "exit 1", termination_message_path=f"{path}3"),
    )  # fmt: skip
    pod.all()
    ends = {name: one.state for name, one in pod.states().items()}
    assert [isinstance(one, Exit) and one.message for one in ends.values()] == [
        "said",
        "a" * 4095 + "z",
        "",
    ]


def test_a_link_in_the_messages_place_shows_nothing(make: Make, tmp_path: Path) -> None:
    path, secret = tmp_path / "message", tmp_path / "secret"
    secret.write_text("hidden")
    script = f"rm {path}; ln -s {secret} {path}; exit 1"
    pod = make(container("m", script, termination_message_path=str(path)))
    pod.all()
    assert end_of(pod).message == ""


def test_the_logs_end_is_the_message_where_that_is_asked_for(make: Make) -> None:
    pod = make(
        container("m", "seq 100 >&2; echo last >&2; exit 1", logs_as_message=True),
        container("n", "echo fine", logs_as_message=True),
    )
    pod.all()
    states = pod.states()
    failed, fine = states["m"].state, states["n"].state
    assert isinstance(failed, Exit)
    assert isinstance(fine, Exit)
    lines = failed.message.splitlines()
    assert (len(lines), "last" in lines, "100" in lines) == (80, True, True)
    assert fine.message == ""


def test_restarts_wait_and_keep_their_count(make: Make, tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f"echo x >> {count}; test $(wc -l < {count}) -ge 4 && exit 0; exit 5"
    pod = make(container("m", script, restart_policy=ON_FAILURE), first_backoff=0.1)
    pod.all()
    state = pod.states()["m"]
    assert isinstance(state.state, Exit)
    assert (state.state.code, state.restart) == (0, 3)
    assert state.previous is not None
    assert state.previous.code == 5
    assert state.previous.finished_at + 0.1 <= (state.state.started_at or 0)
    marks = Marks(KEY, IDENTITY, "m")
    for output in pod.join("m", 0):
        begun = [marks.number(line) for line in output.splitlines(keepends=True)]
        assert [one for one in begun if one is not None] == [1, 2, 3]


def test_a_container_in_its_back_off_can_be_ended(make: Make) -> None:
    pod = make(container("m", "exit 5", restart_policy=ALWAYS))
    process = pod.run("m")
    said = pod.until("m", lambda said: said["state"] == "ended" and said["restart"] == 1)
    assert said["backoff"] == 10
    process.terminate()
    pod.join("m", 5)
    assert "backoff" not in pod.board("m")


def test_a_containers_own_rules_decide(make: Make, tmp_path: Path) -> None:
    rules = (RestartRule(True, frozenset({42})),)
    script = f"test -e {tmp_path}/x && exit 1; touch {tmp_path}/x; exit 42"
    pod = make(container("m", script, restart_rules=rules))
    pod.all()
    state = pod.states()["m"]
    assert isinstance(state.state, Exit)
    assert (state.state.code, state.restart) == (1, 1)


def test_none_leaves_before_the_last(make: Make, tmp_path: Path) -> None:
    pod = make(
        container("m", "exit 3"),
        container("n", f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; exit 4"),
    )
    pod.all()
    pod.until("m", lambda said: said.get("final"))
    pod.until("n", lambda said: said["state"] == "running")
    assert pod.running["m"].poll() is None
    (tmp_path / "go").touch()
    pod.join("m", 3)
    pod.join("n", 4)
    pod.end()


def test_a_deadline_ends_all(make: Make) -> None:
    import time

    pod = make(
        container("m", "sleep 60"),
        container("n", "exit 0"),
        spec={"deadline": 0.5, "start_time": time.time(), "grace": 1.0},
    )
    pod.all()
    record = pod.end()
    assert (record.failed, record.reason) == (True, "DeadlineExceeded")
    ends = {one.name: one.state for one in record.containers}
    assert isinstance(ends["m"], Exit)
    assert isinstance(ends["n"], Exit)
    assert (ends["m"].signal, ends["n"].code) == (15, 0)
    pod.join("m", 143)
    pod.join("n", 0)


def test_the_hard_stop_is_for_ever(make: Make) -> None:
    script = "trap 'exit 0' TERM; while :; do sleep 0.02; done"
    pod = make(container("m", script, restart_policy=ALWAYS), spec={"hard_stop": 0.5})
    pod.all()
    record = pod.end()
    end = record.containers[0].state
    assert isinstance(end, Exit)
    assert (end.code, end.reason, end.message) == (
        143,
        "Error",
        "the hard stop of 0.5 s was reached",
    )
    assert (record.failed, record.reason) == (True, "HardStop")


@pytest.fixture
def web() -> Iterator[tuple[int, list[str], dict[str, int]]]:
    """A server: its port, what it was asked for, and the statuses of its paths."""
    seen: list[str] = []
    statuses: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.path} {self.headers['User-Agent']} {self.headers['X-One']}")
            self.send_response(statuses.get(self.path, 200))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port, seen, statuses
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_liveness_probe_has_a_container_started_anew(
    make: Make, web: tuple[int, list[str], dict[str, int]], tmp_path: Path
) -> None:
    port, seen, statuses = web
    statuses["/alive"] = 500
    action = HttpAction(port, "/alive", headers=(("X-One", "1"),))
    probe = Probe(action, period=0.1, failure_threshold=2)
    script = f"test -e {tmp_path}/x && exit 0; touch {tmp_path}/x; exec sleep 60"
    pod = make(container("m", script, liveness_probe=probe, restart_policy=ON_FAILURE))
    pod.all()
    state = pod.states()["m"]
    assert state.restart == 1
    assert state.previous is not None
    assert (state.previous.code, state.previous.signal) == (143, 15)
    assert seen[:2] == ["/alive kube-probe/1.36 1"] * 2
    told = [(one["reason"], one["message"]) for one in pod.board("m")["notices"]]
    assert told == [
        ("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500"),
        ("Killing", "Container m failed liveness probe, will be restarted"),
    ]


def test_probes_of_each_kind_and_readiness(
    make: Make, web: tuple[int, list[str], dict[str, int]], tmp_path: Path
) -> None:
    port, _, _ = web
    pod = make(
        container(
            "m",
            f"while [ ! -e {tmp_path}/end ]; do sleep 0.02; done",
            startup_probe=Probe(TcpAction(port), period=0.1),
            readiness_probe=Probe(
                ExecAction(("/bin/sh", "-c", f"test -e {tmp_path}/ready")), period=0.05,
                failure_threshold=1,
            ),
            liveness_probe=Probe(HttpAction(port), period=0.1),
        )
    )  # fmt: skip
    pod.run("m")
    pod.until("m", lambda said: said.get("started") and not said["ready"])
    (tmp_path / "ready").touch()
    pod.until("m", lambda said: said.get("ready"))
    (tmp_path / "ready").unlink()
    pod.until("m", lambda said: said.get("started") and not said["ready"])
    (tmp_path / "end").touch()
    pod.join("m", 0)


def test_a_probe_that_hangs_is_a_failure_and_is_killed(make: Make, tmp_path: Path) -> None:
    ask = ExecAction(("/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 60"))
    probe = Probe(ask, period=0.1, timeout=0.3, failure_threshold=1)
    pod = make(container("m", "sleep 60", startup_probe=probe))
    pod.all()
    assert end_of(pod).signal == 15
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_hooks(make: Make, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    def say(words: str) -> ExecAction:
        return ExecAction(("/bin/sh", "-c", f"echo {words} >> {trace}"))

    script = f"trap 'echo term >> {trace}; exit 0' TERM; while :; do sleep 0.02; done"
    pod = make(
        container("m", script, post_start=say("begun"), pre_stop=say("ending")),
        container("n", "sleep 60", post_start=ExecAction(("false",))),
        container("o", script.replace("term", "o"), pre_stop=SleepAction(0.05)),
    )
    pod.all()
    pod.until("m", lambda said: said.get("started"))
    assert not pod.board("m").get("opening")
    said = pod.until("n", lambda said: said.get("final"))
    assert [(one["reason"], one["message"]) for one in said["notices"]] == [
        ("FailedPostStartHook", "PostStartHook failed"),
        ("Killing", "FailedPostStartHook"),
    ]
    pod.running["m"].terminate()
    pod.until("m", lambda said: said.get("final"))
    assert trace.read_text().split() == ["begun", "ending", "term"]
    pod.running["o"].terminate()
    states = pod.states()
    assert isinstance(states["n"].state, Exit)
    assert states["n"].state.signal == 15


def test_main_containers_start_one_after_another_hook_included(make: Make, tmp_path: Path) -> None:
    hook = f"while ! test -e {tmp_path}/go; do sleep 0.02; done"
    pod = make(
        container("m", "sleep 60", post_start=ExecAction(("/bin/sh", "-c", hook))),
        container("n", "exit 3"),
    )
    pod.all()
    said = pod.until("m", lambda said: said["state"] == "running")
    assert (said["opening"], said["started"], said["ready"]) == (True, False, False)
    pod.until("n", lambda said: said["state"] == "waiting")
    let_go = time.time()
    (tmp_path / "go").touch()
    begun = pod.until("m", lambda said: not said.get("opening"))
    assert begun["started"]
    after = pod.until("n", lambda said: said.get("final"))["exit"]
    assert after["started_at"] > let_go
    pod.running["m"].terminate()
    pod.end()


def test_a_pre_stop_hook_that_fails_or_takes_too_long_is_told(make: Make) -> None:
    pod = make(
        container("m", "sleep 60", pre_stop=ExecAction(("false",))),
        container("n", "sleep 60", pre_stop=ExecAction(("sleep", "60"))),
        container("o", "sleep 60", pre_stop=ExecAction(("true",))),
        spec={"grace": 0.5},
    )
    pod.all()
    for name, count in (("m", 1), ("n", 1), ("o", 0)):
        pod.until(name, lambda said: said["state"] == "running")
        pod.running[name].terminate()
        said = pod.until(name, lambda said: said.get("final"))
        told = [("FailedPreStopHook", "PreStopHook failed", True)] * count
        assert [
            (one["reason"], one["message"], one["warning"]) for one in said.get("notices", ())
        ] == told
    pod.end()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("/no/such/program",), 'exec: "/no/such/program": no such file or directory'),
        (("no-such-program",), 'exec: "no-such-program": executable file not found in $PATH'),
        (("/etc/passwd",), 'exec: "/etc/passwd": permission denied'),
        (("/etc",), 'exec: "/etc": permission denied'),
        (("FOREIGN",), 'exec: "FOREIGN": exec format error'),
        (("LOADER",), 'exec: "LOADER": no such file or directory'),
        ((), "exec: there is no command"),
    ],
)
def test_a_command_that_cannot_be_started(
    make: Make, tmp_path: Path, argv: tuple[str, ...], words: str
) -> None:
    from dataclasses import replace

    for name, content in (
        ("FOREIGN", b"\x7fELF\x02\x01\x01" + bytes(99)),
        ("LOADER", b"#!/no/sh\n"),
    ):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o755)
    argv = tuple(str(tmp_path / one) if one.isupper() else one for one in argv)
    pod = make(replace(container("m", ""), command=argv))
    pod.all()
    end = end_of(pod)
    assert (end.code, end.reason) == (128, "StartError")
    assert end.message == words.replace("FOREIGN", argv[0] if argv else "").replace(
        "LOADER", argv[0] if argv else ""
    )
    pod.join("m", 128)


def test_the_command_may_stand_behind_dashes(make: Make) -> None:
    from dataclasses import replace

    pod = make(replace(container("m", ""), command=()))
    pod.start("m", "run", pod.payload("run", "m"), "--", "/bin/sh", "-c", "echo $0 $1", "a", "b c")
    assert pod.join("m", 0)[0] == b"a b c\n"


def test_a_pod_without_a_watcher_has_its_record_in_its_own_log(make: Make) -> None:
    pod = make(container("m", "printf 'no line end'; exit 2"), record=True)
    pod.run("m")
    out, _ = pod.join("m", 2)
    assert out.startswith(b"no line end\npodbridge-record/1 ")
    record = pod.record(out)
    assert record.by == "run"
    assert isinstance(record.containers[0].state, Exit)
    assert record.containers[0].state.code == 2


def test_a_peer_that_never_comes_ends_the_pod_with_a_reason(make: Make) -> None:
    pod = make(container("i", "true", Role.INIT), container("m", "true"), peer_wait=0.5)
    pod.run("m")
    pod.watch()
    record = pod.end()
    words = "the container i did not come within 0.5 s"
    assert (record.failed, record.reason) == (True, "PeerMissing")
    assert record.containers[1].state == Waiting("PeerMissing", words)
    assert words.encode() in pod.join("m", 123)[1]


def test_a_helper_that_is_killed_is_missed_at_once(make: Make) -> None:
    pod = make(container("i", "exec sleep 60", Role.INIT), container("m", "true"))
    pod.all()
    pod.until("i", lambda said: said["state"] == "running")
    pod.running["i"].kill()
    record = pod.end()
    end = record.containers[0].state
    assert isinstance(end, Exit)
    assert (end.code, end.reason) == (137, "ContainerStatusUnknown")
    assert record.containers[1].state == Waiting(
        "PeerMissing", "the container i is no more, and left no word of its end"
    )
    pod.join("m", 123)


def test_the_container_dies_with_its_helper(make: Make) -> None:
    pod = make(container("m", "echo $$; exec sleep 60"))
    process = pod.run("m")
    pid = int(line_of(process))
    process.kill()
    process.wait()
    for _ in range(500):
        with (
            open(f"/proc/{pid}/stat")
            if os.path.exists(f"/proc/{pid}")
            else open(os.devnull) as stat
        ):
            if stat.read().rpartition(")")[2].split()[:1] in ([], ["Z"]):
                return
        threading.Event().wait(0.01)
    pytest.fail("it still runs")


def test_a_container_is_not_begun_twice(make: Make, tmp_path: Path) -> None:
    script = f"echo ran >> {tmp_path}/trace; echo said; exec sleep 60"
    pod = make(container("m", script), barrier=False)
    first = pod.run("m")
    assert line_of(first) == b"said\n"
    pod.until("m", lambda said: said["state"] == "running")
    first.kill()
    first.communicate()
    pod.run("m")
    pod.join("m", 137)
    pod.watch()
    end = end_of(pod)
    assert (end.code, end.reason) == (137, "ContainerStatusUnknown")
    pod.run("m")
    pod.join("m", 137)
    assert (tmp_path / "trace").read_text() == "ran\n"


def test_one_container_has_one_helper(make: Make, program: Path) -> None:
    pod = make(container("m", "echo on; exec sleep 60"))
    line_of(pod.run("m"))
    first = pod.running["m"]
    pod.run("m")
    assert b'another helper already runs the container "m"' in pod.join("m", 122)[1]
    pod.running["first"] = first


@as_root
def test_a_watcher_that_is_asked_to_end_waits_for_the_last_words(make: Make) -> None:
    script = "trap 'sleep 0.2; exit 6' TERM; echo on; while :; do sleep 0.02; done"
    pod = make(container("m", script))
    process = pod.run("m")
    watcher = pod.watch()
    line_of(process)
    # It listens to signals before it watches the folder.
    pod.until_held(watcher, "anon_inode:inotify")
    watcher.terminate()
    process.terminate()
    assert end_of(pod).code == 6


def test_an_unwritable_folder_is_said(make: Make, tmp_path: Path) -> None:
    (tmp_path / "podbridge").write_text("a file")
    pod = make(container("m", "true"))
    pod.run("m")
    assert b"cannot make" in pod.join("m", 122)[1]
    pod.start("install", "install", pod.payload("install"))
    assert b"cannot make" in pod.join("install", 122)[1]


def test_version_and_wrong_calls(program: Path) -> None:
    def call(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([program, *words], capture_output=True, timeout=20, check=False)

    assert call("version").returncode == 0
    for words in ((), ("frobnicate",), ("run", "--frobnicate"), ("watch", "--", "x")):
        assert call(*words).returncode == 120
    assert b"there is no payload" in (told := call("run")).stderr
    assert told.returncode == 121


def test_without_a_grace_there_is_no_pre_stop_hook(make: Make, tmp_path: Path) -> None:
    pod = make(
        container(
            "m",
            f"test -e {tmp_path}/x && exit 0; touch {tmp_path}/x; exec sleep 60",
            restart_policy=RestartPolicy.ON_FAILURE,
            liveness_probe=Probe(ExecAction(("false",)), period=0.1, failure_threshold=1),
            pre_stop=ExecAction(("/bin/sh", "-c", "sleep 5")),
        ),
        spec={"grace": 0.0},
    )
    pod.all()
    pod.end()
    assert [one["reason"] for one in pod.board("m")["notices"]] == ["Unhealthy", "Killing"]
