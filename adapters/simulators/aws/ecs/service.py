"""ECS as one service: its parts, and the tags of everything in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from adapters.simulators.aws.ecs.clusters import Clusters
from adapters.simulators.aws.ecs.commands import Commands
from adapters.simulators.aws.ecs.definitions import Definitions
from adapters.simulators.aws.ecs.refusals import invalid
from adapters.simulators.aws.ecs.tasks import Parts, Tasks
from adapters.simulators.aws.ecs.world import World
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.clock import Clock

MAX_TAGS = 50


class Ecs:
    """Amazon ECS."""

    name: ClassVar[str] = "ecs"
    invalid: ClassVar[str] = "InvalidParameterException"

    def __init__(self, place: Place, clock: Clock) -> None:
        self.tasks = Tasks()
        self.definitions = Definitions(place, clock)
        self.clusters = Clusters(place, self.tasks.count)

    def connect(self, parts: Parts, world: Callable[[], World], base: Callable[[], str]) -> None:
        """Gives the tasks the rest of the account. `base` says where the server is."""
        self.tasks.connect(parts, world)
        self.commands = Commands(self.clusters, self.tasks, world, base)

    @property
    def operations(self) -> Mapping[str, Handler]:
        """All that is simulated."""
        return {
            **self.clusters.operations,
            **self.definitions.operations,
            **self.tasks.operations,
            **self.commands.operations,
            "TagResource": self._tag,
            "UntagResource": self._untag,
            "ListTagsForResource": self._list_tags,
        }

    def _tags_of(self, arn: str) -> list[Json]:
        kind, _, _ = arn.split(":", 5)[-1].partition("/")
        if kind == "task" and (task := self.tasks.find(arn)) is not None:
            return task.tags
        if kind == "task-definition" and (found := self.definitions.find(arn)) is not None:
            return found.tags
        if kind == "cluster":
            return self.clusters.find(arn).tags
        if kind not in ("task", "task-definition"):
            raise invalid(
                "Invalid resource ARN: tasks, task definitions and clusters have tags here."
            )
        raise ApiError("ResourceNotFoundException", "The specified resource is not found.")

    def _tag(self, given: Json) -> Json:
        tags = self._tags_of(given["resourceArn"])
        new = {one.get("key", ""): one.get("value", "") for one in given["tags"]}
        if any(key.lower().startswith("aws:") for key in new):
            raise invalid("Tag keys must not begin with aws:.")
        merged = {one["key"]: one["value"] for one in tags} | new
        if len(merged) > MAX_TAGS:
            raise invalid(f"A resource can have at most {MAX_TAGS} tags.")
        tags[:] = [{"key": key, "value": value} for key, value in merged.items()]
        return {}

    def _untag(self, given: Json) -> Json:
        tags = self._tags_of(given["resourceArn"])
        tags[:] = [one for one in tags if one["key"] not in given["tagKeys"]]
        return {}

    def _list_tags(self, given: Json) -> Json:
        return {"tags": list(self._tags_of(given["resourceArn"]))}
