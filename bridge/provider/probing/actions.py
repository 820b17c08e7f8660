"""Runs one action of a probe or hook against a container, over what its adapter offers.

As pkg/probe and pkg/kubelet/lifecycle do it. Nothing here decides what a result means. What speaks
HTTP and gRPC is imported with the first action that needs it: most providers never do.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

from bridge import adapter as seam
from bridge.errors import BridgeError, Unsupported
from bridge.workload import (
    Action,
    ExecAction,
    GrpcAction,
    HttpAction,
    Identity,
    SleepAction,
    TcpAction,
)

OUTPUT_MAX = 10 * 1024
"""Bytes of a command's output that are kept (maxReadLength)."""


class Result(Enum):
    """What came of an action."""

    SUCCESS = "success"
    WARNING = "warning"
    """Success, with something to say."""
    FAILURE = "failure"
    UNKNOWN = "unknown"
    """It could not be tried: this says nothing of the container."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result and its words, for people."""

    result: Result
    message: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Against which container. `address` is the pod's, for names and messages."""

    adapter: seam.Adapter
    identity: Identity
    container: str
    address: str = "localhost"

    async def dial(self, port: int) -> seam.Channel:
        """A connection to the pod's address. Errors as `Dial.dial`'s; Unsupported."""
        if not isinstance(self.adapter, seam.Dial):
            raise Unsupported(f"{self.adapter.name} cannot connect to ports of a pod")
        return await self.adapter.dial(self.identity, port, inside=False)


async def probe(target: Target, action: Action, timeout: float) -> Outcome:
    """Runs a probe's action once, for at most `timeout` seconds."""
    if getattr(action, "port", None) == 0:
        return Outcome(Result.UNKNOWN, "the container has no port of that name")
    match action:
        case ExecAction():
            return await _exec(target, action, timeout)
        case HttpAction():
            return await _http(target, action, timeout)
        case TcpAction(port):
            return await _tcp(target, port, timeout)
        case GrpcAction(port, service):
            from bridge.provider.probing.grpc_health import check  # noqa: PLC0415 - see above

            healthy, message = await check(target, port, service, timeout)
            return Outcome(Result.SUCCESS if healthy else Result.FAILURE, message)
    return Outcome(Result.UNKNOWN, "not an action of a probe")


async def hook(target: Target, action: Action) -> bool:
    """Runs a hook's action to its end; whether that was a good one.

    What it printed or answered is for nobody: it may hold a secret. Any answer to an HTTP request
    is a good end, as the kubelet has it.
    """
    match action:
        case ExecAction():
            return (await _exec(target, action, None)).result is Result.SUCCESS
        case HttpAction(port):
            return port != 0 and await _http_hook(target, action)
        case SleepAction(seconds):
            await asyncio.sleep(seconds)
            return True
    return False


async def _exec(target: Target, action: ExecAction, timeout: float | None) -> Outcome:
    if not isinstance(target.adapter, seam.Exec):
        return Outcome(Result.UNKNOWN, f"{target.adapter.name} cannot run commands in containers")
    output = bytearray()
    try:
        # How long its backend takes to start it says nothing of the container.
        channel = await target.adapter.exec(
            target.identity, target.container, action.command, stdin=False, tty=False
        )
        try:
            async with asyncio.timeout(timeout):
                while (piece := await channel.read())[0]:
                    output += piece[1][: OUTPUT_MAX - len(output)]
                code = await channel.wait()
        finally:
            await channel.close()
    except TimeoutError:
        return Outcome(Result.FAILURE, f"command timed out after {timeout:g}s")
    except BridgeError as error:
        return Outcome(Result.UNKNOWN, error.message)
    words = output.decode(errors="replace")
    return Outcome(Result.FAILURE if code else Result.SUCCESS, words)


async def _tcp(target: Target, port: int, timeout: float) -> Outcome:
    where = f"dial tcp {target.address}:{port}"
    try:
        async with asyncio.timeout(timeout):
            channel = await target.dial(port)
        await channel.close()
    except TimeoutError:
        return Outcome(Result.FAILURE, f"{where}: i/o timeout")
    except BridgeError as error:
        return Outcome(Result.FAILURE, f"{where}: {error.message}")
    return Outcome(Result.SUCCESS)


async def _http(target: Target, action: HttpAction, timeout: float) -> Outcome:
    from bridge.provider.probing.http_get import Redirected, get  # noqa: PLC0415 - see above

    where = f'Get "{action.scheme.lower()}://{target.address}:{action.port}{action.path}"'
    try:
        async with asyncio.timeout(timeout):
            status = await get(target, action, "kube-probe")
    except TimeoutError:
        words = f"{where}: context deadline exceeded (Client.Timeout exceeded)"
        return Outcome(Result.FAILURE, words)
    except Redirected as redirected:
        words = f"Probe terminated redirects, Response body: {redirected.body}"
        return Outcome(Result.WARNING, words)
    except BridgeError as error:
        return Outcome(Result.FAILURE, f"{where}: {error.message}")
    if 200 <= status < 400:
        return Outcome(Result.SUCCESS)
    return Outcome(Result.FAILURE, f"HTTP probe failed with statuscode: {status}")


async def _http_hook(target: Target, action: HttpAction) -> bool:
    from bridge.provider.probing.http_get import NotTls, Redirected, get  # noqa: PLC0415 - see above

    try:
        await get(target, action, "kube-lifecycle")
    except NotTls:
        plain = HttpAction(
            action.port,
            action.path,
            "HTTP",
            tuple(one for one in action.headers if one[0].lower() != "authorization"),
        )
        return await _http_hook(target, plain)
    except Redirected:
        return True
    except BridgeError:
        return False
    return True
