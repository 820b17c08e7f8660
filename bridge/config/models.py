"""The configuration's own shape. What a backend's type adds to it stands in that type's adapter."""

from __future__ import annotations

import ast
import inspect
import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from bridge.config.cluster import Cluster, NodeConfig, ServingCertificate
from bridge.config.values import (
    Address,
    Cores,
    Duration,
    FilePath,
    Label,
    Money,
    SecretRef,
    Size,
)

API_VERSION = "podbridge.io/v1"
OptionsModel = Callable[[str], type[BaseModel] | None]
"""A backend type's own options: the model, None where it has none; Invalid for unknown types."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(_Strict):
    """Both ends of a connection prove who they are with these."""

    ca: FilePath
    """PEM file: who may sign the other side's certificate. Required: nobody unknown gets in."""
    cert: FilePath
    """PEM file: this side's certificate, with its intermediates. Required."""
    key: SecretRef
    """`env:NAME` or `file:PATH` of this side's private key in PEM. Required."""


class Provider(_Strict):
    """The provider as a process of its own, for shims elsewhere."""

    listen: Address | None = None
    """`unix:///path` or `host:port`. Default: none, which is a socket in the user's own runtime
    directory, because nobody else can open that."""
    tls: Tls | None = None
    """Default: none, because no key can be guessed. Required where another host could reach
    `listen`."""

    def address(self, env: Mapping[str, str]) -> str:
        """`listen`, or the socket in the user's runtime directory."""
        if self.listen is not None:
            return self.listen
        runtime = env.get("XDG_RUNTIME_DIR")
        if runtime and Path(runtime).is_absolute():
            return f"unix://{runtime}/podbridge/provider.sock"
        user = env.get("USER") or "user"
        return f"unix://{tempfile.gettempdir()}/podbridge-{user}/provider.sock"


class BackendConfig(_Strict):
    """One place where pods can run. Keys of its type's own stand beside these."""

    name: Label
    """What `--on`, annotations and statuses call it: a DNS-1123 label, unique. Required."""
    type: Label
    """Which adapter: `process`, `fargate`. Required."""
    max_pods: int = Field(default=110, ge=1, le=100_000)
    """Pods at the same time. Default 110: what Kubernetes gives a node, so that a forgotten limit
    is no surprise."""
    cpu: Cores | None = None
    """The most that all pods together may ask for, as a quantity ("8"; held in millicores).
    Default: none, because most backends have no size of their own."""
    memory: Size | None = None
    """The same for memory ("16Gi"; held in bytes). Default: none."""

    _options: Any = PrivateAttr(default=None)
    _simulated: bool = PrivateAttr(default=False)

    @property
    def simulated(self) -> bool:
        """Whether the cloud there is a simulator, whatever the adapter is made for."""
        return self._simulated

    @property
    def options(self) -> Any:
        """The type's own options: an instance of its model, or the mapping as it was written
        where no models were at hand."""
        return {} if self._options is None else self._options

    @property
    def limits(self) -> dict[str, int]:
        """The most of each resource at the same time: pods, cpu in millicores, memory in bytes.
        What has no limit is not there."""
        limits = {"pods": self.max_pods, "cpu": self.cpu, "memory": self.memory}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def with_options(self, options: Any, *, simulated: bool = False) -> BackendConfig:
        """The same backend with these options of its type; `simulated`: those of a simulator."""
        made = self.model_copy()
        made._options = options
        made._simulated = simulated
        return made


