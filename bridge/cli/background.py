"""Leaving a run to a process of its own in the background."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from bridge.cli.interruption import hold
from bridge.errors import Unavailable


def leave_to_background(log: Path, work: Callable[[], int], ready: Callable[[], bool]) -> None:
    """Runs `work` in a process of its own session, whose words go to `log`.

    `ready` is called there first and says whether the work can begin; this call returns once it
    has. Unavailable where it cannot, and then it does not. Must be called before any thread or
    event loop is started.
    """
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read(1)
        os.wait()
        if answer != b"1":
            raise Unavailable(f"the process in the background could not begin; see {log}")
        return
    os.close(reading)
    os.setsid()
    # The second fork leaves no child of ours behind, and no session leader that could get a
    # terminal again.
    if os.fork():
        os._exit(0)
    code = 1
    try:
        hold()
        _redirect(log)
        if may_begin := ready():
            os.write(writing, b"1")
        os.close(writing)
        if may_begin:
            code = work()
    except BaseException:  # noqa: BLE001 - the last frame of a process without a parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ask_apart(question: Callable[[], bool]) -> bool | None:
    """The answer that a process of its own finds, so that this one stays without threads and event
    loops and can still leave work to the background. None: it could not find any."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read(1)
        os.waitpid(child, 0)
        return answer == b"1" if answer else None
    try:
        os.write(writing, b"1" if question() else b"0")
    except BaseException:  # noqa: BLE001, S110 - whoever asks again says what is wrong
        pass
    finally:
        os._exit(0)


def _redirect(log: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(null)
    os.close(out)
