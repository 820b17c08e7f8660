"""The programs of the control plane and the flags that they are started with. Pure.

What matters for a kubelet under test:

- Node and RBAC authorisers with NodeRestriction: a node's identity may do what a real one may.
- `--kubelet-certificate-authority`: the API server checks a kubelet's serving certificate before
  `kubectl logs` and `exec` get through, and shows its own client certificate, whose user is allowed
  by a role only (see `handle`), not by a master's group.
- `--kubelet-preferred-address-types InternalIP`: it reaches a kubelet at the address of this type
  in the Node's status, so 127.0.0.1 there is enough; a hostname would need a DNS.
- The CSR signer signs for `kubernetes.io/kube-apiserver-client-kubelet` and `kubelet-serving`, and
  bootstrap tokens are accepted and cleaned up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ETCD = "etcd"
API_SERVER = "kube-apiserver"
SCHEDULER = "kube-scheduler"
CONTROLLERS = "kube-controller-manager"
METRICS = "metrics-server"
PORTS: Mapping[str, int] = {ETCD: 2, API_SERVER: 1, SCHEDULER: 1, CONTROLLERS: 1, METRICS: 1}
"""How many ports each needs; in the order in which they start, the reverse of which they end in."""
SERVICES = "10.0.0.0/24"
FIRST_SERVICE = "10.0.0.1"
"""The address of the Service `kubernetes`."""
KUBELET_CLIENT = "kube-apiserver-kubelet-client"
"""The user that the API server is towards a kubelet."""
AUDIT_POLICY: Mapping[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    # The control plane's own calls are no news, and each written line costs the API server time.
    "rules": [
        {
            "level": "None",
            "users": ["system:apiserver", f"system:{SCHEDULER}", f"system:{CONTROLLERS}"],
        },
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True, slots=True)
class Setup:
    """One control plane: where its files are, and how it is to be."""

    folder: Path
    programs: Mapping[str, Path]
    audit: bool = False
    """Count calls: one line a call in `audit.log`, without those of the control plane itself."""
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """More flags by component; of a flag given twice the last one holds."""


def command(setup: Setup, name: str, ports: Mapping[str, Sequence[int]]) -> list[str]:
    """What starts this component. Later components need the ports of earlier ones."""
    flags = {
        ETCD: _etcd,
        API_SERVER: _api_server,
        SCHEDULER: _scheduler,
        CONTROLLERS: _controllers,
        METRICS: _metrics,
    }[name](setup, ports)
    words = [f"--{flag}={value}" for flag, value in flags.items()]
    return [str(setup.programs[name]), *words, *setup.extra.get(name, ())]


def _etcd(setup: Setup, ports: Mapping[str, Sequence[int]]) -> dict[str, str]:
    client, peer = (f"http://127.0.0.1:{one}" for one in ports[ETCD])
    return {
        "data-dir": str(setup.folder / "etcd"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        # Nobody needs this data after a power failure, and the disk is the slowest part.
        "unsafe-no-fsync": "true",
        "log-level": "warn",
    }


def _api_server(setup: Setup, ports: Mapping[str, Sequence[int]]) -> dict[str, str]:
    at = setup.folder
    flags = {
        "etcd-servers": f"http://127.0.0.1:{ports[ETCD][0]}",
        "bind-address": "127.0.0.1",
        "secure-port": str(ports[API_SERVER][0]),
        "cert-dir": str(at),
        "client-ca-file": f"{at}/ca.crt",
        "tls-cert-file": f"{at}/server.crt",
        "tls-private-key-file": f"{at}/server.key",
        "service-account-key-file": f"{at}/tokens.crt",
        "service-account-signing-key-file": f"{at}/tokens.key",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-cluster-ip-range": SERVICES,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "enable-bootstrap-token-auth": "true",
        "allow-privileged": "true",
        "kubelet-client-certificate": f"{at}/kubelet-client.crt",
        "kubelet-client-key": f"{at}/kubelet-client.key",
        "kubelet-certificate-authority": f"{at}/ca.crt",
        "kubelet-preferred-address-types": "InternalIP",
        "requestheader-client-ca-file": f"{at}/front-ca.crt",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": f"{at}/front-proxy.crt",
        "proxy-client-key-file": f"{at}/front-proxy.key",
        "event-ttl": "1h",
        "profiling": "false",
        # Or it would wait for its watchers to go, for as long as a minute.
        "shutdown-watch-termination-grace-period": "1s",
    }
    if setup.audit:
        flags |= {
            "audit-policy-file": f"{at}/audit-policy.json",
            "audit-log-path": f"{at}/audit.log",
        }
    return flags


def _client(setup: Setup, name: str, ports: Mapping[str, Sequence[int]]) -> dict[str, str]:
    return {
        "kubeconfig": f"{setup.folder}/{name}.kubeconfig",
        "authentication-kubeconfig": f"{setup.folder}/{name}.kubeconfig",
        "authorization-kubeconfig": f"{setup.folder}/{name}.kubeconfig",
        "bind-address": "127.0.0.1",
        "secure-port": str(ports[name][0]),
        "cert-dir": f"{setup.folder}/{name}",
    }


def _scheduler(setup: Setup, ports: Mapping[str, Sequence[int]]) -> dict[str, str]:
    return {
        **_client(setup, SCHEDULER, ports),
        "leader-elect": "false",
        "kube-api-qps": "500",
        "kube-api-burst": "1000",
    }


def _controllers(setup: Setup, ports: Mapping[str, Sequence[int]]) -> dict[str, str]:
    at = setup.folder
    return {
        **_client(setup, CONTROLLERS, ports),
        "leader-elect": "false",
        # These two are not among those that are on by default.
        "controllers": "*,bootstrapsigner,tokencleaner",
        "service-account-private-key-file": f"{at}/tokens.key",
        "root-ca-file": f"{at}/ca.crt",
        "cluster-signing-cert-file": f"{at}/ca.crt",
        "cluster-signing-key-file": f"{at}/ca.key",
        "use-service-account-credentials": "true",
        "allocate-node-cidrs": "false",
        "concurrent-job-syncs": "20",
        "kube-api-qps": "200",
        "kube-api-burst": "400",
    }


def _metrics(setup: Setup, ports: Mapping[str, Sequence[int]]) -> dict[str, str]:
    return {
        **_client(setup, METRICS, ports),
        "kubelet-preferred-address-types": "InternalIP",
        "kubelet-certificate-authority": f"{setup.folder}/ca.crt",
        # The port of the Node's status: a virtual node's is hardly ever 10250 here.
        "kubelet-use-node-status-port": "true",
        # The least that it allows; a kubelet must answer in less than that.
        "metric-resolution": "10s",
        "kubelet-request-timeout": "5s",
    }
