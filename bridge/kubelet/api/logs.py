"""Containers' logs. The headers leave at once and so does each piece: whoever follows a silent
container must see that it is followed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator

from aiohttp import web

from bridge.agent.provider import ProviderClient
from bridge.errors import BridgeError
from bridge.kubelet.api.answers import refusal
from bridge.kubelet.api.log_options import log_request
from bridge.kubelet.api.pods import Pods, asked_for, quoted, spec_of, status_of
from bridge.kubelet.api.tasks import end
from bridge.pods import Manifest
from bridge.rpc.v1 import provider_pb2 as pb

PROMPT = 0.5
"""Seconds that the headers wait for the first byte, so that a refusal still gets its status code;
behind the headers nothing but an aborted connection could tell it."""
_PULLS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}

_log = logging.getLogger(__name__)


class Logs:
    """Answers `/containerLogs`."""

    def __init__(self, pods: Pods, provider: ProviderClient) -> None:
        self._pods = pods
        self._provider = provider

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET /containerLogs/{namespace}/{pod}/{container}. HTTPNotFound: no such pod or container.
        HTTPBadRequest: it has no log yet. Other options: as `log_request`."""
        wanted = log_request(request.query)
        name, container = request.match_info["pod"], request.match_info["container"]
        pod = asked_for(self._pods, request, f"pod {quoted(name)} does not exist")
        if spec_of(pod, container) is None:
            raise web.HTTPNotFound(
                text=f"container {quoted(container)} not found in pod {quoted(name)}"
            )
        if problem := why_no_log(pod, container, previous=wanted.previous):
            raise web.HTTPBadRequest(text=problem)
        wanted.pod.CopyFrom(self._pods.identity(pod))
        wanted.container = container
        pieces = self._provider.get_container_logs(wanted)
        try:
            return await _send(request, pieces)
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()


def why_no_log(pod: Manifest, container: str, *, previous: bool) -> str:
    """Why a container has no log yet, in the kubelet's words (validateContainerLogStatus); empty:
    there is one."""
    subject = f"container {quoted(container)} in pod {quoted(pod['metadata']['name'])}"
    status = status_of(pod, container)
    if status is None:
        return f"{subject} is not available"
    state = status.get("state") or {}
    last = (status.get("lastState") or {}).get("terminated")
    ran_before = bool((last or {}).get("containerID"))
    if previous:
        return "" if ran_before else f"previous terminated {subject} not found"
    if "running" in state:
        return ""
    if (ended := state.get("terminated")) is not None:
        return "" if ended.get("containerID") or ran_before else f"{subject} is terminated"
    if last is not None:
        return "" if ran_before else f"{subject} is terminated"
    if (waiting := state.get("waiting")) is not None:
        reason = waiting.get("reason", "")
        return f"{subject} is waiting to start: {_PULLS.get(reason, reason)}"
    return f"{subject} is waiting to start - no logs yet"


async def _send(
    request: web.Request, pieces: AsyncIterator[pb.GetContainerLogsResponse]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    first = asyncio.create_task(_next(pieces), name="log")
    try:
        await asyncio.wait({first}, timeout=PROMPT)
        if first.done() and isinstance(error := first.exception(), BridgeError):
            raise refusal(error)
        await response.prepare(request)
        content = await first
        while content is not None:
            await response.write(content)
            content = await _next(pieces)
    except BridgeError as error:
        # An end in order would say that this was the whole log.
        _log.info("a log broke off: %s", error)
        if request.transport is not None:
            request.transport.abort()
    finally:
        await end(first)
    return response


async def _next(pieces: AsyncIterator[pb.GetContainerLogsResponse]) -> bytes | None:
    """The next bytes; None: that was all."""
    async for piece in pieces:
        return piece.content
    return None
