"""Feeds random and damaged bytes to what reads SPDY and WebSocket channels: `make fuzz`.

Each input goes to the frame reader (cut anywhere), to a whole SPDY session (exec and port-forward
above it), or to the channels' demultiplexers. Only `Malformed` may leave them, what they hold must
stay within the limits, and the process must not grow. The seed is printed; the same seed gives the
same inputs.

    python tools/fuzz_streams.py [--inputs 1000000] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web

from bridge.kubelet.streams import Malformed, Wanted
from bridge.kubelet.streams import websocket as wire
from bridge.kubelet.streams.command import ChannelCommand, SpdyCommand
from bridge.kubelet.streams.forward import ChannelForwarding, SpdyForwarding
from bridge.kubelet.streams.inbox import ALL_WINDOWS, WINDOW, Gate
from bridge.kubelet.streams.link import Link
from bridge.kubelet.streams.spdy import (
    MAX_CONTROL,
    Data,
    Frame,
    FrameReader,
    FrameWriter,
    GoAway,
    Headers,
    Ping,
    RstStream,
    Settings,
    SynReply,
    SynStream,
    WindowUpdate,
)

GROWTH = 64 * 1024
"""KiB that the process may grow by after its first tenth."""
BURST = 256 * 1024
"""Bytes that one call hands over at most, as asyncio's sockets do."""
FLOODS = 0.002
"""How many of the inputs are more than may wait: they take long."""
EVERYTHING = Wanted(stdin=True, stdout=True, stderr=True, tty=True)
KINDS = ("stdin", "stdout", "stderr", "error", "resize", "data", "odd", "")


class Sink(Link):
    """A link to nobody: takes what is sent, and can be given what was received."""

    def __init__(self) -> None:
        super().__init__(3600.0)
        self.held = False
        self.sent = 0
        self.receive: Callable[[bytes], None]
        self.lost: Callable[[], None]

    def start(self, receive: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """Keeps whom to hand over to."""
        self.receive, self.lost = receive, lost

    def send(self, message: bytes) -> None:
        """Counts."""
        self.sent += len(message)

    def hold(self) -> None:
        """Nothing more will be handed over."""
        self.held = True

    def go_on(self) -> None:
        """More may be handed over."""
        self.held = False

    def abort(self) -> None:
        """Ends it."""
        self._over()

    async def close(self) -> None:
        """Ends it."""
        self._over()

    def _over(self) -> None:
        if not self.gone.is_set():
            super()._over()
            self.lost()


def frames(chance: random.Random) -> list[Frame]:
    """Frames that mostly make sense together."""
    if chance.random() < FLOODS:
        return flood(chance)
    made: list[Frame] = []
    number = 1
    for _ in range(chance.randrange(1, 8)):
        stream = chance.choice((1, 3, 5, number, chance.getrandbits(31) or 1))
        fin = chance.random() < 0.2
        names = {
            "streamtype": chance.choice(KINDS),
            "port": str(chance.choice((80, 0, 65536, -1, 443))),
            "requestid": str(chance.randrange(3)),
        }
        match chance.randrange(12):
            case 0 | 1 | 2 | 3:
                made.append(SynStream(number, names, fin, chance.random() < 0.1))
                number += 2
            case 4:
                made.append(SynReply(stream, names, fin))
            case 5:
                made.append(RstStream(stream, chance.randrange(1, 12)))
            case 6:
                made.append(Settings(((chance.randrange(9), 0, chance.getrandbits(32)),)))
            case 7:
                made.append(Ping(chance.getrandbits(32) or 1))
            case 8:
                made.append(
                    GoAway(stream) if chance.random() < 0.2 else Headers(stream, names, fin)
                )
            case 9:
                made.append(WindowUpdate(stream, chance.getrandbits(31)))
            case _:
                made.append(Data(stream, content(chance), fin))
    return made


def flood(chance: random.Random) -> list[Frame]:
    """Streams that are opened well, and then more for them than may wait."""
    opened: list[Frame] = []
    for number, kind in enumerate(("error", "stdin", "stdout", "stderr", "resize", "data")):
        names = {"streamtype": kind, "port": "80", "requestid": str(number % 5)}
        opened.append(SynStream(2 * number + 1, names))
    much = bytes(100_000)
    return opened + [Data(chance.choice((3, 11)), much) for _ in range(chance.randrange(1, 30))]


def content(chance: random.Random) -> bytes:
    """What a stream may carry: a size of a terminal, a lot, or a little."""
    if chance.random() < 0.01:
        return bytes(chance.randrange(300_000))
    if chance.random() < 0.2:
        return b'{"Width":%d,"Height":24}' % chance.randrange(70_000)
    return chance.randbytes(chance.randrange(64))


def damaged(chance: random.Random, stream: bytes) -> bytes:
    """The same bytes with a few changed, cut out or put in; or only random ones."""
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(200))
    if chance.random() < 0.2 or not stream:
        return stream
    changed = bytearray(stream)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0:
                changed[at : at + 1] = chance.randbytes(1)
            case 1:
                del changed[at : at + chance.randrange(1, 9)]
            case 2:
                changed[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 3 if changed:
                at = min(at, len(changed) - 1)
                changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(chance: random.Random, stream: bytes) -> list[bytes]:
    """The same bytes in pieces, cut anywhere."""
    ends = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.randrange(4)))
    starts = [0, *ends]
    pieces = [stream[a:b] for a, b in zip(starts, [*ends, len(stream)], strict=True)]
    return [piece[at : at + BURST] for piece in pieces for at in range(0, len(piece), BURST)]


