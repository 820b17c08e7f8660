"""Runs on disk: what is wanted, and what cannot change any more. The truth about the rest is in the
backends.

`<state>/runs/<name>/` holds `run.json` (what was asked for), `prices.json` (what a pod costs an
hour, where that is not free), `ended.jsonl` (pods that were deleted on purpose and must never run
again), `end.json` (how it stood when it was over), `deleting` (its
deletion was ordered), `lock` (held by the process that attends it) and `control.sock` (where that
process listens).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bridge.cost.tariff import FREE, Tariff
from bridge.errors import Invalid, NotFound, Violation
from bridge.pods import Manifest

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_FLOCK = "hhqqi4x"
"""`struct flock` of fcntl(2): type, whence, start, length, pid."""
_LOCK = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
"""The whole file, for one open file description: it goes with the last process that has it open."""
_GONE = ".gone"
"""Ends the hidden name of a run that was forgotten and is being removed."""


def state_dir() -> Path:
    """`$XDG_STATE_HOME/podbridge`, by default `~/.local/state/podbridge`."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "podbridge"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run is asked to do. `objects` are checked and defaulted, Secrets among them, so the
    file is readable by its owner only."""

    name: str
    uid: str
    created: float
    objects: Sequence[Manifest] = field(repr=False)
    options: dict[str, Any] = field(default_factory=dict)
    """Where its pods go: `provider`, `backends`, `max_run`, `config` (`Target.remember`)."""

    @property
    def digest(self) -> str:
        """`digest` of what is wanted."""
        return digest(self.objects, self.options)


def require_private(folder: Path) -> None:
    """Invalid where that folder exists and others could have put there what is in it."""
    try:
        about = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if about.st_uid != os.geteuid():
        raise Invalid(f"{folder}: belongs to user {about.st_uid}, not to you: chown or remove it")
    if about.st_mode & 0o022:
        words = "other users can write to it, so what it holds may be theirs"
        raise Invalid(f"{folder}: {words}: chmod go-w it, or remove it")


def _make_private(folder: Path) -> None:
    """Makes a folder with all above it that is missing, whatever the umask allows others."""
    for place in (*reversed(folder.parents), folder):
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)


def digest(objects: Sequence[Manifest], options: dict[str, Any]) -> str:
    """Changes with the manifests or the options: the same name with another one is refused."""
    wanted = json.dumps([objects, options], sort_keys=True)
    return hashlib.sha256(wanted.encode()).hexdigest()


class Run:
    """One run's folder."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self.folder = folder
        self.wanted = wanted
        self.new = False
        """Whether it was created just now, so that no backend can have anything of it."""
        self._lock: int | None = None

    @property
    def name(self) -> str:
        """The run's name: its identity for people."""
        return self.wanted.name

    @property
    def control(self) -> Path:
        """Where the attending process listens."""
        return self.folder / "control.sock"

    @property
    def provider(self) -> Path:
        """Where its provider listens, once somebody has asked for that (`ControlClient`)."""
        return self.folder / "provider.sock"

    @property
    def log(self) -> Path:
        """What the attending process says when it has no terminal."""
        return self.folder / "attendant.log"

    @property
    def deleting(self) -> bool:
        """Whether its deletion was ordered."""
        return (self.folder / "deleting").exists()

    @property
    def _gone(self) -> Path:
        return self.folder.with_name(f".{self.name}.{self.wanted.uid}{_GONE}")

    @property
    def exists(self) -> bool:
        """Whether it is known: not forgotten meanwhile, nor its name given to another run."""
        try:
            known = json.loads((self.folder / "run.json").read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        return bool(known["uid"] == self.wanted.uid)

    def order_deletion(self) -> None:
        """Makes the deletion outlive whoever orders it; nothing where the run was forgotten."""
        with suppress(FileNotFoundError):
            (self.folder / "deleting").touch()

    def attend(self) -> bool:
        """Becomes the process that attends the run; False where another one does, or where the
        run was forgotten."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            handle = os.open(self.folder / "lock", flags, 0o600)
        except FileNotFoundError:
            return False
        try:
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _LOCK)
        except (BlockingIOError, PermissionError):
            os.close(handle)
            return False
        if not (self._is_lock(handle) and self.exists):
            # Whoever attended it has forgotten it in between: this is nobody's lock any more.
            os.close(handle)
            return False
        self._lock = handle
        with suppress(OSError):
            # Only for people: the lock counts, on a full disk too.
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        return True

    def _is_lock(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.stat(self.folder / "lock"), os.fstat(handle))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def release(self) -> None:
        """Stops attending."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def attendant(self) -> int | None:
        """The process that attends it; None: unattended."""
        try:
            handle = os.open(self.folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            # Only asks: a look that took the lock would keep out whoever wants to attend just then.
            found = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, _LOCK)
            if struct.unpack(_FLOCK, found)[0] == fcntl.F_UNLCK:
                return None
            text = os.read(handle, 32).decode()
            return int(text) if text.isdecimal() else 0
        finally:
            os.close(handle)

    def record_ended(self, pod: Manifest) -> None:
        """Notes that a deleted pod has ended, and why it was deleted: when the run resumes it must
        not run again, and counts as it did."""
        metadata = pod["metadata"]
        line = {
            "uid": metadata["uid"],
            "annotations": metadata.get("annotations", {}),
            "status": pod["status"],
        }
        with (self.folder / "ended.jsonl").open("a") as handle:
            handle.write(json.dumps(line) + "\n")

    def ended(self) -> dict[str, Manifest]:
        """Deleted pods by UID: their last `status` and `annotations`."""
        found: dict[str, Manifest] = {}
        try:
            lines = (self.folder / "ended.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return found
        for line in lines:
            try:
                one = json.loads(line)
            except ValueError:
                # The last line of a process that was killed while it wrote.
                continue
            found[one["uid"]] = one
        return found

    def record_end(self, objects: Mapping[str, Sequence[Manifest]]) -> None:
        """Notes how it stands, by kind, now that it is over: from then on nobody has to be asked.
        On a full disk whoever wants to know asks the backends, as for a run that goes on."""
        draft = self.folder / ".end.json"
        with suppress(OSError):
            with _private(draft) as handle:
                json.dump(objects, handle)
            draft.rename(self.folder / "end.json")

    def end(self) -> dict[str, list[Manifest]] | None:
        """How it stood when it was over, by kind; None: nobody has noted that."""
        try:
            found: dict[str, list[Manifest]] = json.loads((self.folder / "end.json").read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return found

    def record_prices(self, tariff: Tariff) -> None:
        """Notes the prices that held when it began."""
        with _private(self.folder / "prices.json") as handle:
            json.dump(tariff.to_json(), handle)

    def prices(self) -> Tariff:
        """Those prices; `FREE` where none were noted."""
        try:
            return Tariff.from_json(json.loads((self.folder / "prices.json").read_text()))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return FREE

    def remove(self) -> None:
        """Forgets the run, where nothing of it is left at any backend. Only for who attends it.

        It goes all at once: who looks in between must not find it half there, least of all
        without the order to delete it.
        """
        with suppress(OSError):
            self.folder.rename(self._gone)
        self.sweep()

    def sweep(self) -> None:
        """Removes what is left of it, once it was forgotten: by another process, perhaps, which is
        at it still or was killed over it."""
        shutil.rmtree(self._gone, ignore_errors=True)


class Runs:
    """All runs of this user."""

    def __init__(self, state: Path | None = None) -> None:
        self._folder = (state or state_dir()) / "runs"

    def create(
        self, name: str, objects: Sequence[Manifest], options: dict[str, Any], now: float
    ) -> Run:
        """Writes a new run down. Invalid: a name that is none, or is taken."""
        if not _NAME.fullmatch(name):
            raise Invalid(
                violations=[
                    Violation(
                        "--name",
                        f'found "{name}"; allowed: at most 63 of a-z, 0-9 and -, starting and'
                        " ending with a letter or digit",
                    )
                ]
            )
        wanted = Wanted(name, str(uuid.uuid4()), now, objects, options)
        _make_private(self._folder)
        self._require_private()
        for gone in self._folder.glob(f".*{_GONE}"):
            # Somebody was killed while removing it.
            shutil.rmtree(gone, ignore_errors=True)
        # Whole or not there: a folder without run.json would be a run that nobody can read.
        draft = self._folder / f".{name}.{wanted.uid}"
        draft.mkdir(mode=0o700)
        try:
            _write(draft / "run.json", wanted)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            # A full disk names no file by itself.
            raise OSError(error.errno, error.strerror, str(self._folder)) from error
        try:
            draft.rename(self._folder / name)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise Invalid(
                violations=[Violation("--name", f'a run named "{name}" exists already')]
            ) from error
        run = Run(self._folder / name, wanted)
        run.new = True
        return run

    def _require_private(self) -> None:
        require_private(self._folder.parent)
        require_private(self._folder)

    def get(self, name: str) -> Run:
        """The run of that name. NotFound names those that there are."""
        run = self.find(name)
        if run is None:
            known = ", ".join(sorted(one.name for one in self)) or "none"
            raise NotFound(f'no run named "{name}"; there are: {known}')
        return run

    def find(self, name: str) -> Run | None:
        """The run of that name, or None. Invalid where others could have written it."""
        if not _NAME.fullmatch(name):
            return None
        folder = self._folder / name
        self._require_private()
        require_private(folder)
        try:
            known = json.loads((folder / "run.json").read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return Run(
            folder,
            Wanted(
                known["name"], known["uid"], known["created"], known["objects"], known["options"]
            ),
        )

    def __iter__(self) -> Iterator[Run]:
        self._require_private()
        if not self._folder.is_dir():
            return
        for folder in sorted(self._folder.iterdir()):
            if (run := self.find(folder.name)) is not None:
                yield run


def _write(path: Path, wanted: Wanted) -> None:
    content = {
        "name": wanted.name,
        "uid": wanted.uid,
        "created": wanted.created,
        "objects": wanted.objects,
        "options": wanted.options,
    }
    with _private(path) as handle:
        json.dump(content, handle)


def _private(path: Path) -> IO[str]:
    """A new file that only its owner reads: what a run asks for may hold Secrets."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w")
