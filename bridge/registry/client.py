"""Asks images' registries what the images say of themselves, over the OCI distribution API.

Own code over aiohttp: of the libraries for it none both bounds what a registry may answer and
verifies all of it by digest, while tokens end when they expire.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bridge.errors import NotFound, Throttled, Unauthorized, Unavailable, Unsupported
from bridge.registry import documents
from bridge.registry.cache import Answers, Blobs
from bridge.registry.credentials import logins
from bridge.registry.documents import LIMIT, Descriptor, ImageConfig, Index, Platform
from bridge.registry.limits import exhausted, retry_after
from bridge.registry.reference import Reference, check_digest, parse
from bridge.registry.tokens import Tokens, needs_login, refused
from bridge.registry.transport import Answer, Transport
from bridge.workload import PullCredential

T = TypeVar("T")
_Who = tuple[str, PullCredential | None]
"""(registry, login)."""

_ACCEPT = ", ".join((*documents.INDEXES, *documents.MANIFESTS))
_DEPTH = 3
"""Indexes within one another, at most: usual images have one."""


class RegistryClient:
    """What images say of themselves, for all registries.

    - `insecure`: registries (host[:port]) to speak plain http to, besides those on this host.
    - `folder`: where content is kept by its digest across restarts; None: in memory only.
    - `fresh`: seconds for which an answer holds, for the same credentials.
    - `timeout`: seconds that a registry may take for one answer.

    No login, token or address with a key in it is in an error or a log.
    """

    def __init__(
        self,
        *,
        insecure: Collection[str] = (),
        folder: Path | None = None,
        fresh: float = 60.0,
        timeout: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._transport = Transport(insecure, timeout)
        self._tokens = Tokens(self._transport, clock)
        self._blobs = Blobs(folder)
        self._digests: Answers[str] = Answers(fresh, clock)
        # What a digest leads to is kept as such: only calls under way are shared.
        self._configs: Answers[ImageConfig] = Answers(0.0, clock)
        self._refused: dict[_Who, float] = {}
        """Until when a registry answers that login nothing."""
        self._spent: dict[_Who, float] = {}
        """Until when it has no more pulls for that login."""

    async def close(self) -> None:
        """Ends all calls and connections."""
        await self._configs.close()
        await self._digests.close()
        await self._transport.close()

    async def resolve(self, image: str, *, credentials: Sequence[PullCredential] = ()) -> str:
        """The digest that the image's name stands for now: of its index, else of its manifest.

        Invalid: it is no name. NotFound, Unauthorized, Throttled, Unavailable: what came of asking.
        """
        reference = parse(image)
        fitting = tuple(logins(reference.repository, credentials))
        return await self._resolve(reference, fitting)

    async def config(
        self,
        image: str,
        *,
        architecture: str = "amd64",
        variant: str = "",
        os: str = "linux",
        credentials: Sequence[PullCredential] = (),
    ) -> ImageConfig:
        """What the image says of its processes on that platform.

        Errors as of `resolve`, and Unsupported: it is not there for that platform, or no image.
        """
        reference = parse(image)
        fitting = tuple(logins(reference.repository, credentials))
        platform = Platform(architecture, variant, os)

        async def load() -> ImageConfig:
            digest = await self._resolve(reference, fitting)

            async def with_login(login: PullCredential | None) -> ImageConfig:
                return await self._load(_Asking(reference, login), digest, platform)

            return await _each(fitting, with_login)

        return await self._configs.get((str(reference), fitting, platform.normalized()), load)

    async def _resolve(self, reference: Reference, fitting: tuple[PullCredential, ...]) -> str:
        async def load() -> str:
            return await _each(fitting, lambda login: self._digest(_Asking(reference, login)))

        return await self._digests.get((str(reference), fitting), load)

    async def _digest(self, asking: _Asking) -> str:
        """Of what the name stands for. A digest is asked for as well: it may not be there, or not
        for this login."""
        reference = asking.reference
        answer = await self._get("HEAD", asking, f"manifests/{reference.target}")
        if reference.digest:
            return reference.digest
        digest = answer.headers.get("Docker-Content-Digest", "")
        try:
            check_digest(digest)
        except ValueError:
            # The header is a mere should; what the digest is of says it as well.
            answer = await self._get("GET", asking, f"manifests/{reference.target}")
            digest = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
            await self._blobs.put(digest, answer.body)
        return digest

    async def _load(self, asking: _Asking, digest: str, platform: Platform) -> ImageConfig:
        image, top = str(asking.reference), digest
        for _ in range(_DEPTH):
            found = documents.manifest(image, await self._content(asking, "manifests", digest))
            if not isinstance(found, Index):
                _check_size(image, found.config)
                content = await self._content(asking, "blobs", found.config.digest)
                return documents.config(image, content, platform, digest)
            chosen = documents.choose(image, found, platform)
            _check_size(image, chosen)
            digest = chosen.digest
        raise Unsupported(f"{image}: {top} leads to more than {_DEPTH} indexes within one another")

    async def _content(self, asking: _Asking, kind: str, digest: str) -> bytes:
        """What has that digest, and nothing else."""
        if (content := await self._blobs.get(digest)) is not None:
            return content
        answer = await self._get("GET", asking, f"{kind}/{digest}")
        if not documents.is_intact(digest, answer.body):
            registry = asking.reference.registry
            words = f"{asking.reference}: what {registry} sends for {digest} is damaged"
            raise Unavailable(words)
        await self._blobs.put(digest, answer.body)
        return answer.body

    async def _get(self, method: str, asking: _Asking, path: str) -> Answer:
        """An answer of 200, with whatever login the registry asks for."""
        reference, login = asking.reference, asking.login
        self._check_pause(asking, method == "GET" and path.startswith("manifests/"))
        url = self._transport.url(reference.endpoint, f"/v2/{reference.path}/{path}")
        headers = {"Accept": _ACCEPT if path.startswith("manifests/") else "*/*"}
        proof = self._tokens.known(reference, login)
        for again in (True, False):
            if proof:
                headers["Authorization"] = proof
            answer = await self._transport.fetch(
                method, url, headers, limit=LIMIT, image=str(reference)
            )
            if answer.status != 401 or answer.moved or not again:
                break
            secure = url.scheme == "https"
            proof = await self._tokens.fresh(reference, login, answer, secure)
        self._judge(asking, answer)
        return answer

    def _check_pause(self, asking: _Asking, counts: bool) -> None:
        # Docker Hub counts GETs of manifests as pulls, and nothing else.
        for pauses in (self._refused, self._spent) if counts else (self._refused,):
            left = pauses.get(asking.who, 0.0) - self._clock()
            if left > 0:
                raise Throttled(_too_many(asking.reference), retry_after=left)
            pauses.pop(asking.who, None)

    def _judge(self, asking: _Asking, answer: Answer) -> None:
        """Nothing where the answer is what was asked for, else its error."""
        reference, status = asking.reference, answer.status
        if wait := exhausted(answer.headers):
            self._spent[asking.who] = self._clock() + wait
        if status == 200:
            return
        registry = reference.registry
        if status == 429:
            wait = retry_after(answer.headers)
            if wait is not None:
                self._refused[asking.who] = self._clock() + wait
            raise Throttled(_too_many(reference), retry_after=wait)
        if status in (401, 403) and not answer.moved:
            refusal = needs_login if asking.login is None else refused
            raise Unauthorized(refusal(reference))
        if status == 404:
            raise NotFound(f"{reference}: {registry} has no such image")
        raise Unavailable(f"{reference}: {registry} answers {status}")


@dataclass(frozen=True, slots=True)
class _Asking:
    """What is asked for, and as whom."""

    reference: Reference
    login: PullCredential | None

    @property
    def who(self) -> _Who:
        """Whose calls a registry counts."""
        return (self.reference.registry, self.login)


async def _each(
    fitting: Sequence[PullCredential], act: Callable[[PullCredential | None], Awaitable[T]]
) -> T:
    """The first that succeeds, with no login where there is none; else the closest one's error.

    A registry may call a thing missing that this login cannot see.
    """
    first: Unauthorized | NotFound | None = None
    for login in fitting or (None,):
        try:
            return await act(login)
        except (Unauthorized, NotFound) as error:
            first = first or error
    assert first is not None
    raise first


def _check_size(image: str, descriptor: Descriptor) -> None:
    if descriptor.size > LIMIT:
        words = f"{image}: {descriptor.digest} has {descriptor.size} bytes, {LIMIT} are read"
        raise Unsupported(words)


def _too_many(reference: Reference) -> str:
    return f"{reference}: {reference.registry} takes no more pulls now"
