from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridge.backoff import backoff, backoff_of_killed
from bridge.pods.lifecycle import Kill, Plan, Stop, kill_for, plan, should_restart
from bridge.workload import (
    Container,
    ContainerState,
    Exit,
    Identity,
    Observed,
    RestartPolicy,
    RestartRule,
    Role,
    Running,
    State,
    Waiting,
    Workload,
)

NOW = 10_000.0
IDENTITY = Identity("c", "n", "ns", "p", "u")
NEVER, ALWAYS, ON_FAILURE = RestartPolicy.NEVER, RestartPolicy.ALWAYS, RestartPolicy.ON_FAILURE


def workload(*roles: tuple[str, Role], policy: RestartPolicy = NEVER, **more: Any) -> Workload:
    containers = tuple(
        Container(name, role, "i", restart_policy=ALWAYS if role is Role.SIDECAR else policy)
        for name, role in roles
    )
    return Workload(IDENTITY, containers, restart_policy=policy, **more)


def seen(restarts: dict[str, int] | None = None, **states: State) -> Observed:
    restarts = restarts or {}
    return Observed(
        IDENTITY,
        tuple(ContainerState(name, state, restarts.get(name, 0)) for name, state in states.items()),
    )


def ended(code: int = 0, at: float = NOW - 1, ran: float = 1.0, reason: str = "") -> Exit:
    return Exit(code, at, reason or ("Error" if code else "Completed"), started_at=at - ran)


RUN = Running(NOW - 5)
MAIN = ("m", Role.MAIN)
INIT = ("i", Role.INIT)
SIDE = ("s", Role.SIDECAR)


def test_mains_start_together() -> None:
    pod = workload(MAIN, ("m2", Role.MAIN))
    for observed in (None, seen()):
        assert plan(pod, observed, NOW) == Plan(
            start=(("m", 0), ("m2", 0)),
            waiting={"m": Waiting("ContainerCreating"), "m2": Waiting("ContainerCreating")},
        )


def test_inits_one_after_another_then_mains() -> None:
    pod = workload(INIT, ("j", Role.INIT), MAIN)
    first = plan(pod, None, NOW)
    assert first.start == (("i", 0),)
    assert first.waiting["m"] == Waiting("PodInitializing")
    assert plan(pod, seen(i=RUN), NOW).start == ()
    assert plan(pod, seen(i=ended()), NOW).start == (("j", 0),)
    assert plan(pod, seen(i=ended(), j=ended()), NOW).start == (("m", 0),)
    assert plan(pod, seen(i=ended(), j=ended(), m=RUN), NOW).start == ()


def test_a_start_under_way_is_asked_for_again() -> None:
    observed = seen(m=Waiting("ErrImagePull", "no such image"))
    result = plan(workload(MAIN), observed, NOW)
    assert result.start == (("m", 0),)
    assert result.waiting == {"m": Waiting("ErrImagePull", "no such image")}


def test_everything_reported_as_waiting_starts_in_order() -> None:
    pod = workload(INIT, SIDE, MAIN)
    waiting = Waiting("ContainerCreating")
    assert plan(pod, seen(i=waiting, s=waiting, m=waiting), NOW).start == (("i", 0),)
    assert plan(pod, seen(i=ended(), s=waiting, m=waiting), NOW).start == (("s", 0),)
    assert plan(pod, seen(i=ended(), s=RUN, m=waiting), NOW).start == (("m", 0),)


def test_an_init_container_that_fails_for_good_ends_the_pod() -> None:
    pod = workload(SIDE, INIT, MAIN)
    observed = seen(s=RUN, i=ended(3))
    result = plan(pod, observed, NOW)
    assert result.start == ()
    assert not result.ended
    assert result.kill == (("s", 30.0),)
    assert result.waiting == {"m": Waiting("PodInitializing")}
    done = plan(pod, seen(s=ended(), i=ended(3)), NOW)
    assert done.ended
    assert not done.failed


def test_an_init_container_restarts_with_back_off() -> None:
    pod = workload(INIT, MAIN, policy=ALWAYS)
    assert plan(pod, seen(i=ended(1)), NOW).start == (("i", 1),)
    again = plan(pod, seen({"i": 1}, i=ended(1)), NOW)
    assert again.start == ()
    assert again.wake_at == NOW - 1 + 10
    assert again.waiting["i"] == Waiting(
        "CrashLoopBackOff", "back-off 10s restarting failed container=i pod=p_ns(u)"
    )
    assert plan(pod, seen({"i": 1}, i=ended(1)), NOW + 9).start == (("i", 2),)


