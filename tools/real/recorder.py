"""Writes down what the SDK asks and is told, a line of JSON for each call, redacted before it is
written: nothing else ever reaches the disk.

    {"n": 7, "test": "test_x", "at": 3.1, "service": "ecs", "operation": "RunTask",
     "parameters": {...}, "status": 200, "took": 0.21, "answer": {...}}

`at` and `took` are seconds, the former from the transcript's start. Where a call failed there is
`"error": {"code": ..., "message": ...}` for the answer; where nobody answered, `"lost": TYPE`.
A read that says what it said before is not written again; the next one that differs tells how often
that was so (`"same"`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from tools.real.plain import plain
from tools.real.redact import Redactor

FORMAT = 1
"""The transcript's, in its first line."""
_ASKED = "podbridge.asked"
"""Where the SDK's own context of a call has what was asked, and when."""
READS = ("Describe", "Get", "List", "Head")
"""How the operations begin that change nothing."""
_ID = "podbridge-transcript"


class Recorder:
    """One transcript. Calls come from several threads."""

    def __init__(
        self, file: TextIO, redactor: Redactor, clock: Callable[[], float] = time.time
    ) -> None:
        self._file, self._redactor, self._clock = file, redactor, clock
        self._began = clock()
        self._lock = threading.Lock()
        self._said: dict[str, tuple[str, int]] = {}
        """By what was asked: the last answer, and how often it came again."""
        self.calls = 0
        """How many there were, also those that are not written."""
        self.written = 0
        self.test = ""
        """What runs now."""

    def begin(self, about: Mapping[str, Any]) -> None:
        """The first line."""
        self._write({"transcript": FORMAT, **about})

    def attach(self, session: Any) -> None:
        """Listens to all clients that this session of boto3 is going to make."""
        if (found := session.get_credentials()) is not None:
            keys = found.get_frozen_credentials()
            with self._lock:
                for one in (keys.access_key, keys.secret_key, keys.token):
                    self._redactor.learn(one or "", "credential")
        events = session.events
        events.register_first("provide-client-params", self._asked, _ID)
        events.register("after-call", self._answered, f"{_ID}-answer")
        events.register("after-call-error", self._lost, f"{_ID}-lost")

    def _asked(self, params: Any, context: dict[str, Any], **_: Any) -> None:
        # As it was given, before the SDK makes it what goes over the wire.
        context[_ASKED] = (self._clock(), plain(params, self._began))

    def _answered(self, parsed: Any, model: Any, context: dict[str, Any], **_: Any) -> None:
        meta = parsed.get("ResponseMetadata", {})
        found: dict[str, Any] = {"status": meta.get("HTTPStatusCode", 0)}
        if "Error" in parsed and found["status"] >= 300:
            said = parsed["Error"]
            found["error"] = {"code": said.get("Code", ""), "message": said.get("Message", "")}
        else:
            found["answer"] = plain(parsed, self._began)
        self._note(model, context, found)

    def _lost(self, exception: Exception, context: dict[str, Any], **more: Any) -> None:
        service, operation = more["event_name"].split(".")[1:3]
        # Its words may have addresses; its type says enough.
        self._note((service, operation), context, {"lost": type(exception).__name__})

    def _note(self, model: Any, context: dict[str, Any], found: dict[str, Any]) -> None:
        service, operation = (
            model
            if isinstance(model, tuple)
            else (model.service_model.service_name, str(model.name))
        )
        asked_at, parameters = context.pop(_ASKED, (self._clock(), {}))
        with self._lock:
            self.calls += 1
            # All of a call is learned from before any of it is written.
            for one in (parameters, found.get("answer")):
                self._redactor.gather(one)
            parameters = self._redactor.value(parameters)
            if "error" in found:
                words = {key: self._redactor.text(one) for key, one in found["error"].items()}
                found["error"] = words
            if "answer" in found:
                found["answer"] = self._redactor.value(found["answer"])
            what = json.dumps([service, operation, parameters])
            said, same = self._said.get(what, ("", 0))
            if operation.startswith(READS) and json.dumps(found) == said:
                self._said[what] = (said, same + 1)
                return
            self._said[what] = (json.dumps(found), 0)
            self._write(
                {
                    "n": self.calls,
                    "test": self.test,
                    "at": round(asked_at - self._began, 3),
                    "service": service,
                    "operation": operation,
                    "parameters": parameters,
                    **found,
                    "took": round(self._clock() - asked_at, 4),
                    **({"same": same} if same else {}),
                }
            )
            self.written += 1

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")
        # Who is interrupted has what was said until then.
        self._file.flush()
