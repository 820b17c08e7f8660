"""What pytest is given for a run: the account, and a gate that money closes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters.fargate import Options
from tools.real import work
from tools.real.account import Made, Watched
from tools.real.meter import Meter
from tools.real.recorder import Recorder

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT / "tests" / "adapters" / "real_fargate.py"
"""Nothing collects it by itself: its name is no test's."""


class Collected:
    """Which tests a selection has; nothing is run."""

    def __init__(self) -> None:
        self.tests: list[str] = []
        """Their names, with parameters: `test_ends_with_its_own_code[3]`."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """All that is selected."""
        self.tests = [one.name for one in session.items]


@dataclass
class Account:
    """What the suite's bench needs."""

    name: str
    options: Options
    image: str
    meter: Meter
    recorder: Recorder
    pace: float
    """Seconds between looks."""
    patience: float
    """Seconds after which a test gives up."""
    definitions: list[str] = field(default_factory=list)
    """ARNs of what was registered."""
    streams: list[str] = field(default_factory=list)
    """Names of the log streams of all tasks that were started."""

    def adapter(self) -> Watched:
        """Another one in the same place, not yet open."""
        return Watched(self.name, self.options, self.meter, self._attach)

    @property
    def made(self) -> Made:
        """What is to be removed at the end."""
        return Made(self.meter.running, self.definitions, self.streams)

    def _attach(self, session: Any) -> None:
        self.recorder.attach(session)
        events = session.events
        events.register("after-call.ecs.RegisterTaskDefinition", self._registered)
        events.register("after-call.ecs.RunTask", self._launched)

    def _registered(self, parsed: Any, **_: Any) -> None:
        if "taskDefinition" in parsed:
            self.definitions.append(parsed["taskDefinition"]["taskDefinitionArn"])

    def _launched(self, parsed: Any, **_: Any) -> None:
        for one in parsed.get("tasks") or ():
            name = f"pod/main/{one['taskArn'].rpartition('/')[2]}"
            if name not in self.streams:
                self.streams.append(name)


class Plugin:
    """One run of the suite."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.stopped = ""
        """Why no further test is begun; empty: none was held back."""

    @pytest.fixture
    def account(self) -> Account:
        """The account that the bench is on."""
        return self._account

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Holds back a test whose tasks could pass the limit, and all after it."""
        self._account.recorder.test = item.name
        if needed := work.TASKS.get(item.name.partition("[")[0], 1):
            meter = self._account.meter
            self.stopped = self.stopped or meter.refused or meter.lacks(needed)
            if self.stopped:
                item.session.shouldstop = self.stopped
                pytest.skip(self.stopped)
