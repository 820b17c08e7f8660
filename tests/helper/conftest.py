from __future__ import annotations

from helper_kit import make, program  # noqa: F401 - fixtures
