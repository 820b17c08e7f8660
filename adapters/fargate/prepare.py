"""What a pod needs in AWS before its task: logins, a definition, payloads; and the order that names
them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from adapters.fargate import choose, definition
from adapters.fargate.definition import Choices
from adapters.fargate.definitions import Definitions
from adapters.fargate.logins import Logins
from adapters.fargate.options import Options
from adapters.fargate.order import Order
from adapters.fargate.pods import Pod
from adapters.fargate.store import Store
from bridge.errors import Unsupported
from bridge.groups import prepare
from bridge.groups.choose import architecture, is_spot
from bridge.groups.pods import Made

_T = TypeVar("_T")


class Preparation:
    """Prepares pods of one backend. `secret`: keys the names of logins. `clock`: AWS's."""

    def __init__(
        self,
        *,
        options: Options,
        preparation: prepare.Preparation,
        store: Store,
        definitions: Definitions,
        logins: Logins,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._options = options
        self._preparation = preparation
        self._store = store
        self._definitions = definitions
        self._logins = logins
        self.region = ""
        self.secret = b""

    async def order(self, pod: Pod) -> Order:
        """Everything but the task. May be repeated. Errors as of AWS and of registries; Invalid and
        Unsupported: it will never do."""
        assert pod.workload is not None
        machine = architecture(pod.workload, self._options.architecture)
        ready = await self._preparation.prepared(pod, machine)
        workload, made, wrapped = ready.workload, ready.made, ready.wrapped
        logins = await self._logins.needed(workload, ready.images, pod.mark, self.secret)
        pod.logins = tuple(sorted(set(logins.values())))
        launch = definition.launch(
            made,
            pod.mark,
            self._options,
            Choices(
                size=_known(choose.size(workload, wrapped=wrapped)),
                storage=_known(choose.disk(workload)),
                architecture=machine,
                images=ready.images,
                logins=logins,
                region=self.region,
            ),
        )
        pod.payloads = tuple(launch.payloads)
        await self._store.put_payloads(launch.payloads)
        given = choose.given(workload, self._options)
        return Order(
            workload.identity,
            accepted_at=self._clock(),
            containers=Made.all_of(made),
            definition=await self._definitions.arn(launch.definition),
            overrides=launch.overrides,
            spot=is_spot(workload, self._options.capacity),
            task_role=given.task_role,
            subnets=_from(given.subnets, pod.mark),
            security_groups=given.security_groups,
            hard_stop=ready.hard_stop,
            fs_group=ready.fs_group,
            payloads=pod.payloads,
            logins=pod.logins,
            execute_command=choose.takes_commands(given, self._options, wrapped=wrapped),
        )


def _known(found: _T | None) -> _T:
    if found is None:
        raise Unsupported("no task is large enough")
    return found


def _from(subnets: tuple[str, ...], mark: str) -> tuple[str, ...]:
    """In another order for each pod, so that all are used alike."""
    at = sum(mark.encode()) % len(subnets)
    return subnets[at:] + subnets[:at]
