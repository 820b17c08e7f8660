"""Makes the lock files from pyproject.toml: exact versions with hashes, naming no host."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def compile_lock(inputs: list[str], out: str, *more: str) -> None:
    """One lock file."""
    source = ROOT / ".lock.in"
    source.write_text("\n".join(inputs) + "\n")
    try:
        subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "uv",
                    "pip",
                    "compile",
                    "-q",
                    "--universal",
                    "--generate-hashes",
                ),
                *(
                    "--python-version",
                    "3.11",
                    "--no-header",
                    "--no-annotate",
                    "--no-emit-index-url",
                ),
                *more,
                *("-o", out, str(source)),
            ],
            cwd=ROOT,
            check=True,
        )
    finally:
        source.unlink()


def main() -> int:
    """Both files: what podbridge needs, and what its tests and checks need besides."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = project["project"]["dependencies"]
    extra = [
        one
        for name, many in project["project"]["optional-dependencies"].items()
        if name != "all"
        for one in many
    ]
    development = project["dependency-groups"]["dev"]
    build = project["build-system"]["requires"]
    compile_lock([*runtime, *extra], "requirements.lock", "--upgrade")
    compile_lock(
        [*runtime, *development, *build], "requirements-dev.lock", "-c", "requirements.lock"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