def test_a_sidecar_gates_by_started() -> None:
    pod = workload(SIDE, MAIN)
    slow = Observed(IDENTITY, (ContainerState("s", RUN, started=False),))
    assert plan(pod, slow, NOW).start == ()
    assert plan(pod, seen(s=RUN), NOW).start == (("m", 0),)


def test_sidecars_restart_whatever_the_policy() -> None:
    pod = workload(SIDE, INIT, MAIN)
    assert plan(pod, seen(s=ended(), i=RUN), NOW).start == (("s", 1),)
    assert plan(pod, seen(s=ended(), i=ended(), m=RUN), NOW).start == (("s", 1),)
    # A crashing sidecar that was passed holds back no later container.
    crashing = plan(pod, seen({"s": 3}, s=ended(), i=ended()), NOW)
    assert crashing.start == (("m", 0),)
    assert crashing.waiting["s"].reason == "CrashLoopBackOff"


def test_sidecars_end_after_the_mains_in_reverse() -> None:
    pod = workload(("s1", Role.SIDECAR), ("s2", Role.SIDECAR), MAIN)
    done = ended(at=NOW - 10)
    first = plan(pod, seen(s1=RUN, s2=RUN, m=done), NOW, since=NOW - 10)
    assert first.since == NOW - 10
    assert first.kill == (("s2", 20.0),)
    assert first.wake_at == NOW + 20
    assert not first.ended
    second = plan(pod, seen(s1=RUN, s2=ended(), m=done), NOW, since=NOW - 10)
    assert second.kill == (("s1", 20.0),)
    late = plan(pod, seen(s1=RUN, s2=RUN, m=done), NOW + 20, since=NOW - 10)
    assert late.kill == (("s2", 2.0), ("s1", 2.0))
    over = plan(pod, seen(s1=ended(137), s2=ended(), m=done), NOW)
    assert over.ended
    assert over.start == ()


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        (ALWAYS, 0, True),
        (ALWAYS, 1, True),
        (ON_FAILURE, 0, False),
        (ON_FAILURE, 1, True),
        (NEVER, 1, False),
    ],
)
def test_restart_policies(policy: RestartPolicy, code: int, again: bool) -> None:
    result = plan(workload(MAIN, policy=policy), seen(m=ended(code)), NOW)
    assert result.start == ((("m", 1),) if again else ())
    assert result.ended is not again


def test_the_first_rule_that_matches_decides() -> None:
    container = Container(
        "m",
        Role.MAIN,
        "i",
        restart_policy=NEVER,
        restart_rules=(
            RestartRule(restart=False, codes=frozenset({7})),
            RestartRule(restart=True, codes=frozenset({42, 7})),
            RestartRule(restart=True, codes=frozenset(range(100)), negated=True),
        ),
    )
    assert should_restart(container, ended(42))
    assert should_restart(container, ended(137))
    assert not should_restart(container, ended(7))
    assert not should_restart(container, ended(1))
    # A code that nobody knows matches no rule.
    unknown = ended(137, reason="ContainerStatusUnknown")
    assert not should_restart(container, unknown)
    assert should_restart(replace(container, restart_policy=ON_FAILURE), unknown)


