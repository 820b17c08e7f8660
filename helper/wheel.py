"""Puts the helper's programs into a wheel, where they can be built as they were pinned."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bridge.helper.program import pinned
from helper.build import MACHINES, build
from tools.control_plane.toolchain import CannotBeHad


class HelperHook(BuildHookInterface[Any]):
    """Hatchling's hook of a wheel. A wheel without the programs works, but for backends that need
    the helper: those say then that it is not there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds each program whose digest is the pinned one. A checkout that is installed as such
        takes its own from the cache."""
        if version == "editable":
            return
        for machine in MACHINES:
            try:
                program = build(machine)
            except CannotBeHad as why:
                self.app.display_warning(f"without the helper for {machine}: {why}")
                continue
            if hashlib.sha256(program.read_bytes()).hexdigest() != pinned()[machine]:
                words = "this Go makes another program than the one that is pinned"
                self.app.display_warning(f"without the helper for {machine}: {words}")
                continue
            place = f"bridge/helper/bin/podbridge-helper-{machine}"
            build_data["force_include"][str(program)] = place
