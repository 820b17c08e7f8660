"""The configuration of this machine, as the replicas in the cluster get it.

What says how *this* machine reaches the API server is left out and named: there a service account
does that, and each replica has an address of its own. Everything about nodes and backends stays.
A secret never goes along. `env:NAME` stays as it is and becomes a key of a Secret, which somebody
else makes; `file:PATH`, and every other path of this machine, is refused by its field: nothing is
there at that place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml
from pydantic import BaseModel

from bridge import quantity
from bridge.config import (
    BackendConfig,
    Config,
    NodeConfig,
    OptionsModel,
    SecretRef,
    check_text,
    default_nodes,
)
from bridge.errors import Invalid, Violation
from bridge.kubelet.manifests.parts import NAME, STATE

_THERE_ANYWAY = ("kubeconfig", "context", "bootstrap_kubeconfig", "client_ca", "state", "identity")
"""Of `cluster`: what a service account, its token and the state volume stand for."""


@dataclass(frozen=True, slots=True)
class InCluster:
    """What the replicas are configured with."""

    text: str
    """The file, as YAML."""
    nodes: tuple[str, ...]
    """The nodes' names."""
    ports: tuple[int, ...]
    """At which their APIs listen."""
    variables: tuple[str, ...] = ()
    """Environment variables that hold secrets: keys of the Secret `podbridge`."""
    left_out: tuple[str, ...] = ()
    """The fields of this machine's own, by path."""
    untainted: bool = False
    """Whether a node takes all pods."""
    local: tuple[str, ...] = ()
    """Backends that run pods inside the replica itself."""
    hostless: tuple[str, ...] = ()
    """Backends that would look for a container engine there."""


def in_cluster(config: Config, backends: Sequence[BackendConfig], model: OptionsModel) -> InCluster:
    """The configuration for the cluster, with these backends. Invalid: none, or a field that means
    something on this machine only."""
    if not backends:
        words = "no backend is configured; configure one, or name a type, such as --on process"
        raise Invalid(violations=[Violation("backends", words)])
    nodes = default_nodes(config.nodes)
    _check_backends(nodes, backends)
    variables, wrong = _secrets(backends)
    if wrong:
        raise Invalid(violations=wrong)
    cluster = {"identity": "service-account", "state": f"{STATE}/nodes"}
    cluster |= config.cluster.model_dump(include={"id", "api_server_address"}, exclude_none=True)
    values: dict[str, Any] = {
        "apiVersion": config.api_version,
        "max_run": config.max_run,
        "cluster": cluster,
        "nodes": [_node(one) for one in nodes],
        "backends": [_backend(one) for one in backends],
    }
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=10_000)
    _check_same(text, config, backends, model)
    return InCluster(
        text,
        tuple(one.name for one in nodes),
        tuple(one.port for one in nodes),
        variables,
        tuple(_left_out(config)),
        any(one.no_taint for one in nodes),
        tuple(one.name for one in backends if one.type == "process"),
        tuple(
            one.name
            for one in backends
            if one.type == "engine" and not getattr(one.options, "host", "")
        ),
    )


def _check_backends(nodes: Sequence[NodeConfig], backends: Sequence[BackendConfig]) -> None:
    """Invalid where a node has none of those that go along."""
    names = [one.name for one in backends]
    wrong = [
        Violation(f"nodes[{index}].backends", f'found "{one}", which --on leaves out')
        for index, node in enumerate(nodes)
        for one in node.backends
        if one not in names
    ]
    if wrong:
        raise Invalid(violations=wrong)


def _node(node: NodeConfig) -> dict[str, Any]:
    made = node.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"address", "serving"}
    )
    if not node.serving.self_signed:
        made["serving"] = {"self_signed": False}
    return {"name": node.name} | made


def _backend(backend: BackendConfig) -> dict[str, Any]:
    made = backend.model_dump(mode="json", exclude_defaults=True)
    if backend.cpu is not None:
        # Held in millicores, and written as a quantity; as a plain number it would be cores.
        made["cpu"] = quantity.format_cpu(backend.cpu)
    if backend.memory is not None:
        made["memory"] = quantity.format_bytes(backend.memory)
    options = backend.options
    if isinstance(options, BaseModel):
        options = options.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return made | dict(options)


def _secrets(backends: Sequence[BackendConfig]) -> tuple[tuple[str, ...], list[Violation]]:
    """The variables that hold secrets, and every place that does not exist in a cluster."""
    variables: dict[str, None] = {}
    wrong = []
    for index, backend in enumerate(backends):
        for path, value in _leaves(backend.options, f"backends[{index}]"):
            if isinstance(value, SecretRef) and value.kind == "env":
                variables[value.place] = None
            elif isinstance(value, SecretRef):
                words = f"found {value}; allowed in a cluster: env:NAME, a key of Secret {NAME}"
                wrong.append(Violation(path, words))
            elif isinstance(value, PurePath):
                words = f"found {value}, a place on this machine; a cluster has none of them"
                wrong.append(Violation(path, f"{words}: leave it out"))
    return tuple(variables), wrong


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Everything below, by its path, as Python has it."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from _leaves(getattr(value, name), f"{path}.{field.alias or name}")
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _leaves(child, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from _leaves(child, f"{path}[{index}]")
    else:
        yield path, value


def _left_out(config: Config) -> Iterator[str]:
    """The fields that are given and stay here."""
    usual = type(config.cluster)()
    for key in _THERE_ANYWAY:
        value = getattr(config.cluster, key)
        if value != getattr(usual, key) and value != "service-account":
            yield f"cluster.{key}"
    for index, node in enumerate(config.nodes):
        serving = node.serving
        for key, value in (
            ("address", node.address),
            ("serving.cert", serving.cert),
            ("serving.key", serving.key),
        ):
            if value is not None:
                yield f"nodes[{index}].{key}"
    for key in ("listen", "tls"):
        if getattr(config.provider, key) is not None:
            yield f"provider.{key}"


def _check_same(
    text: str, config: Config, backends: Sequence[BackendConfig], model: OptionsModel
) -> None:
    """Invalid where what was written would be read as something else: a type whose options are not
    written as they are held."""
    again = check_text(text, "the configuration for the cluster", model)
    for index, (one, read) in enumerate(zip(backends, again.backends, strict=True)):
        same = one.limits == read.limits and one.type == read.type
        if isinstance(one.options, BaseModel):
            same = same and one.options == read.options
        if not same:
            words = f"options of type {one.type} cannot be written for a cluster"
            raise Invalid(violations=[Violation(f"backends[{index}]", words)])
    assert again.max_run == config.max_run