def test_back_off_doubles_to_five_minutes() -> None:
    last = ended(1)
    assert [backoff(n, last, None) for n in range(9)] == [0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_back_off_is_cleared_by_a_long_run() -> None:
    assert backoff(7, ended(1, ran=601), None) == 0
    before = ended(1, at=NOW - 3, ran=601)
    assert backoff(7, ended(1, at=NOW), before) == 10


def test_back_off_goes_on_from_what_the_last_start_waited() -> None:
    # Run 8 began 20 s after run 7 ended: the back-off was cleared some runs ago.
    last = Exit(1, NOW, started_at=NOW - 1)
    assert backoff(8, last, ended(1, at=NOW - 21.4)) == 40
    assert backoff(8, last, ended(1, at=NOW - 1)) == 10
    assert backoff(8, last, ended(1, at=NOW - 400)) == 300
    assert backoff(2, last, ended(1, at=NOW - 400)) == 20


@pytest.mark.parametrize(("restart", "words"), [(4, "1m20s"), (5, "2m40s"), (9, "5m0s")])
def test_back_off_in_words(restart: int, words: str) -> None:
    result = plan(workload(MAIN, policy=ALWAYS), seen({"m": restart}, m=ended(1)), NOW)
    assert result.waiting["m"].message.startswith(f"back-off {words} restarting")


def test_deletion_kills_mains_first() -> None:
    pod = workload(SIDE, MAIN, policy=ALWAYS)
    stop = Stop(NOW - 4, 10)
    first = plan(pod, seen(s=RUN, m=RUN), NOW, stop)
    assert first.kill == (("m", 6.0),)
    assert first.wake_at == NOW + 6
    assert not first.failed
    second = plan(pod, seen(s=RUN, m=ended(143)), NOW, stop)
    assert second.kill == (("s", 6.0),)
    last = plan(pod, seen(s=ended(), m=ended(143)), NOW, stop)
    assert last.ended
    assert last.start == ()
    assert last.waiting == {}


def test_what_never_ran_is_not_started_for_a_stop() -> None:
    result = plan(workload(INIT, MAIN), None, NOW, Stop(NOW, 30))
    assert result.ended
    assert result.start == ()
    assert result.waiting["m"] == Waiting("PodInitializing")


def test_deadline() -> None:
    pod = workload(MAIN, policy=ALWAYS, start_time=NOW - 50, deadline=60.0, grace=5.0)
    before = plan(pod, seen(m=RUN), NOW)
    assert before.wake_at == NOW + 10
    assert before.kill == ()
    after = plan(pod, seen(m=RUN), NOW + 12, since=NOW + 9)
    assert after.kill == (("m", 3.0),)
    assert (after.failed, after.reason) == (True, "DeadlineExceeded")
    assert after.message == "Pod was active on the node longer than the specified deadline"
    assert not after.ended
    over = plan(pod, seen(m=ended(143, at=NOW + 13)), NOW + 14)
    assert over.ended
    assert over.failed


def test_what_was_due_while_nobody_looked_takes_nothing_from_the_grace() -> None:
    pod = workload(SIDE, MAIN, policy=ALWAYS, start_time=NOW - 900, deadline=60.0)
    late = plan(pod, seen(s=RUN, m=RUN), NOW)
    assert (late.kill, late.since) == ((("m", 30.0),), NOW)
    assert late.ending == {"s": NOW + 30, "m": NOW + 30}
    assert plan(pod, seen(s=RUN, m=RUN), NOW + 12, since=late.since).kill == (("m", 18.0),)
    lost = replace(seen(s=RUN, m=RUN), failed=True, reason="Reclaimed")
    assert plan(pod, lost, NOW + 12, since=NOW).ending == late.ending
    # A deletion counts from its order.
    due = plan(workload(MAIN), seen(m=RUN), NOW, Stop(NOW - 5, 10))
    assert due.ending == {"m": NOW + 5}


def test_work_that_was_over_in_time_did_not_exceed_its_deadline() -> None:
    pod = workload(SIDE, MAIN, start_time=NOW - 50, deadline=45.0)
    result = plan(pod, seen(s=RUN, m=ended(at=NOW - 6)), NOW)
    assert not result.failed
    assert result.kill == (("s", 30.0),)


def test_a_deletion_before_the_deadline_fails_nothing() -> None:
    pod = workload(MAIN, policy=ALWAYS, start_time=NOW - 50, deadline=45.0)
    result = plan(pod, seen(m=RUN), NOW, Stop(NOW - 20, 60), since=NOW - 20)
    assert not result.failed
    assert result.kill == (("m", 25.0),)


def test_infrastructure_loss_ends_the_pod() -> None:
    pod = workload(MAIN, policy=ALWAYS)
    lost = replace(
        seen(m=ended(137, reason="ContainerStatusUnknown")), disrupted=True, reason="Reclaimed"
    )
    result = plan(pod, lost, NOW)
    assert (result.ended, result.failed, result.reason) == (True, True, "Reclaimed")
    done = replace(seen(m=ended()), disrupted=True)
    assert not plan(workload(MAIN), done, NOW).failed


def test_ephemeral_containers_start_once_and_go_with_the_pod() -> None:
    pod = workload(MAIN, ("e", Role.EPHEMERAL), policy=ALWAYS)
    assert ("e", 0) in plan(pod, seen(m=RUN), NOW).start
    assert plan(pod, seen(m=RUN, e=ended(1)), NOW).start == ()
    never = workload(MAIN, ("e", Role.EPHEMERAL))
    assert plan(never, seen(m=ended(), e=RUN), NOW).kill == (("e", 30.0),)


def test_the_same_input_gives_the_same_plan() -> None:
    pod = workload(SIDE, INIT, MAIN, policy=ALWAYS)
    observed = seen({"m": 2}, s=RUN, i=ended(), m=ended(1))
    assert plan(pod, observed, NOW) == plan(pod, observed, NOW)


def ran(name: str, state: State, image: str, restart: int = 0) -> Observed:
    return Observed(IDENTITY, (ContainerState(name, state, restart, image=image),))


@pytest.mark.parametrize("policy", [NEVER, ALWAYS])
def test_a_changed_image_ends_the_run_and_starts_another(policy: RestartPolicy) -> None:
    pod = workload(MAIN, policy=policy, grace=20)
    due = plan(pod, ran("m", RUN, "old"), NOW)
    kill = Kill("Container m definition changed, will be restarted", again=True)
    assert due.kill == (("m", 20.0),)
    assert due.kills == {"m": kill}
    assert due.ending == {"m": NOW + 20}
    over = ran("m", ended(143, at=NOW), "old")
    assert plan(pod, over, NOW, kills={"m": kill}).start == (("m", 1),)
    assert plan(pod, ran("m", RUN, "i", 1), NOW).kill == ()


def test_no_image_is_no_change_and_what_has_ended_by_itself_is_left() -> None:
    pod = workload(MAIN)
    assert plan(pod, ran("m", RUN, ""), NOW).kills == {}
    assert plan(pod, ran("m", ended(), "old"), NOW).ended
    init = workload(INIT, MAIN)
    assert plan(init, ran("i", RUN, "old"), NOW).kills == {}
    side = workload(SIDE, MAIN)
    assert plan(side, ran("s", RUN, "old"), NOW).kills["s"].message == (
        "Init container s definition changed"
    )


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (NEVER, "Container m failed liveness probe"),
        (ALWAYS, "Container m failed liveness probe, will be restarted"),
        (ON_FAILURE, "Container m failed liveness probe, will be restarted"),
    ],
)
def test_a_kill_for_a_probe(policy: RestartPolicy, message: str) -> None:
    pod = workload(MAIN, ("m2", Role.MAIN), policy=policy)
    kill = kill_for(pod.container("m"), "failed liveness probe", 1.0)
    assert kill.message == message
    due = plan(pod, seen(m=RUN, m2=RUN), NOW, kills={"m": kill})
    assert due.kill == (("m", 2.0),)
    assert due.ending == {"m": NOW + 1}
    assert due.start == ()
    # A container that stops well when it is told to is not done for that.
    after = plan(pod, seen(m=ended(0, at=NOW), m2=RUN), NOW, kills={"m": kill})
    assert after.start == (() if policy is NEVER else (("m", 1),))


