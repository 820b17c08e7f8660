"""Bad input: exit code 2, one clear message for each problem, nothing started."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from e2e_kit import ROOT, Done, Manifest, Place, container, job, pod
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.cli import entry

pytestmark = pytest.mark.slow


def refused(place: Place, done: Done, *problems: str) -> list[str]:
    """Exactly these problems were told, each in a line that has the words (parted by `|`)."""
    assert done.code == 2, done.said
    assert len(done.errors) == len(problems), done.said
    for error, words in zip(done.errors, problems, strict=True):
        for word in words.split("|"):
            assert word in error, done.said
    assert done.out == ""
    assert place.run_names() == []
    assert not list((place.path / "state").glob("podbridge/process/*/*.*/pod.json"))
    return done.errors


def run_text(place: Place, text: str, *problems: str) -> None:
    """Running that file is refused for these problems, each told with the file's name."""
    file = place.write("bad.yaml", text)
    for words in (("run",), ("check",)):
        done = place.podbridge(*words, "--on", "process", "-f", file, code=2)
        refused(place, done, *(f"{file}|{one}" for one in problems))


def a_pod(**changes: Any) -> str:
    """A pod with changes to its spec, as text."""
    return json.dumps(pod("p", "true", **changes))


# Files.


def test_no_file(place: Place) -> None:
    done = place.run("-f", f"{place.path}/no.yaml", code=2)
    refused(place, done, f"{place.path}/no.yaml|No such file")


def test_a_folder_without_manifests(place: Place) -> None:
    place.write("folder/notes.txt", "nothing")
    done = place.run("-f", f"{place.path}/folder", code=2)
    refused(place, done, f"{place.path}/folder|*.yaml")


def test_several_problems_are_told_at_once(place: Place) -> None:
    one = place.write("one.yaml", a_pod(restartPolicy="Newer"))
    two = place.write("two.yaml", "a: [")
    done = place.run("-f", one, "-f", two, "-f", "/no-such.yaml", code=2)
    assert {word for word in (one, two, "/no-such.yaml") if word in done.err} != set()
    assert done.code == 2
    assert place.run_names() == []


def test_no_permission(place: Place) -> None:
    file = Path(place.write("secret.yaml", a_pod()))
    file.chmod(0)
    words = [sys.executable, "-m", "podbridge", "run", "--on", "process", "-f", str(file)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read everything, and there is no setpriv to take that away")
        words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *words]
    ended = subprocess.run(
        words, cwd=ROOT, env=place.environment, capture_output=True, timeout=60, check=False
    )
    done = Done(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
    refused(place, done, f"{file}|Permission denied")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("# only a comment\n---\n", "empty"),
        ("a: [1\nb: 2\n", "line 2, column 2"),
        ("a: b: c\n", "line 1, column 5"),
        ("key: 'open\n", "line"),
        ("\tkind: Pod\n", "line 1"),
        ("- 1\n- 2\n", "list"),
        ("just words\n", "string"),
        ("{}\n", "kind"),
        ("a: &x [*x]\n", ""),
        ("apiVersion: v1\nkind: Pod\nkind: Pod\n", "kind"),
    ],
)
def test_text_that_is_no_manifest(place: Place, text: str, problem: str) -> None:
    file = place.write("bad.yaml", text)
    done = place.run("-f", file, code=2)
    assert done.errors, done.said
    assert all(file in one for one in done.errors), done.said
    assert any(problem in one for one in done.errors), done.said
    assert place.run_names() == []


def test_no_text(place: Place) -> None:
    file = place.path / "bad.yaml"
    for content in (b"\x7fELF\0\1\2", b"\xff\xfe\0", b"kind: Pod\0\n"):
        file.write_bytes(content)
        done = place.run("-f", str(file), code=2)
        refused(place, done, f"{file}|line 1")


