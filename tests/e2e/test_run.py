"""`podbridge run` and what people do with a run, on plain processes, as they type it."""

from __future__ import annotations

import os
import signal
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from e2e_kit import Going, Place, container, exit_codes, job, pod, until

pytestmark = pytest.mark.slow

WAITS = "until [ -e {go} ]; do sleep 0.02; done"


# What runs.


@pytest.mark.parametrize(
    ("script", "code", "out"),
    [
        ("printf 'a\\tb\\n\\nno end'", 0, b"a\tb\n\nno end"),
        ("printf '\\377\\0\\r\\n'; exit 3", 1, b"\xff\0\r\n"),
        ("kill -9 $$", 1, b""),
        ("head -c 300000 /dev/zero", 0, bytes(300000)),
    ],
)
def test_one_command_to_the_byte(place: Place, script: str, code: int, out: bytes) -> None:
    going = place.start("run", "one", "--on", "process", "-q", "--", "sh", "-c", script)
    done = going.end()
    assert done.code == code, done.said
    assert going.out.read_bytes() == out
    (name,) = place.run_names()
    logs = place.start("logs", name)
    assert logs.end().code == 0
    assert logs.out.read_bytes() == out


def test_its_words_go_to_stderr(place: Place) -> None:
    done = place.run("one", "-e", "A=$(B) $x", "--", "sh", "-c", 'echo "$A"')
    assert done.out == "$(B) $x\n"
    assert done.err.startswith("process: plain processes of this machine")
    assert "succeeded" in done.err.splitlines()[-1]


def test_a_failure_says_why_and_what_to_type(place: Place) -> None:
    done = place.run("one", "--", "sh", "-c", "seq 20; echo last words >&2; exit 3", code=1)
    assert "one: exit code 3" in done.err
    assert "last words" in done.err
    assert "\n    12\n" in done.err
    assert "\n    11\n" not in done.err
    (name,) = place.run_names()
    assert f"podbridge logs {name} one" in done.err


def test_a_job(place: Place) -> None:
    file = place.write("job.yaml", job("sum", "echo one of $((1 + 1))", completions=3))
    done = place.run("-f", file)
    assert done.out.count("one of 2\n") == 3
    assert "job/sum succeeded: 3/3 done" in done.err


def test_an_indexed_job(place: Place) -> None:
    script = f'echo "$JOB_COMPLETION_INDEX $(uname -n) $HOSTNAME" >> {place.path}/said'
    file = place.write(
        "job.yaml", job("idx", script, completionMode="Indexed", completions=4, parallelism=2)
    )
    done = place.run("-f", file)
    assert sorted(place.lines("said")) == [f"{i} idx-{i} idx-{i}" for i in range(4)]
    assert "spec.hostname" not in done.err


def test_init_containers_and_configuration(place: Place) -> None:
    data = {"kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"key": "plain"}}
    secret = {
        "kind": "Secret",
        "metadata": {"name": "sec"},
        "stringData": {"key": "hidden", "file": "in a file"},
    }
    mounts = [
        {"name": "work", "mountPath": "/work"},
        {"name": "conf", "mountPath": "/etc/conf"},
        {"name": "sec", "mountPath": "/etc/sec"},
    ]
    spec = {
        "initContainers": [
            container("echo first > /work/log", "one", volumeMounts=mounts),
            container("echo second >> /work/log", "two", volumeMounts=mounts),
        ],
        "volumes": [
            {"name": "work", "emptyDir": {}},
            {"name": "conf", "configMap": {"name": "conf"}},
            {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
        ],
    }
    main = container(
        "cat /work/log /etc/conf/key; echo; cat /etc/sec/file; echo; echo $A $B; "
        "stat -L -c %a /etc/sec/file",
        volumeMounts=mounts,
        env=[
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "key"}}},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "key"}}},
        ],
    )
    api = {"apiVersion": "v1"}
    file = place.write("all.yaml", api | data, api | secret, pod("conf", main, **spec))
    done = place.run("-f", file, "-q")
    text = "\n".join(line.rpartition(" | ")[2] for line in done.out.splitlines())
    assert text == "first\nsecond\nplain\nin a file\nplain hidden\n400"
    assert not [one for one in place.path.rglob("run.json") if one.stat().st_mode & 0o077]
    assert "hidden" not in done.err


