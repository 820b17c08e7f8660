"""What -v has said, and by whom."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import logging
from click.testing import CliRunner
from bridge.cli.entry import cli
CliRunner().invoke(cli, ["-vv", "version"])
for name in ("bridge.agent", "adapters.fargate", "botocore.endpoint", "urllib3"):
    print(logging.getLevelName(logging.getLogger(name).getEffectiveLevel()))
"""


def test_the_clouds_libraries_never_log_whole_requests() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["DEBUG", "DEBUG", "INFO", "INFO"]
