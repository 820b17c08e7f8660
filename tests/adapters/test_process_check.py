"""What `process` refuses before anything is made, by field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from contract import container, workload

from adapters.null import Adapter as Null
from adapters.process import Adapter
from adapters.process.capabilities import TABLE
from adapters.process.check import check, numbers
from adapters.process.zygote import Isolation
from bridge.adapter import Level
from bridge.provider.capabilities import lookup, merged, unclassified
from bridge.workload import EmptyDir, EnvVar, Mount, Role, Security, Workload

ROOT = Isolation("mount", "", 0, 0, frozenset({0}))
USER = Isolation("user", "", 1000, 1000, frozenset({1000, 27}))
BARE = Isolation("", "not permitted", 1000, 1000, frozenset({1000}))
PATH = "/usr/bin:/bin"
LISTS = ("containers", "initContainers", "ephemeralContainers")


def wrong(pod: Workload, isolation: Isolation = ROOT) -> dict[str, str]:
    return {one.field: one.message for one in check(pod, isolation, PATH)}


def test_every_field_of_a_pod_has_a_class() -> None:
    assert unclassified(merged(Adapter)) == []
    assert unclassified(merged(Null)) == []


def test_the_table_has_no_covers_and_gives_reasons() -> None:
    covers = {"spec", "spec.containers[]", "spec.initContainers[]", "spec.securityContext"}
    assert not covers & TABLE.keys()
    assert "spec.containers[].securityContext" not in TABLE
    for path, support in TABLE.items():
        assert bool(support.words) == (support.level is not Level.SUPPORTED), path


@pytest.mark.parametrize("probe", ["livenessProbe", "lifecycle.preStop", "startupProbe"])
def test_the_provider_probes_the_pod_itself(probe: str) -> None:
    table = merged(Adapter)
    for action in ("exec", "httpGet.path", "tcpSocket.port"):
        found = lookup(table, f"spec.containers[].{probe}.{action}")
        assert found is not None
        assert found.level is Level.SUPPORTED
    for action in ("httpGet", "tcpSocket"):
        found = lookup(table, f"spec.initContainers[].{probe}.{action}.host")
        assert found is not None
        assert found.level is Level.UNSUPPORTED


def test_containers_can_be_added_and_talked_to() -> None:
    table = merged(Adapter)
    paths = [f"spec.{one}[].{field}" for one in LISTS for field in ("stdin", "stdinOnce", "tty")]
    for path in (*paths, "spec.ephemeralContainers[].command"):
        found = lookup(table, path)
        assert found is not None
        assert found.level is Level.SUPPORTED, path
    found = lookup(table, "spec.ephemeralContainers[].targetContainerName")
    assert found is not None
    assert found.level is Level.APPROXIMATED


@pytest.mark.parametrize("isolation", [ROOT, USER, BARE])
def test_a_plain_pod_is_fine(isolation: Isolation) -> None:
    assert wrong(workload(container("true")), isolation) == {}
    assert wrong(workload(container("/bin/sh", "-c", "true")), isolation) == {}


def test_an_image_alone_is_refused_at_its_place() -> None:
    pod = workload(
        container("true", name="a", role=Role.INIT),
        container(name="b", role=Role.SIDECAR),
        container("true", name="c"),
        container(name="d"),
    )
    assert wrong(pod) == {
        "spec.initContainers[1].command": (
            "process runs no images: give spec.initContainers[1].command"
        ),
        "spec.containers[1].command": "process runs no images: give spec.containers[1].command",
    }


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-program", "'no-such-program' is not on this host's PATH"),
        ("/no/such/program", "'/no/such/program' does not exist"),
        ("/etc/passwd", "'/etc/passwd' is not executable"),
        ("./x", "'./x' does not exist"),
    ],
)
def test_commands_are_looked_up(command: str, words: str) -> None:
    found = wrong(workload(container(command)))
    assert words in found["spec.containers[0].command"]


def test_commands_in_volumes_pass() -> None:
    mounts = [Mount("v", "/tools")]
    volumes = [EmptyDir("v")]
    for command, more in (
        ("/tools/x", {}),
        ("./x", {"working_dir": "/tools/deep"}),
        ("x", {"env": {"PATH": "/tools/bin:/usr/bin"}}),
    ):
        pod = workload(container(command, mounts=mounts, **more), volumes=volumes)
        assert wrong(pod) == {}


def test_the_containers_own_path_counts() -> None:
    found = wrong(workload(container("true", env={"PATH": "/no-such"})))
    assert "/no-such" in found["spec.containers[0].command"]


def test_secrets_in_the_process_list_are_refused_and_never_shown() -> None:
    words = ("command[0]", "args[1]")
    pod = workload(container("hunter2", args=("a", "hunter2"), secret_words=words))
    found = wrong(pod)
    assert list(found) == [f"spec.containers[0].{word}" for word in words]
    assert all("pass it by env or a file" in one for one in found.values())
    assert "hunter2" not in str(found)


def test_a_secret_path_is_not_shown() -> None:
    one = replace(container("true"), env=(EnvVar("PATH", "/hunter2", secret=True),))
    found = wrong(workload(one))
    assert "PATH (a value from a Secret)" in found["spec.containers[0].command"]
    assert "hunter2" not in str(found)


def test_mounts_need_namespaces() -> None:
    mounts = [Mount("v", "/a"), Mount("v", "/b")]
    pod = workload(container("true", mounts=mounts), volumes=[EmptyDir("v")])
    assert wrong(pod, USER) == {}
    found = wrong(pod, BARE)
    assert list(found) == [
        "spec.containers[0].volumeMounts[0].mountPath",
        "spec.containers[0].volumeMounts[1].mountPath",
    ]
    assert "not permitted" in found["spec.containers[0].volumeMounts[0].mountPath"]


@pytest.mark.parametrize(
    "path", ["/", "/etc/..", "/etc/passwd", "/proc/no-such", "/sys/x/y", "rel"]
)
def test_places_that_cannot_be_mounted_on(path: str) -> None:
    pod = workload(container("true", mounts=[Mount("v", path)]), volumes=[EmptyDir("v")])
    assert list(wrong(pod)) == ["spec.containers[0].volumeMounts[0].mountPath"]


def test_working_directories() -> None:
    field = "spec.containers[0].workingDir"
    assert wrong(workload(container("true", working_dir="/no-such")), ROOT) == {}
    assert field in wrong(workload(container("true", working_dir="/no-such")), BARE)
    assert field in wrong(workload(container("true", working_dir="/etc/passwd")), ROOT)
    assert field in wrong(workload(container("true", working_dir="/proc/no-such")), ROOT)


def test_users() -> None:
    security = Security(run_as_user=5, run_as_group=5, fs_group=5, supplemental_groups=(27, 5))
    pod = workload(container("true", security=security))
    assert wrong(pod, ROOT) == {}
    assert list(wrong(pod, USER)) == [
        "spec.containers[0].securityContext.runAsUser",
        "spec.containers[0].securityContext.runAsGroup",
        "spec.securityContext.fsGroup",
        "spec.securityContext.supplementalGroups",
    ]
    own = Security(run_as_user=1000, run_as_group=1000, fs_group=27, supplemental_groups=(27,))
    assert wrong(workload(container("true", security=own)), USER) == {}


def test_not_as_root() -> None:
    field = "spec.containers[0].securityContext.runAsNonRoot"
    one = container("true", security=Security(run_as_non_root=True))
    who = workload(one).identity
    where = f'(pod: "{who.name}_default({who.uid})", container: main)'
    pod = workload(one, who=who)
    assert wrong(pod) == {field: f"container has runAsNonRoot and image will run as root {where}"}
    assert wrong(pod, USER) == {}
    zero = replace(one, security=Security(run_as_non_root=True, run_as_user=0))
    assert wrong(workload(zero, who=who)) == {
        field: f"container's runAsUser breaks non-root policy {where}"
    }


def test_capabilities() -> None:
    add = workload(container("true", security=Security(add_capabilities=("NET_ADMIN",))))
    assert wrong(add, ROOT) == {}
    assert list(wrong(add, USER)) == ["spec.containers[0].securityContext.capabilities.add"]
    drop = workload(container("true", security=Security(drop_capabilities=("CAP_KILL", "FLY"))))
    assert wrong(drop) == {"spec.containers[0].securityContext.capabilities.drop": "unknown: FLY"}


def test_numbers_are_the_kernels() -> None:
    assert numbers(["CHOWN", "CAP_SYS_ADMIN", "CHECKPOINT_RESTORE"]) == [0, 21, 40]
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert numbers(["ALL"])[: last + 1] == list(range(min(last, 40) + 1))
