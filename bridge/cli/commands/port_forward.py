"""`podbridge port-forward`: local ports whose connections go into a pod."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from bridge.cli.output import plain
from bridge.cli.select import complete_runs

if TYPE_CHECKING:
    from bridge.cli.forwarding import Address
    from bridge.cli.select import Found
    from bridge.pods import Manifest
    from bridge.rpc.streams import Remote

_EXAMPLES = """
\b
Examples:
  podbridge port-forward web 8080:80           a run of one pod: its name is enough
  podbridge port-forward web 8080              the same port here and there
  podbridge port-forward web :80               a port here that is free
  podbridge port-forward shop web 8443:https   a pod of a run; a port by its name
  podbridge port-forward web 80:80 --address 0.0.0.0
"""
_TYPE = "podbridge port-forward [RUN] POD [LOCAL:]REMOTE..."
_LOOK = 2.0
"""Seconds between two looks at whether a pod still runs, where nobody tells."""


@click.command(epilog=_EXAMPLES)
@click.argument(
    "words", nargs=-1, metavar="[RUN] POD [LOCAL:]REMOTE...", shell_complete=complete_runs
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    default=["localhost"],
    metavar="IP,...",
    help="Where to listen: IP addresses or localhost (the default).",
)
@click.option("-n", "--namespace", metavar="NS", help="Of this namespace only.")
@click.option("--run", "run", metavar="RUN", shell_complete=complete_runs, help="Of this run only.")
def command(
    *, words: tuple[str, ...], addresses: tuple[str, ...], namespace: str | None, run: str | None
) -> int:
    """Forward local ports to a pod, until Ctrl-C or the pod's end."""
    from bridge.cli.forwarding import parse_addresses, parse_ports
    from bridge.cli.interruption import until_interrupted

    who, ports = _split(words, run)
    parse_ports(ports, None)
    task = _Task(who, run, ports, parse_addresses(addresses), namespace)
    return asyncio.run(until_interrupted(task.run()))


def _split(words: Sequence[str], run: str | None) -> tuple[list[str], list[str]]:
    """(run and pod, ports): a second word is a port unless it must be the pod."""
    from bridge.cli.forwarding import looks_like_port

    if run is not None and words and looks_like_port(words[0]):
        return [], list(words)
    if len(words) < 2 or looks_like_port(words[0]):
        found = f'found "{" ".join(words)}"' if words else "found nothing"
        raise click.UsageError(f"{found}; a pod and at least one port are required: {_TYPE}")
    at = 2 if run is None and len(words) > 2 and _is_pod(words[0], words[1]) else 1
    return list(words[:at]), list(words[at:])


def _is_pod(first: str, second: str) -> bool:
    """Whether the second word is a pod of the run that the first one names."""
    from bridge.cli.forwarding import looks_like_port
    from bridge.local.runs import Runs

    if "/" in second:
        return True
    is_run = Runs().find(first.removeprefix("run/").removeprefix("runs/")) is not None
    return is_run and not looks_like_port(second)


@dataclass(frozen=True, slots=True)
class _Task:
    words: Sequence[str]
    of_run: str | None
    ports: Sequence[str]
    addresses: Sequence[Address]
    namespace: str | None

    async def run(self) -> int:
        """Forwards until the pod's end, which is 1."""
        from bridge.cli import forwarding
        from bridge.cli.execution import require_going, who
        from bridge.cli.targets import one_pod, reached, require
        from bridge.rpc.streams import open_forward
        from bridge.rpc.v1 import stream_pb2

        found = await one_pod(self.words, run=self.of_run, namespace=self.namespace)
        require_going(found.object, "cannot forward to a completed pod")
        _require_running(found.object)
        ports = forwarding.parse_ports(self.ports, found.object)
        async with reached(found.state) as provider:
            await require(provider, found.state, found.object, "dial", "forwards no ports")
            listeners, problems = forwarding.listen(ports, self.addresses)
            for problem in problems:
                print(f"error: {problem}", file=sys.stderr)
            for one in listeners:
                print(one.words, flush=True)

            async def dial(port: int) -> Remote:
                start = stream_pb2.PortForwardStart(pod=who(found), port=port)
                return await open_forward(provider, start)

            going = asyncio.create_task(forwarding.Forwarder(listeners, dial).run(), name="ports")
            ending = asyncio.create_task(_end_of(found), name="pod")
            try:
                await asyncio.wait([going, ending], return_when=asyncio.FIRST_COMPLETED)
                if going.done():
                    going.result()
                words = plain(ending.result())
                print(f"error: lost connection to pod: {words}", file=sys.stderr)
            finally:
                for task in (going, ending):
                    task.cancel()
                await asyncio.gather(going, ending, return_exceptions=True)
        return 1


def _require_running(pod: Manifest) -> None:
    from bridge.errors import NotFound

    phase = (pod.get("status") or {}).get("phase", "Pending")
    if phase != "Running":
        raise NotFound(f"unable to forward port because pod is not running. Current status={phase}")


async def _end_of(found: Found) -> str:
    """Returns, in words, once the pod is over or gone."""
    from bridge.cli.reading import Live
    from bridge.cli.select import load
    from bridge.local.outcome import pod_over

    uid, state = found.object["metadata"]["uid"], found.state
    while True:
        live = Live(state)
        following = asyncio.create_task(live.run(), name="changes")
        try:
            while True:
                pod = live.state.pods.get(uid)
                if pod is None and not live.state.problem:
                    return f'pod "{found.name}" was deleted'
                if pod is not None and pod_over(pod):
                    return f'pod "{found.name}" has ended: {pod["status"]["phase"]}'
                if live.ended:
                    break
                await live.changed()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        # Nobody attends the run: nothing tells of a change.
        await asyncio.sleep(_LOOK)
        (state,) = await load([state.run])
