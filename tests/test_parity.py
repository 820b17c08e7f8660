"""The comparison with a real kubelet: what it takes for the same, and what for a difference."""

from __future__ import annotations

from typing import Any

import pytest

from tools.parity import cases, compare, conditions, report
from tools.parity.compare import Difference, Known
from tools.parity.facets import Facet, Seen, facets, pod_keys
from tools.parity.recording import News, Recording


def pod(name: str = "p", *, phase: str = "Pending", uid: str = "u1", **more: Any) -> dict[str, Any]:
    meta = {"name": name, "uid": uid, "namespace": "ours-x", "creationTimestamp": "1"}
    meta |= more.pop("metadata", {})
    return {
        "kind": "Pod",
        "metadata": meta,
        "spec": {"nodeName": "podbridge"},
        "status": {"phase": phase, **more},
    }


def container(state: dict[str, Any], *, restarts: int = 0, name: str = "main") -> dict[str, Any]:
    ready = "running" in state
    return {
        "containerStatuses": [
            {
                "name": name,
                "state": state,
                "restartCount": restarts,
                "ready": ready,
                "containerID": "c",
            }
        ]
    }


def event(
    reason: str, number: int, *, uid: str = "u1", name: str = "e", by: str = "kubelet"
) -> Any:
    return {
        "kind": "Event",
        "type": "Normal",
        "reason": reason,
        "count": number,
        "metadata": {"name": name, "uid": name},
        "source": {"component": by},
        "involvedObject": {"uid": uid, "name": "p", "fieldPath": "spec.containers{main}"},
    }


def recorded(*told: tuple[float, dict[str, Any]], **more: Any) -> Recording:
    news = [News(at, "MODIFIED", one) for at, one in told]
    return Recording("x", news, more.pop("logs", {}), **more)


WAITING = {"waiting": {"reason": "ContainerCreating"}}
RUNNING = {"running": {"startedAt": "1"}}
ENDED = {"terminated": {"exitCode": 3, "reason": "Error"}}


def course(*states: tuple[float, dict[str, Any]]) -> Recording:
    return recorded(*((at, pod(**container(state))) for at, state in states))


def line(*texts: str) -> list[Seen]:
    """`~text` for one that may be missing."""
    return [Seen(one.lstrip("~"), one.startswith("~")) for one in texts]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (line("a", "b"), line("a", "b"), 0),
        (line("a", "~b", "c"), line("a", "c"), 0),
        (line("a", "c"), line("a", "~b", "c"), 0),
        (line("a", "b", "c"), line("a", "c"), 1),
        (line("a", "~b", "a"), line("a"), 0),
        (line("a", "b", "a"), line("a"), 1),
        (line("a", "b"), line("b", "a"), 2),
        ([], line("a"), 1),
    ],
)
def test_values_in_order(one: list[Seen], other: list[Seen], expected: int) -> None:
    assert compare.distance(one, other) == expected
    assert compare.distance(other, one) == expected


def test_the_first_state_may_be_missed() -> None:
    seen = facets(course((0, WAITING), (3, RUNNING), (6, ENDED)))
    missed = facets(course((3, RUNNING), (6, ENDED)))
    assert compare.compare("x", seen, missed) == []


def test_a_back_off_may_be_told_late_or_not_at_all() -> None:
    off = {"waiting": {"reason": "CrashLoopBackOff"}}
    seen = facets(course((0, RUNNING), (4, off), (14, RUNNING)))
    missed = facets(course((0, RUNNING), (4, ENDED), (14, RUNNING)))
    assert compare.compare("x", seen, missed) == []
    late = facets(course((0, RUNNING), (4, ENDED), (13, off), (14, RUNNING)))
    assert compare.compare("x", seen, late) == []


def test_a_short_run_may_be_missed() -> None:
    seen = facets(course((0, WAITING), (1, RUNNING), (1.5, ENDED)))
    missed = facets(course((0, WAITING), (1.5, ENDED)))
    assert compare.compare("x", seen, missed) == []


def test_a_long_run_may_not_be_missed() -> None:
    seen = facets(course((0, WAITING), (1, RUNNING), (4, ENDED)))
    missed = facets(course((0, WAITING), (1.5, ENDED)))
    (found, ready) = compare.compare("x", seen, missed)
    assert (found.facet, ready.facet) == ("container main", "container main ready")
    assert found.real == "waiting ContainerCreating #0 → running #0 → terminated Error exit 3 #0"


def test_why_it_waits_is_never_missed() -> None:
    why = {"waiting": {"reason": "CreateContainerConfigError"}}
    seen = facets(course((0, WAITING), (1, why), (1.1, RUNNING)))
    missed = facets(course((0, WAITING), (1.1, RUNNING)))
    assert [one.facet for one in compare.compare("x", seen, missed)] == ["container main"]


