"""`podbridge simulate`, as people start it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def simulate(*words: str, cloud: str = "aws") -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "podbridge.py"), "simulate", cloud, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_it_says_where_it_is_and_ends_with_ctrl_c() -> None:
    with simulate("--time-scale", "50") as process:
        lines = [process.stdout.readline() for _ in range(6)]
        assert lines[0].startswith("# AWS is simulated at http://127.0.0.1:")
        found = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines[1:])
        assert found["AWS_ACCESS_KEY_ID"] == "simulated"
        client = boto3.client(
            "sts",
            endpoint_url=found["AWS_ENDPOINT_URL"],
            region_name=found["AWS_REGION"],
            aws_access_key_id=found["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=found["AWS_SECRET_ACCESS_KEY"],
        )
        assert client.get_caller_identity()["Account"] == "123456789012"
        client.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert "nothing is billed" in process.stderr.read()


_SCRIPT = """
import os
from azure.identity import DefaultAzureCredential
from azure.mgmt.containerinstance import ContainerInstanceManagementClient
{}
with client:
    print(list(client.container_groups.list()))
"""


@pytest.mark.slow
def test_azure_says_how_its_sdk_comes_there() -> None:
    with simulate("--time-scale", "50", "--run-on", "null", cloud="azure") as process:
        lines = [process.stdout.readline() for _ in range(12)]
        assert lines[0].startswith("# Azure is simulated at https://127.0.0.1:")
        found = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines[1:9])
        told = "".join(line.removeprefix("# ") for line in lines[9:])
        environment = {name: value for name, value in os.environ.items() if "AZURE" not in name}
        script = [sys.executable, "-c", _SCRIPT.format(told)]
        ran = subprocess.run(
            script, env=environment | found, capture_output=True, text=True, check=False
        )
        assert (ran.stdout, ran.stderr) == ("[]\n", "")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert "containers are not run" in process.stderr.read()
    assert not Path(found["SSL_CERT_FILE"]).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cloud", "name"), [("aws", "AWS_ENDPOINT_URL"), ("azure", "ARM_ENDPOINT")]
)
def test_json_is_for_programs(cloud: str, name: str) -> None:
    with simulate("-o", "json", cloud=cloud) as process:
        text = ""
        while not text.endswith("}\n}\n"):
            text += process.stdout.readline()
        found = json.loads(text)
        assert found["endpoint"] == found["environment"][name]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.slow
def test_a_bad_scenario_is_told_by_field(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("timing: {pulling: -1}\nfautls: []\n")
    with simulate("--scenario", str(file)) as process:
        out, error = process.communicate(timeout=20)
    assert process.returncode == 2
    assert out == ""
    assert f"{file}: timing.pulling: found integer -1; allowed: greater than or equal to 0" in error
    assert f'{file}: fautls: unknown key; did you mean "faults"?' in error


@pytest.mark.slow
def test_a_bad_scenario_of_azure_is_told_by_field(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "creates: [-1, 300]\nlocations: [East US]\n"
        "faults: [{kind: evict, group: one}, {kind: evict, flavour: arm}]\n"
    )
    with simulate("--scenario", str(file), cloud="azure") as process:
        out, error = process.communicate(timeout=20)
    assert (process.returncode, out) == (2, "")
    assert f"{file}: creates[0]: found integer -1; allowed: greater than or equal to 0" in error
    assert f'{file}: locations[0]: found string "East US"' in error
    assert f"{file}: faults[1]: found a mapping: flavour arm is not for kind evict" in error
    file.write_text("faults: [{kind: evict, group: one}]\n")
    with simulate("--scenario", str(file), cloud="azure") as process:
        out, error = process.communicate(timeout=20)
    assert (process.returncode, out) == (2, "")
    assert f'{file}: faults[0].group: found string "one"; allowed: nothing' in error


@pytest.mark.slow
@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_help_stays_light(cloud: str) -> None:
    script = (
        f"import sys; sys.argv = ['podbridge', 'simulate', '{cloud}', '--help']\n"
        "import podbridge\n"
        "try: podbridge.main()\n"
        "except SystemExit: pass\n"
        "print([one for one in ('botocore', 'azure', 'aiohttp', 'adapters') if one in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert ran.stdout.splitlines()[-1] == "[]"
    assert "--time-scale" in ran.stdout
