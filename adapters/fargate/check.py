"""What of a pod cannot be done here for a reason that no table of fields can say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapters.fargate import choose
from adapters.fargate.environment import in_the_way
from adapters.fargate.options import Options
from bridge.errors import Violation
from bridge.groups import checks
from bridge.groups.checks import Needs
from bridge.helper.hosting import names
from bridge.workload import Container, Workload

CONTAINERS = 10
"""Containers of a task, at most."""
_ADDABLE = frozenset({"SYS_PTRACE"})
"""The capabilities that Fargate lets one add."""
_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_ONLY_HELPER = "only the helper can do that here"


def beyond(workload: Workload) -> Iterator[Violation]:
    """What takes the helper on Fargate, and not everywhere."""
    for path, one in workload.paths():
        for words in one.secret_words:
            yield Violation(
                f"{path}.{words}", f"a Secret's value could be read back: {_ONLY_HELPER}"
            )
        for variable in one.env:
            if variable.secret and variable.value and (problem := in_the_way(variable)):
                yield Violation(f"{path}.env[{variable.name}]", f"{problem}: {_ONLY_HELPER}")
        own = one.security
        if own.no_new_privileges:
            where = f"{path}.securityContext.allowPrivilegeEscalation"
            yield Violation(where, f"Fargate has no such setting: {_ONLY_HELPER}")
        if own.supplemental_groups:
            words = f"Fargate gives a container one group: {_ONLY_HELPER}"
            yield Violation("spec.securityContext.supplementalGroups", words)
        if one.stop_signal not in ("", "SIGTERM"):
            where = f"{path}.lifecycle.stopSignal"
            yield Violation(where, f"Fargate sends SIGTERM or the image's signal: {_ONLY_HELPER}")


NEEDS = Needs(own=frozenset(), beyond=beyond)
"""Fargate gives nothing of what the helper gives."""


def wraps(workload: Workload, options: Options) -> bool:
    """Whether the helper is to be in it."""
    return NEEDS.wraps(workload, options.helper)


def check(workload: Workload, options: Options) -> Sequence[Violation]:
    """All that cannot be done, by field."""
    wrapped = wraps(workload, options)
    found = [*names(workload), *choose.problems(workload, options, wrapped=wrapped)]
    found += checks.too_many(workload, CONTAINERS, wrapped=wrapped)
    found += checks.unclaimed(workload, options.claims, "file system")
    for path, one in workload.paths():
        found += _container(one, path)
        found += checks.container(workload, one, path, _RESOURCES)
    found += NEEDS.problems(workload, options, alone=not found)
    return found


def _container(one: Container, path: str) -> Iterator[Violation]:
    own, where = one.security, f"{path}.securityContext"
    if own.privileged:
        yield Violation(f"{where}.privileged", "Fargate runs no privileged containers")
    for index, name in enumerate(own.add_capabilities):
        if name.upper().removeprefix("CAP_") not in _ADDABLE:
            words = f'found "{name}"; allowed: {", ".join(sorted(_ADDABLE))}'
            yield Violation(f"{where}.capabilities.add[{index}]", words)
    if own.seccomp not in ("", "RuntimeDefault"):
        yield Violation(f"{where}.seccompProfile.type", "allowed: RuntimeDefault")
