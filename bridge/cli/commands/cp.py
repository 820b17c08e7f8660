"""`podbridge cp`: files to and from a container, by the tar in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bridge.cli.copying import Side

_EXAMPLES = """
\b
Examples:
  podbridge cp hello:/out/result.csv .          a run of one pod: its name is enough
  podbridge cp words-3-x7fkp:/out ./out         a pod; what is in its folder goes into ours
  podbridge cp ./model words/words-3-x7fkp:/in  a folder, to a pod of that run
  podbridge cp ./a:b.txt web:/tmp/ -c proxy     a local path with a colon begins with ./ or /

\b
The container needs a `tar`, as with kubectl. Links in what is copied from a container are skipped;
podbridge exec POD -- tar cf - PATH | tar xf - keeps them.
"""


@click.command(epilog=_EXAMPLES)
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("-c", "--container", default="", metavar="C", help="Of this container.")
@click.option("-n", "--namespace", metavar="NS", help="Of a pod in this namespace.")
@click.option("--no-preserve", is_flag=True, help="Do not keep the files' owners and permissions.")
def command(
    *, source: str, destination: str, container: str, namespace: str | None, no_preserve: bool
) -> int:
    """Copy files and folders: SRC or DST is [RUN/]POD:PATH, the other one a path here."""
    from bridge.cli import copying
    from bridge.cli.interruption import until_interrupted

    there, here = copying.side_of(source), copying.side_of(destination)
    copying.check(there, here)

    async def work() -> int:
        return await _copy(there, here, container, namespace, preserve=not no_preserve)

    return asyncio.run(until_interrupted(work()))


async def _copy(
    source: Side, destination: Side, container: str, namespace: str | None, *, preserve: bool
) -> int:
    from bridge.cli import copying
    from bridge.cli.targets import reached, require

    remote = source if source.words else destination
    found = await copying.pod_of(remote, namespace)
    container = copying.container_of(found, container)
    async with reached(found.state) as provider:
        await require(provider, found.state, found.object, "exec", "cannot copy: it runs no tar")
        copy = copying.Copy(provider, found, container, preserve)
        if source.words:
            return await copy.from_pod(source.path, destination.path)
        return await copy.to_pod(source.path, destination.path)
