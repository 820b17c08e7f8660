"""What a pod is launched as: its images by their digests, with the helper in it or bare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bridge.groups import tokens
from bridge.groups.checks import Needs
from bridge.groups.images import Images
from bridge.groups.options import GroupOptions
from bridge.groups.pods import Pod
from bridge.helper.commands import Unread, commands
from bridge.helper.hosting import Hosting
from bridge.helper.wrap import bare, is_wrapped, wrap
from bridge.registry import RegistryClient
from bridge.workload import Workload

LATE = 60.0
"""Seconds beyond a pod's hard stop at which its group is ended, where its helper should have done
it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A pod as it is launched."""

    workload: Workload
    """Without what it is not given."""
    made: Workload
    """The same with the helper in it, or bare."""
    images: Mapping[str, str]
    """What the cloud is to pull, by container of `made`."""

    @property
    def wrapped(self) -> bool:
        """Whether the helper is in it."""
        return is_wrapped(self.made)

    @property
    def hard_stop(self) -> float | None:
        """Seconds after its start at which its group is ended; None: never."""
        if self.workload.hard_stop is None:
            return None
        return self.workload.hard_stop + (LATE if self.wrapped else 0.0)

    @property
    def fs_group(self) -> int | None:
        """The pod's fsGroup."""
        groups = (one.security.fs_group for one in self.workload.containers)
        return next((one for one in groups if one is not None), None)


class Preparation:
    """Prepares the pods of one backend."""

    def __init__(
        self, options: GroupOptions, needs: Needs, hosting: Hosting, registry: RegistryClient
    ) -> None:
        self._options = options
        self._needs = needs
        self._hosting = hosting
        self._registry = registry
        self._images = Images(options.images, registry)

    async def prepared(self, pod: Pod, machine: str) -> Prepared:
        """The pod for that machine, in Go's words; says what somebody should know in its `notice`.
        May be repeated. Errors as of registries; Invalid, Unsupported: it will never do."""
        assert pod.workload is not None
        has_tunnel = self._options.tunnel is not None
        workload = tokens.asked_for(pod.workload, has_tunnel=has_tunnel)
        pulled = await self._images.named(workload, machine)
        left_out = tokens.LEFT_OUT if workload is not pod.workload else ""
        pod.notice = "; ".join(filter(None, (pulled.notice, left_out)))
        made = await self._made(workload, machine)
        images = {one.name: pulled.images.get(one.name, one.image) for one in made.containers}
        return Prepared(workload, made, images)

    async def _made(self, workload: Workload, machine: str) -> Workload:
        if not self._needs.wraps(workload, self._options.helper):
            return bare(workload)
        asked = replace(
            workload,
            containers=tuple(
                replace(one, image=self._images.rewritten(one.image)) for one in workload.containers
            ),
        )
        found = await commands(self._registry, asked, machine)
        if found.without:
            if beyond := "; ".join(map(str, self._needs.beyond(workload))):
                raise Unread(f"{found.without}; but {beyond}")
            self._hosting.without(workload.identity, found.without)
            return bare(workload)
        settings = self._hosting.settings(workload)
        return wrap(workload, found.processes, settings, self._options.helper_image)
