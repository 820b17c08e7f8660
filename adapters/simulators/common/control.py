"""`/_podbridge/`: asking for faults, and reading what has happened. JSON, open to everybody."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from adapters.simulators.common.clock import Clock
from adapters.simulators.common.faults import Chances
from adapters.simulators.common.running import Runner
from adapters.simulators.common.scenario import violations
from adapters.simulators.common.settings import Chance
from adapters.simulators.common.web import Answer, Json, Request
from bridge.errors import BridgeError, Invalid

PREFIX = "/_podbridge/"
_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
"""Of an image, written out and with a tag."""


class Cloud(Protocol):
    """What of a simulated cloud can be asked and told."""

    mistakes: list[str]
    """What only a mistake of the simulator's own can have caused."""
    clock: Clock
    runner: Runner

    @property
    def faults(self) -> Chances[Any]:
        """What is to go wrong with it."""

    def told(self) -> Json:
        """The ledger."""

    def befall(self, fault: Any) -> bool:
        """Befalls what the fault names, which is there already; False: it is not."""


class Control:
    """The control API of one cloud. `model`: its faults; `more`: calls of its own."""

    def __init__(
        self,
        account: Cloud,
        model: type[Chance],
        more: Mapping[tuple[str, str], Callable[[Request], Answer]] | None = None,
    ) -> None:
        self._account = account
        self._model = model
        self._calls: Mapping[tuple[str, str], Callable[[Request], Answer]] = {
            ("GET", "faults"): self._list,
            ("POST", "faults"): self._add,
            ("DELETE", "faults"): self._clear,
            ("GET", "health"): self._health,
            ("GET", "ledger"): self._ledger,
            ("POST", "time"): self._skip,
            **(more or {}),
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
        return as_json(404, {"error": f"no such call; there are: {known}"})

    def _list(self, request: Request) -> Answer:
        return as_json(200, {"faults": [one.as_json() for one in self._account.faults.all()]})

    def _add(self, request: Request) -> Answer:
        try:
            fault = self._model.model_validate(json.loads(request.body))
        except ValidationError as error:
            return as_json(
                400, {"errors": [str(one) for one in violations(error, self._model, "")]}
            )
        except ValueError as error:
            return as_json(400, {"errors": [f"the body is no JSON: {error}"]})
        subject = self._model.subject
        name = getattr(fault, subject, "")
        if not name:
            return as_json(201, self._account.faults.add(fault).as_json())
        if not self._account.befall(fault):
            return as_json(404, {"errors": [f"{subject}: no {subject} {name}"]})
        return as_json(201, {subject: name, "kind": fault.kind, "id": ""})

    async def _image(self, request: Request) -> Answer:
        name = request.parameters.get("name", "")
        if not _NAME.fullmatch(name):
            return as_json(400, {"errors": [f"name: found {name!r}; allowed: REPOSITORY:TAG"]})
        try:
            host = await self._account.runner.take(name, request.body)
        except BridgeError as error:
            return as_json(400 if isinstance(error, Invalid) else 502, {"errors": [error.message]})
        return as_json(201, {"name": name, "host": host})

    def _clear(self, request: Request) -> Answer:
        self._account.faults.clear()
        return as_json(200, {"faults": []})

    def _remove(self, id_: str) -> Answer:
        if self._account.faults.remove(id_):
            return as_json(200, {"removed": id_})
        return as_json(404, {"error": f"no fault {id_}"})

    def _health(self, request: Request) -> Answer:
        broken = self._account.mistakes
        return as_json(500 if broken else 200, {"broken": broken})

    def _ledger(self, request: Request) -> Answer:
        return as_json(200, self._account.told())

    def _skip(self, request: Request) -> Answer:
        try:
            seconds = json.loads(request.body)["skip"]
        except (ValueError, TypeError, KeyError):
            seconds = None
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0:
            return as_json(400, {"errors": ['the body is to be {"skip": SECONDS}, 0 or more']})
        self._account.clock.skip(seconds)
        return as_json(200, {"skipped": seconds})


def as_json(status: int, body: Json) -> Answer:
    """An answer that has that body."""
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})