def test_the_end_before_a_back_off_may_be_missed() -> None:
    off = {"waiting": {"reason": "CrashLoopBackOff"}}
    seen = facets(course((0, WAITING), (1, RUNNING), (4, ENDED), (13, off)))
    missed = facets(course((0, WAITING), (1, RUNNING), (4, off)))
    assert compare.compare("x", seen, missed) == []


def test_what_is_told_after_the_cut_does_not_count() -> None:
    told = [(0.0, pod()), (5.0, pod(phase="Running"))]
    events = [(1.5, event("Started", 1)), (9.0, event("Killing", 1, name="f"))]
    made = facets(recorded(*told, *events, cut=1.0))
    assert str(made["p", "phase"]) == "Pending"
    assert str(made["p", "events"]) == "Normal Started of main ×1"


def test_events_count_where_they_are_exact_and_only_those_of_the_node() -> None:
    events = [
        event("Started", 2, name="a"),
        event("BackOff", 7, name="b"),
        event("Scheduled", 1, name="c", by="default-scheduler"),
        event("Started", 1, name="d", uid="another"),
    ]
    made = facets(recorded((0, pod()), *((1.0, one) for one in events)))
    assert str(made["p", "events"]) == "Normal BackOff of main, Normal Started of main ×2"


def test_places_in_logs_are_the_same() -> None:
    real = pod(podIP="10.1.2.3", uid="1234", metadata={"namespace": "real-x"})
    real["spec"]["nodeName"] = "kubelet-1"
    ours = pod(podIP="10.88.0.9", uid="9876")
    texts = ["10.1.2.3 1234 real-x kubelet-1\n", "10.88.0.9 9876 ours-x podbridge\n"]
    made = [
        facets(recorded((0, one), logs={"p/main": text}))
        for one, text in zip((real, ours), texts, strict=True)
    ]
    assert compare.compare("x", *made) == []
    assert str(made[0]["p", "log main"]) == "POD-IP UID NAMESPACE NODE\n"


def test_a_byte_of_a_log_is_a_difference() -> None:
    made = [facets(recorded((0, pod()), logs={"p/main": text})) for text in ("a\n", "a")]
    assert [one.facet for one in compare.compare("x", *made)] == ["log main"]


def test_pods_of_a_job_are_counted_by_index() -> None:
    def of_job(name: str, index: str, at: str) -> News:
        owner = [{"kind": "Job", "name": "j"}]
        notes = {"batch.kubernetes.io/job-completion-index": index}
        meta = {"ownerReferences": owner, "annotations": notes, "creationTimestamp": at}
        return News(0, "ADDED", pod(name, uid=name, metadata=meta))

    keys = pod_keys(
        [of_job("j-1-x", "1", "5"), of_job("j-0-y", "0", "7"), of_job("j-0-z", "0", "6")]
    )
    assert keys == {"j-1-x": "j-1 (1)", "j-0-z": "j-0 (1)", "j-0-y": "j-0 (2)"}


def test_the_problem_of_one_side_is_a_difference() -> None:
    made = [facets(recorded((0, pod()), problem=problem)) for problem in ("", "not within 1 s")]
    (found,) = compare.compare("x", *made)
    assert (found.object, found.facet, found.real) == ("case", "steps", "nothing")


def test_a_recording_survives_its_file() -> None:
    one = recorded((1.5, pod()), logs={"p/main": "é"}, cut=3.0, problem="none")
    assert Recording.read(one.dump()) == one


# -- what is known --------------------------------------------------------------------------------


def test_known_differences_are_found_by_their_patterns() -> None:
    known = [Known("why", cases=["oom-*"], facet="container *", ours="*exit 137*")]
    one = Difference("oom-main", "p", "container main", "running", "terminated Error exit 137 #0")
    assert compare.reason(one, known) == known[0]
    other = Difference("other", "p", "container main", "", "exit 137")
    assert compare.reason(other, known) is None


def test_single_values_of_a_set_are_excused() -> None:
    known = [
        Known("left out", facet="events", only_real=["Normal Pulled of *"]),
        Known("not there", facet="events", only_ours=["Normal Else of *"]),
    ]
    key = ("p", "events")
    real = {key: Facet(line("Normal Pulled of main", "Normal Killing of main ×1"), ordered=False)}
    ours = {key: Facet(line("Normal Started of main ×1"), ordered=False)}
    verdict = compare.judge("x", real, ours, known)
    assert verdict.excused == known[:1]
    (found,) = verdict.differences
    assert (found.real, found.ours) == ("Normal Killing of main ×1", "Normal Started of main ×1")


def test_single_values_of_a_course_are_excused_and_nothing_else() -> None:
    known = [Known("early", facet="phase", only_ours=["Running Deadline"])]
    key = ("p", "phase")
    real = {key: Facet(line("Pending", "Running", "Failed Deadline"))}
    early = {key: Facet(line("Pending", "Running", "Running Deadline", "Failed Deadline"))}
    verdict = compare.judge("x", real, early, known)
    assert (verdict.differences, verdict.excused) == ([], known)
    worse = {key: Facet(line("Pending", "Running Deadline", "Succeeded"))}
    assert compare.judge("x", real, worse, known).differences
    assert compare.judge("x", real, real, known).excused == []


