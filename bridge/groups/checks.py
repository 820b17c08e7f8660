"""What of a pod takes the helper, and what no group of containers can do. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from bridge.errors import Violation
from bridge.groups.options import Claimed, GroupOptions
from bridge.helper import need
from bridge.helper.need import Gift
from bridge.helper.wrap import places
from bridge.workload import Claim, Container, EmptyDir, HelperUse, Role, Workload

_HELPERS = 2
"""Containers that the helper adds to a group."""
_NO_IMAGE = "it takes the helper, and the backend's option helper_image names no image of it"


@dataclass(frozen=True, slots=True)
class Needs:
    """Which pods need the helper on one cloud."""

    own: Set[Gift]
    """What the cloud gives of what the helper gives."""
    beyond: Callable[[Workload], Iterable[Violation]]
    """What of a pod takes the helper there, and not everywhere."""

    def wraps(self, workload: Workload, configured: HelperUse) -> bool:
        """Whether the helper is to be in it."""
        if need.wraps(workload, configured, self.own):
            return True
        use = configured if workload.helper is HelperUse.AUTO else workload.helper
        return use is HelperUse.AUTO and any(self.beyond(workload))

    def problems(
        self, workload: Workload, options: GroupOptions, *, alone: bool
    ) -> Iterator[Violation]:
        """Why it cannot have the helper, or be without it. `alone`: nothing else is wrong."""
        if not self.wraps(workload, options.helper):
            yield from need.lost(workload, self.own)
            yield from self.beyond(workload)
            return
        if not options.helper_image:
            wanted = [
                *(Violation(path, f"{gift}: {_NO_IMAGE}") for path, gift in self._gifts(workload)),
                *(
                    Violation(one.field, f"{one.message}; {_NO_IMAGE}")
                    for one in self.beyond(workload)
                ),
            ]
            yield from wanted
            if alone and not wanted:
                yield Violation("", _NO_IMAGE)
        yield from places(workload)

    def _gifts(self, workload: Workload) -> Sequence[tuple[str, Gift]]:
        return need.needs(workload, self.own)


def too_many(workload: Workload, most: int, *, wrapped: bool) -> Iterator[Violation]:
    """More containers than the `most` that a group can have."""
    most -= _HELPERS if wrapped else 0
    if len(workload.containers) > most:
        words = f"found {len(workload.containers)} containers; allowed: {most}"
        yield Violation("spec.containers", words)


def unclaimed(workload: Workload, claims: Iterable[Claimed], what: str) -> Iterator[Violation]:
    """Claims that the configuration has no entry for. `what` stands behind one, in words."""
    known = {(one.namespace, one.claim) for one in claims}
    for index, volume in enumerate(workload.volumes):
        if isinstance(volume, Claim) and (workload.identity.namespace, volume.claim) not in known:
            words = f'the backend\'s option claims has no {what} for "{volume.claim}"'
            where = f"spec.volumes[{index}].persistentVolumeClaim.claimName"
            yield Violation(where, f"{words} of {workload.identity.namespace}")


def container(
    workload: Workload, one: Container, path: str, resources: Collection[str]
) -> Iterator[Violation]:
    """What no group can do of a container. `resources`: the names of those that the cloud gives."""
    if one.security.run_as_non_root and one.security.run_as_user == 0:
        yield Violation(f"{path}.securityContext.runAsUser", "0, and runAsNonRoot")
    if one.role is Role.EPHEMERAL:
        yield Violation(path, "a group's containers stay as they were launched")
    for kind, amounts in (("requests", one.resources.requests), ("limits", one.resources.limits)):
        for name in amounts:
            if name not in resources:
                words = f"allowed: {', '.join(resources)}"
                yield Violation(f"{path}.resources.{kind}[{name}]", words)
    folders = {v.name for v in workload.volumes if isinstance(v, EmptyDir | Claim)}
    for index, mount in enumerate(one.mounts):
        if mount.sub_path and mount.volume in folders:
            words = "only files of ConfigMaps and Secrets can be mounted by a part"
            yield Violation(f"{path}.volumeMounts[{index}].subPath", words)
