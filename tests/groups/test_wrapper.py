"""What a command is wrapped in for a session that is only ever a terminal, in real shells."""

from __future__ import annotations

import base64
import os
import pty
import select
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import Invalid, Unavailable
from bridge.groups import wrapper
from bridge.groups.wrapper import (
    Begun,
    Ended,
    Lacks,
    Output,
    Over,
    Pipes,
    Taken,
    Terminal,
    Word,
    marked,
    wrapped,
)

WORD = "0123456789abcdef"

# What is asked for.


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], "empty"),
        ([""], "empty"),
        (["-c"], "option"),
        (["ls", "\udcff"], "UTF-8"),
        (["ls", "a\0"], "NUL"),
    ],
)
def test_what_cannot_be_asked_for(command: list[str], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        wrapped(command, WORD, stdin=False, tty=False)


# What comes of it.


def _mark(kind: str, rest: str = "") -> bytes:
    return f"\x1e{kind} {marked(WORD, stdin=False)} {rest}\r\n".encode()


def _fed(parser: Terminal | Pipes, data: bytes, cuts: list[int]) -> list[Word]:
    """What comes of it in pieces; what one stream wrote in a row as one."""
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    begin, found = 0, list[Word]()
    for end in ends:
        for one in parser.feed(data[begin:end]):
            last = found[-1] if found else None
            if isinstance(one, Output) and isinstance(last, Output) and one.stream == last.stream:
                found[-1] = Output(one.stream, last.data + one.data)
            else:
                found.append(one)
        begin = end
    return found


CUTS = st.lists(st.integers(0, 10_000), max_size=8)
NOISY = st.lists(
    st.one_of(st.binary(max_size=20), st.sampled_from([b"\x1e", b"\x1ex n", b"\r\n", _mark("s")])),
    max_size=6,
).map(b"".join)


@given(NOISY, st.integers(0, 255), CUTS)
def test_a_terminal_in_any_pieces(data: bytes, code: int, cuts: list[int]) -> None:
    sent = b"noise\r\n" + _mark("s") + data + _mark("x", str(code)) + b"echo"
    parser = Terminal(marked(WORD, stdin=False))
    output = [Output("stdout", data)] if data else []
    assert _fed(parser, sent, cuts) == [Begun(), *output, Ended(code), Over()]
    assert parser.noise == b"noise\r\n"


ENDS = b"do\r\nde\r\n"
PIECES = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=600)),
    max_size=6,
)


@given(PIECES, st.integers(0, 255), CUTS)
def test_pipes_in_any_pieces(pieces: list[tuple[str, bytes]], code: int, cuts: list[int]) -> None:
    sent, wanted = _mark("s"), {"stdout": b"", "stderr": b""}
    for stream, data in pieces:
        wanted[stream] += data
        sent += (b"o" if stream == "stdout" else b"e") + base64.b64encode(data) + b"\r\nk\r\n"
    sent += _mark("x", str(code)) + ENDS + _mark("z")
    found = _fed(Pipes(marked(WORD, stdin=False)), sent, cuts)
    got = {"stdout": b"", "stderr": b""}
    for one in found:
        if isinstance(one, Output):
            got[one.stream] += one.data
    assert got == wanted
    rest = [one for one in found if not isinstance(one, Output)]
    assert rest == [Begun(), *[Taken()] * len(pieces), Ended(code), Over()]


@given(st.binary(max_size=300), CUTS)
def test_garbage_from_a_session_is_an_error_or_nothing(data: bytes, cuts: list[int]) -> None:
    for parser in (Terminal(WORD), Pipes(WORD)):
        with suppress(Unavailable):
            assert not [one for one in _fed(parser, data, cuts) if isinstance(one, Ended)]


@pytest.mark.parametrize("line", [b"Password: ", b"oAA?=", b"o", b"qAAAA", b"oAAAA oAAAA"])
def test_what_else_writes_to_the_terminal_is_noticed(line: bytes) -> None:
    parser = Pipes(marked(WORD, stdin=False))
    with pytest.raises(Unavailable, match="something else"):
        list(parser.feed(_mark("s") + line + b"\r\n"))


@pytest.mark.parametrize("ends", [b"", b"do\r\n", b"de\r\n", b"q\r\n" + ENDS])
def test_an_end_that_came_too_soon(ends: bytes) -> None:
    """What reads the command's output, or feeds it, was killed or could not be started."""
    parser = Pipes(marked(WORD, stdin=False))
    with pytest.raises(Unavailable, match="lost"):
        list(parser.feed(_mark("s") + _mark("x", "0") + ends + _mark("z")))


