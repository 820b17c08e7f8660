"""`fargate`: what is decided without asking anybody."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore import exceptions as sdk
from contract import container, identity, workload
from pydantic import ValidationError

from adapters.fargate import (
    Options,
    access,
    choose,
    definition,
    environment,
    names,
    observe,
    order,
    sizes,
)
from adapters.fargate.check import check, wraps
from adapters.fargate.definition import Choices
from adapters.fargate.errors import Conflict, Refused, translated
from adapters.fargate.order import Order
from bridge.errors import (
    Ambiguous,
    Invalid,
    NotFound,
    OutOfCapacity,
    QuotaExceeded,
    Throttled,
    Unauthorized,
    Unavailable,
)
from bridge.groups.choose import ARCHITECTURE
from bridge.groups.pods import Made
from bridge.groups.pods import mark as mark_of
from bridge.helper.payload import Settings
from bridge.helper.wrap import bare, wrap
from bridge.workload import (
    Claim,
    EmptyDir,
    EnvVar,
    Exit,
    File,
    Files,
    HelperUse,
    Mount,
    PullCredential,
    Resources,
    Role,
    Running,
    Security,
    Waiting,
    Workload,
)

ROLE = "arn:aws:iam::123456789012:role/execution"
TASK_ROLE = "arn:aws:iam::123456789012:role/reports"
GIB = 2**30


def options(**more: Any) -> Options:
    given = {
        "bucket": "pods",
        "subnets": ["subnet-01234567", "subnet-89abcdef"],
        "security_groups": ["sg-01234567"],
        "execution_role": ROLE,
        "helper_image": "registry.example/helper:1",
    }
    return Options(**(given | more))


def test_every_size_is_one_that_fargate_documents() -> None:
    for cpu, amounts in sizes.TABLE.items():
        assert list(amounts) == sorted(set(amounts))
        assert amounts[0] >= cpu * 1.8, "about two GiB a vCPU at least"
        assert all(one % 1024 == 0 or (cpu, one) == (256, 512) for one in amounts)
    assert list(sizes.TABLE) == sorted(sizes.TABLE)


def test_the_size_is_the_smallest_that_holds_it() -> None:
    for cpu in range(0, 33000, 250):
        for memory in (0, 1, 512 * 2**20, 3 * GIB, 29 * GIB + 1, 61 * GIB, 200 * GIB):
            found = sizes.fit(cpu, memory)
            if found is None:
                assert cpu > 32000 or memory > 244 * GIB or cpu * 1024 > 32768 * 1000
                continue
            assert found.memory in sizes.TABLE[found.cpu]
            assert found.cpu * 1000 >= cpu * 1024
            assert found.memory * 2**20 >= memory
            smaller = [
                (c, m)
                for c, amounts in sizes.TABLE.items()
                for m in amounts
                if c * 1000 >= cpu * 1024 and m * 2**20 >= memory and c <= found.cpu
                if (c, m) < (found.cpu, found.memory)
            ]
            assert smaller == []


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [
        (0, 0, "0.25 vCPU, 0.5 GiB"),
        (250, 512 * 2**20, "0.25 vCPU, 0.5 GiB"),
        (250, 512 * 2**20 + 1, "0.25 vCPU, 1 GiB"),
        (251, 0, "0.5 vCPU, 1 GiB"),
        (100, 7 * GIB, "1 vCPU, 7 GiB"),
        (4000, 30 * GIB + 1, "8 vCPU, 32 GiB"),
        (16000, 121 * GIB, "32 vCPU, 244 GiB"),
    ],
)
def test_sizes(cpu: int, memory: int, expected: str) -> None:
    assert str(sizes.fit(cpu, memory)) == expected


@pytest.mark.parametrize(
    ("gib", "expected"), [(0, 0), (20, 0), (20.5, 21), (150, 150), (200, 200), (201, None)]
)
def test_storage(gib: float, expected: int | None) -> None:
    assert sizes.storage(int(gib * GIB)) == expected


def launched(pod: Workload, made: Workload | None = None, **more: Any) -> definition.Launch:
    made = made or bare(pod)
    images = {one.name: one.image for one in made.containers}
    size = sizes.fit(0, 0)
    assert size is not None
    choices = Choices(size, 0, "amd64", images, region="eu-central-1", **more)
    return definition.launch(made, mark_of(pod.identity.key), options(), choices)


def helped(pod: Workload) -> definition.Launch:
    return launched(pod, wrap(pod, {}, Settings(b"k" * 32), "helper:1"))


def test_pods_of_one_template_share_a_definition() -> None:
    pods = [
        workload(
            container("sh", "-c", f"echo {index}", env={"JOB_COMPLETION_INDEX": str(index)}),
            labels={"index": str(index)},
        )
        for index in range(20)
    ]
    for make in (launched, helped):
        made = [make(pod) for pod in pods]
        assert len({names.family("podbridge", one.definition) for one in made}) == 1
        assert len({json.dumps([one.overrides, sorted(one.payloads)]) for one in made}) == 20


def test_what_differs_in_kind_has_another_definition() -> None:
    pod = workload(container("sleep", "1"))
    one = pod.containers[0]
    others = [
        replace(pod, containers=(replace(one, image="other"),)),
        replace(pod, containers=(replace(one, command=("true",)),)),
        replace(pod, containers=(replace(one, security=Security(run_as_user=5)),)),
        replace(pod, grace=77),
        replace(pod, share_processes=True),
    ]
    families = {names.family("o", launched(each).definition) for each in (pod, *others)}
    assert len(families) == 6


def test_a_bare_pods_words_are_split() -> None:
    made = launched(workload(container("sh", "-c", "exit 3", args=("x",), env={"A": "b"})))
    (one,) = made.definition["containerDefinitions"]
    assert one["entryPoint"] == ["sh"]
    assert "command" not in one
    assert "environment" not in one
    assert made.overrides == (
        {
            "name": "main",
            "command": ["-c", "exit 3", "x"],
            "environment": [{"name": "A", "value": "b"}],
        },
    )
    assert made.payloads == {}


def test_arguments_alone_replace_the_images() -> None:
    made = launched(workload(container(args=("-v",))))
    assert "entryPoint" not in made.definition["containerDefinitions"][0]
    assert made.overrides == ({"name": "main", "command": ["-v"]},)


def test_what_no_override_holds_is_in_a_definition_of_its_own() -> None:
    made = launched(workload(container("sh", "-c", "x" * 9000)))
    assert made.definition["containerDefinitions"][0]["command"] == ["-c", "x" * 9000]
    assert made.overrides == ()


def test_a_large_environment_is_an_object() -> None:
    env = {f"NAME{index}": "x" * 200 for index in range(100)} | {"LINES": "a\nb", "EMPTY": ""}
    made = launched(workload(container("true", env=env)))
    ((key, content),) = made.payloads.items()
    assert len(json.dumps(made.overrides)) < definition.OVERRIDES
    lines = content.decode().splitlines()
    assert len(lines) == 100
    (override,) = made.overrides
    assert override["environmentFiles"] == [{"value": f"arn:aws:s3:::pods/{key}", "type": "s3"}]
    assert {one["name"] for one in override["environment"]} == {"LINES", "EMPTY"}


def secretive() -> Workload:
    one = replace(
        container("sh", "-c", "echo hunter2"),
        env=(EnvVar("PASSWORD", "hunter2", secret=True), EnvVar("PLAIN", "p")),
        mounts=(Mount("keys", "/keys"),),
        secret_words=("command[2]",),
    )
    files = Files("keys", (File("key", b"hunter2", secret=True),), "1")
    return workload(one, volumes=[files])


def test_no_secret_is_in_what_can_be_read_back() -> None:
    made = helped(secretive())
    assert "hunter2" not in json.dumps([made.definition, made.overrides])
    assert "hunter2" not in repr(made)
    pod = secretive()
    plain = replace(pod.containers[0], command=("env",), secret_words=(), mounts=())
    bare_one = launched(replace(pod, containers=(plain,), volumes=()))
    assert "hunter2" not in json.dumps([bare_one.definition, bare_one.overrides])
    assert list(bare_one.payloads.values()) == [b"PASSWORD=hunter2\n"]


def test_the_helper_is_around_the_pod() -> None:
    pod = workload(
        container("true", name="first", role=Role.INIT),
        container("sleep", "1", mounts=[Mount("work", "/work")], working_dir="/work"),
        volumes=[EmptyDir("work")],
        grace=100,
    )
    made = helped(pod).definition
    by_name = {one["name"]: one for one in made["containerDefinitions"]}
    assert list(by_name) == ["podbridge-install", "first", "main", "podbridge-watch"]
    assert [one["essential"] for one in by_name.values()] == [False, False, False, True]
    assert by_name["main"]["entryPoint"] == ["/podbridge/helper", "run"]
    assert by_name["main"]["stopTimeout"] == 105
    assert "workingDirectory" not in by_name["main"]
    install = [{"containerName": "podbridge-install", "condition": "SUCCESS"}]
    assert [one.get("dependsOn") for one in by_name.values()] == [None, install, install, install]
    assert all(one["logConfiguration"]["options"]["mode"] == "blocking" for one in by_name.values())
    assert {"name": "work", "host": {}} in made["volumes"]


def test_only_the_first_container_writes_the_helpers_program() -> None:
    pod = workload(container("true", name="first", role=Role.INIT), container("true"))
    made = helped(pod).definition
    mounts = {
        one["name"]: {m["sourceVolume"]: (m["containerPath"], m["readOnly"]) for m in points}
        for one in made["containerDefinitions"]
        if (points := one["mountPoints"])
    }
    board = {"podbridge-board": ("/podbridge-board", False)}
    own = {"podbridge-helper": ("/podbridge", True)}
    assert mounts == {
        "podbridge-install": {**board, "podbridge-helper": ("/podbridge", False)},
        "first": {**board, **own},
        "main": {**board, **own},
        "podbridge-watch": board,
    }


def test_payload_lines_are_short_enough() -> None:
    files = Files("big", (File("f", bytes(range(256)) * 4096),), "1")
    pod = workload(container("true", mounts=[Mount("big", "/big")]), volumes=[files])
    for content in helped(pod).payloads.values():
        assert all(len(line) <= 32 * 1024 for line in content.splitlines())


def test_claims_are_file_systems() -> None:
    mapped = {
        "namespace": "default", "claim": "data", "file_system": "fs-01234567",
        "access_point": "fsap-01234567",
    }  # fmt: skip
    pod = workload(
        container("true", mounts=[Mount("disk", "/data")]), volumes=[Claim("disk", "data")]
    )  # type: ignore[list-item]
    size = sizes.fit(0, 0)
    assert size is not None
    choices = Choices(size, 0, "amd64", {"main": "i"}, region="r")
    made = definition.launch(bare(pod), "m", options(claims=[mapped]), choices)
    assert made.definition["volumes"] == [
        {
            "name": "disk",
            "efsVolumeConfiguration": {
                "fileSystemId": "fs-01234567",
                "transitEncryption": "ENABLED",
                "authorizationConfig": {"iam": "DISABLED", "accessPointId": "fsap-01234567"},
            },
        }
    ]
    assert check(pod, options(claims=[mapped])) == []
    (refused,) = check(pod, options())
    assert refused.field == "spec.volumes[0].persistentVolumeClaim.claimName"


@pytest.mark.parametrize(
    ("security", "user", "capabilities"),
    [
        (Security(), None, None),
        (Security(run_as_user=1000), "1000", None),
        (Security(run_as_user=1000, run_as_group=3), "1000:3", None),
        (Security(run_as_user=1000, fs_group=5), "0:0", None),
        (Security(drop_capabilities=("CAP_KILL",)), None, {"drop": ["KILL"]}),
    ],
)
def test_users_and_capabilities(
    security: Security, user: str | None, capabilities: dict[str, Any] | None
) -> None:
    found = helped(workload(container("true", security=security)))
    made = {one["name"]: one for one in found.definition["containerDefinitions"]}["main"]
    assert made.get("user") == user
    assert made.get("linuxParameters", {}).get("capabilities") == capabilities


def test_roles_and_networks_are_the_configurations() -> None:
    given = options(
        identities=[
            {"namespace": "team", "service_account": "reports", "task_role": TASK_ROLE},
            {"namespace": "team", "security_groups": ["sg-aaaaaaaa"]},
        ]
    )

    def of(namespace: str, account: str, **more: Any) -> choose.Given:
        who = replace(identity(), namespace=namespace)
        return choose.given(workload(who=who, service_account=account, **more), given)

    assert of("team", "reports").task_role == TASK_ROLE
    assert of("team", "other").task_role == ""
    assert of("team", "other").security_groups == ("sg-aaaaaaaa",)
    assert of("other", "reports") == choose.Given("", given.subnets, ("sg-01234567",))
    # Nothing that a pod says of itself makes it another one.
    wishes = {
        "eks.amazonaws.com/role-arn": TASK_ROLE,
        "podbridge.io/task-role": TASK_ROLE,
        "podbridge.io/subnets": "subnet-ffffffff",
        "podbridge.io/security-groups": "sg-ffffffff",
    }
    assert of("other", "reports", annotations=wishes, labels=wishes) == of("other", "reports")


def test_commands_go_through_aws_only_where_that_can_be() -> None:
    role, none = (choose.Given(one, (), ()) for one in (TASK_ROLE, ""))
    tunnel = {"address": "provider.example"}

    def takes(mine: choose.Given, *, wrapped: bool = False, **more: Any) -> bool:
        return choose.takes_commands(mine, options(**more), wrapped=wrapped)

    assert not takes(role)
    assert takes(role, execute_command=True)
    assert not takes(none, execute_command=True)
    assert takes(role, execute_command=True, wrapped=True)
    assert not takes(role, execute_command=True, wrapped=True, tunnel=tunnel)
    assert takes(role, execute_command=True, tunnel=tunnel)


def test_what_commands_take_is_among_the_permissions() -> None:
    def actions(**more: Any) -> set[str]:
        grants = access.provider(options(**more), "eu-central-1")
        return {action for one in grants for action in one.actions}

    more = actions(execute_command=True) - actions()
    assert more == {"ecs:ExecuteCommand", "ssm:TerminateSession"}


def test_a_machine_that_fargate_has_not_is_refused() -> None:
    wrong = replace(workload(container("true")), node_selector={ARCHITECTURE: "s390x"})
    (found,) = check(wrong, options())
    assert found.field == "spec.nodeSelector[kubernetes.io/arch]"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"security": Security(privileged=True)}, "securityContext.privileged"),
        ({"security": Security(add_capabilities=("NET_ADMIN",))}, "capabilities.add[0]"),
        ({"security": Security(seccomp="Unconfined")}, "seccompProfile.type"),
        ({"mounts": [Mount("work", "/w", "part")]}, "volumeMounts[0].subPath"),
        ({"resources": Resources({"nvidia.com/gpu": 1})}, "requests[nvidia.com/gpu]"),
        ({"resources": Resources({"cpu": 40000})}, "resources.requests"),
        ({"resources": Resources({"ephemeral-storage": 300 * GIB})}, "ephemeral-storage]"),
    ],
)
def test_what_cannot_be_is_refused_by_field(more: dict[str, Any], field: str) -> None:
    pod = workload(container("true", **more), volumes=[EmptyDir("work")])
    (found,) = check(pod, options())
    assert found.field.endswith(field)


def test_what_only_the_helper_can_do() -> None:
    plain = workload(container("true"))
    assert not wraps(plain, options())
    needy = [
        replace(plain.containers[0], secret_words=("command[0]",)),
        replace(plain.containers[0], env=(EnvVar("A", "x\ny", secret=True),)),
        replace(plain.containers[0], security=Security(no_new_privileges=True)),
        replace(plain.containers[0], stop_signal="SIGUSR1"),
    ]
    for one in needy:
        pod = replace(plain, containers=(one,))
        assert wraps(pod, options())
        assert check(pod, options()) == []
        assert check(replace(pod, helper=HelperUse.NEVER), options()) != []
        assert "helper_image" in check(pod, options(helper_image=""))[0].message


def test_no_secret_line_is_lost_in_an_object() -> None:
    wrong = [EnvVar("A", "x\ny", secret=True), EnvVar("#B", "c", secret=True)]
    one = replace(container("true"), env=tuple(wrong))
    with pytest.raises(Invalid) as caught:
        environment.split(one, 8000)
    assert len(caught.value.violations) == 2
    assert "x\ny" not in str(caught.value)


def the_order(**more: Any) -> Order:
    made = Order(
        identity(), 1000.5, (Made("main", "i"),), "arn:definition", ({"name": "main"},),
        subnets=("subnet-a", "subnet-b"), security_groups=("sg-a",), nonce="12345678",
    )  # fmt: skip
    return replace(made, **more).again("token", 2000.0)


def test_an_order_survives() -> None:
    one = the_order(spot=True, hard_stop=5.0, payloads=("p",), logins=("l",))
    assert order.load(order.dump(one)) == one
    for damaged in (b"", b"[]", b'{"version":2}', order.dump(one)[:-9]):
        with pytest.raises(Invalid):
            order.load(damaged)


def test_the_same_order_asks_for_the_same() -> None:
    one = the_order()
    settings = {"platformVersion": "LATEST", "public_ip": "DISABLED"}
    asked = order.request(one, "podbridge", settings)
    assert asked == order.request(order.load(order.dump(one)), "podbridge", settings)
    assert len(asked["startedBy"]) <= 128
    assert asked["capacityProviderStrategy"] == [{"capacityProvider": "FARGATE", "weight": 1}]
    assert "launchType" not in asked
    assert "enableExecuteCommand" not in asked
    commanded = order.request(replace(one, execute_command=True), "podbridge", settings)
    assert commanded == asked | {"enableExecuteCommand": True}
    other = one.again("other", 3000.0, subnet=1)
    subnets = [
        order.request(each, "podbridge", settings)["networkConfiguration"]["awsvpcConfiguration"][
            "subnets"
        ]
        for each in (one, other)
    ]
    assert subnets == [["subnet-a"], ["subnet-b"]]


def test_a_task_names_its_order() -> None:
    one = the_order()
    started = order.started_by(one, "podbridge")
    assert names.mark_of("podbridge", started) == (mark_of(one.identity.key), "12345678")
    assert names.mark_of("other", started) == ("", "")
    assert names.mark_of("podbridge", "ecs-svc/123") == ("", "")


AT = datetime(2026, 1, 2, tzinfo=UTC)


def task(status: str, *containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "taskArn": "arn:aws:ecs:r:1:task/c/abc",
        "lastStatus": status,
        "desiredStatus": "RUNNING",
        "createdAt": AT,
        "containers": list(containers),
        **more,
    }


def state_of(said: dict[str, Any], *, warned: bool = False) -> Any:
    return observe.group(the_order(), said, warned=warned).containers[0].state


@pytest.mark.parametrize("status", ["DEPROVISIONING", "STOPPED"])
def test_the_hard_stop_is_told_with_the_end(status: str) -> None:
    """A pod's end is told before its task has let go of everything."""
    main = {"name": "main", "lastStatus": "STOPPED", "exitCode": 143}
    times = dict.fromkeys(("startedAt", "executionStoppedAt"), AT)
    said = task(status, main, **times, stoppedReason=observe.HARD_STOP)
    found = observe.group(the_order(), said, warned=False)
    assert (found.reason, found.message) == ("DeadlineExceeded", observe.HARD_STOP)


