"""Backends that bill, on plain processes: found beside the real ones by the command that is run.

`paid` has an account of its own; `clouded` has one on a simulated AWS only, and asks it who it is.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from e2e_kit import PATIENCE, ROOT, Done, Going, Place

PAID = """
from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import ClassVar

from pydantic import BaseModel

from adapters import process
from bridge.adapter import Finding, Quote, Severity

HOURLY = Decimal(36)  # a cent a second


class Options(BaseModel):
    region: str = "here-1"


class Adapter(process.Adapter):
    type: ClassVar[str] = "paid"
    account = "4711"

    def __init__(self, name, options):
        super().__init__(name, process.Options())
        self.region = options.region

    def quote(self, workload):
        size = workload.containers[0].resources.requests
        billed = {"cpu": 250, "memory": 512 * 2**20}
        known = self.region != "nowhere-1"
        return Quote(
            self.account, self.region, size, billed, HOURLY if known else None,
            priced_on=date(2026, 11, 22), source="https://example.com", least=60.0,
            words="" if known else "no price is known for nowhere-1",
        )

    async def refresh_prices(self):
        return "read 2 prices of here-1"

    async def verify(self):
        return [
            Finding(Severity.OK, "account", "it is there"),
            Finding(Severity.PROBLEM, "subnet s-1", "it has no way out", "cloud make-route s-1"),
        ]
"""
CLOUDED = """
from __future__ import annotations

import asyncio
from typing import ClassVar

import boto3
from pydantic import BaseModel

from adapters import paid

SIMULATOR = "aws"


class Options(BaseModel):
    endpoint: str
    region: str
    key: str
    secret: str


async def furnish(endpoint, environment, run_on):
    return {
        "endpoint": endpoint,
        "region": environment["AWS_REGION"],
        "key": environment["AWS_ACCESS_KEY_ID"],
        "secret": environment["AWS_SECRET_ACCESS_KEY"],
    }


class Adapter(paid.Adapter):
    type: ClassVar[str] = "clouded"

    def __init__(self, name, options):
        super().__init__(name, options)
        self.options = options

    async def open(self):
        self.account = await asyncio.to_thread(self._who)
        await super().open()

    def _who(self):
        client = boto3.Session().client(
            "sts", endpoint_url=self.options.endpoint, region_name=self.options.region,
            aws_access_key_id=self.options.key, aws_secret_access_key=self.options.secret,
        )
        try:
            return client.get_caller_identity()["Account"]
        finally:
            client.close()
"""
_MAIN = """
import sys
import adapters
adapters.__path__.append(sys.argv.pop(1))
from podbridge import main
main()
"""


class PaidPlace(Place):
    """A place whose commands know these backends too."""

    def command(self, *words: str) -> list[str]:
        """A command's words."""
        folder = self.path / "adapters"
        folder.mkdir(exist_ok=True)
        (folder / "paid.py").write_text(PAID)
        (folder / "clouded.py").write_text(CLOUDED)
        return [sys.executable, "-c", _MAIN, str(folder), *words]

    @property
    def surroundings(self) -> dict[str, str]:
        """The environment, in which no container engine answers."""
        return {**self.environment, "DOCKER_HOST": f"unix://{self.path}/no-engine"}

    def do(self, *words: str, code: int = 0, env: Mapping[str, str] | None = None) -> Done:
        """A command to its end; fails where it does not exit with `code`."""
        ended = subprocess.run(
            self.command(*words),
            cwd=ROOT,
            env={**self.surroundings, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        done = Done(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
        assert "Traceback" not in done.err, done.said
        assert done.code == code, done.said
        return done

    def begin(self, *words: str) -> Going:
        """A command that goes on."""
        out, err = self.path / "going.out", self.path / "going.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                self.command(*words),
                cwd=ROOT,
                env=self.surroundings,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        going = Going(process, out, err)
        self.going.append(going)
        return going

    def do_on_terminal(self, answer: str, *words: str) -> tuple[int, str]:
        """(exit code, all of its words) of a command on a terminal, where `answer` is typed as soon
        as it asks."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            self.command(*words),
            cwd=ROOT,
            env={**self.surroundings, "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        said, answered = b"", False
        try:
            while piece := _read(ours):
                said += piece
                if b"[y/N]" in said and not answered:
                    answered = True
                    os.write(ours, f"{answer}\n".encode())
            return process.wait(PATIENCE), said.decode()
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def words(done: Done) -> list[str]:
    """Its lines beside the output, but for those that only a busy machine has."""
    return [line for line in done.err.splitlines() if not line.startswith("waiting for backend")]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:
        # EIO: the last who had it open has gone.
        return b""


@pytest.fixture
def paid(tmp_path: Path) -> Iterator[PaidPlace]:
    """A place of its own, in which afterwards nothing may be left."""
    made = PaidPlace(tmp_path)
    yield made
    made.close()
