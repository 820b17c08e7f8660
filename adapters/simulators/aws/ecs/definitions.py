"""Task definitions: families, revisions, and what becomes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from adapters.simulators.aws import paging
from adapters.simulators.aws.ecs import sizes
from adapters.simulators.aws.ecs.checks import check_definition
from adapters.simulators.aws.ecs.refusals import CONCURRENT, client, invalid
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.clock import Clock

REGISTERING = 0.1
"""Seconds for which a family takes no second registration: our own choice, AWS names none."""
_LISTS = (
    "environment", "mountPoints", "portMappings", "systemControls", "volumesFrom",
)  # fmt: skip
"""Members of a container that the answer has as empty lists where nothing was given."""


@dataclass(slots=True)
class Definition:
    """One revision."""

    family: str
    revision: int
    content: Json
    """As DescribeTaskDefinition answers, without tags."""
    tags: list[Json] = field(default_factory=list)

    @property
    def status(self) -> str:
        """ACTIVE, INACTIVE, DELETE_IN_PROGRESS."""
        return str(self.content["status"])


class Definitions:
    """All revisions of all families."""

    def __init__(self, place: Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self._families: dict[str, list[Definition]] = {}
        self._registering: dict[str, float] = {}

    @property
    def operations(self) -> Mapping[str, Handler]:
        """Those of ECS that are about task definitions."""
        return {
            "RegisterTaskDefinition": self.register,
            "DescribeTaskDefinition": self.describe,
            "ListTaskDefinitions": self.list_revisions,
            "ListTaskDefinitionFamilies": self.list_families,
            "DeregisterTaskDefinition": self.deregister,
            "DeleteTaskDefinitions": self.delete,
        }

    def find(self, name: str) -> Definition | None:
        """By `family`, `family:revision` or ARN; without a revision the latest active one."""
        family, _, revision = name.removeprefix(self._arn("")).partition(":")
        found = self._families.get(family, [])
        if not revision:
            return next((one for one in reversed(found) if one.status == "ACTIVE"), None)
        return next((one for one in found if str(one.revision) == revision), None)

    def _arn(self, name: str) -> str:
        return self._place.arn("ecs", f"task-definition/{name}")

    def register(self, given: Json) -> Json:
        """RegisterTaskDefinition."""
        check_definition({key: value for key, value in given.items() if key != "tags"})
        family = given["family"]
        since = self._registering.get(family)
        if since is not None and self._clock.passed(since) < REGISTERING:
            raise client(CONCURRENT)
        self._registering[family] = self._clock.now()
        revisions = self._families.setdefault(family, [])
        content = self._complete(given, revisions[-1].revision + 1 if revisions else 1)
        made = Definition(family, content["revision"], content, given.get("tags", []))
        revisions.append(made)
        return self._answer(made)

    def _answer(self, one: Definition, with_tags: bool = True) -> Json:
        answer: Json = {"taskDefinition": one.content}
        if with_tags and one.tags:
            answer["tags"] = one.tags
        return answer

    def _complete(self, given: Json, revision: int) -> Json:
        content = json.loads(json.dumps({k: v for k, v in given.items() if k != "tags"}))
        for name, amount in (("cpu", sizes.cpu_units), ("memory", sizes.mebibytes)):
            if name in content:
                content[name] = str(amount(content[name]) or content[name])
        for one in content["containerDefinitions"]:
            one.setdefault("cpu", 0)
            one.setdefault("essential", True)
            for name in _LISTS:
                one.setdefault(name, [])
        content.setdefault("volumes", [])
        content.setdefault("placementConstraints", [])
        compatible = ["EC2"]
        if "FARGATE" in given.get("requiresCompatibilities", ()):
            compatible.append("FARGATE")
        content |= {
            "taskDefinitionArn": self._arn(f"{given['family']}:{revision}"),
            "revision": revision,
            "status": "ACTIVE",
            "compatibilities": compatible,
            "registeredAt": self._clock.now(),
            "registeredBy": f"arn:aws:iam::{self._place.account}:user/simulated",
        }
        result: Json = content
        return result

    def describe(self, given: Json) -> Json:
        """DescribeTaskDefinition."""
        found = self.find(given["taskDefinition"])
        if found is None:
            raise client("Unable to describe task definition.")
        return self._answer(found, "TAGS" in given.get("include", ()))

    def list_revisions(self, given: Json) -> Json:
        """ListTaskDefinitions."""
        status = given.get("status", "ACTIVE")
        prefix = given.get("familyPrefix")
        found = [
            one
            for family, revisions in sorted(self._families.items())
            for one in revisions
            if one.status == status and prefix in (None, family)
        ]
        if given.get("sort") == "DESC":
            found.reverse()
        arns = [one.content["taskDefinitionArn"] for one in found]
        return paging.page(given, arns, "taskDefinitionArns", limit=100, refuse=invalid)

    def list_families(self, given: Json) -> Json:
        """ListTaskDefinitionFamilies."""
        status: str = given.get("status", "ALL")
        prefix = given.get("familyPrefix", "")

        def wanted(revisions: Iterable[Definition]) -> bool:
            active = any(one.status == "ACTIVE" for one in revisions)
            return status == "ALL" or active == (status == "ACTIVE")

        names = sorted(
            family
            for family, revisions in self._families.items()
            if family.startswith(prefix) and revisions and wanted(revisions)
        )
        return paging.page(given, names, "families", limit=100, refuse=invalid)

    def deregister(self, given: Json) -> Json:
        """DeregisterTaskDefinition."""
        name = given["taskDefinition"]
        if not re.search(r":\d+$", name):
            raise client("Revision is missing: give family:revision or the ARN of a revision.")
        found = self.find(name)
        if found is None or found.status == "DELETE_IN_PROGRESS":
            raise client("The specified task definition does not exist.")
        found.content["status"] = "INACTIVE"
        found.content["deregisteredAt"] = self._clock.now()
        return {"taskDefinition": found.content}

    def delete(self, given: Json) -> Json:
        """DeleteTaskDefinitions: at most 10 a call, only what was deregistered."""
        if len(given["taskDefinitions"]) > 10:
            raise invalid("At most 10 task definitions can be deleted with one call.")
        gone, failures = [], []
        for name in given["taskDefinitions"]:
            found = self.find(name) if re.search(r":\d+$", name) else None
            if found is None:
                reason = "The specified task definition does not exist."
            elif found.status == "ACTIVE":
                reason = "The specified task definition is still in ACTIVE status. Please"
                reason += " deregister the target and try again."
            else:
                found.content["status"] = "DELETE_IN_PROGRESS"
                found.content["deleteRequestedAt"] = self._clock.now()
                gone.append(found.content)
                continue
            failures.append({"arn": name, "reason": reason})
        return {"taskDefinitions": gone, "failures": failures}
