"""Asynchronous operations, as Azure-AsyncOperation and Location lead to them.

The form of a failed one is that of answers that users have published: the resource's ID, its
events, and an error that has a message and no code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from adapters.simulators.azure.errors import API_VERSION, NAMESPACE
from adapters.simulators.azure.groups.records import Group
from adapters.simulators.common import timestamps
from adapters.simulators.common.names import uuid_id
from adapters.simulators.common.web import Json


@dataclass(slots=True)
class Operation:
    """One of them. `status`: InProgress, Succeeded, Failed."""

    group: Group
    begun: float
    id: str = field(default_factory=uuid_id)
    status: str = "InProgress"
    message: str = ""

    def succeed(self) -> None:
        """It is done."""
        if self.status == "InProgress":
            self.status = "Succeeded"

    def fail(self, message: str) -> None:
        """It cannot be done."""
        if self.status == "InProgress":
            self.status, self.message = "Failed", message

    def as_json(self) -> Json:
        """What polling answers."""
        found: Json = {
            "id": self.group.id,
            "name": self.id,
            "status": self.status,
            "startTime": timestamps.iso(self.begun),
            "properties": {"events": [one.as_json() for one in self.group.events]},
        }
        return found | ({"error": {"message": self.message}} if self.message else {})


class Operations:
    """All of a subscription. `base` says where the server is."""

    def __init__(self, subscription: str, base: Callable[[], str]) -> None:
        self._prefix = f"/subscriptions/{subscription}/providers/{NAMESPACE}"
        self._base = base
        self._all: dict[str, Operation] = {}

    def begin(self, group: Group, now: float) -> Operation:
        """A new one."""
        made = Operation(group, now)
        self._all[made.id] = made
        return made

    def find(self, id_: str) -> Operation | None:
        """By its ID."""
        return self._all.get(id_)

    def headers(self, one: Operation, *, location: bool = False) -> dict[str, str]:
        """Where it can be polled; `location`: also by its result."""
        place = f"{self._prefix}/locations/{one.group.location}"
        found = {"Azure-AsyncOperation": self.link(f"{place}/operations/{one.id}", {})}
        if location:
            found["Location"] = self.link(f"{place}/operationResults/{one.id}", {})
        return found

    def link(self, path: str, parameters: Mapping[str, str]) -> str:
        """A URL of this server."""
        return f"{self._base()}{path}?{urlencode({'api-version': API_VERSION, **parameters})}"
