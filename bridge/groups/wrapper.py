"""A command inside a session that is only ever a terminal: what is run instead, and what comes of
it. Pure.

A cloud's own exec gives one terminal: stdout and stderr in one, line ends changed, an echo, nothing
that says that stdin is over, and no exit code. So the image's own `sh` is run, with one of two
scripts. Both say between marks that hold a random word when the command has started and how it has
ended, and stay until they are told that this was heard: what nobody has taken when a process ends
may be lost.

With a terminal the command has that terminal, and its bytes are passed on. Without one it has
pipes; each of them crosses the terminal as lines of base64 behind a letter, so that bytes, streams
and ends are exact. That takes `dd` and `base64` in the image, and `stty` for stdin.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bridge.errors import Invalid, Unavailable

_MARK = b"\x1e"
"""How a mark begins: a byte that no keyboard sends and hardly any program writes, since bytes that
may be the beginning of one are held back."""
_LONGEST = 64 * 1024
"""Characters of a line, and of what comes before the first mark: the script's are 80 at most."""
_LINE = 768
"""Bytes of stdin that one line carries: 1,024 characters, far below the 4,095 that a terminal
takes."""
LINES = 8
"""Lines on their way at once: what Linux keeps for a terminal (4 KiB and 8 KiB). With more whoever
types waits for the terminal, and hears nothing else meanwhile."""
_CODE = re.compile(rb"[0-9]{1,3}")
END = b"\n"
"""What tells the script that its last word was heard."""

_HEAD = r"""say() { printf '\036%s WORD %s\n' "$1" "$2"; }
there() {
  case $1 in */*) [ -f "$1" ] && [ -x "$1" ]; return;; esac
  set -f; IFS=:
  for d in $PATH; do [ -f "${d:-.}/$1" ] && [ -x "${d:-.}/$1" ] && return; done
  return 1
}
need() { (there "$1") || { say n "$2"; read -r l; exit 127; }; }
"""
_TERMINAL = (
    _HEAD
    + r"""need "$1" command
trap : INT QUIT
say s
exec 5>&2 2>/dev/null
(exec 2>&5 5>&-; exec "$@")
say x $?
read -r l
"""
)
_PIPES = (
    _HEAD
    + r"""need dd dd; need base64 base64
case WORD in i*) need stty stty; stty -echo;; esac
need "$1" command
f() {
  t=$1
  p() { printf '%s\n' "$t$1$2$3$4$5$6$7$8$9${10}${11}${12}"; }
  while c=$({ dd bs=8208 count=1 || echo q >&3; } | base64); do
    [ "$c" ] || { echo "d$t"; return; }
    set -- $c
    while [ $# -gt 12 ]; do p "$@"; shift 12; done
    p "$@"
  done
}
g() {
  while read -r l && [ "$l" != . ]; do
    printf '%s\n' "$l" | base64 -d
    case $? in 0|1|141) echo k >&3;; *) echo q >&3;; esac
  done
}
c() {
  case WORD in
  i*) { { (g) || echo q >&3; } <&7 5>&- & } | (exec 2>&5 3>&- 5>&- 7>&-; exec "$@");;
  *) (exec 2>&5 3>&- 5>&- 7>&-; exec "$@") </dev/null;;
  esac
}
r() {
  {
    {
      c "$@"
      say x $? >&3
    } 5>&1 >&4 4>&- 2>/dev/null | f e >&3 4>&-
  } 4>&1 | f o >&3
}
exec 3>&1 7<&0 </dev/null 2>/dev/null
say s
r "$@"
say z
read -r l <&7
"""
)
"""The word stands in the script itself: a variable of that name may be the container's own, and is
then the command's too. For the same reason nothing is assigned in the shell that becomes the
command.

Whether there is stdin is told by the word's first letter. The shell that waits for the command must
not have its stdin too: a command that closes it would close nothing. So what feeds it (`g`) goes on
by itself; it ends with the terminal, or with the line that says so. Any of these may be killed,
where memory runs out: both that read what the command writes (`f`) say that they came to the end,
and what feeds it says when that fails (`q`), but for a command that has closed its stdin (1, or
141: SIGPIPE)."""


def wrapped(command: Sequence[str], word: str, *, stdin: bool, tty: bool) -> Sequence[str]:
    """What is run instead, by the image's own `sh`. `word`: random letters and digits. Invalid: no
    such command can be asked for."""
    if not command or not command[0]:
        raise Invalid("the command is empty")
    if command[0].startswith("-"):
        raise Invalid(f'the command cannot be started: "{command[0]}" is an option of the shell')
    try:
        "".join(command).encode()
    except UnicodeEncodeError:
        raise Invalid("the command has bytes that are no UTF-8: the cloud takes text") from None
    if any("\0" in one for one in command):
        raise Invalid("the command has a NUL")
    script = (_TERMINAL if tty else _PIPES).replace("WORD", marked(word, stdin=stdin))
    return ("sh", "-c", script, "podbridge", *command)