def test_an_order_for_the_whole_pod_comes_before_a_kill() -> None:
    pod = workload(MAIN)
    kill = kill_for(pod.container("m"), "failed liveness probe", 300.0)
    due = plan(pod, seen(m=RUN), NOW, Stop(NOW, 5), {"m": kill})
    assert due.kill == (("m", 5.0),)
    assert due.ending == {"m": NOW + 5}
    assert due.kills == {}


def test_a_sidecar_is_ending_though_its_kill_waits() -> None:
    pod = workload(SIDE, MAIN)
    due = plan(pod, seen(s=RUN, m=RUN), NOW, Stop(NOW, 9))
    assert due.ending == {"s": NOW + 9, "m": NOW + 9}
    assert [name for name, _ in due.kill] == ["m"]


def test_who_was_killed_backs_off_from_the_end_before() -> None:
    first = ended(143, at=NOW - 100)
    assert backoff_of_killed(0, first, None) == 0
    assert backoff_of_killed(1, ended(143, at=NOW), first) == 0
    assert backoff_of_killed(3, ended(143, at=NOW), first) == 0
    assert backoff_of_killed(3, ended(143, at=NOW - 90), first) == 20
    assert backoff(3, ended(143, at=NOW), None) == 40


def test_a_new_image_clears_the_back_off() -> None:
    pod = workload(MAIN, policy=ALWAYS)
    pod = replace(pod, containers=(replace(pod.containers[0], image="mended"),))
    before = ended(1, at=NOW - 302)
    state = ContainerState("m", ended(1, at=NOW - 1), 7, previous=before, image="broken")
    assert plan(pod, Observed(IDENTITY, (state,)), NOW).start == (("m", 8),)


def test_a_clock_that_is_ahead_delays_no_first_restart() -> None:
    pod = workload(MAIN, policy=ALWAYS)
    assert plan(pod, seen(m=ended(1, at=NOW + 600)), NOW).start == (("m", 1),)
