"""Container groups: what is asked of them as a whole, and of their region.

A group in transition refuses everything that would change it: ContainerGroupTransitioning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from adapters.simulators.azure import shapes
from adapters.simulators.azure.errors import (
    NAMESPACE,
    ArmError,
    missing,
    no_capacity,
    transitioning,
)
from adapters.simulators.azure.faults import Faults
from adapters.simulators.azure.groups import rules
from adapters.simulators.azure.groups.calls import Call, answer
from adapters.simulators.azure.groups.lifecycle import Life
from adapters.simulators.azure.groups.operations import Operation, Operations
from adapters.simulators.azure.groups.records import Group
from adapters.simulators.azure.groups.world import World
from adapters.simulators.azure.quotas import Quotas
from adapters.simulators.azure.rates import Rates
from adapters.simulators.azure.settings import Fault
from adapters.simulators.common.web import Answer, Json


class Groups:
    """All of a subscription, in the order of their creation."""

    def __init__(
        self, world: World, faults: Faults, rates: Rates, quotas: Quotas, operations: Operations
    ) -> None:
        self._world = world
        self._faults = faults
        self._rates = rates
        self._quotas = quotas
        self._operations = operations
        self._lives: dict[str, Life] = {}
        """By resource ID in lower case: names in ARM have no case."""
        self.ever: list[Group] = []
        """Also those that are gone."""

    def find(self, call: Call) -> Life:
        """The group that is in the path. ArmError 404."""
        name, resource_group = call.part("name"), call.part("resource_group")
        life = self._lives.get(self._id(resource_group, name).lower())
        if life is None:
            raise missing(name, resource_group)
        return life

    def forget(self, group: Group) -> None:
        """It is deleted."""
        self._lives.pop(group.id.lower(), None)

    def befall(self, fault: Fault) -> bool:
        """Evicts a group that is there; False: it is not, or it is not of priority Spot."""
        life = self._lives.get(fault.group.lower())
        if life is None or not life.group.is_spot:
            return False
        life.evict(fault.seconds)
        return True

    async def close(self) -> None:
        """Ends them all."""
        await asyncio.gather(*(one.close() for one in self._lives.values()))

    def put(self, call: Call) -> Answer:
        """Creates a group or, whether anything has changed or not, deploys it anew."""
        name, resource_group = call.part("name"), call.part("resource_group")
        body = shapes.read(call.body(), "ContainerGroup")
        location = self._location(body.get("location", ""))
        id_ = self._id(resource_group, name)
        life = self._lives.get(id_.lower())
        if life is not None and life.group.transitioning:
            raise transitioning(name)
        rules.check(name, body, location, self._world.settings)
        if life is not None:
            rules.check_update(life.group, body, location)
        call.told.update(self._rates.provider("PUT", location))
        group = Group(id_, name, resource_group, location, body)
        self._check_quota(group)
        fates = self._faults.of_group(spot=group.is_spot)
        if any(one.kind == "no-capacity" and one.flavour != "fails" for one in fates):
            raise no_capacity(group.location, group.cpu, group.memory, group.properties["osType"])
        status = 200 if life is not None else 201
        if life is None:
            life = Life(group, self._world)
            self._lives[id_.lower()] = life
            self.ever.append(group)
            stale = max((one.seconds for one in fates if one.kind == "stale"), default=0.0)
            group.hidden = (self._world.clock.now(), stale)
        operation = self._operations.begin(life.group, self._world.clock.now())
        life.deploy(body, operation, fates)
        return answer(status, life.group.as_json(view=True), self._operations.headers(operation))

    def get(self, call: Call) -> Answer:
        """One, with instanceView."""
        return answer(200, self.find(call).group.as_json(view=True))

    def list(self, call: Call) -> Answer:
        """All of the subscription or of a resource group, without instanceView; by pages."""
        wanted = call.part("resource_group").lower() if "resource_group" in call.parts else None
        found = [one for one in self._shown() if wanted in (None, one.resource_group.lower())]
        begin = _number(call.request.parameters.get("$skiptoken", "0"))
        end = begin + self._world.settings.page
        told: Json = {"value": [one.as_json(view=False) for one in found[begin:end]]}
        if end < len(found):
            told["nextLink"] = self._operations.link(call.request.path, {"$skiptoken": str(end)})
        return answer(200, told)

    def _shown(self) -> Iterator[Group]:
        for life in self._lives.values():
            since, seconds = life.group.hidden
            if self._world.clock.passed(since) >= seconds:
                yield life.group

    def tag(self, call: Call) -> Answer:
        """Other tags in place of all that it has; nothing runs anew."""
        life = self.find(call)
        given = shapes.read(call.body(), "Resource")
        if life.group.transitioning:
            raise transitioning(life.group.name)
        if "tags" in given:
            life.group.body = {**life.group.body, "tags": given["tags"]}
        return answer(200, life.group.as_json(view=True))

    def delete(self, call: Call) -> Answer:
        """Begins to delete it; there is none: nothing to do (204)."""
        name, resource_group = call.part("name"), call.part("resource_group")
        life = self._lives.get(self._id(resource_group, name).lower())
        if life is None:
            return answer(204, None)
        if life.group.transitioning:
            raise transitioning(name)
        call.told.update(self._rates.provider("DELETE", life.group.location))
        operation = self._operations.begin(life.group, self._world.clock.now())
        life.delete(operation)
        headers = self._operations.headers(operation, location=True)
        return answer(202, life.group.as_json(view=True), headers)

    def start(self, call: Call) -> Answer:
        """Deploys a group anew that has stopped or ended. One that runs: nothing to do (204)."""
        life = self._settled(call)
        if life.group.state == "Running":
            return answer(204, None)
        return self._again(life, 202)

    def restart(self, call: Call) -> Answer:
        """Its containers end and run anew, with all that the group is made of."""
        return self._again(self._settled(call), 204)

    def stop(self, call: Call) -> Answer:
        """Begins to stop it; its definition stays."""
        life = self._settled(call)
        life.stop()
        return answer(204, None)

    def _settled(self, call: Call) -> Life:
        life = self.find(call)
        if life.group.transitioning:
            raise transitioning(life.group.name)
        return life

    def _again(self, life: Life, status: int) -> Answer:
        group = life.group
        self._check_quota(group)
        operation = self._operations.begin(group, self._world.clock.now())
        life.deploy(group.body, operation, self._faults.of_group(spot=group.is_spot))
        return answer(status, None, self._operations.headers(operation, location=True))

    def usages(self, call: Call) -> Answer:
        """List Usage."""
        groups = (one.group for one in self._lives.values())
        return answer(200, self._quotas.usages(groups, self._location(call.part("location"))))

    def capabilities(self, call: Call) -> Answer:
        """List Capabilities."""
        return answer(200, self._quotas.capabilities(self._location(call.part("location"))))

    def operation(self, call: Call) -> Answer:
        """How far an operation is: where Azure-AsyncOperation leads to."""
        return answer(200, self._operation(call).as_json())

    def result(self, call: Call) -> Answer:
        """202 as long as it is on its way, then what has become of it: where Location leads to."""
        one = self._operation(call)
        if one.status == "InProgress":
            return answer(
                202, None, {"Location": self._operations.headers(one, location=True)["Location"]}
            )
        if one.status == "Failed":
            return answer(200, one.as_json())
        there = one.group.id.lower() in self._lives
        return answer(200, one.group.as_json(view=True)) if there else answer(204, None)

    def _operation(self, call: Call) -> Operation:
        found = self._operations.find(call.part("operation"))
        if found is None:
            words = f"The operation '{call.part('operation')}' was not found."
            raise ArmError(404, "OperationNotFound", words)
        return found

    def _check_quota(self, group: Group) -> None:
        others = [
            one.group for one in self._lives.values() if one.group.id.lower() != group.id.lower()
        ]
        self._quotas.check(others, group.location, group.cpu, spot=group.is_spot)

    def _location(self, given: str) -> str:
        """ARM's short form of a region: `East US` is `eastus`. ArmError 400."""
        short = given.replace(" ", "").lower()
        if not short:
            words = "The location property is required for this definition."
            raise ArmError(400, "LocationRequired", words)
        known = self._world.settings.locations
        if short not in known:
            words = (
                f"The provided location '{given}' is not available for resource type"
                f" '{NAMESPACE}/containerGroups'. List of available regions for the resource type"
                f" is '{','.join(known)}'."
            )
            raise ArmError(400, "LocationNotAvailableForResourceType", words)
        return short

    def _id(self, resource_group: str, name: str) -> str:
        subscription = self._world.settings.subscription
        return (
            f"/subscriptions/{subscription}/resourceGroups/{resource_group}"
            f"/providers/{NAMESPACE}/containerGroups/{name}"
        )


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ArmError(400, "InvalidSkipToken", f"The skip token '{text}' is invalid.")
    return int(text)
