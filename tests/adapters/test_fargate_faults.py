"""`fargate` where things go wrong: lost answers, throttles, no capacity, tasks that never start."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract import container, exit_of, find, identity, is_running, log, until, workload
from fargate_kit import Cloud, FargateBench, HelpedBench, helper  # noqa: F401 - a fixture
from support.channels import PATIENCE, soon

from adapters.fargate import Adapter, names
from adapters.fargate.definitions import _CONTENT
from adapters.fargate.store import Kept
from adapters.simulators.aws import Settings
from bridge.errors import BridgeError
from bridge.groups.pods import mark as mark_of
from bridge.workload import EnvVar, HelperUse, Observed, PullCredential, Waiting, Workload

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[FargateBench]:
    made = FargateBench(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def helped(tmp_path: Path) -> AsyncIterator[HelpedBench]:
    made = HelpedBench(tmp_path)
    yield made
    await made.close()


def once(path: Path, code: int = 0) -> Workload:
    """A pod that writes down that it ran."""
    return workload(container("sh", "-c", f"echo ran >> {path}; exit {code}"))


async def calls(bench: FargateBench, action: str) -> int:
    """How often that was called."""
    return int((await bench.cloud.ledger())["calls"]["byAction"].get(action, 0))


async def ended(adapter: Adapter, pod: Workload) -> tuple[str, Kept]:
    """It runs to its end; its task, and its order as that was kept."""
    await adapter.run(pod)
    await exit_of(adapter, pod.identity)
    known = adapter._pods.of(pod.identity)
    assert known is not None
    assert known.kept is not None
    return known.arn, known.kept


def told(task: dict[str, Any]) -> dict[str, Any]:
    """A task as its event tells of it."""
    return {key: str(one) if key.endswith("At") else one for key, one in task.items()}


def waits_for(reason: str) -> Any:
    def true(observed: Observed) -> bool:
        state = observed.containers[0].state
        return isinstance(state, Waiting) and state.reason == reason

    return true


async def test_a_lost_answer_is_looked_up(bench: FargateBench, tmp_path: Path) -> None:
    adapter = await bench.adapter()
    await bench.cloud.fault("lost", action="RunTask", times=2)
    pod = once(tmp_path / "ran", 3)
    await adapter.run(pod)
    assert (await exit_of(adapter, pod.identity)).code == 3
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert len(await adapter._tasks.all()) == 1


async def test_a_refusal_says_nothing_of_the_call_before_it(
    bench: FargateBench, tmp_path: Path
) -> None:
    """That one's answer was lost, and no list has its task yet."""
    adapter = await bench.adapter()
    # Some seconds for whoever waits: longer than the next two calls take.
    await bench.cloud.fault("stale", seconds=800.0, times=1)
    await bench.cloud.fault("lost", action="RunTask", times=1)
    pod = once(tmp_path / "ran", 3)
    await adapter.run(pod)

    async def ran() -> bool:
        return (tmp_path / "ran").exists()

    await soon(ran)
    await bench.cloud.fault("throttle", action="RunTask", times=1)
    assert (await exit_of(adapter, pod.identity)).code == 3
    assert (tmp_path / "ran").read_text() == "ran\n"


