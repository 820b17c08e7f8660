"""From an HTTP request to its answer: the caller, the operation, faults, limits and the ledger.

Operations are named as the published API (2023-05-01) names them.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

from adapters.simulators.azure.errors import (
    API_VERSION,
    NAMESPACE,
    ArmError,
    no_such_type,
)
from adapters.simulators.azure.groups.calls import Call
from adapters.simulators.azure.settings import Fault
from adapters.simulators.azure.subscription import Subscription
from adapters.simulators.common.names import uuid_id
from adapters.simulators.common.web import Answer, Lost, Request

_logger = logging.getLogger(__name__)

_Handler = Callable[[Call], Answer | Awaitable[Answer]]

_SUBSCRIPTION = re.compile(r"/subscriptions/(?P<subscription>[^/]+)(?P<rest>/.*)?", re.I)
_IN_GROUP = rf"(?:/resourceGroups/(?P<resource_group>[^/]+))?/providers/{re.escape(NAMESPACE)}"
_TYPED = re.compile(rf"{_IN_GROUP}/(?P<type>[^/]+)(?P<rest>/.*)?", re.I)
_GROUPS = r"/resourceGroups/(?P<resource_group>[^/]+)/providers/[^/]+/containerGroups"
_GROUP = rf"{_GROUPS}/(?P<name>[^/]+)"
_CONTAINER = rf"{_GROUP}/containers/(?P<container>[^/]+)"
_LOCATION = r"/providers/[^/]+/locations/(?P<location>[^/]+)"
_ROUTES: Mapping[str, tuple[str, re.Pattern[str]]] = {
    name: (method, re.compile(pattern, re.I))
    for name, method, pattern in (
        ("ContainerGroups_List", "GET", r"/providers/[^/]+/containerGroups"),
        ("ContainerGroups_ListByResourceGroup", "GET", _GROUPS),
        ("ContainerGroups_Get", "GET", _GROUP),
        ("ContainerGroups_CreateOrUpdate", "PUT", _GROUP),
        ("ContainerGroups_Update", "PATCH", _GROUP),
        ("ContainerGroups_Delete", "DELETE", _GROUP),
        ("ContainerGroups_Start", "POST", rf"{_GROUP}/start"),
        ("ContainerGroups_Stop", "POST", rf"{_GROUP}/stop"),
        ("ContainerGroups_Restart", "POST", rf"{_GROUP}/restart"),
        ("Containers_ListLogs", "GET", rf"{_CONTAINER}/logs"),
        ("Containers_ExecuteCommand", "POST", rf"{_CONTAINER}/exec"),
        ("Containers_Attach", "POST", rf"{_CONTAINER}/attach"),
        ("Location_ListUsage", "GET", rf"{_LOCATION}/usages"),
        ("Location_ListCapabilities", "GET", rf"{_LOCATION}/capabilities"),
        ("Operations_Status", "GET", rf"{_LOCATION}/operations/(?P<operation>[^/]+)"),
        ("Operations_Result", "GET", rf"{_LOCATION}/operationResults/(?P<operation>[^/]+)"),
    )
}
"""Behind /subscriptions/ID. The last two are where the headers of an operation lead to."""


class Dispatcher:
    """Answers requests for one subscription."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        groups, containers = subscription.groups, subscription.containers
        self._handlers: Mapping[str, _Handler] = {
            "ContainerGroups_List": groups.list,
            "ContainerGroups_ListByResourceGroup": groups.list,
            "ContainerGroups_Get": groups.get,
            "ContainerGroups_CreateOrUpdate": groups.put,
            "ContainerGroups_Update": groups.tag,
            "ContainerGroups_Delete": groups.delete,
            "ContainerGroups_Start": groups.start,
            "ContainerGroups_Stop": groups.stop,
            "ContainerGroups_Restart": groups.restart,
            "Containers_ListLogs": lambda call: containers.logs(groups.find(call), call),
            "Containers_ExecuteCommand": lambda call: containers.exec(groups.find(call), call),
            "Containers_Attach": lambda call: containers.attach(groups.find(call), call),
            "Location_ListUsage": groups.usages,
            "Location_ListCapabilities": groups.capabilities,
            "Operations_Status": groups.operation,
            "Operations_Result": groups.result,
        }

    async def answer(self, request: Request) -> Answer:
        """The answer. Lost: the connection is to be closed without one."""
        granted = self._subscription.tokens.answer(request)
        if granted is not None:
            return granted
        call = _Call(self._subscription, self._handlers, request)
        lost, error = False, None
        try:
            answer = await call.run()
        except ArmError as problem:
            error = problem
        except Lost:
            lost = True
        except Exception as mistake:
            # A mistake of the simulator's own must be seen as one, and ends no other call.
            _logger.exception("%s", call.action)
            self._subscription.mistakes.append(f"{call.action}: {mistake!r}")
            error = ArmError(500, "InternalServerError", "The simulator has failed.")
        self._subscription.ledger.count(
            call.action,
            call.caller or "nobody",
            error.code if error else "",
            throttled=error is not None and error.status == 429,
        )
        if lost:
            raise Lost
        if error is not None:
            answer = Answer(error.status, json.dumps(error.body()).encode(), error.headers)
        return Answer(
            answer.status, answer.body, {**_standard(request), **call.told, **answer.headers}
        )


