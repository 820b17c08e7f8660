"""Secrets: they reach the container, and nobody else."""

from __future__ import annotations

from bridge.conformance.kit import Kit, code
from bridge.conformance.model import FIELDS, Skipped, expect
from bridge.conformance.pods import Pod, words
from bridge.conformance.register import check
from bridge.rpc.v1 import pod_pb2

_SECTION = "Secrets"
_RULE = "A secret's value is never part of an error, of facts, or of an approximation."

_SENTINEL = "sentinel-5f0e1c77-do-not-tell"
"""A value that must be seen nowhere but in the container."""


def _planted(kit: Kit, script: str = "exit 0") -> Pod:
    """A pod with secrets in a variable, in what refers to it, and in a volume."""
    mount = {"name": "keys", "mountPath": "/conformance-keys"}
    pod = kit.pod(containers=[kit.container("main", script, volumeMounts=[mount])])
    pod.spec["volumes"] = [{"name": "keys", "secret": {"secretName": "conformance"}}]
    value = pod_pb2.SecretValue(value=_SENTINEL, name="conformance", key="key")
    pod.environment = {
        "main": [
            pod_pb2.EnvVar(name="KEY", secret=value),
            pod_pb2.EnvVar(name="URL", template="https://u:$(KEY)@host"),
        ]
    }
    content = pod_pb2.VolumeContent(volume="keys", revision="1")
    content.files.add(path="key", content=_SENTINEL.encode(), secret=True)
    pod.volumes = [content]
    return pod


async def _told_nowhere(kit: Kit, pod: Pod) -> None:
    """Creates a pod that is to fail somehow, and looks at everything that is told of it."""
    refusal = await kit.refused(pod)
    hidden = not any(_SENTINEL in one for one in kit.errors)
    expect(hidden, "no secret in an error", "the planted secret in one")
    if refusal is not None:
        return
    await kit.ended(pod)
    _not_in_facts(kit, pod)


def _not_in_facts(kit: Kit, pod: Pod) -> None:
    for facts in kit.watch().of(pod.uid):
        expect(_SENTINEL not in str(facts), "no secret in facts", "the planted secret in facts")


@check(
    "secrets.not-in-errors",
    "tells no secret where a pod is refused or cannot start",
    section=_SECTION,
    rule=_RULE,
)
async def not_in_errors(kit: Kit) -> None:
    """Four pods that fail, each in another place."""
    program = _planted(kit)
    program.spec["containers"][0]["command"] = ["/no/such/$(KEY)"]
    argument = _planted(kit)
    argument.spec["containers"][0]["args"] = ["$(URL)"]
    argument.spec["containers"][0]["command"] = ["/no/such/program"]
    folder = _planted(kit)
    folder.spec["containers"][0]["workingDir"] = "/proc/no/such"
    volume = _planted(kit)
    volume.spec["volumes"].append({"name": "far", "nfs": {"server": "n.invalid", "path": "/"}})
    volume.spec["runtimeClassName"] = "conformance-made-up"
    broken = _planted(kit)
    broken.spec["restartPolicy"] = "Sometimes"
    for pod in (program, argument, folder, volume, broken):
        await _told_nowhere(kit, pod)


@check(
    "secrets.not-in-facts",
    "tells no secret of a pod that runs",
    section=_SECTION,
    rule=_RULE,
    needs=FIELDS,
)
async def not_in_facts(kit: Kit) -> None:
    """The container has both, and fails."""
    script = '[ "$(cat /conformance-keys/key)" = "$KEY" ] || exit 11; exit 7'
    pod = _planted(kit, script)
    accepted = await kit.create(pod)
    said = str(accepted.approximations)
    expect(_SENTINEL not in said, "no secret in an approximation", "the planted secret")
    facts = await kit.ended(pod)
    expect(code(facts) == 7, "the secret in KEY and in its file (exit code 7)", words(facts))
    _not_in_facts(kit, pod)


@check(
    "secrets.not-in-arguments",
    "never shows a secret that an argument refers to",
    section=_SECTION,
    rule="Where a backend has no secret channel for command or args, they are refused by field.",
    needs=FIELDS,
)
async def not_in_arguments(kit: Kit) -> None:
    """Either refused with the path, or the container gets it."""
    pod = _planted(kit)
    main = pod.spec["containers"][0]
    main["args"] = ["sh", "$(KEY)"]
    main["command"] = ["sh", "-c", f"[ \"$$1\" = '{_SENTINEL}' ] || exit 11"]
    refusal = await kit.refused(pod)
    if refusal is not None:
        hidden = _SENTINEL not in refusal.text
        expect(hidden, "no secret in an error", "the planted secret")
        expect(refusal.fields, "a refusal that names the field", refusal)
        raise Skipped(f"refused by field: {', '.join(refusal.fields)}")
    facts = await kit.ended(pod)
    expect(code(facts) == 0, "the secret in its argument", words(facts))
    _not_in_facts(kit, pod)