# Objects.


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"apiVersion": "apps/v1", "kind": "Deployment"}, "kind|Deployment|Pod, Job, CronJob"),
        ({"apiVersion": "v1", "kind": "Pdo"}, "kind|Pdo|Pod, Job, CronJob"),
        ({"apiVersion": "v2", "kind": "Pod"}, "apiVersion|v2|v1"),
    ],
)
def test_an_unknown_kind(place: Place, kind: Manifest, words: str) -> None:
    spec = {"containers": [container("true")]}
    run_text(place, json.dumps({**kind, "metadata": {"name": "a"}, "spec": spec}), words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"restartpolicy": "Never"}, 'spec.restartpolicy|unknown field|"restartPolicy"'),
        (
            {"containers": [container("true", imagge="x")]},
            'spec.containers[0].imagge|unknown field|"image"',
        ),
        (
            {"containers": [{**container("true"), "command": "true"}]},
            'spec.containers[0].command|found string "true"|list',
        ),
        ({"terminationGracePeriodSeconds": "long"}, "spec.terminationGracePeriodSeconds|long"),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy|Sometimes|Always, OnFailure, Never"),
        (
            {"containers": [container("true", resources={"limits": {"memory": "2Gb"}})]},
            "spec.containers[0].resources.limits[memory]|2Gb|Ki Mi Gi",
        ),
        (
            {"containers": [container("true", envFrom=[{"configMapRef": {"name": "conf"}}])]},
            "spec.containers[0].envFrom[0].configMapRef|conf",
        ),
        (
            {"volumes": [{"name": "v", "secret": {"secretName": "no-such"}}]},
            "spec.volumes[0].secret|no-such",
        ),
        (
            {"containers": [container("true"), container("true")]},
            'spec.containers[1].name|"main"',
        ),
    ],
)
def test_a_bad_pod(place: Place, changes: Manifest, words: str) -> None:
    run_text(place, a_pod(**changes), words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"volumes": [{"name": "v", "hostPath": {"path": "/no-such", "type": "Directory"}}]},
            'spec.volumes[0].hostPath.path|found "/no-such"|allowed by type Directory',
        ),
        (
            {"containers": [{"name": "main", "image": "busybox"}]},
            "spec.containers[0].command|process runs no images",
        ),
        (
            {"containers": [{"name": "main", "image": "x", "command": ["no-such-program"]}]},
            "spec.containers[0].command|no-such-program|PATH",
        ),
        ({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]}, "spec.hostAliases|/etc/hosts"),
    ],
)
def test_what_the_backend_refuses(place: Place, changes: Manifest, words: str) -> None:
    file = place.write("bad.yaml", a_pod(**changes))
    refused(place, place.run("-f", file, code=2), f"{file}|{words}")
    checked = place.podbridge("check", "--on", "process", "-f", file, code=2)
    assert all(word in checked.out for word in words.split("|")), checked.said


def test_a_missing_key(place: Place) -> None:
    source = {"configMapKeyRef": {"name": "conf", "key": "colour"}}
    main = container("true", env=[{"name": "A", "valueFrom": source}])
    conf = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "conf"},
        "data": {"color": "red"},
    }
    text = f"{json.dumps(conf)}\n---\n{json.dumps(pod('p', main))}\n"
    run_text(place, text, "spec.containers[0].env[0].valueFrom.configMapKeyRef|colour|color")


def test_a_duplicate_name(place: Place) -> None:
    run_text(place, f"{a_pod()}\n---\n{a_pod()}\n", "metadata.name|p")


def test_a_bad_job(place: Place) -> None:
    bad = job("j", "true", completions=-1, backoffLimit="many")
    run_text(place, json.dumps(bad), "spec.backoffLimit|many", "spec.completions|-1|0 or more")
    always = job("j", "true", {"restartPolicy": "Always"})
    run_text(place, json.dumps(always), "spec.template.spec.restartPolicy|Always|OnFailure, Never")