def test_the_page_says_what_is_the_same_what_is_known_and_what_is_not() -> None:
    text = "# Shows {}.\nkind: Pod\nmetadata: {{name: p}}\nspec: {{}}"
    names = ("good", "known", "bad", "excused")
    made = [cases.parse(name, text.format(name)) for name in names]
    general = Known("left out", only_real=["x"], general=True)
    special = Known("early", only_ours=["y"])
    known = [Known("a reason", cases=["known"]), general, special]
    verdicts = [
        compare.Verdict("good", [], [general]),
        compare.Verdict("known", [Difference("known", "p", "phase", "a", "b")], []),
        compare.Verdict("bad", [Difference("bad", "p", "phase", "a|b", "")], []),
        compare.Verdict("excused", [], [special]),
    ]
    outcome = report.Outcome("v1.36.3", made, verdicts, known, 60, ["good"])
    page = report.page(outcome)
    assert "**1 are the same, 2 differ in what has its reason below, 1 in what has none.**" in page
    assert "- left out (1 manifest)" in page
    assert "a reason\n\n| manifest" in page
    assert "early\n\nIn `excused`: podbridge alone has `y`." in page
    assert "| `bad` | p | phase | a\\|b |" in page
    assert "| `good` | Shows good. |" in page
    assert "counts: `good`." in page
    assert [*report.summary(outcome)][-1].startswith("4 manifests: 1 the same, 2 with known")


# -- manifests and steps --------------------------------------------------------------------------


def test_every_manifest_can_be_read() -> None:
    found = cases.load()
    assert found
    for case in found:
        for step in case.steps:
            for word in step.words if step.verb == "until" else ():
                conditions.holds(word, {"metadata": {}, "status": {}}, [])


def test_steps_are_read() -> None:
    text = """\
# Shows steps.
kind: Pod
metadata:
  name: p
  annotations:
    kept: "yes"
    parity/steps: |
      until phase=Running ready:main=true
      patch ConfigMap/c {"data": {"a": "b"}}
      delete 5
spec: {containers: [{name: main, image: busybox}]}
"""
    case = cases.parse("x", text)
    assert [str(one) for one in case.steps] == [
        "until Pod/p phase=Running ready:main=true",
        'patch ConfigMap/c {"data": {"a": "b"}}',
        "delete Pod/p 5",
    ]
    made = cases.pinned(case.main, "n", "node", {"busybox": "busybox:1"})
    assert made["metadata"] == {"name": "p", "namespace": "n", "annotations": {"kept": "yes"}}
    assert made["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "node"}
    assert made["spec"]["containers"][0]["image"] == "busybox:1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Pod\nmetadata: {name: p}", "no comment"),
        ("# Shows.\nkind: ConfigMap\nmetadata: {name: p}", "no Pod or Job"),
        ("# Shows.\nkind: Pod\nmetadata: {}", "each object has a name"),
        (
            "# Shows.\nkind: Pod\nmetadata: {name: p, annotations: {parity/steps: jump}}",
            "a step is",
        ),
    ],
)
def test_wrong_manifests_are_refused(text: str, said: str) -> None:
    with pytest.raises(cases.Wrong, match=said):
        cases.parse("x", text)


@pytest.mark.parametrize(
    ("condition", "status", "expected"),
    [
        ("over", {"phase": "Failed"}, True),
        ("over", {"phase": "Running"}, False),
        ("over", {"conditions": [{"type": "Complete", "status": "True"}]}, True),
        ("over", {"conditions": [{"type": "Failed", "status": "True"}], "terminating": 1}, False),
        ("phase=Running", {"phase": "Running"}, True),
        ("condition:Ready=True", {"conditions": [{"type": "Ready", "status": "True"}]}, True),
        ("state:main=running", container(RUNNING), True),
        ("state:main=waiting:ContainerCreating", container(WAITING), True),
        ("state:main=waiting:Other", container(WAITING), False),
        ("restarts:main=2", container(RUNNING, restarts=3), True),
        ("ready:main=true", container(RUNNING), True),
        ("active=2", {"active": 1}, False),
    ],
)
def test_conditions(condition: str, status: dict[str, Any], expected: bool) -> None:
    assert conditions.holds(condition, {"metadata": {}, "status": status}, []) is expected


def test_conditions_of_what_is_not_there() -> None:
    assert conditions.holds("gone", None, [])
    assert not conditions.holds("over", None, [])
    assert conditions.holds("event=BackOff:3", None, [event("BackOff", 3)])
    with pytest.raises(ValueError, match="no such condition"):
        conditions.holds("nonsense", None, [])
