"""Logs: the bytes that containers wrote, and which of them are asked for."""

from __future__ import annotations

import re

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.conformance.kit import STDERR, STDOUT, Kit, of
from bridge.conformance.model import Broken, Skipped, expect
from bridge.conformance.pods import Pod, words
from bridge.conformance.register import check
from bridge.errors import BridgeError, Invalid, NotFound

_SECTION = "Logs"
_BYTES = "A container's log, as bytes that the container wrote."
_PARTS = "Options choose a part of the log, as kubectl's have it."
_BEFORE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d) "


async def _ran(kit: Kit, script: str) -> Pod:
    """A pod that ran that script to its end."""
    pod = kit.pod(script)
    await kit.create(pod)
    facts = await kit.ended(pod)
    expect(of(facts).terminated.exit_code == 0, "the script ends with 0", words(facts))
    return pod


@check(
    "logs.bytes", "gives every byte as it was written", section=_SECTION, rule=_BYTES, needs="logs"
)
async def exact(kit: Kit) -> None:
    """Zeros, bytes that are no UTF-8, carriage returns, and no newline at the end."""
    pod = await _ran(kit, r"printf 'a\000b\377\n\r\nlast'")
    found, wrote = await kit.log(pod), b"a\x00b\xff\n\r\nlast"
    expect(found == wrote, repr(wrote), repr(found[:200]))


@check(
    "logs.empty",
    "gives an empty log of what wrote nothing",
    section=_SECTION,
    rule=_BYTES,
    needs="logs",
)
async def empty(kit: Kit) -> None:
    """Not an error."""
    pod = await _ran(kit, "exit 0")
    found = await kit.log(pod)
    expect(found == b"", "no bytes", repr(found[:200]))


@check("logs.long-line", "gives a line of 1 MiB whole", section=_SECTION, rule=_BYTES, needs="logs")
async def long_line(kit: Kit) -> None:
    """And the short one behind it."""
    size = 1024 * 1024
    pod = await _ran(kit, f"head -c {size} /dev/zero | tr '\\0' x; echo; echo end")
    found = await kit.log(pod)
    whole = found == b"x" * size + b"\nend\n"
    expect(whole, f"{size} bytes, a newline, and a line", f"{len(found)} bytes: {found[-20:]!r}")


@check(
    "logs.streams",
    "tells stdout and stderr apart",
    section=_SECTION,
    rule="`stream` chooses one of both; without it both come in the order in which they were"
    " written.",
    needs="logs",
)
async def streams(kit: Kit) -> None:
    """Each alone, then both."""
    pod = await _ran(kit, "echo out; sleep 0.2; echo err >&2; sleep 0.2; echo out again")
    for stream, name, wrote in (
        (STDOUT, "stdout", b"out\nout again\n"),
        (STDERR, "stderr", b"err\n"),
        (0, "both", b"out\nerr\nout again\n"),
    ):
        try:
            found = await kit.log(pod, stream=stream)
        except BridgeError as error:
            if stream and error.kind == "Unsupported":
                raise Skipped(f"streams are not kept apart: {error.message}") from None
            raise
        expect(found == wrote, f"{name}: {wrote!r}", repr(found[:200]))


@check(
    "logs.follow",
    "follows a log to the container's last byte, and ends there",
    section=_SECTION,
    rule="With `follow` it ends after the container's last byte.",
    needs="logs",
)
async def follow(kit: Kit) -> None:
    """From the first line on, while it runs; on a busy machine once more, with a longer run: what
    comes all at once every time is not followed."""
    for pause in (2, 8, 24):
        pod = kit.pod(f"echo one; sleep {pause}; echo two; sleep 0.4; printf three")
        await kit.create(pod)
        await kit.began(pod)
        pieces = [piece async for piece in kit.log_pieces(pod, follow=True)]
        found = b"".join(pieces)
        expect(found == b"one\ntwo\nthree", repr(b"one\ntwo\nthree"), repr(found[:200]))
        if b"three" not in pieces[0]:
            return
    raise Broken("lines as they are written", "all at once, at the end")


@check("logs.tail", "gives so many lines from the end", section=_SECTION, rule=_PARTS, needs="logs")
async def tail(kit: Kit) -> None:
    """0, 2, more than there are; a last line without newline is a line."""
    pod = await _ran(kit, r"printf 'a\nb\nc\nd'")
    for lines, wrote in ((0, b""), (2, b"c\nd"), (9, b"a\nb\nc\nd")):
        found = await kit.log(pod, tail_lines=lines)
        expect(found == wrote, f"tail_lines {lines}: {wrote!r}", repr(found[:200]))


