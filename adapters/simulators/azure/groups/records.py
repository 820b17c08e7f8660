"""What is known of a container group, and how GET and LIST tell it.

What is write-only never leaves: values of `secureValue`, passwords of registries, storage keys,
content of secret volumes, keys of Log Analytics.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.simulators.azure.errors import TYPE
from adapters.simulators.common import timestamps
from adapters.simulators.common.web import Json

_DEFAULTS: Json = {"sku": "Standard", "restartPolicy": "Always"}
_KEPT = ("identity", "zones")


@dataclass(slots=True)
class Event:
    """Something that has happened, perhaps several times. Moments: seconds since the epoch."""

    name: str
    message: str
    type: str
    first: float
    last: float
    count: int = 1

    def as_json(self) -> Json:
        """As instanceView has it."""
        return {
            "count": self.count,
            "firstTimestamp": timestamps.iso(self.first),
            "lastTimestamp": timestamps.iso(self.last),
            "name": self.name,
            "message": self.message,
            "type": self.type,
        }


def happen(events: list[Event], name: str, message: str, now: float, type_: str = "Normal") -> None:
    """Notes an event: one more of its kind, or the first."""
    for one in events:
        if (one.name, one.message) == (name, message):
            one.count += 1
            one.last = now
            return
    events.append(Event(name, message, type_, now, now))


@dataclass(slots=True)
class Record:
    """One container of a group."""

    definition: Json
    init: bool = False
    state: str = "Waiting"
    detail: str = ""
    started: float | None = None
    finished: float | None = None
    code: int | None = None
    previous: Json | None = None
    restarts: int = 0
    has_run: bool = False
    """Whether it was started since the group was deployed."""
    events: list[Event] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name in the group."""
        return str(self.definition["name"])

    def current(self) -> Json:
        """As currentState has it."""
        found: Json = {"state": self.state, "detailStatus": self.detail}
        if self.started is not None:
            found["startTime"] = timestamps.iso(self.started)
        if self.state == "Terminated":
            found["exitCode"] = self.code
            found["finishTime"] = timestamps.iso(self.finished or 0.0)
        return found

    def run(self, now: float) -> None:
        """It runs from now on."""
        self.state, self.detail, self.started, self.has_run = "Running", "", now, True

    def end(self, code: int, detail: str, now: float) -> None:
        """Its run has ended."""
        self.state, self.detail, self.code, self.finished = "Terminated", detail, code, now
        self.started = now if self.started is None else self.started
        self.has_run = True

    def wait(self, detail: str) -> None:
        """It waits for its next run."""
        if self.state == "Terminated":
            self.previous = self.current()
        self.state, self.detail, self.started = "Waiting", detail, None

    def view(self) -> Json:
        """As instanceView has it."""
        view: Json = {
            "restartCount": self.restarts,
            "currentState": self.current(),
            "events": [one.as_json() for one in self.events],
        }
        return view | ({"previousState": self.previous} if self.previous else {})


@dataclass(slots=True)
class Group:
    """One container group."""

    id: str
    name: str
    resource_group: str
    location: str
    body: Json
    provisioning: str = "Pending"
    state: str = "Pending"
    events: list[Event] = field(default_factory=list)
    containers: list[Record] = field(default_factory=list)
    inits: list[Record] = field(default_factory=list)
    address: str = ""
    hidden: tuple[float, float] = (0.0, 0.0)
    """Since when, and for how many seconds of the cloud's, no list has it."""
    allocated: list[list[float]] = field(default_factory=list)
    """When compute was begun to be billed and, once that is known, when it ended."""
    transitioning: bool = True
    deleting: bool = False

    @property
    def properties(self) -> Json:
        """As they were asked for."""
        found: Json = self.body["properties"]
        return found

    @property
    def is_spot(self) -> bool:
        """Whether it may be evicted."""
        return bool(self.properties.get("priority") == "Spot")

    @property
    def policy(self) -> str:
        """Always, OnFailure, Never."""
        return str(self.properties.get("restartPolicy", "Always"))

    @property
    def cpu(self) -> float:
        """Cores that its containers request."""
        return _total(self.properties, "cpu")

    @property
    def memory(self) -> float:
        """GB that its containers request."""
        return _total(self.properties, "memoryInGB")

    @property
    def has_compute(self) -> bool:
        """Whether it holds cores now."""
        waits = self.state == "Pending" and self.provisioning != "Failed"
        return waits or self.state == "Running"

    def reset(self) -> None:
        """Its containers anew, as the definition has them; their events stay."""
        before = {one.name: one.events for one in (*self.containers, *self.inits)}
        for kind, init in (("containers", False), ("initContainers", True)):
            made = [
                Record(one, init, events=before.get(one["name"], []))
                for one in self.properties.get(kind, ())
            ]
            if init:
                self.inits = made
            else:
                self.containers = made

    def allocate(self, now: float) -> None:
        """Compute is billed from now on."""
        if not self.allocated or len(self.allocated[-1]) == 2:
            self.allocated.append([now])

    def deallocate(self, now: float) -> None:
        """It is no longer."""
        if self.allocated and len(self.allocated[-1]) == 1:
            self.allocated[-1].append(now)

    def as_json(self, *, view: bool) -> Json:
        """The resource; `view`: with instanceView, as GET has it and LIST has not."""
        properties = {**_DEFAULTS, **redacted(self.properties)}
        properties["provisioningState"] = "Deleting" if self.deleting else self.provisioning
        if self.address and "ipAddress" in properties:
            properties["ipAddress"]["ip"] = self.address
            label = properties["ipAddress"].get("dnsNameLabel")
            if label:
                fqdn = f"{label}.{self.location}.azurecontainer.io"
                properties["ipAddress"]["fqdn"] = fqdn
        if view:
            events = [one.as_json() for one in self.events]
            properties["instanceView"] = {"events": events, "state": self.state}
            _add_views(properties.get("containers", ()), self.containers)
            _add_views(properties.get("initContainers", ()), self.inits)
        found: Json = {
            "id": self.id,
            "name": self.name,
            "type": TYPE,
            "location": self.location,
            "tags": self.body.get("tags", {}),
            "properties": properties,
        }
        return found | {name: self.body[name] for name in _KEPT if name in self.body}


def _total(properties: Json, name: str) -> float:
    wanted = (one["properties"]["resources"]["requests"][name] for one in properties["containers"])
    return round(float(sum(wanted)), 4)


def _add_views(told: Sequence[Json], records: Sequence[Record]) -> None:
    views = {one.name: one.view() for one in records}
    for one in told:
        one["properties"]["instanceView"] = views[one["name"]]


def redacted(properties: Json) -> Json:
    """Without what is write-only."""
    told: Json = copy.deepcopy(properties)
    for one in (*told.get("containers", ()), *told.get("initContainers", ())):
        for variable in one["properties"].get("environmentVariables", ()):
            variable.pop("secureValue", None)
    for one in told.get("imageRegistryCredentials", ()):
        one.pop("password", None)
    for one in told.get("volumes", ()):
        one.get("azureFile", {}).pop("storageAccountKey", None)
        if "secret" in one:
            one["secret"] = {}
    analytics: Any = told.get("diagnostics", {}).get("logAnalytics", {})
    analytics.pop("workspaceKey", None)
    return told
