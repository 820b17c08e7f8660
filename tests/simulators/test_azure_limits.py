"""Quotas, rates and faults of the simulated Azure, and its ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ServiceResponseError
from azure_kit import (
    PATIENCE,
    PLACE,
    RG,
    Aci,
    container,
    group,
    refusal,
    running,
    shell,
    text,
    until,
)

from adapters.simulators.azure import Bucket, Fault, Settings, Timing

pytestmark = pytest.mark.slow

LEFT = "x-ms-ratelimit-remaining-subscription"
SLEEPS = container("sleep", "600")


@pytest.fixture
def aci() -> Iterator[Aci]:
    with running(run_on="null") as cloud:
        yield Aci(cloud)


def usage(aci: Aci) -> dict[str, tuple[int, int]]:
    return {one.name.value: (one.current_value, one.limit) for one in aci.usage(PLACE)}


def test_quotas_and_what_is_used_of_them() -> None:
    with running(Settings(container_groups=2, standard_cores=3), run_on="null") as cloud:
        aci = Aci(cloud)
        aci.put(group(container("sleep", "600", cpu=2.5)))
        assert usage(aci) == {
            "ContainerGroups": (1, 2),
            "StandardCores": (3, 3),
            "StandardSpotCores": (0, 10),
        }
        assert aci.refused(group(container("true")), "two") == (
            400,
            "ContainerGroupQuotaReached",
            "Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota"
            " 'StandardCores' exceeded in region 'eastus'. Limit: '3', Usage: '3' Requested: '1'.",
        )
        assert aci.put(group(container("true"), location="westus"), "other").location == "westus"
        aci.put(group(container("true"), priority="Spot"), "spot")
        aci.when("Succeeded", "spot")
        # What has ended holds a place among the groups, and no cores.
        assert usage(aci)["ContainerGroups"] == (2, 2)
        assert usage(aci)["StandardSpotCores"] == (0, 10)
        refused = aci.refused(group(container("true"), priority="Spot"), "three")
        assert "'ContainerGroups' exceeded in region 'eastus'" in refused[2]
        aci.groups.begin_delete(RG, "spot").result(PATIENCE)
        assert usage(aci)["ContainerGroups"] == (1, 2)


def test_a_quota_by_its_other_name() -> None:
    settings = Settings(container_groups=0, quota_code="ServiceUnavailable")
    with running(settings, run_on="null") as cloud:
        assert Aci(cloud).refused(group(SLEEPS))[:2] == (409, "ServiceUnavailable")


def test_what_a_region_can_do(aci: Aci) -> None:
    found = list(aci.client.location.list_capabilities(PLACE))
    assert {one.ip_address_type for one in found} == {"Public", "Private"}
    assert (found[0].capabilities.max_cpu, found[0].capabilities.max_memory_in_gb) == (4, 16)


def test_reads_have_a_bucket_of_their_own() -> None:
    buckets = {"reads": Bucket(burst=3, per_second=1e-5)}
    with running(Settings(buckets=buckets), 1.0, run_on="null") as cloud:
        aci = Aci(cloud)
        answers: list[Any] = []
        for _ in range(3):
            list(aci.groups.list(raw_response_hook=answers.append))
        headers = [one.http_response.headers for one in answers]
        assert [one[f"{LEFT}-reads"] for one in headers] == ["2", "1", "0"]
        assert [one[f"{LEFT}-global-reads"] for one in headers] == ["44", "43", "42"]
        with pytest.raises(HttpResponseError) as caught:
            aci.get()
        error = caught.value
        assert (error.status_code, error.error.code) == (429, "SubscriptionRequestsThrottled")
        assert 99_000 < int(error.response.headers["Retry-After"]) <= 100_000
        poller = aci.groups.begin_create_or_update(
            RG, "one", group(SLEEPS), raw_response_hook=answers.append, polling=False
        )
        assert poller.done()
        assert answers[-1].http_response.headers[f"{LEFT}-writes"] == "199"
        assert aci.cloud.ledger()["calls"]["throttled"] == {"ContainerGroups_Get": 1}
        cloud.control("POST", "time", {"skip": 1e5})
        assert aci.get().name == "one"


def test_every_principal_has_its_own_buckets_and_all_together_have_one() -> None:
    settings = Settings(
        clients={"one": "1", "two": "2"}, buckets={"reads": Bucket(burst=1, per_second=0.001)}
    )
    with running(settings, 1.0, run_on="null") as cloud:
        for client, secret in settings.clients.items():
            credential = cloud.credential(client_id=client, client_secret=secret)
            groups = cloud.client(credential).container_groups
            assert list(groups.list()) == []
            assert refusal(lambda groups=groups: list(groups.list()))[0] == 429
        callers = cloud.ledger()["calls"]["byCaller"]
        assert callers == {"one": 2, "two": 2}


@pytest.mark.parametrize(
    ("creates", "interval", "span"), [((2, 300), "00:05:00", 300), ((100, 2), "01:00:00", 3600)]
)
def test_creates_are_counted_by_five_minutes_and_by_the_hour(
    creates: tuple[int, int], interval: str, span: int
) -> None:
    timing = Timing(pending=0, pulling=0, deleting=0)
    with running(Settings(creates=creates, timing=timing), 1.0, run_on="null") as cloud:
        aci = Aci(cloud)
        answers: list[Any] = []
        for name in ("one", "two"):
            aci.groups.begin_create_or_update(
                RG, name, group(SLEEPS), raw_response_hook=answers.append
            ).result(PATIENCE)
        puts = [one.http_response for one in answers if one.http_request.method == "PUT"]
        left = f"{LEFT}-resource-requests"
        assert [int(one.headers[f"{left}-pt5m"]) for one in puts] == [
            creates[0] - 1,
            creates[0] - 2,
        ]
        assert [int(one.headers[f"{left}-pt1h"]) for one in puts] == [
            creates[1] - 1,
            creates[1] - 2,
        ]
        with pytest.raises(HttpResponseError) as caught:
            aci.begin(group(SLEEPS), "three")
        error = caught.value
        assert (error.status_code, error.error.code) == (429, "TooManyRequests")
        assert "action 'ContainerGroupCreation' exceeded the limit of '2'" in error.error.message
        assert f"for time interval '{interval}'" in error.error.message
        assert span - 200 < int(error.response.headers["Retry-After"]) <= span
        # A group that is there counts as one that is not; another region does not.
        assert aci.refused(group(SLEEPS))[0] == 429
        aci.put(group(SLEEPS, location="westus"), "three")
        aci.groups.begin_delete(RG, "two").result(PATIENCE)
        cloud.control("POST", "time", {"skip": span})
        aci.put(group(SLEEPS), "four")


def test_deletes_are_counted_too() -> None:
    with running(Settings(deletes=(1, 300)), run_on="null") as cloud:
        aci = Aci(cloud)
        for name in ("one", "two"):
            aci.put(group(SLEEPS), name)
        aci.groups.begin_delete(RG, "one").result(PATIENCE)
        status, code, words = refusal(lambda: aci.groups.begin_delete(RG, "two"))
        assert (status, code) == (429, "TooManyRequests")
        assert "'ContainerGroupDeletion' exceeded the limit of '1'" in words


def test_the_sdk_waits_as_it_is_told(aci: Aci) -> None:
    patient = aci.cloud.client(retry_total=3)
    for flavour in ("arm", "provider"):
        aci.cloud.fault("throttle", times=1, flavour=flavour, action="ContainerGroups_List")
        begun = time.monotonic()
        assert list(patient.container_groups.list()) == []
        assert time.monotonic() - begun >= 1.0
    assert aci.cloud.ledger()["calls"]["throttled"] == {"ContainerGroups_List": 2}


def test_calls_that_go_wrong(aci: Aci) -> None:
    aci.cloud.fault("error", action="ContainerGroups_Get", times=1, status=503)
    assert refusal(aci.get)[:2] == (503, "InternalServerError")
    aci.cloud.fault("expired-token", times=1)
    assert refusal(aci.get)[:2] == (401, "ExpiredAuthenticationToken")
    id_ = aci.cloud.fault("delay", seconds=60.0)
    begun = time.monotonic()
    assert refusal(aci.get)[0] == 404
    assert time.monotonic() - begun >= 60 / 200
    assert aci.cloud.control("DELETE", f"faults/{id_}") == (200, {"removed": id_})
    assert aci.cloud.control("DELETE", "faults") == (200, {"faults": []})
    assert aci.cloud.ledger()["calls"]["errors"] == {
        "ContainerGroups_Get InternalServerError": 1,
        "ContainerGroups_Get ExpiredAuthenticationToken": 1,
        "ContainerGroups_Get ResourceNotFound": 1,
    }


def test_an_answer_that_is_lost_is_to_a_call_that_was_done(aci: Aci) -> None:
    aci.cloud.fault("lost", action="ContainerGroups_CreateOrUpdate", times=1)
    with pytest.raises(ServiceResponseError):
        aci.begin(group(SLEEPS))
    assert aci.when("Running").provisioning_state == "Succeeded"


def test_a_fresh_group_that_no_list_has(aci: Aci) -> None:
    aci.cloud.fault("stale", seconds=1e6, times=1)
    aci.put(group(SLEEPS))
    assert aci.get().name == "one"
    assert list(aci.groups.list()) == []
    aci.cloud.control("POST", "time", {"skip": 1e6})
    assert [one.name for one in aci.groups.list()] == ["one"]


def test_no_capacity_is_told_at_once_or_by_the_operation(aci: Aci) -> None:
    aci.cloud.fault("no-capacity", times=1)
    status, code, words = aci.refused(group(SLEEPS))
    assert (status, code) == (409, "ServiceUnavailable")
    assert words.endswith("Resource requested: '1' CPU '1.5' GB memory 'Linux' OS")
    assert refusal(aci.get)[0] == 404
    aci.cloud.fault("no-capacity", times=1, flavour="fails")
    poller = aci.begin(group(SLEEPS))
    with pytest.raises(HttpResponseError, match="is not available in the location 'eastus'"):
        poller.result(PATIENCE)
    found = aci.get()
    assert (found.provisioning_state, found.instance_view.state) == ("Failed", "Failed")
    assert [one.name for one in found.instance_view.events] == ["InsufficientCapacity."]
    assert usage(aci)["StandardCores"] == (0, 100)
    assert aci.put(group(SLEEPS)).provisioning_state == "Succeeded"


def test_a_deployment_that_never_ends_fails_after_half_an_hour() -> None:
    with running(Settings(timing=Timing(stuck=20)), run_on="null") as cloud:
        aci = Aci(cloud)
        cloud.fault("never-starts", times=1)
        poller = aci.begin(group(SLEEPS, policy="Always"))
        with pytest.raises(HttpResponseError, match="within 30 minutes"):
            poller.result(PATIENCE)
        assert aci.get().provisioning_state == "Failed"
        # "Failed" is no state of groups of this policy.
        assert aci.get().instance_view.state == "Pending"


def test_a_group_that_is_said_to_run_while_its_containers_have_ended(aci: Aci) -> None:
    aci.cloud.fault("stays-running", times=1)
    aci.put(group(container("true")))
    until(lambda: aci.get().containers[0].instance_view.current_state.state == "Terminated")
    assert aci.get().instance_view.state == "Running"
    aci.groups.stop(RG, "one")
    aci.when("Stopped")
    aci.cloud.fault("stays-running", times=1, seconds=1e6)
    aci.put(group(container("true")), "two")
    until(lambda: aci.get("two").containers[0].instance_view.current_state.state == "Terminated")
    while aci.get("two").instance_view.state == "Running":
        aci.cloud.control("POST", "time", {"skip": 1e6})
    assert aci.get("two").instance_view.state == "Succeeded"


def test_an_evicted_spot_group_runs_again_whatever_its_policy(tmp_path: Any) -> None:
    runs = tmp_path / "runs"
    with running() as cloud:
        aci = Aci(cloud)
        given = group(shell(f"echo run >> {runs}; exec sleep 600"), priority="Spot")
        made = aci.put(given)
        assert made.priority == "Spot"
        aci.put(group(shell("exec sleep 600")), "regular")
        until(lambda: text(runs) == "run\n")
        evict = {"kind": "evict", "group": made.id}
        assert cloud.control("POST", "faults", evict)[0] == 201
        until(lambda: text(runs) == "run\nrun\n")
        found = aci.when("Running")
        assert [one.name for one in found.instance_view.events] == ["Evicted"]
        assert found.containers[0].instance_view.current_state.state == "Running"
        regular = {"kind": "evict", "group": aci.get("regular").id}
        assert cloud.control("POST", "faults", regular)[0] == 404
        cloud.fault("evict", times=1, seconds=1)
        aci.put(given, "two")
        until(lambda: aci.get("two").instance_view.events)
        found = aci.when("Running", "two")
        assert [one.name for one in found.instance_view.events] == ["Evicted"]


def test_faults_of_a_scenario_befall_the_same_by_the_same_seed() -> None:
    def refused(seed: int) -> list[bool]:
        faults = [Fault(kind="error", probability=0.5)]
        with running(Settings(seed=seed, faults=faults), run_on="null") as cloud:
            aci = Aci(cloud)
            return [refusal(aci.get)[0] == 500 for _ in range(20)]

    assert refused(1) == refused(1) != refused(2)


def test_what_it_would_have_cost() -> None:
    with running(run_on="null") as cloud:
        aci = Aci(cloud)
        assert cloud.ledger()["groups"] == []
        aci.put(group(container("true", cpu=2.0, memory=4.0)))
        aci.when("Succeeded")
        aci.put(group(container("true"), priority="Spot"), "spot")
        aci.when("Succeeded", "spot")
        aci.groups.begin_delete(RG, "one").result(PATIENCE)
        told = cloud.ledger()
        one, spot = told["groups"]
        assert (one["kind"], spot["kind"]) == ("standard", "spot")
        assert one["group"].endswith("/containerGroups/one")
        # Of the images' download on, which takes 12 seconds.
        assert one["vcpuSeconds"] >= 24
        assert one["gigabyteSeconds"] == pytest.approx(2 * one["vcpuSeconds"], abs=0.01)
        vcpu, memory = one["vcpuSeconds"] / 3600, one["gigabyteSeconds"] / 3600
        assert one["dollars"] == pytest.approx(vcpu * 0.0405 + memory * 0.00445, abs=1e-6)
        assert told["billed"]["dollars"] == pytest.approx(one["dollars"] + spot["dollars"])
        assert told["billed"]["simulated"] is True
        assert told["calls"]["byAction"]["ContainerGroups_CreateOrUpdate"] == 2
        # A group that has ended is no longer billed.
        assert cloud.ledger()["groups"] == told["groups"]