def test_a_missing_code_is_no_success() -> None:
    said = task("STOPPED", {"name": "main"}, stoppedAt=AT, startedAt=AT)
    found = state_of(said)
    assert isinstance(found, Exit)
    assert (found.code, found.reason) == (137, "ContainerStatusUnknown")
    empty = state_of(task("STOPPED", stoppedAt=AT, startedAt=AT))
    assert empty.code == 137


def test_states() -> None:
    assert isinstance(state_of(task("PROVISIONING", {"name": "main"})), Waiting)
    running = task("RUNNING", {"name": "main", "lastStatus": "RUNNING"}, startedAt=AT)
    assert state_of(running) == Running(AT.timestamp())
    killed = task(
        "STOPPED",
        {"name": "main", "exitCode": 137, "reason": "OutOfMemoryError: container killed"},
        startedAt=AT,
        stoppedAt=AT,
    )
    assert state_of(killed).reason == "OOMKilled"


def test_spot_is_a_disruption_whatever_the_code() -> None:
    for code in (0, 143):
        said = task(
            "STOPPED", {"name": "main", "exitCode": code}, startedAt=AT, stoppedAt=AT,
            stopCode="SpotInterruption", stoppedReason="Your Spot Task was interrupted.",
        )  # fmt: skip
        found = observe.group(the_order(), said, warned=False)
        assert (found.failed, found.disrupted, found.reason) == (True, True, "SpotInterruption")
    # The warning was seen, and its last word is another one.
    said = task("STOPPED", {"name": "main", "exitCode": 0}, startedAt=AT, stoppedAt=AT)
    assert observe.group(the_order(), said, warned=True).disrupted


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"stopCode": "TaskFailedToStart"}, True),
        ({"stopCode": "UserInitiated", "stoppedReason": observe.LATE}, True),
        ({"stopCode": "UserInitiated", "stoppedReason": "by hand"}, False),
        ({"stopCode": "TaskFailedToStart", "startedAt": AT}, False),
        ({"stopCode": "SpotInterruption"}, True),
    ],
)
def test_only_what_never_started_is_launched_again(more: dict[str, Any], expected: bool) -> None:
    assert observe.never_started(task("STOPPED", **more)) is expected
    ran = task("STOPPED", {"name": "main", "exitCode": 0}, **more)
    assert not observe.never_started(ran)


