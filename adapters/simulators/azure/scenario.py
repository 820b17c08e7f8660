"""Scenario files of Azure: besides fields, what no group can be named in."""

from __future__ import annotations

from pathlib import Path

from adapters.simulators.azure.settings import Settings
from adapters.simulators.common import scenario
from bridge.errors import Violation


def load(path: Path) -> Settings:
    """The settings of that file. Invalid with every mistake in it."""
    return scenario.load(path, Settings, _named)


def parse(text: str, name: str) -> Settings:
    """The settings of that text. Invalid."""
    return scenario.parse(text, name, Settings, _named)


def _named(settings: Settings, source: str) -> list[Violation]:
    wrong = []
    for index, fault in enumerate(settings.faults):
        if fault.group:
            words = f'found string "{fault.group}"; allowed: nothing, since no group is there yet'
            wrong.append(Violation(f"faults[{index}].group", words, source))
    return wrong
