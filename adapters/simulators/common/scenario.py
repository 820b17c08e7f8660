"""Scenario files: a cloud's settings in YAML, and what is wrong with one, field by field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from bridge.config.values import nearest, shown
from bridge.errors import Invalid, Violation

M = TypeVar("M", bound=BaseModel)
More = Callable[[M, str], Sequence[Violation]]
"""What else is wrong with settings that came from a source."""


def load(path: Path, model: type[M], more: More[M]) -> M:
    """The settings of that file. Invalid with every mistake in it."""
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(violations=[Violation("", error.strerror or "unreadable", name)]) from None
    except UnicodeDecodeError:
        raise Invalid(violations=[Violation("", "is no UTF-8", name)]) from None
    return parse(text, name, model, more)


def parse(text: str, name: str, model: type[M], more: More[M]) -> M:
    """The settings of that text. Invalid."""
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        words = " ".join(str(error).split())
        raise Invalid(violations=[Violation("", f"is no YAML: {words}", name)]) from None
    if not isinstance(given, (dict, type(None))):
        found = f"found {shown(given)}; allowed: a mapping"
        raise Invalid(violations=[Violation("", found, name)])
    try:
        settings = model.model_validate(given or {})
    except ValidationError as error:
        raise Invalid(violations=violations(error, model, name)) from None
    wrong = more(settings, name)
    if wrong:
        raise Invalid(violations=wrong)
    return settings


def violations(error: ValidationError, model: type[BaseModel], source: str) -> list[Violation]:
    """What pydantic found, as field path, what was found and what is allowed."""
    return [_violation(one, model, source) for one in error.errors(include_url=False)]


def _violation(one: Any, model: type[BaseModel], source: str) -> Violation:
    field = _path(one["loc"])
    if one["type"] == "extra_forbidden":
        known = _keys(model, one["loc"][:-1])
        near = nearest(str(one["loc"][-1]), known)
        hint = f'; did you mean "{near}"?' if near else f"; allowed: {', '.join(sorted(known))}"
        return Violation(field, f"unknown key{hint}", source)
    if one["type"] == "missing":
        return Violation(field, "missing; this key is required", source)
    found = f"found {shown(one['input'])}"
    message = str(one["msg"]).removeprefix("Value error, ")
    if message.startswith("Input should be "):
        return Violation(
            field, f"{found}; allowed: {message.removeprefix('Input should be ')}", source
        )
    return Violation(field, f"{found}: {message}", source)


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    found: type[BaseModel] = model
    for part in location:
        field = found.model_fields.get(str(part))
        for one in _models(field.annotation) if field is not None else ():
            found = one
    return list(found.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [one for arg in getattr(annotation, "__args__", ()) for one in _models(arg)]
