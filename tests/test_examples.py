"""The examples load, are what their readers are told, and their scripts do what they say."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.demo import (
    FAILING_SHARD,
    SHARDS,
    demo_folder,
    demo_objects,
    examples_dir,
)
from bridge.local.manifests import Objects, Raw, admit, load
from bridge.pods import Manifest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))
RUNNABLE = sorted(
    [*EXAMPLES.glob("*.yaml"), *(e for e in EXAMPLES.iterdir() if any(e.glob("*.yaml")))]
)
LONGEST = 300_000
"""Bytes of all the examples that are manifests."""


def label(path: Path) -> str:
    return str(path.relative_to(EXAMPLES))


def templates(objects: Objects) -> Iterator[tuple[str, Manifest]]:
    """(name, pod spec) of everything that runs."""
    for pod in objects.pods:
        yield pod.obj["metadata"]["name"], pod.obj["spec"]
    for job in objects.jobs:
        yield job.obj["metadata"]["name"], job.obj["spec"]["template"]["spec"]
    for cron in objects.cronjobs:
        spec = cron.obj["spec"]["jobTemplate"]["spec"]
        yield cron.obj["metadata"]["name"], spec["template"]["spec"]


def containers(objects: Objects) -> Iterator[tuple[str, Manifest]]:
    """(pod/container, container), init containers first."""
    for name, spec in templates(objects):
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            yield f"{name}/{container['name']}", container


def script_of(container: Manifest) -> str:
    command: list[str] = [*container["command"], *container.get("args", ())]
    assert command[:2] == ["/bin/sh", "-c"]
    assert len(command) == 3
    return command[2]


def run_script(
    container: Manifest, paths: dict[str, Path], **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a container's script with its literal variables; `paths` are its mount paths here."""
    script = script_of(container)
    for mount, here in paths.items():
        script = script.replace(mount, str(here))
    given = {each["name"]: each["value"] for each in container.get("env", ()) if "value" in each}
    variables = {"PATH": "/usr/bin:/bin", **given, **env}
    return subprocess.run(
        ["/bin/sh", "-c", script], env=variables, capture_output=True, text=True, check=False
    )


def word_counts(text: str) -> list[tuple[str, int]]:
    found = (word.strip("'") for word in re.findall(r"[a-z']+", text.lower()))
    return sorted(Counter(filter(None, found)).items(), key=lambda each: (-each[1], each[0]))


def table(output: str) -> list[tuple[str, int]]:
    """The rows of a printed ranking."""
    rows = re.findall(r"^ *\d+\. (\S+) +(\d+) #+$", output, re.MULTILINE)
    return [(word, int(count)) for word, count in rows]


def data(objects: Objects, name: str) -> dict[str, str]:
    found: dict[str, str] = objects.configmaps["default", name].obj["data"]
    return found


# --- the files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RUNNABLE, ids=label)
def test_every_example_loads(path: Path) -> None:
    assert list(templates(load([str(path)])))


def test_the_examples_are_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < LONGEST


@pytest.mark.parametrize("path", FILES, ids=label)
def test_a_header_tells_what_it_is_and_how_to_run_it(path: Path) -> None:
    header = re.match(r"(?:#.*\n)+", path.read_text("ascii"))
    assert header is not None
    if path.name != "text.yaml":
        command = re.search(r"^#   podbridge run -f examples/(\S+) --on process$", header[0], re.M)
        assert command is not None
        target = EXAMPLES / command[1]
        assert target == path or (target == path.parent and target.is_dir())


def test_the_readme_lists_every_example() -> None:
    linked = set(re.findall(r"\]\((\S+?)\)", (EXAMPLES / "README.md").read_text("ascii")))
    assert {(EXAMPLES / link).exists() for link in linked} == {True}
    listed = {EXAMPLES / link for link in linked}
    assert {path for path in FILES if path not in listed and path.parent not in listed} == set()


