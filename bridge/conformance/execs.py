"""Exec: streams, codes, terminals and credits."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial

from bridge.conformance.kit import STDERR, STDOUT, Kit
from bridge.conformance.model import Broken, Skipped, expect
from bridge.conformance.pods import ENDLESS, Pod
from bridge.conformance.register import check
from bridge.conformance.sessions import FIRST_CREDIT, Held, execute, exit_code, start_exec
from bridge.rpc.v1 import stream_pb2 as sp

_SECTION = "Streams"
_RUNS = "Exec runs a command in a container."
_QUIET = 0.5
"""Seconds after which a provider that was granted nothing is believed to send nothing."""


async def _up(kit: Kit) -> Pod:
    pod = kit.pod(ENDLESS)
    await kit.create(pod)
    await kit.running(pod)
    return pod


@check(
    "exec.exit-code",
    "tells a command's exit code",
    section=_SECTION,
    rule="`exit` holds the process's exit code, or 128 + signal.",
    needs="exec",
)
async def code(kit: Kit) -> None:
    """0, 7, and one that a signal makes."""
    pod = await _up(kit)
    for script, expected in (("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)):
        held = await execute(kit, pod, script)
        expect(exit_code(held) == expected, f"exit code {expected}", held.exit or held.refused)


@check(
    "exec.streams",
    "keeps stdout and stderr apart",
    section=_SECTION,
    rule="Each message of data says its stream; stdout and stderr are apart but for a terminal.",
    needs="exec",
)
async def streams(kit: Kit) -> None:
    """Bytes of both, and only one of both."""
    pod = await _up(kit)
    script = r"printf 'o\000\377'; printf 'e\001' >&2"
    held = await execute(kit, pod, script)
    found = {"stdout": held.of(STDOUT), "stderr": held.of(STDERR)}
    wrote = {"stdout": b"o\x00\xff", "stderr": b"e\x01"}
    expect(found == wrote, str(wrote), found)
    held = await execute(kit, pod, script, stderr=False)
    expect(not held.of(STDERR), "no stderr where none is asked for", held.of(STDERR)[:50])
    expect(held.of(STDOUT) == b"o\x00\xff", "stdout", held.of(STDOUT)[:50])


@check(
    "exec.stdin",
    "brings stdin to the process, and its end",
    section=_SECTION,
    rule="A sender starts with 256 KiB of credit on each stream and may send no more than it was"
    " granted; who reads grants more before less than a frame's credit is left.",
    needs="exec",
)
async def stdin(kit: Kit) -> None:
    """A megabyte there and back."""
    pod = await _up(kit)
    sent = hashlib.sha512(b"conformance").digest() * 16 * 1024
    held = await execute(kit, pod, "cat", stdin=sent)
    same = held.of(STDOUT) == sent
    expect(same, f"{len(sent)} bytes back", f"{len(held.of(STDOUT))} bytes, or others")
    expect(exit_code(held) == 0, "exit code 0 after the end of stdin", held.exit or held.refused)


@check(
    "exec.exit-last",
    "sends the exit after the last byte",
    section=_SECTION,
    rule="The exit is always the last message, after the last byte.",
    needs="exec",
)
async def exit_last(kit: Kit) -> None:
    """3 MiB, and then a code; some times over."""
    pod = await _up(kit)
    size = 3 * 1024 * 1024
    for _ in range(3):
        held = await execute(kit, pod, f"head -c {size} /dev/zero; exit 5")
        brought = len(held.of(STDOUT))
        expect(brought == size, f"{size} bytes before the exit", f"{brought} bytes")
        expect(exit_code(held) == 5, "exit code 5", held.exit or held.refused)


@check(
    "exec.credits",
    "sends no more than it was granted",
    section=_SECTION,
    rule="A sender starts with 256 KiB of credit on each stream and may send no more than it was"
    " granted; a data frame holds at most 32 KiB.",
    needs="exec",
)
async def credits_(kit: Kit) -> None:
    """A megabyte that nobody reads; then stderr, which has credit of its own; then all of it."""
    pod = await _up(kit)
    size = 1024 * 1024
    script = f"echo first >&2; head -c {size} /dev/zero; exit 4"
    session = await start_exec(kit, pod, "sh", "-c", script, grants=False)
    try:
        await session.until(
            lambda held: len(held.of(STDOUT)) >= FIRST_CREDIT and held.of(STDERR),
            f"{FIRST_CREDIT} bytes of stdout, and stderr beside them",
        )
        await asyncio.sleep(_QUIET)
        brought = len(session.held.of(STDOUT))
        expect(brought == FIRST_CREDIT, f"{FIRST_CREDIT} bytes without more credit", brought)
        await session.grant(STDOUT, FIRST_CREDIT)
        held = await session.end()
    finally:
        await session.close()
    expect(len(held.of(STDOUT)) == size, f"{size} bytes in the end", len(held.of(STDOUT)))
    expect(exit_code(held) == 4, "exit code 4", held.exit or held.refused)


@check(
    "exec.resize",
    "resizes a terminal, also while its output is blocked",
    section=_SECTION,
    rule="Data that nobody reads never delays a resize, a close or an exit.",
    needs="exec",
)
async def resize(kit: Kit) -> None:
    """A terminal that says its size for ever."""
    pod = await _up(kit)
    script = "while :; do stty size || exit 99; sleep 0.05; done"
    wants = sp.ExecStart(stdin=True, stdout=True, tty=True)
    session = await start_exec(kit, pod, "sh", "-c", script, wants=wants)
    try:
        for height, width in ((41, 97), (20, 60)):
            await session.write(resize=sp.TerminalSize(width=width, height=height))
            size = f"{height} {width}".encode()
            await session.until(partial(_says, size), f"the terminal's size {height} {width}")
            if exit_code(session.held) == 99:
                if b"not found" in session.held.of(STDOUT):
                    raise Skipped("the image has no stty")
                raise Broken("a terminal", session.held.of(STDOUT)[:100].decode(errors="replace"))
        expect(not session.held.of(STDERR), "no stderr with a terminal", session.words())
    finally:
        await session.close()


def _says(size: bytes, held: Held) -> bool:
    """Whether the script has said that size, or cannot."""
    return size in held.of(STDOUT) or exit_code(held) == 99


@check(
    "exec.unknown-container",
    "runs nothing in a container that the pod does not have",
    section=_SECTION,
    rule="A container that the pod does not have is NotFound.",
    needs="exec",
)
async def unknown_container(kit: Kit) -> None:
    """A made-up name."""
    pod = await _up(kit)
    session = await start_exec(kit, pod, "true", container="made-up")
    try:
        held = await session.end()
    finally:
        await session.close()
    missed = held.refused is not None and held.refused.code == "NOT_FOUND"
    if held.exit is not None:
        missed = exit_code(held) is None and bool(held.exit.error)
    expect(missed, "NotFound", held.exit or held.refused or "the end of the stream")


@check(
    "exec.bad-command",
    "says why a command cannot be started",
    section=_SECTION,
    rule="Where the process could not be started `exit` has no code, and says why.",
    needs="exec",
)
async def bad_command(kit: Kit) -> None:
    """A program that is nowhere."""
    pod = await _up(kit)
    session = await start_exec(kit, pod, "/no/such/program")
    try:
        held = await session.end()
    finally:
        await session.close()
    told = held.refused is not None or exit_code(held) in (126, 127, 128)
    told = told or (held.exit is not None and bool(held.exit.error))
    expect(told, "why it could not be started", held.exit or "the end of the stream")
