"""What the engine is asked to create: bodies of POST /containers/create. Pure.

A pod is a pause container, which has the network, and one container a run that joins it. Formulas
are the kubelet's (pkg/kubelet/kuberuntime, pkg/kubelet/qos); fields are the Docker API's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.engine import amounts, names
from adapters.engine.scratch import PLACE
from bridge.errors import Invalid
from bridge.workload import Container, Role, Workload

_GUARANTEED, _BEST_EFFORT = -997, 1000
"""oom_score_adj (pkg/kubelet/qos/policy.go); between them what the memory request says."""
_QUALIFIED = ("cpu", "memory")
"""The resources that make a QoS class."""
_ENGINES_OWN = ("TERM", "container")
"""Variables that Podman adds; Kubernetes has none of them."""


@dataclass(frozen=True, slots=True)
class Host:
    """What of the engine and its host a container's settings depend on."""

    owner: str
    """The value of the owner's label."""
    podman: bool
    memory: int
    """Bytes that the machine has; 0: unknown."""
    lowers_oom_scores: bool = True
    """Where not, they can only be raised."""
    network: str = ""
    """The network that pods join; empty: the engine's default."""


def pause(
    workload: Workload, host: Host, image: str, command: str, mounts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The container that holds the pod's namespaces, with everything that they have."""
    settings: dict[str, Any] = {
        "LogConfig": {"Type": "none"},
        "IpcMode": "host" if workload.host_ipc else "shareable",
        "Mounts": list(mounts),
        "OomScoreAdj": _GUARANTEED - 1 if host.lowers_oom_scores else 0,
        "RestartPolicy": {"Name": "no"},
        "SecurityOpt": ["no-new-privileges"],
        "CapDrop": ["ALL"],
        **_network(workload, host),
    }
    if workload.sysctls:
        settings["Sysctls"] = dict(workload.sysctls)
    group = next((one.security.fs_group for one in workload.containers), None)
    body: dict[str, Any] = {
        "Image": image,
        "Entrypoint": [command],
        "Cmd": [],
        "Labels": names.labels(
            workload.identity,
            host.owner,
            containers=",".join(
                one.name for one in workload.containers if one.role is not Role.EPHEMERAL
            ),
            mains=",".join(one.name for one in workload.containers if one.role is Role.MAIN),
            **({} if group is None else {"fs-group": str(group)}),
        ),
        "HostConfig": settings,
    }
    if not workload.host_network and workload.hostname:
        body["Hostname"] = workload.hostname
    if not workload.host_network and (published := _published(workload)):
        settings["PortBindings"] = published
        body["ExposedPorts"] = {port: {} for port in published}
    return body


def _published(workload: Workload) -> dict[str, list[dict[str, str]]]:
    """Ports of the host that lead to the pod, as `HostConfig.PortBindings`."""
    found: dict[str, list[dict[str, str]]] = {}
    for container in workload.containers:
        for port in container.ports:
            if port.host_port:
                bindings = found.setdefault(f"{port.number}/{port.protocol.lower()}", [])
                bindings.append({"HostIp": port.host_ip, "HostPort": str(port.host_port)})
    return found


def _network(workload: Workload, host: Host) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if workload.host_network:
        settings["NetworkMode"] = "host"
        if host.podman:
            settings["UTSMode"] = "host"
    elif host.network:
        settings["NetworkMode"] = host.network
    return settings | _names(workload)


def _names(workload: Workload) -> dict[str, Any]:
    """How names are resolved; joined containers share the pause container's settings."""
    settings: dict[str, Any] = {}
    dns = workload.dns
    if dns.nameservers:
        settings["Dns"] = list(dns.nameservers)
    if dns.searches:
        settings["DnsSearch"] = list(dns.searches)
    if dns.options:
        settings["DnsOptions"] = [
            name if value is None else f"{name}:{value}" for name, value in dns.options
        ]
    if workload.host_network:
        settings["ExtraHosts"] = [
            f"{name}:{address}" for address, found in workload.host_aliases for name in found
        ]
    return settings


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a container needs besides the workload."""

    pause: str
    """The pause container's ID."""
    restart: int
    image: str
    """The image's ID, so that nothing can come between the pull and the start."""
    image_user: str
    """USER of the image."""
    mounts: Sequence[Mapping[str, Any]]
    image_stop_signal: str = ""
    """STOPSIGNAL of the image: a name or a number."""


def run(workload: Workload, container: Container, run_: Run, host: Host) -> dict[str, Any]:
    """One run of a container. Invalid: its security context contradicts the image."""
    body: dict[str, Any] = {
        "Image": run_.image,
        "Env": [f"{one.name}={one.value}" for one in container.env],
        "User": user(workload, container, run_.image_user),
        "Labels": _labels(workload, container, run_, host.owner),
        **({"StopSignal": container.stop_signal} if container.stop_signal else {}),
        "Tty": container.tty,
        "OpenStdin": container.stdin,
        "StdinOnce": container.stdin and container.stdin_once,
        "HostConfig": {
            **_namespaces(workload, host, run_.pause),
            **_limits(workload, container, host),
            **_security(container),
            "Mounts": list(run_.mounts),
            "LogConfig": _log(host),
            "RestartPolicy": {"Name": "no"},
        },
    }
    if host.podman:
        given = {one.name for one in container.env}
        body["UnsetEnv"] = [name for name in _ENGINES_OWN if name not in given]
    # Without an entry point the image's own one holds, with the arguments given here if there are
    # any; with one, the image's arguments hold no longer.
    if container.command:
        body["Entrypoint"] = list(container.command)
        body["Cmd"] = list(container.args)
    elif container.args:
        body["Cmd"] = list(container.args)
    if container.working_dir:
        body["WorkingDir"] = container.working_dir
    return body


def _labels(workload: Workload, container: Container, run_: Run, owner: str) -> dict[str, str]:
    more = {
        "container": container.name,
        "restart": str(run_.restart),
        "image": container.image,
        "stop-signal": container.stop_signal or run_.image_stop_signal or "SIGTERM",
        # Each label always: what is left out here, the image's own labels would say.
        "logs-as-message": "true" if container.logs_as_message else "false",
    }
    return names.labels(workload.identity, owner, **more)


def _log(host: Host) -> dict[str, Any]:
    if host.podman:
        return {"Type": "k8s-file"}
    # json-file would keep text alone: `local` has every byte, and its logs are read by the API.
    # As much as the kubelet keeps (containerLogMaxSize, containerLogMaxFiles).
    return {"Type": "local", "Config": {"max-size": "10m", "max-file": "5"}}


def _namespaces(workload: Workload, host: Host, pause_id: str) -> dict[str, Any]:
    joined = f"container:{pause_id}"
    modes = {"NetworkMode": joined, "IpcMode": "host" if workload.host_ipc else joined}
    if workload.host_network:
        modes = {**modes, "NetworkMode": "host", **_names(workload)}
    if host.podman:
        # Docker takes the hostname along with the network, and shares no UTS namespace.
        modes["UTSMode"] = "host" if workload.host_network else joined
    if workload.host_pid:
        modes["PidMode"] = "host"
    elif workload.share_processes:
        modes["PidMode"] = joined
    return modes


def _limits(workload: Workload, container: Container, host: Host) -> dict[str, Any]:
    allowed = amounts.of(container.resources)
    score = oom_score(workload, container, host.memory)
    limits: dict[str, Any] = {
        "CpuShares": allowed.shares,
        "OomScoreAdj": score if host.lowers_oom_scores else max(score, 0),
    }
    if allowed.quota is not None:
        limits |= {"CpuPeriod": amounts.PERIOD, "CpuQuota": allowed.quota}
    if allowed.memory is not None:
        limits |= {"Memory": allowed.memory, "MemorySwap": allowed.memory}
    return limits


def oom_score(workload: Workload, container: Container, memory: int) -> int:
    """oom_score_adj by QoS (GetContainerOOMScoreAdjust); `memory` is the machine's, in bytes."""
    pod = [one for one in workload.containers if one.role is not Role.EPHEMERAL]
    if all(_is_guaranteed(one) for one in pod):
        return _GUARANTEED
    if not any(_asks(one) for one in pod):
        return _BEST_EFFORT
    if memory <= 0:
        return 999
    score = _burstable(container, memory)
    if container.role is Role.SIDECAR:
        # A sidecar is not to be killed before the containers that need it.
        mains = [_burstable(one, memory) for one in pod if one.role is Role.MAIN]
        score = min([score, *mains])
    return score


def _burstable(container: Container, memory: int) -> int:
    score = 1000 - 1000 * container.resources.requests.get("memory", 0) // memory
    return min(max(score, 1000 + _GUARANTEED), _BEST_EFFORT - 1)


def _asks(container: Container) -> bool:
    held = container.resources
    return any(held.requests.get(one) or held.limits.get(one) for one in _QUALIFIED)


def _is_guaranteed(container: Container) -> bool:
    limits, requests = container.resources.limits, container.resources.requests
    return all(
        limits.get(one, 0) > 0 and requests.get(one, limits[one]) == limits[one]
        for one in _QUALIFIED
    )


def _security(container: Container) -> dict[str, Any]:
    asked = container.security
    options = ["no-new-privileges"] if asked.no_new_privileges else []
    if asked.seccomp == "Unconfined":
        options.append("seccomp=unconfined")
    groups = {*asked.supplemental_groups}
    if asked.fs_group is not None:
        groups.add(asked.fs_group)
    return {
        "Privileged": asked.privileged,
        "ReadonlyRootfs": asked.read_only_root,
        "CapAdd": list(asked.add_capabilities),
        "CapDrop": list(asked.drop_capabilities),
        "GroupAdd": [str(one) for one in sorted(groups)],
        "SecurityOpt": options,
    }


def user(workload: Workload, container: Container, image_user: str) -> str:
    """`user[:group]` to run as; empty: the image's own. Invalid, in the kubelet's words, where it
    may not be root and is, or cannot be told from root (verifyRunAsNonRoot)."""
    asked = container.security
    of_image, _, _group = image_user.partition(":")
    if asked.run_as_non_root:
        _check_non_root(workload, container, of_image)
    if asked.run_as_group is not None:
        who = of_image or "0" if asked.run_as_user is None else str(asked.run_as_user)
        return f"{who}:{asked.run_as_group}"
    return "" if asked.run_as_user is None else str(asked.run_as_user)


def _check_non_root(workload: Workload, container: Container, image_user: str) -> None:
    identity = workload.identity
    where = (
        f'(pod: "{identity.name}_{identity.namespace}({identity.uid})", '
        f"container: {container.name})"
    )
    asked = container.security.run_as_user
    if asked == 0:
        raise Invalid(f"container's runAsUser breaks non-root policy {where}")
    if asked is not None:
        return
    if image_user in ("", "0", "root"):
        raise Invalid(f"container has runAsNonRoot and image will run as root {where}")
    if not image_user.isdigit():
        raise Invalid(
            f"container has runAsNonRoot and image has non-numeric user ({image_user}), "
            f"cannot verify user is non-root {where}"
        )


def pod_files(workload: Workload, mountpoint: str, container: Container, restart: int) -> list[
    dict[str, Any]
]:  # fmt: skip
    """Binds of the files that a container has from its pod: /etc/hosts, and where it may leave a
    message. One that the container's own mounts cover is left out, as the kubelet does."""
    own = {mount.path.rstrip("/") for mount in container.mounts}
    binds = []
    if not workload.host_network and "/etc/hosts" not in own:
        binds.append(_bind(f"{mountpoint}/hosts", "/etc/hosts"))
    path = container.termination_message_path
    if path and path not in own:
        binds.append(_bind(f"{mountpoint}/messages/{container.name}.{restart}", path))
    return binds


def _bind(source: str, target: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Target": target}


def scratch_mount(volume: str) -> dict[str, Any]:
    """The pod's own small volume in its pause container."""
    return {"Type": "volume", "Source": volume, "Target": PLACE}
