"""What a backend is to the provider: one narrow protocol, and abilities that some have besides.

An adapter holds no record of its own: whatever it must know after a restart it reads back from its
cloud. All calls are idempotent and may be repeated after a lost answer. They raise only the errors
of `bridge.errors`.

A module `adapters/<type>.py` (dashes as underscores) is found by its name. It defines `Adapter`, a
class of this protocol, made as `Adapter(name, options)` with `options` an instance of the module's
`Options` (a pydantic model; leave it out where there are none). Making one does no I/O; `open`
does. Where the options choose between several classes, the module has `make(name, options)` as
well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Protocol, runtime_checkable

from bridge.errors import Violation
from bridge.workload import Container, Files, Identity, Observed, Workload


class Level(StrEnum):
    """How well a backend does what a field asks for."""

    SUPPORTED = "supported"
    APPROXIMATED = "approximated"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Support:
    """How well a backend does one field, and for all but supported ones why: words for people."""

    level: Level
    words: str = ""


YES = Support(Level.SUPPORTED)


def approximately(words: str) -> Support:
    """The field means a little less here; `words` say what, in one clause."""
    return Support(Level.APPROXIMATED, words)


def no(words: str) -> Support:
    """The field cannot be done here; `words` say why, in one clause."""
    return Support(Level.UNSUPPORTED, words)


@dataclass(frozen=True, slots=True)
class Rate:
    """A documented limit of an API family: a bucket of `burst` calls refilled `per_second`."""

    per_second: float
    burst: float
    share: float = 0.8
    """The part of it that we use: others share the account."""


@runtime_checkable
class Adapter(Protocol):
    """A backend that runs workloads."""

    type: ClassVar[str]
    """The type's name, as people write it: `process`, `cloud-run`."""
    simulated: ClassVar[bool]
    """Nothing real runs or is billed."""
    capabilities: ClassVar[Mapping[str, Support]]
    """How well it does each field of a pod: by field path (`spec.containers[].command`); an entry
    for an object covers what is below it, the longest entry wins."""
    rates: ClassVar[Mapping[str, Rate]]
    """Its API families (`run`, `list`, `stop`, `delete`) that have a documented limit."""
    name: str
    """The configured backend's name."""

    async def open(self) -> None:
        """Connects, and reads what the account allows. Unauthorized, Unavailable."""

    async def close(self) -> None:
        """Lets go of connections and files. What runs goes on running."""

    def check(self, workload: Workload) -> Sequence[Violation]:
        """What of this workload cannot be done for a reason that no table of fields can say.

        Pure but for looking at the host itself. Fields are named as in the pod's manifest.
        """

    async def run(self, workload: Workload) -> None:
        """Makes the workload exist; if it already does (same key), nothing more.

        Where the adapter is also `Containers` this makes what the containers share, and starts
        none. Returns before anything runs. A key that was deleted may be run again.
        """

    async def list(self) -> Sequence[Observed]:
        """Everything here that carries this project's ownership, ended or not: all, or an error."""

    async def stop(self, identity: Identity, grace: float) -> None:
        """Begins to end it: stop signal, `grace` seconds, kill; returns at once. What ended stays
        readable. Again with a shorter grace brings the kill forward. Unknown: nothing to do."""

    async def delete(self, identity: Identity) -> None:
        """Removes all that is left of it, killing what runs; returns when that is confirmed.
        Unknown: nothing to do."""


@runtime_checkable
class Containers(Protocol):
    """Starts and stops each container by itself: then the provider orders and restarts them."""

    async def start(self, workload: Workload, container: str, restart: int) -> None:
        """Starts run number `restart` of a container; if that run exists, nothing more.

        A command that cannot be started is no error here: that run ends with StartError.
        """

    async def kill(self, identity: Identity, container: str, grace: float) -> None:
        """Begins to end one container: stop signal, `grace` seconds, kill; returns at once."""


@runtime_checkable
class FillsIn(Protocol):
    """Launches a pod whole, with something in its containers that knows the pod's addresses: it is
    given markers (`bridge.workload.LATE`) for them."""

    fills_in: ClassVar[bool]
    """True."""


@runtime_checkable
class Acts(Protocol):
    """Does things by itself while it is open: launches anew what never started, tidies up."""

    def only_look(self) -> None:
        """Before it is opened: it is to change nothing, for whoever opens it only asks."""


@runtime_checkable
class Sandboxes(Protocol):
    """Holds something for a pod besides its containers: an address, namespaces, ports of a host,
    files that only containers read."""

    async def stop_sandbox(self, identity: Identity) -> None:
        """Lets go of it, since the pod has ended and its end is known; its logs stay until the
        deletion (CRI's StopPodSandbox). Again, or unknown: nothing to do."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of a container's log. Times are seconds since the epoch."""

    follow: bool = False
    """Go on until the container's run has ended and its last byte was read."""
    previous: bool = False
    since: float | None = None
    timestamps: bool = False
    """RFC 3339 with nanoseconds and a space before each line."""
    tail_lines: int | None = None
    limit_bytes: int | None = None
    stream: str = ""
    """"stdout" or "stderr"; empty: both, in the order in which they were written."""


