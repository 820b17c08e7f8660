"""Plain host processes that survive the provider: no images, no isolation, real exit codes.

Each run of a container has a keeper, a small process in its own session, which the provider starts
through a zygote (see `keeper`). All that is known is in a directory tree that any provider can
read: a provider that starts again finds everything as it is.

    <root>/<cluster>/<uid>.<attempt>/pod.json
                                     volumes/<name>/
                                     containers/<name>.<restart>/{lock,started,exit.json,log,...}
    <root>/notify/<pid>-<n>.sock     where a provider listens for hints

The keeper also holds the container's standard streams and serves `exec` and `attach`: it hands the
provider pipes, or a terminal, which the provider reads and writes itself (see `keeper.guests`).

What a container sees of the host is the host: its files, its network, its processes. Volumes appear
through a private mount namespace, so nothing of the host's file system is touched. Where that is
not allowed (neither as root nor in a user namespace), pods with mounts are refused, and termination
messages come from the log alone.
"""

from __future__ import annotations

from adapters.process.adapter import Adapter
from adapters.process.options import Options

__all__ = ["Adapter", "Options"]
