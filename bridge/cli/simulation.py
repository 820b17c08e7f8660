"""`--simulate`: a cloud's simulator that lives as long as one command does.

A backend type that can be simulated has two things in its module: `SIMULATOR`, the name of its
cloud's package among the simulators, and `furnish(endpoint, environment, run_on)`, which makes what
an account needs there and returns the type's own options. These carry the simulator's keys: no
credentials of the user's are looked for, and none can reach it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bridge.cli.output import plain
from bridge.cli.wiring import PROCESS_WARNING, present
from bridge.errors import BridgeError, Invalid, Violation

if TYPE_CHECKING:
    from bridge.config import BackendConfig, Config

TIME_SCALE = 10.0
"""How many times faster the cloud's own time goes: half a minute of provisioning is three seconds.
What containers do takes its own time."""

_T = TypeVar("_T")


@contextmanager
def simulation(
    config: Config, on: str | None, *, quiet: bool = False
) -> Iterator[tuple[BackendConfig, ...]]:
    """The backends that `on` names (or those configured that can be), each on a simulated cloud.

    Invalid where a type has no simulator; Unavailable where none can be started here.
    """
    chosen = _choose(config, on)
    run_on = "engine" if (engine := present("engine")) else "process"
    if not quiet:
        clouds = ", ".join(dict.fromkeys(_cloud(one.type) for one in chosen))
        where = f"containers on {engine}" if engine else "plain processes"
        click.echo(plain(f"{clouds}: simulated here, {where}; nothing is billed"), err=True)
    if not engine:
        click.echo(PROCESS_WARNING, err=True)
    stack = ExitStack()
    try:
        with uninterrupted() as came:
            made = _set_up(stack, chosen, run_on)
        if came:
            raise SystemExit(128 + came[0])
        yield made
    finally:
        with uninterrupted():
            stack.close()


@contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Signals are only noted meanwhile: what is half there could not be taken down."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _set_up(
    stack: ExitStack, chosen: Sequence[BackendConfig], run_on: str
) -> tuple[BackendConfig, ...]:
    """The backends in their clouds, which `stack` ends."""
    loop = stack.enter_context(_Loop())
    # Nobody comes back to its helpers: what is kept for them must not meet another simulation's.
    folder = stack.enter_context(TemporaryDirectory(prefix="podbridge-simulation-"))
    clouds: dict[str, Any] = {}
    made = []
    for one in chosen:
        cloud = _cloud(one.type)
        if cloud not in clouds:
            clouds[cloud] = stack.enter_context(_started(loop, cloud, run_on))
        made.append(loop.run(_furnished(one, clouds[cloud], run_on, folder)))
    stack.enter_context(_ended_in_order())
    return tuple(made)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, with all that was begun."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _choose(config: Config, on: str | None) -> tuple[BackendConfig, ...]:
    """Backends to simulate. Of a configured one only name and limits are kept: its account is
    another."""
    from bridge.config import BackendConfig
    from bridge.provider.placement import split
    from bridge.provider.registry import types

    if on is None:
        chosen = tuple(one for one in config.backends if _cloud(one.type))
        if not chosen:
            words = f"required with --simulate; allowed: {', '.join(_simulable())}"
            raise Invalid(violations=[Violation("--on", words)])
        return chosen
    known = {one.name: one for one in config.backends}
    found = []
    for word in split(on):
        type_ = known[word].type if word in known else word
        if (word not in known and word not in types()) or not _cloud(type_):
            words = f'found "{word}", which has no simulator; allowed: {", ".join(_simulable())}'
            raise Invalid(violations=[Violation("--on", words)])
        found.append(known.get(word) or BackendConfig(name=word, type=word))
    return tuple(dict.fromkeys(found))


def _cloud(type_: str) -> str:
    """The cloud whose simulator a type needs; empty: it cannot be simulated."""
    from bridge.provider.registry import module

    return str(getattr(module(type_), "SIMULATOR", ""))


def _simulable() -> list[str]:
    from bridge.provider.registry import types

    found = []
    for one in types():
        try:
            cloud = _cloud(one)
        except BridgeError:
            # Its extra is not installed.
            continue
        if cloud:
            found.append(one)
    return found or ["nothing, as no backend type has a simulator"]


async def _furnished(
    config: BackendConfig, simulator: Any, run_on: str, folder: str
) -> BackendConfig:
    from bridge.provider.registry import module

    found = module(config.type)
    options = await found.furnish(simulator.endpoint, simulator.environment, run_on)
    if "helper_state" in found.Options.model_fields:
        options = {**options, "helper_state": folder}
    return config.with_options(found.Options.model_validate(options), simulated=True)


@contextmanager
def _started(loop: _Loop, cloud: str, run_on: str) -> Iterator[Any]:
    made = import_module(f"adapters.simulators.{cloud}").Simulator(
        time_scale=TIME_SCALE, run_on=run_on
    )
    loop.run(made.__aenter__())
    try:
        with _without_account(cloud, made.environment):
            yield made
    finally:
        loop.run(made.__aexit__(None, None, None))


@contextmanager
def _without_account(cloud: str, instead: Mapping[str, str]) -> Iterator[None]:
    """The environment without what the user's own account is found by: an SDK reads it even where
    it is given keys, and a profile that is not there stops it."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(f"{cloud.upper()}_"):
            del os.environ[name]
    os.environ.update(instead)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _Loop:
    """An event loop in a thread of its own: a command has several loops, one after the other, and
    the simulator has to live through all of them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator")

    def __enter__(self) -> _Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What `work` returns, done there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