@pytest.mark.parametrize("path", RUNNABLE, ids=label)
def test_scripts_are_valid_and_say_the_same_in_kubernetes(path: Path) -> None:
    for name, container in containers(load([str(path)])):
        script = script_of(container)
        checked = subprocess.run(
            ["/bin/sh", "-n", "-c", script], capture_output=True, text=True, check=False
        )
        assert (name, checked.returncode, checked.stderr) == (name, 0, "")
        # Kubernetes would make one dollar sign of two.
        assert "$$" not in script
        known = {each["name"] for each in container.get("env", ())}
        assert not [each for each in known if f"$({each})" in script]


@pytest.mark.parametrize("path", RUNNABLE, ids=label)
def test_containers_name_a_version_and_their_memory(path: Path) -> None:
    for name, container in containers(load([str(path)])):
        assert re.fullmatch(r"busybox:\d+\.\d+", container["image"]), name
        assert container["resources"]["limits"]["memory"], name


# --- what they do ------------------------------------------------------------------------------


@pytest.fixture
def wordcount(tmp_path: Path) -> tuple[Objects, dict[str, Path]]:
    objects = load([str(EXAMPLES / "wordcount")])
    paths = {"/text": tmp_path / "text", "/shared": tmp_path / "shared"}
    for path in paths.values():
        path.mkdir()
    for key, text in data(objects, "wordcount-text").items():
        (paths["/text"] / key).write_text(text)
    return objects, paths


@pytest.mark.slow
def test_wordcount_of_two_runs_at_once(wordcount: tuple[Objects, dict[str, Path]]) -> None:
    objects, paths = wordcount
    count, rank = (container for _, container in containers(objects))
    shards = data(objects, "wordcount-text")
    assert objects.jobs[0].obj["spec"]["completions"] == len(shards) == 12
    left_over = paths["/shared"] / "0123456789ab-killed"
    left_over.mkdir()
    (left_over / "part-0").write_text("wrong 100000\n")
    for run in ("first", "second"):
        for index in range(12):
            env = {"JOB_COMPLETION_INDEX": str(index), "JOB_UID": run, "POD_UID": f"{run}{index}"}
            counted = run_script(count, paths, **env)
            assert (counted.returncode, counted.stderr) == (0, "")
    expected = word_counts("\n".join(shards.values()))[:20]
    for run in ("third", "fourth"):
        ranked = run_script(rank, paths, JOB_UID=run)
        assert (ranked.returncode, ranked.stderr) == (0, "")
        assert table(ranked.stdout) == expected
    assert list(paths["/shared"].iterdir()) == [left_over]


@pytest.mark.slow
def test_sweep_has_a_line_of_csv_for_each_index(tmp_path: Path) -> None:
    objects = load([str(EXAMPLES / "sweep")])
    (job,) = objects.jobs
    (tmp_path / "parameters.csv").write_text(data(objects, "sweep-parameters")["parameters.csv"])
    ((_, container),) = containers(objects)
    paths = {"/parameters/parameters.csv": tmp_path / "parameters.csv"}
    last = job.obj["spec"]["completions"] - 1
    first, final, beyond = (
        run_script(container, paths, JOB_COMPLETION_INDEX=str(index))
        for index in (0, last, last + 1)
    )
    heading, row = first.stdout.splitlines()
    assert len(heading.split(",")) == len(row.split(",")) == 8
    # The final size of an epidemic with R0 = 4 of which 65% are immune: s = S exp(-4 (S - s)).
    assert final.stdout == "11,0.40,10,0.65,4.00,0.0160,165.1,0.1774\n"
    assert (beyond.returncode, beyond.stdout) == (1, "")


@pytest.mark.parametrize(
    ("name", "index", "failures", "code"),
    [
        ("retriable", 0, "0", 0),
        ("retriable", 2, "0", 42),
        ("retriable", 2, "1", 0),
        ("fatal", 1, "0", 3),
    ],
)
def test_retry_exits_as_its_policy_expects(
    tmp_path: Path, name: str, index: int, failures: str, code: int
) -> None:
    objects = load([str(EXAMPLES / "retry" / f"{name}.yaml")])
    (readings,) = objects.configmaps.values()
    for key, text in readings.obj["data"].items():
        (tmp_path / key).write_text(text)
    ((_, container),) = containers(objects)
    env = {"JOB_COMPLETION_INDEX": str(index), "FAILURES": failures}
    assert run_script(container, {"/readings": tmp_path}, **env).returncode == code
    rules = objects.jobs[0].obj["spec"]["podFailurePolicy"]["rules"]
    actions = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules}
    assert actions == {"FailJob": [3], "Count": [42], "FailIndex": [3, 42]}


