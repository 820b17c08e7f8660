"""What a service answers where it does not do what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """An error of the service's own: its code as the model has it, a message, an HTTP status.

    `fields` are further members of the error's shape; `query_code` is the older code that services
    with the awsQueryCompatible trait send along.
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
        *,
        fields: Mapping[str, Any] | None = None,
        query_code: str = "",
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.fields = dict(fields or {})
        self.query_code = query_code