# The command line and the machine.


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("rnu",), 'unknown command "rnu"|"run"'),
        (("run", "--onn", "process"), "--onn|--on"),
        (("run",), "nothing to run"),
        (("run", "a", "--on", "proces", "--", "true"), '--on|found "proces"|"process"'),
        (("run", "a", "--", "true"), "--on|process"),
        (("run", "a", "--on", "process", "--timeout", "soon", "--", "true"), "--timeout|soon"),
        (("run", "a", "--on", "process", "--name", "A_b", "--", "true"), '--name|"A_b"|a-z'),
        (("run", "a", "--on", "process", "-e", "novalue", "--", "true"), "--env|KEY=VALUE"),
        (("run", "a", "--on", "process", "--cpu", "lots", "--", "true"), "--cpu|lots|250m|Ki"),
        (("run", "a", "--on", "process", "--secret", "x=y", "--", "true"), "--secret|NAME/KEY"),
        (("run", "a", "--on", "process", "--junit", "/dev/null/x.xml", "--", "true"), "/dev/null"),
        (("attach", "nothing"), 'no run named "nothing"'),
        (("logs", "nothing"), "nothing"),
        (("wait", "nothing"), "nothing"),
        (("delete", "nothing"), "nothing"),
        (("get", "podss"), '"podss"'),
        (("--config", "/no/such.yaml", "backends"), "/no/such.yaml"),
    ],
)
def test_bad_words(place: Place, words: tuple[str, ...], problem: str) -> None:
    refused(place, place.podbridge(*words, code=2), problem)


def test_an_invalid_configuration(place: Place) -> None:
    file = place.write(
        "podbridge.yaml",
        "apiVersion: podbridge.io/v1\n"
        "max_rum: 1h\n"
        "backends:\n"
        "- {name: a, type: proces}\n"
        "- {name: b, type: process, max_pods: many}\n",
    )
    done = place.podbridge("--config", file, "run", "a", "--", "true", code=2)
    refused(
        place,
        done,
        f'{file}|backends[0].type|"proces"|did you mean "process"',
        f'{file}|backends[1].max_pods|"many"|integer',
        f'{file}|max_rum|did you mean "max_run"',
    )


def test_a_port_in_use(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = place.podbridge("provider", "--on", "process", "--listen", address, code=2)
        refused(place, done, f"{address}|in use")


def test_a_socket_in_use(place: Place) -> None:
    address = f"unix://{place.path}/p.sock"
    words = ("provider", "--on", "process", "--listen", address)
    serving = place.start(*words)
    serving.says("listening on")
    refused(place, place.podbridge(*words, code=2), f"{place.path}/p.sock|in use")
    # Whoever has it keeps it.
    assert place.podbridge("run", "a", "--provider", address, "-q", "--", "echo", "x").out == "x\n"
    serving.signal(15)
    assert serving.end().code == 0


def test_a_port_that_all_users_can_reach_is_warned_of(place: Place) -> None:
    serving = place.start("provider", "--on", "process", "--listen", "127.0.0.1:0")
    serving.says("listening on")
    serving.signal(15)
    assert "every user of this host can reach it: use a unix socket" in serving.end().err
    assert "127.0.0.1" not in place.podbridge("provider", "--help").out


def test_a_job_that_others_manage(place: Place) -> None:
    job = (
        "{apiVersion: batch/v1, kind: Job, metadata: {name: j}, spec: {managedBy: acme.com/x,"
        " template: {spec: {restartPolicy: Never,"
        ' containers: [{name: c, image: i, command: ["true"]}]}}}}'
    )
    file = place.write("job.yaml", job)
    refused(place, place.run("-f", file, code=2), f"{file}|spec.managedBy|acme.com/x")


@pytest.mark.parametrize("address", ["nowhere", "0.0.0.0:0", "unix:///dev/null/p.sock"])
def test_a_bad_address(place: Place, address: str) -> None:
    done = place.podbridge("provider", "--on", "process", "--listen", address, code=2)
    refused(place, done, address.removeprefix("unix://").removesuffix("/p.sock"))


def test_no_provider_there(place: Place) -> None:
    address = f"unix://{place.path}/p.sock"
    done = place.podbridge("run", "a", "--provider", address, "--", "true", code=3)
    assert len(done.errors) == 1
    assert address in done.errors[0]
    assert place.run_names() == []


def _full(place: Place) -> tuple[list[str], dict[str, Any]]:
    """How to run a command whose state directory has no room: a command before it, and how it is
    started."""
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(place.path)]
    if os.geteuid() == 0 and not subprocess.run(probe, capture_output=True, check=False).returncode:
        state = place.path / "state"
        state.mkdir()
        script = (
            f"mount -t tmpfs -o size=16k tmpfs {state} && "
            f'{{ head -c 1M /dev/zero > {state}/x; exec "$@"; }} 2>&1 >/dev/null'
        )
        return ["unshare", "-m", "sh", "-c", script, "sh"], {}
    limit = (4096, 4096)
    return [], {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)}


