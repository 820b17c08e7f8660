"""The plain life cycle as the documentation of Azure's SDK for Python shows it: its sample makes a
container group of plain dictionaries, gets and tags it, asks for a command in it, and deletes it.
"""

from __future__ import annotations

from typing import Any

import pytest
import websocket
from azure.identity import DefaultAzureCredential
from azure.identity import aio as aio_identity
from azure.mgmt.containerinstance import ContainerInstanceManagementClient, aio
from azure_kit import joined, running, until

pytestmark = pytest.mark.slow

RESOURCE_GROUP = "testgroupx"
GROUP = "container-group"
CONTAINER = "my-container"
DEFINITION: dict[str, Any] = {
    "location": "eastus",
    "identity": {"type": "SystemAssigned"},
    "containers": [
        {
            "name": CONTAINER,
            "image": "nginx",
            "command": ["sh", "-c", "echo hello from $WHERE; exec sleep 60"],
            "environment_variables": [{"name": "WHERE", "value": "here"}],
            "ports": [{"port": "80"}],
            "resources": {"requests": {"cpu": "1", "memory_in_gb": "1.5"}},
            "volume_mounts": [{"name": "empty-volume", "mount_path": "/tmp/mydir"}],
        }
    ],
    "diagnostics": {"log_analytics": {"workspace_id": "id", "workspace_key": "key"}},
    "os_type": "Linux",
    "restart_policy": "OnFailure",
    "volumes": [{"name": "empty-volume", "empty_dir": {}}],
}


def test_as_the_sample_of_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as cloud:
        told = cloud.simulator.environment
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        with (
            DefaultAzureCredential(disable_instance_discovery=True) as credential,
            ContainerInstanceManagementClient(
                credential,
                told["AZURE_SUBSCRIPTION_ID"],
                base_url=told["ARM_ENDPOINT"],
                polling_interval=0.05,
            ) as client,
        ):
            live(client, told["SSL_CERT_FILE"])
        actions = cloud.ledger()["calls"]["byAction"]
        assert {"ContainerGroups_CreateOrUpdate", "Containers_ExecuteCommand"} <= actions.keys()


def live(client: ContainerInstanceManagementClient, certificates: str) -> None:
    """From its creation to its end."""
    groups, containers = client.container_groups, client.containers
    made = groups.begin_create_or_update(RESOURCE_GROUP, GROUP, DEFINITION).result()
    assert (made.provisioning_state, made.containers[0].name) == ("Succeeded", CONTAINER)
    assert [one.name for one in groups.list()] == [GROUP]
    assert [one.name for one in groups.list_by_resource_group(RESOURCE_GROUP)] == [GROUP]
    found = groups.get(RESOURCE_GROUP, GROUP)
    assert found.instance_view.state == "Running"
    assert found.containers[0].instance_view.current_state.state == "Running"
    tags = {"tag1key": "tag1Value", "tag2key": "tag2Value"}
    assert groups.update(RESOURCE_GROUP, GROUP, {"tags": tags}).tags == tags
    where = (RESOURCE_GROUP, GROUP, CONTAINER)
    until(lambda: containers.list_logs(*where).content == "hello from here\n")
    size = {"rows": "12", "cols": "12"}
    offered = containers.execute_command(*where, {"command": "/bin/sh", "terminal_size": size})
    with joined(offered.web_socket_uri, certificates) as session:
        session.send(offered.password)
        session.send("exit\n")
        while session.recv_data()[0] != websocket.ABNF.OPCODE_CLOSE:
            pass
    groups.begin_restart(RESOURCE_GROUP, GROUP).result()
    groups.stop(RESOURCE_GROUP, GROUP)
    until(lambda: groups.get(RESOURCE_GROUP, GROUP).instance_view.state == "Stopped")
    groups.begin_start(RESOURCE_GROUP, GROUP).result()
    assert groups.get(RESOURCE_GROUP, GROUP).instance_view.state == "Running"
    groups.begin_delete(RESOURCE_GROUP, GROUP).result()
    assert list(groups.list()) == []


async def test_the_same_by_its_coroutines(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as cloud:
        told = cloud.simulator.environment
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        # aiohttp, by which it goes, has read SSL_CERT_FILE when it was imported.
        certificates = told["SSL_CERT_FILE"]
        async with (
            aio_identity.DefaultAzureCredential(
                disable_instance_discovery=True, connection_verify=certificates
            ) as credential,
            aio.ContainerInstanceManagementClient(
                credential,
                told["AZURE_SUBSCRIPTION_ID"],
                base_url=told["ARM_ENDPOINT"],
                connection_verify=certificates,
                polling_interval=0.05,
            ) as client,
        ):
            groups = client.container_groups
            making = await groups.begin_create_or_update(RESOURCE_GROUP, GROUP, DEFINITION)
            assert (await making.result()).provisioning_state == "Succeeded"
            assert [one.name async for one in groups.list()] == [GROUP]
            deleting = await groups.begin_delete(RESOURCE_GROUP, GROUP)
            await deleting.result()
            assert [one.name async for one in groups.list()] == []
