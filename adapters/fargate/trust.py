"""Whom a role trusts. Pure."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote


def is_for_tasks(role: Any) -> bool:
    """Whether ECS may give the role to tasks."""
    document = role.get("AssumeRolePolicyDocument") or {}
    if isinstance(document, str):
        try:
            document = json.loads(unquote(document))
        except ValueError:
            return False
    statements = document.get("Statement") or []
    for one in [statements] if isinstance(statements, dict) else statements:
        principal = one.get("Principal")
        services = principal.get("Service", []) if isinstance(principal, dict) else []
        listed = [services] if isinstance(services, str) else services
        if one.get("Effect") == "Allow" and "ecs-tasks.amazonaws.com" in listed:
            return True
    return False
