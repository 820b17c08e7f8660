"""New files for a volume while its containers run."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.engine import contents, holder
from adapters.engine.client import Engine
from bridge.workload import Files, Identity


async def update_files(
    engine: Engine, identity: Identity, volumes: Sequence[Files], group: int | None
) -> None:
    """Replaces the content of these volumes, each at once, by one rename; `group` is the pod's
    fsGroup. Again with the same: nothing more. NotFound: the pod is gone."""
    for volume in volumes:
        current, shown = contents.seen(await holder.get(engine, identity, volume.name), volume.name)
        fresh = contents.folder_of(volume)
        if current != fresh:
            await _switch(engine, identity, volume, shown, group)
        await _tidy(engine, identity, volume, "" if current == fresh else current, shown)


async def _switch(
    engine: Engine, identity: Identity, volume: Files, shown: set[str], group: int | None
) -> None:
    archive = contents.Archive(group)
    contents.next_one(archive, volume, shown, at_once=True)
    await holder.put(engine, identity, archive.done())
    old, new = f"{volume.name}/{contents.FRESH}", f"{volume.name}/{contents.DATA}"
    if not await holder.rename(engine, identity, old, new):
        # With another's pause image: for an instant there is no file at all.
        archive = contents.Archive(group)
        contents.next_one(archive, volume, shown, at_once=False)
        await holder.put(engine, identity, archive.done())


async def _tidy(
    engine: Engine, identity: Identity, volume: Files, stale: str, shown: set[str]
) -> None:
    """Removes the last revision, and the links that led into it alone.

    There is no call to remove a file. A link that is unpacked over a folder replaces all that is
    in it; and what is renamed to the one name for all that is stale ends the one before.
    """
    old = sorted(shown - contents.names(volume))
    if stale:
        archive = contents.Archive(None)
        archive.link(f"{volume.name}/{stale}", contents.DATA)
        await holder.put(engine, identity, archive.done())
        old.append(stale)
    for name in old:
        place = f"{volume.name}/{contents.FRESH}"
        if not await holder.rename(engine, identity, f"{volume.name}/{name}", place):
            return
