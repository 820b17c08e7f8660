"""Logs of containers of the simulated Azure, and sessions with them by WebSocket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import websocket
from azure.mgmt.containerinstance import models as m
from azure_kit import RG, Aci, group, joined, refusal, running, shell, until

from adapters.simulators.azure import Settings, Timing

pytestmark = pytest.mark.slow


@pytest.fixture
def aci() -> Iterator[Aci]:
    with running() as cloud:
        yield Aci(cloud)


@contextlib.contextmanager
def connected(aci: Aci, offered: Any, **more: Any) -> Iterator[websocket.WebSocket]:
    """As the Azure CLI does it, by the same library."""
    assert offered.web_socket_uri.startswith("wss://")
    with joined(offered.web_socket_uri, aci.cloud.simulator.certificates, **more) as session:
        yield session


def said(session: websocket.WebSocket, end: str = "") -> str:
    """What comes until it ends so, or the session does."""
    text = ""
    while not (end and text.endswith(end)):
        code, data = session.recv_data()
        if code == websocket.ABNF.OPCODE_CLOSE:
            return text
        assert code == websocket.ABNF.OPCODE_BINARY
        text += data.decode().replace("\r\n", "\n")
    return text


def execute(aci: Aci, command: str, **more: Any) -> Any:
    size = m.ContainerExecRequestTerminalSize(rows=33, cols=77)
    request = m.ContainerExecRequest(command=command, terminal_size=size)
    return aci.containers.execute_command(RG, "one", "main", request, **more)


def test_exec_is_a_terminal_that_its_password_opens(aci: Aci) -> None:
    aci.put(group(shell("exec sleep 60")))
    offered = execute(aci, "sh")
    with connected(aci, offered) as session:
        session.send(offered.password)
        session.send("stty size; tty -s && echo a $((20 + 22)) terminal; exit 5\n")
        assert "33 77\na 42 terminal\n" in said(session)
    # Each can be joined once.
    with pytest.raises(websocket.WebSocketBadStatusException, match="404"):
        with connected(aci, offered):
            pass


def test_exec_takes_bytes_too_and_no_arguments(aci: Aci) -> None:
    aci.put(group(shell("exec sleep 60")))
    offered = execute(aci, "cat")
    with connected(aci, offered) as session:
        session.send(offered.password)
        session.send_binary(b"typed\n")
        assert said(session, "typed\ntyped\n")
    offered = execute(aci, "echo no")
    with connected(aci, offered) as session:
        session.send(offered.password)
        assert "echo no" in said(session)


def test_a_wrong_password_opens_nothing(aci: Aci) -> None:
    aci.put(group(shell("exec sleep 60")))
    with connected(aci, execute(aci, "sh")) as session:
        session.send("guessed")
        code, data = session.recv_data()
        assert code == websocket.ABNF.OPCODE_CLOSE
        assert data[2:] == b"the password is wrong"
    status, answer, _ = aci.cloud.http("GET", "/_bridge/exec-none")
    assert (status, answer) == (404, None)


@pytest.mark.parametrize("by_header", [True, False])
def test_attach_is_what_a_container_writes(aci: Aci, tmp_path: Any, by_header: bool) -> None:
    gate = tmp_path / "gate"
    aci.put(group(shell(f"until test -e {gate}; do echo out; echo err >&2; sleep 0.05; done")))
    offered = aci.containers.attach(RG, "one", "main")
    header = {"header": {"Authorization": offered.password}} if by_header else {}
    with connected(aci, offered, **header) as session:
        if not by_header:
            session.send(offered.password)
        text = ""
        while not {"out", "err"} <= set(text.split()):
            text += said(session, "\n")
        gate.touch()
        # It is over with the container.
        said(session)


def test_the_log_of_what_runs_and_its_limit(aci: Aci) -> None:
    line = "x" * 99
    aci.put(group(shell(f"yes {line} | head -n 50000; echo end; exec sleep 60")))
    log = until(lambda: text if (text := aci.log()).endswith("end\n") else None)
    # 5 million bytes were written.
    assert len(log) == 4 * 1024 * 1024
    assert aci.log(tail=2) == f"{line}\nend\n"
    moment, _, text = aci.log(tail=1, timestamps=True).partition(" ")
    assert (moment[:2], text) == ("20", "end\n")


def test_what_is_left_of_the_log_of_what_has_ended(aci: Aci) -> None:
    aci.put(group(shell("seq 1 2000")))
    aci.when("Succeeded")
    lines = aci.log().splitlines()
    assert (len(lines), lines[-1]) == (1000, "2000")
    assert aci.log(tail=1) == "2000\n"
    aci.put(group(shell(f"yes {'y' * 99} | head -n 500")), "wide")
    aci.when("Succeeded", "wide")
    assert len(aci.log("wide")) == 16 * 1024


def test_a_log_before_there_is_one() -> None:
    with running(Settings(timing=Timing(pending=1e9))) as cloud:
        aci = Aci(cloud)
        aci.begin(group(shell("echo hello")))
        assert refusal(aci.log)[:2] == (409, "ContainerGroupTransitioning")
        # Then the containers begin.
        cloud.control("POST", "time", {"skip": 1e9})
        aci.when("Succeeded")
        assert aci.log() == "hello\n"


def test_where_nothing_is_run_there_is_nothing_to_join() -> None:
    with running(run_on="null") as cloud:
        aci = Aci(cloud)
        aci.put(group(shell("exec sleep 60")))
        assert aci.log() == ""
        offered = execute(aci, "sh")
        with connected(aci, offered) as session:
            session.send(offered.password)
            assert said(session) == "nothing is run here\n"