def test_the_same_from_a_folder_and_standard_input(place: Place) -> None:
    place.write("all/a.yaml", pod("a", "echo from a"))
    place.write("all/b.json", pod("b", "echo from b"))
    place.write("all/notes.txt", "no manifest")
    out = place.run("-f", str(place.path / "all"), "-q").out
    assert sorted(line.rpartition(" ")[2] for line in out.splitlines()) == ["a", "b"]
    text = Path(place.write("c.yaml", pod("c", "echo from c"))).read_bytes()
    assert place.run("-f", "-", "-q", stdin=text).out == "from c\n"


def test_a_job_retries_up_to_its_limit(place: Place) -> None:
    script = f"echo x >> {place.path}/said; exit 4"
    file = place.write("job.yaml", job("again", script, backoffLimit=0))
    done = place.run("-f", file, code=1)
    assert place.lines("said") == ["x"]
    assert "BackoffLimitExceeded" in done.err
    assert "exit code 4" in done.err


def test_a_pod_failure_policy_ends_a_job_at_once(place: Place) -> None:
    rules = [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]
    script = f"echo x >> {place.path}/said; exit 42"
    file = place.write(
        "job.yaml", job("policy", script, backoffLimit=5, podFailurePolicy={"rules": rules})
    )
    done = place.run("-f", file, code=1)
    assert place.lines("said") == ["x"]
    assert "PodFailurePolicy" in done.err


def test_on_failure_restarts_the_container(place: Place) -> None:
    script = f'echo x >> {place.path}/said; test "$(wc -l < {place.path}/said)" = 2'
    file = place.write("pod.yaml", pod("again", script, restartPolicy="OnFailure"))
    place.run("-f", file)
    assert place.lines("said") == ["x", "x"]
    (one,) = place.pods(place.run_names()[0])
    assert one["status"]["containerStatuses"][0]["restartCount"] == 1
    assert one["status"]["phase"] == "Succeeded"


# Flags.


def test_exit_code_from(place: Place) -> None:
    file = place.write("two.yaml", pod("a", "exit 7"), pod("b", "true"))
    place.run("-f", file, "--exit-code-from", "a", code=7)
    place.run("-f", file, "--exit-code-from", "b/main", code=0)
    place.run("-f", file, code=1)


def test_junit(place: Place) -> None:
    file = place.write("two.yaml", pod("good", "true"), pod("bad", "echo because; exit 7"))
    report = place.path / "report.xml"
    place.run("-f", file, "--junit", str(report), code=1)
    suites = ET.fromstring(report.read_text())
    cases = {one.get("name"): one for one in suites.iter("testcase")}
    assert len(cases) == 2
    (bad,) = (one for name, one in cases.items() if name and "bad" in name)
    failure = bad.find("failure")
    assert failure is not None
    assert "because" in ET.tostring(bad, "unicode")
    assert "7" in (failure.get("message") or "")


def test_json(place: Place) -> None:
    file = place.write("job.yaml", job("j", "echo said; exit 5", backoffLimit=0))
    events = place.run("-f", file, "-o", "json", code=1).lines()
    assert all({"time", "type", "run"} <= one.keys() for one in events)
    assert events[-1]["type"] == "result"
    assert events[-1]["exitCode"] == 1
    assert [one["log"] for one in events if one["type"] == "log"] == ["said"]
    assert any(one["type"] == "pod" and one.get("exitCode") == 5 for one in events)


def test_dry_run_starts_nothing(place: Place) -> None:
    done = place.run("one", "--dry-run", "-o", "json", "--", "sh", "-c", "true")
    assert done.json()["kind"] == "Pod"
    assert place.run_names() == []


def test_the_dry_run_can_be_run(place: Place) -> None:
    text = place.run("one", "--dry-run", "-o", "yaml", "-e", "A=b c", "--", "printenv", "A").out
    assert place.run("-f", "-", "-q", stdin=text.encode()).out == "b c\n"


