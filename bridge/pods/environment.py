"""A container's environment, in two halves, one on each side of the contract.

On Kubernetes' side `build` collects what envFrom and env say, in the kubelet's order, into the
contract's message. On the provider's side `expand` turns that message into final variables,
command and arguments, where `$(NAME)` means what it means to the kubelet (kubelet_pods.go
makeEnvironmentVariables and third_party/forked/golang/expansion).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bridge.pods import Manifest
from bridge.pods.downward import (
    MissingError,
    Objects,
    config_data,
    fetch,
    field_value,
    namespace_of,
    resource_value,
    secret_data,
)
from bridge.rpc.v1 import pod_pb2
from bridge.workload import EnvVar, Waiting

CONFIG_ERROR = "CreateContainerConfigError"

Reference = tuple[str, str, bool]
"""(kind, name, optional) of a ConfigMap or Secret in the pod's namespace."""

_LATE = {
    "status.podIP": pod_pb2.LATE_REFERENCE_POD_IP,
    "status.podIPs": pod_pb2.LATE_REFERENCE_POD_IPS,
    "status.hostIP": pod_pb2.LATE_REFERENCE_HOST_IP,
    "status.hostIPs": pod_pb2.LATE_REFERENCE_HOST_IPS,
}


@dataclass(frozen=True, slots=True)
class Built:
    """What `build` found. With a `failure` the container waits, and `environment` is not whole."""

    environment: pod_pb2.ContainerEnvironment
    failure: Waiting | None = None
    """CreateContainerConfigError with the kubelet's message; tried again when objects change."""
    skipped: tuple[str, ...] = ()
    """Words for the event InvalidEnvironmentVariableNames: one for each envFrom source that had
    names which no variable may have."""


def build(
    pod: Manifest,
    container: Manifest,
    objects: Objects,
    *,
    allocatable: Mapping[str, str] | None = None,
    services: Iterable[tuple[str, str]] = (),
) -> Built:
    """The environment of one container (init, regular or ephemeral) of a pod.

    `allocatable` is the node's, as quantities: what unset limits read as. `services` are the
    service variables. Nothing raises for what a manifest may say.
    """
    made = pod_pb2.ContainerEnvironment(container=container["name"])
    for name, value in services:
        made.service_variables.add(name=name, literal=value)
    skipped: list[str] = []
    try:
        for source in container.get("envFrom") or ():
            made.variables.extend(_from_source(pod, source, objects, skipped))
        for entry in container.get("env") or ():
            made.variables.extend(_from_entry(pod, container, entry, objects, allocatable or {}))
    except MissingError as missing:
        return Built(made, Waiting(CONFIG_ERROR, str(missing)), tuple(skipped))
    return Built(made, None, tuple(skipped))


def _from_source(
    pod: Manifest, source: Manifest, objects: Objects, skipped: list[str]
) -> Iterator[pod_pb2.EnvVar]:
    is_secret = "secretRef" in source
    reference = source.get("secretRef") or source.get("configMapRef")
    if not reference:
        return
    kind, name = "Secret" if is_secret else "ConfigMap", reference["name"]
    found = fetch(objects, kind, namespace_of(pod), name, bool(reference.get("optional")))
    data = secret_data(found) if is_secret else config_data({"data": found.get("data")})
    invalid = []
    for key in sorted(data):
        variable = f"{source.get('prefix') or ''}{key}"
        if not _valid_name(variable):
            invalid.append(key)
        elif is_secret:
            value = _text(data[key], kind, pod, name, key)
            yield _secret(variable, value, name, key)
        else:
            yield pod_pb2.EnvVar(name=variable, literal=_text(data[key], kind, pod, name, key))
    if invalid:
        skipped.append(
            f"Keys [{', '.join(invalid)}] from the EnvFrom {kind.lower()} "
            f"{namespace_of(pod)}/{name} were skipped since they are considered invalid "
            "environment variable names."
        )


def _from_entry(
    pod: Manifest,
    container: Manifest,
    entry: Manifest,
    objects: Objects,
    allocatable: Mapping[str, str],
) -> Iterator[pod_pb2.EnvVar]:
    name, value, source = entry["name"], entry.get("value"), entry.get("valueFrom")
    if value or not source:
        value = value or ""
        if "$" in value:
            yield pod_pb2.EnvVar(name=name, template=value)
        else:
            yield pod_pb2.EnvVar(name=name, literal=value)
    elif reference := source.get("fieldRef"):
        path = reference["fieldPath"]
        late = _LATE.get(path)
        if late is not None:
            yield pod_pb2.EnvVar(name=name, late=late)
        else:
            yield pod_pb2.EnvVar(name=name, literal=field_value(pod, path))
    elif reference := source.get("resourceFieldRef"):
        yield pod_pb2.EnvVar(
            name=name, literal=resource_value(pod, container, reference, allocatable)
        )
    elif reference := source.get("configMapKeyRef"):
        text = _key(pod, "ConfigMap", reference, objects)
        if text is not None:
            yield pod_pb2.EnvVar(name=name, literal=text)
    elif reference := source.get("secretKeyRef"):
        text = _key(pod, "Secret", reference, objects)
        if text is not None:
            yield _secret(name, text, reference["name"], reference["key"])
    else:
        raise MissingError(
            f"the valueFrom of variable {name} ({', '.join(source)}) cannot be resolved"
        )


