"""Environment: expanded in order, at launch, by the provider; and the files of volumes."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.conformance.kit import Kit, code
from bridge.conformance.model import FIELDS, expect
from bridge.conformance.pods import Pod, words
from bridge.conformance.register import check
from bridge.rpc.v1 import pod_pb2

_SECTION = "Environment and files"


def _is(name: str, value: str, wrong: int) -> str:
    """A line of shell: exits with that code unless the variable has exactly that value."""
    return f"[ \"${{{name}-unset}}\" = '{value}' ] || exit {wrong}\n"


def _with(kit: Kit, script: str, variables: Sequence[pod_pb2.EnvVar]) -> Pod:
    pod = kit.pod(script)
    pod.environment = {"main": variables}
    return pod


async def _fine(kit: Kit, pod: Pod, what: dict[int, str]) -> None:
    """Runs a pod that exits with 0 where all is as it should be, else with the number of what is
    not."""
    await kit.create(pod)
    facts = await kit.ended(pod)
    found = code(facts)
    expected = what.get(found, "the script ends with 0") if found is not None else "an exit code"
    expect(found == 0, expected, words(facts))


@check(
    "environment.order",
    "sets variables in order; a later one of the same name wins",
    section=_SECTION,
    rule="A later entry of the same name replaces an earlier one; an entry without a source is the"
    " empty string; nothing in a literal is expanded.",
)
async def order(kit: Kit) -> None:
    """Literals only."""
    variables = [
        pod_pb2.EnvVar(name="TWICE", literal="first"),
        pod_pb2.EnvVar(name="TWICE", literal="second"),
        pod_pb2.EnvVar(name="EMPTY"),
        pod_pb2.EnvVar(name="PLAIN", literal="$(TWICE) $$ a b"),
    ]
    script = _is("TWICE", "second", 11) + _is("EMPTY", "", 12) + _is("PLAIN", "$(TWICE) $$ a b", 13)
    what = {
        11: "TWICE has its last value",
        12: "EMPTY is set and empty",
        13: "a literal stays as it is written",
    }
    await _fine(kit, _with(kit, script, variables), what)


@check(
    "environment.expansion",
    "expands templates by what stands before them",
    section=_SECTION,
    rule="In a template $(NAME) refers to an earlier entry or a service variable, $$ is $, and an"
    " unknown reference stays as it is written.",
)
async def expansion(kit: Kit) -> None:
    """Each kind of reference once."""
    variables = [
        pod_pb2.EnvVar(name="A", literal="a"),
        pod_pb2.EnvVar(name="B", template="<$(A)>"),
        pod_pb2.EnvVar(name="C", template="$(B)$(LATER)$(NOWHERE)"),
        pod_pb2.EnvVar(name="LATER", literal="x"),
        pod_pb2.EnvVar(name="D", template="$$(A) $$$$ $A"),
        pod_pb2.EnvVar(name="E", template="$(SERVICE_HOST)"),
    ]
    script = (
        _is("B", "<a>", 11)
        + _is("C", "<a>$(LATER)$(NOWHERE)", 12)
        + _is("D", "$(A) $$ $A", 13)
        + _is("E", "10.9.8.7", 14)
        + _is("SERVICE_HOST", "10.9.8.7", 15)
    )
    what = {
        11: "$(A) is replaced",
        12: "later and unknown names stay as they are written",
        13: "$$ becomes $",
        14: "a service variable serves expansion",
        15: "a service variable is set",
    }
    pod = _with(kit, script, variables)
    pod.services = [pod_pb2.EnvVar(name="SERVICE_HOST", literal="10.9.8.7")]
    await _fine(kit, pod, what)


@check(
    "environment.command",
    "expands command and args by the whole environment",
    section=_SECTION,
    rule="command and args travel unexpanded, and are expanded by the container's final variables.",
)
async def command(kit: Kit) -> None:
    """One reference in the command, one in its arguments, one that is escaped, one unknown."""
    pod = _with(kit, "", [pod_pb2.EnvVar(name="A", literal="a b")])
    main = pod.spec["containers"][0]
    test = (
        "[ '$(A)' = 'a b' ] || exit 11; [ \"$$1\" = 'a b' ] || exit 12;"
        ' [ "$$2" = "$$3"\'(A)\' ] || exit 13; [ "$$4" = "$$3"\'(NOWHERE)\' ] || exit 14'
    )
    main["command"] = ["sh", "-c", test]
    main["args"] = ["sh", "$(A)", "$$(A)", "$$", "$(NOWHERE)"]
    what = {
        11: "$(A) in command is replaced",
        12: "$(A) in args is replaced, and stays one word",
        13: "$$(A) becomes $(A)",
        14: "an unknown reference stays as it is written",
    }
    await _fine(kit, pod, what)


@check(
    "environment.late",
    "fills in the pod's address at launch",
    section=_SECTION,
    rule="A late reference is filled in at launch with what the backend knows: podIP, podIPs,"
    " hostIP, hostIPs.",
    needs=FIELDS,
)
async def late(kit: Kit) -> None:
    """The pod's address, by itself and within a template."""
    variables = [
        pod_pb2.EnvVar(name="IP", late=pod_pb2.LATE_REFERENCE_POD_IP),
        pod_pb2.EnvVar(name="URL", template="http://$(IP)/"),
    ]
    script = '[ -n "$IP" ] || exit 11\n[ "$URL" = "http://$IP/" ] || exit 12'
    pod = _with(kit, script, variables)
    field = {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    pod.spec["containers"][0]["env"] = [field, {"name": "URL", "value": "http://$(IP)/"}]
    await _fine(kit, pod, {11: "IP has a value", 12: "a template may refer to a late value"})


@check(
    "environment.secret",
    "brings a secret's value to its container",
    section=_SECTION,
    rule="A secret's value reaches the container; a value that refers to it becomes secret.",
    needs=FIELDS,
)
async def secret(kit: Kit) -> None:
    """By itself and within a template."""
    value = pod_pb2.SecretValue(value="s3cr3t value", name="conformance", key="key")
    variables = [
        pod_pb2.EnvVar(name="KEY", secret=value),
        pod_pb2.EnvVar(name="URL", template="https://u:$(KEY)@host"),
    ]
    script = _is("KEY", "s3cr3t value", 11) + _is("URL", "https://u:s3cr3t value@host", 12)
    what = {11: "KEY has the secret's value", 12: "a template may refer to a secret"}
    await _fine(kit, _with(kit, script, variables), what)


@check(
    "environment.apart",
    "gives each container its own environment",
    section=_SECTION,
    rule="The environment belongs to the container that it names.",
    needs=FIELDS,
)
async def apart(kit: Kit) -> None:
    """Two containers with one name of a variable."""
    pod = kit.pod(
        containers=[
            kit.container("one", _is("WHO", "one", 11)),
            kit.container("two", _is("WHO", "two", 12)),
        ]
    )
    pod.environment = {name: [pod_pb2.EnvVar(name="WHO", literal=name)] for name in ("one", "two")}
    await kit.create(pod)
    facts = await kit.ended(pod)
    for name in ("one", "two"):
        expect(code(facts, name) == 0, f"{name} sees its own WHO", words(facts))


@check(
    "environment.files",
    "puts a volume's files at their paths, with bytes and modes",
    section=_SECTION,
    rule="A file has the bytes and the permission bits that were sent (0644 where none were).",
    needs=FIELDS,
)
async def files(kit: Kit) -> None:
    """A configMap volume with two files, one of them in a folder."""
    script = """
    cd /conformance-files || exit 11
    [ "$(cat greeting)" = 'hello there' ] || exit 12
    [ "$(cat deep/er/script)" = 'exit 7' ] || exit 13
    [ "$(stat -L -c %a greeting)" = 644 ] || exit 14
    [ "$(stat -L -c %a deep/er/script)" = 500 ] || exit 15
    """
    mount = {"name": "files", "mountPath": "/conformance-files"}
    source = {"name": "files", "configMap": {"name": "conformance"}}
    main = kit.container("main", script, volumeMounts=[mount])
    pod = kit.pod(containers=[main], volumes=[source])
    content = pod_pb2.VolumeContent(volume="files", revision="1")
    content.files.add(path="greeting", content=b"hello there")
    content.files.add(path="deep/er/script", content=b"exit 7", mode=0o500)
    pod.volumes = [content]
    what = {
        11: "the volume is at its mountPath",
        12: "greeting has its bytes",
        13: "deep/er/script has its bytes",
        14: "a file without a mode has 0644",
        15: "a file with a mode has it",
    }
    await _fine(kit, pod, what)
