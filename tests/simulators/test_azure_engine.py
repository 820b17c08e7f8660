"""Container groups in containers of a real engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.containerinstance import models as m
from azure_kit import PATIENCE, Aci, group, running, shell, until
from support import engine

pytestmark = pytest.mark.slow


@pytest.fixture
def aci(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aci]:
    if problem := engine.problem():
        pytest.skip(problem)
    monkeypatch.setenv("DOCKER_HOST", engine.address())
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    assert os.environ["DOCKER_HOST"].startswith("unix:")
    with running(run_on="engine") as cloud:
        owner = cloud.simulator._runner._backend.client.owner
        yield Aci(cloud)
    assert owner.startswith("podbridge-azure-")
    assert engine.owned(owner) == []


def in_busybox(script: str, name: str = "main", **more: Any) -> m.Container:
    made = shell(script, name, **more)
    made.image = engine.BUSYBOX
    return made


def test_containers_of_a_group_share_volumes_and_an_address(aci: Aci) -> None:
    mounts = [m.VolumeMount(name="work", mount_path="/work")]
    first = m.InitContainerDefinition(
        name="first",
        image=engine.BUSYBOX,
        command=["sh", "-c", "echo from $WHO > /work/file"],
        environment_variables=[m.EnvironmentVariable(name="WHO", secure_value="first")],
        volume_mounts=mounts,
    )
    server = in_busybox("mkdir /www; cp /work/file /www; exec httpd -f -p 8080 -h /www", "server")
    server.volume_mounts = mounts
    fetch = "until wget -q -O - http://127.0.0.1:8080/file; do sleep 0.1; done; exit 3"
    aci.put(
        group(
            server,
            in_busybox(fetch, "client"),
            init_containers=[first],
            volumes=[m.Volume(name="work", empty_dir={})],
        )
    )

    def code() -> Any:
        return aci.get().containers[1].instance_view.current_state.exit_code

    assert until(code) == 3
    assert aci.log(main="client") == "from first\n"
    assert aci.get().instance_view.state == "Running"


def test_a_group_has_the_memory_that_its_containers_request(aci: Aci) -> None:
    main = in_busybox("tail /dev/zero", memory=0.1)
    aci.put(group(main))
    state = aci.when("Failed").containers[0].instance_view.current_state
    assert (state.exit_code, state.detail_status) == (137, "OOMKilled")


def test_an_image_that_is_not_there(aci: Aci) -> None:
    given = in_busybox("true")
    given.image = "localhost/no/such:image"
    with pytest.raises(HttpResponseError, match="no/such"):
        aci.begin(group(given)).result(PATIENCE)
    found = aci.get()
    assert (found.provisioning_state, found.instance_view.state) == ("Failed", "Failed")
