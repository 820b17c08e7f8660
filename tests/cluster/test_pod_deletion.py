"""How pods go, at every stage, at a real API server: what ran has ended, its end is on record, and
only then the object goes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import node_kit
import pytest
from control_plane_kit import ControlPlane, Namespace, Object
from node_kit import Place, container, on_term, until

from tools.control_plane import audit

pytestmark = pytest.mark.slow

WAIT = "until test -e {0}; do sleep 0.05; done"
STUBBORN = "trap '' TERM; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def shared(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A node on `process`."""
    with node_kit.kept(control_plane, tmp_path_factory.mktemp("deletion")) as made:
        yield made


def status_of(pod: Object, name: str = "main") -> Any:
    lists = ("initContainerStatuses", "containerStatuses")
    found = [one for key in lists for one in pod.get("status", {}).get(key) or ()]
    return next((one for one in found if one["name"] == name), {})


def state_of(pod: Object, name: str = "main") -> Any:
    return status_of(pod, name).get("state") or {}


def ends(namespace: Namespace, *names: str, since: str) -> dict[str, list[Object]]:
    """All that the API server told of these pods, each up to its deletion."""
    told: dict[str, list[Object]] = {name: [] for name in names}
    going = {*names}
    with contextlib.closing(namespace.api.watch(namespace.path("pods"), version=since)) as changes:
        for change in changes:
            name = change["object"]["metadata"]["name"]
            if name in going:
                told[name].append(change["object"])
                going -= {name} if change["type"] == "DELETED" else set()
            if not going:
                return told
    raise AssertionError(f"the watch ended before {going} went")


def version(namespace: Namespace) -> str:
    return str(namespace.api.get(namespace.path("pods"))["metadata"]["resourceVersion"])


def node_calls(namespace: Namespace, since: int) -> Counter[str]:
    """The calls of the node, not of the test, in the audit log: a moment after they were made."""
    log = namespace.plane.audit_log
    return audit.calls(log, "podbridge", since) - audit.calls(log, "podbridge-tests", since)


def ran_to_its_end(told: list[Object], code: int, phase: str) -> None:
    """The final status was on record before the object went, and said this."""
    before = [pod["status"]["phase"] for pod in told]
    assert before[-1] == phase
    assert state_of(told[-1])["terminated"]["exitCode"] == code
    # One write says it, and the deletion comes after it.
    final = next(at for at, pod in enumerate(told) if pod["status"]["phase"] == phase)
    assert final < len(told) - 1
    assert told[final]["status"]["containerStatuses"] == told[-1]["status"]["containerStatuses"]


def test_the_handshake(shared: Place, namespace: Namespace, tmp_path: Path) -> None:
    """The hook, then the signal; the final status, then the deletion, at once."""
    hook = {"exec": {"command": ["/bin/sh", "-c", f"echo hook >> {tmp_path}/order"]}}
    ready = tmp_path / "ready"
    script = on_term(f"echo signal >> {tmp_path}/order; exit 7", ready)
    main = container(script, lifecycle={"preStop": hook})
    shared.pod(namespace, "p", containers=[main], terminationGracePeriodSeconds=600)
    shared.running(namespace, "p")
    until(ready.exists, "it listens")
    since, written = version(namespace), audit.position(namespace.plane.audit_log)
    namespace.api.delete(namespace.path("pods", "p"))
    told = ends(namespace, "p", since=since)["p"]
    ran_to_its_end(told, 7, "Failed")
    assert (tmp_path / "order").read_text().split() == ["hook", "signal"]
    until(lambda: node_calls(namespace, written)["delete pods 200"], "the deletion is logged")
    calls = node_calls(namespace, written)
    assert (calls["patch pods/status 200"], calls["delete pods 200"]) == (1, 1)


