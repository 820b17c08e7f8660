"""The part of the bench with a cluster: what a virtual node costs, beside a bare loop.

A real API server; provider (`null`) and shim as two processes over gRPC; the node's own identity;
pods with their default token. The bare loop makes the same calls for as many pods on the same
control plane and does nothing else.
"""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import bench_bare
import bench_node
from bench_kit import PODBRIDGE, Figure, NotHere, serving

from tools.control_plane import assets, handle

NODE = "virtual"
PODS = 2000
MANY_PODS = 5000
"""For which the memory counts."""


def virtual_node(environment: Mapping[str, str], _: Path) -> Iterator[Figure]:
    """Pods a second each way, calls, CPU and memory."""
    try:
        assets.locate()
    except assets.Missing as error:
        raise NotHere(str(error)) from None
    with tempfile.TemporaryDirectory(prefix="podbridge-bench-") as folder:
        with handle.running(Path(folder) / "a", audit=True) as plane:
            bare = bench_bare.measured(plane, PODS)
            ours = _measured(plane, Path(folder), environment, PODS)
        with handle.running(Path(folder) / "b", audit=True) as plane:
            many = _measured(plane, Path(folder), environment, MANY_PODS)
    yield from _compared(ours, bare)
    memory = sum(many.memory.values()) / 1e6
    yield Figure(f"  both at {MANY_PODS} pods", memory, "MB", 200)


def _compared(ours: bench_node.Result, bare: bench_node.Result) -> Iterator[Figure]:
    if min(ours.reached, ours.gone, bare.reached, bare.gone) < PODS:
        raise RuntimeError(f"a node: {ours.reached} pods ran, {ours.gone} ended")
    started, ended = ours.start_rate, ours.delete_rate
    yield Figure("virtual node: pods to Running", started, "/s", 130, at_least=True)
    yield Figure("  bare loop", bare.start_rate, "/s", note="the same calls and nothing else")
    yield Figure("  ours to the bare loop", started / bare.start_rate, "", 0.75, at_least=True)
    yield Figure("virtual node: pods deleted", ended, "/s", 120, at_least=True)
    yield Figure("  bare loop", bare.delete_rate, "/s")
    yield Figure("  ours to the bare loop", ended / bare.delete_rate, "", 0.75, at_least=True)
    calls = ", ".join(f"{many} {name}" for name, many in [*ours.calls.items()][:8])
    yield Figure("  API calls a pod", ours.calls_a_pod, "", 5.1, note=calls)
    cpu = sum(ours.cpu.values()) / ours.pods * 1e3
    parts = ", ".join(f"{name} {one / ours.pods * 1e3:.1f}" for name, one in ours.cpu.items())
    yield Figure("  CPU a pod, shim and provider", cpu, "ms", 4, note=parts)
    yield Figure("  CPU a pod, bare loop", bare.cpu_a_pod * 1e3, "ms")


def _measured(
    plane: handle.ControlPlane, folder: Path, environment: Mapping[str, str], pods: int
) -> bench_node.Result:
    address = f"unix://{folder}/provider-{pods}.sock"
    backend = {"name": "null", "type": "null", "max_pods": pods}
    served = _configured(folder, environment, {"backends": [backend]}, f"provider-{pods}")
    kubelet = _configured(
        folder,
        environment,
        {
            "cluster": {
                "kubeconfig": str(plane.node_kubeconfig(NODE)),
                "id": str(uuid.uuid4()),
                "state": str(folder / f"state-{pods}"),
                "client_ca": str(plane.ca),
            },
            "nodes": [{"name": NODE, "port": _free_port()}],
        },
        f"kubelet-{pods}",
    )
    command = [*PODBRIDGE, "provider", "--on", "null", "--listen", address]
    shim = [*PODBRIDGE, "kubelet", "--provider", address]
    with (
        serving(command, served) as provider,
        serving(shim, kubelet) as agent,
        contextlib.closing(plane.api()) as api,
    ):
        api.until(f"/api/v1/nodes/{NODE}", _is_ready, limit=60.0)
        return bench_node.measure(
            bench_node.Load(
                kubeconfig=plane.kubeconfig,
                node=NODE,
                pods=pods,
                processes={"shim": agent.pid, "provider": provider.pid},
                audit_log=plane.audit_log,
                agent="podbridge/",
            )
        )


def _is_ready(node: dict[str, object]) -> bool:
    status = node.get("status")
    conditions = status.get("conditions", []) if isinstance(status, dict) else []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _configured(
    folder: Path, environment: Mapping[str, str], content: Mapping[str, object], name: str
) -> dict[str, str]:
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps({"apiVersion": "podbridge.io/v1", **content}))
    return {**environment, "PODBRIDGE_CONFIG": str(file)}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
