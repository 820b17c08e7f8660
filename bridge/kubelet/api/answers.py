"""Answers that several parts of the HTTPS API give: errors as HTTP, ends as v1.Status, JSON."""

from __future__ import annotations

import math
from typing import Any

import orjson
from aiohttp import web

from bridge.errors import BridgeError, Invalid, NotFound, Throttled, Unavailable, Unsupported

SUCCESS: dict[str, Any] = {"metadata": {}, "status": "Success"}


def refusal(error: BridgeError) -> web.HTTPException:
    """How a provider's error is told to who asked. What a person can mend is a 400: of those alone
    the API server hands on the words (apiserver, GenericHttpResponseChecker)."""
    match error:
        case Invalid() | Unsupported() | NotFound():
            return web.HTTPBadRequest(text=error.message)
        case Throttled():
            headers = {}
            if error.retry_after is not None:
                headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
            return web.HTTPTooManyRequests(text=error.message, headers=headers)
        case Unavailable():
            return web.HTTPServiceUnavailable(text=error.message)
        case _:
            return web.HTTPInternalServerError(text=error.message)


def exited(code: int) -> dict[str, Any]:
    """The v1.Status for an exit code: what kubectl exec takes its own from."""
    if code == 0:
        return SUCCESS
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def internal_error(words: str) -> dict[str, Any]:
    """The v1.Status for what could not be done (apimachinery, NewInternalError)."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {words}",
        "reason": "InternalError",
        "details": {"causes": [{"message": words}]},
        "code": 500,
    }


def as_json(content: Any) -> web.Response:
    """A whole answer in JSON."""
    return web.Response(body=orjson.dumps(content), content_type="application/json")
