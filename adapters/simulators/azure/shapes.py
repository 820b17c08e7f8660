"""Holding requests against the SDK's own models: members, types, what is required, enums.

A member that the model does not know is refused as ARM refuses it. What is read-only there is
passed over; enums are read without regard to case and kept as the model spells them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any

from azure.mgmt.containerinstance import models

from adapters.simulators.azure.errors import ArmError
from adapters.simulators.common.web import Json

_ENUMS: Mapping[tuple[str, str], type[Enum]] = {
    ("ContainerGroup", "properties.restartPolicy"): models.ContainerGroupRestartPolicy,
    ("ContainerGroup", "properties.osType"): models.OperatingSystemTypes,
    ("ContainerGroup", "properties.sku"): models.ContainerGroupSku,
    ("ContainerGroup", "properties.priority"): models.ContainerGroupPriority,
    ("ContainerHttpGet", "scheme"): models.Scheme,
    ("ContainerPort", "protocol"): models.ContainerNetworkProtocol,
    ("GpuResource", "sku"): models.GpuSku,
    ("IpAddress", "type"): models.ContainerGroupIpAddressType,
    ("Port", "protocol"): models.ContainerGroupNetworkProtocol,
}
"""Members that the attribute map calls text, and the model's prose an enum."""
_PLAIN: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "object": (object,),
}


def read(value: Any, model: str, path: str = "") -> Json:
    """The values of a request for that model, cleaned. ArmError."""
    if not isinstance(value, dict):
        raise _invalid(f"Error converting value to type '{model}'. Path '{path}'.")
    return _members(value, model, "", path)


def _members(value: Json, model: str, prefix: str, path: str) -> Json:
    found: Json = {}
    for name, item in value.items():
        key, place = f"{prefix}{name}", f"{path}.{name}" if path else name
        if any(other.startswith(f"{key}.") for other in _keys(model)):
            if not isinstance(item, dict):
                raise _invalid(f"Error converting value to an object. Path '{place}'.")
            found[name] = _members(item, model, f"{key}.", place)
            continue
        if key not in _keys(model):
            raise _invalid(
                f"Could not find member '{name}' on object of type '{model}'. Path '{place}'."
            )
        type_, rules = _keys(model)[key]
        if item is not None and not rules.get("readonly"):
            found[name] = _value(item, type_, _ENUMS.get((model, key)), place)
    if not prefix:
        _require(found, model, path)
    return found


@cache
def _keys(model: str) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    made: Any = getattr(models, model)
    rules = getattr(made, "_validation", {})
    return {
        entry["key"]: (entry["type"], rules.get(name, {}))
        for name, entry in made._attribute_map.items()
    }


def _require(found: Json, model: str, path: str) -> None:
    for key, (_, rules) in _keys(model).items():
        if not rules.get("required"):
            continue
        at: Any = found
        for part in key.split("."):
            at = at.get(part) if isinstance(at, dict) else None
        if at is None:
            place = f"{path}.{key}" if path else key
            raise _invalid(f"Required property '{key.split('.')[-1]}' not found. Path '{place}'.")


def _value(item: Any, type_: str, enum: type[Enum] | None, path: str) -> Any:
    if type_.startswith("["):
        if not isinstance(item, list):
            raise _invalid(f"Error converting value to a list. Path '{path}'.")
        inner = type_[1:-1]
        return [_value(one, inner, None, f"{path}[{at}]") for at, one in enumerate(item)]
    if type_.startswith("{"):
        if not isinstance(item, dict):
            raise _invalid(f"Error converting value to a dictionary. Path '{path}'.")
        inner = type_[1:-1]
        return {key: _value(one, inner, None, f"{path}.{key}") for key, one in item.items()}
    if type_ not in _PLAIN:
        return read(item, type_, path)
    # To Python true and false are numbers as well.
    is_switch = isinstance(item, bool) and type_ not in ("bool", "object")
    if is_switch or not isinstance(item, _PLAIN[type_]):
        raise _invalid(f"Error converting value to type '{type_}'. Path '{path}'.")
    return item if enum is None else _enum(str(item), enum, path)


def _enum(item: str, enum: type[Enum], path: str) -> str:
    for one in enum:
        if str(one.value).lower() == item.lower():
            return str(one.value)
    allowed = ",".join(str(one.value) for one in enum)
    raise _invalid(f"Error converting value \"{item}\", allowed: {allowed}. Path '{path}'.")


def _invalid(words: str) -> ArmError:
    text = re.sub(r"\s+", " ", words)
    return ArmError(
        400,
        "InvalidRequestContent",
        f"The request content was invalid and could not be deserialized: '{text}'",
    )
