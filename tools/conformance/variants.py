"""On what the node under test runs its pods: the engine as it is, or with something in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.conformance import account
from tools.conformance.containers import engine

PODS, CORES, MEMORY = 200, "16", "32Gi"
"""What the node says it has. The tests ask for little and use less."""


@dataclass(frozen=True)
class Around:
    """What there is for a backend to use."""

    folder: Path
    owner: str
    """Whose the engine's containers are."""
    images: Sequence[str]
    """The names of the tests' images."""


Backend = Callable[[Around], AbstractContextManager[Mapping[str, object]]]
"""Begins what is beside the node, and says how the node's backend is configured."""


@dataclass(frozen=True)
class Variant:
    """One kind of node."""

    backend: Backend
    target: str
    """Make's, which also names the page."""
    title: str
    """What the page's title has besides."""
    what: str
    """What the page says of the backend, after "with the"."""
    compares: bool = False
    """Whether its page has the other backends beside it."""
    known: Sequence[str] = ()
    """The files, besides known.yaml, that say what does not pass."""


def _limits(name: str) -> dict[str, object]:
    return {"name": name, "max_pods": PODS, "cpu": CORES, "memory": MEMORY}


def _engine_config(around: Around) -> dict[str, object]:
    return {
        **_limits("engine"),
        "type": "engine",
        "host": engine.address(),
        "owner": around.owner,
    }


@contextmanager
def _engine(around: Around) -> Iterator[Mapping[str, object]]:
    yield _engine_config(around)


@contextmanager
def _helper(around: Around) -> Iterator[Mapping[str, object]]:
    state = str(around.folder / "helper")
    yield {**_engine_config(around), "helper": "always", "helper_state": state}


@contextmanager
def _fargate(around: Around) -> Iterator[Mapping[str, object]]:
    with account.on_engine(around.folder, around.images) as options:
        yield {**_limits("fargate"), "type": "fargate", **options}


VARIANTS: Mapping[str, Variant] = {
    "engine": Variant(_engine, "conformance", "", "`engine` backend", compares=True),
    "helper": Variant(
        _helper,
        "conformance-helper",
        " with the helper",
        "`engine` backend and its option\n`helper: always`: groups of containers, and all else is"
        " the helper's (docs/helper.md)",
        known=("known-helper.yaml",),
    ),
    "fargate": Variant(
        _fargate,
        "conformance-fargate",
        " on Fargate",
        "`fargate` backend and\na simulated account (docs/simulators.md) of which an engine here"
        " runs the tasks; the first four groups alone",
        known=("known-helper.yaml", "known-fargate.yaml"),
    ),
}
