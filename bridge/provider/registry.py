"""Finds backends' adapters by their names: `adapters/<type>.py`, dashes as underscores.

Nothing is imported before it is asked for, so that one cloud's SDK costs nothing where another is
used.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bridge.errors import Invalid

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bridge.adapter import Adapter
    from bridge.config import BackendConfig

PACKAGE = "adapters"
_NO_TYPES = frozenset({"simulators"})
_EXTRAS = {"boto3": "aws", "botocore": "aws", "azure": "azure", "google": "google"}
"""The extra that brings a package, by the package's first name."""


def types() -> list[str]:
    """The names of all types, sorted. Imports none of them."""
    package = importlib.import_module(PACKAGE)
    return sorted(
        name.replace("_", "-")
        for _, name, _ in pkgutil.iter_modules(package.__path__)
        if not name.startswith("_") and name not in _NO_TYPES
    )


def module(type_: str) -> ModuleType:
    """The adapter's module. Raises Invalid where there is no such type, or its SDK is missing."""
    known = types()
    if type_ not in known:
        from bridge.config import nearest  # noqa: PLC0415 - only a mistake pays for it

        near = nearest(type_, known)
        hint = f'; did you mean "{near}"?' if near else ""
        raise Invalid(f'unknown backend type "{type_}"; allowed: {", ".join(known)}{hint}')
    try:
        return importlib.import_module(f"{PACKAGE}.{type_.replace('-', '_')}")
    except ImportError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise Invalid(
            f'backend type "{type_}" needs the package {error.name}, which is not installed: '
            f"install podbridge with its extra {extra}"
        ) from error


def options_model(type_: str) -> type[BaseModel] | None:
    """The model of a type's own options; None where it has none. Invalid as `module`."""
    found: type[BaseModel] | None = getattr(module(type_), "Options", None)
    return found


def make(config: BackendConfig, *, acts: bool = False) -> Adapter:
    """The adapter of a configured backend, not opened; unless it `acts`, one that changes nothing
    by itself. Invalid as `module`, or for its options."""
    found = module(config.type)
    model = options_model(config.type)
    options: Any = config.options
    if model is not None and isinstance(options, Mapping):
        from pydantic import ValidationError  # noqa: PLC0415 - loaded by now

        try:
            options = model.model_validate(options)
        except ValidationError as error:
            # The values are left out: what was not checked yet may be a secret in the wrong place.
            words = "; ".join(
                f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
            )
            raise Invalid(f'backend "{config.name}": {words}') from None
    build = getattr(found, "make", found.Adapter)
    made: Adapter = build(config.name, options if model is not None else None)
    from bridge.adapter import Acts  # noqa: PLC0415 - loaded by now

    if isinstance(made, Acts) and not acts:
        made.only_look()
    return made
