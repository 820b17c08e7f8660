"""Where objects are put together: configuration, backends, a provider, a run's session."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.errors import Invalid, Violation

if TYPE_CHECKING:
    from bridge.agent.provider import ProviderClient
    from bridge.cli.onlooker import Onlooker
    from bridge.config import BackendConfig, Config
    from bridge.local.runs import Run
    from bridge.provider.service import Provider
    from bridge.rpc.channel import Tls

FIRST_ANSWER = 10.0
"""Seconds that a provider at an address may take to answer before nothing is started."""
NOBODY = "00000000-0000-0000-0000-000000000000"
"""A cluster that no run belongs to."""

PROCESS_WARNING = (
    "process: plain processes of this machine, as you; no images, no isolation of any kind"
)


def load_config(file: str | None, **flags: Any) -> Config:
    """The configuration in force. `flags` by their path; None: not given."""
    from bridge.config import load
    from bridge.provider.registry import options_model

    given = {path.replace("__", "."): value for path, value in flags.items() if value is not None}
    return load(Path(file) if file else None, os.environ, given, options_model=options_model)


def config_file(named: str | None) -> Path:
    """The file that is read, or would be written."""
    from bridge.config import CONFIG_VARIABLE, find

    if chosen := named or os.environ.get(CONFIG_VARIABLE):
        return Path(chosen)
    if found := find(os.environ):
        return found
    home = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".config"
    return base / "podbridge" / "config.yaml"


def choose_backends(config: Config, on: str | None) -> tuple[BackendConfig, ...]:
    """The configured backends that `--on` names (names or bare types, with commas), or all.

    A bare type that needs no configuration works without any. Invalid where a name is unknown or a
    type means several backends.
    """
    from bridge.config import BackendConfig
    from bridge.provider.placement import Place, eligible, split
    from bridge.provider.registry import module, types

    if on is None:
        return config.backends
    chosen: list[BackendConfig] = []
    places = [Place(one.name, one.type) for one in config.backends]
    known = {one.name: one for one in config.backends}
    configured = {*known, *(one.type for one in config.backends)}
    for word in split(on):
        if word not in configured and word in types() and _needs_nothing(module(word)):
            chosen.append(BackendConfig(name=word, type=word))
            continue
        if word not in configured:
            raise Invalid(violations=[Violation("--on", _why_not(word, configured))])
        chosen += [known[place.name] for place in eligible(places, [word], "--on")]
    if not chosen:
        raise Invalid(violations=[Violation("--on", "names no backend")])
    return tuple(dict.fromkeys(chosen))


def _why_not(word: str, configured: Set[str]) -> str:
    """Why `--on` cannot name this, and what can be done."""
    from bridge.provider.registry import module, types

    if word not in types():
        near = _nearest(word, [*configured, *types()])
        allowed = ", ".join(sorted({*configured, *_bare_types()}))
        return f'found "{word}"; allowed: {allowed}{near}'
    return f'"{word}" is not configured: {how_to_configure(module(word))}'


def how_to_configure(module: Any) -> str:
    """What to do about a type of backends that has no configuration."""
    ways = []
    if cloud := getattr(module, "CLOUD", ""):
        ways.append(f"podbridge init {cloud} makes a configuration")
    if getattr(module, "SIMULATOR", ""):
        ways.append("run, check, plan and backends take --simulate, which needs none")
    return ", and ".join(ways) or "podbridge config schema says how"


def _bare_types() -> list[str]:
    from bridge.provider.registry import module, types

    return [one for one in types() if _needs_nothing(module(one))]


def _needs_nothing(module: Any) -> bool:
    """Whether a backend of that type works with no option given."""
    model = getattr(module, "Options", None)
    if model is None:
        return True
    return not any(field.is_required() for field in model.model_fields.values())


def present(type_: str) -> str:
    """Where something on this machine answers for a type that needs no configuration, in words;
    empty where nothing does."""
    from bridge.provider.registry import module

    words: str = module(type_).present()
    return words


def _nearest(word: str, known: Sequence[str]) -> str:
    from bridge.config import nearest

    near = nearest(word, known)
    return f'; did you mean "{near}"?' if near else ""


def make_provider(
    backends: Sequence[BackendConfig], *, max_run: float, read_only: bool = False
) -> Provider:
    """A provider over these backends, not running yet."""
    from bridge.provider.backend import Backend
    from bridge.provider.registry import make
    from bridge.provider.service import Provider
    from bridge.provider.tracker import Tracker

    made = [Backend(make(one, acts=not read_only), one.limits) for one in backends]
    return Provider(Tracker(made, read_only=read_only), max_run=max_run)


def read_tls(config: Config) -> Tls | None:
    """The key material that `provider.tls` names; None where it names none. Invalid."""
    from bridge.rpc.channel import Tls

    if (files := config.provider.tls) is None:
        return None
    found = {}
    for name, path in (("ca", files.ca), ("cert", files.cert)):
        try:
            found[name] = Path(path).read_bytes()
        except OSError as error:
            wrong = Violation(f"provider.tls.{name}", f"{path}: {error.strerror}")
            raise Invalid(violations=[wrong]) from error
    return Tls(found["ca"], found["cert"], files.key.read(os.environ))


@dataclass(frozen=True, slots=True)
class Target:
    """Where a run's pods go: backends of this process, or a provider at an address."""

    backends: tuple[BackendConfig, ...]
    provider: str | None
    max_run: float
    tls: Tls | None = None
    config: str | None = None
    """The configuration file that was named, for what is not kept with a run: keys."""

    @property
    def simulated(self) -> bool:
        """Whether its clouds are simulators, which end with the process that began the run."""
        return any(one.simulated for one in self.backends)

    def remember(self) -> dict[str, Any]:
        """What a run keeps, so that whoever attends it later finds the same place."""
        return {
            "provider": self.provider,
            "backends": [
                {
                    "config": one.model_dump(mode="json"),
                    "options": _plain(one.options),
                    **({"simulated": True} if one.simulated else {}),
                }
                for one in self.backends
            ],
            "max_run": self.max_run,
            "config": self.config,
        }


