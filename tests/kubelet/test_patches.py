"""Patches of statuses: what the API server makes of them is what was meant."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from kubelet.apiserver import merged

from bridge.kubelet.patches import status_patch

_IPS = st.lists(
    st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]).map(lambda ip: {"ip": ip}),
    unique_by=lambda one: one["ip"],
)
_CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from("ABC"), "status": st.sampled_from(["True", "False"])},
        optional={"reason": st.sampled_from(["x", "y"]), "observedGeneration": st.integers(1, 3)},
    ),
    unique_by=lambda one: one["type"],
)
_STATUSES = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Pending", "Running"]),
        "reason": st.sampled_from(["x", "y"]),
        "conditions": _CONDITIONS,
        "podIPs": _IPS,
        "hostIPs": _IPS,
        "containerStatuses": st.lists(st.fixed_dictionaries({"name": st.sampled_from("ab")})),
        "extra": st.dictionaries(
            st.sampled_from("ab"), st.dictionaries(st.sampled_from("cd"), st.integers(1, 3))
        ),
    },
)


def _plain(status: dict[str, Any]) -> dict[str, Any]:
    made = {key: value for key, value in status.items() if value not in (None, "", [], {})}
    if "conditions" in made:
        made["conditions"] = sorted(made["conditions"], key=lambda one: one["type"])
    return made


@given(_STATUSES, _STATUSES)
def test_a_patch_makes_the_new_status_of_the_old(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = status_patch(old, new)
    assert _plain(merged(old, patch)) == _plain(new)
    assert status_patch(new, new) == {}
    again = status_patch(merged(old, patch), new)
    assert not again