def test_env_file_and_secret(place: Place) -> None:
    variables = place.write("vars", "# what for\nA=1 2\nB\n")
    environment = {"B": "from here", "HIDDEN": "s3cret"}
    main = container(
        'echo "$A|$B|$S"',
        env=[{"name": "S", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}}],
    )
    file = place.write("pod.yaml", pod("p", main))
    words = ["-f", file, "-q", "--env-file", variables, "--secret", "sec/k=env:HIDDEN"]
    assert place.run(*words, env=environment).out == "1 2|from here|s3cret\n"


# Stopping.


def ending(place: Place, deaf: bool = False) -> str:
    """A script that says when it is ready and when it is told to end."""
    obey = "" if deaf else "; exit 0"
    trap = f"trap 'touch {place.path}/told{obey}' TERM"
    return f"{trap}; touch {place.path}/ready; while :; do sleep 0.05; done"


def started(place: Place, file: str, *words: str) -> Going:
    """A run whose pod is ready."""
    going = place.start("run", "--on", "process", "-f", file, *words)
    until(place.exists("ready"), "the pod is ready", going.process.poll)
    return going


def test_a_timeout(place: Place) -> None:
    file = place.write("pod.yaml", pod("p", ending(place)))
    done = place.run("-f", file, "--timeout", "2s", code=124)
    assert place.exists("told")()
    assert "--timeout" in done.err
    assert place.run_names() == []
    assert place.processes() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_pods(place: Place, number: int, code: int) -> None:
    going = started(place, place.write("pod.yaml", pod("p", ending(place))))
    going.signal(number)
    done = going.end()
    assert done.code == code, done.said
    assert place.exists("told")()
    assert place.run_names() == []
    assert place.processes() == []
    assert "Traceback" not in done.err


def test_a_job_does_not_replace_what_a_signal_stopped(place: Place) -> None:
    script = f"echo x >> {place.path}/said; {ending(place)}"
    going = started(place, place.write("job.yaml", job("j", script, backoffLimit=6)))
    going.signal(signal.SIGINT)
    assert going.end().code == 130
    assert place.lines("said") == ["x"]
    assert place.run_names() == []


def test_a_second_signal_kills(place: Place) -> None:
    going = started(place, place.write("pod.yaml", pod("p", ending(place, deaf=True))))
    going.signal(signal.SIGINT)
    until(place.exists("told"), "the pod is told to end", going.process.poll)
    going.signal(signal.SIGINT)
    # Far less than the pod's own 30 s.
    done = going.end(20)
    assert done.code == 130, done.said
    assert place.run_names() == []


def test_delete_stops_a_run_that_is_attended(place: Place) -> None:
    going = started(place, place.write("pod.yaml", pod("p", ending(place))), "--name", "it")
    place.podbridge("delete", "it")
    done = going.end()
    assert done.code == 1, done.said
    assert "deleting the run" in done.err
    assert "it: deleted after" in done.err
    assert place.exists("told")()
    assert place.run_names() == []


# Coming back.


def on_a_terminal(place: Place, *words: str) -> tuple[Going, int]:
    """A run on a terminal of its own; the terminal's other end."""
    master, slave = os.openpty()
    number = len(place.going)
    going = place.start(*words, preexec_fn=lambda: os.login_tty(os.dup(slave)), pass_fds=(slave,))
    assert len(place.going) == number + 1
    os.close(slave)
    return going, master


def read_until(terminal: int, words: bytes) -> None:
    found = b""
    while words not in found:
        found += os.read(terminal, 65536)


def test_a_closed_terminal_leaves_the_run(place: Place) -> None:
    go = WAITS.format(go=place.path / "go")
    script = f"echo line 1; {go}; echo line 2; exit 3"
    file = place.write("pod.yaml", pod("p", script))
    words = ("run", "--on", "process", "-f", file, "--name", "it")
    going, terminal = on_a_terminal(place, *words)
    read_until(terminal, b"line 1")
    os.close(terminal)
    until(lambda: place.status("it") == "Running", "it runs on", going.process.poll)
    attached = place.start("attach", "it")
    attached.says("line 1\n")
    assert going.process.poll() is None
    (place.path / "go").touch()
    done = attached.end()
    assert (done.code, done.out) == (1, "line 1\nline 2\n"), done.said
    assert going.process.wait(30) == 1
    assert place.status("it") == "Failed"
    again = place.podbridge("attach", "it", "-q", code=1)
    assert again.out == "line 1\nline 2\n"


