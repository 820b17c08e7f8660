"""Patches of a pod's status: only what differs. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.pods import Manifest

_MERGED_BY_IP = ("podIPs", "hostIPs")


def status_patch(old: Manifest, new: Manifest) -> Manifest:
    """The strategic merge patch that makes `new` of `old`: only what differs, null for what goes.

    Conditions merge by type and addresses by IP, as v1.PodStatus declares; every other list is
    replaced. Absent, null and empty are one.
    """
    patch: Manifest = {}
    for key, value in new.items():
        before = old.get(key)
        if before is value or before == value or (not before and not value):
            continue
        if key == "conditions":
            if changed := _conditions_patch(before or (), value):
                patch[key] = changed
        elif key in _MERGED_BY_IP:
            patch[key] = [{"$patch": "replace"}, *value] if before else value
        elif isinstance(value, dict) and isinstance(before, dict):
            patch[key] = _merge(before, value)
        else:
            patch[key] = value
    for key, value in old.items():
        if key not in new and value not in (None, "", [], {}):
            patch[key] = None
    return patch


def _merge(old: Manifest, new: Manifest) -> Manifest:
    patch: Manifest = {}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if nested := _merge(before, value):
                patch[key] = nested
        elif before != value:
            patch[key] = value
    return patch | {key: None for key in old if key not in new and old[key] is not None}


def _conditions_patch(old: Iterable[Manifest], new: Iterable[Manifest]) -> list[Manifest]:
    before = {one["type"]: one for one in old}
    patch = []
    for one in new:
        was = before.pop(one["type"], None)
        if was is None:
            patch.append(one)
        elif changed := _merge(was, one):
            patch.append({"type": one["type"], **changed})
    patch += [{"$patch": "delete", "type": kind} for kind in before]
    return patch
