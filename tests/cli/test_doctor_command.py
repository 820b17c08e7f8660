"""`podbridge doctor`: what each look finds, how it is told, and that nothing makes it hang."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands_kit import home, invoke

from bridge.errors import Unavailable
from bridge.kubelet import alive as liveness
from bridge.kubelet import diagnosis, permissions, reachability
from bridge.kubelet.certificates import Pair, self_signed
from bridge.kubelet.client import ApiClient, Forbidden
from bridge.kubelet.credentials import Credentials
from bridge.kubelet.diagnosis import Answer
from bridge.kubelet.findings import Finding
from bridge.kubelet.node import NodeSpec
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.times import rfc3339
from bridge.tls import show

__all__ = ["home"]

pytestmark = pytest.mark.usefixtures("home")
TOKEN = "sentinel-of-a-token"


def kubeconfig(place: Path, server: str) -> str:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    file = place / "kubeconfig"
    file.write_text(json.dumps(content))
    return str(file)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


# The command.


def test_an_api_server_that_is_away_is_one_finding_beside_the_provider(tmp_path: Path) -> None:
    server = f"https://127.0.0.1:{free_port()}"
    file = kubeconfig(tmp_path, server)
    code, out, error = invoke("doctor", "--kubeconfig", file, "--on", "null", "-o", "json")
    assert code == 1
    found = {one["look"]: one for one in json.loads(out)["findings"]}
    assert found["API server"]["level"] == "problem"
    assert found["API server"]["message"].startswith(f"{server}: ")
    assert file in found["API server"]["advice"]
    assert found["backend null"]["level"] == "ok"
    assert set(found) == {"configuration", "API server", "provider", "backend null"}
    assert TOKEN not in out + error


def test_what_is_printed_for_people(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, f"https://127.0.0.1:{free_port()}")
    code, out, _ = invoke("doctor", "--kubeconfig", file, "--on", "null")
    lines = out.splitlines()
    assert code == 1
    assert lines[0].split(maxsplit=2)[:2] == ["ok", "configuration"]
    assert any(line.startswith("problem  API server") for line in lines)
    assert any(line.strip().startswith("-> we are ") for line in lines)
    assert "\x1b" not in out


def test_without_backends_no_provider_is_looked_at(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, f"https://127.0.0.1:{free_port()}")
    code, out, _ = invoke("doctor", "--kubeconfig", file)
    assert code == 1
    assert out.startswith("note     configuration")
    assert "no backend is configured, so that no provider was looked at" in out
    assert "--provider ADDRESS" in out


def test_a_provider_that_is_away(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, f"https://127.0.0.1:{free_port()}")
    address = f"unix://{tmp_path}/none.sock"
    code, out, _ = invoke("doctor", "--kubeconfig", file, "--provider", address, "-o", "json")
    assert code == 1
    found = {one["look"]: one for one in json.loads(out)["findings"]}
    assert found["provider"]["level"] == "problem"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kubeconfig", "none"], "none: there is no such file"),
        (["--on", "nothing"], '--on: found "nothing"'),
        (["-o", "xml"], "'xml' is not one of"),
    ],
)
def test_bad_input(words: list[str], said: str) -> None:
    code, out, error = invoke("doctor", *words)
    assert code == 2
    assert said in error
    assert not out


def test_a_wrong_configuration_is_bad_input(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("apiVersion: podbridge.io/v1\nnodes:\n- nam: x\n")
    code, _, error = invoke("--config", str(file), "doctor")
    assert code == 2
    assert "nodes[0].nam: unknown key" in error


class Refusing(http.server.BaseHTTPRequestHandler):
    """An API server that knows nobody."""

    def do_GET(self) -> None:
        body = json.dumps({"kind": "Status", "code": 401, "message": "Unauthorized"}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def served(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_api_server_that_refuses_us_is_told_with_who_we_are(tmp_path: Path) -> None:
    with served(Refusing) as server:
        file = kubeconfig(tmp_path, server)
        code, out, error = invoke("doctor", "--kubeconfig", file, "--on", "null")
    assert code == 1
    assert f"{server}: Unauthorized" in out
    assert f"-> we are {file}" in out
    assert TOKEN not in out + error


class Empty(Refusing):
    """One that answers its version, and to all else that there is nothing."""

    def do_GET(self) -> None:
        """404, as an API server that lacks everything."""
        found = self.path == "/version"
        body = json.dumps({"gitVersion": "v1.36.3"} if found else {"kind": "Status"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()


def test_an_api_server_that_lacks_everything_gives_findings(tmp_path: Path) -> None:
    with served(Empty) as server:
        file = kubeconfig(tmp_path, server)
        code, out, _ = invoke("doctor", "--kubeconfig", file, "--on", "null", "-o", "json")
    assert code == 1
    found = {one["look"]: one for one in json.loads(out)["findings"]}
    assert found["API server"]["message"] == f"{server} answers: v1.36.3"
    assert found["clock"]["level"] == "ok"
    assert found["node podbridge"]["message"] == "there is none"
    assert found["lease of podbridge"]["level"] == "problem"
    assert found["metrics-server"]["level"] == "note"


# Each look.


async def test_a_look_that_hangs_is_a_finding() -> None:
    async def hang() -> list[Finding]:
        await asyncio.Event().wait()
        return []

    (found,) = await diagnosis.bounded("it", hang, limit=0.01)
    assert (found.level, found.look) == ("problem", "it")
    assert "no answer within" in found.message


async def test_what_may_not_be_looked_at_is_no_problem() -> None:
    async def refused() -> list[Finding]:
        raise Forbidden("nodes is forbidden")

    (found,) = await diagnosis.bounded("it", refused)
    assert found.level == "note"
    assert "--kubeconfig" in found.advice


@pytest.mark.parametrize(
    ("git_version", "level"),
    [
        ("v1.29.9", "problem"),
        ("v1.30.0", "ok"),
        ("v1.36.2-eks-1", "ok"),
        ("v1.37.0", "note"),
        ("v1.39.0", "note"),
        ("v1.40.0", "problem"),
        ("what", "note"),
    ],
)
def test_versions(git_version: str, level: str) -> None:
    assert diagnosis.version("https://a", git_version).level == level


@pytest.mark.parametrize(
    ("off", "level", "said"),
    [
        (0.0, "ok", "within 10 seconds"),
        (9.0, "ok", "within 10 seconds"),
        (-60.0, "problem", "seconds behind the API server"),
        (60.0, "problem", "seconds ahead of the API server"),
    ],
)
async def test_clocks(off: float, level: str, said: str) -> None:
    with served(Empty) as server:
        (found,) = await diagnosis.clock(credentials(server), lambda: time.time() + off)
    assert found.level == level
    assert said in found.message


def credentials(server: str) -> Credentials:
    async def header(_renew: bool) -> str:
        return ""

    return Credentials(server, lambda: None, header)


NODE = {
    "metadata": {"name": "n", "uid": "u"},
    "spec": {
        "providerID": "podbridge://c/n",
        "taints": [{"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"}],
    },
    "status": {
        "addresses": [{"type": "InternalIP", "address": "10.0.0.7"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "MemoryPressure", "status": "False"},
        ],
    },
}


def node_with(**status: Any) -> list[Finding]:
    found = json.loads(json.dumps(NODE))
    found["status"]["conditions"][0] |= status
    return diagnosis.node(found, NodeSpec("c", "n", ""))


def test_a_node_that_is_well() -> None:
    (found,) = node_with()
    assert found == Finding("node n", "ok", "Ready since 2026-01-01T00:00:00Z; tainted")


def test_a_node_that_is_not_ready_says_why() -> None:
    (found,) = node_with(status="False", message="the provider does not answer")
    assert found.level == "problem"
    assert found.message.endswith("the provider does not answer")


def test_a_node_that_nobody_keeps() -> None:
    (found,) = node_with(status="Unknown", lastHeartbeatTime="2026-01-01T00:00:00Z")
    assert found.level == "problem"
    assert "nobody has told of it since 2026-01-01T00:00:00Z" in found.message


def test_a_cordoned_node_is_a_note() -> None:
    found = json.loads(json.dumps(NODE))
    found["spec"]["unschedulable"] = True
    _, note = diagnosis.node(found, NodeSpec("c", "n", ""))
    assert (note.level, note.advice) == ("note", "kubectl uncordon n")


def test_a_node_under_pressure() -> None:
    found = json.loads(json.dumps(NODE))
    found["status"]["conditions"][1] |= {"status": "True", "message": "full"}
    assert diagnosis.node(found, NodeSpec("c", "n", ""))[1].message == "MemoryPressure: full"


def test_a_node_of_another_cluster() -> None:
    (found,) = diagnosis.node(NODE, NodeSpec("d", "n", ""))
    assert found.level == "problem"
    assert "was made for the cluster id c" in found.message


def test_a_node_identity_is_not_asked_about_its_pods() -> None:
    asked = permissions.needed("n", "system:node:n", knows_cluster=True, knows_cas=True)
    resources = {one.resource for one in asked}
    assert not resources & {"pods", "secrets", "configmaps", "pods/status", "namespaces"}
    assert {"nodes", "nodes/status", "leases", "certificatesigningrequests"} <= resources


def test_a_service_account_is_asked_about_everything() -> None:
    asked = permissions.needed(
        "n", "system:serviceaccount:a:b", knows_cluster=False, knows_cas=False
    )
    assert {"pods", "secrets", "namespaces", "leases"} <= {one.resource for one in asked}
    (status,) = (one for one in asked if one.resource == "nodes/status")
    wanted = {"resource": "nodes", "subresource": "status", "verb": "patch", "name": "n"}
    assert status.attributes == wanted
    ca = [one for one in asked if one.name == "extension-apiserver-authentication"]
    assert [one.namespace for one in ca] == ["kube-system"]


# How the API server reaches a node. Its words are those of the real one.


def status(code: int, message: str) -> Answer:
    body = {"kind": "Status", "code": code, "message": message}
    return Answer(code, None, json.dumps(body))


DIAL = "error trying to reach service: dial tcp 10.0.0.7:10250: "


@pytest.mark.parametrize(
    ("answer", "level", "said"),
    [
        (Answer(200, None, "ok"), "ok", "the API server reaches 10.0.0.7:10250"),
        (status(503, f"{DIAL}connect: connection refused"), "problem", "connection refused"),
        (status(503, f"{DIAL}i/o timeout"), "problem", "no answer in time"),
        (status(504, "context deadline exceeded"), "problem", "no answer in time"),
        (status(503, f"{DIAL}connect: no route to host"), "problem", "no way to that address"),
        (
            status(
                503,
                "error trying to reach service: tls: failed to verify certificate: x509:"
                " certificate signed by unknown authority",
            ),
            "problem",
            "it does not verify the certificate",
        ),
        (status(500, "something new"), "problem", "(something new)"),
        (Answer(401, None, "Unauthorized"), "problem", "does not know the API server"),
        (Answer(403, None, "Forbidden (user=a)"), "problem", "refuses the API server"),
        (Answer(500, None, "healthz check failed"), "problem", "answers 500: healthz check"),
        (status(403, 'cannot get resource "nodes/proxy"'), "note", "was not tried"),
    ],
)
def test_the_way_from_the_api_server(answer: Answer, level: str, said: str) -> None:
    found = reachability.judged(answer, "n", "10.0.0.7:10250")
    assert found.level == level
    assert said in found.message
    if level == "problem" and answer.code != 500:
        assert found.message.startswith("logs and exec will not work: ")
        assert found.message.endswith("; pods still run")
        assert found.advice


async def test_an_api_server_that_waits_for_a_node_is_not_waited_for() -> None:
    gate = threading.Event()

    class Waiting(Refusing):
        def do_GET(self) -> None:
            gate.wait(30)

    with served(Waiting) as server:
        try:
            async with ApiClient(credentials(server)) as client:
                (found,) = await reachability.reached(client, "n", "10.0.0.7", 1, 0.05)
        finally:
            gate.set()
    assert "the API server cannot reach 10.0.0.7:1 (no answer in time)" in found.message


REFUSED = 'Get "https://127.0.0.1:1/containerLogs/a/b/c": dial tcp 127.0.0.1:1: connect: '


@pytest.mark.parametrize(
    ("answer", "level", "said"),
    [
        (Answer(200, None, ""), "ok", "reaches"),
        (status(400, 'container "c" in pod "b" is waiting to start'), "ok", "reaches"),
        (status(404, "the server could not find the requested resource"), "ok", "reaches"),
        (status(404, 'pods "b" not found'), "note", "was not tried"),
        (
            status(403, 'pods "b" is forbidden: User "u" cannot get resource "pods/log"'),
            "note",
            "was not tried",
        ),
        (status(401, "Unauthorized"), "problem", "does not know the API server"),
        (status(403, "Forbidden (user=a, verb=get)"), "problem", "refuses the API server"),
        (status(500, f"{REFUSED}connection refused"), "problem", "connection refused"),
        (
            status(500, "tls: failed to verify certificate: x509: certificate is valid for ::1"),
            "problem",
            "it does not verify the certificate",
        ),
    ],
)
def test_the_way_from_the_api_server_by_a_log(answer: Answer, level: str, said: str) -> None:
    found = reachability.judged_log(answer, "n", "127.0.0.1:10250")
    assert (found.level, said in found.message) == (level, True), found


def test_where_a_node_is() -> None:
    assert reachability.endpoint(NODE) == ("10.0.0.7", 10250)
    assert reachability.endpoint({}) == ("", 0)


# Its certificate.


@contextlib.contextmanager
def tls_server(pair: Pair, *, hangs: bool = False) -> Iterator[int]:
    """Shakes hands and nothing else; or not even that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    show(context, pair.certificate, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        if not hangs:
            thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            # Wakes the accept, which a close alone does not.
            listener.shutdown(socket.SHUT_RDWR)
            if not hangs:
                thread.join(10)


async def test_a_certificate_is_told_with_its_end() -> None:
    pair = self_signed("n", (), ("127.0.0.1",))
    with tls_server(pair) as port:
        (found,) = await reachability.certificate("n", "127.0.0.1", port)
        (late,) = await reachability.certificate("n", "127.0.0.1", port, lambda: pair.not_after + 1)
        (soon,) = await reachability.certificate(
            "n", "127.0.0.1", port, lambda: pair.not_after - 3600
        )
    assert found.level == "note"
    assert f"self-signed, until {rfc3339(pair.not_after)}" in found.message
    assert (late.level, "expired at" in late.message) == ("problem", True)
    assert (soon.level, "nobody has renewed it" in soon.message) == ("problem", True)


async def test_a_certificate_for_another_address() -> None:
    with tls_server(self_signed("n", (), ("10.0.0.7",))) as port:
        (found,) = await reachability.certificate("n", "127.0.0.1", port)
    assert found.level == "problem"
    assert "is not for 127.0.0.1" in found.message


async def test_a_node_that_is_not_reached_from_here_is_a_note() -> None:
    (found,) = await reachability.certificate("n", "127.0.0.1", free_port())
    assert found.level == "note"


def test_what_is_no_certificate() -> None:
    assert reachability.described(b"no", "it", "10.0.0.7", 0.0).level == "problem"


# The provider.


class Offers:
    """A provider of which only WatchNode is known."""

    def __init__(self, *offers: pb.WatchNodeResponse) -> None:
        self._offers = offers

    async def watch_node(self, _: pb.WatchNodeRequest) -> Any:
        """Each in turn, and then nothing new."""
        for one in self._offers:
            yield one
        await asyncio.Event().wait()


def offer(version: str, **ready: bool) -> pb.WatchNodeResponse:
    backends = [
        pb.Backend(name=name, type="null", ready=one, message="" if one else "is away")
        for name, one in ready.items()
    ]
    return pb.WatchNodeResponse(provider_version=version, backends=backends)


async def test_backends_may_take_a_moment_to_become_ready() -> None:
    client: Any = Offers(offer("9", a=False), offer("9", a=True))
    version, backend = await diagnosis.provider(client, "c", "n")
    assert version.level == "note"
    assert backend.level == "ok"


async def test_a_backend_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "OPENING", 0.01)
    client: Any = Offers(offer("", a=True, b=False))
    _, a, b = await diagnosis.provider(client, "c", "n")
    assert (a.level, b.level) == ("ok", "problem")
    assert "is away" in b.message