@runtime_checkable
class Logs(Protocol):
    """Has its containers' logs."""

    def logs(self, identity: Identity, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """The bytes, in pieces of at most 32 KiB. NotFound where there is no such run."""


@runtime_checkable
class Events(Protocol):
    """Says sooner than the next list that something has changed."""

    def events(self) -> AsyncIterator[Observed]:
        """Workloads, whole, as they change. A hint: it may miss some; the list is the truth."""


@runtime_checkable
class Updates(Protocol):
    """Can change the files of a volume while the pod runs."""

    async def update_files(self, identity: Identity, volumes: Sequence[Files]) -> None:
        """Replaces the content of these volumes, each at once. NotFound."""


@runtime_checkable
class Resizes(Protocol):
    """Can change what a container may use while it runs."""

    async def resize(self, identity: Identity, container: Container) -> None:
        """Puts the container's resources in force. Again with the same: nothing more. NotFound:
        it does not run; Invalid: the kernel refuses this size."""


@dataclass(frozen=True, slots=True)
class Size:
    """A terminal's size in characters."""

    width: int
    height: int


class Channel(Protocol):
    """A process's streams, or one connection. Reading nothing must block the writer, not memory.

    A connection's bytes are its "stdout"; `close_input` closes its other half. A channel whose
    other end breaks raises Unavailable from `read` and `write`. Reading, writing and resizing may
    go on at once, each in a task of its own.
    """

    async def read(self) -> tuple[str, bytes]:
        """The next bytes: ("stdout" or "stderr", at most 32 KiB); ("", b"") at the end."""

    async def write(self, data: bytes) -> None:
        """Bytes for stdin; returns when they were taken. What a process that has closed its stdin
        does not want is dropped."""

    async def close_input(self) -> None:
        """No more stdin."""

    async def resize(self, size: Size) -> None:
        """The terminal's size has changed."""

    async def wait(self) -> int:
        """The exit code, or 128 + signal, after the last byte; of a connection 0."""

    async def close(self) -> None:
        """Lets go; a process that was started for this channel is ended. May be repeated."""


@runtime_checkable
class Exec(Protocol):
    """Runs commands in containers."""

    async def exec(
        self, identity: Identity, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Channel:
        """Starts a command. NotFound; Invalid with the reason where it cannot be started."""


@runtime_checkable
class Attach(Protocol):
    """Joins the streams of a container's own process."""

    async def attach(self, identity: Identity, container: str, *, stdin: bool) -> Channel:
        """Joins what it writes from now on. NotFound: it does not run."""


@runtime_checkable
class Dial(Protocol):
    """Connects to ports of a pod."""

    async def dial(self, identity: Identity, port: int, *, inside: bool) -> Channel:
        """One TCP connection: `inside` to the pod's own localhost, as port-forward means it, else
        to the pod's address, as a probe does. NotFound; Unavailable: nothing answers there."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one container uses. None: unknown."""

    container: str
    time: float
    cpu_nanoseconds: int | None = None
    """Since it started."""
    memory_bytes: int | None = None


@runtime_checkable
class Stats(Protocol):
    """Knows what its containers use."""

    async def stats(self, identities: Sequence[Identity]) -> Mapping[str, Sequence[Usage]]:
        """By pod UID; pods whose usage is not known are left out."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What one pod costs at a backend, in US dollars, at list prices.

    Sizes by Kubernetes' resource names: cpu in millicores, memory and ephemeral-storage in bytes.
    """

    account: str
    region: str
    requested: Mapping[str, int]
    billed: Mapping[str, int]
    """What the backend makes of that: its own sizes, rounded up."""
    hourly: Decimal | None
    """While it runs; None: the price is not known."""
    priced_on: date | None = None
    """When the price was read."""
    source: str = ""
    """Where: an address that people can look at."""
    least: float = 0.0
    """Seconds that are billed at least."""
    around: float = 0.0
    """Seconds beside those in which containers run that may be billed at most: images' download."""
    spot: bool = False
    """It may be taken away, and its price changes."""
    words: str = ""
    """What else makes up the price, or why it is not known: "Linux/ARM64, a public address"."""


@runtime_checkable
class Priced(Protocol):
    """Bills for what runs there. A backend without this ability is free to whoever uses it."""

    def quote(self, workload: Workload) -> Quote:
        """What the pod would cost. Once the adapter is open; asks nobody."""

    async def refresh_prices(self) -> str:
        """Reads today's prices from the cloud and keeps them in the user's cache; what was read, in
        words. Unauthorized, Unavailable."""


class Severity(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    """It works, and should be mended."""
    PROBLEM = "problem"
    """Pods cannot run, or something of them is lost."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at in an account."""

    severity: Severity
    subject: str
    """What it is about: `subnet subnet-0123`, `permissions`."""
    message: str
    remedy: str = ""
    """What mends it, to be copied: a command, or an IAM statement."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What an account has for a backend of one type: `podbridge init` makes a configuration of it.

    The module of such a type has `CLOUD`, the word that people type, and a coroutine function
    `survey(region, endpoint)` that reads and changes nothing. Empty arguments: the SDK's own.
    """

    who: str
    """Whose account, and by which identity it was read."""
    settings: Sequence[tuple[str, Any, str]]
    """(key of the backend, value, why: a comment), in the order in which they are written."""
    missing: Sequence[Finding] = ()
    """What is not there, each with what makes it."""
    complete: bool = True
    """Whether the settings hold once what is missing is made: False where its ID is known only
    then."""


@runtime_checkable
class Verifies(Protocol):
    """Can say beforehand what of its account would stand in a pod's way."""

    async def verify(self) -> Sequence[Finding]:
        """Looks at everything that pods need, and changes nothing. Takes no `open`: what keeps it
        from opening is among what is found. Unauthorized, Unavailable: nothing can be looked at."""


ABILITIES: Mapping[str, type] = {
    "attach": Attach,
    "dial": Dial,
    "events": Events,
    "exec": Exec,
    "logs": Logs,
    "stats": Stats,
}
"""The optional abilities by the names that the contract gives them."""


def abilities(adapter: Adapter) -> list[str]:
    """The names of the optional abilities that an adapter has."""
    return [name for name, protocol in ABILITIES.items() if isinstance(adapter, protocol)]
