"""Identity: the UID is the pod, and nothing else is."""

from __future__ import annotations

from bridge.conformance.kit import Kit, code, state
from bridge.conformance.model import Broken, expect
from bridge.conformance.pods import ENDLESS, Pod, words
from bridge.conformance.register import check
from bridge.errors import NotFound

_SECTION = "Identity"


def _namesakes(kit: Kit, *scripts: str) -> list[Pod]:
    """Pods of one namespace and name, each with a UID of its own."""
    made = []
    for script in scripts:
        pod = kit.pod(script)
        pod.identity.name = "namesake"
        made.append(pod)
    return made


@check(
    "identity.facts",
    "tells each of two namesakes its own facts",
    section=_SECTION,
    rule="The UID is the identity: names alone never identify. Facts stand under the UID of the pod"
    " that they are true of.",
)
async def facts(kit: Kit) -> None:
    """Two pods of one name that end differently, and a third that goes on."""
    first, second, third = _namesakes(kit, "exit 21", "exit 22", ENDLESS)
    for pod in (first, second, third):
        await kit.create(pod)
    for pod, own in ((first, 21), (second, 22)):
        seen = await kit.ended(pod)
        expect(code(seen) == own, f"exit code {own} under the UID of its own pod", words(seen))
    await kit.running(third)
    await kit.watch().quiet(0.3)
    seen = await kit.running(third)
    told = {state(one) for one in kit.watch().of(third.uid)}
    expect("terminated" not in told, "the third pod runs on, whoever else ended", words(seen))


@check(
    "identity.logs",
    "gives each of two namesakes its own log",
    section=_SECTION,
    rule="The UID is the identity: names alone never identify.",
    needs="logs",
)
async def logs(kit: Kit) -> None:
    """Two pods of one name that write different words."""
    pods = _namesakes(kit, "echo first", "echo second")
    for pod in pods:
        await kit.create(pod)
    for pod, own in zip(pods, (b"first\n", b"second\n"), strict=True):
        await kit.ended(pod)
        found = await kit.log(pod)
        expect(found == own, f"the log {own!r} under the UID of its own pod", found[:200])


@check(
    "identity.unknown",
    "knows no pod by its name alone",
    section=_SECTION,
    rule="The UID is the identity: names alone never identify.",
    needs="logs",
)
async def unknown(kit: Kit) -> None:
    """Asks for the log of a namesake that was never created."""
    pod, stranger = _namesakes(kit, "echo mine", "exit 0")
    await kit.create(pod)
    await kit.ended(pod)
    try:
        found = await kit.log(stranger)
    except NotFound:
        return
    raise Broken("NotFound for a UID that was never created", f"the log {found[:200]!r}")


@check(
    "identity.invalid",
    "refuses an identity that is none, naming the field",
    section=_SECTION,
    rule="cluster and uid are UUIDs, node, namespace and name are not empty: else Invalid names the"
    " field.",
)
async def invalid(kit: Kit) -> None:
    """Each field once wrong."""
    wrong = {"cluster": "mine", "uid": "1234", "node": "", "namespace": "", "name": ""}
    for name, value in wrong.items():
        pod = kit.pod()
        request = pod.create()
        setattr(request.pod, name, value)
        refusal = await kit.wire.refused("CreatePod", request)
        expected = f"Invalid names pod.{name} for {value!r}"
        if refusal is None:
            raise Broken(expected, "the pod was accepted")
        named = any(one.endswith(name) for one in refusal.fields)
        expect(refusal.kind == "Invalid" and named, expected, refusal)


@check(
    "identity.manifest",
    "refuses a manifest of another pod than the identity's",
    section=_SECTION,
    rule="The manifest is that of the pod in `pod`; another one is Invalid.",
)
async def manifest(kit: Kit) -> None:
    """The manifest says another UID."""
    pod, other = kit.pod(), kit.pod()
    request = pod.create()
    request.manifest = other.manifest()
    refusal = await kit.wire.refused("CreatePod", request)
    if refusal is None:
        raise Broken("Invalid", "the pod was accepted")
    expect(refusal.kind == "Invalid", "Invalid", refusal)