@pytest.mark.parametrize("code", ["", "256", "0000", "1f", "9" * 5000])
def test_a_code_that_is_none(code: str) -> None:
    for parser in (Terminal(marked(WORD, stdin=False)), Pipes(marked(WORD, stdin=False))):
        with pytest.raises(Unavailable, match="how the command has ended"):
            list(parser.feed(_mark("s") + _mark("x", code)))


def test_a_session_that_never_begins() -> None:
    parser = Terminal(WORD)
    with pytest.raises(Unavailable, match="has started"):
        list(parser.feed(b"x" * 100_000))


# The scripts, in the shells that images have.

SHELLS = {"dash": ("dash",), "bash": ("bash", "--posix"), "busybox": ("busybox", "sh")}


@dataclass
class Ran:
    """What a wrapped command came to."""

    words: list[Word] = field(default_factory=list)
    output: dict[str, bytes] = field(default_factory=lambda: {"stdout": b"", "stderr": b""})

    @property
    def code(self) -> int:
        (found,) = (one.code for one in self.words if isinstance(one, Ended))
        return found


def _run(
    shell: str,
    *command: str,
    stdin: bytes | None = None,
    tty: bool = False,
    env: Mapping[str, str] | None = None,
) -> Ran:
    """As a cloud does: with a terminal of its own. At one, `stdin` is typed once the
    command says that it is ready."""
    program = SHELLS[shell]
    path = shutil.which(program[0])
    if path is None:
        pytest.skip(f"there is no {shell} here")
    has_stdin = stdin is not None
    words = wrapped(command, WORD, stdin=has_stdin, tty=tty)
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - another program in an instant
        os.execve(path, [*program, *words[1:]], dict(os.environ if env is None else env))
    parser = (Terminal if tty else Pipes)(marked(WORD, stdin=has_stdin))
    ran, typed = Ran(), b""
    try:
        while True:
            ready, writable, _ = select.select([terminal], [terminal] if typed else [], [], 60)
            assert ready or writable, "the script hangs"
            if writable:
                typed = typed[os.write(terminal, typed[:1024]) :]
            if not ready:
                continue
            try:
                data = os.read(terminal, 1024)
            except OSError:
                return ran
            for one in parser.feed(data):
                if isinstance(one, Output):
                    ran.output[one.stream] += one.data
                    continue
                ran.words.append(one)
                typed += b"".join(_typed(one, None if tty else stdin))
            if tty and stdin and b"ready" in ran.output["stdout"]:
                typed, stdin = stdin, None
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def _typed(one: Word, stdin: bytes | None) -> Iterator[bytes]:
    if isinstance(one, Begun) and stdin:
        yield from wrapper.input_lines(stdin)
        yield wrapper.INPUT_ENDS
    elif isinstance(one, Ended) and stdin == b"":
        yield wrapper.INPUT_ENDS
    elif isinstance(one, Over | Lacks):
        yield wrapper.END


def _variables(said: bytes) -> dict[str, str]:
    """What `env -0` says."""
    found = (one.partition("=") for one in said.decode().split("\0") if one)
    return {name: value for name, _, value in found if name != "_"}


shells = pytest.mark.parametrize("shell", SHELLS)


