"""Token buckets: what the documentation says of how often an account may call.

Source of the ECS and Fargate rows: "Request throttling for the Amazon ECS API" and "Amazon ECS
endpoints and quotas" in AWS's documentation; of GetLogEvents: "CloudWatch Logs quotas" (the lowest
of the regional values).
"""

from __future__ import annotations

from collections.abc import Mapping

from adapters.simulators.aws.errors import ApiError
from adapters.simulators.common.buckets import Levels, Limit

LIMITS: Mapping[str, Limit] = {
    "ecs-definitions": Limit(20, 1),
    "ecs-describe-definition": Limit(50, 20),
    "ecs-delete-definitions": Limit(5, 1),
    "ecs-tasks": Limit(100, 40),
    "ecs-read-tasks": Limit(100, 20),
    "ecs-tags": Limit(20, 10),
    "fargate-calls": Limit(20, 20),
    "fargate-launches": Limit(100, 20),
    "fargate-spot-launches": Limit(100, 20),
    "logs-read": Limit(10, 10),
}

FAMILIES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("ecs", "RegisterTaskDefinition"): ("ecs-definitions",),
    ("ecs", "DeregisterTaskDefinition"): ("ecs-definitions",),
    ("ecs", "DescribeTaskDefinition"): ("ecs-describe-definition",),
    ("ecs", "DeleteTaskDefinitions"): ("ecs-delete-definitions",),
    ("ecs", "RunTask"): ("ecs-tasks", "fargate-calls"),
    ("ecs", "StopTask"): ("ecs-tasks",),
    ("ecs", "ExecuteCommand"): ("ecs-tasks",),
    ("ecs", "DescribeTasks"): ("ecs-read-tasks",),
    ("ecs", "ListTasks"): ("ecs-read-tasks",),
    ("ecs", "TagResource"): ("ecs-tags",),
    ("ecs", "UntagResource"): ("ecs-tags",),
    ("logs", "GetLogEvents"): ("logs-read",),
}
"""The buckets that a call takes a token from."""


def throttled() -> ApiError:
    """The throttle that the SDK knows."""
    return ApiError("ThrottlingException", "Rate exceeded")


class Buckets(Levels):
    """One account's buckets."""

    def call(self, service: str, action: str) -> None:
        """Takes what one call costs. ThrottlingException."""
        self.take(dict.fromkeys(FAMILIES.get((service, action), ()), 1.0))

    def take(self, wanted: Mapping[str, float]) -> None:
        """Takes from all of the buckets or, where one has too little, from none.
        ThrottlingException."""
        if not self.takes(wanted):
            raise throttled()