def _key(pod: Manifest, kind: str, reference: Manifest, objects: Objects) -> str | None:
    optional, key = bool(reference.get("optional")), reference["key"]
    found = fetch(objects, kind, namespace_of(pod), reference["name"], optional)
    data = secret_data(found) if kind == "Secret" else config_data({"data": found.get("data")})
    if key in data:
        return _text(data[key], kind, pod, reference["name"], key)
    if optional:
        return None
    raise MissingError(f"couldn't find key {key} in {kind} {namespace_of(pod)}/{reference['name']}")


def _text(value: bytes, kind: str, pod: Manifest, name: str, key: str) -> str:
    where = f"key {key} in {kind} {namespace_of(pod)}/{name}"
    if b"\0" in value:
        raise MissingError(f"the value of {where} has a NUL byte, which no variable can hold")
    try:
        return value.decode()
    except UnicodeDecodeError:
        # Without the cause: it may quote the value.
        raise MissingError(f"the value of {where} is not valid UTF-8") from None


def _secret(variable: str, value: str, name: str, key: str) -> pod_pb2.EnvVar:
    return pod_pb2.EnvVar(
        name=variable, secret=pod_pb2.SecretValue(value=value, name=name, key=key)
    )


def _valid_name(name: str) -> bool:
    """IsRelaxedEnvVarName of apimachinery: printable ASCII without `=`."""
    return bool(name) and name.isascii() and name.isprintable() and "=" not in name


def references(pod: Manifest) -> set[Reference]:
    """Every ConfigMap and Secret that a pod needs: variables, volumes, image pull secrets.

    Pull secrets count as optional: the kubelet pulls without those that are missing.
    """
    spec = pod["spec"]
    found: set[Reference] = set()
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(group) or ():
            found.update(_container_references(container))
    for volume in spec.get("volumes") or ():
        found.update(_volume_references(volume))
    for pull in spec.get("imagePullSecrets") or ():
        if pull.get("name"):
            found.add(("Secret", pull["name"], True))
    return found


def _container_references(container: Manifest) -> Iterator[Reference]:
    for source in container.get("envFrom") or ():
        for kind, field_name in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if reference := source.get(field_name):
                yield kind, reference["name"], bool(reference.get("optional"))
    for entry in container.get("env") or ():
        source = entry.get("valueFrom") or {}
        for kind, field_name in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
            if reference := source.get(field_name):
                yield kind, reference["name"], bool(reference.get("optional"))


def _volume_references(volume: Manifest) -> Iterator[Reference]:
    sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
    for source in sources:
        if config := source.get("configMap"):
            yield "ConfigMap", config["name"], bool(config.get("optional"))
        if secret := source.get("secret"):
            # A volume's own field is secretName; a projection's is name.
            name = secret.get("secretName") or secret.get("name")
            yield "Secret", name, bool(secret.get("optional"))


@dataclass(frozen=True, slots=True)
class Expanded:
    """An environment, command and arguments in which nothing is left to replace."""

    env: tuple[EnvVar, ...]
    command: tuple[str, ...] = field(repr=False)
    args: tuple[str, ...] = field(repr=False)
    missing: tuple[str, ...] = ()
    """Variables whose value waits for a late one that is not known: they are not in `env`, and
    what refers to them is not final."""
    secret_command: tuple[int, ...] = ()
    """Which words of `command` hold a secret."""
    secret_args: tuple[int, ...] = ()
    """Which of `args` hold a secret."""


@dataclass(frozen=True, slots=True)
class ExpandedText:
    """One text, expanded."""

    text: str = field(repr=False)
    secret: bool = False
    """Something of it comes from a secret."""
    missing: tuple[str, ...] = ()
    """Names that have no value, or an empty one. For a subPathExpr that is an error."""


