"""What is shown of a pod, from the words of its cloud and of its helper."""

from __future__ import annotations

from dataclasses import replace

from bridge.helper.record import Record
from bridge.helper.view import observed
from bridge.helper.wrap import INSTALL, WATCH
from bridge.workload import ContainerState, Exit, Identity, Observed, Running, Waiting

WHO = Identity("cluster", "node", "default", "pod", "uid")
ENDED = Exit(0, 9.0, started_at=1.0)


def of_cloud(main: ContainerState, *, watch: object = None) -> Observed:
    states = (
        ContainerState(INSTALL, replace(ENDED, finished_at=2.0)),
        main,
        ContainerState(WATCH, watch or Running(3.0)),  # type: ignore[arg-type]
    )
    return Observed(WHO, states, accepted_at=1.0)


def main(state: object, container_id: str = "cloud://1") -> ContainerState:
    return ContainerState("m", state, container_id=container_id)  # type: ignore[arg-type]


def said(state: object, *, restart: int = 0, previous: Exit | None = None) -> Record:
    one = ContainerState("m", state, restart, previous, started=True, ready=True)  # type: ignore[arg-type]
    return Record("watch", 5.0, (one,))


def test_each_run_names_a_container_of_its_own() -> None:
    first, second = Exit(3, 4.0, "Error", started_at=3.0), Exit(4, 6.0, "Error", started_at=5.0)
    shown = observed(
        of_cloud(main(Running(3.0))), said(second, restart=1, previous=first), final=False
    )
    (one,) = shown.containers
    assert one.state == replace(second, container_id="cloud://1.1")
    assert one.previous == replace(first, container_id="cloud://1")
    assert one.container_id == "cloud://1.1"


def test_what_could_not_start_names_none() -> None:
    failed = Exit(128, 4.0, "StartError")
    (one,) = observed(of_cloud(main(Running(3.0))), said(failed), final=False).containers
    assert one.state == failed


def test_an_end_of_which_the_helper_has_not_spoken_is_none_yet() -> None:
    (one,) = observed(of_cloud(main(ENDED)), None, final=False).containers
    assert one.state == Running(1.0)


def test_while_the_helper_is_about_to_speak_the_clouds_word_is_not_taken() -> None:
    for state in (Running(3.0), ENDED):
        shown = observed(of_cloud(main(state)), None, final=False, creating="PodInitializing")
        assert shown.containers[0].state == Waiting("PodInitializing")
    (one,) = observed(of_cloud(main(Running(3.0))), None, final=False).containers
    assert one.state == Running(3.0)


def test_what_the_cloud_could_not_start_has_no_helper_that_could_speak() -> None:
    failed = Exit(128, 4.0, "StartError", message="exec format error")
    (one,) = observed(of_cloud(main(failed)), None, final=False).containers
    assert one.state == failed


def test_a_helper_that_is_gone_without_a_record_leaves_nothing_known() -> None:
    shown = observed(of_cloud(main(ENDED), watch=ENDED), None, final=False)
    (one,) = shown.containers
    assert isinstance(one.state, Exit)
    assert (one.state.code, one.state.reason) == (137, "ContainerStatusUnknown")
    assert one.state.container_id == "cloud://1"
    assert shown.ended
    assert shown.failed
    assert shown.disrupted


def test_what_it_waits_for_is_said_by_the_cloud() -> None:
    pulls = main(Waiting("ErrImagePull", "no such image"), "")
    shown = observed(of_cloud(pulls), said(Waiting("PodInitializing")), final=False)
    assert shown.containers[0].state == pulls.state


def test_between_two_runs_it_waits_as_at_a_kubelet() -> None:
    ended = Exit(5, 6.0, "Error", started_at=5.0)
    record = replace(said(ended, restart=2), backoffs={"m": 80.0})
    (one,) = observed(of_cloud(main(Running(3.0))), record, final=False).containers
    assert one.state == Waiting(
        "CrashLoopBackOff",
        "back-off 1m20s restarting failed container=m pod=pod_default(uid)",
    )
    assert one.previous == replace(ended, container_id="cloud://1.2")
    assert one.restart == 2


def test_nothing_waits_in_a_pod_whose_helper_is_gone() -> None:
    ended = Exit(5, 6.0, "Error", started_at=5.0)
    record = replace(said(ended, restart=2), backoffs={"m": 80.0})
    (one,) = observed(of_cloud(main(ENDED), watch=ENDED), record, final=False).containers
    assert one.state == replace(ended, container_id="cloud://1.2")


def test_until_its_post_start_hook_is_over_nothing_is_told_of_a_run() -> None:
    before = Exit(5, 4.0, "Error", started_at=3.5)
    record = said(Running(5.0), restart=1, previous=before)
    opening = replace(record, opening=frozenset({"m"}))
    (one,) = observed(of_cloud(main(Running(3.0))), opening, final=False).containers
    assert one == ContainerState(
        "m",
        Waiting("ContainerCreating"),
        1,
        replace(before, container_id="cloud://1"),
    )
    (one,) = observed(of_cloud(main(Running(3.0))), record, final=False).containers
    assert one.state == Running(5.0)


def test_until_a_helper_is_back_nothing_is_told_that_it_may_have_told_otherwise() -> None:
    for state in (Running(3.0), ENDED):
        shown = observed(of_cloud(main(state)), None, final=False, returning=True)
        assert shown.containers == ()
        assert not shown.ended
        (one,) = observed(
            of_cloud(main(state)), said(Running(4.0), restart=3), final=False, returning=True
        ).containers
        assert (one.state, one.restart) == (Running(4.0), 3)
    pulls = main(Waiting("ErrImagePull", "no such image"), "")
    shown = observed(of_cloud(pulls), None, final=False, returning=True)
    assert shown.containers == (pulls,)
    shown = observed(of_cloud(main(ENDED), watch=ENDED), None, final=False, returning=True)
    assert isinstance(shown.containers[0].state, Exit)
