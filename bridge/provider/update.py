"""What may change in a pod that runs, and what of that its backend can apply. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bridge import adapter as seam
from bridge.errors import Unsupported, Violation
from bridge.pods import Manifest

_APPLIED_HERE = ("spec.activeDeadlineSeconds", "spec.terminationGracePeriodSeconds")
"""Changes that the provider itself carries out."""
_NOT_OURS = ("spec.tolerations", "spec.schedulingGates", "spec.nodeSelector", "spec.affinity")
"""Changes that mean nothing to a pod that is already placed."""


def applied(
    before: Manifest, after: Manifest, adapter: seam.Adapter, *, files_changed: bool
) -> None:
    """Returns if the change can be applied in full; Unsupported names every field that cannot."""
    refused = [
        Violation(path, f"cannot be changed while the pod runs on {adapter.name}")
        for path in _changed("spec", before.get("spec") or {}, after.get("spec") or {})
        if not path.startswith(_APPLIED_HERE + _NOT_OURS)
    ]
    if files_changed and not isinstance(adapter, seam.Updates):
        refused.append(Violation("spec.volumes", f"{adapter.name} cannot change a running volume"))
    if refused:
        raise Unsupported(violations=refused)


def _changed(path: str, before: Any, after: Any) -> Iterator[str]:
    """The paths of the outermost values that differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            yield from _changed(f"{path}.{name}", before.get(name), after.get(name))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _changed(f"{path}[{index}]", one, other)
    elif before != after:
        yield path
