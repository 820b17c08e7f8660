"""`podbridge simulate aws`, as people start it."""

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
def simulate(*words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "podbridge.py"), "simulate", "aws", *words],
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


@pytest.mark.slow
def test_json_is_for_programs() -> None:
    with simulate("-o", "json") as process:
        text = ""
        while not text.endswith("}\n}\n"):
            text += process.stdout.readline()
        found = json.loads(text)
        assert found["endpoint"] == found["environment"]["AWS_ENDPOINT_URL"]
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
def test_help_stays_light() -> None:
    script = (
        "import sys; sys.argv = ['podbridge', 'simulate', 'aws', '--help']\n"
        "import podbridge\n"
        "try: podbridge.main()\n"
        "except SystemExit: pass\n"
        "print([one for one in ('botocore', 'aiohttp', 'adapters') if one in sys.modules])"
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
