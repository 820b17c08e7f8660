"""GitHub Actions: log groups, annotations, a step summary; and no commands from containers."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING

from bridge.cli.view.plain import PlainView, prefix, prefixed
from bridge.pods import Manifest

if TYPE_CHECKING:
    from bridge.cli.view.closing import Closing

IN_MEMORY = 256 * 1024
"""Bytes of a pod's log that are kept in memory until it ends; more goes to a file."""

_COMMAND = re.compile(rb"(?m)^\s*::\w|##\[")


class GitHubView(PlainView):
    """Each pod's log is one group, printed when the pod has ended, with workflow commands stopped
    while a container's words are printed.

    The output of a run of one container stays that container's, byte for byte, as a step's own
    command would have it; that it tries to command the workflow is then said.
    """

    def __init__(
        self,
        stdout: IO[str],
        stderr: IO[str],
        run: str,
        *,
        clock: Callable[[], float] = time.time,
        quiet: bool = False,
        environ: Mapping[str, str] | None = None,
        token: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        super().__init__(stdout, stderr, run, clock=clock, quiet=quiet)
        self._environ = os.environ if environ is None else environ
        self._token = token
        self._logs: dict[str, tuple[str, IO[bytes]]] = {}
        self._warned = False

    def log(self, pod: Manifest, container: str, data: bytes) -> None:
        """`View.log`."""
        if self.model.single:
            self._look_for_commands(data)
            super().log(pod, container, data)
            return
        uid, name = pod["metadata"]["uid"], prefix(pod, container)
        if uid not in self._logs:
            spool = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed by _group
            self._logs[uid] = (pod["metadata"]["name"], spool)
        text = prefixed(f"{name.partition('/')[2]} | ".encode() if "/" in name else b"", data)
        self._logs[uid][1].write(text)

    def log_ended(self, pod: Manifest) -> None:
        """`View.log_ended`."""
        self._group(pod["metadata"]["uid"])

    async def finish(self, closing: Closing) -> None:
        """`View.finish`."""
        for uid in list(self._logs):
            self._group(uid)
            await self.output.room()
        for cause in closing.causes:
            where = cause.who() or self.run
            text = f"{cause.title()}\n{closing.tail_of(cause) or ''}".rstrip()
            command = f"::error title={_property(where)}::{_data(text)}\n"
            self.output.write(self.stdout, command.encode())
        if path := self._environ.get("GITHUB_STEP_SUMMARY"):
            self._append_summary(path, closing)
        await super().finish(closing)

    def close(self) -> None:
        """`View.close`."""
        for _, spool in self._logs.values():
            spool.close()
        self._logs.clear()
        super().close()

    def _last_words(self, text: str) -> None:
        # Ends of logs are among them.
        token = self._token()
        super()._last_words(f"::stop-commands::{token}\n{text}::{token}::\n")

    def _line(self, text: str) -> None:
        # The older form of a command is one wherever it stands in a line; messages of containers
        # are part of some lines.
        super()._line(text.replace("##[", "## ["))

    def _append_summary(self, path: str, closing: Closing) -> None:
        try:
            with open(path, "a", encoding="utf-8") as out:
                out.write(summary(closing))
        except OSError as error:
            self.say(f"the step summary cannot be written: {error.strerror}")

    def _look_for_commands(self, data: bytes) -> None:
        if not self._warned and _COMMAND.search(data):
            self._warned = True
            self._line("the container's output contains workflow commands")

    def _group(self, uid: str) -> None:
        if (found := self._logs.pop(uid, None)) is None:
            return
        name, spool = found
        token = self._token()
        self._out(f"::group::{_data(name)}\n::stop-commands::{token}\n".encode())
        # A last line without a newline got one, so the token stands on a line of its own.
        self.output.write_file(self.stdout, spool)
        self._out(f"::{token}::\n::endgroup::\n".encode())

    def _out(self, data: bytes) -> None:
        self.output.write(self.stdout, data)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def summary(closing: Closing) -> str:
    """The run as Markdown."""
    from bridge.cli.view.closing import HEADERS, table_rows

    shown, rest = table_rows(closing.rows)
    lines = [f"### {_cell(closing.summary())}", ""]
    lines += [f"| {' | '.join(map(str.title, HEADERS))} |", "|---" * len(HEADERS) + "|"]
    lines += [f"| {' | '.join(map(_cell, row.cells()))} |" for row in shown]
    if rest:
        lines += ["", _cell(rest)]
    for cause in closing.causes:
        lines += ["", f"**{_cell(cause.who() or closing.run)}**: {_cell(cause.title())}"]
        if tail := closing.tail_of(cause):
            # Indented code needs no fence that the log could close.
            lines += ["", *(f"    {line}" for line in tail.splitlines())]
    return "\n".join([*lines, "", ""])


def _cell(text: str) -> str:
    for one in "\\`*_[]<>|":
        text = text.replace(one, f"\\{one}" if one not in "<>" else f"&{'lg'[one == '>']}t;")
    return text
