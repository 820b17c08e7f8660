"""What is the same for pods on every cloud and takes no cloud to decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from bridge.errors import Violation
from bridge.groups import checks, choose, security, tokens
from bridge.groups.checks import Needs
from bridge.groups.images import rewritten
from bridge.groups.options import Claimed, GroupOptions, Mapped
from bridge.helper.need import Gift
from bridge.workload import (
    Claim,
    Container,
    EmptyDir,
    File,
    Files,
    HelperUse,
    Identity,
    Mount,
    Probe,
    Resources,
    RestartPolicy,
    Role,
    Security,
    TcpAction,
    Volume,
    Workload,
)

WHO = Identity("cluster", "node", "default", "pod", "uid")


def pod(*volumes: Volume, **more: Any) -> Workload:
    one = Container("main", Role.MAIN, "image", restart_policy=RestartPolicy.NEVER, **more)
    return Workload(WHO, (one,), volumes)


def test_rewritten_names() -> None:
    rules = {"docker.io/": "cache.example/hub/", "docker.io/team/": "own.example/"}
    assert rewritten("busybox", rules) == "cache.example/hub/library/busybox:latest"
    assert rewritten("team/app:2", rules) == "own.example/app:2"
    assert rewritten("ghcr.io/a/b:1", rules) == "ghcr.io/a/b:1"
    assert rewritten("busybox", {}) == "busybox"


def test_a_token_that_nobody_renews_is_mounted_on_request() -> None:
    files = (File("ca.crt", b"ca"), File("token", b"secret", secret=True))
    every = Files("kube-api-access-x7z", files, "1")
    own = Files("own", files, "1")
    asked = pod(every, own)
    bare, kept = tokens.asked_for(asked, has_tunnel=False).volumes
    assert bare == replace(every, files=files[:1])
    assert kept == own
    wants = replace(asked, annotations={tokens.ANNOTATION: tokens.MOUNT})
    assert tokens.asked_for(wants, has_tunnel=False) is wants
    assert tokens.asked_for(asked, has_tunnel=True) is asked
    plain = pod(own)
    assert tokens.asked_for(plain, has_tunnel=False) is plain


def test_capacity_and_architecture_are_the_pods_choice() -> None:
    one = pod()
    assert not choose.is_spot(one, "on-demand")
    assert choose.is_spot(one, "spot")
    spot = replace(one, node_selector={choose.CAPACITY: "spot"})
    assert choose.is_spot(spot, "on-demand")
    assert not choose.is_spot(replace(spot, annotations={choose.CAPACITY: "on-demand"}), "spot")
    arm = replace(one, node_selector={choose.ARCHITECTURE: "arm64"})
    assert choose.architecture(arm, "amd64") == "arm64"
    wrong = replace(one, node_selector={choose.ARCHITECTURE: "s390x", choose.CAPACITY: "cheap"})
    assert [one.field for one in choose.problems(wrong, "amd64", ("amd64", "arm64"))] == [
        "spec.nodeSelector[kubernetes.io/arch]",
        "spec.nodeSelector[podbridge.io/capacity-type]",
    ]


def test_each_helper_takes_memory() -> None:
    one = pod(resources=Resources({"cpu": 250, "memory": 2**20}))
    assert choose.requested(one, wrapped=False) == {"cpu": 250, "memory": 2**20}
    assert choose.requested(one, wrapped=True) == {"cpu": 250, "memory": 25 * 2**20}


@pytest.mark.parametrize(
    ("namespace", "account", "expected"),
    [("team", "reports", 1), ("team", "other", 0), ("team", "", 2), ("others", "reports", None)],
)
def test_the_closest_entry_is_the_pods(namespace: str, account: str, expected: int | None) -> None:
    entries = [
        Mapped(namespace="team"),
        Mapped(namespace="team", service_account="reports"),
        Mapped(namespace="team", service_account="default"),
    ]
    who = replace(WHO, namespace=namespace)
    found = choose.closest(replace(pod(), identity=who, service_account=account), entries)
    assert found is (None if expected is None else entries[expected])


def shouts(workload: Workload) -> Iterator[Violation]:
    """What takes the helper on this cloud alone."""
    if workload.containers[0].args == ("loud",):
        yield Violation("spec.containers[0].args", "nobody is loud here")


PROBED = Probe(TcpAction(80))
NEEDS = Needs(own={Gift.PROBES}, beyond=shouts)
OPTIONS = GroupOptions(helper_image="helper:1")


@pytest.mark.parametrize(
    ("more", "wraps"),
    [
        ({}, False),
        ({"readiness_probe": PROBED}, False),
        ({"stdin": True}, True),
        ({"args": ("loud",)}, True),
    ],
)
def test_who_needs_the_helper_on_a_cloud(more: dict[str, Any], *, wraps: bool) -> None:
    one = pod(**more)
    assert NEEDS.wraps(one, HelperUse.AUTO) is wraps
    assert NEEDS.wraps(one, HelperUse.ALWAYS)
    assert not NEEDS.wraps(one, HelperUse.NEVER)
    assert NEEDS.wraps(replace(one, helper=HelperUse.ALWAYS), HelperUse.NEVER)
    assert list(NEEDS.problems(one, OPTIONS, alone=True)) == []
    never = replace(one, helper=HelperUse.NEVER)
    assert bool(list(NEEDS.problems(never, OPTIONS, alone=True))) is wraps
    without = list(NEEDS.problems(one, GroupOptions(), alone=True))
    assert [one for one in without if "helper_image" not in one.message] == []
    assert bool(without) is wraps


def test_who_asks_for_the_helper_alone_is_told_what_is_missing() -> None:
    always = replace(pod(), helper=HelperUse.ALWAYS)
    (found,) = NEEDS.problems(always, GroupOptions(), alone=True)
    assert found.field == ""
    assert list(NEEDS.problems(always, GroupOptions(), alone=False)) == []


def test_a_group_has_room_for_the_helper_too() -> None:
    one = pod()
    many = replace(one, containers=one.containers * 9)
    assert list(checks.too_many(many, 10, wrapped=False)) == []
    (found,) = checks.too_many(many, 10, wrapped=True)
    assert found.message == "found 9 containers; allowed: 8"


def test_claims_are_the_configurations() -> None:
    one = pod(Claim("data", "disk", False))
    known = [Claimed(namespace="default", claim="disk")]
    assert list(checks.unclaimed(one, known, "share")) == []
    (found,) = checks.unclaimed(replace(one, identity=replace(WHO, namespace="x")), known, "share")
    assert found.field == "spec.volumes[0].persistentVolumeClaim.claimName"
    assert "has no share for" in found.message


@pytest.mark.parametrize(
    ("more", "field"),
    [
        (
            {"security": Security(run_as_user=0, run_as_non_root=True)},
            "m.securityContext.runAsUser",
        ),
        ({"mounts": (Mount("work", "/w", "part"),)}, "m.volumeMounts[0].subPath"),
        ({"resources": Resources({"example.com/x": 1})}, "m.resources.requests[example.com/x]"),
    ],
)
def test_what_no_group_does_of_a_container(more: dict[str, Any], field: str) -> None:
    one = pod(EmptyDir("work"), **more)
    (found,) = checks.container(one, one.containers[0], "m", ("cpu", "memory"))
    assert found.field == field


@pytest.mark.parametrize(
    ("own", "user", "dropped"),
    [
        (Security(), (None, None), []),
        (Security(run_as_user=1000), (1000, None), []),
        (Security(run_as_user=1000, run_as_group=3), (1000, 3), []),
        # The helper takes the others by itself, and has to begin as root for that.
        (Security(run_as_user=1000, fs_group=5, drop_capabilities=("ALL",)), (0, 0), None),
        (Security(run_as_user=1000, supplemental_groups=(5,)), (0, 0), []),
        (Security(drop_capabilities=("ALL",)), (None, None), ["ALL"]),
    ],
)
def test_users_and_capabilities(
    own: Security, user: tuple[int | None, int | None], dropped: list[str] | None
) -> None:
    one = pod(security=own).containers[0]
    assert security.user(one, wrapped=True) == user
    _, drop = security.capabilities(one, wrapped=True)
    if dropped is None:
        assert not {"SETUID", "SETGID", "KILL", "ALL"} & set(drop)
        assert len(drop) == 11
    else:
        assert drop == dropped
    assert security.user(one, wrapped=False) == (own.run_as_user, own.run_as_group)