def marked(word: str, *, stdin: bool) -> str:
    """The random word as the script has it."""
    return f"{'i' if stdin else 'n'}{word}"


@dataclass(frozen=True, slots=True)
class Begun:
    """The command runs."""


@dataclass(frozen=True, slots=True)
class Lacks:
    """It was not started."""

    what: str
    """`command`, or the program that the script needs."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The command has ended; without a terminal more output may follow."""

    code: int


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing more follows."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One line of stdin was."""


@dataclass(frozen=True, slots=True)
class Output:
    """What the command wrote."""

    stream: str
    data: bytes


Word = Begun | Lacks | Ended | Over | Taken | Output


def input_lines(data: bytes) -> Iterator[bytes]:
    """Bytes for stdin as the script without a terminal reads them."""
    for start in range(0, len(data), _LINE):
        yield base64.b64encode(data[start : start + _LINE]) + b"\n"


INPUT_ENDS = b".\n"
"""No more stdin."""


class _Marks:
    """What both scripts say alike."""

    def __init__(self, word: str) -> None:
        self._word = re.escape(word.encode())
        self._any = re.compile(
            _MARK + rb"([snxz]) " + self._word + rb" ([a-z0-9]*)\r?\n",
        )
        self._held = b""
        self._begun = False
        self._over = False
        """What follows is an echo of the last line of input."""
        self.noise = b""
        """What came before anything of ours: the words of whoever could not start the script."""

    def _first(self) -> Iterator[Word]:
        """What is before the first mark is not the command's."""
        found = self._any.search(self._held)
        if found is None:
            if len(self._held) > _LONGEST:
                raise Unavailable("the session does not say that the command has started")
            self.noise = self._held
            return
        self.noise, self._held = self._held[: found.start()], self._held[found.end() :]
        self._begun = True
        said = self._said(found)
        self._over = isinstance(said, Lacks)
        yield said

    def _said(self, found: re.Match[bytes]) -> Word:
        kind, rest = found[1], found[2]
        if kind == b"s":
            return Begun()
        if kind == b"n":
            return Lacks(rest.decode())
        if kind == b"z":
            return Over()
        if _CODE.fullmatch(rest) is None or int(rest) > 255:
            raise Unavailable("the session does not say how the command has ended")
        return Ended(int(rest))


class Terminal(_Marks):
    """Takes apart what comes of a command with a terminal."""

    def feed(self, data: bytes) -> Iterator[Word]:
        """What these bytes, behind those before, come to. Unavailable: they make no sense."""
        if self._over:
            return
        self._held += data
        if not self._begun:
            yield from self._first()
            if not self._begun or self._over:
                return
        found = self._any.search(self._held)
        while found is not None and found[1] != b"x":
            found = self._any.search(self._held, found.end())
        if found is not None:
            before, self._held = self._held[: found.start()], b""
            if before:
                yield Output("stdout", before)
            yield self._said(found)
            self._over = True
            yield Over()
            return
        keep = self._beginning()
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        if out:
            yield Output("stdout", out)

    def _beginning(self) -> int:
        """How many of the last bytes may be the beginning of a mark."""
        at = self._held.rfind(_MARK)
        if at < 0:
            return 0
        tail = self._held[at:]
        pattern = _MARK + b"x " + self._word + b" "
        whole = len(pattern) + len(b"255\r\n")
        is_one = pattern.startswith(tail) or (tail.startswith(pattern) and len(tail) < whole)
        return len(tail) if is_one else 0


class Pipes(_Marks):
    """Takes apart what comes of a command without one."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self._whole: set[bytes] = set()

    def feed(self, data: bytes) -> Iterator[Word]:
        """What these bytes, behind those before, come to. Unavailable: they make no sense."""
        if self._over:
            return
        self._held += data
        if not self._begun:
            yield from self._first()
            if not self._begun or self._over:
                return
        *lines, self._held = self._held.split(b"\n")
        if len(self._held) > _LONGEST:
            raise Unavailable(_STRANGE)
        for line in (one.rstrip(b"\r") for one in lines):
            if line in _ENDS:
                self._whole.add(line)
                continue
            found = self._line(line)
            if isinstance(found, Over) and self._whole != _ENDS:
                raise Unavailable(_LOST)
            yield found
            if isinstance(found, Over):
                self._over = True
                return

    def _line(self, line: bytes) -> Word:
        if (found := self._any.fullmatch(line + b"\n")) is not None:
            return self._said(found)
        if line == b"k":
            return Taken()
        if line == b"q":
            raise Unavailable(_LOST)
        stream = {b"o": "stdout", b"e": "stderr"}.get(line[:1])
        try:
            data = base64.b64decode(line[1:], validate=True)
        except binascii.Error:
            data = b""
        if stream is None or not data:
            raise Unavailable(_STRANGE)
        return Output(stream, data)


_ENDS = {b"do", b"de"}
"""How the script says that all of stdout, or stderr, was read."""
_LOST = "a part of what the command read or wrote was lost: something in the container was killed"
_STRANGE = "something else than the command writes to the session's terminal: its output is lost"
