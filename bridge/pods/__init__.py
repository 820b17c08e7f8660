"""What Kubernetes means by a pod, as pure functions over plain JSON: no clock, network or files.

A manifest is the object's JSON as a dict. Typed models would cost milliseconds a pod and drop
what they do not know; the schema check (`bridge.pods.schema`) is where shapes are proven.
"""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]
"""One Kubernetes object as JSON (dict, list, str, int, float, bool, None)."""