async def test_an_event_that_comes_while_its_order_is_being_read(
    bench: FargateBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes once it is written down, and is told all the same."""
    first = await bench.adapter()
    pod = once(tmp_path / "ran", 7)
    arn, kept = await ended(first, pod)
    task: Any = {}

    async def has_stopped() -> bool:
        (said,) = (await first._tasks.describe([arn])).values()
        task.update(said)
        return bool(task["lastStatus"] == "STOPPED")

    await soon(has_stopped)
    await bench.vanish(first, pod.identity)
    again = await bench.adapter()
    read, was_read, may_go_on = again._store.read, asyncio.Event(), asyncio.Event()

    async def slow(mark: str) -> Any:
        found = await read(mark)
        was_read.set()
        await may_go_on.wait()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(again._store, "read", slow)
        listing = asyncio.create_task(again.list())
        await was_read.wait()
    mark = mark_of(pod.identity.key)
    await again._ends.heard(mark, kept.order.nonce, told(task))
    may_go_on.set()
    await listing
    assert (await exit_of(again, pod.identity)).code == 7


async def test_an_end_that_was_told_outlives_the_task(bench: FargateBench, tmp_path: Path) -> None:
    """The event has left the queue, and ECS has forgotten the task before anybody is back."""
    await bench.cloud.open()
    first = await bench.adapter(queue_url=bench.cloud.options["queue_url"])
    pod = once(tmp_path / "ran", 7)
    await ended(first, pod)
    mark = mark_of(pod.identity.key)

    async def is_kept() -> bool:
        kept = await first._store.read(mark)
        return kept is not None and kept.order.end is not None

    await soon(is_kept)
    await bench.vanish(first, pod.identity)
    await first.close()
    again = await bench.adapter()
    assert (await exit_of(again, pod.identity)).code == 7
    assert (tmp_path / "ran").read_text() == "ran\n"


async def test_the_event_of_an_end_may_come_twice_and_late(
    bench: FargateBench, tmp_path: Path
) -> None:
    """Also after the pod is gone: nothing comes of it then."""
    adapter = await bench.adapter()
    pod = once(tmp_path / "ran", 7)
    arn, before = await ended(adapter, pod)
    mark, nonce = mark_of(pod.identity.key), before.order.nonce
    (task,) = (await adapter._tasks.describe([arn])).values()
    detail = {**told(task), "lastStatus": "STOPPED"}
    await asyncio.gather(*(adapter._ends.heard(mark, nonce, detail) for _ in range(3)))
    kept = await adapter._store.read(mark)
    assert kept is not None
    assert kept.order.end is not None
    known = adapter._pods.of(pod.identity)
    assert known is not None
    assert known.kept == kept
    await adapter.delete(pod.identity)
    await adapter._ends.heard(mark, nonce, detail)
    assert await adapter._store.read(mark) is None


async def test_a_definition_that_was_deregistered_is_registered_anew(
    bench: FargateBench, tmp_path: Path
) -> None:
    """Known to the provider as it is, and in the order of a pod that waits for its turn."""
    adapter = await bench.adapter()
    first, second = once(tmp_path / "first"), once(tmp_path / "second", 3)
    await adapter.run(first)
    await exit_of(adapter, first.identity)
    pod = adapter._pods.of(first.identity)
    assert pod is not None
    assert pod.kept is not None
    arn = pod.kept.order.definition
    await adapter._clients.call("ecs", "deregister_task_definition", taskDefinition=arn)
    await adapter.run(second)
    assert (await exit_of(adapter, second.identity)).code == 3
    assert (tmp_path / "second").read_text() == "ran\n"


async def test_an_order_that_nobody_can_read_holds_up_no_other(
    bench: FargateBench,
) -> None:
    first = await bench.adapter()
    other, pod = bench.endless(), bench.endless()
    for one in (other, pod):
        await bench.launch(first, one)
        await until(first, one.identity, is_running)
    mark = first._pods.of(other.identity).mark
    await first._store._put(names.order_key(first._options.owner, mark), b"{")
    await first.close()
    again = await bench.adapter(discover=0.001)
    for _ in range(3):
        assert [one.identity.uid for one in await again.list()] == [pod.identity.uid]
    assert len(await again._tasks._listed(desiredStatus="RUNNING")) == 2


async def test_a_lost_answer_of_a_task_that_never_started(
    bench: FargateBench, tmp_path: Path
) -> None:
    """By the time that it is found it has stopped, and nobody looks at it again."""
    adapter = await bench.adapter()
    await bench.cloud.fault("lost", action="RunTask", times=1)
    program = tmp_path / "program"
    pod = workload(container(str(program)))
    await adapter.run(pod)

    def failed(observed: Observed) -> bool:
        (one,) = observed.containers
        return isinstance(one.state, Waiting) and one.state.reason == "CreateContainerError"

    await until(adapter, pod.identity, failed)
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    assert (await exit_of(adapter, pod.identity)).code == 3


async def test_a_provider_that_dies_while_it_launches(bench: FargateBench, tmp_path: Path) -> None:
    first = await bench.adapter()
    await bench.cloud.fault("lost", action="RunTask", times=1)
    pod = once(tmp_path / "ran")
    await first.run(pod)

    async def asked() -> bool:
        return bool(await first._tasks.all())

    await soon(asked)
    await first.close()
    again = await bench.adapter()
    await again.run(pod)
    await exit_of(again, pod.identity)
    assert (tmp_path / "ran").read_text() == "ran\n"


@pytest.mark.parametrize("use", [HelperUse.NEVER, HelperUse.ALWAYS])
async def test_a_task_that_was_asked_for_by_another_configuration(
    bench: FargateBench, tmp_path: Path, use: HelperUse
) -> None:
    """The same token in other words is refused, and the refusal names the task, which has stopped:
    no list by `startedBy` has it."""
    first = await bench.adapter(helper=use)
    await bench.cloud.fault("lost", action="RunTask", times=1)
    pod = once(tmp_path / "ran", 3)
    await first.run(pod)

    async def has_stopped() -> bool:
        tasks = (await first._tasks.describe(sorted(await first._tasks.all()))).values()
        return [one["lastStatus"] for one in tasks] == ["STOPPED"]

    await soon(has_stopped)
    await first.close()
    before = await calls(bench, "ecs:RunTask")
    again = await bench.adapter(helper=use, tags={"team": "other"})
    await again.run(pod)

    async def is_found() -> bool:
        known = again._pods.of(pod.identity)
        return known is not None and known.task is not None

    await soon(is_found)
    assert (await exit_of(again, pod.identity)).code == 3
    assert await calls(bench, "ecs:RunTask") == before + 1
    errors = (await bench.cloud.ledger())["calls"]["errors"]
    assert errors["ecs:RunTask ConflictException"] == 1
    assert (tmp_path / "ran").read_text() == "ran\n"


async def test_throttles_that_the_sdk_does_not_know(bench: FargateBench) -> None:
    adapter = await bench.adapter()
    for action, flavour in (
        ("RunTask", "rate"),
        ("RunTask", "ec2"),
        ("RegisterTaskDefinition", "concurrent-revision"),
    ):
        await bench.cloud.fault("throttle", action=action, flavour=flavour, times=1)
    pod = bench.brief(5)
    await adapter.run(pod)
    assert (await exit_of(adapter, pod.identity)).code == 5


async def test_errors_of_the_server(bench: FargateBench, tmp_path: Path) -> None:
    adapter = await bench.adapter()
    await bench.cloud.fault("error", service="ecs", action="*", probability=0.3, times=6)
    pod = once(tmp_path / "ran", 4)
    await adapter.run(pod)
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                assert (await exit_of(adapter, pod.identity)).code == 4
                break
            except BridgeError:
                continue  # The provider lists again.
    assert (tmp_path / "ran").read_text() == "ran\n"


async def test_no_capacity_is_said_and_the_next_subnet_asked(bench: FargateBench) -> None:
    adapter = await bench.adapter()
    await bench.cloud.fault("no-capacity", times=3)
    pod = bench.brief(0)
    await adapter.run(pod)
    found = await until(adapter, pod.identity, waits_for("OutOfCapacity"))
    state = found.containers[0].state
    assert isinstance(state, Waiting)
    assert "subnet-" in state.message
    assert (await exit_of(adapter, pod.identity)).code == 0


async def test_a_full_subnet_leads_to_the_next(tmp_path: Path) -> None:
    full, free = "subnet-0123456789abcdef0", "subnet-0123456789abcdef1"
    bench = FargateBench(tmp_path, Cloud(Settings(subnets={full: 1, free: 20})))
    try:
        adapter = await bench.adapter()
        pods = [bench.endless() for _ in range(4)]
        for pod in pods:
            await adapter.run(pod)
        for pod in pods:
            await until(adapter, pod.identity, is_running)
    finally:
        await bench.close()


async def test_a_task_that_never_starts_is_replaced(bench: FargateBench, tmp_path: Path) -> None:
    adapter = await bench.adapter(start_deadline=1)
    await bench.cloud.fault("never-starts", times=1)
    pod = once(tmp_path / "ran", 6)
    await adapter.run(pod)
    assert (await exit_of(adapter, pod.identity)).code == 6
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert len(await adapter._tasks.all()) == 2
    # Who comes later takes the dead one for what it is.
    onlooker = await bench.adapter()
    assert (await exit_of(onlooker, pod.identity)).code == 6


async def test_spot_takes_a_pod_away(bench: FargateBench) -> None:
    adapter = await bench.adapter()
    pod = workload(
        container("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"),
        annotations={"podbridge.io/capacity-type": "spot"},
        grace=1,
    )
    await bench.cloud.fault("spot-reclaim", seconds=60, times=1)
    await adapter.run(pod)
    observed = await until(adapter, pod.identity, lambda one: one.ended and one.disrupted)
    assert (observed.failed, observed.reason) == (True, "SpotInterruption")
    onlooker = await bench.adapter()
    assert (await until(onlooker, pod.identity, lambda one: one.ended)).disrupted


async def test_one_registration_for_all_pods_of_a_template(helped: HelpedBench) -> None:
    adapter = await helped.adapter()
    pods = [
        workload(container("sh", "-c", f"echo {n}", env={"INDEX": str(n)}), labels={"n": str(n)})
        for n in range(12)
    ]
    for pod in pods:
        await adapter.run(pod)
    for pod in pods:
        assert (await exit_of(adapter, pod.identity)).code == 0
    assert await calls(helped, "ecs:RegisterTaskDefinition") == 1
    again = await helped.adapter()
    pod = workload(container("sh", "-c", "exit 2"))
    await again.run(pod)
    assert (await exit_of(again, pod.identity)).code == 2
    assert await calls(helped, "ecs:RegisterTaskDefinition") == 1


def secretive() -> Workload:
    one = replace(
        container("sh", "-c", "test ${#WORD} = 7 && exec sleep 1000"),
        env=(EnvVar("WORD", "hunter2", secret=True),),
        image="registry.example/team/app:1",
    )
    return workload(one, pull_credentials=(PullCredential("registry.example", "me", "s3same"),))


@pytest.mark.parametrize("use", [HelperUse.ALWAYS, HelperUse.NEVER])
async def test_secrets_leave_with_the_pod(bench: FargateBench, use: HelperUse) -> None:
    adapter = await bench.adapter(helper=use)
    pods = [secretive(), secretive()]
    for pod in pods:
        await adapter.run(pod)
    for pod in pods:
        await until(adapter, pod.identity, is_running)

    async def payloads_are_gone() -> bool:
        return not await adapter._store.payloads()

    await soon(payloads_are_gone)
    await _nothing_secret(adapter)
    names = await _secrets(adapter)
    assert len(names) == 1
    await adapter.delete(pods[0].identity)
    assert await _secrets(adapter) == names
    again = await bench.adapter(helper=use)
    await again.list()
    await again.delete(pods[1].identity)
    assert await _secrets(adapter) == []


async def _secrets(adapter: Adapter) -> list[str]:
    found = await adapter._clients.call("secretsmanager", "list_secrets")
    return [one["Name"] for one in found["SecretList"]]


async def _nothing_secret(adapter: Adapter) -> None:
    """In what anybody in the account can read."""
    tasks = await adapter._tasks.describe(sorted(await adapter._tasks.all()))
    told = [tasks]
    for one in tasks.values():
        told.append(
            await adapter._clients.call(
                "ecs", "describe_task_definition", taskDefinition=one["taskDefinitionArn"]
            )
        )
    for mark in await adapter._store.marks():
        kept = await adapter._store.read(mark)
        assert kept is not None
        told.append({"order": repr(kept.order)})
    text = json.dumps(told, default=str)
    assert "hunter2" not in text
    assert "s3same" not in text


async def test_a_pod_gets_its_namespaces_role_and_no_other(bench: FargateBench) -> None:
    role = "arn:aws:iam::123456789012:role/reports"
    mapped = {"namespace": "team", "service_account": "reports", "task_role": role}
    adapter = await bench.adapter(identities=[mapped])
    wishes = {"eks.amazonaws.com/role-arn": role, "podbridge.io/task-role": role}
    roles: Counter[str] = Counter()
    for namespace, account in (("team", "reports"), ("team", "default"), ("other", "reports")):
        who = replace(identity(), namespace=namespace)
        pod = workload(
            container("sleep", "1000"), who=who, service_account=account, annotations=wishes
        )
        await adapter.run(pod)
        await until(adapter, who, is_running)
        found = adapter._pods.of(who)
        assert found is not None
        (task,) = (await adapter._tasks.describe([found.arn])).values()
        roles[task.get("overrides", {}).get("taskRoleArn", "")] += 1
    assert roles == {role: 1, "": 2}


async def test_the_hard_stop_of_a_bare_pod(bench: FargateBench) -> None:
    adapter = await bench.adapter()
    pod = replace(bench.endless(), hard_stop=0.5)
    await adapter.run(pod)

    async def ended() -> bool:
        found = await find(adapter, pod.identity)
        return found is not None and found.ended and found.reason == "DeadlineExceeded"

    await soon(ended)


async def test_an_order_too_old_is_given_up(bench: FargateBench, tmp_path: Path) -> None:
    first = await bench.adapter()
    await bench.cloud.fault("lost", action="RunTask", times=1)
    pod = once(tmp_path / "ran")
    await first.run(pod)
    await exit_of(first, pod.identity)
    await first.close()
    # The provider is away for longer than ECS knows the task, or its token.
    await bench.cloud.control("POST", "time", {"skip": 2 * 24 * 3600})
    again = await bench.adapter()
    kept = await again._store.read(next(iter(await again._store.marks())))
    assert kept is not None
    await again._store.change(kept, replace(kept.order, asked_at=kept.order.asked_at - 4000))
    observed = await until(again, pod.identity, lambda one: one.ended)
    assert (observed.disrupted, observed.reason) == (True, "ContainerStatusUnknown")
    await again.run(pod)
    await again.list()
    assert (tmp_path / "ran").read_text() == "ran\n"
    await again.delete(pod.identity)
    assert await again.list() == []


async def test_another_provider_deletes_what_has_ended(bench: FargateBench) -> None:
    first, second = await bench.adapter(discover=0.001), await bench.adapter()
    pod = bench.brief(1)
    await first.run(pod)
    await until(first, pod.identity, lambda one: one.ended)
    await second.delete(pod.identity)
    assert await find(first, pod.identity) is None
    assert await second.list() == []


async def test_events_come_by_the_queue(tmp_path: Path) -> None:
    bench = FargateBench(tmp_path)
    try:
        await bench.cloud.open()
        adapter = await bench.adapter(queue_url=bench.cloud.options["queue_url"], poll=3600)
        pod = bench.brief(3)
        seen = asyncio.Event()

        async def watch() -> None:
            async for observed in adapter.events():
                if observed.identity == pod.identity and observed.ended:
                    seen.set()

        watching = asyncio.create_task(watch())
        await adapter.run(pod)
        async with asyncio.timeout(PATIENCE):
            await seen.wait()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    finally:
        await bench.close()


async def test_many_lines_at_one_time_are_all_there(bench: FargateBench) -> None:
    adapter = await bench.adapter()
    pod = workload(container("seq", "30000"))
    await bench.cloud.fault("empty-page", probability=0.5)
    await adapter.run(pod)
    await exit_of(adapter, pod.identity)
    whole = b"".join(b"%d\n" % one for one in range(1, 30001))
    assert await log(adapter, pod.identity) == whole
    assert await log(adapter, pod.identity, tail_lines=3) == b"29998\n29999\n30000\n"
    assert await log(adapter, pod.identity, follow=True, tail_lines=2) == b"29999\n30000\n"


async def test_no_call_is_throttled(bench: FargateBench) -> None:
    adapter = await bench.adapter()
    pods = [bench.brief(n % 3) for n in range(25)]
    for pod in pods:
        await adapter.run(pod)
    for pod in pods:
        await exit_of(adapter, pod.identity)
    assert (await bench.cloud.ledger())["calls"]["throttled"] == {}


async def test_deleting_what_nobody_knows_is_one_search_for_all(bench: FargateBench) -> None:
    adapter = await bench.adapter()
    before = (await bench.cloud.ledger())["calls"]["byAction"].get("ecs:ListTasks", 0)
    await asyncio.gather(*(adapter.delete(identity()) for _ in range(50)))
    after = (await bench.cloud.ledger())["calls"]["byAction"]["ecs:ListTasks"]
    # Two calls a search: one that was under way, and one for who came meanwhile.
    assert after - before <= 4


async def test_a_definition_that_somebody_else_registered_is_not_used(
    bench: FargateBench, tmp_path: Path
) -> None:
    """Under the name that is ours by its content, which is another's by now."""
    adapter = await bench.adapter()
    first, second = once(tmp_path / "first"), once(tmp_path / "second")
    ours = (await ended(adapter, first))[1].order.definition
    call = adapter._clients.call
    said = (await call("ecs", "describe_task_definition", taskDefinition=ours))["taskDefinition"]
    names_ = ("family", *_CONTENT)
    planted = {name: said[name] for name in names_ if said.get(name)}
    planted["containerDefinitions"][0]["image"] = "attacker.example/evil:1"
    answer = await call("ecs", "register_task_definition", **planted)
    evil = answer["taskDefinition"]["taskDefinitionArn"]
    again = await bench.adapter()
    assert (await ended(again, second))[1].order.definition not in (ours, evil)


@pytest.mark.parametrize("use", [HelperUse.NEVER, HelperUse.ALWAYS])
async def test_a_provider_that_starts_anew_finds_its_definitions(
    helped: HelpedBench, tmp_path: Path, use: HelperUse
) -> None:
    for name in ("first", "second"):
        await ended(await helped.adapter(helper=use), once(tmp_path / name))
    assert await calls(helped, "ecs:RegisterTaskDefinition") == 1