def test_a_full_disk(place: Place) -> None:
    before, more = _full(place)
    file = place.write("pod.yaml", pod("p", "true; #" + "x" * 20000))
    words = [sys.executable, "-m", "podbridge", "run", "--on", "process", "-q", "-f", file]
    ended = subprocess.run(
        [*before, *words],
        cwd=ROOT,
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
        **more,
    )
    said = ended.stdout.decode()
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert ended.returncode == 2, said
    assert len(errors) == 1, said
    assert f"{place.path}/state/podbridge" in errors[0]
    assert "No space left" in errors[0] or "File too large" in errors[0]
    assert "Traceback" not in said
    assert place.run_names() == []


# Anything at all.


def _seeds() -> list[Manifest]:
    texts = [path.read_text() for path in sorted((ROOT / "examples").rglob("*.yaml"))]
    found = [one for text in texts for one in yaml.safe_load_all(text)]
    return [one for one in found if len(json.dumps(one)) < 20000]


SEEDS = _seeds()
KEYS = ["name", "spec", "command", "env", "valueFrom", "kind", "items", "", "a.b/c", "x" * 300]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["1Gi", "-1", "0", "$(A)", "../x", "/", "2026-01-01", "Never", "\0", "é" * 99]
    ),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from(KEYS), one, max_size=3),
    max_leaves=6,
)


def _places(one: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a value."""
    keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
    for key in keys:
        yield one, key
        yield from _places(one[key])


def _rename(data: st.DataObject, within: Any, key: Any) -> None:
    value = within.pop(key)
    if isinstance(within, dict):
        within[data.draw(st.sampled_from([*KEYS, f"{key}s", str(key)[:-1]]))] = value


def _replace(data: st.DataObject, within: Any, key: Any) -> None:
    within[key] = data.draw(VALUES)


def _remove(data: st.DataObject, within: Any, key: Any) -> None:
    del within[key]


def _double(data: st.DataObject, within: Any, key: Any) -> None:
    if isinstance(within, list):
        within.append(copy.deepcopy(within[key]))
    else:
        within[key] = [within[key], copy.deepcopy(within[key])]


CHANGES: list[Callable[[st.DataObject, Any, Any], None]] = [_rename, _replace, _remove, _double]


def mutated(data: st.DataObject) -> str:
    """An example with a few changes, as text; sometimes the text is damaged, too."""
    objects = copy.deepcopy(data.draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=2)))
    for _ in range(data.draw(st.integers(1, 4))):
        places = list(_places(objects))
        if not places:
            break
        within, key = data.draw(st.sampled_from(places))
        data.draw(st.sampled_from(CHANGES))(data, within, key)
    text = "---\n".join(yaml.safe_dump(one, allow_unicode=True) for one in objects)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 5))
        text = text[:at] + data.draw(st.text(max_size=5)) + text[at + cut :]
    return text


def said_in_process(place: Path, text: str, *words: str) -> tuple[object, str]:
    """The command in this process: its exit code and its words."""
    file = place / "mutated.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    out, err = io.StringIO(), io.StringIO()
    environment = {"XDG_STATE_HOME": str(place), "XDG_CONFIG_HOME": str(place)}
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", ["podbridge", *words, "-f", str(file)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        entry.main()
    return ended.value.code, err.getvalue()


BOUNDED = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(BOUNDED, max_examples=150)
@given(data=st.data())
def test_any_manifest_through_run(tmp_path: Path, data: st.DataObject) -> None:
    code, said = said_in_process(tmp_path, mutated(data), "run", "--dry-run")
    assert code in (0, 2), said
    assert bool(said) == (code == 2)
    assert list(tmp_path.glob("podbridge/*")) == []


@settings(BOUNDED, max_examples=40)
@given(data=st.data())
def test_any_manifest_through_check(tmp_path: Path, data: st.DataObject) -> None:
    code, said = said_in_process(tmp_path, mutated(data), "check", "--on", "process,null")
    assert code in (0, 2), said
    assert list(tmp_path.glob("podbridge/runs/*")) == []
