"""`/_podbridge/`: asking for faults, and reading what has happened. JSON, no signature."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from adapters.simulators.aws.account import Account
from adapters.simulators.aws.protocols import Answer
from adapters.simulators.aws.restxml import Request
from adapters.simulators.aws.scenario import violations
from adapters.simulators.aws.settings import Fault
from adapters.simulators.aws.shapes import Json
from bridge.errors import BridgeError, Invalid

PREFIX = "/_podbridge/"
_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
"""Of an image, written out and with a tag."""


class Control:
    """The control API of one account."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._calls: Mapping[tuple[str, str], Callable[[Request], Answer]] = {
            ("GET", "faults"): self._list,
            ("POST", "faults"): self._add,
            ("DELETE", "faults"): self._clear,
            ("GET", "health"): self._health,
            ("GET", "ledger"): self._ledger,
            ("POST", "time"): self._skip,
        }

    async def answer(self, request: Request) -> Answer:
        """The answer to a request whose path begins with `PREFIX`."""
        what = request.path.removeprefix(PREFIX).strip("/")
        if (request.method, what) == ("POST", "images"):
            return await self._image(request)
        call = self._calls.get((request.method, what))
        if call is not None:
            return call(request)
        if request.method == "DELETE" and what.startswith("faults/"):
            return self._remove(what.removeprefix("faults/"))
        known = ", ".join(f"{method} {PREFIX}{path}" for method, path in self._calls)
        known += f", DELETE {PREFIX}faults/ID, POST {PREFIX}images"
        return _json(404, {"error": f"no such call; there are: {known}"})

    def _list(self, request: Request) -> Answer:
        return _json(200, {"faults": [one.as_json() for one in self._account.faults.all()]})

    def _add(self, request: Request) -> Answer:
        try:
            fault = Fault.model_validate(json.loads(request.body))
        except ValidationError as error:
            return _json(400, {"errors": [str(one) for one in violations(error, Fault, "")]})
        except ValueError as error:
            return _json(400, {"errors": [f"the body is no JSON: {error}"]})
        if not fault.task:
            return _json(201, self._account.faults.add(fault).as_json())
        if not self._account.ecs.tasks.befall(fault.task, fault.kind, fault.seconds):
            return _json(404, {"errors": [f"task: no task {fault.task}"]})
        return _json(201, {"task": fault.task, "kind": fault.kind, "id": ""})

    async def _image(self, request: Request) -> Answer:
        name = request.parameters.get("name", "")
        if not _NAME.fullmatch(name):
            return _json(400, {"errors": [f"name: found {name!r}; allowed: REPOSITORY:TAG"]})
        try:
            host = await self._account.runner.take(name, request.body)
        except BridgeError as error:
            return _json(400 if isinstance(error, Invalid) else 502, {"errors": [error.message]})
        return _json(201, {"name": name, "host": host})

    def _clear(self, request: Request) -> Answer:
        self._account.faults.clear()
        return _json(200, {"faults": []})

    def _remove(self, id_: str) -> Answer:
        if self._account.faults.remove(id_):
            return _json(200, {"removed": id_})
        return _json(404, {"error": f"no fault {id_}"})

    def _health(self, request: Request) -> Answer:
        broken = self._account.mistakes
        return _json(500 if broken else 200, {"broken": broken})

    def _ledger(self, request: Request) -> Answer:
        return _json(200, self._account.ledger.as_json())

    def _skip(self, request: Request) -> Answer:
        try:
            seconds = json.loads(request.body)["skip"]
        except (ValueError, TypeError, KeyError):
            seconds = None
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0:
            return _json(400, {"errors": ['the body is to be {"skip": SECONDS}, 0 or more']})
        self._account.clock.skip(seconds)
        return _json(200, {"skipped": seconds})


def _json(status: int, body: Json) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})
