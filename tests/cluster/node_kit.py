"""Our own processes at a control plane: a virtual node, its provider, and what they leave behind.

The interface is stable, because several files of tests stand on it: `place`, `Place` and `Running`
keep their names and meanings. A test makes its place by a fixture of a few lines:

    @pytest.fixture
    def place(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Place]:
        with node_kit.place(control_plane, tmp_path) as made:
            yield made

    def test_it(place: Place, namespace: Namespace) -> None:
        place.up()                                        # `podbridge up`, and the node is Ready
        place.pod(namespace, "p", "echo hello")
        place.ended(namespace, "p")                       # the pod, once its phase is terminal

What is not said otherwise: the node has a name and a port of its own and no taint, it runs on
`process`, is a service account with no rights but those of `bridge.kubelet.rbac`, and shows a
certificate that the API server can verify. Whatever a test starts is ended by `close`, which also
removes the Node, and fails where a process of ours or of a pod outlives a node that was there to
end it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control_plane_kit import PATIENCE, ApiError, ControlPlane, Namespace, Object

from bridge.kubelet import rbac
from bridge.kubelet.manifests.limits import API, limits
from tools.control_plane import objects
from tools.control_plane.api import Api
from tools.control_plane.authority import kubeconfig, with_certificate, write_kubeconfig

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT, HOME = "podbridge-tests", "default"
"""The service account, and its namespace, that a node is where a test says nothing else. Not in
kube-system: what is done from there is in no audit log."""
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_accounts: dict[Path, Path] = {}


def on_term(does: str, ready: Path) -> str:
    """A script that goes on until it is told to end, and then does that; `ready` is there once it
    listens: a container runs before its shell has read a word."""
    return f"trap '{does}' TERM; touch {ready}; while :; do sleep 0.05; done"


def until(
    ready: Callable[[], object], what: str, ended: Callable[[], object] = lambda: None
) -> Any:
    """What `ready` gives once that is true of it. AssertionError where it is not in time, or where
    `ended` gives something first: why it never will."""
    deadline = time.monotonic() + PATIENCE
    while not (found := ready()):
        if said := ended():
            raise AssertionError(f"before: {what}: {said}")
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.03)
    return found


def free_port() -> int:
    """A port that nobody listens at now, on any address."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


def container(script: str, name: str = "main", **more: Any) -> Object:
    """A container of one shell script."""
    made = {"name": name, "image": "registry.example.com/busybox"}
    return {**made, "command": ["/bin/sh", "-c", script], **more}


def condition(thing: Object, kind: str) -> Object:
    """A condition of a node or pod; {}: it has none of that type."""
    found = thing.get("status", {}).get("conditions", [])
    return next((one for one in found if one["type"] == kind), {})


def is_ready(node: Object) -> bool:
    """Of a Node, as the API server has it."""
    return condition(node, "Ready").get("status") == "True"


@dataclass
class Running:
    """A podbridge command that goes on. Its output goes to files."""

    process: subprocess.Popen[bytes]
    log: Path
    """Both stdout and stderr."""
    words: Sequence[str]

    @property
    def said(self) -> str:
        """All that it has said."""
        return self.log.read_text(errors="replace")

    @property
    def ended(self) -> str:
        """Its exit code and words, where it has ended; else empty."""
        code = self.process.poll()
        return "" if code is None else f"{' '.join(self.words)}: exit code {code}\n{self.said}"

    def says(self, words: str) -> None:
        """Returns once it has said this."""
        until(lambda: words in self.said, words, lambda: self.ended)

    def end(self) -> int:
        """Its exit code, once it ends by itself."""
        return self.process.wait(PATIENCE)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """As `kill -9` does; returns once it is gone."""
        self.process.kill()
        self.process.wait(PATIENCE)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While this goes on it does nothing at all."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@dataclass
