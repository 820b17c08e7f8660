"""Images of a pod as a cloud is to pull them: names rewritten, tags made digests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bridge.errors import BridgeError, NotFound, Unsupported
from bridge.groups.options import Images as Settings
from bridge.registry import RegistryClient, logins, parse
from bridge.workload import PullCredential, Workload

_log = logging.getLogger(__name__)

_TEMPLATES = ("batch.kubernetes.io/controller-uid", "pod-template-hash", "controller-revision-hash")
"""Labels by which pods of one template know one another."""
_KEPT = 1024
"""Templates whose digests are kept."""
HUB = "docker.io"
_PULLS, _HOURS = 100, 6
"""What Docker Hub lets one address pull without a login, and in how many hours."""
_NEARLY = 80


class ImageNotFound(NotFound):
    """Its registry says that there is no such image."""

    kind = "ErrImagePull"


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pod's images."""

    images: Mapping[str, str]
    """By container, with a digest where its registry told one."""
    notice: str = ""
    """What somebody should know of them before it is too late."""


def rewritten(image: str, rules: Mapping[str, str]) -> str:
    """The name with another beginning, where one of the rules has one for it: the longest."""
    whole = str(parse(image))
    for prefix in sorted(rules, key=len, reverse=True):
        if whole.startswith(prefix):
            return rules[prefix] + whole.removeprefix(prefix)
    return whole if rules else image


class Images:
    """Asks registries for digests, once for all pods of a template."""

    def __init__(
        self,
        settings: Settings,
        registry: RegistryClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._known: OrderedDict[tuple[str, str, str], str] = OrderedDict()
        self._pulls: deque[float] = deque()

    async def named(self, workload: Workload, architecture: str) -> Pulled:
        """What to pull. Raises ImageNotFound; Unsupported: it is not made for that machine."""
        names = list(dict.fromkeys(one.image for one in workload.containers))
        found = await asyncio.gather(*(self._one(workload, name, architecture) for name in names))
        images = dict(zip(names, found, strict=True))
        notice = self._count(list(images.values()), workload.pull_credentials)
        return Pulled({one.name: images[one.image] for one in workload.containers}, notice)

    def rewritten(self, image: str) -> str:
        """The name that the cloud is to pull."""
        return rewritten(image, self._settings.rewrite)

    async def _one(self, workload: Workload, image: str, architecture: str) -> str:
        name = self.rewritten(image)
        if not self._settings.resolve:
            return name
        key = (_template(workload), name, architecture)
        if key not in self._known:
            self._known[key] = await self._asked(name, workload, architecture)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return self._known[key]

    async def _asked(self, name: str, workload: Workload, architecture: str) -> str:
        reference, credentials = parse(name), workload.pull_credentials
        try:
            digest = await self._registry.resolve(name, credentials=credentials)
            await self._registry.config(name, architecture=architecture, credentials=credentials)
        except NotFound as error:
            raise ImageNotFound(error.message) from None
        except Unsupported:
            raise
        except BridgeError as error:
            # It is the cloud that pulls; it may reach what we cannot.
            _log.info("pod %s: %s: it is pulled by its tag", workload.identity.uid, error)
            return name
        return f"{reference.repository}@{digest}"

    def _count(self, images: list[str], credentials: tuple[PullCredential, ...]) -> str:
        """Counts what nobody has logged in for; words, once that comes near Docker Hub's limit."""
        now = self._clock()
        for name in images:
            reference = parse(name)
            if reference.registry == HUB and not logins(reference.repository, credentials):
                self._pulls.append(now)
        while self._pulls and self._pulls[0] < now - _HOURS * 3600:
            self._pulls.popleft()
        if len(self._pulls) < _NEARLY:
            return ""
        return (
            f"{len(self._pulls)} pulls from Docker Hub without a login in {_HOURS} hours: behind"
            f" one address it stops at {_PULLS}; use imagePullSecrets, or images.rewrite"
        )


def _template(workload: Workload) -> str:
    found = next((workload.labels[one] for one in _TEMPLATES if one in workload.labels), "")
    return found or workload.identity.uid
