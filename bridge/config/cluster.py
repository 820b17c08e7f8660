"""What is configured about a cluster, and about the nodes that stand for the backends in it."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from bridge.config.values import FilePath, Label, SecretRef, nearest, shown

DEFAULT_NODE = "podbridge"
"""The name of the node where none is configured."""
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABELS_OF_NODES = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")
"""What of kubernetes.io a node's own identity may set (NodeRestriction), beside the domains
kubelet.kubernetes.io and node.kubernetes.io, less the labels that the node gets anyway."""
_LONGEST_CERTIFIED = 52
"""Characters of a node's name in a certificate: 64 less those of `system:node:`."""

Problem = tuple[str, str]
"""The field (`nodes[0].name`), and what is wrong there."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def cluster_id(value: object) -> str:
    """A UUID in lower case. ValueError for others."""
    if isinstance(value, str):
        try:
            return str(uuid.UUID(value))
        except ValueError:
            pass
    raise ValueError(f'found {shown(value)}; allowed: a UUID ("{uuid.UUID(int=0)}")')


def ip_address(value: object) -> str:
    """An IP address that others can call. ValueError for others."""
    if isinstance(value, str):
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            pass
        else:
            if not (address.is_unspecified or address.is_multicast):
                return str(address)
    raise ValueError(f'found {shown(value)}; allowed: an IP address ("10.0.0.7")')


def api_address(value: object) -> str:
    """`host:port` of an API server, or `https://host:port`; the former comes out."""
    text = value.removeprefix("https://").rstrip("/") if isinstance(value, str) else ""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::([1-9]\d{0,4}))?", text, re.ASCII)
    if match is None or int(match[2] or 443) > 65535:
        raise ValueError(f'found {shown(value)}; allowed: "host:port" ("api.example.com:6443")')
    return f"{match[1]}:{match[2] or 443}"


def node_labels(value: object) -> dict[str, str]:
    """Labels as Kubernetes takes them. ValueError with the first that is none."""
    if not isinstance(value, Mapping):
        raise ValueError(f"found {shown(value)}; allowed: a mapping of labels")
    return {str(key): _label(key, one) for key, one in value.items()}


def _label(key: object, value: object) -> str:
    prefix, slash, name = str(key).rpartition("/")
    if (
        not isinstance(key, str)
        or not _LABEL_NAME.fullmatch(name)
        or (slash and (len(prefix) > 253 or not _LABEL_PREFIX.fullmatch(prefix)))
    ):
        raise ValueError(
            f"found the name {shown(key)}; allowed: a label's name, perhaps after a domain and /"
        )
    if not isinstance(value, str) or (value and not _LABEL_NAME.fullmatch(value)):
        raise ValueError(
            f"found {shown(value)} for {key}; allowed: a text of at most 63 letters, digits, -, _"
            " and ., with a letter or digit at both ends"
        )
    return value


_TEXT = WithJsonSchema({"type": "string"})
ClusterId = Annotated[str, BeforeValidator(cluster_id), _TEXT]
IpAddress = Annotated[str, BeforeValidator(ip_address), _TEXT]
ApiAddress = Annotated[str, BeforeValidator(api_address), _TEXT]
NodeLabels = Annotated[
    dict[str, str],
    BeforeValidator(node_labels),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
]


class Cluster(_Strict):
    """The Kubernetes cluster that `podbridge up` joins."""

    id: ClusterId | None = None
    """A UUID: with a pod's UID it names everything that runs for the cluster, so it must never
    change. Default: the UID of the namespace kube-system, because that is the cluster's own; a node
    identity may not read it, and needs the id here."""
    kubeconfig: FilePath | None = None
    """How to reach the API server. Default: KUBECONFIG, the service account of the pod that we are
    in, or ~/.kube/config, the first that there is, as kubectl has it."""
    context: str | None = None
    """Another context of the kubeconfig than its current one. Default: that one."""
    identity: Literal["node", "service-account", "kubeconfig"] = "kubeconfig"
    """Who we are. `node`: system:node:NAME, with a certificate of our own, and no more rights than
    a node has. `service-account`: the one of the pod that we are in. `kubeconfig`: what stands in
    there. Default: kubeconfig, because that asks for nothing more."""
    bootstrap_kubeconfig: FilePath | None = None
    """A kubeconfig whose token may ask for a node's first certificate; the API server's address and
    CA are read from it later too. Required where identity is `node`, with no default."""
    client_ca: FilePath | None = None
    """PEM file: the CAs of client certificates that the kubelet's API takes; read anew when it is
    replaced. Default: what the API server tells in the ConfigMap
    kube-system/extension-apiserver-authentication, because those are its own; a node identity may
    not read that, and needs the file here for logs and exec."""
    state: FilePath | None = None
    """A folder for certificates and keys, and for this replica's name. Default:
    `$XDG_STATE_HOME/podbridge/nodes`, or `~/.local/state/podbridge/nodes`. Where it survives,
    nothing is asked for anew after a restart, and the node has no pause."""
    api_server_address: ApiAddress | None = None
    """`host:port` at which pods reach the API server (KUBERNETES_SERVICE_HOST and _PORT in their
    environment). Default: none, which leaves the cluster's own address; away from its network that
    leads nowhere."""

    def folder(self, env: Mapping[str, str]) -> Path:
        """`state`, or where that is by default."""
        if self.state is not None:
            return self.state
        base = env.get("XDG_STATE_HOME")
        home = Path(env.get("HOME") or "~").expanduser()
        there = Path(base) if base and Path(base).is_absolute() else home / ".local" / "state"
        return there / "podbridge" / "nodes"


class ServingCertificate(_Strict):
    """How the API server knows the kubelet's API of a node."""

    cert: FilePath | None = None
    """PEM file: a certificate for the node's address, with its intermediates; read anew when it is
    replaced. Default: none, which asks the cluster for one (signer kubernetes.io/kubelet-serving);
    somebody has to approve that."""
    key: SecretRef | None = None
    """`env:NAME` or `file:PATH` of its private key in PEM. Required where `cert` is given."""
    self_signed: bool = True
    """Whether a certificate that nobody can verify serves while there is no other one. Default
    true, as a kubelet does: an API server that verifies (--kubelet-certificate-authority) refuses
    it anyway, and with any other one logs and exec work at once. With false they wait for the
    approval."""


