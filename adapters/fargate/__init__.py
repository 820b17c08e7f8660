"""AWS: pods as tasks of ECS on Fargate (docs/fargate.md)."""

from __future__ import annotations

from adapters.fargate.adapter import Adapter
from adapters.fargate.furnish import SIMULATOR, furnish
from adapters.fargate.options import Options
from adapters.fargate.survey import CLOUD, survey

__all__ = ["CLOUD", "SIMULATOR", "Adapter", "Options", "furnish", "survey"]