class Place:
    """Where one test starts nodes: a folder, a control plane, the processes that it started."""

    plane: ControlPlane
    folder: Path
    api: Api
    """The administrator's."""
    name: str = field(default_factory=lambda: f"node-{uuid.uuid4().hex[:8]}")
    """Of the node, unless another one is asked for."""
    going: list[Running] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    """Of all nodes that were configured here."""
    _number: int = 0

    # -- what is configured --------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """What every command here gets: nothing of this process's own."""
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }

    def node_config(self, **more: Any) -> Object:
        """One entry of `nodes:`, with a free port, no taint, and a certificate of the cluster's CA.
        `serving={}` leaves the certificate out, so that the node asks for one."""
        name = more.get("name", self.name)
        self.names.add(name)
        made = {"name": name, "address": "127.0.0.1", "port": free_port(), "no_taint": True, **more}
        if "serving" not in more:
            made["serving"] = self.certificate(name)
        return {key: value for key, value in made.items() if value not in (None, {})}

    def certificate(self, name: str) -> Object:
        """A certificate for a node's API, of the CA that the API server trusts for that."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = f"serving-{name}"
        if not (self.folder / f"{file}.crt").exists():
            who = f"system:node:{name}"
            pair = self.plane.authority.server(who, [name, "127.0.0.1"], ["system:nodes"])
            pair.write(self.folder, file)
        at = self.folder / file
        return {"cert": f"{at}.crt", "key": f"file:{at}.key"}

    def config(
        self,
        *,
        nodes: Sequence[Object] | None = None,
        backends: Sequence[Object] | None = None,
        kubeconfig: Path | None = None,
        cluster: Mapping[str, Any] | None = None,
        state: Path | None = None,
        **more: Any,
    ) -> Path:
        """A new configuration file. Without arguments: one node, on `process`, as the least
        privileged service account. `cluster` replaces or adds keys there; None takes one away."""
        own: dict[str, Any] = {
            "kubeconfig": str(kubeconfig or least_privilege(self.plane)),
            "state": str(state or self.folder / "nodes"),
        }
        own |= {
            key: str(one) if isinstance(one, Path) else one for key, one in (cluster or {}).items()
        }
        full = {
            "apiVersion": "podbridge.io/v1",
            "cluster": {key: one for key, one in own.items() if one is not None},
            "nodes": [self.node_config()] if nodes is None else [*nodes],
            "backends": [{"name": "process", "type": "process"}]
            if backends is None
            else [*backends],
            **more,
        }
        self._number += 1
        path = self.folder / f"config-{self._number}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(full, indent=1))
        return path

    # -- what is started -----------------------------------------------------------------------

    def start(
        self, *words: str, env: Mapping[str, str] | None = None, before: Sequence[str] = ()
    ) -> Running:
        """`podbridge WORDS`, which goes on; `before` is a command that becomes it."""
        self._number += 1
        log = self.folder / f"{self._number}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*before, sys.executable, "-m", "podbridge", *words],
                cwd=ROOT,
                env={**self.environment, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.going.append(one := Running(process, log, words))
        return one

    def up(
        self, *words: str, config: Path | None = None, ready: bool = True, **settings: Any
    ) -> Running:
        """`podbridge up`, with this configuration, or one of these settings (see `config`). Returns
        once all its nodes are Ready, and answer where they have a certificate, unless that is not
        to be waited for."""
        return self._node(["up"], words, config, ready, settings)

    def kubelet(
        self,
        provider: str,
        *words: str,
        config: Path | None = None,
        ready: bool = True,
        **settings: Any,
    ) -> Running:
        """`podbridge kubelet` for the provider at this address; else as `up`."""
        return self._node(["kubelet", "--provider", provider], words, config, ready, settings)

    def _node(
        self,
        command: Sequence[str],
        words: Sequence[str],
        config: Path | None,
        ready: bool,
        settings: Mapping[str, Any],
    ) -> Running:
        config = config or self.config(**settings)
        one = self.start("--config", str(config), *command, *words)
        if ready:
            for node in json.loads(config.read_text())["nodes"]:
                self.ready(node["name"], one)
                if "serving" in node:
                    self.serves(node["name"], one)
        return one

    def provider(self, config: Path | None = None, **settings: Any) -> tuple[Running, str]:
        """`podbridge provider`, which answers, and its address. One that is started again with the
        same configuration is at the same address."""
        config = config or self.config(nodes=[], **settings)
        address = f"unix://{self.folder}/p{config.stem.removeprefix('config-')}.sock"
        one = self.start("--config", str(config), "provider", "--listen", address)
        one.says("listening on")
        return one, address

    # -- what there is -------------------------------------------------------------------------

    def path(self, name: str = "") -> str:
        """Of a Node."""
        return f"/api/v1/nodes/{name or self.name}"

    def node(self, name: str = "") -> Object:
        """A Node; {}: there is none."""
        try:
            found: Object = self.api.get(self.path(name))
        except ApiError as error:
            if error.code != 404:
                raise
            return {}
        return found

    def ready(self, name: str = "", process: Running | None = None) -> Object:
        """The Node, once it is Ready and its Lease is held; fails at once where this process ends.
        One that was Ready before our process came counts too: see `serves` and `acting`."""

        def look() -> Object | None:
            return node if is_ready(node := self.node(name)) and self.holder(name) else None

        ended = (lambda: process.ended) if process is not None else lambda: ""
        found: Object = until(look, f"node {name or self.name} is ready", ended)
        return found

    def serves(self, name: str = "", process: Running | None = None) -> None:
        """Returns once the node's API answers, and knows all its pods."""
        fields = f"fieldSelector=spec.nodeName%3D{name or self.name}"

        def look() -> bool:
            bound = self.api.get(f"/api/v1/pods?{fields}")["items"]
            with contextlib.closing(self.kubelet_api(name)) as kubelet:
                try:
                    known = kubelet.get("/pods")["items"] or ()
                except (OSError, ApiError):
                    return False
            uids = {one["metadata"]["uid"] for one in known}
            return all(one["metadata"]["uid"] in uids for one in bound)

        ended = (lambda: process.ended) if process is not None else lambda: ""
        until(look, f"node {name or self.name} answers", ended)

    def kubelet_api(self, name: str = "", user: str = "", groups: Sequence[str] = ()) -> Api:
        """Calls a node's own API, where its Node says that it is, as this user by a certificate; an
        administrator, where none is given. The node's certificate is verified."""
        if not user:
            user, groups = "admin", ["system:masters"]
        port = self.node(name)["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        shown = with_certificate(self.plane.authority.client(user, groups))
        self._number += 1
        path = self.folder / f"kubelet-{self._number}.kubeconfig"
        server = f"https://127.0.0.1:{port}"
        write_kubeconfig(path, kubeconfig(server, self.plane.ca.read_bytes(), shown))
        return Api(path)

    def lease(self, name: str = "") -> Object:
        """The Lease of a node; {}: there is none."""
        try:
            found: Object = self.api.get(f"{LEASES}/{name or self.name}")
        except ApiError as error:
            if error.code != 404:
                raise
            return {}
        return found

    def holder(self, name: str = "") -> str:
        """Which replica has the Lease; empty: none."""
        return str(self.lease(name).get("spec", {}).get("holderIdentity") or "")

    def acting(self, other_than: str = "", name: str = "") -> str:
        """The replica that has the Lease, once it is another one than this."""
        found: str = until(
            lambda: (now := self.holder(name)) != other_than and now,
            "another replica has the Lease",
        )
        return found

    def pod(
        self, namespace: Namespace, name: str, script: str = "exit 0", node: str = "", **spec: Any
    ) -> Object:
        """Makes a pod, bound to the node, of one container that runs this script; `containers`
        instead of it, where given."""
        full = {"containers": [container(script)], "nodeName": node or self.name, **spec}
        return namespace.pod(name, **full)

    def running(self, namespace: Namespace, name: str) -> Object:
        """The pod, once it runs and is ready."""
        return namespace.until(
            "pods", name, lambda pod: condition(pod, "Ready").get("status") == "True"
        )

    def ended(self, namespace: Namespace, name: str) -> Object:
        """The pod, once its phase is terminal."""
        return namespace.until(
            "pods", name, lambda pod: pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        )

    def gone(self, namespace: Namespace, name: str) -> None:
        """Returns once there is no pod of that name."""
        namespace.until("pods", name, lambda pod: not pod)

    def events(self, about: str, name: str, *, namespace: str = "default") -> list[Object]:
        """All events about an object: kind and name. Those of nodes are in `default`."""
        where = f"/api/v1/namespaces/{namespace}/events"
        fields = f"involvedObject.kind%3D{about},involvedObject.name%3D{name}"
        found: list[Object] = self.api.get(f"{where}?fieldSelector={fields}")["items"]
        return found

    # -- what is left --------------------------------------------------------------------------

    def processes(self) -> list[tuple[int, str]]:
        """Every process, other than this one, that has to do with this place: pid and command."""
        marker = "/".join(self.folder.parts[-3:]).encode()
        mine = (os.getpid(), os.getppid())
        pids = [int(one) for one in os.listdir("/proc") if one.isdigit()]
        return [(pid, what) for pid in pids if pid not in mine and (what := _uses(pid, marker))]

    def work(self) -> list[tuple[int, str]]:
        """The processes of pods, and the keepers of these: what is neither a command that was
        started here nor its zygote, which is a child of it."""
        ours = {one.process.pid for one in self.going}
        return [
            (pid, what)
            for pid, what in self.processes()
            if pid not in ours and _parent(pid) not in ours
        ]

    def close(self) -> None:
        """Ends everything, and fails where something was left that should have gone."""
        acting = [one for one in self.going if one.process.poll() is None]
        strict = bool(acting) and any("up" in one.words or "kubelet" in one.words for one in acting)
        try:
            if strict:
                self._delete_pods()
        finally:
            for one in reversed(acting):
                one.process.send_signal(signal.SIGCONT)
                one.process.terminate()
            codes = [(one, _ends(one.process)) for one in reversed(acting)]
            for name in self.names:
                for path in (self.path(name), f"{LEASES}/{name}"):
                    with contextlib.suppress(OSError, ApiError):
                        self.api.delete(path)
            left = self._end_rest(5.0 if strict else 0.0)
        for one, code in codes:
            assert code == 0, f"{' '.join(one.words)}: exit code {code}\n{one.said}"
        assert not (left and strict), left
        for one in self.going:
            assert "Traceback" not in one.said, one.said

    def _delete_pods(self) -> None:
        """Those bound to our nodes, by force; returns once no process of theirs is left."""
        for name in self.names:
            found = self.api.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}")["items"]
            for meta in (pod["metadata"] for pod in found):
                path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
                with contextlib.suppress(ApiError):
                    if meta.get("finalizers"):
                        self.api.patch(path, {"metadata": {"finalizers": None}})
                    self.api.delete(path, grace=0)
        until(lambda: not self.work(), "the pods' processes end")

    def _end_rest(self, patience: float) -> list[tuple[int, str]]:
        deadline = time.monotonic() + patience
        # A keeper that has published an exit goes a moment later.
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for pid, _ in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left