async def test_a_provider_without_backends() -> None:
    client: Any = Offers(offer(""))
    assert (await diagnosis.provider(client, "c", "n"))[1].level == "problem"


# Whether we are alive.


@contextlib.contextmanager
def kept(place: Path, node: str) -> Iterator[None]:
    """As a replica keeps its name."""
    folder = place / "state" / "podbridge" / "nodes" / "some-cluster" / node
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "replica").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def alive(place: Path, port: int) -> tuple[int, str]:
    config = place / "alive.yaml"
    config.write_text(f"apiVersion: podbridge.io/v1\nnodes:\n- name: n\n  port: {port}\n")
    code, out, _ = invoke("--config", str(config), "doctor", "--alive")
    return code, out


def test_alive_without_anybody(tmp_path: Path) -> None:
    code, out = alive(tmp_path, free_port())
    assert code == 1
    assert "no process keeps it" in out


def test_alive_ends_with_the_process(tmp_path: Path) -> None:
    with kept(tmp_path, "n"):
        assert alive(tmp_path, free_port())[0] == 0
    assert alive(tmp_path, free_port())[0] == 1


def test_alive_is_who_waits_for_its_turn(tmp_path: Path) -> None:
    with kept(tmp_path, "n"):
        code, out = alive(tmp_path, free_port())
    assert code == 0
    assert "waits for its turn" in out


def test_alive_is_who_answers(tmp_path: Path) -> None:
    with kept(tmp_path, "n"), tls_server(self_signed("n", (), ("127.0.0.1",))) as port:
        code, out = alive(tmp_path, port)
    assert code == 0
    assert "kept" in out


def test_who_hangs_is_not_alive() -> None:
    with tls_server(self_signed("n", (), ("127.0.0.1",)), hangs=True) as port:
        with pytest.raises(Unavailable, match="is open and does not answer"):
            liveness.answers(port, limit=0.1)
