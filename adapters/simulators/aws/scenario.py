"""Scenario files of AWS: besides fields, names that only AWS knows."""

from __future__ import annotations

from pathlib import Path

from adapters.simulators.aws.buckets import LIMITS
from adapters.simulators.aws.models import SERVICES
from adapters.simulators.aws.settings import Settings
from adapters.simulators.common import scenario
from bridge.errors import Violation


def load(path: Path) -> Settings:
    """The settings of that file. Invalid with every mistake in it."""
    return scenario.load(path, Settings, _unknown_names)


def parse(text: str, name: str) -> Settings:
    """The settings of that text. Invalid."""
    return scenario.parse(text, name, Settings, _unknown_names)


def _unknown_names(settings: Settings, source: str) -> list[Violation]:
    wrong = []
    for name in settings.buckets:
        if name not in LIMITS:
            words = f'found string "{name}"; allowed: {", ".join(LIMITS)}'
            wrong.append(Violation(f"buckets.{name}", words, source))
    for index, fault in enumerate(settings.faults):
        if fault.task:
            words = f'found string "{fault.task}"; allowed: nothing, since no task is there yet'
            wrong.append(Violation(f"faults[{index}].task", words, source))
        if fault.service not in (*SERVICES, "*"):
            words = f'found string "{fault.service}"; allowed: *, {", ".join(SERVICES)}'
            wrong.append(Violation(f"faults[{index}].service", words, source))
    return wrong
