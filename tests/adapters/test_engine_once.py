"""`engine`: each run happens once, whatever is lost sight of meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from contract import container, exit_of, log, until, workload
from engine_kit import EngineBench, engine_address, image  # noqa: F401 - the fixture `image`

from bridge.workload import Exit

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench() -> AsyncIterator[EngineBench]:
    made = EngineBench(engine_address())
    yield made
    await made.close()


async def test_what_another_process_ran_is_not_run_again(bench: EngineBench) -> None:
    """The other has seen the pod without its container, and cannot make that under its name."""
    one, other = await bench.adapter(), await bench.adapter()
    pod = workload(container("sh", "-c", "echo ran; exit 3"))
    await one.run(pod)
    assert await other.look(pod.identity) is not None
    await one.start(pod, "main", 0)
    end = await exit_of(one, pod.identity)
    await other.start(pod, "main", 0)
    assert await exit_of(other, pod.identity) == end
    assert await log(other, pod.identity) == b"ran\n"


async def test_a_list_that_is_older_than_a_pod_makes_nobody_forget_it(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = await bench.adapter()
    asked, may_go_on = asyncio.Event(), asyncio.Event()
    call = adapter.client.call

    async def slow(method: str, path: str, **more: Any) -> Any:
        said = await call(method, path, **more)
        if path == "volumes":
            # The last that a list asks for.
            asked.set()
            await may_go_on.wait()
        return said

    with monkeypatch.context() as patched:
        patched.setattr(adapter.client, "call", slow)
        listing = asyncio.create_task(adapter.list())
        await asked.wait()
    first = container("sleep", "1000", name="first")
    pod = workload(first, container("true", name="second"))
    await adapter.run(pod)
    await adapter.start(pod, "first", 0)
    await adapter.stop(pod.identity, 0)
    may_go_on.set()
    assert await listing == []
    assert adapter.sight.known() == set(await bench.containers(pod.identity))
    seen = await until(adapter, pod.identity, lambda one: one.ended)
    state = seen.container("first")
    assert state is not None
    assert isinstance(state.state, Exit)