def _plain(options: Any) -> Any:
    return options if isinstance(options, dict) else options.model_dump(mode="json")


@asynccontextmanager
async def provider_of(target: Target) -> AsyncIterator[ProviderClient]:
    """The target's provider, running."""
    if target.provider is not None:
        from bridge.rpc.client import RemoteProvider

        remote = RemoteProvider(target.provider, target.tls)
        try:
            yield remote
        finally:
            await remote.close()
        return
    async with _running(target, read_only=False) as provider:
        yield provider


@asynccontextmanager
async def onlooker_of(target: Target) -> AsyncIterator[Onlooker]:
    """The target's provider for whoever only looks."""
    from bridge.cli.onlooker import Onlooker

    if target.provider is not None:
        async with provider_of(target) as remote:
            yield Onlooker(remote, _at_once)
        return
    async with _running(target, read_only=True) as provider:
        yield Onlooker(provider, provider.settled)


async def reachable(target: Target) -> None:
    """Unavailable where nobody answers at the target's address."""
    import asyncio

    from bridge.errors import Unavailable
    from bridge.local.session import NODE
    from bridge.rpc.v1 import provider_pb2 as pb

    request = pb.WatchNodeRequest(cluster=NOBODY, node=NODE)
    async with provider_of(target) as provider:
        try:
            async with asyncio.timeout(FIRST_ANSWER):
                async for _ in provider.watch_node(request):
                    return
        except TimeoutError:
            raise Unavailable(f"the provider at {target.provider} does not answer") from None
        except Unavailable as error:
            words = f"the provider at {target.provider} does not answer: {error}"
            raise Unavailable(words) from None


async def _at_once() -> None:
    return


@asynccontextmanager
async def _running(target: Target, *, read_only: bool) -> AsyncIterator[Provider]:
    import asyncio

    provider = make_provider(target.backends, max_run=target.max_run, read_only=read_only)
    running = asyncio.create_task(provider.run(), name="provider")
    try:
        yield provider
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def target_of(run: Run) -> Target:
    """Where a known run's pods are."""
    from bridge.config import BackendConfig

    kept = run.wanted.options
    backends = [
        BackendConfig.model_validate(one["config"]).with_options(
            one["options"], simulated=one.get("simulated", False)
        )
        for one in kept["backends"]
    ]
    # Keys are not kept with a run: they are read again from where the configuration says.
    tls = read_tls(load_config(kept.get("config"))) if kept["provider"] is not None else None
    return Target(tuple(backends), kept["provider"], kept["max_run"], tls, kept.get("config"))


async def synced(provider: ProviderClient, cluster: str) -> None:
    """Returns once the provider has listed all of its backends: from then on it knows every pod."""
    from bridge.local.session import NODE
    from bridge.rpc.v1 import provider_pb2 as pb

    pending: set[str] | None = None
    async for message in provider.watch_pods(pb.WatchPodsRequest(cluster=cluster, node=NODE)):
        for event in message.events:
            if event.WhichOneof("event") == "snapshot_started":
                pending = set(event.snapshot_started.backends)
            elif event.WhichOneof("event") == "synced" and pending is not None:
                pending.discard(event.synced.backend)
        if pending is not None and not pending:
            return


async def delete_run(run: Run) -> None:
    """Ends all of a run that nobody else attends, and forgets it once the backends confirm."""
    from bridge.local.session import Session

    run.order_deletion()
    target = target_of(run)
    if target.simulated:
        # Its cloud ended with whoever attended it, and all that was there.
        run.remove()
        return
    if target.provider is not None:
        await reachable(target)
    async with provider_of(target) as provider:
        session = Session(run, provider)
        session.delete()
        await session.attend()
    if session.deleted:
        run.remove()


def bare_backends(config: Config) -> tuple[BackendConfig, ...]:
    """A backend of each type that needs no configuration and is not configured."""
    from bridge.config import BackendConfig

    known = {word for one in config.backends for word in (one.name, one.type)}
    return tuple(BackendConfig(name=one, type=one) for one in _bare_types() if one not in known)
