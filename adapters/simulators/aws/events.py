"""EventBridge: rules of the default bus whose events go to SQS queues."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from adapters.simulators.aws import paging
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common import timestamps
from adapters.simulators.common.clock import Clock
from adapters.simulators.common.names import uuid_id

MAX_TARGETS = 5
"""Targets of a rule (quota of EventBridge)."""
_OPERATORS = frozenset({"prefix", "suffix", "anything-but", "exists", "equals-ignore-case"})


@dataclass(slots=True)
class Rule:
    """One rule."""

    name: str
    arn: str
    pattern: Json
    enabled: bool = True
    description: str = ""
    targets: dict[str, Json] = field(default_factory=dict)


def _validation(message: str) -> ApiError:
    return ApiError("ValidationException", message)


def _bad_pattern(reason: str) -> ApiError:
    return ApiError("InvalidEventPatternException", f"Event pattern is not valid. Reason: {reason}")


class Events:
    """All rules. `deliver` takes a queue's ARN and a message; False: there is no such queue.
    `times` says in how many seconds of the cloud's an event comes, once for each time it does."""

    name: ClassVar[str] = "events"
    invalid: ClassVar[str] = "ValidationException"

    def __init__(
        self,
        place: Place,
        clock: Clock,
        deliver: Callable[[str, str], bool],
        times: Callable[[], Sequence[float]] = lambda: (0.0,),
    ) -> None:
        self._place = place
        self._clock = clock
        self._deliver = deliver
        self._times = times
        self._rules: dict[str, Rule] = {}
        self._late: set[asyncio.Task[None]] = set()
        """Deliveries that are still to come."""

    async def close(self) -> None:
        """What has not come by now never does."""
        late = list(self._late)
        for one in late:
            one.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    @property
    def operations(self) -> Mapping[str, Handler]:
        """All that is simulated."""
        return {
            "DeleteRule": self._delete,
            "DescribeRule": self._describe,
            "ListRules": self._list,
            "ListTargetsByRule": self._list_targets,
            "PutRule": self._put,
            "PutTargets": self._put_targets,
            "RemoveTargets": self._remove_targets,
        }

    @property
    def has_rules(self) -> bool:
        """Whether anybody could want an event."""
        return bool(self._rules)

    def send(self, source: str, detail_type: str, resources: list[str], detail: Json) -> None:
        """An event of another service, to all that want it."""
        event = {
            "version": "0",
            "id": uuid_id(),
            "detail-type": detail_type,
            "source": source,
            "account": self._place.account,
            "time": timestamps.iso(self._clock.now())[:-5] + "Z",
            "region": self._place.region,
            "resources": resources,
            "detail": detail,
        }
        body = json.dumps(event)
        targets = [
            str(target["Arn"])
            for rule in self._rules.values()
            if rule.enabled and matches(rule.pattern, event)
            for target in rule.targets.values()
        ]
        for seconds in self._times() if targets else ():
            if not seconds:
                self._deliver_to(targets, body)
                continue
            late = asyncio.create_task(self._later(seconds, targets, body), name="late event")
            self._late.add(late)
            late.add_done_callback(self._late.discard)

    async def _later(self, seconds: float, targets: Sequence[str], body: str) -> None:
        await self._clock.sleep(seconds)
        self._deliver_to(targets, body)

    def _deliver_to(self, targets: Sequence[str], body: str) -> None:
        for arn in targets:
            self._deliver(arn, body)

    def _rule(self, given: Json) -> Rule:
        self._bus(given)
        name = given.get("Name") or given.get("Rule", "")
        if name not in self._rules:
            words = f"Rule {name} does not exist on EventBus default."
            raise ApiError("ResourceNotFoundException", words)
        return self._rules[name]

    def _bus(self, given: Json) -> None:
        bus = given.get("EventBusName", "default").rpartition("/")[2]
        if bus != "default":
            raise ApiError("ResourceNotFoundException", f"Event bus {bus} does not exist.")

    def _put(self, given: Json) -> Json:
        self._bus(given)
        if "ScheduleExpression" in given:
            raise _validation("Schedules are not simulated.")
        if "EventPattern" not in given:
            raise _validation("Parameter(s) EventPattern or ScheduleExpression must be specified.")
        try:
            pattern = json.loads(given["EventPattern"])
        except ValueError:
            raise _bad_pattern("it is no JSON") from None
        _check_pattern(pattern)
        name = given["Name"]
        old = self._rules.get(name)
        made = Rule(name, self._place.arn("events", f"rule/{name}"), pattern)
        made.enabled = given.get("State", "ENABLED") != "DISABLED"
        made.description = given.get("Description", "")
        made.targets = old.targets if old else {}
        self._rules[name] = made
        return {"RuleArn": made.arn}

    def _shown(self, one: Rule) -> Json:
        answer: Json = {
            "Name": one.name,
            "Arn": one.arn,
            "EventPattern": json.dumps(one.pattern),
            "State": "ENABLED" if one.enabled else "DISABLED",
            "EventBusName": "default",
        }
        return {**answer, "Description": one.description} if one.description else answer

    def _describe(self, given: Json) -> Json:
        return self._shown(self._rule(given))

    def _list(self, given: Json) -> Json:
        self._bus(given)
        prefix = given.get("NamePrefix", "")
        found = [
            self._shown(one) for name, one in sorted(self._rules.items()) if name.startswith(prefix)
        ]
        names = ("NextToken", "Limit")
        return paging.page(given, found, "Rules", limit=100, refuse=_validation, names=names)

    def _delete(self, given: Json) -> Json:
        self._bus(given)
        found = self._rules.get(given["Name"])
        if found is not None and found.targets:
            raise _validation("Rule can't be deleted since it has targets.")
        self._rules.pop(given["Name"], None)
        return {}

    def _put_targets(self, given: Json) -> Json:
        rule = self._rule(given)
        for one in given["Targets"]:
            if not one["Arn"].startswith("arn:aws:sqs:"):
                raise _validation(f"Only SQS queues are simulated as targets: {one['Arn']}")
            if one.keys() - {"Id", "Arn"}:
                raise _validation("Inputs, roles and parameters of targets are not simulated.")
        merged = {**rule.targets, **{one["Id"]: one for one in given["Targets"]}}
        if len(merged) > MAX_TARGETS:
            raise ApiError("LimitExceededException", "The requested resource exceeds the maximum"
                           " number allowed.")  # fmt: skip
        rule.targets = merged
        return {"FailedEntryCount": 0, "FailedEntries": []}

    def _remove_targets(self, given: Json) -> Json:
        targets = self._rule(given).targets
        failed = [
            {
                "TargetId": id_,
                "ErrorCode": "ResourceNotFoundException",
                "ErrorMessage": f"Rule does not have target {id_}.",
            }
            for id_ in given["Ids"]
            if targets.pop(id_, None) is None
        ]
        return {"FailedEntryCount": len(failed), "FailedEntries": failed}

    def _list_targets(self, given: Json) -> Json:
        found = list(self._rule(given).targets.values())
        return {"Targets": found} if found else {}