def client_error(code: str, message: str = "", status: int = 400) -> sdk.ClientError:
    said = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return sdk.ClientError(said, "RunTask")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (client_error("ThrottlingException", "Rate exceeded"), Throttled),
        (client_error("ClientException", "Too many concurrent attempts to create"), Throttled),
        (client_error("InvalidParameterException", "x (ErrorCode: Throttling)"), Throttled),
        (client_error("AccessDeniedException"), Unauthorized),
        (client_error("ExpiredTokenException"), Unauthorized),
        (client_error("ClusterNotFoundException"), NotFound),
        (client_error("ClientException", "Unable to describe task definition."), NotFound),
        (client_error("ClientException", "Capacity is unavailable at this time."), OutOfCapacity),
        (client_error("InvalidParameterException", "no available IP addresses"), OutOfCapacity),
        (client_error("ClientException", "the limit on the number of vCPUs"), QuotaExceeded),
        (client_error("ConflictException"), Conflict),
        (client_error("InvalidParameterException", "No such role"), Refused),
        (client_error("ServerException", "", 500), Ambiguous),
        (sdk.ReadTimeoutError(endpoint_url="x"), Ambiguous),
        (sdk.ConnectionClosedError(endpoint_url="x"), Ambiguous),
        (sdk.EndpointConnectionError(endpoint_url="x"), Unavailable),
        (sdk.NoCredentialsError(), Unauthorized),
    ],
)  # fmt: skip
def test_errors(error: Exception, expected: type[Exception]) -> None:
    found = translated(error, "ecs:RunTask", changes=True)
    assert type(found) is expected
    assert not found.permanent
    if expected is Ambiguous:
        assert type(translated(error, "ecs:ListTasks", changes=False)) is Unavailable


