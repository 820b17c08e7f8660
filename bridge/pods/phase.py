"""A pod's phase and QoS class, from its manifest and its container statuses.

The order of the rules is that of getPhase in pkg/kubelet/kubelet_pods.go and of ComputePodQOS in
pkg/apis/core/v1/helper/qos.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from bridge import quantity
from bridge.pods import Manifest

TERMINAL = ("Succeeded", "Failed")


def is_sidecar(container: Manifest) -> bool:
    """An init container that restarts for ever (KEP-753)."""
    return container.get("restartPolicy") == "Always"


def should_restart(container: Manifest, spec: Manifest, code: int) -> bool:
    """Whether a container that ended with this code runs again (ContainerShouldRestart)."""
    own = container.get("restartPolicy")
    if own is not None and _rule_restarts(container, code):
        return True
    policy = own or spec.get("restartPolicy") or "Always"
    return bool(policy == "Always" or (policy == "OnFailure" and code != 0))


def _rule_restarts(container: Manifest, code: int) -> bool:
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes")
        if codes and (code in (codes.get("values") or ())) != (codes.get("operator") == "NotIn"):
            return rule.get("action") in ("Restart", "RestartAllContainers")
    return False


def phase(
    pod: Manifest,
    statuses: Mapping[str, Manifest],
    *,
    ended: bool,
    initialized: bool,
) -> str:
    """The phase by container statuses (init and regular, by name) alone.

    `ended`: nothing of it will run again whatever the restart policies say. `initialized`: some
    regular container has run.
    """
    spec = pod["spec"]
    tally = _Tally()
    for container in spec.get("initContainers") or ():
        status = statuses.get(container["name"])
        if is_sidecar(container):
            tally.sidecar(status)
        elif tally.init(container, spec, status):
            return "Failed"
    for container in spec["containers"]:
        tally.main(container, spec, statuses.get(container["name"]))
    if tally.pending_inits or (tally.pending_sidecars and not initialized) or tally.waiting:
        return "Pending"
    if tally.unknown or not (tally.running or tally.stopped):
        return "Pending"
    if tally.running or (tally.restartable and not ended):
        return "Running"
    return "Succeeded" if tally.stopped == tally.succeeded else "Failed"


@dataclass(slots=True)
class _Tally:
    pending_inits: int = 0
    pending_sidecars: int = 0
    running: int = 0
    waiting: int = 0
    stopped: int = 0
    restartable: int = 0
    succeeded: int = 0
    unknown: int = 0

    def init(self, container: Manifest, spec: Manifest, status: Manifest | None) -> bool:
        """Counts an init container; True where it failed for good."""
        code = _last_code(status)
        if code is None:
            self.pending_inits += 1
            return False
        return code != 0 and not should_restart(container, spec, code)

    def sidecar(self, status: Manifest | None) -> None:
        state = (status or {}).get("state") or {}
        if not state:
            self.pending_sidecars += status is not None
            self.unknown += 1
        elif "running" in state:
            self.pending_sidecars += not (status or {}).get("started")
            self.running += 1
        elif "waiting" in state and _last_code(status) is None:
            self.pending_sidecars += 1
            self.waiting += 1

    def main(self, container: Manifest, spec: Manifest, status: Manifest | None) -> None:
        state = (status or {}).get("state") or {}
        code = _last_code(status)
        if "running" in state:
            self.running += 1
        elif code is not None:
            self.stopped += 1
            self.restartable += should_restart(container, spec, code)
            # As the kubelet counts: a success that is about to run again is none.
            self.succeeded += code == 0 and "terminated" in state
        elif "waiting" in state:
            self.waiting += 1
        else:
            self.unknown += 1


def _last_code(status: Manifest | None) -> int | None:
    """The exit code of a container that has ended, or waits to run again."""
    state = (status or {}).get("state") or {}
    if "waiting" in state:
        state = (status or {}).get("lastState") or {}
    ended = state.get("terminated")
    return None if ended is None else int(ended.get("exitCode", 0))


def qos_class(pod: Manifest) -> str:
    """Guaranteed, Burstable or BestEffort."""
    spec = pod["spec"]
    pod_level = spec.get("resources")
    if pod_level:
        holders = [pod_level]
    else:
        containers = [*spec["containers"], *(spec.get("initContainers") or ())]
        holders = [container.get("resources") or {} for container in containers]
    limits = [_positive(holder.get("limits")) for holder in holders]
    asked = _sum(_positive(holder.get("requests")) for holder in holders)
    allowed = _sum(limits)
    if not asked and not allowed:
        return "BestEffort"
    whole = all(len(one) == 2 for one in limits)
    return "Guaranteed" if whole and asked == allowed else "Burstable"


def _positive(amounts: Mapping[str, str] | None) -> dict[str, Fraction]:
    found: dict[str, Fraction] = {}
    for name in ("cpu", "memory"):
        if amounts and name in amounts and (value := quantity.parse(amounts[name])) > 0:
            found[name] = value
    return found


def _sum(amounts: Iterable[dict[str, Fraction]]) -> dict[str, Fraction]:
    total: dict[str, Fraction] = {}
    for one in amounts:
        for name, value in one.items():
            total[name] = total.get(name, Fraction(0)) + value
    return total
