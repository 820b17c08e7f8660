"""What the runner shares with the tests: their way to an engine; and how its processes die."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from support import engine, paper_registry

MORTAL = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
"""Before a command: it ends with us, also where we are killed."""
__all__ = ["MORTAL", "engine", "paper_registry"]
