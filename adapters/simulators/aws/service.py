"""What a simulated service is to the server: operations by name, on values of its model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar, Protocol

from adapters.simulators.aws.shapes import Json

Handler = Callable[[Json], Json | Awaitable[Json]]
"""From the request's values to the answer's; ApiError."""


class Service(Protocol):
    """One service of the account."""

    name: ClassVar[str]
    """As botocore's data is named."""
    invalid: ClassVar[str]
    """The code with which it refuses values that break a constraint of the model."""

    @property
    def operations(self) -> Mapping[str, Handler]:
        """What it can do; everything else is an unknown operation."""