@pytest.mark.slow
@shells
class TestScripts:
    def test_streams_and_code(self, shell: str) -> None:
        script = r'printf "out\r\n\377\357\277\275"; echo err >&2; test -t 1 || exit 3'
        ran = _run(shell, "sh", "-c", script)
        assert ran.output == {"stdout": b"out\r\n\xff\xef\xbf\xbd", "stderr": b"err\n"}
        assert ran.words == [Begun(), Ended(3), Over()]

    def test_a_signal_has_no_words_of_the_shell(self, shell: str) -> None:
        ran = _run(shell, "sh", "-c", "kill -9 $$")
        assert (ran.code, ran.output) == (137, {"stdout": b"", "stderr": b""})

    def test_arguments(self, shell: str) -> None:
        given = ["a b", "$HOME", "it's", "", "#x", "x\ny", "é\\", '"', "*"]
        ran = _run(shell, "printf", "%s|", *given)
        assert ran.output["stdout"] == "".join(f"{one}|" for one in given).encode()

    @pytest.mark.parametrize("tty", [False, True])
    @pytest.mark.parametrize("stdin", [None, b""])
    def test_the_environment_is_the_containers(
        self, shell: str, tty: bool, stdin: bytes | None
    ) -> None:
        """As whoever has a plain `sh` there sees it, which takes no IFS from its environment."""
        names = {one: f"its {one}" for one in ("m", "l", "t", "d", "c", "p", "f", "g", "r", "IFS")}
        env = {"PATH": os.environ["PATH"], **names}
        plain = subprocess.run(
            [*SHELLS[shell], "-c", "(exec env -0)"], env=env, stdout=subprocess.PIPE, check=True
        )
        ran = _run(shell, "env", "-0", stdin=stdin, tty=tty, env=env)
        seen = _variables(ran.output["stdout"].replace(b"\r\n", b"\n"))
        assert seen == _variables(plain.stdout)
        assert seen["m"] == "its m"
        assert WORD not in "".join(seen.values())

    @pytest.mark.parametrize("name", ["m", "l", "t", "d", "c", "IFS"])
    def test_a_variable_of_the_containers_is_in_no_ones_way(self, shell: str, name: str) -> None:
        data = os.urandom(20_000)
        env = {"PATH": os.environ["PATH"], name: "A9+/"}
        ran = _run(shell, "cat", stdin=data, env=env)
        assert (ran.output["stdout"] == data, ran.code) == (True, 0)

    def test_any_bytes_both_ways(self, shell: str) -> None:
        data = os.urandom(50_000)
        ran = _run(shell, "cat", stdin=data)
        assert (ran.output["stdout"] == data, ran.code) == (True, 0)

    def test_stdin_that_nobody_reads(self, shell: str) -> None:
        ran = _run(shell, "sh", "-c", "exec <&-; exit 4", stdin=os.urandom(100_000))
        assert ran.code == 4

    def test_an_open_stdin_at_the_end(self, shell: str) -> None:
        assert _run(shell, "true", stdin=b"").code == 0

    @pytest.mark.parametrize("command", ["no-such-program", "/no/such", "/etc", "exit", "cd"])
    @pytest.mark.parametrize("tty", [False, True])
    def test_what_is_no_program(self, shell: str, command: str, tty: bool) -> None:
        assert _run(shell, command, "3", tty=tty).words == [Lacks("command")]

    def test_an_image_without_what_it_takes(self, shell: str, tmp_path: Path) -> None:
        for name in ("dd", "true"):
            (tmp_path / name).symlink_to(str(shutil.which(name)))
        env = {"PATH": str(tmp_path)}
        assert _run(shell, "true", env=env).words == [Lacks("base64")]
        (tmp_path / "base64").symlink_to(str(shutil.which("base64")))
        assert _run(shell, "true", env=env).code == 0
        assert _run(shell, "true", stdin=b"", env=env).words == [Lacks("stty")]
        assert _run(shell, "true", tty=True, env=env).code == 0

    def test_a_terminal(self, shell: str) -> None:
        script = (
            "test -t 0 && test -t 1 && test -t 2 && echo ready && read x && echo got $x; exit 5"
        )
        ran = _run(shell, "sh", "-c", script, stdin=b"it\n", tty=True)
        assert ran.output["stdout"].endswith(b"got it\r\n")
        assert ran.code == 5

    def test_a_key_interrupts_the_command_alone(self, shell: str) -> None:
        script = "trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 0.01; done"
        ran = _run(shell, "sh", "-c", script, stdin=b"\x03", tty=True)
        assert ran.code == 6
        assert ran.output["stdout"].endswith(b"caught\r\n")


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["dash", "bash"])
class TestBrokenPrograms:
    """In shells that look for programs in PATH: busybox goes before it with its own."""

    @pytest.mark.parametrize("broken", ["dd", "base64"])
    def test_nothing_is_lost_in_silence(self, shell: str, tmp_path: Path, broken: str) -> None:
        (tmp_path / broken).write_text("#!/bin/sh\nkill -9 $$\n")
        (tmp_path / broken).chmod(0o755)
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        with pytest.raises(Unavailable, match="lost"):
            _run(shell, "echo", "out", env=env)

    def test_no_input_is_lost_in_silence(self, shell: str, tmp_path: Path) -> None:
        real = shutil.which("base64")
        script = f'#!/bin/sh\n[ "$1" = -d ] && kill -9 $$\nexec {real}\n'
        (tmp_path / "base64").write_text(script)
        (tmp_path / "base64").chmod(0o755)
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        with pytest.raises(Unavailable, match="lost"):
            _run(shell, "cat", stdin=b"in", env=env)