def _check_pattern(pattern: Any) -> None:
    if not isinstance(pattern, dict) or not pattern:
        raise _bad_pattern("a pattern is an object with at least one member")
    for key, wanted in pattern.items():
        if isinstance(wanted, dict):
            _check_pattern(wanted)
        elif not isinstance(wanted, list) or not wanted:
            raise _bad_pattern(f'"{key}" must be an object or an array')
        else:
            for one in wanted:
                if isinstance(one, dict) and not one.keys() <= _OPERATORS:
                    raise _bad_pattern(f'"{key}": {", ".join(sorted(one))} is not simulated')


def matches(pattern: Json, event: Any) -> bool:
    """Whether an event has all that the pattern asks for. Pure."""
    for key, wanted in pattern.items():
        found = event.get(key) if isinstance(event, dict) else None
        if isinstance(wanted, dict):
            if not matches(wanted, found):
                return False
        elif not any(_one(rule, found) for rule in wanted):
            return False
    return True


def _one(rule: Any, found: Any) -> bool:
    if isinstance(found, list):
        return any(_one(rule, item) for item in found)
    if not isinstance(rule, dict):
        return bool(rule == found)
    ((operator, value),) = rule.items()
    if operator == "exists":
        return bool((found is not None) == value)
    if operator == "anything-but":
        return found is not None and found not in (value if isinstance(value, list) else [value])
    if not isinstance(found, str):
        return False
    if operator == "prefix":
        return found.startswith(value)
    if operator == "suffix":
        return found.endswith(value)
    return found.lower() == str(value).lower()
