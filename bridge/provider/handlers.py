"""A container's probes and lifecycle hooks, from its manifest. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.pods import Manifest
from bridge.pods.environment import expand_text
from bridge.workload import (
    Action,
    EnvVar,
    ExecAction,
    GrpcAction,
    HttpAction,
    Probe,
    SleepAction,
    TcpAction,
)


def probe(container: Manifest, name: str) -> Probe | None:
    """The probe `name` (livenessProbe, ...) with the API's defaults; None where there is none.

    A command is expanded by `env` entries with a plain value, as the kubelet does it
    (ExpandContainerCommandOnlyStatic): what comes from elsewhere, a Secret above all, is empty.
    """
    given = container.get(name)
    if not given:
        return None
    what = action(container, given)
    if what is None:
        return None
    if isinstance(what, ExecAction):
        env = [EnvVar(one["name"], one.get("value") or "") for one in container.get("env") or ()]
        what = ExecAction(tuple(expand_text(word, env).text for word in what.command))
    grace = given.get("terminationGracePeriodSeconds")
    return Probe(
        what,
        initial_delay=float(given.get("initialDelaySeconds") or 0),
        period=float(given.get("periodSeconds") or 10),
        timeout=float(given.get("timeoutSeconds") or 1),
        success_threshold=given.get("successThreshold") or 1,
        failure_threshold=given.get("failureThreshold") or 3,
        grace=None if grace is None else float(grace),
    )


def action(container: Manifest, handler: Manifest | None) -> Action | None:
    """What a probe or hook of this container does; None where it names nothing."""
    if not handler:
        return None
    if (command := handler.get("exec")) is not None:
        return ExecAction(tuple(command.get("command") or ()))
    if (get := handler.get("httpGet")) is not None:
        return HttpAction(
            _port(container, get.get("port")),
            get.get("path") or "/",
            get.get("scheme") or "HTTP",
            tuple((one["name"], one.get("value") or "") for one in get.get("httpHeaders") or ()),
        )
    if (tcp := handler.get("tcpSocket")) is not None:
        return TcpAction(_port(container, tcp.get("port")))
    if (grpc := handler.get("grpc")) is not None:
        return GrpcAction(_port(container, grpc.get("port")), grpc.get("service") or "")
    if (sleep := handler.get("sleep")) is not None:
        return SleepAction(float(sleep.get("seconds") or 0))
    return None


def _port(container: Mapping[str, Any], value: Any) -> int:
    """A port by number, or by the name of one of the container's; 0 where there is none such."""
    if isinstance(value, str):
        for one in container.get("ports") or ():
            if one.get("name") == value:
                return int(one["containerPort"])
        # A number may come as text, the kubelet takes it too.
        value = int(value) if value.isascii() and value.isdecimal() and len(value) < 6 else 0
    return value if isinstance(value, int) and 0 < value < 65536 else 0
