"""Pods as tasks of ECS on Fargate.

Everything that must be known after a restart is in AWS: the order for each pod in S3, its task in
ECS, what its containers wrote in CloudWatch Logs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import ClassVar

from adapters.fargate import capabilities, check, names, observe, prices
from adapters.fargate import quote as quotes
from adapters.fargate import verify as verification
from adapters.fargate.check import NEEDS
from adapters.fargate.clients import FAMILIES, Clients
from adapters.fargate.command import Commands
from adapters.fargate.definitions import Definitions
from adapters.fargate.discovery import Discovery
from adapters.fargate.due import Due
from adapters.fargate.ends import Ends
from adapters.fargate.hints import Hints
from adapters.fargate.launch import Launcher
from adapters.fargate.logins import Logins
from adapters.fargate.logs import Logs
from adapters.fargate.names import Json
from adapters.fargate.options import Options
from adapters.fargate.order import Order
from adapters.fargate.pods import Pod
from adapters.fargate.poll import Poll
from adapters.fargate.prepare import Preparation
from adapters.fargate.store import Store
from adapters.fargate.tasks import Tasks
from bridge.adapter import Channel, Finding, LogOptions, Quote, Rate, Support
from bridge.errors import NotFound, Unsupported, Violation
from bridge.groups import prepare as groups
from bridge.groups.adapter import Grouped
from bridge.groups.launches import Launches
from bridge.groups.pods import Made
from bridge.registry import RegistryClient
from bridge.workload import Exit, Identity, Workload

_DRIVER = 6.0
"""Seconds after its end by which the driver of a container that is still there has sent all that
it wrote: it sends every 5."""
_FLUSHED = 2.0
"""Seconds after a task has stopped by which CloudWatch Logs shows all that it was sent."""
_CLOCKS = 2.0
"""Seconds by which AWS's clock, as its answers tell it, and a container's may differ."""


class Adapter(Grouped[Pod]):
    """One cluster of ECS, as a backend."""

    type: ClassVar[str] = observe.TYPE
    simulated: ClassVar[bool] = False
    capabilities: ClassVar[Mapping[str, Support]] = capabilities.TABLE
    rates: ClassVar[Mapping[str, Rate]] = {"run": FAMILIES["run"], "stop": FAMILIES["tasks"]}
    fills_in: ClassVar[bool] = True
    _looks: Poll
    _discovery: Discovery

    def __init__(
        self, name: str, options: Options, *, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock`: this machine's (epoch seconds)."""
        self._options = options
        self._clients = Clients(options.region, options.endpoint_url, options.threads, clock)
        super().__init__(name, settled=_FLUSHED, clock=self._clients.now)
        self._registry = RegistryClient()
        self._store = Store(self._clients, options)
        self._tasks = Tasks(self._clients, options.cluster)
        self._commands = Commands(self._clients, self._tasks, options.cluster)
        self._logs = Logs(self._clients, options.log_group)
        self._logins = Logins(self._clients, options)
        definitions = Definitions(self._clients, options.owner, options.tags)
        self._prepared = Preparation(
            options=options,
            preparation=groups.Preparation(options, NEEDS, self._hosting, self._registry),
            store=self._store,
            definitions=definitions,
            logins=self._logins,
            clock=self._clients.now,
        )
        cloud = Launcher(
            owner=options.owner,
            pods=self._pods,
            store=self._store,
            tasks=self._tasks,
            prepare=self._prepared.order,
            settings=self._run,
            revived=definitions.revived,
            gives_up=lambda: self._ends.gives_up(),  # noqa: PLW0108 - it is made later
            clock=self._clients.now,
        )
        self._launches = Launches(cloud, self._pods)
        self._due = Due(
            store=self._store,
            cloud=cloud,
            pods=self._pods,
            launches=self._launches,
            start_deadline=options.start_deadline,
            look_at=self._look_at,
            clock=self._clients.now,
        )
        self._looks = Poll(
            options=options,
            pods=self._pods,
            tasks=self._tasks,
            due=self._due,
            clock=self._clients.now,
        )
        self._ends = Ends(
            options=options, pods=self._pods, store=self._store, due=self._due, poll=self._looks
        )
        self._hints = Hints(self._clients, options, self._looks, self._ends)
        self._discovery = Discovery(
            options=options,
            pods=self._pods,
            store=self._store,
            tasks=self._tasks,
            logins=self._logins,
            due=self._due,
            ends=self._ends,
            drain=self._hints.drain,
            clock=self._clients.now,
        )

    async def open(self) -> None:
        """Finds the bucket and the cluster. Unauthorized, Unavailable, NotFound, Invalid."""
        options = self._options
        kept = self._helper_state(options, options.owner)
        self._prepared.secret = kept.secret
        found, _ = await asyncio.gather(
            self._clients.call("ecs", "describe_clusters", clusters=[options.cluster]),
            self._store.open(),
        )
        if not any(one.get("status") == "ACTIVE" for one in found["clusters"]):
            raise NotFound(f'there is no ECS cluster "{options.cluster}" in {self._clients.region}')
        self._prepared.region = self._clients.region
        await self._begin(options, kept)
        if self._due.acts:
            hints = asyncio.create_task(self._hints.run(), name=f"events of {self.name}")
            self._background.append(hints)

    async def close(self) -> None:
        """Lets go of the connections. What runs goes on running."""
        await super().close()
        await self._commands.close()
        await self._registry.close()
        await self._clients.close()

    def check(self, workload: Workload) -> Sequence[Violation]:
        """What cannot be done of it here."""
        return check.check(workload, self._options)

    def quote(self, workload: Workload) -> Quote:
        """What its task would cost. Invalid: none can be that large."""
        return quotes.quote(workload, self._options, self._clients.region)

    async def refresh_prices(self) -> str:
        """Reads the region's prices from the AWS Price List. Unauthorized, Unavailable."""
        return await asyncio.to_thread(prices.refresh, self._clients.region)

    async def verify(self) -> Sequence[Finding]:
        """What of the account would stand in pods' way. Unauthorized, Unavailable."""
        return await verification.verify(self._options)

    def _run(self, order: Order) -> Json:
        """RunTask's arguments that are the same for all pods."""
        who = order.identity
        tags = {
            **self._options.tags,
            "podbridge.io/namespace": who.namespace,
            "podbridge.io/pod": who.name,
            "podbridge.io/uid": who.uid,
        }
        return {
            "platformVersion": self._options.platform_version,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
            "public_ip": "ENABLED" if self._options.public_ip else "DISABLED",
        }

    def _taken_on(self, workload: Workload) -> Pod:
        return Pod(workload.identity, Made.all_of(workload), workload)

    async def _catch_up(self) -> None:
        await self._looks.refresh()
        await self._discovery.discover(now=self._discovery.is_short())

    async def _remove(self, pod: Pod) -> None:
        """Its payloads and logins, and its order last."""
        kept = pod.kept.order if pod.kept is not None else None
        logins = {*(kept.logins if kept else pod.logins), *self._logins.of(pod.mark)}
        await self._store.forget_payloads(kept.payloads if kept else pod.payloads)
        if self._logins.is_last(logins, pod.mark):
            # Another provider may have launched somebody who uses them.
            await self._discovery.discover(now=True)
        await self._logins.release(logins, pod.mark)
        await self._store.forget_order(pod.mark)

    async def exec(
        self, identity: Identity, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Channel:
        """Starts a command: through the pod's tunnel, or through ECS where it has none and may.
        NotFound, Invalid, Unavailable; Unsupported: neither can be."""
        pod = self._pods.of(identity)
        if pod is None and self._options.execute_command:
            await self._discovery.discover(now=True)
            pod = self._pods.of(identity)
        order = pod.kept.order if pod is not None and pod.kept is not None else None
        may = self._options.execute_command and order is not None and order.execute_command
        if pod is None or not may:
            try:
                return await super().exec(identity, container, command, stdin=stdin, tty=tty)
            except Unsupported as error:
                raise Unsupported(self._no_commands(order, error.message)) from None
        shown = await self._view(pod)
        state = shown.container(container) if shown is not None else None
        if state is None or isinstance(state.state, Exit) or not pod.arn:
            raise NotFound(f"{container} does not run")
        return await self._commands.start(
            pod.arn, container, command, stdin=stdin, tty=tty, known=pod.task
        )

    def _no_commands(self, order: Order | None, words: str) -> str:
        """Why a pod that no tunnel reaches takes no commands through ECS either."""
        if not self._options.execute_command:
            return f"{words}; the backend's option execute_command is false"
        if order is None:
            return words
        if order.task_role:
            return f"{words}; its task was launched without ExecuteCommand"
        return (
            f"{words}; ExecuteCommand takes a pod with a role, and the backend's option identities"
            f" has none for its service account of {order.identity.namespace}"
        )

    async def tail(self, identity: Identity, container: str, size: int) -> bytes:
        """The end of what a container wrote."""
        pod = self._pods.of(identity)
        if pod is None or not pod.arn:
            return b""
        return await self._logs.tail(names.stream(container, pod.arn), size)

    async def lines(
        self, identity: Identity, container: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        """A container's whole log. NotFound, Unsupported."""
        pod = self._pods.of(identity)
        if pod is None or not pod.arn:
            raise NotFound(f"no pod {identity.uid}")
        if options.stream:
            raise Unsupported("CloudWatch Logs does not tell stdout from stderr")

        async def over() -> float | None:
            quiet = await self._quiet(pod, container)
            return (
                await self._late(pod, container) if quiet is None and not options.follow else quiet
            )

        stream = names.stream(container, pod.arn)
        async with aclosing(self._logs.read(stream, options, over)) as pieces:
            async for piece in pieces:
                yield piece

    async def _quiet(self, pod: Pod, container: str) -> float | None:
        """For how many seconds more its container's last lines may come; None: it may write."""
        now = asyncio.get_running_loop().time()
        shown = await self._view(pod)
        state = shown.container(container) if shown is not None else None
        if shown is not None and not (state and isinstance(state.state, Exit)) and not shown.ended:
            pod.ended_at.pop(container, None)
            return None
        since = pod.ended_at.setdefault(container, now)
        settles = _DRIVER if pod.runs else _FLUSHED
        left = since + settles - now
        if shown is not None and state is not None and isinstance(state.state, Exit):
            # Who has only just seen that may have come long after it.
            ended_at = max(state.state.finished_at, pod.stopped_at or 0.0)
            left = min(left, ended_at + settles + _CLOCKS - self._clients.now())
        return left

    async def _late(self, pod: Pod, container: str) -> float | None:
        """For how many seconds more the last lines of a run that another follows may come; None:
        there is none."""
        shown = await self._view(pod)
        state = shown.container(container) if shown is not None else None
        if state is None or state.previous is None:
            return None
        return state.previous.finished_at + _DRIVER + _CLOCKS - self._clients.now()
