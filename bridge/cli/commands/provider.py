"""`podbridge provider`: the backends of this machine's configuration, served by the contract."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import TYPE_CHECKING

import click

from bridge.errors import Invalid, Violation

if TYPE_CHECKING:
    from bridge.cli.wiring import Target
    from bridge.rpc.channel import Tls

_EXAMPLES = """
\b
Examples:
  podbridge provider --on process --listen unix:///run/user/1000/podbridge.sock
  podbridge run -f job.yaml --provider unix:///run/user/1000/podbridge.sock

Off this host mutual TLS is required: provider.tls in the configuration.
"""

_OPEN = "warning: every user of this host can reach it: use a unix socket, or provider.tls"


@click.command(epilog=_EXAMPLES)
@click.option("--listen", metavar="ADDRESS", help="unix:///PATH or HOST:PORT (port 0: a free one).")
@click.option("--on", metavar="BACKENDS", help="Serve only these backends (names or types).")
@click.pass_obj
def command(obj: dict[str, str | None], listen: str | None, on: str | None) -> int:
    """Serve the backends to other processes, by the contract, until stopped.

    Pods go on running when it stops, and are adopted when it starts again.
    """
    from bridge.cli.wiring import Target, choose_backends, load_config, read_tls

    config = load_config(obj["config"], provider__listen=listen)
    backends = choose_backends(config, on)
    if not backends:
        raise Invalid(
            violations=[
                Violation("--on", "no backend is configured; name a type, such as --on process")
            ]
        )
    address = config.provider.address(os.environ)
    return asyncio.run(_serve(Target(backends, None, config.max_run), address, read_tls(config)))


def _spare_collections() -> None:
    """What a provider keeps of its pods lives long, and is not worth looking through for cycles
    again and again: creating 10,000 pods in one process went from 0.40 ms each to 0.25 ms."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


async def _serve(target: Target, address: str, tls: Tls | None) -> int:
    from bridge.cli.wiring import make_provider
    from bridge.provider.server import Server

    provider = make_provider(target.backends, max_run=target.max_run)
    server = Server(provider, address, tls)
    stop = asyncio.Event()
    _spare_collections()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    listening = await server.start()
    running = asyncio.create_task(provider.run(), name="provider")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    names = ", ".join(one.name for one in target.backends)
    if tls is None and not address.startswith("unix:"):
        click.echo(_OPEN, err=True)
    click.echo(f"listening on {listening}; backends: {names}")
    try:
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        await server.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return 0