def _standard(request: Request) -> dict[str, str]:
    id_ = uuid_id()
    found = {"x-ms-request-id": id_, "x-ms-correlation-request-id": id_}
    if "x-ms-client-request-id" in request.headers:
        found["x-ms-client-request-id"] = request.headers["x-ms-client-request-id"]
    return {**found, "Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-cache"}


class _Call:
    """One call on its way."""

    def __init__(
        self, subscription: Subscription, handlers: Mapping[str, _Handler], request: Request
    ) -> None:
        self._subscription = subscription
        self._handlers = handlers
        self._request = request
        self.action = "unknown"
        """The operation's name, once that is known."""
        self.caller = ""
        """The client's ID, once that is known."""
        self.told: dict[str, str] = {}
        """Headers of the answer, also where it is an error: what is left of ARM's buckets."""

    async def run(self) -> Answer:
        """The answer. ArmError, Lost."""
        subscription, request = self._subscription, self._request
        self.caller = subscription.tokens.caller(request.headers.get("authorization", ""))
        parts = self._find()
        faults = subscription.faults.of_call(self.action)
        await self._strike(faults)
        self.told.update(subscription.rates.arm(request.method, self.caller))
        given = self._handlers[self.action](Call(request, parts, self.told))
        answer = await given if inspect.isawaitable(given) else given
        if any(one.kind == "lost" for one in faults):
            raise Lost
        return answer

    def _find(self) -> Mapping[str, str]:
        """The names in the path of an operation that there is."""
        found = _SUBSCRIPTION.fullmatch(self._request.path)
        if found is None:
            _no_place(self._request.path)
        if found["subscription"].lower() != self._subscription.settings.subscription.lower():
            words = f"The subscription '{found['subscription']}' could not be found."
            raise ArmError(404, "SubscriptionNotFound", words)
        rest = found["rest"] or ""
        self._check_version(rest)
        matching = {name: pattern.fullmatch(rest) for name, (_, pattern) in _ROUTES.items()}
        methods = {_ROUTES[name][0]: name for name, match in matching.items() if match}
        if not methods:
            _no_place(rest)
        if self._request.method not in methods:
            words = f"The requested resource does not support http method '{self._request.method}'."
            raise ArmError(405, "MethodNotAllowed", words)
        self.action = methods[self._request.method]
        match = matching[self.action]
        return match.groupdict() if match else {}

    def _check_version(self, rest: str) -> None:
        version = self._request.parameters.get("api-version")
        if not version:
            words = "The api-version query parameter (?api-version=) is required for all requests."
            raise ArmError(400, "MissingApiVersionParameter", words)
        typed = _TYPED.fullmatch(rest)
        if typed is not None and version != API_VERSION:
            words = (
                f"No registered resource provider found for location '' and API version '{version}'"
                f" for type '{typed['type']}'. The supported api-versions are '{API_VERSION}'."
            )
            raise ArmError(400, "NoRegisteredProviderFound", words)

    async def _strike(self, faults: list[Fault]) -> None:
        for one in faults:
            if one.kind == "delay":
                await self._subscription.clock.sleep(one.seconds)
        for one in faults:
            if one.kind == "error":
                words = "The server is busy. Please try again later."
                raise ArmError(one.status, "InternalServerError", words)
            if one.kind == "expired-token":
                raise self._subscription.tokens.expired()
            if one.kind == "throttle":
                rates = self._subscription.rates
                if one.flavour == "provider":
                    raise rates.too_many(self._request.method, one.seconds or 1.0)
                raise rates.throttled(self._request.method, self.caller, one.seconds or 1.0)


def _no_place(path: str) -> NoReturn:
    """What ARM says of a path that leads nowhere."""
    typed = _TYPED.fullmatch(path)
    if typed is not None:
        raise no_such_type(typed["type"])
    namespace = re.search(r"/providers/([^/]+)", path)
    if namespace is not None and namespace[1].lower() != NAMESPACE.lower():
        words = f"The resource namespace '{namespace[1]}' is invalid."
        raise ArmError(404, "InvalidResourceNamespace", words)
    raise ArmError(404, "NotFound", f"No resource is at '{path}'.")
