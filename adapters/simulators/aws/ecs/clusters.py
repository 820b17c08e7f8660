"""Clusters and the capacity providers that they may use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from adapters.simulators.aws import paging
from adapters.simulators.aws.ecs.refusals import invalid, no_cluster
from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.shapes import Json

PROVIDERS = ("FARGATE", "FARGATE_SPOT")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(slots=True)
class Cluster:
    """One cluster."""

    name: str
    arn: str
    providers: list[str] = field(default_factory=list)
    strategy: list[Json] = field(default_factory=list)
    settings: list[Json] = field(default_factory=list)
    configuration: Json | None = None
    tags: list[Json] = field(default_factory=list)
    status: str = "ACTIVE"


class Clusters:
    """All clusters. `count` says how many tasks of a cluster are (running, pending)."""

    def __init__(self, place: Place, count: Callable[[str], tuple[int, int]]) -> None:
        self._place = place
        self._count = count
        self._clusters: dict[str, Cluster] = {}

    @property
    def operations(self) -> Mapping[str, Handler]:
        """Those of ECS that are about clusters."""
        return {
            "CreateCluster": self.create,
            "DescribeClusters": self.describe,
            "ListClusters": self.list_all,
            "DeleteCluster": self.delete,
            "PutClusterCapacityProviders": self.put_providers,
        }

    def find(self, name: str | None) -> Cluster:
        """By name or ARN; without one `default`. ClusterNotFoundException."""
        found = self.look(name)
        if found is None or found.status != "ACTIVE":
            raise no_cluster()
        return found

    def look(self, name: str | None) -> Cluster | None:
        """The cluster, whatever its status; None where there never was one."""
        return self._clusters.get((name or "default").removeprefix(self._arn("")))

    def _arn(self, name: str) -> str:
        return self._place.arn("ecs", f"cluster/{name}")

    def create(self, given: Json) -> Json:
        """CreateCluster: again with the name of an active one answers with that one."""
        name = given.get("clusterName", "default")
        if not _NAME.fullmatch(name):
            raise invalid("Identifier was not a valid cluster name.")
        found = self._clusters.get(name)
        if found is None or found.status != "ACTIVE":
            providers = given.get("capacityProviders", [])
            strategy = given.get("defaultCapacityProviderStrategy", [])
            check_providers(providers)
            check_strategy(strategy, providers)
            found = Cluster(name, self._arn(name), providers, strategy)
            found.settings = given.get(
                "settings", [{"name": "containerInsights", "value": "disabled"}]
            )
            found.configuration = given.get("configuration")
            found.tags = given.get("tags", [])
            self._clusters[name] = found
        return {"cluster": self._shown(found, {"SETTINGS", "CONFIGURATIONS", "TAGS"})}

    def _shown(self, one: Cluster, include: set[str]) -> Json:
        running, pending = self._count(one.arn)
        answer: Json = {
            "clusterArn": one.arn,
            "clusterName": one.name,
            "status": one.status,
            "registeredContainerInstancesCount": 0,
            "runningTasksCount": running,
            "pendingTasksCount": pending,
            "activeServicesCount": 0,
            "statistics": [],
            "tags": one.tags if "TAGS" in include else [],
            "settings": one.settings if "SETTINGS" in include else [],
            "capacityProviders": one.providers,
            "defaultCapacityProviderStrategy": one.strategy,
        }
        if "CONFIGURATIONS" in include and one.configuration is not None:
            answer["configuration"] = one.configuration
        return answer

    def describe(self, given: Json) -> Json:
        """DescribeClusters."""
        found, failures = [], []
        names = given.get("clusters", ["default"])
        if len(names) > 100:
            raise invalid("Clusters cannot have more than 100 elements.")
        for name in names:
            one = self.look(name)
            if one is None:
                arn = name if name.startswith("arn:") else self._arn(name)
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                found.append(self._shown(one, set(given.get("include", ()))))
        return {"clusters": found, "failures": failures}

    def list_all(self, given: Json) -> Json:
        """ListClusters."""
        arns = [one.arn for one in self._clusters.values() if one.status == "ACTIVE"]
        return paging.page(given, arns, "clusterArns", limit=100, refuse=invalid)

    def delete(self, given: Json) -> Json:
        """DeleteCluster: refused while tasks are in it."""
        found = self.find(given["cluster"])
        if any(self._count(found.arn)):
            raise ApiError(
                "ClusterContainsTasksException",
                "The Cluster cannot be deleted while Tasks are active.",
            )
        found.status = "INACTIVE"
        return {"cluster": self._shown(found, set())}

    def put_providers(self, given: Json) -> Json:
        """PutClusterCapacityProviders."""
        found = self.find(given["cluster"])
        check_providers(given["capacityProviders"])
        check_strategy(given["defaultCapacityProviderStrategy"], given["capacityProviders"])
        found.providers = given["capacityProviders"]
        found.strategy = given["defaultCapacityProviderStrategy"]
        return {"cluster": self._shown(found, {"SETTINGS", "TAGS"})}


def check_providers(names: list[str]) -> None:
    """InvalidParameterException for one that is not there."""
    for name in names:
        if name not in PROVIDERS:
            raise invalid(f"The specified capacity provider '{name}' was not found.")


def check_strategy(strategy: list[Json], providers: list[str]) -> None:
    """InvalidParameterException where the strategy cannot be used with these providers."""
    if len(strategy) > 20:
        raise invalid(
            "A capacity provider strategy can contain a maximum of 20 capacity providers."
        )
    if any(one["capacityProvider"] not in providers for one in strategy):
        raise invalid(
            "The specified capacity provider strategy cannot contain a capacity provider that is"
            " not associated with the cluster. Associate the capacity provider with the cluster"
            " and try again."
        )
    if sum("base" in one and one["base"] > 0 for one in strategy) > 1:
        raise invalid("Only one capacity provider in a strategy can have a base defined.")
    if strategy and not any(one.get("weight", 0) for one in strategy):
        raise invalid("At least one capacity provider of a strategy must have a weight above 0.")
