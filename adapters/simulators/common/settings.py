"""What the settings of every simulated cloud are made of."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

CALL_KINDS = ("throttle", "error", "lost", "delay", "expired-token")
"""Faults that befall calls; the others befall what calls make."""


class Model(BaseModel):
    """Unknown keys are mistakes, and nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Bucket(Model):
    """A token bucket."""

    burst: float = Field(gt=0)
    per_second: float = Field(gt=0)


class Chance(Model):
    """How often something is to go wrong. Clouds say what and where."""

    subject: ClassVar[str] = ""
    """The field that names something which is there already; empty: there is none."""
    kind: str
    action: str = "*"
    """The operation; `*`: any."""
    times: int | None = Field(default=None, ge=1)
    """How often; not given: without end."""
    probability: float = Field(default=1.0, gt=0, le=1)
    """Of each call or thing, by the scenario's seed."""

    @property
    def befalls_calls(self) -> bool:
        """Whether it is about calls."""
        return self.kind in CALL_KINDS
