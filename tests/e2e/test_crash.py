"""What is killed comes back: every pod runs exactly once, and no exit code is lost."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest
from e2e_kit import Going, Manifest, Place, container, exit_codes, job, until

pytestmark = pytest.mark.slow

PODS = 50


def counting(place: Place, pods: int = PODS, gate: int | None = None) -> str:
    """An Indexed Job whose pods each append their index to a file once, wait a little and exit
    with a code of their own. Those from index `gate` on wait until there is a file "go"."""
    wait = ""
    if gate is not None:
        until_go = f"until [ -e {place.path}/go ]; do sleep 0.02; done"
        wait = f'if [ "$i" -ge {gate} ]; then {until_go}; fi; '
    script = (
        f"i=$JOB_COMPLETION_INDEX; echo $i >> {place.path}/ran; {wait}"
        f"sleep 0.$((i * 7 % 4)); echo said $i; echo $i >> {place.path}/done; exit $((i % 5))"
    )
    # The files are the place's own, wherever the pods run.
    mounts = {"volumeMounts": [{"name": "place", "mountPath": str(place.path)}]}
    one = job(
        "count",
        container(script, **mounts),
        {"volumes": [{"name": "place", "hostPath": {"path": str(place.path)}}]},
        completionMode="Indexed",
        completions=pods,
        parallelism=8 if gate is None else pods,
        backoffLimitPerIndex=0,
    )
    return place.write("job.yaml", one)


def proven(place: Place, pods: int = PODS) -> None:
    """Each pod ran once, said all that it had to say, and its exit code is its own."""
    assert sorted(map(int, place.lines("ran"))) == list(range(pods))
    assert sorted(map(int, place.lines("done"))) == list(range(pods))
    found: list[Manifest] = place.pods("it")
    assert exit_codes(found) == {str(index): index % 5 for index in range(pods)}
    assert len(found) == pods
    logs = place.podbridge("logs", "it").out.splitlines()
    assert sorted(int(line.rpartition(" ")[2]) for line in logs) == list(range(pods))
    assert all(" said " in line for line in logs)
    assert place.status("it") == "Failed"
    (one,) = place.podbridge("get", "jobs", "--run", "it", "-o", "json").json()["items"]
    good = [index for index in range(pods) if index % 5 == 0]
    assert one["status"]["completedIndexes"] == ",".join(map(str, good))
    assert (one["status"]["succeeded"], one["status"]["failed"]) == (len(good), pods - len(good))


def removed(place: Place, serving: Going | None = None) -> None:
    """Nothing is left once it is deleted, and its provider has gone."""
    place.podbridge("delete", "it")
    if serving is not None:
        serving.signal(signal.SIGTERM)
        assert serving.end().code == 0
    assert place.run_names() == []
    assert place.processes() == []
    assert place.containers() == []
    pods = place.path / "state" / "podbridge" / "process"
    assert [one.name for one in pods.glob("*/*")] == []


def ran(place: Place, count: int) -> Callable[[], bool]:
    """Whether so many pods have begun."""
    return lambda: len(place.lines("ran")) >= count


def provider(place: Place) -> Going:
    """A provider that listens."""
    address = f"unix://{place.path}/p.sock"
    made = place.start("provider", "--on", place.on, "--listen", address)
    made.says("listening on")
    return made


def run_over(place: Place, file: str) -> Going:
    """A run on that provider."""
    address = f"unix://{place.path}/p.sock"
    return place.start("run", "--provider", address, "-f", file, "--name", "it")


def test_provider_killed_twice(anywhere: Place) -> None:
    place = anywhere
    file = counting(place)
    serving = provider(place)
    going = run_over(place, file)
    for count in (10, 30):
        until(ran(place, count), f"{count} pods have begun", going.process.poll)
        serving.kill()
        serving = provider(place)
    done = going.end()
    assert done.code == 1, done.said
    assert done.out.count(" said ") == PODS, done.said
    proven(place)
    removed(place, serving)


def test_run_killed(anywhere: Place) -> None:
    place = anywhere
    going = place.start("run", "--on", place.on, "-f", counting(place), "--name", "it")
    until(ran(place, 15), "15 pods have begun", going.process.poll)
    going.kill()
    assert place.status("it") == "Unattended"
    assert place.podbridge("wait", "it", code=3).errors != []
    done = place.podbridge("attach", "it", code=1)
    assert done.out.count(" said ") == PODS, done.said
    proven(place)
    removed(place)


def test_long_dead(place: Place) -> None:
    serving = provider(place)
    going = run_over(place, counting(place, gate=PODS - 10))
    until(ran(place, PODS), "all pods have begun", going.process.poll)
    going.kill()
    serving.kill()
    (place.path / "go").touch()
    # Only keepers are left, and then nobody: each has recorded an end that nobody has heard of.
    until(lambda: len(place.lines("done")) == PODS, "all pods have ended")
    until(lambda: not place.processes(), "all keepers have gone")
    serving = provider(place)
    done = place.podbridge("attach", "it", code=1)
    assert done.out.count(" said ") == PODS, done.said
    proven(place)
    removed(place, serving)


def test_a_run_that_is_over_is_known_without_its_provider(place: Place) -> None:
    serving = provider(place)
    pods = 12
    done = run_over(place, counting(place, pods)).end()
    assert done.code == 1, done.said
    serving.kill()
    assert place.status("it") == "Failed"
    assert exit_codes(place.pods("it")) == {str(index): index % 5 for index in range(pods)}
    assert "Completed" in place.podbridge("describe", "it").out
    assert "does not answer" in place.podbridge("attach", "it", code=3).errors[0]
    # One that has started anew knows no manifest, and nobody gives it any: it still has the logs.
    serving = provider(place)
    proven(place, pods)
    removed(place, serving)


def test_deleted_while_nobody_attends(place: Place) -> None:
    going = place.start("run", "--on", "process", "-f", counting(place, gate=0), "--name", "it")
    until(ran(place, PODS), "all pods have begun", going.process.poll)
    going.kill()
    removed(place)
    assert place.lines("done") == []


@pytest.mark.parametrize("seed", range(5))
def test_both_killed(place: Place, seed: int) -> None:
    dice = random.Random(seed)
    pods = 24
    serving = provider(place)
    going = run_over(place, counting(place, pods))
    for count in sorted(dice.sample(range(1, pods), 2)):
        until(ran(place, count), f"{count} pods have begun", going.process.poll)
        # The moment is left to chance on purpose; nothing below depends on it.
        time.sleep(dice.random() * 0.1)
        for one in dice.sample([serving, going], 2):
            one.kill()
        serving = provider(place)
        going = place.start("attach", "it")
    done = going.end()
    assert done.code == 1, done.said
    assert done.out.count(" said ") == pods, done.said
    proven(place, pods)
    removed(place, serving)
