"""What the helpers' provider keeps on a machine: its secret, and the port that they dial."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from bridge.errors import Invalid

_LENGTH = 32
"""Bytes of the secret."""


def default_folder() -> Path:
    """`$XDG_STATE_HOME/podbridge/helper`, by default `~/.local/state/podbridge/helper`."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "podbridge" / "helper"


@dataclass(frozen=True, slots=True)
class HelperState:
    """Kept for one owner. `port` 0: none was chosen yet."""

    path: Path
    secret: bytes = field(repr=False)
    port: int = 0

    def with_port(self, port: int) -> HelperState:
        """The same, kept with that port."""
        if port == self.port:
            return self
        made = HelperState(self.path, self.secret, port)
        fresh = self.path.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(_text(made))
        fresh.chmod(0o600)
        fresh.replace(self.path)
        return made


def load(folder: Path, owner: str) -> HelperState:
    """What is kept for that owner; made where there is nothing. Raises Invalid where it cannot be
    read, or is damaged: its pods' helpers would not be believed any more."""
    path = folder / f"{owner}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = HelperState(path, secrets.token_bytes(_LENGTH))
        fresh = path.with_suffix(f".new-{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, _text(made))
            # Whoever is first, whole: another provider may be doing the same.
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            os.close(descriptor)
            fresh.unlink()
        said = json.loads(path.read_bytes())
        secret, port = bytes.fromhex(said["secret"]), int(said["port"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        words = getattr(error, "strerror", None) or "it is damaged"
        raise Invalid(f"the helpers' secret in {path} cannot be read: {words}") from None
    if len(secret) < _LENGTH or not 0 <= port < 65536:
        raise Invalid(f"the helpers' secret in {path} cannot be read: it is damaged")
    return HelperState(path, secret, port)


def _text(state: HelperState) -> bytes:
    return json.dumps({"secret": state.secret.hex(), "port": state.port}).encode()
