from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from commands_kit import ROOT, home, invoke, make_run, podbridge

import bridge

__all__ = ["home"]

pytestmark = pytest.mark.usefixtures("home")


def test_without_runs_everything_says_so() -> None:
    assert invoke("ps") == (0, "", "No runs; podbridge run starts one.\n")
    assert invoke("get", "pods")[2] == "No runs; podbridge run starts one.\n"
    code, out, _ = invoke("ps", "-o", "json")
    assert (code, json.loads(out)["items"]) == (0, [])
    for words in (["logs", "x"], ["wait", "x"], ["describe", "x"], ["get", "pods", "--run", "x"]):
        code, out, error = invoke(*words)
        assert (code, out) == (2, "")
        assert "x" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["get", "podz"], 'did you mean "pod"'),
        (["get", "pods/a", "b"], "allowed: one name"),
        (["get", "pods", "-n", "a", "-A"], "found -n and -A"),
        (["get", "pods", "a", "-l", "b"], "a name and -l"),
        (["get", "pods", "-l", "a b"], "-l: found"),
        (["get", "pods", "--rum", "a"], "--run"),
        (["logs"], "name a run or a pod"),
        (["logs", "a", "b", "c"], "allowed: a run and a pod"),
        (["logs", "a", "--since", "soon"], "--since: found"),
        (["logs", "a", "--since-time", "soon"], "--since-time: found"),
        (["logs", "a", "--since", "5m", "--since-time", "x"], "one of them"),
        (["logs", "a", "--tail", "-2"], "--tail: found -2"),
        (["logs", "a", "-c", "x", "--all-containers"], "one of them"),
        (["wait", "a", "--timeout", "soon"], "--timeout: found"),
        (["describe", "a", "b", "c"], "allowed: a run"),
        (["backends", "proces"], 'did you mean "process"'),
        (["backends", "--capabilities"], "needs a backend's name"),
        (["check", "-f", "nowhere.yaml"], "nowhere.yaml"),
        (["config", "set", "max_rum", "2h"], 'did you mean "max_run"'),
        (["completion", "tcsh"], "bash"),
    ],
)
def test_what_is_typed_wrong_is_answered(words: list[str], said: str) -> None:
    code, out, error = invoke(*words)

    assert code == 2
    assert said in error
    assert out == ""


@pytest.mark.parametrize(
    "command",
    [
        "check",
        "ps",
        "get",
        "describe",
        "logs",
        "wait",
        "backends",
        "config",
        "completion",
        "version",
    ],
)
def test_help_teaches_by_examples(command: str) -> None:
    code, out, _ = invoke(command, "--help")

    assert code == 0
    examples = [one for one in out.splitlines() if one.strip().startswith("podbridge ")]
    assert len(examples) >= 2


def test_version() -> None:
    code, out, _ = invoke("version", "-o", "json")
    found = json.loads(out)

    assert (code, found["version"], found["contract"]) == (0, bridge.__version__, 1)
    assert found["platform"].startswith("linux/")
    assert bridge.__version__ in invoke("version")[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_the_command(shell: str) -> None:
    code, out, _ = invoke("completion", shell)

    assert code == 0
    assert "_PODBRIDGE_COMPLETE" in out


@pytest.mark.slow
def test_names_of_runs_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    make_run("words")
    make_run("hello")
    monkeypatch.setenv("_PODBRIDGE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "podbridge describe w")
    monkeypatch.setenv("COMP_CWORD", "2")

    assert podbridge().stdout.decode().splitlines() == ["plain,words"]


def test_a_run_that_nobody_attends_says_how_to_resume_it() -> None:
    make_run(
        "idle",
        {
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        },
    )

    code, out, error = invoke("ps")
    assert code == 0
    assert out.splitlines()[1].split()[:3] == ["idle", "Unattended", "0/1"]
    assert "idle is unattended: podbridge attach idle resumes it" in error
    code, _, error = invoke("wait", "idle")
    assert code == 3
    assert "podbridge attach idle" in error
    assert "podbridge attach idle" in invoke("describe", "idle")[1]
    code, _, error = invoke("logs", "idle")
    assert code == 2, error


@pytest.mark.slow
def test_backends_are_opened_and_listed() -> None:
    code, out, _ = invoke("backends", "-o", "json")
    found = {one["metadata"]["name"]: one for one in json.loads(out)["items"]}

    assert code == 0
    assert found["process"]["status"]["ready"] is True
    assert "logs" in found["process"]["status"]["abilities"]
    assert found["null"]["spec"]["simulated"] is True
    lines = invoke("backends", "process")[1].splitlines()
    assert lines[0].split()[:4] == ["NAME", "TYPE", "READY", "PODS"]
    assert lines[1].split()[:4] == ["process", "process", "True", "0/110"]


def test_capabilities_are_the_adapters_table() -> None:
    code, out, _ = invoke("backends", "process", "--capabilities")

    assert code == 0
    row = next(one for one in out.splitlines() if one.startswith("spec.containers[].image "))
    assert row.split(maxsplit=2)[1:] == ["approximated", "ignored: the host's own programs run"]


def test_configuration_is_shown_with_its_origins(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "podbridge.yaml").write_text("# mine\nprovider: {listen: 'localhost:1'}\n")
    monkeypatch.setenv("PODBRIDGE_MAX_RUN", "2h")

    assert yaml.safe_load(invoke("config", "show")[1])["provider"]["listen"] == "localhost:1"
    found = json.loads(invoke("config", "show", "--origin", "-o", "json")[1])
    assert found["provider.listen"] == {"value": "localhost:1", "origin": "podbridge.yaml:2"}
    assert found["max_run"] == {"value": 7200.0, "origin": "PODBRIDGE_MAX_RUN"}
    assert "podbridge.yaml: valid" in invoke("config", "check")[1]
    assert invoke("config", "path")[1] == "podbridge.yaml\n"

    code, _, error = invoke("config", "set", "max_run", "3h")
    assert (code, "PODBRIDGE_MAX_RUN is set" in error) == (0, True)
    assert (home / "podbridge.yaml").read_text() == (
        "# mine\nprovider: {listen: 'localhost:1'}\nmax_run: 3h\n"
    )


def test_configuration_errors_come_all_at_once(home: Path) -> None:
    (home / "podbridge.yaml").write_text("providers: a\nmax_run: -1\n")

    code, _, error = invoke("config", "check")
    assert code == 2
    assert 'providers: unknown key; did you mean "provider"?' in error
    assert "max_run: found integer -1" in error


def test_the_schema_has_the_keys_of_backend_types() -> None:
    code, out, _ = invoke("config", "schema")

    assert code == 0
    assert json.loads(out)["$defs"]["BackendConfig"]["properties"]["type"]["enum"]


@pytest.mark.slow
def test_help_is_quick_because_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys; sys.argv = ['podbridge', '--help']\n"
        "from bridge.cli.entry import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'grpc', 'pydantic', 'yaml', 'rich', 'asyncio', 'google.protobuf'}\n"
        "    sys.stderr.write(' '.join(sorted(heavy & set(sys.modules))))\n"
    )
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.stderr == b""
