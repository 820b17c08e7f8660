"""Pods as tasks of ECS on Fargate.

Everything that must be known after a restart is in AWS: the order for each pod in S3, its task in
ECS, what its containers wrote in CloudWatch Logs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from adapters.fargate import capabilities, check, names, observe, prices
from adapters.fargate import quote as quotes
from adapters.fargate import verify as verification
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
from adapters.fargate.pods import Pod, Pods
from adapters.fargate.poll import Poll
from adapters.fargate.prepare import Preparation
from adapters.fargate.store import Store
from adapters.fargate.tasks import Tasks
from bridge.adapter import Channel, Finding, LogOptions, Quote, Rate, Support
from bridge.errors import NotFound, Unsupported, Violation
from bridge.groups.launches import Launches
from bridge.groups.pods import Ending, Made
from bridge.helper import state
from bridge.helper.hosted import Hosted
from bridge.helper.hosting import SLACK, Door, Hosting
from bridge.registry import RegistryClient
from bridge.workload import Exit, Files, Identity, Observed, Workload

_DRIVER = 6.0
"""Seconds after its end by which the driver of a container that is still there has sent all that
it wrote: it sends every 5."""
_FLUSHED = 2.0
"""Seconds after a task has stopped by which CloudWatch Logs shows all that it was sent."""
_AT_ONCE = 0.1
"""Seconds of grace where there is none: the helper then kills."""


class Adapter(Hosted):
    """One cluster of ECS, as a backend."""

    type: ClassVar[str] = observe.TYPE
    simulated: ClassVar[bool] = False
    capabilities: ClassVar[Mapping[str, Support]] = capabilities.TABLE
    rates: ClassVar[Mapping[str, Rate]] = {"run": FAMILIES["run"], "stop": FAMILIES["tasks"]}
    fills_in: ClassVar[bool] = True

    def __init__(
        self, name: str, options: Options, *, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock`: this machine's (epoch seconds)."""
        self.name = name
        self._options = options
        self._clients = Clients(options.region, options.endpoint_url, options.threads, clock)
        self._registry = RegistryClient()
        self._pods = Pods()
        self._hosting = Hosting(name, self, settled=_FLUSHED, clock=self._clients.now)
        self._store = Store(self._clients, options)
        self._tasks = Tasks(self._clients, options.cluster)
        self._commands = Commands(self._clients, self._tasks, options.cluster)
        self._logs = Logs(self._clients, options.log_group)
        self._logins = Logins(self._clients, options)
        definitions = Definitions(self._clients, options.owner, options.tags)
        self._prepared = Preparation(
            options=options,
            hosting=self._hosting,
            registry=self._registry,
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
            look_at=lambda mark: self._poll.look_at(mark),  # noqa: PLW0108 - it is made later
            clock=self._clients.now,
        )
        self._poll = Poll(
            options=options,
            pods=self._pods,
            tasks=self._tasks,
            due=self._due,
            clock=self._clients.now,
        )
        self._ends = Ends(
            options=options, pods=self._pods, store=self._store, due=self._due, poll=self._poll
        )
        self._hints = Hints(self._clients, options, self._poll, self._ends)
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
        self._background: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Finds the bucket and the cluster. Unauthorized, Unavailable, NotFound, Invalid."""
        options = self._options
        folder = Path(options.helper_state) if options.helper_state else state.default_folder()
        kept = state.load(folder, options.owner)
        self._prepared.secret = kept.secret
        found, _ = await asyncio.gather(
            self._clients.call("ecs", "describe_clusters", clusters=[options.cluster]),
            self._store.open(),
        )
        if not any(one.get("status") == "ACTIVE" for one in found["clusters"]):
            raise NotFound(f'there is no ECS cluster "{options.cluster}" in {self._clients.region}')
        self._prepared.region = self._clients.region
        tunnel = options.tunnel if self._due.acts else None
        door = Door(tunnel.listen, tunnel.port, tunnel.address) if tunnel else None
        await self._hosting.open(kept, door, acts=self._due.acts)
        if not self._due.acts:
            return
        self._background = [
            asyncio.create_task(self._poll.run(), name=f"tasks of {self.name}"),
            asyncio.create_task(self._hints.run(), name=f"events of {self.name}"),
        ]

    def only_look(self) -> None:
        """Launches nothing anew, ends and removes nothing, and leaves events to others."""
        self._due.acts = False

    async def close(self) -> None:
        """Lets go of the connections. What runs goes on running."""
        for one in self._background:
            one.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._commands.close()
        await self._hosting.close()
        await self._launches.close()
        await self._due.close()
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

    async def run(self, workload: Workload) -> None:
        """Begins to launch it; where it is there, nothing more."""
        made = tuple(Made(one.name, one.image) for one in workload.containers)
        pod = self._pods.add(Pod(workload.identity, made, workload))
        if pod.launch is None and pod.task is None and not pod.is_over:
            pod.workload = pod.workload or workload
            self._hosting.launching(workload)
            self._launches.start(pod)

    async def list(self) -> Sequence[Observed]:
        """All pods of this owner. Errors as of AWS's calls."""
        await self._poll.refresh()
        await self._discovery.discover(now=self._discovery.is_short())
        pods = list(self._pods)
        for key in self._hosting.pods() - {pod.identity.key for pod in pods}:
            self._hosting.forget(key)
        views = await asyncio.gather(*map(self._view, pods))
        found = [one for one in views if one is not None]
        return sorted(found, key=lambda one: one.identity.key)

    async def _view(self, pod: Pod) -> Observed | None:
        group = pod.group()
        if group is None:
            return None
        shown = await self._hosting.view(group)
        if not group.failed or not (pod.is_over or shown.ended):
            return shown
        # What befell the task as a whole goes before what its containers came to.
        return replace(
            shown,
            failed=True,
            reason=group.reason,
            message=group.message,
            disrupted=group.disrupted,
        )

    async def stop(self, identity: Identity, grace: float) -> None:
        """Begins to end it."""
        pod = self._pods.of(identity)
        if pod is None:
            return
        await self._launches.end(pod)
        if pod.task is None or pod.is_over:
            self._pods.tell(pod)
            return
        if await self._hosting.stop(identity, max(grace, _AT_ONCE)):
            self._kill_later(pod, grace + SLACK)
        else:
            await self._due.end(pod, Ending.STOPPED)

    def _kill_later(self, pod: Pod, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if pod.killing is not None:
            pod.killing.cancel()
        pod.killing = loop.call_later(seconds, self._due.kill, pod)

    async def delete(self, identity: Identity) -> None:
        """Ends and removes all of it; returns when ECS says that its task has stopped."""
        pod = self._pods.of(identity)
        if pod is None:
            await self._discovery.discover(now=True)
            if (pod := self._pods.of(identity)) is None:
                return
        await self._launches.end(pod)
        if pod.runs and not pod.missing:
            await self._due.end(pod, Ending.DELETED)
            await self._due.stopped(pod)
        kept = pod.kept.order if pod.kept is not None else None
        logins = {*(kept.logins if kept else pod.logins), *self._logins.of(pod.mark)}
        await self._store.forget_payloads(kept.payloads if kept else pod.payloads)
        if self._logins.is_last(logins, pod.mark):
            # Another provider may have launched somebody who uses them.
            await self._discovery.discover(now=True)
        await self._logins.release(logins, pod.mark)
        await self._store.forget_order(pod.mark)
        self._hosting.forget(identity.key)
        self._pods.forget(pod)

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

    async def events(self) -> AsyncIterator[Observed]:
        """Pods as they change, and as what they wait for does."""
        with self._pods.listen() as listener:
            while True:
                for pod in await listener.take():
                    if self._pods.get(pod.mark) is pod and (found := await self._view(pod)):
                        yield found

    # What the helpers' provider asks of its cloud.

    async def look(self, identity: Identity) -> Observed | None:
        """The group of the pod's containers; None: there is none."""
        pod = self._pods.of(identity)
        return pod.group() if pod is not None else None

    def tell(self, identity: Identity) -> None:
        """The pod may have changed, and its task with it."""
        if (pod := self._pods.of(identity)) is not None:
            self._poll.look_at(pod.mark)
            self._pods.tell(pod)

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
            return await self._quiet(pod, container)

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
        return since + (_DRIVER if pod.runs else _FLUSHED) - now

    async def update_files(self, identity: Identity, volumes: Sequence[Files]) -> None:
        """Replaces the content of these volumes, each at once. NotFound, Unavailable."""
        pod = self._pods.of(identity)
        group = pod.kept.order.fs_group if pod is not None and pod.kept is not None else None
        await self._hosting.update_files(identity, volumes, group)