def read_frames(pieces: list[bytes]) -> None:
    """The frame reader alone."""
    reader = FrameReader()
    for piece in pieces:
        reader.feed(piece)
        while reader.next_frame() is not None:
            pass
        require(len(reader._buffer) <= MAX_CONTROL + 8, "the frame reader holds too much")


def run_session(pieces: list[bytes], *, forward: bool, version: int) -> None:
    """A session with an exec, or a port-forward, above it."""
    link = Sink()
    over: SpdyForwarding | SpdyCommand
    if forward:
        over = SpdyForwarding(web.StreamResponse(), link, 30.0)
    else:
        over = SpdyCommand(web.StreamResponse(), link, EVERYTHING, version)
    over._session.start()
    feed(link, over.gate, pieces)


def run_channels(chance: random.Random, messages: list[bytes]) -> None:
    """An exec, or a port-forward, over WebSocket channels."""
    link = Sink()
    forward = chance.random() < 0.5
    protocol = chance.choice(wire.FORWARD if forward else wire.COMMAND)
    # These take what a WebSocketLink does; this one has no socket.
    typed = cast(Any, link)
    if forward:
        over: Any = ChannelForwarding(web.StreamResponse(), typed, protocol, [80, 443])
    else:
        over = ChannelCommand(web.StreamResponse(), typed, EVERYTHING, protocol)
    over.open()
    feed(link, over.gate, messages)


def feed(link: Sink, gate: Gate, pieces: list[bytes]) -> None:
    """Hands over until it is held, as a socket does, and looks at what waits."""
    largest = 0
    try:
        for piece in pieces:
            if link.held or link.gone.is_set():
                break
            link.receive(piece)
            largest = max(largest, len(piece))
            require(gate.waiting <= ALL_WINDOWS + largest, "a connection holds too much")
            require(gate.waiting <= WINDOW + largest or link.held, "a full connection is not held")
    finally:
        link.abort()


def messages(chance: random.Random) -> list[bytes]:
    """Messages of the channel protocols, some damaged."""
    if chance.random() < FLOODS:
        return [b"\0" + bytes(100_000)] * chance.randrange(1, 30)
    made = []
    for _ in range(chance.randrange(1, 6)):
        protocol = chance.choice(wire.COMMAND)
        message = wire.encode(protocol, chance.choice((0, 0, 0, 1, 3, 4, 4, 9)), content(chance))
        if chance.random() < 0.1:
            message = b"\xff" + chance.randbytes(chance.randrange(3))
        made.append(damaged(chance, message))
    return made


def one(chance: random.Random) -> str:
    """One input; how it ended."""
    kind = chance.choice(("frames", "session", "session", "channels"))
    try:
        if kind == "channels":
            run_channels(chance, messages(chance))
        else:
            writer = FrameWriter()
            stream = b"".join(map(writer.encode, frames(chance)))
            pieces = cut(chance, damaged(chance, stream))
            if kind == "frames":
                read_frames(pieces)
            else:
                forward = chance.random() < 0.5
                run_session(pieces, forward=forward, version=chance.randrange(1, 5))
    except Malformed:
        return f"{kind}: malformed"
    return f"{kind}: taken"


def require(true: bool, words: str) -> None:
    """An assertion that `python -O` keeps."""
    if not true:
        raise AssertionError(words)


def peak() -> int:
    """KiB of memory that the process had at the most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def fuzz(inputs: int, seed: int) -> int:
    """0: all is well; 1: an input broke something, and is named."""
    chance = random.Random(seed)
    ends: Counter[str] = Counter()
    began = time.perf_counter()
    early = peak()
    for number in range(inputs):
        state = chance.getrandbits(64)
        try:
            ends[one(random.Random(state))] += 1
        except Exception as error:  # noqa: BLE001 (whatever it is, it is what we look for)
            print(f"input {number} (state {state}): {type(error).__name__}: {error}")
            return 1
        if number == inputs // 10:
            gc.collect()
            early = peak()
        if number % 1000 == 0:
            # Timers that were cancelled are thrown away by the loop.
            await asyncio.sleep(0)
    took = time.perf_counter() - began
    grown = peak() - early
    for end, count in sorted(ends.items()):
        print(f"{count:>10}  {end}")
    print(f"{inputs} inputs in {took:.1f} s: {inputs / took:.0f}/s; grown by {grown} KiB")
    if grown > GROWTH:
        print(f"that is more than {GROWTH} KiB")
        return 1
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fuzzes SPDY and the WebSocket channels.")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    return asyncio.run(fuzz(options.inputs, options.seed))


if __name__ == "__main__":
    sys.exit(main())