def test_ctrl_c_on_a_terminal(place: Place) -> None:
    file = place.write("pod.yaml", pod("p", ending(place)))
    going, terminal = on_a_terminal(place, "run", "--on", "process", "-f", file)
    until(place.exists("ready"), "the pod is ready", going.process.poll)
    os.write(terminal, b"\x03")
    assert going.process.wait(30) == 130
    assert place.exists("told")()
    assert place.run_names() == []
    os.close(terminal)


def test_in_the_background(place: Place) -> None:
    go = WAITS.format(go=place.path / "go")
    file = place.write("job.yaml", job("j", f"echo line 1; {go}; echo line 2"))
    done = place.run("-f", file, "--name", "it", "-d")
    assert done.out == "it\n"
    assert "approximated: " in done.err, "nobody hears its events"
    assert place.status("it") == "Running"
    place.podbridge("wait", "it", "--timeout", "1s", code=124)
    waiting = place.start("wait", "it")
    following = place.start("logs", "-f", "it")
    following.says("line 1")
    (place.path / "go").touch()
    assert waiting.end().code == 0
    followed = following.end().out.splitlines()
    assert [line.rpartition("] ")[2] for line in followed] == ["line 1", "line 2"]
    assert place.podbridge("attach", "it").out.count("line 2") == 1
    (one,) = place.pods("it")
    assert one["status"]["phase"] == "Succeeded"
    assert "job.batch/j" in place.podbridge("get", "jobs", "--run", "it", "-o", "name").out
    assert "Succeeded" in place.podbridge("describe", "it").out
    assert place.podbridge("logs", "it", one["metadata"]["name"], "--tail", "1").out == "line 2\n"
    assert 'run "it" deleted' in place.podbridge("delete", "it").out
    assert place.podbridge("ps", "-o", "name").out == ""
    (error,) = place.podbridge("logs", "it", code=2).errors
    assert '"it"' in error


@pytest.mark.parametrize("code", [0, 1])
def test_the_same_name_returns_the_result(place: Place, code: int) -> None:
    file = place.write("pod.yaml", pod("p", f"echo x | tee -a {place.path}/said; exit {code * 9}"))
    for _ in range(3):
        assert place.run("-f", file, "--name", "it", "-q", code=code).out == "x\n"
    assert place.lines("said") == ["x"]
    other = place.write("other.yaml", pod("p", "true"))
    done = place.run("-f", other, "--name", "it", code=2)
    assert len(done.errors) == 1
    assert '"it" exists with other manifests' in done.errors[0]
    assert place.lines("said") == ["x"]


def test_two_at_once_under_one_name(place: Place) -> None:
    go = WAITS.format(go=place.path / "go")
    file = place.write("pod.yaml", pod("p", f"echo x >> {place.path}/said; echo y; {go}"))
    words = ("run", "--on", "process", "-f", file, "--name", "it", "-q")
    one, two = place.start(*words), place.start(*words)
    for going in (one, two):
        going.says("y\n")
    (place.path / "go").touch()
    assert [(done.code, done.out) for done in (one.end(), two.end())] == [(0, "y\n")] * 2
    assert place.lines("said") == ["x"]


def test_exit_codes_of_a_job_are_each_pods_own(place: Place) -> None:
    file = place.write(
        "job.yaml",
        job(
            "codes",
            "exit $JOB_COMPLETION_INDEX",
            completionMode="Indexed",
            completions=5,
            parallelism=5,
            backoffLimitPerIndex=0,
        ),
    )
    place.run("-f", file, "--name", "it", code=1)
    assert exit_codes(place.pods("it")) == {str(i): i for i in range(5)}
    place.podbridge("wait", "it", code=1)
