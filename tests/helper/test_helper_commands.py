"""What the helper starts where a pod names no command, read from a registry on a loopback port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from support.paper_registry import EXAMPLE, PaperRegistry, serving

from bridge.helper.commands import Unread, commands
from bridge.helper.wrap import Process
from bridge.registry import RegistryClient
from bridge.workload import (
    Container,
    Identity,
    PullCredential,
    RestartPolicy,
    Role,
    Workload,
)

WHO = Identity("cluster", "node", "default", "pod", "uid")
SENTINEL = "sentinel-password"


@pytest.fixture
async def paper() -> AsyncIterator[PaperRegistry]:
    async with serving(PaperRegistry()) as registry:
        registry.image("team/app:1", EXAMPLE)
        yield registry


@pytest.fixture
async def client() -> AsyncIterator[RegistryClient]:
    made = RegistryClient()
    yield made
    await made.close()


def pod(*containers: Container, **more: object) -> Workload:
    return replace(Workload(WHO, containers), **more)


def once(image: str, name: str = "main", command: tuple[str, ...] = ()) -> Container:
    return Container(name, Role.MAIN, image, command, restart_policy=RestartPolicy.NEVER)


async def test_an_image_says_what_it_runs(paper: PaperRegistry, client: RegistryClient) -> None:
    two = pod(once(f"{paper.address}/team/app:1"), once("nowhere.invalid/x", "other", ("true",)))
    found = await commands(client, two, "amd64")
    process = Process(("/bin/app",), ("--port", "80"), "SIGQUIT")
    assert found.processes == {"main": process}
    assert not found.without


async def test_a_pod_that_names_its_command_asks_nobody(
    paper: PaperRegistry, client: RegistryClient
) -> None:
    found = await commands(client, pod(once(f"{paper.address}/x", command=("true",))), "amd64")
    assert (found.processes, found.without, paper.seen) == ({}, "", [])


async def test_the_pods_own_login_is_shown(paper: PaperRegistry, client: RegistryClient) -> None:
    paper.auth, paper.users = "basic", {"me": SENTINEL}
    one = pod(once(f"{paper.address}/team/app:1"))
    assert (await commands(client, one, "amd64")).without
    credentials = (PullCredential(paper.address, "me", SENTINEL),)
    found = await commands(client, replace(one, pull_credentials=credentials), "amd64")
    assert found.processes


async def test_what_is_lost_without_the_helper_is_named(
    paper: PaperRegistry, client: RegistryClient
) -> None:
    found = await commands(client, pod(once(f"{paper.address}/team/none:1")), "amd64")
    assert found.processes == {}
    assert f"{paper.address}/team/none:1: {paper.address} has no such image" in found.without
    assert found.without.startswith("without the helper")
    assert "lost: exec, attach, port-forward" in found.without


async def test_who_needs_the_helper_waits(paper: PaperRegistry, client: RegistryClient) -> None:
    image = f"{paper.address}/team/none:1"
    needy = pod(replace(once(image), logs_as_message=True), deadline=5.0)
    with pytest.raises(Unread) as caught:
        await commands(client, needy, "amd64")
    words = caught.value.message
    assert image in words
    assert "deadline (spec.activeDeadlineSeconds)" in words
    assert "termination messages (spec.containers[0].terminationMessagePolicy)" in words
    assert not caught.value.permanent


async def test_an_image_of_another_machine(paper: PaperRegistry, client: RegistryClient) -> None:
    found = await commands(client, pod(once(f"{paper.address}/team/app:1")), "arm64")
    assert "arm64" in found.without


async def test_no_secret_is_in_the_words(paper: PaperRegistry, client: RegistryClient) -> None:
    paper.auth, paper.users = "basic", {"me": "another"}
    one = replace(
        pod(once(f"{paper.address}/team/app:1")),
        pull_credentials=(PullCredential(paper.address, "me", SENTINEL),),
    )
    found = await commands(client, one, "amd64")
    assert found.without
    assert SENTINEL not in found.without