def expand(
    environment: pod_pb2.ContainerEnvironment,
    command: Sequence[str],
    args: Sequence[str],
    late: Mapping[int, str] | None = None,
) -> Expanded:
    """Resolves an environment as the kubelet does.

    `late` maps LateReference numbers to their values; None or a lacking key: not known, and what
    depends on it is named in `missing`. A variable keeps its first place and takes its last value.
    """
    services = {one.name: _literal(one) for one in environment.service_variables}
    scope = _Scope({}, services)
    missing: dict[str, None] = {}
    for variable in environment.variables:
        value = _resolve(variable, scope, late or {})
        if value is None:
            scope.variables.pop(variable.name, None)
            scope.unknown.add(variable.name)
            missing[variable.name] = None
        else:
            scope.variables[variable.name] = value
            scope.unknown.discard(variable.name)
            missing.pop(variable.name, None)
    for name, value in services.items():
        if name not in scope.unknown:
            scope.variables.setdefault(name, value)
    words, secret_words = _expand_words(command, scope)
    rest, secret_rest = _expand_words(args, scope)
    return Expanded(
        tuple(scope.variables.values()), words, rest, tuple(missing), secret_words, secret_rest
    )


def expand_text(text: str, env: Iterable[EnvVar]) -> ExpandedText:
    """Expands one text (a subPathExpr) by final variables."""
    values = {variable.name: variable for variable in env}
    empty = sorted({name for name in _names(text) if name not in values or not values[name].value})
    scope = _Scope(values, {})
    value, secret = scope.expand(text) or ("", False)
    return ExpandedText(value, secret, tuple(empty))


def bad_sub_path(container: Manifest, environment: pod_pb2.ContainerEnvironment) -> Waiting | None:
    """Why a container waits for a subPathExpr that cannot be a path below its volume as things
    are, in the kubelet's words; what it refers to may change. None: all are paths, or their values
    are not known before the pod runs."""
    expressions = [mount.get("subPathExpr") for mount in container.get("volumeMounts") or ()]
    if not any(expressions):
        return None
    expanded = expand(environment, (), ())
    for expression in filter(None, expressions):
        found = expand_text(expression, expanded.env)
        if any(name in expanded.missing for name in found.missing):
            continue
        if found.missing:
            return Waiting(CONFIG_ERROR, f'missing value for "{found.missing[0]}"')
        if found.secret:
            continue
        if found.text.startswith("/"):
            words = f"error SubPath `{found.text}` must not be an absolute path"
            return Waiting(CONFIG_ERROR, words)
        if ".." in found.text.split("/"):
            words = f"unable to provision SubPath `{found.text}`: must not contain '..'"
            return Waiting(CONFIG_ERROR, words)
    return None


@dataclass(slots=True)
class _Scope:
    """What `$(NAME)` may refer to at one point."""

    variables: dict[str, EnvVar]
    services: Mapping[str, EnvVar]
    unknown: set[str] = field(default_factory=set)

    def expand(self, text: str) -> tuple[str, bool] | None:
        """The text, and whether it holds a secret; None: it needs a value that is not known."""
        if "$" not in text:
            return text, False
        if self.unknown and any(name in self.unknown for name in _names(text)):
            return None
        secret = False

        def replace(match: re.Match[str]) -> str:
            nonlocal secret
            if match[1] is None:
                return "$"
            found = self.variables.get(match[1]) or self.services.get(match[1])
            if found is None:
                return match[0]
            secret = secret or found.secret
            return found.value

        return _REFERENCE.sub(replace, text), secret


_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
"""`$$` or `$(NAME)`, left to right: what the kubelet's scanner replaces. Everything else stays."""


def _names(text: str) -> Iterator[str]:
    return (match[1] for match in _REFERENCE.finditer(text) if match[1] is not None)


def _literal(variable: pod_pb2.EnvVar) -> EnvVar:
    """Names and values are kept once: most pods of a namespace have the same."""
    if variable.WhichOneof("source") == "secret":
        return EnvVar(sys.intern(variable.name), variable.secret.value, secret=True)
    return EnvVar(sys.intern(variable.name), sys.intern(variable.literal))


def _resolve(variable: pod_pb2.EnvVar, scope: _Scope, late: Mapping[int, str]) -> EnvVar | None:
    source = variable.WhichOneof("source")
    if source == "template":
        expanded = scope.expand(variable.template)
        return None if expanded is None else EnvVar(variable.name, *expanded)
    if source == "late":
        value = late.get(variable.late)
        return None if value is None else EnvVar(variable.name, value)
    return _literal(variable)


def _expand_words(words: Sequence[str], scope: _Scope) -> tuple[tuple[str, ...], tuple[int, ...]]:
    made: list[str] = []
    secrets: list[int] = []
    for index, word in enumerate(words):
        # A word that needs an unknown value stays as written: `missing` names that variable.
        text, secret = scope.expand(word) or (word, False)
        made.append(text)
        if secret:
            secrets.append(index)
    return tuple(made), tuple(secrets)
