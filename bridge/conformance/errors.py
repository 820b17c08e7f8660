"""Errors: refused before anything is started, naming every field."""

from __future__ import annotations

from typing import Any

from bridge.conformance.kit import Kit, state
from bridge.conformance.model import Broken, expect
from bridge.conformance.pods import Pod, words
from bridge.conformance.register import check
from bridge.conformance.wire import Refusal

_SECTION = "Errors"
_REFUSE = "Refuse, don't drop: what cannot be done is refused by name before anything is started."


async def _starts_nothing(kit: Kit, pod: Pod, what: str) -> None:
    """Broken where a container of the pod runs all the same."""
    await kit.watch().quiet(1.0)
    for facts in kit.watch().of(pod.uid):
        told = {state(facts, name) for name in pod.containers}
        ran = told & {"running", "terminated"}
        expect(not ran, f"{what}, or else nothing of it starts", f"it runs: {words(facts)}")


async def _refused(kit: Kit, pod: Pod, field: str, kinds: tuple[str, ...]) -> None:
    """Broken unless the pod is refused with the field's name, or never starts."""
    expected = f"{' or '.join(kinds)} names {field}"
    refusal = await kit.refused(pod)
    if refusal is not None:
        named = any(one.startswith(field) for one in refusal.fields)
        expect(refusal.kind in kinds and named, expected, refusal)
    await _starts_nothing(kit, pod, expected)


@check(
    "errors.unsupported",
    "refuses a volume that it cannot mount, by its path",
    section=_SECTION,
    rule=_REFUSE,
)
async def unsupported(kit: Kit) -> None:
    """An NFS server that is nowhere. Who could mount one would wait for it for ever."""
    pod = kit.pod("exit 0")
    pod.spec["volumes"] = [{"name": "far", "nfs": {"server": "nfs.invalid", "path": "/"}}]
    pod.spec["containers"][0]["volumeMounts"] = [{"name": "far", "mountPath": "/conformance-nfs"}]
    await _refused(kit, pod, "spec.volumes[0].nfs", ("Unsupported",))


@check(
    "errors.runtime-class",
    "refuses a runtime that it does not have, by its path",
    section=_SECTION,
    rule=_REFUSE,
)
async def runtime_class(kit: Kit) -> None:
    """A made-up RuntimeClass."""
    pod = kit.pod("exit 0", runtimeClassName="conformance-made-up")
    await _refused(kit, pod, "spec.runtimeClassName", ("Unsupported", "Invalid"))


@check(
    "errors.unknown-field",
    "refuses a field that no pod has, by its path",
    section=_SECTION,
    rule=_REFUSE,
)
async def unknown_field(kit: Kit) -> None:
    """A made-up field of a container."""
    pod = kit.pod("exit 0")
    pod.spec["containers"][0]["conformanceMadeUp"] = True
    field = "spec.containers[0].conformanceMadeUp"
    await _refused(kit, pod, field, ("Unsupported", "Invalid"))


@check(
    "errors.every-field",
    "names every field that is refused, not the first alone",
    section=_SECTION,
    rule="CreatePod fails with Invalid or Unsupported, naming every field.",
)
async def every_field(kit: Kit) -> None:
    """Two volumes that nobody has."""
    pod = kit.pod("exit 0")
    pod.spec["volumes"] = [
        {"name": "far", "nfs": {"server": "nfs.invalid", "path": "/"}},
        {"name": "near", "hostPath": {"path": "/conformance/nowhere", "type": "Directory"}},
        {"name": "old", "iscsi": {"targetPortal": "i.invalid", "iqn": "iqn.x", "lun": 0}},
    ]
    mounts = [{"name": name, "mountPath": f"/conformance-{name}"} for name in ("far", "old")]
    pod.spec["containers"][0]["volumeMounts"] = mounts
    refusal = await kit.refused(pod)
    if refusal is not None:
        for field in ("spec.volumes[0].nfs", "spec.volumes[2].iscsi"):
            named = any(one.startswith(field) for one in refusal.fields)
            expect(named, f"{field} among the fields", refusal)
    await _starts_nothing(kit, pod, "a refusal")


@check(
    "errors.invalid",
    "refuses what is no pod, by its path",
    section=_SECTION,
    rule="What is wrong with a manifest is Invalid, with BadRequest.field_violations.",
)
async def invalid(kit: Kit) -> None:
    """Broken JSON, and a field of a wrong type."""
    for manifest, field in ((b"{", ""), (_wrong_type(kit), "spec.containers[0].command")):
        pod = kit.pod()
        request = pod.create()
        request.manifest = manifest or request.manifest
        refusal = _some(await kit.wire.refused("CreatePod", request), "Invalid")
        expect(refusal.code == "INVALID_ARGUMENT", "INVALID_ARGUMENT", refusal)
        expect(refusal.kind == "Invalid", "the kind Invalid", refusal)
        expect(refusal.fields, "field violations", refusal)
        named = any(one.startswith(field) for one in refusal.fields)
        expect(named, f"{field} among the fields", refusal)


def _wrong_type(kit: Kit) -> bytes:
    pod = kit.pod()
    pod.spec["containers"][0]["command"] = {"not": "a list"}
    text = pod.manifest().replace(pod.uid.encode(), b"")
    return text.replace(pod.identity.name.encode(), b"")


@check(
    "errors.unknown-pod",
    "knows no pod that was never created",
    section=_SECTION,
    rule="What is not there is NotFound.",
    needs="logs",
)
async def unknown_pod(kit: Kit) -> None:
    """Its log."""
    await kit.has_no_log(kit.pod())


def _some(refusal: Refusal | None, expected: str) -> Any:
    if refusal is None:
        raise Broken(expected, "it was accepted")
    return refusal
