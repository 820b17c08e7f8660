"""podFailurePolicy and successPolicy: which rule a pod, or a set of indexes, meets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from bridge.local.jobs.indexes import parse_indexes
from bridge.pods import Manifest


@dataclass(frozen=True, slots=True)
class Verdict:
    """What podFailurePolicy says of a pod.

    `action` is FailJob, FailIndex, Ignore or Count; "" where no rule matched, which counts too.
    `why` is for a person.
    """

    action: str = ""
    why: str = ""

    @property
    def counts(self) -> bool:
        """Whether the failure counts towards backoffLimit and backoffLimitPerIndex."""
        return self.action != "Ignore"


NO_RULE = Verdict()


def judge_failure(rules: Iterable[Mapping[str, Any]], pod: Manifest) -> Verdict:
    """Find the first rule that a pod meets; container codes are looked at before init codes."""
    status = pod.get("status") or {}
    for number, rule in enumerate(rules):
        codes = rule.get("onExitCodes")
        found = (
            _exit_code_met(codes, status)
            if codes is not None
            else _condition_met(rule.get("onPodConditions") or (), status)
        )
        if found:
            name = pod["metadata"]["name"]
            return Verdict(rule["action"], f"pod {name}: {found} (podFailurePolicy rule {number})")
    return NO_RULE


def _exit_code_met(requirement: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    name, values = requirement.get("containerName"), requirement["values"]
    wanted = requirement["operator"] == "In"
    for key in ("containerStatuses", "initContainerStatuses"):
        for container in status.get(key) or ():
            ended = (container.get("state") or {}).get("terminated")
            if not ended or (name is not None and name != container["name"]):
                continue
            code = ended.get("exitCode", 0)
            if code != 0 and (code in values) == wanted:
                return f"container {container['name']} exited with code {code}"
    return ""


def _condition_met(patterns: Sequence[Mapping[str, Any]], status: Mapping[str, Any]) -> str:
    for condition in status.get("conditions") or ():
        for pattern in patterns:
            # A pattern's status defaults to True in the API.
            if condition["type"] == pattern["type"] and condition["status"] == pattern.get(
                "status", "True"
            ):
                return f"condition {condition['type']} is {condition['status']}"
    return ""


def success_rule_met(
    rules: Iterable[Mapping[str, Any]], succeeded: AbstractSet[int], completions: int
) -> int | None:
    """Number of the first successPolicy rule that the succeeded indexes meet, None if none is."""
    if not succeeded:
        return None
    for number, rule in enumerate(rules):
        count, text = rule.get("succeededCount"), rule.get("succeededIndexes")
        if text is None:
            if count is not None and len(succeeded) >= count:
                return number
            continue
        wanted = parse_indexes(text, completions)
        have = len(wanted & succeeded)
        if wanted and (have == len(wanted) or (count is not None and have >= count)):
            return number
    return None
