"""The kubelet's HTTPS API, by real kubectl through the real API server, which verifies it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import control_plane_kit
import node_kit
import pytest
from control_plane_kit import PATIENCE, ControlPlane, Namespace
from node_kit import Place, container, until

from tools.control_plane import audit
from tools.control_plane.components import METRICS

pytestmark = pytest.mark.slow

WORDS = "for word in one two three; do echo $word; done"
SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"you asked for " + self.path.encode() + b" " + b"x" * 300000)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer)
print("listening", flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def place(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A node that is Ready, for all tests here."""
    with node_kit.place(control_plane, tmp_path_factory.mktemp("api")) as made:
        made.up()
        yield made


@pytest.fixture(scope="module")
def room(control_plane: ControlPlane, place: Place) -> Iterator[Namespace]:
    """With a pod `p` that has spoken in both of its containers, and goes on."""
    with control_plane_kit.namespace(control_plane) as made:
        main = container(f"{WORDS}; exec sleep 1000")
        side = container("echo aside; exec sleep 1000", "side")
        place.pod(made, "p", containers=[main, side])
        place.running(made, "p")
        until(lambda: "three" in made.kubectl("logs", "p", "-c", "main").out, "it has spoken")
        yield made


@pytest.fixture(params=["websocket", "spdy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How kubectl speaks to the API server: both ways that there are."""
    wanted = "true" if request.param == "websocket" else "false"
    monkeypatch.setenv("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", wanted)
    monkeypatch.setenv("KUBECTL_PORT_FORWARD_WEBSOCKETS", wanted)
    return str(request.param)


@contextlib.contextmanager
def going(namespace: Namespace, *words: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A kubectl that goes on, with its stdout and stderr in one pipe."""
    plane = namespace.plane
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "HOME": str(plane.folder),
        "KUBECONFIG": str(plane.kubeconfig),
    }
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options}
    command = [str(plane.programs["kubectl"]), "--namespace", namespace.name, *words]
    with subprocess.Popen(command, env=environment, stderr=subprocess.STDOUT, **streams) as process:
        try:
            yield process
        finally:
            process.kill()


# -- logs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "one\ntwo\nthree\n"),
        (["--tail=1"], "three\n"),
        (["--tail=0"], ""),
        (["--since=1h"], "one\ntwo\nthree\n"),
        (["--since-time=2100-01-01T00:00:00Z"], ""),
        (["--limit-bytes=5"], "one\nt"),
    ],
)
def test_logs(room: Namespace, words: list[str], expected: str) -> None:
    assert room.kubectl("logs", "p", "-c", "main", *words).out == expected


def test_logs_with_their_times_and_of_all_containers(room: Namespace) -> None:
    lines = room.kubectl("logs", "p", "-c", "main", "--timestamps").out.splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"
    assert [re.fullmatch(f"{stamp} (.*)", line).group(1) for line in lines] == [
        "one",
        "two",
        "three",
    ]
    both = room.kubectl("logs", "p", "--all-containers", "--prefix").out.splitlines()
    assert "[pod/p/side] aside" in both
    assert "[pod/p/main] three" in both
    said = room.kubectl("logs", "p", "-c", "nobody", fails=True).err
    assert "container nobody is not valid for pod p" in said
    assert "not found" in room.kubectl("logs", "nobody", fails=True).err


def test_logs_are_followed_to_the_very_end(place: Place, room: Namespace) -> None:
    door = place.folder / "door"
    wait = f"while [ ! -e {door} ]; do sleep 0.05; done"
    place.pod(room, "late", f"echo early; {wait}; echo late; printf end; exit 4")
    place.running(room, "late")
    with going(room, "logs", "-f", "late") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == b"early\n"
        door.touch()
        assert following.communicate(timeout=PATIENCE)[0] == b"late\nend"
        assert following.returncode == 0
    status = place.ended(room, "late")["status"]["containerStatuses"][0]
    assert status["state"]["terminated"]["exitCode"] == 4


def test_logs_of_the_run_before(place: Place, room: Namespace) -> None:
    once = place.folder / "once"
    script = f"if [ -e {once} ]; then echo second; exec sleep 1000; fi; touch {once}; echo first"
    place.pod(room, "again", f"{script}; exit 1", restartPolicy="OnFailure")
    assert "previous terminated container" in room.kubectl("logs", "-p", "p", fails=True).err
    restarted = lambda pod: pod["status"].get("containerStatuses", [{}])[0].get("restartCount")  # noqa: E731
    room.until("pods", "again", restarted)
    until(lambda: room.kubectl("logs", "again").out == "second\n", "its second run has spoken")
    assert room.kubectl("logs", "-p", "again").out == "first\n"


# -- exec, attach, cp, port-forward, run -----------------------------------------------------------


def test_exec(room: Namespace, way: str) -> None:
    log = room.plane.audit_log
    since = audit.position(log)
    run = ("exec", "p", "-c", "side", "-i", "--")
    script = "cat; echo aside >&2; exit 7"
    sent = "".join(f"line {number}\n" for number in range(20_000))
    done = room.kubectl(*run, "/bin/sh", "-c", script, stdin=sent, fails=True)
    assert done.code == 7
    assert done.out == sent
    assert done.err.splitlines()[0] == "aside"
    assert room.kubectl("exec", "p", "-c", "main", "--", "echo", "a", "b c").out == "a b c\n"
    missing = room.kubectl("exec", "p", "-c", "main", "--", "/no/such/thing", fails=True)
    assert "no such file or directory" in missing.err.lower()
    # A WebSocket is a GET, SPDY a POST.
    verb, other = ("get", "create") if way == "websocket" else ("create", "get")
    until(lambda: audit.calls(log, "kubectl/", since)[f"{verb} pods/exec 101"] == 3, "it is told")
    assert not [one for one in audit.calls(log, "kubectl/", since) if f"{other} pods/exec" in one]


def test_exec_at_a_terminal(room: Namespace, way: str) -> None:
    ours, theirs = pty.openpty()
    try:
        script = "test -t 0 && test -t 1 && echo a terminal; read word; echo got $word; exit 5"
        words = ("exec", "p", "-c", "main", "-it", "--", "/bin/sh", "-c", script)
        with going(room, *words, stdin=theirs, stdout=theirs) as typing:
            said = b""
            while b"a terminal" not in said:
                said += os.read(ours, 4096)
            os.write(ours, b"this\r")
            while b"got this" not in said:
                said += os.read(ours, 4096)
            assert typing.wait(PATIENCE) == 5
    finally:
        os.close(ours)
        os.close(theirs)


def test_attach(place: Place, room: Namespace, way: str) -> None:
    name = f"heard-{way}"
    script = "read word; echo got $word; echo aside >&2; exit 0"
    place.pod(room, name, containers=[container(script, stdin=True, stdinOnce=True)])
    place.running(room, name)
    done = room.kubectl("attach", name, "-i", stdin="this\n")
    assert "got this" in done.out
    assert "aside" in done.err
    assert place.ended(room, name)["status"]["phase"] == "Succeeded"


def test_cp(place: Place, room: Namespace, way: str) -> None:
    here, there = place.folder / f"here-{way}", place.folder / f"there-{way}"
    (here / "in").mkdir(parents=True)
    content = os.urandom(1_500_000)
    (here / "in" / "bytes").write_bytes(content)
    there.mkdir()
    room.kubectl("cp", str(here), f"p:{there}/copied", "-c", "main")
    assert (there / "copied" / "in" / "bytes").read_bytes() == content
    back = place.folder / f"back-{way}"
    room.kubectl("cp", f"p:{there}/copied/in/bytes", str(back), "-c", "main")
    assert back.read_bytes() == content
    for one in (here, there):
        shutil.rmtree(one)


def test_port_forward(place: Place, room: Namespace, way: str) -> None:
    name, port = f"server-{way}", node_kit.free_port()
    command = [sys.executable, "-c", SERVER, str(port)]
    place.pod(room, name, containers=[{"name": "main", "image": "x", "command": command}])
    # kubectl gives up its whole session at the first connection that nothing in the pod takes.
    place.running(room, name)
    until(lambda: "listening" in room.kubectl("logs", name).out, "the server listens")
    with going(room, "port-forward", name, f":{port}") as forwarding:
        assert forwarding.stdout is not None
        said = forwarding.stdout.readline().decode()
        local = int(re.match(r"Forwarding from 127.0.0.1:(\d+) ->", said).group(1))

        def asked(path: str) -> bytes:
            connection = http.client.HTTPConnection("127.0.0.1", local, timeout=PATIENCE)
            with contextlib.closing(connection):
                connection.request("GET", path)
                return connection.getresponse().read()

        for number in range(3):
            body = asked(f"/{number}")
            assert body == f"you asked for /{number} ".encode() + b"x" * 300_000


def test_run_and_remove(place: Place, room: Namespace) -> None:
    where = json.dumps({"spec": {"nodeName": place.name}})
    words = ("run", "guest", "--rm", "-i", "--restart=Never", f"--overrides={where}")
    script = "read word; echo got $word"
    done = room.kubectl(
        *words, "--image=x", "--command", "--", "/bin/sh", "-c", script, stdin="this\n"
    )
    assert "got this" in done.out
    assert 'pod "guest" deleted' in done.out
    place.gone(room, "guest")


# -- top, and what is asked straight ---------------------------------------------------------------


def test_top(control_plane: ControlPlane, place: Place, room: Namespace) -> None:
    if METRICS not in control_plane.programs:
        pytest.skip("metrics-server is not built")
    busy = container("while :; do :; done", resources={"limits": {"cpu": "1"}})
    place.pod(room, "busy", containers=[busy])
    control_plane.start_one(METRICS)
    try:
        metrics = "/apis/metrics.k8s.io/v1beta1"

        def measured() -> bool:
            code, _ = room.api.request("GET", f"{metrics}/namespaces/{room.name}/pods/busy")
            node, _ = room.api.request("GET", f"{metrics}/nodes/{place.name}")
            return code == node == 200

        until(measured, "metrics-server has numbers")
        line = room.kubectl("top", "pod", "busy", "--no-headers").out.split()
        assert line[0] == "busy"
        assert int(line[1].removesuffix("m")) > 20
        assert int(line[2].removesuffix("Mi")) >= 0
        by = room.kubectl("top", "pod", "busy", "--containers", "--no-headers").out.split()
        assert by[:2] == ["busy", "main"]
        node = room.kubectl("top", "node", place.name, "--no-headers").out.split()
        assert node[0] == place.name
        assert int(node[1].removesuffix("m")) > 20
    finally:
        control_plane.stop_one(METRICS)
        room.api.delete(room.path("pods", "busy"), grace=0)


def test_who_may_ask_is_answered(place: Place, room: Namespace) -> None:
    with contextlib.closing(place.kubelet_api()) as kubelet:
        assert kubelet.request("GET", "/healthz") == (200, b"ok")
        names = [pod["metadata"]["name"] for pod in kubelet.get("/pods")["items"]]
        assert "p" in names
        summary = kubelet.get("/stats/summary")
        assert summary["node"]["nodeName"] == place.name
        pods = {pod["podRef"]["name"]: pod for pod in summary["pods"]}
        assert {one["name"] for one in pods["p"]["containers"]} == {"main", "side"}
        assert b'pod="p"' in kubelet.request("GET", "/metrics/resource")[1]
        assert kubelet.request("GET", "/nothing")[0] == 404


def test_nobody_unknown_is_answered(place: Place, room: Namespace) -> None:
    port = place.node()["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    tls = ssl.create_default_context(cafile=str(place.plane.ca))

    def asked(path: str, token: str = "") -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=tls)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status

    everything = ["/pods", "/healthz", "/stats/summary", "/metrics/resource", "/nothing"]
    everything += [f"/containerLogs/{room.name}/p/main", f"/exec/{room.name}/p/main?command=id"]
    for path in everything:
        assert asked(path) == 401, path
        assert asked(path, "nonsense") == 401, path
    # Known, and not allowed to.
    with contextlib.closing(place.kubelet_api(user="nobody-special")) as stranger:
        for path in everything:
            code, said = stranger.request("GET", path)
            assert code == 403, path
            assert b"user=nobody-special" in said
    # A token that may see the statistics sees them, and nothing else.
    rules = [{"apiGroups": [""], "resources": ["nodes/stats"], "verbs": ["get"]}]
    kubeconfig = place.plane.account_kubeconfig(room.name, "watcher", rules)
    token = json.loads(kubeconfig.read_text())["users"][0]["user"]["token"]
    assert asked("/stats/summary", token) == 200
    assert asked("/pods", token) == 403


def test_kubectl_without_the_right_is_refused(place: Place, room: Namespace) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get"]}]
    reader = place.plane.account_kubeconfig(room.name, "reader", rules)
    assert room.kubectl("logs", "p", "-c", "side", kubeconfig=reader).out == "aside\n"
    said = room.kubectl("exec", "p", "-c", "side", "--", "id", kubeconfig=reader, fails=True).err
    assert 'cannot create resource "pods/exec"' in said
