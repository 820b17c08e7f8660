"""On what the node under test runs its pods: the engine as it is, or with something in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tools.conformance.containers import engine

PODS, CORES, MEMORY = 200, "16", "32Gi"
"""What the node says it has. The tests ask for little and use less."""


class Backend(Protocol):
    """Begins what is beside the node, and says how the node's backend is configured."""

    def __call__(self, folder: Path, owner: str) -> AbstractContextManager[Mapping[str, object]]:
        """`owner`: whose the engine's containers are."""


@dataclass(frozen=True)
class Variant:
    """One kind of node."""

    backend: Backend
    target: str
    """Make's, which also names the page."""
    title: str
    """What the page's title has besides."""
    what: str
    """What the page says of the backend, after "the `engine` backend"."""
    known: Sequence[str] = ()
    """The files, besides known.yaml, that say what does not pass."""


def _limits(name: str) -> dict[str, object]:
    return {"name": name, "max_pods": PODS, "cpu": CORES, "memory": MEMORY}


@contextmanager
def _engine(folder: Path, owner: str) -> Iterator[Mapping[str, object]]:
    del folder
    yield _limits("engine") | {"type": "engine", "host": engine.address(), "owner": owner}


@contextmanager
def _helper(folder: Path, owner: str) -> Iterator[Mapping[str, object]]:
    with _engine(folder, owner) as plain:
        yield {**plain, "helper": "always", "helper_state": str(folder / "helper")}


VARIANTS: Mapping[str, Variant] = {
    "engine": Variant(_engine, "conformance", "", ""),
    "helper": Variant(
        _helper,
        "conformance-helper",
        " with the helper",
        " and its option\n`helper: always`: groups of containers, and all else is the helper's"
        " (docs/helper.md)",
        ("known-helper.yaml",),
    ),
}
