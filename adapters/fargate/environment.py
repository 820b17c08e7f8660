"""How variables reach a container: by an override that anybody in the account can read back, or by
an object that only the execution role reads. Pure.

An object is lines `NAME=VALUE`, as the ECS agent reads them (agent/taskresource/envFiles): a line
that begins with `#` or has an empty value is passed over, and nothing is quoted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from bridge.errors import Invalid, Violation
from bridge.workload import Container, EnvVar

_LINE = 32 * 1024
"""Characters of a line, at most."""


def split(one: Container, room: int) -> tuple[Mapping[str, str], bytes]:
    """(what overrides have, what the object has). Secret ones are in the object; others too, where
    more than `room` characters of overrides would be taken. Raises Invalid: a secret one cannot be
    a line."""
    wrong = [
        Violation(f"{one.name}.env[{variable.name}]", problem)
        for variable in one.env
        if _is_kept(variable) and (problem := in_the_way(variable))
    ]
    if wrong:
        raise Invalid(violations=wrong)
    plain = {variable.name: variable.value for variable in one.env if not _is_kept(variable)}
    is_long = len(json.dumps([{"name": k, "value": v} for k, v in plain.items()])) > room
    lines = [
        variable
        for variable in one.env
        if _is_kept(variable) or (is_long and not in_the_way(variable))
    ]
    for variable in lines:
        plain.pop(variable.name, None)
    return plain, "".join(f"{line.name}={line.value}\n" for line in lines).encode()


def _is_kept(variable: EnvVar) -> bool:
    """Nothing is no secret."""
    return variable.secret and bool(variable.value)


def in_the_way(variable: EnvVar) -> str:
    """Why a variable cannot be a line of such an object; empty: it can be."""
    line = f"{variable.name}={variable.value}"
    if not variable.value:
        return "an empty value is passed over in an environment file"
    if "\n" in line or "\r" in line:
        return "a value of several lines cannot be in an environment file"
    if variable.name.startswith("#") or not variable.name:
        return "a name that begins with # is passed over in an environment file"
    return "" if len(line.encode()) <= _LINE else f"a line of more than {_LINE} bytes is cut"