def test_the_name_of_a_login_tells_nothing() -> None:
    login = PullCredential("registry.example", "me", "hunter2")
    name = names.secret("podbridge", b"k" * 32, login)
    assert name == names.secret("podbridge", b"k" * 32, replace(login))
    assert name != names.secret("podbridge", b"x" * 32, login)
    assert "hunter2" not in name


@pytest.mark.parametrize(
    "wrong",
    [
        {"subnets": []},
        {"subnets": ["subnet-1; drop"]},
        {"execution_role": "execution"},
        {"owner": "a/b"},
        {"identities": [{"namespace": "n", "task_role": "reports"}]},
        {"start_deadline": 0},
        {"unknown": 1},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        options(**wrong)


def test_sysctls_are_the_same_for_every_container_of_the_pod() -> None:
    sysctls = (("net.ipv4.tcp_syncookies", "0"), ("kernel.shm_rmid_forced", "1"))
    pod = replace(workload(container("true"), container("true", name="two")), sysctls=sysctls)
    assert check(pod, options()) == []
    made = {one["name"]: one for one in helped(pod).definition["containerDefinitions"]}
    wanted = [{"namespace": name, "value": value} for name, value in sorted(sysctls)]
    for name, one in made.items():
        assert one.get("systemControls", []) == ([] if name.startswith("podbridge-") else wanted)
