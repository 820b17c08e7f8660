"""STS, as far as GetCallerIdentity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from adapters.simulators.aws.names import Place
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.shapes import Json


class Sts:
    """Everybody is the same user here: keys are not checked."""

    name: ClassVar[str] = "sts"
    invalid: ClassVar[str] = "ValidationError"

    def __init__(self, place: Place) -> None:
        self._place = place

    @property
    def operations(self) -> Mapping[str, Handler]:
        """All that is simulated."""
        return {"GetCallerIdentity": self._identity}

    def _identity(self, given: Json) -> Json:
        return {
            "UserId": "AIDASIMULATEDUSER0000",
            "Account": self._place.account,
            "Arn": f"arn:aws:iam::{self._place.account}:user/simulated",
        }
