"""Another size for a container that runs."""

from __future__ import annotations

from typing import Any

from adapters.engine import amounts
from adapters.engine.client import Conflict, Engine, Refused, part
from bridge.errors import Invalid, NotFound, Unsupported
from bridge.workload import Container


async def resize(engine: Engine, container_id: str, container: Container) -> None:
    """Puts the container's resources in force. Again with the same: nothing more.

    NotFound: it does not run. Invalid: the kernel refuses this size, as memory below what is in
    use. Unsupported: this engine cannot change what runs.
    """
    wanted = amounts.of(container.resources)
    path = f"containers/{part(container_id)}/update"
    body = _libpod(wanted) if engine.podman else _docker(wanted)
    try:
        await engine.call("POST", path, body=body, libpod=engine.podman)
    except NotFound as error:
        # The answer of Podman before 4.3, which has no such call, names no container.
        if engine.podman and error.message == "Not Found":
            raise Unsupported("resources: this engine cannot change a running container") from None
        raise
    except Conflict as error:
        raise NotFound(error.message) from None
    except Refused as error:
        raise await _meaning(engine, container_id, error) from None


async def _meaning(
    engine: Engine, container_id: str, error: Refused
) -> Invalid | NotFound | Refused:
    """An engine answers alike for a size that the kernel refuses and a container that has ended."""
    found = await engine.call("GET", f"containers/{part(container_id)}/json")
    if not found["State"].get("Running"):
        return NotFound(f"container {container_id} does not run")
    if "update" in error.message or "cgroup" in error.message:
        return Invalid(f"resources: the engine could not put this size in force: {error.message}")
    return error


def _docker(wanted: amounts.Amounts) -> dict[str, Any]:
    body: dict[str, Any] = {
        "CpuShares": wanted.shares,
        "CpuPeriod": amounts.PERIOD,
        "CpuQuota": -1 if wanted.quota is None else wanted.quota,
    }
    if wanted.memory is not None:
        # Docker has no way to take a memory limit away, nor has Kubernetes.
        body |= {"Memory": wanted.memory, "MemorySwap": wanted.memory}
    return body


def _libpod(wanted: amounts.Amounts) -> dict[str, Any]:
    """LinuxResources of the OCI runtime specification."""
    memory = -1 if wanted.memory is None else wanted.memory
    return {
        "cpu": {
            "shares": wanted.shares,
            "quota": -1 if wanted.quota is None else wanted.quota,
            "period": amounts.PERIOD,
        },
        "memory": {"limit": memory, "swap": memory},
    }