def test_at_every_stage(shared: Place, namespace: Namespace, tmp_path: Path) -> None:
    missing = [{"configMapRef": {"name": "none"}}]
    shared.pod(namespace, "missing", containers=[container("exit 0", envFrom=missing)])
    listens = [tmp_path / name for name in ("init", "running", "ending")]
    init = container(on_term("exit 5", listens[0]), "first")
    shared.pod(namespace, "init", initContainers=[init])
    shared.pod(namespace, "running", on_term("exit 0", listens[1]))
    shared.pod(namespace, "ended", "exit 3")
    deaf = on_term("", listens[2])
    shared.pod(namespace, "ending", deaf, terminationGracePeriodSeconds=600)
    namespace.until("pods", "missing", lambda pod: "waiting" in state_of(pod))
    namespace.until("pods", "init", lambda pod: "running" in state_of(pod, "first"))
    shared.running(namespace, "running")
    shared.running(namespace, "ending")
    shared.ended(namespace, "ended")
    until(lambda: all(one.exists() for one in listens), "they listen")
    since = version(namespace)
    namespace.api.delete(namespace.path("pods", "ending"))
    # Made and deleted at once: it may not even have been heard of.
    shared.pod(namespace, "new", "exec sleep 1000")
    for name in ("missing", "init", "running", "ended", "new"):
        namespace.api.delete(namespace.path("pods", name))
    there = namespace.api.get(namespace.path("pods", "ending"))
    assert "running" in state_of(there)
    # Whoever does not want to wait any longer asks again.
    namespace.api.delete(namespace.path("pods", "ending"), grace=1)
    told = ends(namespace, "missing", "init", "running", "ended", "ending", "new", since=since)
    assert told["missing"][-1]["status"]["phase"] == "Failed"
    # A kubelet's words for a container that never ran.
    unknown = state_of(told["missing"][-1])["terminated"]
    assert (unknown["exitCode"], unknown["reason"]) == (137, "ContainerStatusUnknown")
    assert told["init"][-1]["status"]["phase"] == "Failed"
    assert state_of(told["init"][-1], "first")["terminated"]["exitCode"] == 5
    ran_to_its_end(told["running"], 0, "Succeeded")
    assert state_of(told["ended"][-1])["terminated"]["exitCode"] == 3
    ran_to_its_end(told["ending"], 137, "Failed")
    assert told["new"][-1]["status"]["phase"] in ("Failed", "Pending")
    until(lambda: not shared.work(), "nothing of them is left")


def test_by_force(shared: Place, namespace: Namespace) -> None:
    shared.pod(namespace, "p", STUBBORN)
    shared.running(namespace, "p")
    assert shared.work()
    namespace.api.delete(namespace.path("pods", "p"), grace=0)
    # The object is gone before anybody asked us; what ran ends all the same.
    shared.gone(namespace, "p")
    until(lambda: not shared.work(), "what ran ends")


def test_a_finalizer_holds_the_object_and_nothing_else(
    shared: Place, namespace: Namespace, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    script = f"echo run >> {tmp_path}/ran; {on_term('exit 4', ready)}"
    shared.pod(namespace, "p", script, restartPolicy="Always")
    shared.running(namespace, "p")
    until(ready.exists, "it listens")
    path = namespace.path("pods", "p")
    namespace.api.patch(path, {"metadata": {"finalizers": ["example.org/hold"]}})
    written = audit.position(namespace.plane.audit_log)
    namespace.api.delete(path)
    held = shared.ended(namespace, "p")
    assert state_of(held)["terminated"]["exitCode"] == 4

    def node_deletes() -> int:
        return node_calls(namespace, written)["delete pods 200"]

    until(node_deletes, "the node lets go of it")
    # Others come and go meanwhile, and it is looked at again; it is not asked for again.
    namespace.api.patch(path, {"metadata": {"labels": {"a": "b"}}})
    shared.pod(namespace, "other")
    shared.ended(namespace, "other")
    assert node_deletes() == 1
    assert (tmp_path / "ran").read_text() == "run\n"
    assert status_of(namespace.api.get(path))["restartCount"] == 0
    namespace.api.patch(path, {"metadata": {"finalizers": None}})
    shared.gone(namespace, "p")


def test_while_nobody_was_there(
    control_plane: ControlPlane, namespace: Namespace, tmp_path: Path
) -> None:
    with node_kit.place(control_plane, tmp_path / "place") as place:
        config = place.config()
        up = place.up(config=config)
        go = tmp_path / "go"
        place.pod(namespace, "gone", STUBBORN)
        place.pod(namespace, "ended", WAIT.format(go) + "; exit 6")
        place.pod(namespace, "kept", f"trap 'exit 9' TERM; {WAIT.format(go)}; exec sleep 1000")
        for name in ("gone", "ended", "kept"):
            place.running(namespace, name)
        up.kill()
        namespace.api.delete(namespace.path("pods", "gone"), grace=0)
        since = version(namespace)
        namespace.api.delete(namespace.path("pods", "ended"))
        go.touch()
        # It comes to its end before anybody is there to see it.
        until(lambda: len([1 for _, what in place.work() if "exit 6" in what]) == 0, "it ends")
        place.pod(namespace, "never", "exit 0")
        namespace.api.delete(namespace.path("pods", "never"))
        place.up(config=config)
        told = ends(namespace, "ended", "never", since=since)
        ran_to_its_end(told["ended"], 6, "Failed")
        assert told["never"][-1]["status"]["phase"] == "Failed"
        until(lambda: not any("trap ''" in what for _, what in place.work()), "the orphan ends")
        kept = place.running(namespace, "kept")
        assert status_of(kept)["restartCount"] == 0