@check("logs.limit", "gives so many bytes at the most", section=_SECTION, rule=_PARTS, needs="logs")
async def limit(kit: Kit) -> None:
    """In the middle of a line."""
    pod = await _ran(kit, "echo hello; echo there")
    for size, wrote in ((8, b"hello\nth"), (100, b"hello\nthere\n")):
        found = await kit.log(pod, limit_bytes=size)
        expect(found == wrote, f"limit_bytes {size}: {wrote!r}", repr(found[:200]))


@check(
    "logs.timestamps",
    "puts a time before each line",
    section=_SECTION,
    rule="`timestamps` puts RFC 3339 with nanoseconds and a space before each line.",
    needs="logs",
)
async def timestamps(kit: Kit) -> None:
    """Two lines."""
    pod = await _ran(kit, "echo one; echo two")
    found = (await kit.log(pod, timestamps=True)).decode(errors="replace")
    fits = re.fullmatch(f"{_BEFORE}one\n{_BEFORE}two\n", found)
    expect(fits, "a time and a space before each of two lines", repr(found[:200]))


@check("logs.since", "gives only lines since a time", section=_SECTION, rule=_PARTS, needs="logs")
async def since(kit: Kit) -> None:
    """since_time between two lines, since_seconds for all, and both, which is Invalid."""
    pod = await _ran(kit, "echo early; sleep 1.2; echo late")
    stamped = (await kit.log(pod, timestamps=True)).decode(errors="replace").splitlines()
    expect(len(stamped) == 2, "two lines with their times", stamped)
    between = Timestamp()
    between.FromJsonString(stamped[1].partition(" ")[0])
    between.FromNanoseconds(between.ToNanoseconds() - 500_000_000)
    found = await kit.log(pod, since_time=between)
    expect(found == b"late\n", "since_time: the late line", repr(found[:200]))
    found = await kit.log(pod, since_seconds=3600)
    expect(found == b"early\nlate\n", "since_seconds 3600: both lines", repr(found[:200]))
    try:
        await kit.log(pod, since_seconds=5, since_time=between)
    except Invalid:
        return
    raise Broken("Invalid for since_seconds together with since_time", "a log")


@check(
    "logs.previous",
    "keeps the run before the last one",
    section=_SECTION,
    rule=_PARTS,
    needs="logs",
)
async def previous(kit: Kit) -> None:
    """Two runs that write different words, and a pod that had one."""
    pod = kit.pod("cat /proc/uptime; exit 1", restart="OnFailure")
    await kit.create(pod)
    await kit.until(
        pod,
        lambda one: (
            one.containers and of(one).restart_count >= 1 and not of(one).HasField("running")
        ),
        "the second run has ended",
    )
    before, last = await kit.log(pod, previous=True), await kit.log(pod)
    expect(before and last and before != last, "two runs' words", f"{before!r} and {last!r}")
    once = await _ran(kit, "echo once")
    try:
        found = await kit.log(once, previous=True)
    except NotFound:
        return
    raise Broken("NotFound for the previous run of a container that ran once", repr(found[:200]))


@check(
    "logs.unknown-container",
    "knows no container that the pod does not have",
    section=_SECTION,
    rule="A container that the pod does not have is NotFound.",
    needs="logs",
)
async def unknown_container(kit: Kit) -> None:
    """A made-up name."""
    pod = await _ran(kit, "echo here")
    await kit.has_no_log(pod, "made-up")


@check(
    "logs.blocked-reader",
    "is not held up by a reader that stops reading",
    section=_SECTION,
    rule="A reader that never reads costs the others nothing.",
    needs="logs",
)
async def blocked_reader(kit: Kit) -> None:
    """One reads a piece of 4 MiB and stops; another reads it all, and the pod ends."""
    size = 4 * 1024 * 1024
    pod = kit.pod(f"head -c {size} /dev/zero; sleep 4; exit 0")
    await kit.create(pod)
    await kit.began(pod)
    pieces = kit.log_pieces(pod, follow=True)
    await anext(pieces)
    await kit.ended(pod)
    found = await kit.log(pod)
    await pieces.aclose()
    expect(len(found) == size, f"{size} bytes", f"{len(found)} bytes")