def test_config_shows_no_secret(tmp_path: Path) -> None:
    objects = load([str(EXAMPLES / "config")])
    settings = data(objects, "config-shop")
    places = ("/etc/shop", "/work", "/run/shop", "/run/pod")
    paths = {place: tmp_path / str(number) for number, place in enumerate(places)}
    for path in paths.values():
        path.mkdir()
    for key in ("prices.csv", "prices.sha256"):
        (paths["/etc/shop"] / key).write_text(settings[key])
    digest = hashlib.sha256(settings["prices.csv"].encode()).hexdigest()
    assert settings["prices.sha256"] == f"{digest}  prices.csv\n"
    verify, report = (container for _, container in containers(objects))
    assert run_script(verify, paths).stdout == "prices.csv: OK\n"
    (paths["/run/pod"] / "labels").write_text('tier="examples"\n')
    (paths["/run/shop"] / "customers.csv").write_text("1001,Somebody\n")
    names = ("SHOP_NAME", "SHOP_CURRENCY")
    env = {name: settings[name] for name in names} | {"SIGNING_KEY": "s3cret"}
    env |= {"POD_NAME": "config", "POD_NAMESPACE": "default", "MEMORY_LIMIT_MIB": "64"}
    ran = run_script(report, paths, **env)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "25.60 EUR" in ran.stdout
    assert "s3cret" not in ran.stdout
    assert "Somebody" not in ran.stdout


# --- the demo ----------------------------------------------------------------------------------


def demo_parts(objects: list[Manifest]) -> tuple[dict[str, str], Manifest, Manifest]:
    texts, *jobs = objects
    count, rank = (job["spec"]["template"]["spec"]["containers"][0] for job in jobs)
    return texts["data"], count, rank


def pauses(seconds: float) -> float:
    _, count, _ = demo_parts(demo_objects(seconds))
    found: dict[str, Any] = {each["name"]: each["value"] for each in count["env"]}
    return float(found["PAUSE"]) * int(found["STEPS"])


def test_examples_are_found() -> None:
    assert (examples_dir() / "hello.yaml").is_file()


def test_the_demo_loads_as_any_manifest_would() -> None:
    objects = admit(Raw(each, "demo") for each in demo_objects())
    assert [job.obj["metadata"]["name"] for job in objects.jobs] == ["count", "rank"]
    assert objects.jobs[0].obj["spec"]["completions"] == SHARDS
    for _, container in containers(objects):
        assert "$$" not in script_of(container)


def test_each_demo_has_a_folder_of_its_own() -> None:
    assert demo_folder() != demo_folder()
    assert not demo_folder().exists()


def test_the_demos_pace_follows_the_seconds() -> None:
    # Four waves of shards, each with its start.
    assert pauses(8) == pytest.approx((8 - 1) / 4 - 0.15, abs=0.01)
    assert pauses(0) == pauses(-1) == 0


@pytest.mark.slow
def test_the_demo_counts_its_text_and_fails_once(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    texts, count, rank = demo_parts(demo_objects(0, folder))
    lengths = [len(text) for text in texts.values()]
    assert max(lengths) < 1.5 * min(lengths)
    codes = []
    for index in [*range(SHARDS), FAILING_SHARD]:
        ran = run_script(count, {}, JOB_COMPLETION_INDEX=str(index), **texts)
        assert ran.returncode in (0, 3), ran.stderr
        codes.append(ran.returncode)
    assert [index for index, code in enumerate(codes) if code == 3] == [FAILING_SHARD]
    ranked = run_script(rank, {})
    book = data(load([str(EXAMPLES / "wordcount")]), "wordcount-text")
    assert table(ranked.stdout) == word_counts("\n".join(book.values()))[:10]
    assert not folder.exists()
