"""What of a pod cannot be done here for a reason that no table of fields can say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from adapters.fargate import choose
from adapters.fargate.environment import in_the_way
from adapters.fargate.options import Options
from adapters.fargate.security import ADDABLE
from bridge.errors import Violation
from bridge.helper import need
from bridge.helper.hosting import names
from bridge.helper.wrap import places
from bridge.workload import Claim, Container, EmptyDir, HelperUse, Role, Workload

CONTAINERS = 10
"""Containers of a task, at most."""
_HELPERS = 2
_GIFTS: Set[need.Gift] = frozenset()
"""What Fargate gives of what the helper gives: nothing."""
_ONLY_HELPER = "only the helper can do that here"


def wraps(workload: Workload, options: Options) -> bool:
    """Whether the helper is to be in it."""
    if need.wraps(workload, options.helper, _GIFTS):
        return True
    use = options.helper if workload.helper is HelperUse.AUTO else workload.helper
    return use is HelperUse.AUTO and any(beyond(workload))


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


def check(workload: Workload, options: Options) -> Sequence[Violation]:
    """All that cannot be done, by field."""
    wrapped = wraps(workload, options)
    found = [*names(workload), *choose.problems(workload, options, wrapped=wrapped)]
    most = CONTAINERS - (_HELPERS if wrapped else 0)
    if len(workload.containers) > most:
        words = f"found {len(workload.containers)} containers; allowed: {most}"
        found.append(Violation("spec.containers", words))
    found += _claims(workload, options)
    for path, one in workload.paths():
        found += _container(workload, one, path)
    if wrapped and not options.helper_image:
        words = "it takes the helper, and the backend's option helper_image names no image of it"
        found += [Violation(path, f"{gift}: {words}") for path, gift in need.needs(workload)]
        found += [Violation(one.field, f"{one.message}; {words}") for one in beyond(workload)]
        if not found:
            found.append(Violation("", words))
    if wrapped:
        found += places(workload)
    else:
        found += [*need.lost(workload, _GIFTS), *beyond(workload)]
    return found


def _claims(workload: Workload, options: Options) -> Iterator[Violation]:
    known = {(one.namespace, one.claim) for one in options.claims}
    for index, volume in enumerate(workload.volumes):
        if isinstance(volume, Claim) and (workload.identity.namespace, volume.claim) not in known:
            words = f'the backend\'s option claims has no file system for "{volume.claim}"'
            where = f"spec.volumes[{index}].persistentVolumeClaim.claimName"
            yield Violation(where, f"{words} of {workload.identity.namespace}")


def _container(workload: Workload, one: Container, path: str) -> Iterator[Violation]:
    own, where = one.security, f"{path}.securityContext"
    if own.privileged:
        yield Violation(f"{where}.privileged", "Fargate runs no privileged containers")
    for index, name in enumerate(own.add_capabilities):
        if name.upper().removeprefix("CAP_") not in ADDABLE:
            words = f'found "{name}"; allowed: {", ".join(sorted(ADDABLE))}'
            yield Violation(f"{where}.capabilities.add[{index}]", words)
    if own.seccomp not in ("", "RuntimeDefault"):
        yield Violation(f"{where}.seccompProfile.type", "allowed: RuntimeDefault")
    if own.run_as_non_root and own.run_as_user == 0:
        yield Violation(f"{where}.runAsUser", "0, and runAsNonRoot")
    if one.role is Role.EPHEMERAL:
        yield Violation(path, "a task's containers stay as they were launched")
    for kind, amounts in (("requests", one.resources.requests), ("limits", one.resources.limits)):
        for name in amounts:
            if name not in ("cpu", "memory", "ephemeral-storage"):
                words = "allowed: cpu, memory, ephemeral-storage"
                yield Violation(f"{path}.resources.{kind}[{name}]", words)
    folders = {v.name for v in workload.volumes if isinstance(v, EmptyDir | Claim)}
    for index, mount in enumerate(one.mounts):
        if mount.sub_path and mount.volume in folders:
            words = "only files of ConfigMaps and Secrets can be mounted by a part"
            yield Violation(f"{path}.volumeMounts[{index}].subPath", words)
