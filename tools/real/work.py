"""What is run on an account, and how much of it at most.

A bare task has no hard stop but the provider's: so each container that has started ends by itself,
whatever becomes of whoever started it. One whose image is never pulled does not.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

from bridge.workload import Container, Identity, RestartPolicy, Role, Workload

IMAGE = "public.ecr.aws/docker/library/busybox:1.37"
"""Every account can pull it, without a login."""
LIFE = 900
"""Seconds from its start after which every container has ended by itself."""
GRACE = 30.0
"""Seconds that its stop may take, the default of a pod."""
TASKS: Mapping[str, int] = {
    "test_has_the_protocols_shape": 0,
    "test_an_empty_place_lists_nothing": 0,
    "test_nothing_to_do_for_unknown_pods": 0,
    "test_vanishes_remotely": 0,
    "test_attempts_are_apart": 2,
    "test_a_deleted_key_may_run_again": 2,
    "test_restart_midway": 2,
    "test_lists_are_stable": 5,
    "test_slow_lists_lose_nothing": 20,
}
"""How many tasks a test of the suite starts; one that is not here starts one."""


def most(tests: Iterable[str]) -> int:
    """How many tasks those tests start at most: a task that ends before anything ran is launched
    anew, and each test that starts any may do so once. `test_x[3]` is a test, too."""
    counts = [TASKS.get(one.partition("[")[0], 1) for one in tests]
    return sum(one + 1 for one in counts if one)


def command() -> tuple[str, ...]:
    """Runs until it is stopped, at most `LIFE`: a first process has to catch SIGTERM to end by
    it."""
    return ("sh", "-c", f'trap "exit 143" TERM; sleep {LIFE} & wait')


def endless(image: str) -> Workload:
    """A pod of that."""
    who = Identity(str(uuid.uuid4()), "node", "default", "price", str(uuid.uuid4()), 0)
    one = Container("main", Role.MAIN, image, command=command(), restart_policy=RestartPolicy.NEVER)
    return Workload(who, (one,), restart_policy=RestartPolicy.NEVER)