class Config(_Strict):
    """All that can be configured."""

    api_version: Literal["podbridge.io/v1"] = Field(default="podbridge.io/v1", alias="apiVersion")
    """The format of this file. Default: the only one that there is."""
    max_run: Duration = 86400.0
    """How long a pod may run at most ("24h", or seconds): every launch carries this stop, which
    works without us; activeDeadlineSeconds only shortens it. Default 24h: a forgotten pod costs at
    most one day."""
    confirm_above: Money = Decimal(10)
    """US dollars ("10", "$0.50") that a run may cost at the most before `podbridge run` asks; what
    nobody can bound is asked about too. Default 10: less is lost by waiting for an answer."""
    provider: Provider = Provider()
    """The provider as a process of its own. Default: as its fields say."""
    backends: tuple[BackendConfig, ...] = ()
    """Where pods can run, the preferred first. Default: none."""

    cluster: Cluster = Cluster()
    """The cluster that `podbridge up` joins. Default: as its fields say."""
    nodes: tuple[NodeConfig, ...] = ()
    """The virtual nodes there. Default: one, with all backends."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def backend(self, name: str) -> BackendConfig:
        """The backend of that name; KeyError where there is none."""
        for one in self.backends:
            if one.name == name:
                return one
        raise KeyError(name)

    def values(self) -> dict[str, Any]:
        """Every value by its path (`backends[0].max_pods`), as JSON has it; secrets as references.

        Empty lists and absent values are left in: they are what counts.
        """
        return dict(leaves(self.to_dict(), ""))

    def to_dict(self) -> dict[str, Any]:
        """The whole as plain JSON, each backend's options beside its other keys."""
        out: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        for plain, backend in zip(out["backends"], self.backends, strict=True):
            options = backend.options
            if isinstance(options, BaseModel):
                options = options.model_dump(mode="json", by_alias=True)
            plain.update(options)
        return out

    def origins(self) -> Mapping[str, str]:
        """Where each of `values` comes from: "flag --max-run", "PODBRIDGE_MAX_RUN",
        "podbridge.yaml:3" or "default"."""
        return {path: self._origins.get(path, "default") for path in self.values()}


def leaves(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    """(path, value) of everything below that holds nothing more, or is empty."""
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from leaves(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for index, child in enumerate(value):
            yield from leaves(child, f"{path}[{index}]")
    else:
        yield path, value


def schema(types: Iterable[str] = (), options_model: OptionsModel | None = None) -> dict[str, Any]:
    """The JSON Schema of the file, for editors; with `types` their own keys as well.

    A type whose options cannot be loaded (its extra is not installed) raises Invalid as
    `options_model` does; leave such types out.
    """
    out = Config.model_json_schema(by_alias=True)
    definitions = out["$defs"]
    parts = (Config, Provider, Tls, BackendConfig, Cluster, NodeConfig, ServingCertificate)
    for model in parts:
        node = out if model is Config else definitions[model.__name__]
        _describe(node, model)
    backend = definitions["BackendConfig"]
    branches = []
    for name in types:
        model_ = options_model(name) if options_model else None
        own = _own_schema(model_, definitions, name)
        then = {"properties": {**dict.fromkeys(backend["properties"], True), **own}}
        branches.append(
            {
                "if": {"properties": {"type": {"const": name}}},
                "then": {**then, "additionalProperties": False},
            }
        )
    backend.pop("additionalProperties", None)
    if branches:
        backend["allOf"] = branches
        backend["properties"]["type"]["enum"] = list(types)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **out}


def _own_schema(
    model: type[BaseModel] | None, definitions: dict[str, Any], name: str
) -> dict[str, Any]:
    """The properties of a type's options; what they refer to goes to `definitions`."""
    if model is None:
        return {}
    prefix = f"{name}."
    node = model.model_json_schema(by_alias=True, ref_template=f"#/$defs/{prefix}{{model}}")
    for key, child in node.pop("$defs", {}).items():
        definitions[prefix + key] = child
    _describe(node, model)
    properties: dict[str, Any] = node.get("properties", {})
    return properties


def _describe(node: dict[str, Any], model: type[BaseModel]) -> None:
    """Puts the docstrings below the fields into the schema.

    Done here and not by pydantic's own setting, which reads the sources at every import.
    """
    try:
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(model)))
    except (OSError, SyntaxError, TypeError):
        return
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    for field, text in itertools.pairwise(body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            known = model.model_fields.get(field.target.id)
            name = (known.alias if known else None) or field.target.id
            if name in node.get("properties", {}):
                node["properties"][name]["description"] = inspect.cleandoc(str(text.value.value))