class NodeConfig(_Strict):
    """One virtual node."""

    name: Label = DEFAULT_NODE
    """Its name: a DNS-1123 label, unique in the cluster, and at most 52 characters where it has
    certificates of the cluster. Default: podbridge."""
    backends: tuple[Label, ...] = ()
    """Which backends its pods may run on, by name. Default: all."""
    labels: NodeLabels = Field(default_factory=dict)
    """More labels for the node. Default: none but those that tell what it is."""
    no_taint: bool = False
    """Whether it takes pods that do not tolerate `virtual-kubelet.io/provider=podbridge`. Default
    false, because DaemonSets and pods that need a real machine would land here. Counts when the
    node is made; later its taints are the administrator's."""
    region: str | None = Field(default=None, max_length=63)
    """The label topology.kubernetes.io/region. Default: none; it is for pods that choose."""
    zone: str | None = Field(default=None, max_length=63)
    """The label topology.kubernetes.io/zone. Default: none."""
    architecture: Literal["amd64", "arm64"] | None = None
    """The label kubernetes.io/arch. Default: this machine's own, because `process` and `engine` run
    here."""
    capacity_type: Literal["on-demand", "spot"] | None = None
    """The label podbridge.io/capacity-type. Default: none."""
    address: IpAddress | None = None
    """The IP address at which the API server reaches this process. Default: POD_IP, or the one from
    which this machine reaches the API server."""
    port: int = Field(default=10250, ge=1, le=65535)
    """The port of the kubelet's API. Default 10250, the kubelet's own, because firewalls are open
    for that one; several nodes need one each."""
    serving: ServingCertificate = ServingCertificate()
    """How the API server knows it. Default: by a certificate of the cluster."""


