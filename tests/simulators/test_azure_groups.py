"""Container groups on the simulated Azure, by Azure's own SDK: their life, and how it is told."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.containerinstance import models as m
from azure_kit import PATIENCE, RG, Aci, container, group, refusal, running, shell, text, until

from adapters.simulators.azure import Settings, Timing

pytestmark = pytest.mark.slow


@pytest.fixture
def aci() -> Iterator[Aci]:
    # What SIGTERM ends is never so slow, however busy the machine is, that SIGKILL comes.
    with running(Settings(timing=Timing(grace=6000.0))) as cloud:
        yield Aci(cloud)


def test_the_plain_life_cycle(aci: Aci) -> None:
    made = aci.put(group(shell("echo hello; sleep 60")))
    assert (made.provisioning_state, made.instance_view.state) == ("Succeeded", "Running")
    assert [one.name for one in aci.groups.list()] == ["one"]
    assert aci.get().containers[0].instance_view.current_state.state == "Running"
    until(lambda: aci.log() == "hello\n")
    aci.groups.begin_delete(RG, "one").result(PATIENCE)
    assert list(aci.groups.list()) == []
    assert refusal(aci.get)[:2] == (404, "ResourceNotFound")


def test_a_put_goes_on_behind_its_answer() -> None:
    with running(Settings(timing=Timing(pending=3600.0)), scale=1.0) as cloud:
        aci = Aci(cloud)
        answers = []
        poller = aci.groups.begin_create_or_update(
            RG, "one", group(shell("sleep 60")), raw_response_hook=answers.append
        )
        first = answers[0].http_response
        assert first.status_code == 201
        place = first.headers["Azure-AsyncOperation"]
        assert "/locations/eastus/operations/" in place
        assert first.headers["x-ms-request-id"]
        body = json.loads(first.text())["properties"]
        assert (body["provisioningState"], body["instanceView"]["state"]) == ("Pending", "Pending")
        signed = cloud.signed()
        assert cloud.http("GET", place, headers=signed)[1]["status"] == "InProgress"
        assert refusal(lambda: aci.begin(group(shell("sleep 60")))) == (
            409,
            "ContainerGroupTransitioning",
            "The container group 'one' is still transitioning, please retry later.",
        )
        assert refusal(lambda: aci.groups.begin_delete(RG, "one"))[0] == 409
        while not poller.done():
            cloud.control("POST", "time", {"skip": 3600})
        assert cloud.http("GET", place, headers=signed)[1]["status"] == "Succeeded"


def test_a_delete_is_known_to_be_over_by_its_operation() -> None:
    with running(Settings(timing=Timing(deleting=1e9))) as cloud:
        aci = Aci(cloud)
        aci.put(group(shell("sleep 60")))
        answers = []
        poller = aci.groups.begin_delete(RG, "one", raw_response_hook=answers.append)
        first = answers[0].http_response
        assert first.status_code == 202
        assert "/operationResults/" in first.headers["Location"]
        assert aci.get().provisioning_state == "Deleting"
        # The containers have to end before that time begins.
        while not poller.done():
            cloud.control("POST", "time", {"skip": 1e9})
        assert refusal(aci.get)[0] == 404
        gone = []
        aci.groups.begin_delete(RG, "one", raw_response_hook=gone.append).result(PATIENCE)
        assert gone[0].http_response.status_code == 204


def test_the_same_put_runs_everything_again(aci: Aci, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    given = group(shell(f"echo run >> {log}"))
    answers = []
    for _ in range(2):
        aci.groups.begin_create_or_update(
            RG, "one", given, raw_response_hook=answers.append
        ).result(PATIENCE)
        aci.when("Succeeded")
    assert log.read_text() == "run\nrun\n"
    puts = [one for one in answers if one.http_request.method == "PUT"]
    assert [one.http_response.status_code for one in puts] == [201, 200]


def test_what_cannot_be_changed_in_place(aci: Aci) -> None:
    aci.put(group(shell("sleep 60")))
    status, code, words = aci.refused(group(shell("sleep 60", cpu=2.0)))
    assert (status, code) == (400, "InvalidContainerGroupUpdate")
    assert words.startswith("The updates on container group 'one' are invalid.")
    assert aci.refused(group(shell("sleep 60"), policy="Always"))[1] == code
    moved = aci.refused(group(shell("sleep 60"), location="westus"))
    assert moved[:2] == (409, "InvalidResourceLocation")


def test_a_list_has_no_states_and_a_get_has_events(aci: Aci) -> None:
    aci.put(group(shell("sleep 60"), tags={"owner": "me"}))
    (listed,) = aci.groups.list_by_resource_group(RG)
    assert listed.instance_view is None
    assert listed.containers[0].instance_view is None
    assert (listed.provisioning_state, listed.tags) == ("Succeeded", {"owner": "me"})
    assert list(aci.groups.list_by_resource_group("other")) == []
    view = aci.get().containers[0].instance_view
    assert [one.name for one in view.events] == ["Pulling", "Pulled", "Started"]
    assert view.restart_count == 0
    assert view.current_state.start_time is not None


def test_long_lists_have_pages() -> None:
    with running(Settings(page=2), run_on="null") as cloud:
        aci = Aci(cloud)
        names = [f"group-{number}" for number in range(5)]
        for name in names:
            aci.put(group(container("sleep", "600")), name)
        answers = []
        found = aci.groups.list(raw_response_hook=answers.append)
        assert [one.name for one in found] == names
        assert len(answers) == 3


@pytest.mark.parametrize(("code", "state"), [(0, "Succeeded"), (7, "Failed")])
def test_never_runs_once(aci: Aci, code: int, state: str) -> None:
    aci.put(group(shell(f"exit {code}")))
    ended = aci.when(state)
    view = ended.containers[0].instance_view
    assert (view.current_state.state, view.current_state.exit_code) == ("Terminated", code)
    assert view.current_state.detail_status == ("Error" if code else "Completed")
    assert view.current_state.finish_time >= view.current_state.start_time
    assert view.restart_count == 0


def test_a_group_runs_on_as_long_as_one_container_does(aci: Aci) -> None:
    aci.put(group(shell("exit 3", name="short"), shell("sleep 60", name="long")))
    until(lambda: aci.get().containers[0].instance_view.current_state.exit_code == 3)
    assert aci.get().instance_view.state == "Running"


def test_on_failure_runs_until_it_succeeds(aci: Aci, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    script = f"echo x >> {tries}; test $(wc -l < {tries}) -ge 3"
    aci.put(group(shell(script), policy="OnFailure"))
    view = aci.when("Succeeded").containers[0].instance_view
    assert (view.restart_count, view.current_state.exit_code) == (2, 0)
    assert (view.previous_state.state, view.previous_state.exit_code) == ("Terminated", 1)
    assert "BackOff" in [one.name for one in view.events]


def test_always_runs_again_also_after_success(aci: Aci, tmp_path: Path) -> None:
    aci.put(group(shell("exit 0"), policy="Always"))
    until(lambda: aci.get().containers[0].instance_view.restart_count >= 2)
    assert aci.get().instance_view.state == "Running"


def test_init_containers_come_first_and_share_volumes(aci: Aci) -> None:
    work = m.Volume(name="work", empty_dir={})
    secret = m.Volume(name="secret", secret={"key": base64.b64encode(b"hidden").decode()})
    mounts = [m.VolumeMount(name="work", mount_path="/work")]
    first = m.InitContainerDefinition(
        name="first",
        image="example/image",
        command=["sh", "-c", "echo from first > /work/file"],
        volume_mounts=mounts,
    )
    main = shell(
        "cat /work/file /secret/key; echo; echo $SHOWN $HIDDEN $EMPTY.",
        volume_mounts=[*mounts, m.VolumeMount(name="secret", mount_path="/secret")],
        environment_variables=[
            m.EnvironmentVariable(name="SHOWN", value="shown"),
            m.EnvironmentVariable(name="HIDDEN", secure_value="value"),
            m.EnvironmentVariable(name="EMPTY", value=""),
        ],
    )
    given = group(main, init_containers=[first], volumes=[work, secret])
    aci.put(given)
    ended = aci.when("Succeeded")
    assert aci.log() == "from first\nhidden\nshown value .\n"
    assert ended.init_containers[0].instance_view.current_state.exit_code == 0
    told = str(ended.as_dict())
    assert "aGlkZGVu" not in told
    assert "'value': 'value'" not in told
    names = [one.name for one in ended.containers[0].environment_variables]
    assert names == ["SHOWN", "HIDDEN", "EMPTY"]


def test_an_init_container_that_fails_fails_its_group(aci: Aci) -> None:
    first = m.InitContainerDefinition(
        name="first", image="example/image", command=["sh", "-c", "exit 4"]
    )
    poller = aci.begin(group(shell("true"), init_containers=[first]))
    with pytest.raises(HttpResponseError, match="init container first has failed"):
        poller.result(PATIENCE)
    ended = aci.get()
    assert (ended.provisioning_state, ended.instance_view.state) == ("Failed", "Failed")
    assert ended.init_containers[0].instance_view.current_state.exit_code == 4
    assert ended.containers[0].instance_view.current_state.state == "Waiting"


def test_stopped_started_and_restarted(aci: Aci, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    given = group(shell(f"echo run >> {runs}; exec sleep 60"))
    aci.put(given)
    until(lambda: text(runs) == "run\n")
    aci.groups.stop(RG, "one")
    stopped = aci.when("Stopped")
    state = stopped.containers[0].instance_view.current_state
    assert (state.state, state.exit_code) == ("Terminated", 143)
    aci.groups.begin_start(RG, "one").result(PATIENCE)
    aci.when("Running")
    until(lambda: text(runs) == "run\nrun\n")
    aci.groups.begin_restart(RG, "one").result(PATIENCE)
    aci.when("Running")
    until(lambda: text(runs) == "run\nrun\nrun\n")


def test_a_group_that_is_stopped_between_two_runs_runs_no_more(aci: Aci, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    aci.put(group(shell(f"echo run >> {runs}"), policy="Always"))
    until(lambda: text(runs).count("run") >= 2)
    aci.groups.stop(RG, "one")
    state = aci.when("Stopped").containers[0].instance_view.current_state
    assert (state.state, state.exit_code) in (("Terminated", 0), ("Terminated", 143))
    before = runs.read_text()
    # Whatever ran on would have run often until this one is done.
    aci.put(group(shell("sleep 0.5")), "two")
    aci.when("Succeeded", "two")
    assert runs.read_text() == before


def test_tags_are_changed_without_running_anything_again(aci: Aci) -> None:
    aci.put(group(shell("sleep 60")))
    began = aci.get().containers[0].instance_view.current_state.start_time
    aci.groups.update(RG, "one", m.Resource(tags={"a": "b"}))
    aci.groups.update(RG, "one", m.Resource())
    found = aci.get()
    assert found.tags == {"a": "b"}
    assert found.containers[0].instance_view.current_state.start_time == began


def test_a_liveness_probe_ends_what_does_not_live(aci: Aci) -> None:
    probe = m.ContainerProbe(
        exec_property=m.ContainerExec(command=["false"]), period_seconds=1, failure_threshold=2
    )
    aci.put(group(shell("exec sleep 60", liveness_probe=probe)))
    view = aci.when("Failed").containers[0].instance_view
    assert view.current_state.exit_code == 143
    assert {"Unhealthy", "Killing"} <= {one.name for one in view.events}


def test_a_share_of_azure_files_is_a_folder_of_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "account" / "share").mkdir(parents=True)
    share = m.AzureFileVolume(
        share_name="share", storage_account_name="account", storage_account_key="key"
    )
    missing = m.AzureFileVolume(share_name="none", storage_account_name="account")
    mounts = [m.VolumeMount(name="files", mount_path="/files")]
    with running(Settings(azure_files=tmp_path)) as cloud:
        aci = Aci(cloud)
        main = shell("echo kept > /files/file", volume_mounts=mounts)
        aci.put(group(main, volumes=[m.Volume(name="files", azure_file=share)]))
        told = aci.when("Succeeded").volumes[0].azure_file
        assert (told.share_name, told.storage_account_key) == ("share", None)
        assert (tmp_path / "account" / "share" / "file").read_text() == "kept\n"
        poller = aci.begin(group(main, volumes=[m.Volume(name="files", azure_file=missing)]), "two")
        with pytest.raises(HttpResponseError, match="mount error"):
            poller.result(PATIENCE)
        assert "FailedMount" in [one.name for one in aci.get("two").instance_view.events]