@contextlib.contextmanager
def place(plane: ControlPlane, folder: Path) -> Iterator[Place]:
    """A place for nodes, and its end."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(plane.api()) as api:
        made = Place(plane, folder, api)
        try:
            yield made
        finally:
            made.close()


def least_privilege(plane: ControlPlane) -> Path:
    """A kubeconfig of a service account that may do what `bridge.kubelet.rbac` says. One for all
    tests of a control plane."""
    if (known := _accounts.get(plane.folder)) is None:
        known = _accounts[plane.folder] = account(plane, ACCOUNT)
    return known


def account(plane: ControlPlane, name: str, nodes: Sequence[str] = ()) -> Path:
    """The same, as an account of this name in `HOME`; where any nodes are named for these only, and
    with the limits that `install` prints."""
    made = plane.account_kubeconfig(HOME, name, rbac.rules(nodes))
    who = objects.account(HOME, name)
    reader = rbac.CA_READER
    wanted = [objects.namespaced(rbac.CA_NAMESPACE, f"{name}-cas", "Role", reader, who)]
    for where, found in rbac.namespaced_rules(nodes).items():
        path = f"{objects.RBAC}/namespaces/{where}/roles"
        wanted.append((path, {"metadata": {"name": name}, "rules": found}))
        wanted.append(objects.namespaced(where, name, "Role", name, who))
    if nodes:
        for part in limits(name, f"system:serviceaccount:{HOME}:{name}", nodes):
            kind = {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}
            plural = kind.get(part.object["kind"], "validatingadmissionpolicybindings")
            wanted.append((f"/apis/{API}/{plural}", part.object))
    with contextlib.closing(plane.api()) as api:
        for path, one in wanted:
            api.ensure(path, one)
    return made


def _ends(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code; None where it had to be killed."""
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def _parent(pid: int) -> int:
    try:
        # After the name, which may hold anything, in parentheses: state and parent.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _uses(pid: int, marker: bytes) -> str:
    """The command of a process that names that place, or has something of it open; empty where it
    does neither."""
    base = Path(f"/proc/{pid}")
    try:
        command = (base / "cmdline").read_bytes()
        parts = [command, (base / "environ").read_bytes(), (base / "mountinfo").read_bytes()]
        parts.append(os.fsencode((base / "cwd").readlink()))
        for one in (base / "fd").iterdir():
            with contextlib.suppress(OSError):
                parts.append(os.fsencode(one.readlink()))
    except OSError:
        # It has ended, or is a zombie.
        return ""
    if not command or not any(marker in one for one in parts):
        return ""
    return command.replace(bytes(1), b" ").decode(errors="replace").strip()


@contextlib.contextmanager
def kept(plane: ControlPlane, folder: Path, **options: Any) -> Iterator[Place]:
    """A place with a node that all tests of a file share and leave as it is."""
    with place(plane, folder) as made:
        made.up(**options)
        yield made
        made.api.close()
