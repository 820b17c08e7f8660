from __future__ import annotations

import json
from typing import Any

from view_kit import (
    SYNCED,
    Clock,
    a_failed_run,
    a_job,
    a_pod,
    added,
    ended,
    modified,
    running,
    stream,
    text_of,
)

from bridge.agent.loop import ProviderNote
from bridge.cli.view.closing import gather
from bridge.cli.view.json import JsonView
from bridge.local.store import Change

TIME = "2023-11-14T22:13:20.000Z"


def a_view() -> tuple[JsonView, Any]:
    out = stream()
    view = JsonView(out, stream(), "r", clock=Clock())
    view.change(SYNCED)

    def events() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in text_of(out).splitlines()]
        for line in lines:
            assert line.pop("time") == TIME
            assert line.pop("run") == "r"
        return lines

    return view, events


async def test_a_pod_from_start_to_end() -> None:
    view, events = a_view()
    for state in (None, running(), ended(3)):
        view.change(modified(a_pod("a", state)))
    view.log(a_pod("a"), "main", b"one\n\xff two\nlast")
    view.note(ProviderNote("back", adopted=1))
    view.say("hello")
    await view.finish(await gather(view.model, "r", 1, 2.0))
    assert events() == [
        {
            "type": "pod",
            "pod": "a",
            "phase": "Pending",
            "reason": "starting",
            "backend": "process",
        },
        {
            "type": "container",
            "pod": "a",
            "container": "main",
            "phase": "Pending",
            "reason": "ContainerCreating",
        },
        {"type": "pod", "pod": "a", "phase": "Running", "backend": "process"},
        {"type": "container", "pod": "a", "container": "main", "phase": "Running"},
        {"type": "pod", "pod": "a", "phase": "Failed", "exitCode": 3, "backend": "process"},
        {
            "type": "container",
            "pod": "a",
            "container": "main",
            "phase": "Terminated",
            "reason": "Error",
            "exitCode": 3,
        },
        {"type": "log", "pod": "a", "container": "main", "log": "one"},
        {"type": "log", "pod": "a", "container": "main", "log": "\ufffd two"},
        {"type": "log", "pod": "a", "container": "main", "log": "last"},
        {"type": "provider", "phase": "Back", "message": "provider back: adopted 1 pod"},
        {"type": "run", "message": "hello"},
        {
            "type": "pod",
            "pod": "a",
            "container": "main",
            "phase": "Failed",
            "reason": "Error",
            "message": "exit code 3",
            "exitCode": 3,
        },
        {
            "type": "result",
            "phase": "Failed",
            "message": "r: failed in 2 s (exit code 3, 1 failed)",
            "exitCode": 1,
        },
    ]


def test_a_job_and_the_run_itself() -> None:
    view, events = a_view()
    view.change(added(a_job()))
    view.change(modified(a_job()))
    view.change(modified(a_job(ended_as=("Complete", "CompletionsReached", "ok"), succeeded=3)))
    view.change(Change("MODIFIED", "Run", {"name": "r", "phase": "Deleting"}))
    assert events() == [
        {"type": "job", "job": "wordcount", "phase": "Running", "message": "0/3 done"},
        {
            "type": "job",
            "job": "wordcount",
            "phase": "Complete",
            "reason": "CompletionsReached",
            "message": "ok; 3/3 done",
        },
        {"type": "run", "phase": "Deleting"},
    ]


async def test_the_last_line_is_the_result_and_no_secret_is_told() -> None:
    view, events = a_view()
    for one in a_failed_run():
        view.change(added(one))
    await view.finish(await gather(view.model, "r", 1, 2.0))
    made = events()
    assert (made[-1]["type"], made[-1]["exitCode"]) == ("result", 1)
    assert "hunter2" not in json.dumps(made)
