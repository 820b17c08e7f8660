"""How the simulated Azure takes calls: who may call, what it knows, and what it refuses."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import DefaultAzureCredential
from azure.mgmt.containerinstance import models as m
from azure_kit import RG, Aci, Cloud, container, group, refusal, running

from adapters.simulators.azure import Fault, Settings, Timing
from adapters.simulators.azure.scenario import parse

pytestmark = pytest.mark.slow

GROUPS = f"/resourceGroups/{RG}/providers/Microsoft.ContainerInstance/containerGroups"
BODY: dict[str, Any] = {
    "location": "eastus",
    "properties": {
        "osType": "Linux",
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "main",
                "properties": {
                    "image": "example/image",
                    "command": ["sleep", "600"],
                    "ports": [{"port": 80}],
                    "resources": {"requests": {"cpu": 1, "memoryInGB": 1.5}},
                },
            }
        ],
        "volumes": [{"name": "work", "emptyDir": {}}],
    },
}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """One for all that leave nothing behind."""
    with running(Settings(locations=["eastus", "westus"]), run_on="null") as cloud:
        yield cloud


def changed(change: Callable[[Any, Any], Any]) -> Any:
    """The body after a change of its properties and those of its container."""
    body = copy.deepcopy(BODY)
    properties = body["properties"]
    change(properties, properties["containers"][0]["properties"])
    return body


def test_credentials_of_the_environment(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud.simulator.environment.items():
        monkeypatch.setenv(name, value)
    with DefaultAzureCredential(disable_instance_discovery=True) as credential:
        assert list(cloud.client(credential).container_groups.list()) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"client_secret": "guessed"}, "AADSTS7000215"),
        ({"client_id": "nobody"}, "AADSTS700016"),
        ({"tenant_id": "elsewhere"}, "AADSTS90002"),
    ],
)
def test_a_token_is_for_those_who_are_known(
    cloud: Cloud, wrong: dict[str, str], words: str
) -> None:
    with pytest.raises(ClientAuthenticationError, match=words):
        cloud.credential(**wrong).get_token("https://management.azure.com/.default")


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({}, "AuthenticationFailed"),
        ({"Authorization": "Bearer of-nobody"}, "InvalidAuthenticationToken"),
        ({"Authorization": "Basic YTpi"}, "InvalidAuthenticationToken"),
    ],
)
def test_without_a_token_nothing_is_done(cloud: Cloud, header: dict[str, str], code: str) -> None:
    place = f"/subscriptions/{cloud.simulator.environment['AZURE_SUBSCRIPTION_ID']}{GROUPS}"
    status, answer, headers = cloud.http("GET", f"{place}?api-version=2023-05-01", None, header)
    assert (status, answer["error"]["code"]) == (401, code)
    assert cloud.simulator.endpoint in headers["WWW-Authenticate"]


PROVIDER = "/providers/Microsoft.ContainerInstance"


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [
        (("GET", GROUPS, ""), 400, "MissingApiVersionParameter"),
        (("GET", GROUPS, "2018-10-01"), 400, "NoRegisteredProviderFound"),
        (("GET", f"{PROVIDER}/containerGroupProfiles", "2023-05-01"), 404, "InvalidResourceType"),
        (
            ("GET", f"{PROVIDER}/locations/eastus/cachedImages", "2023-05-01"),
            404,
            "InvalidResourceType",
        ),
        (
            ("GET", "/providers/Microsoft.Compute/virtualMachines", "2023-05-01"),
            404,
            "InvalidResourceNamespace",
        ),
        (("GET", "/resourcegroups", "2021-04-01"), 404, "NotFound"),
        (("POST", GROUPS, "2023-05-01"), 405, "MethodNotAllowed"),
        (("GET", f"{GROUPS}/none", "2023-05-01"), 404, "ResourceNotFound"),
        (("POST", f"{GROUPS}/none/start", "2023-05-01"), 404, "ResourceNotFound"),
        (
            ("GET", f"{PROVIDER}/locations/mars/usages", "2023-05-01"),
            400,
            "LocationNotAvailableForResourceType",
        ),
        (
            ("GET", f"{PROVIDER}/locations/eastus/operations/none", "2023-05-01"),
            404,
            "OperationNotFound",
        ),
    ],
)
def test_what_is_not_known(
    cloud: Cloud, call: tuple[str, str, str], status: int, code: str
) -> None:
    method, path, version = call
    found, answer, headers = cloud.arm(method, path, version=version)
    assert (found, answer["error"]["code"]) == (status, code)
    assert answer["error"]["message"]
    assert headers["x-ms-request-id"]


def test_another_subscription(cloud: Cloud) -> None:
    status, answer, _ = cloud.http("GET", f"/subscriptions/other{GROUPS}", None, cloud.signed())
    assert (status, answer["error"]["code"]) == (404, "SubscriptionNotFound")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, _: p.update(restartPolcy="Never"), "Could not find member 'restartPolcy'"),
        (lambda p, _: p.update(osType="BeOS"), "allowed: Windows,Linux"),
        (lambda p, _: p.update(osType=None), "Required property 'osType' not found"),
        (lambda _, c: c.pop("image"), "Path 'properties.containers[0].properties.image'"),
        (lambda _, c: c.update(command="sleep 1"), "Error converting value to a list"),
        (lambda _, c: c["ports"][0].update(port="80"), "Error converting value to type 'int'"),
        (lambda _, c: c["resources"]["requests"].update(cpu=True), "to type 'float'"),
    ],
)
def test_what_is_not_in_the_model(
    cloud: Cloud, change: Callable[[Any, Any], Any], words: str
) -> None:
    status, answer, _ = cloud.arm("PUT", f"{GROUPS}/one", changed(change))
    assert (status, answer["error"]["code"]) == (400, "InvalidRequestContent")
    assert words in answer["error"]["message"]


def with_container(**more: Any) -> Callable[[Any, Any], Any]:
    return lambda _, main: main.update(more)


def with_group(**more: Any) -> Callable[[Any, Any], Any]:
    return lambda properties, _: properties.update(more)


def asks(cpu: float, memory: float, **more: Any) -> Callable[[Any, Any], Any]:
    requests = {"cpu": cpu, "memoryInGB": memory, **more}
    return with_container(resources={"requests": requests})


PORTS = {"type": "Public", "ports": [{"port": 80}]}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (with_group(containers=[]), "ContainersNotSpecified"),
        (lambda p, _: p["containers"].extend(p["containers"] * 60), "TooManyContainers"),
        (lambda p, _: p["containers"].append(p["containers"][0]), "DuplicateContainerName"),
        (lambda p, _: p["containers"][0].update(name="Main"), "InvalidContainerName"),
        (with_container(image=""), "InvalidImage"),
        (
            with_container(environmentVariables=[{"name": "a-b", "value": ""}]),
            "InvalidEnvironmentVariableName",
        ),
        (
            with_container(environmentVariables=[{"name": "A", "value": "", "secureValue": ""}]),
            "InvalidEnvironmentVariable",
        ),
        (
            with_group(volumes=[{"name": f"v{n}", "emptyDir": {}} for n in range(21)]),
            "TooManyVolumes",
        ),
        (with_group(volumes=[{"name": "v"}]), "InvalidVolume"),
        (
            with_group(volumes=[{"name": "v", "secret": {"key": "not base64"}}]),
            "InvalidSecretVolume",
        ),
        (with_container(volumeMounts=[{"name": "other", "mountPath": "/x"}]), "VolumeNotFound"),
        (
            with_container(volumeMounts=[{"name": "work", "mountPath": "x"}]),
            "InvalidVolumeMountPath",
        ),
        (with_container(livenessProbe={}), "InvalidProbe"),
        (
            with_container(livenessProbe={"exec": {"command": ["true"]}, "periodSeconds": 0}),
            "InvalidProbe",
        ),
        (asks(0.001, 1.5), "InvalidResourceRequest"),
        (asks(1, 0.25), "InvalidResourceRequest"),
        (asks(0, 1.5), "InvalidResourceRequest"),
        (
            lambda _, main: main["resources"].update(limits={"cpu": 2}),
            "ContainerLimitGreaterThanContainerGroupTotalRequest",
        ),
        (with_group(ipAddress={"type": "Public", "ports": []}), "InvalidIpAddressPorts"),
        (with_group(ipAddress={"type": "Public", "ports": [{"port": 81}]}), "PortsNotExposed"),
        (with_group(ipAddress={**PORTS, "type": "Private"}), "InvalidIpAddressType"),
        (
            with_group(ipAddress=PORTS, priority="Spot"),
            "SpotPriorityContainerGroupNotSupportedForInboundConnectivity",
        ),
        (
            with_group(sku="Confidential", priority="Spot"),
            "SpotPriorityContainerGroupNotSupportedInSku",
        ),
    ],
)
def test_what_no_group_may_be(cloud: Cloud, change: Callable[[Any, Any], Any], code: str) -> None:
    status, answer, _ = cloud.arm("PUT", f"{GROUPS}/one", changed(change))
    assert (status, answer["error"]["code"]) == (400, code)
    assert cloud.arm("GET", f"{GROUPS}/one")[0] == 404


@pytest.mark.parametrize(
    "change",
    [
        asks(4.01, 1.5),
        asks(1, 16.1),
        asks(1, 1.5, gpu={"count": 1, "sku": "V100"}),
        with_group(osType="Windows"),
    ],
)
def test_what_no_region_has_room_for(cloud: Cloud, change: Callable[[Any, Any], Any]) -> None:
    status, answer, _ = cloud.arm("PUT", f"{GROUPS}/one", changed(change))
    assert (status, answer["error"]["code"]) == (409, "ServiceUnavailable")
    assert "is not available in the location 'eastus'" in answer["error"]["message"]


def test_what_is_not_simulated_of_a_group_is_not_passed_over(cloud: Cloud) -> None:
    git = with_group(volumes=[{"name": "code", "gitRepo": {"repository": "https://example.com"}}])
    status, answer, _ = cloud.arm("PUT", f"{GROUPS}/one", changed(git))
    assert (status, answer["error"]["code"]) == (501, "NotImplemented")


@pytest.fixture
def aci() -> Iterator[Aci]:
    with running(run_on="null") as cloud:
        yield Aci(cloud)


def test_where_a_group_can_be(aci: Aci) -> None:
    given = group(container("sleep", "600"), location="")
    assert aci.refused(given)[:2] == (400, "LocationRequired")
    given.location = "West US"
    assert aci.put(given).location == "westus"


def test_names_have_no_case_and_what_is_told_can_be_put_again(aci: Aci) -> None:
    identity = m.ContainerGroupIdentity(type="SystemAssigned")
    address = m.IpAddress(ports=[m.Port(port=80)], type="Public", dns_name_label="name")
    main = container("sleep", "600", ports=[m.ContainerPort(port=80)])
    aci.put(group(main, identity=identity, ip_address=address, zones=["1"]))
    found = aci.groups.get(RG.upper(), "ONE")
    assert (found.name, found.identity.type, found.zones) == ("one", "SystemAssigned", ["1"])
    assert found.ip_address.ip == "127.0.0.1"
    assert found.ip_address.fqdn == "name.eastus.azurecontainer.io"
    assert found.sku == "Standard"
    assert aci.put(found).id == found.id
    # Not a member of it is unknown to the model.
    told = aci.cloud.arm("GET", f"{GROUPS}/one")[1]
    assert aci.cloud.arm("PUT", f"{GROUPS}/one", told)[0] == 200
    assert len(list(aci.groups.list())) == 1


def test_secrets_are_never_told(aci: Aci) -> None:
    given = group(
        container("sleep", "600"),
        image_registry_credentials=[
            m.ImageRegistryCredential(server="example.com", username="me", password="hidden")
        ],
        diagnostics=m.ContainerGroupDiagnostics(
            log_analytics=m.LogAnalytics(workspace_id="id", workspace_key="hidden")
        ),
    )
    aci.put(given)
    assert aci.get().image_registry_credentials[0].username == "me"
    cloud = aci.cloud
    for told in (cloud.arm("GET", f"{GROUPS}/one")[1], cloud.arm("GET", GROUPS)[1]):
        assert "hidden" not in str(told)
    assert "hidden" not in str(cloud.ledger())


def test_logs_and_commands_of_what_is_not_there(aci: Aci) -> None:
    aci.put(group(container("true")))
    aci.when("Succeeded")
    assert refusal(lambda: aci.log(main="other"))[:2] == (404, "ContainerNotFound")
    for wrong in (0, -1):
        assert refusal(lambda wrong=wrong: aci.log(tail=wrong))[:2] == (400, "InvalidTail")
    request = m.ContainerExecRequest(command="sh")
    for call in (
        lambda: aci.containers.execute_command(RG, "one", "main", request),
        lambda: aci.containers.attach(RG, "one", "main"),
    ):
        assert refusal(call)[:2] == (409, "ContainerNotRunning")
    nothing = m.ContainerExecRequest()
    refused = refusal(lambda: aci.containers.execute_command(RG, "one", "main", nothing))
    assert refused[:2] == (400, "InvalidCommand")


def test_the_control_api_says_what_there_is(cloud: Cloud) -> None:
    assert cloud.control("GET", "health") == (200, {"broken": []})
    status, answer = cloud.control("GET", "nothing")
    assert status == 404
    assert "GET /_podbridge/ledger" in answer["error"]
    status, answer = cloud.control("POST", "faults", {"kind": "evict", "flavour": "arm"})
    assert (status, answer["errors"][0].split(": ", 1)[1]) == (
        400,
        "flavour arm is not for kind evict",
    )
    assert cloud.control("POST", "faults", {"kind": "evict", "group": "/none"})[0] == 404
    assert cloud.control("POST", "images?name=a:b")[0] == 400


def test_the_scenario_of_the_documentation_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "simulators.md").read_text(encoding="utf-8")
    azure = text[text.index("## Azure") :]
    given = azure.partition("```yaml\n")[2].partition("```")[0]
    settings = parse(given, "simulators.md")
    assert settings.timing == Timing()
    assert (settings.max_cpu, settings.page) == (Settings().max_cpu, Settings().page)
    assert [one.kind for one in settings.faults] == ["no-capacity", "lost"]
    table = azure.partition("| fault |")[2].partition("\n\n")[0]
    told = re.findall(r"^\| `([a-z-]+)` \|", table, re.M)
    assert sorted(told) == sorted(get_args(Fault.model_fields["kind"].annotation))
