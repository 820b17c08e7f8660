"""A cloud's list prices by region: those that the package ships for some, and those that were read
since, which the user's cache keeps. The newer of both count."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar


class Read(Protocol):
    """One region's prices."""

    @property
    def read_on(self) -> date:
        """The day on which they were read."""

    @property
    def source(self) -> str:
        """Where: an address that people can look at."""


T = TypeVar("T", bound=Read)


class PriceTable(Generic[T]):
    """The prices of one type of backend."""

    def __init__(self, name: str, package: str, read: Callable[[Mapping[str, Any]], T]) -> None:
        """`name`: the type's. `package` has its own as `price_table.json`: by region, under
        `regions`. `read`: makes one region's of that; ValueError, ArithmeticError, KeyError,
        TypeError, AttributeError: it makes no sense, and the cache is passed over."""
        self._name = name
        self._package = package
        self._read = read

    @property
    def cache(self) -> Path:
        """Where prices that were read are kept."""
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(root) / "podbridge" / "prices" / f"{self._name}.json"

    def known(self, region: str) -> T | None:
        """The newest prices of a region that this machine has; None: it has none."""
        shipped = json.loads((resources.files(self._package) / "price_table.json").read_text())
        tables = (shipped, self._cached())
        plain = (one.get("regions", {}).get(region) for one in tables)
        return max(
            (self._read(one) for one in plain if one), key=lambda one: one.read_on, default=None
        )

    def keep(self, region: str, prices: Mapping[str, Any]) -> None:
        """Keeps a region's, as JSON has them."""
        place = self.cache
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        table = {"regions": {**self._cached().get("regions", {}), region: prices}}
        handle, draft = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(table, file, indent=2)
        Path(draft).replace(place)

    def _cached(self) -> Any:
        try:
            found = json.loads(self.cache.read_text())
            for one in found["regions"].values():
                self._read(one)
        except (OSError, ValueError, ArithmeticError, KeyError, TypeError, AttributeError):
            # What cannot be read is as if it were not there: it can be fetched again.
            return {}
        return found
