"""Makes `bridge/rpc/v1` from `proto/`; with `--check` only says whether it is up to date."""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
STUBS = "bridge/rpc/v1"
WITHOUT_SERVICE = ("pod_pb2_grpc.py", "stream_pb2_grpc.py")
"""Generated although there is nothing in them."""


def generate(out: Path) -> None:
    """Writes the stubs below `out`."""
    protos = sorted(
        str(path.relative_to(ROOT)) for path in ROOT.glob("proto/bridge/rpc/v1/*.proto")
    )
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    code = protoc.main(
        [
            "protoc",
            "-Iproto",
            f"-I{resources.files('grpc_tools') / '_proto'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            *protos,
        ]
    )
    if code:
        sys.exit(code)
    for name in WITHOUT_SERVICE:
        (out / STUBS / name).unlink()


def main() -> int:
    """Generates into place, or compares."""
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        made = Path(folder) / STUBS
        names = sorted(path.name for path in made.iterdir())
        _, differ, missing = filecmp.cmpfiles(made, ROOT / STUBS, names, shallow=False)
        if "--check" not in sys.argv:
            for name in names:
                shutil.copyfile(made / name, ROOT / STUBS / name)
            return 0
        stale = sorted([*differ, *missing])
        if stale:
            print(f"{STUBS} is not what proto/ says ({', '.join(stale)}): make generate")
        return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
