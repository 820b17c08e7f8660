"""Systems Manager, as far as parameters are read and written, and sessions terminated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.clock import Clock

STANDARD = 4 * 1024
ADVANCED = 8 * 1024
"""Bytes of a value, by tier."""


@dataclass(slots=True)
class Parameter:
    """One parameter's latest version."""

    name: str
    type: str
    value: str = field(repr=False)
    version: int = 1
    tier: str = "Standard"
    changed: float = 0.0


def _missing() -> ApiError:
    return ApiError("ParameterNotFound", "")


class Ssm:
    """All parameters of the account."""

    name: ClassVar[str] = "ssm"
    invalid: ClassVar[str] = "ValidationException"

    def __init__(self, place: Place, clock: Clock, terminate: Callable[[str], None]) -> None:
        """`terminate` ends a session by its ID."""
        self._place = place
        self._terminate = terminate
        self._clock = clock
        self._parameters: dict[str, Parameter] = {}

    @property
    def operations(self) -> Mapping[str, Handler]:
        """All that is simulated."""
        return {
            "DeleteParameter": self._delete,
            "DeleteParameters": self._delete_some,
            "GetParameter": self._get,
            "GetParameters": self._get_some,
            "PutParameter": self._put,
            "TerminateSession": self._terminate_session,
        }

    def value(self, name: str) -> str:
        """A parameter's value, for tasks. ApiError."""
        return self._find(name).value

    def _find(self, name: str) -> Parameter:
        prefix = self._place.arn("ssm", "parameter")
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
        for known in (name, name.removeprefix("/")):
            if known in self._parameters:
                return self._parameters[known]
        raise _missing()

    def _put(self, given: Json) -> Json:
        name, old = given["Name"], self._parameters.get(given["Name"])
        if old is not None and not given.get("Overwrite"):
            raise ApiError(
                "ParameterAlreadyExists",
                "The parameter already exists. To overwrite this value, set the overwrite option in"
                " the request to true.",
            )
        if old is None and "Type" not in given:
            raise ApiError("ValidationException", "A parameter type is required when you create a"
                           " parameter.")  # fmt: skip
        tier = given.get("Tier", old.tier if old else "Standard")
        size, allowed = len(given["Value"].encode()), ADVANCED if tier == "Advanced" else STANDARD
        if size > allowed:
            raise ApiError(
                "ValidationException",
                f"{tier} tier parameters support a maximum value of {allowed} characters.",
            )
        made = Parameter(name, given.get("Type", old.type if old else "String"), given["Value"])
        made.version = old.version + 1 if old else 1
        made.tier, made.changed = tier, self._clock.now()
        self._parameters[name] = made
        return {"Version": made.version, "Tier": tier}

    def _shown(self, one: Parameter, given: Json) -> Json:
        value = one.value
        if one.type == "SecureString" and not given.get("WithDecryption"):
            # What AWS shows then is the value encrypted.
            value = "AQECA" + "0" * 32
        return {
            "Name": one.name,
            "Type": one.type,
            "Value": value,
            "Version": one.version,
            "LastModifiedDate": one.changed,
            "ARN": self._place.arn("ssm", f"parameter/{one.name.removeprefix('/')}"),
            "DataType": "text",
        }

    def _get(self, given: Json) -> Json:
        return {"Parameter": self._shown(self._find(given["Name"]), given)}

    def _get_some(self, given: Json) -> Json:
        found, missing = [], []
        for name in given["Names"]:
            try:
                found.append(self._shown(self._find(name), given))
            except ApiError:
                missing.append(name)
        return {"Parameters": found, **({"InvalidParameters": missing} if missing else {})}

    def _delete(self, given: Json) -> Json:
        del self._parameters[self._find(given["Name"]).name]
        return {}

    def _delete_some(self, given: Json) -> Json:
        gone = [name for name in given["Names"] if self._parameters.pop(name, None)]
        missing = [name for name in given["Names"] if name not in gone]
        answer: Json = {"DeletedParameters": gone} if gone else {}
        return {**answer, **({"InvalidParameters": missing} if missing else {})}

    def _terminate_session(self, given: Json) -> Json:
        self._terminate(given["SessionId"])
        return {"SessionId": given["SessionId"]}