def default_nodes(nodes: Sequence[NodeConfig]) -> tuple[NodeConfig, ...]:
    """The nodes that there are: those configured, or one with all backends."""
    return tuple(nodes) or (NodeConfig(),)


def problems(
    cluster: Cluster, nodes: Sequence[NodeConfig], backends: Iterable[str]
) -> list[Problem]:
    """What is wrong between the parts, where each by itself is right."""
    out: list[Problem] = []
    if cluster.identity == "node" and cluster.bootstrap_kubeconfig is None:
        out.append(("cluster.bootstrap_kubeconfig", "required, because cluster.identity is node"))
    if cluster.identity == "node" and cluster.id is None:
        words = "required, because a node may not read it (cluster.identity): the output of"
        command = "kubectl get namespace kube-system -o jsonpath={.metadata.uid}"
        out.append(("cluster.id", f"{words} `{command}`"))
    if cluster.identity == "service-account" and cluster.kubeconfig is not None:
        words = "not together with cluster.identity: service-account, which needs none"
        out.append(("cluster.kubeconfig", words))
    names: dict[Any, str] = {}
    known = list(backends)
    for index, node in enumerate(nodes):
        where = f"nodes[{index}]"
        for key, value in (("name", node.name), ("port", node.port)):
            first = names.setdefault((key, value), f"{where}.{key}")
            if first != f"{where}.{key}":
                out.append((f"{where}.{key}", f'found "{value}", which is {first} already'))
        out += _node_problems(node, where, cluster, known)
    return out


def _node_problems(
    node: NodeConfig, where: str, cluster: Cluster, backends: Sequence[str]
) -> Iterable[Problem]:
    for index, name in enumerate(node.backends):
        field = f"{where}.backends[{index}]"
        if name not in backends:
            near = nearest(name, backends)
            hint = f'; did you mean "{near}"?' if near else ""
            names = ", ".join(backends) or "none"
            yield field, f'found "{name}"{hint or ";"} the backends are: {names}'
        elif name in node.backends[:index]:
            yield field, f'found "{name}", which stands here twice'
    serving = node.serving
    if (serving.cert is None) != (serving.key is None):
        lacking, given = ("key", "cert") if serving.key is None else ("cert", "key")
        yield f"{where}.serving.{lacking}", f"required, because {where}.serving.{given} is given"
    certified = cluster.identity == "node" or serving.cert is None
    if certified and len(node.name) > _LONGEST_CERTIFIED:
        words = f"found {len(node.name)} characters; allowed in a certificate: {_LONGEST_CERTIFIED}"
        yield f"{where}.name", words
    for value, key in ((node.region, "region"), (node.zone, "zone")):
        if value is not None and not _LABEL_NAME.fullmatch(value):
            yield f"{where}.{key}", f"found {shown(value)}; allowed: the value of a label"
    for label in node.labels:
        if problem := _label_problem(label, cluster.identity):
            yield f"{where}.labels", problem


def _label_problem(label: str, identity: str) -> str:
    domain = label.rpartition("/")[0]
    if domain == "podbridge.io" or domain.endswith(".podbridge.io"):
        return f"found {label}; allowed: labels that are not podbridge's own"
    if label in ("kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "type"):
        return f"found {label}, which the node has already"
    if identity != "node" or not re.search(r"(^|\.)(kubernetes\.io|k8s\.io)$", domain):
        return ""
    if label in _LABELS_OF_NODES or re.search(r"(^|\.)(kubelet|node)\.kubernetes\.io$", domain):
        return ""
    return f"found {label}, which no node may set on itself (cluster.identity is node)"
