"""The parts of `engine` that need no engine."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.engine import (
    client,
    discovery,
    holder,
    names,
    observe,
    oom,
    own_image,
    pause,
    references,
    specs,
)
from adapters.engine.check import check
from adapters.engine.facts import Facts
from adapters.engine.logs import Ending, ending
from adapters.engine.redaction import redacted
from adapters.engine.scratch import Scratch, hosts, tar
from bridge.errors import (
    BridgeError,
    Invalid,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from bridge.workload import (
    Container,
    EnvVar,
    Exit,
    Identity,
    Port,
    PullCredential,
    Resources,
    Role,
    Security,
    Workload,
)

WHO = Identity("cluster", "node", "space", "pod", "uid", 0)
GIB = 1 << 30
HOST = specs.Host(owner="me", podman=True, memory=16 * GIB)


def container(name: str = "main", role: Role = Role.MAIN, **more: Any) -> Container:
    return Container(name=name, role=role, image="busybox", **more)


def workload(*containers: Container, **more: Any) -> Workload:
    return Workload(WHO, containers or (container(),), **more)


def body(one: Container, host: specs.Host = HOST, image_user: str = "", **more: Any) -> Any:
    run = specs.Run("p" * 64, 0, "sha256:1", image_user, ())
    return specs.run(workload(one, **more), one, run, host)


def seen(
    name: str = "", restart: int = 0, status: str = "running", id_: str = "", **labels: str
) -> observe.Entry:
    more = {"containers": "main", "mains": "main", **labels}
    found = names.labels(WHO, "me", **more)
    return observe.Entry(
        id=id_ or f"{name}{restart}" or "pause",
        identity=WHO,
        status=status,
        created=100.0,
        container=name,
        restart=restart,
        labels=found,
        addresses=() if name else ("10.0.0.2",),
    )


class TestReferences:
    @pytest.mark.parametrize(
        ("asked", "whole"),
        [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.37", "docker.io/library/busybox:1.37"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/me/app:1", "docker.io/me/app:1"),
            ("me/app", "docker.io/me/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("127.0.0.1:5000/a/b:x", "127.0.0.1:5000/a/b:x"),
            ("r.io/a@sha256:" + "0" * 64, "r.io/a@sha256:" + "0" * 64),
            ("r.io/a:1@sha256:" + "0" * 64, "r.io/a:1@sha256:" + "0" * 64),
        ],
    )
    def test_names_are_completed(self, asked: str, whole: str) -> None:
        assert references.normalized(asked) == whole

    @pytest.mark.parametrize("asked", ["", "BAD IMG", "r.io/UPPER", "a:b:c", "r.io/x@sha256:1"])
    def test_what_is_no_name(self, asked: str) -> None:
        with pytest.raises(Invalid, match="invalid reference format"):
            references.normalized(asked)

    def test_the_digest_of_its_own_repository_is_shown(self) -> None:
        digests = ["a.io/x@sha256:1", "docker.io/library/busybox@sha256:2"]
        found = references.resolved("docker.io/library/busybox:1", "sha256:9", digests)
        assert found == "docker.io/library/busybox@sha256:2"
        assert references.resolved("r.io/a:1", "sha256:9", []) == "sha256:9"

    @pytest.mark.parametrize(
        ("registry", "image", "fits"),
        [
            ("r.io", "r.io/a", True),
            ("https://r.io/v1/", "r.io/a", True),
            ("r.io/team", "r.io/team/a", True),
            ("r.io/team", "r.io/other/a", False),
            ("*.r.io", "eu.r.io/a", True),
            ("*.r.io", "a.b.r.io/x", False),
            ("r.io", "r.io:5000/a", False),
            ("r.io:5000", "r.io:5000/a", True),
            ("https://index.docker.io/v1/", "busybox", True),
            ("docker.io", "busybox", True),
            ("https://index.docker.io/v1/", "r.io/a", False),
        ],
    )
    def test_which_login_fits(self, registry: str, image: str, fits: bool) -> None:
        login = PullCredential(registry, "u", "p")
        assert references.logins(references.normalized(image), [login]) == ([login] * fits)

    def test_the_closest_login_comes_first(self) -> None:
        wide, close = PullCredential("r.io", "u", "p"), PullCredential("r.io/team", "u", "p")
        assert references.logins("r.io/team/a:1", [wide, close]) == [close, wide]

    def test_the_header_is_the_engines(self) -> None:
        sent = references.header(PullCredential("r.io", "me", "\u00e9>?"))["X-Registry-Auth"]
        said = json.loads(base64.urlsafe_b64decode(sent))
        assert said == {"username": "me", "password": "\u00e9>?", "serveraddress": "r.io"}


class TestSpecs:
    def test_commands_are_kubernetes_own(self) -> None:
        assert not {"Entrypoint", "Cmd"} & body(container()).keys()
        args = body(container(args=("a",)))
        assert "Entrypoint" not in args
        assert args["Cmd"] == ["a"]
        both = body(container(command=("c",), args=("a",)))
        assert (both["Entrypoint"], both["Cmd"]) == (["c"], ["a"])
        # The image's own arguments are not for another command.
        assert body(container(command=("c",)))["Cmd"] == []

    @pytest.mark.parametrize(
        ("security", "image_user", "user"),
        [
            (Security(), "app", ""),
            (Security(run_as_user=5), "app", "5"),
            (Security(run_as_user=5, run_as_group=6), "", "5:6"),
            (Security(run_as_group=6), "app:staff", "app:6"),
            (Security(run_as_group=6), "", "0:6"),
            (Security(run_as_non_root=True), "1000", ""),
            (Security(run_as_non_root=True, run_as_user=1), "root", "1"),
        ],
    )
    def test_users(self, security: Security, image_user: str, user: str) -> None:
        assert body(container(security=security), image_user=image_user)["User"] == user

    @pytest.mark.parametrize(
        ("user", "image_user", "words"),
        [
            (0, "1000", "runAsUser breaks non-root policy"),
            (None, "", "image will run as root"),
            (None, "0:0", "image will run as root"),
            (None, "app", r"non-numeric user \(app\), cannot verify"),
        ],
    )
    def test_non_root_is_made_sure_of(self, user: int | None, image_user: str, words: str) -> None:
        one = container(security=Security(run_as_non_root=True, run_as_user=user))
        with pytest.raises(Invalid, match=words):
            body(one, image_user=image_user)

    def test_security(self) -> None:
        asked = Security(
            supplemental_groups=(7, 5),
            fs_group=6,
            read_only_root=True,
            no_new_privileges=True,
            add_capabilities=("NET_ADMIN",),
            drop_capabilities=("ALL",),
            seccomp="Unconfined",
        )
        found = body(container(security=asked))["HostConfig"]
        assert found["GroupAdd"] == ["5", "6", "7"]
        assert found["SecurityOpt"] == ["no-new-privileges", "seccomp=unconfined"]
        assert (found["CapAdd"], found["CapDrop"]) == (["NET_ADMIN"], ["ALL"])
        assert found["ReadonlyRootfs"]
        assert not found["Privileged"]

    def test_logs_keep_every_byte(self) -> None:
        # Docker's json-file makes U+FFFD of what is no UTF-8.
        docker = replace(HOST, podman=False)
        assert body(container(), docker)["HostConfig"]["LogConfig"]["Type"] == "local"
        assert body(container())["HostConfig"]["LogConfig"]["Type"] == "k8s-file"

    def test_ports_of_the_host(self) -> None:
        ports = (
            Port(80, host_port=8080),
            Port(80, host_port=8081, host_ip="127.0.0.1"),
            Port(53, protocol="UDP", host_port=5353),
            Port(9),
        )
        pod = workload(container(ports=ports), container("b", ports=(Port(9, host_port=99),)))
        found = specs.pause(pod, HOST, "pause", "/pause", ())
        assert found["HostConfig"]["PortBindings"] == {
            "80/tcp": [
                {"HostIp": "", "HostPort": "8080"},
                {"HostIp": "127.0.0.1", "HostPort": "8081"},
            ],
            "53/udp": [{"HostIp": "", "HostPort": "5353"}],
            "9/tcp": [{"HostIp": "", "HostPort": "99"}],
        }
        assert found["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}, "9/tcp": {}}
        # In the host's network there is nothing to lead to.
        found = specs.pause(replace(pod, host_network=True), HOST, "pause", "/pause", ())
        assert "PortBindings" not in found["HostConfig"]
        assert "PortBindings" not in body(container(ports=ports))["HostConfig"]

    def test_limits(self) -> None:
        size = Resources({"cpu": 250, "memory": GIB}, {"cpu": 500, "memory": 2 * GIB})
        found = body(container(resources=size))["HostConfig"]
        assert found["CpuShares"] == 256
        assert (found["CpuPeriod"], found["CpuQuota"]) == (100_000, 50_000)
        assert found["Memory"] == found["MemorySwap"] == 2 * GIB

    def test_no_limit_is_none(self) -> None:
        found = body(container())["HostConfig"]
        assert found["CpuShares"] == 2
        assert not {"Memory", "CpuQuota"} & found.keys()

    def test_oom_scores_follow_the_class(self) -> None:
        same = {"cpu": 100, "memory": GIB}
        sure = container(resources=Resources(same, same))
        some = container(resources=Resources({"memory": 4 * GIB}))
        none = container()
        score = specs.oom_score
        assert score(workload(sure), sure, 16 * GIB) == -997
        assert score(workload(none), none, 16 * GIB) == 1000
        assert score(workload(some), some, 16 * GIB) == 750
        assert score(workload(sure, none), none, 16 * GIB) == 999
        weak = replace(HOST, lowers_oom_scores=False)
        assert body(sure, weak)["HostConfig"]["OomScoreAdj"] == 0

    def test_a_sidecar_outlives_whom_it_serves(self) -> None:
        main = container(resources=Resources({"memory": 4 * GIB}))
        side = container("side", Role.SIDECAR)
        assert specs.oom_score(workload(side, main), side, 16 * GIB) == 750

    def test_namespaces_are_the_pause_containers(self) -> None:
        joined = "container:" + "p" * 64
        found = body(container())["HostConfig"]
        assert [found[f"{one}Mode"] for one in ("Network", "Ipc", "UTS")] == [joined] * 3
        assert "PidMode" not in found
        assert body(container(), share_processes=True)["HostConfig"]["PidMode"] == joined
        host = body(container(), host_network=True, host_pid=True, host_ipc=True)["HostConfig"]
        assert [host[f"{one}Mode"] for one in ("Network", "Ipc", "Pid", "UTS")] == ["host"] * 4
        docker = body(container(), replace(HOST, podman=False))
        assert "UTSMode" not in docker["HostConfig"]
        assert "UnsetEnv" not in docker

    def test_only_asked_variables_are_there(self) -> None:
        assert body(container())["UnsetEnv"] == ["TERM", "container"]
        own = container(env=(EnvVar("TERM", "vt100"),))
        assert body(own)["Env"] == ["TERM=vt100"]
        assert body(own)["UnsetEnv"] == ["container"]

    def test_labels_tell_all_but_secrets(self) -> None:
        one = container(env=(EnvVar("A", "hidden", secret=True),), args=("hidden",))
        labels = body(one)["Labels"]
        assert names.identity_of(labels) == WHO
        assert labels[names.CONTAINER] == "main"
        assert labels[names.RESTART] == "0"
        assert "hidden" not in str(labels)

    def test_an_images_labels_cannot_ask_for_the_log_as_message(self) -> None:
        label = "podbridge.io/logs-as-message"
        assert body(container())["Labels"][label] == "false"
        assert body(container(logs_as_message=True))["Labels"][label] == "true"

    def test_the_pod_has_its_names(self) -> None:
        pod = workload(hostname="here", sysctls=(("net.a", "1"),))
        found = specs.pause(pod, HOST, "sha256:1", "/pause", ())
        assert found["Hostname"] == "here"
        assert found["HostConfig"]["Sysctls"] == {"net.a": "1"}
        assert found["HostConfig"]["IpcMode"] == "shareable"

    def test_own_mounts_win_over_the_pods_files(self) -> None:
        def targets(one: Container, **more: Any) -> list[str]:
            return [bind["Target"] for bind in specs.pod_files(workload(one, **more), "/m", one, 3)]

        assert targets(container()) == ["/etc/hosts", "/dev/termination-log"]
        assert targets(container(termination_message_path="")) == ["/etc/hosts"]
        assert targets(container(), host_network=True) == ["/dev/termination-log"]
        found = specs.pod_files(workload(), "/m", container(), 3)
        assert found[1]["Source"] == "/m/messages/main.3"

    def test_hosts(self) -> None:
        whole, aliases = "sub.space.svc.cluster.local", (("1.2.3.4", ("a", "b")),)
        pod = workload(hostname="here", subdomain=whole, host_aliases=aliases)
        text = hosts(pod, "10.0.0.2").decode()
        assert text == hosts(replace(pod, hostname=f"here.{whole}"), "10.0.0.2").decode()
        assert text.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
        assert "10.0.0.2\there.sub.space.svc.cluster.local\there\n" in text
        assert text.endswith("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")


class TestNames:
    def test_a_name_follows_from_the_key_alone(self) -> None:
        other = replace(WHO, name="other", namespace="else", node="far")
        assert names.pause(other) == names.pause(WHO)
        keys = [replace(WHO, cluster="x"), replace(WHO, uid="x"), replace(WHO, attempt=1)]
        assert len({names.pause(one) for one in [WHO, *keys]}) == 4

    def test_labels_without_an_identity_are_not_ours(self) -> None:
        labels = names.labels(WHO, "me")
        assert names.identity_of(labels) == WHO
        assert names.identity_of({}) is None
        assert names.identity_of({**labels, names.ATTEMPT: "x"}) is None


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, Invalid),
            (401, Unauthorized),
            (403, Unauthorized),
            (404, NotFound),
            (409, client.Conflict),
            (429, Throttled),
            (500, client.Refused),
            (503, client.Refused),
        ],
    )
    def test_by_status(self, status: int, kind: type[BridgeError]) -> None:
        error = client.error_of(status, b'{"message": "why"}')
        assert type(error) is kind
        assert error.message == "why"

    def test_by_words(self) -> None:
        taken = b'{"message": "x: that name is already in use", "cause": "c"}'
        assert isinstance(client.error_of(500, taken), client.Conflict)
        full = b"write /var/x: no space left on device"
        assert type(client.error_of(500, full)) is Unavailable
        assert client.error_of(502, b"").message == "the engine answered 502"

    def test_words_do_not_tell_secrets(self) -> None:
        one = container(env=(EnvVar("A", "hidden", secret=True), EnvVar("B", "shown")))
        assert redacted("hidden shown /bin/pass", one) == "*** shown /bin/pass"

    @pytest.mark.parametrize(
        ("value", "printed"),
        [
            ('hun"ter2', r"hun\"ter2"),
            ("hun\\ter2", r"hun\\ter2"),
            ("hunter\nter2", r"hunter\nter2"),
            ("hun\tter2", r"hun\tter2"),
            ("hun\u00e9ter2", "hun\u00e9ter2"),
            ("hun\u00e9ter2", r"hun\u00e9ter2"),
            ("hun\x01ter2", r"hun\x01ter2"),
            ("hun\x01ter2", r"hun\u0001ter2"),
            ("hun<ter2", r"hun\u003cter2"),
            ("hun\U0001f600ter2", r"hun\U0001f600ter2"),
            ("hun\U0001f600ter2", r"hun\ud83d\ude00ter2"),
            ('hun"ter2', r"hun\\\"ter2"),
            ("first line\nhunter2\n", "hunter2"),
        ],
    )
    def test_no_spelling_of_a_secret_is_told(self, value: str, printed: str) -> None:
        one = container(env=(EnvVar("A", value, secret=True),))
        for spelling in (value, printed):
            assert redacted(f'cannot use "A={spelling}" here', one).endswith('***" here')
            assert "ter2" not in redacted(f'cannot use "{spelling}"', one)

    @pytest.mark.parametrize("value", ['h"1', "h\\1", "h\n1", "h\t1", "h\u00e9", "h\x01"])
    def test_of_a_secret_command_only_the_kind_of_failure_is_told(self, value: str) -> None:
        one = container(command=(value,), secret_words=("command[0]",))
        for mark, said in (
            (f'exec: "{value!r}": executable file not found in $PATH', "executable file not found"),
            (f"crun: executable `{value}` not found in $PATH: No such", "executable file not"),
            (f"open executable {value}: Permission denied: OCI", "permission denied"),
            (f"stat {value}: no such file or directory", "no such file or directory"),
            (f"{value}: exec format error", "the command cannot be started"),
        ):
            told = redacted(mark, one)
            assert told.startswith(said)
            assert value not in told


class TestDiscovery:
    def test_a_missing_engine_says_where_and_what_to_do(self) -> None:
        with pytest.raises(Unavailable, match=r"option host: no socket at /no/sock.*DOCKER_HOST"):
            discovery.find("unix:///no/sock", {})
        with pytest.raises(Unavailable, match="DOCKER_HOST: no socket at /no/other"):
            discovery.find("", {"DOCKER_HOST": "unix:///no/other"})

    def test_the_option_wins(self) -> None:
        found = discovery.find("tcp://h:1", {"DOCKER_HOST": "tcp://other:2"})
        assert found == "tcp://h:1"

    @pytest.mark.parametrize("wrong", ["nonsense", "ssh://h", "unix://"])
    def test_what_is_no_address(self, wrong: str) -> None:
        with pytest.raises(Invalid, match="is no unix:// or tcp:// address"):
            discovery.find(wrong, {})

    def test_the_order_of_the_sockets(self) -> None:
        assert discovery.sockets({"XDG_RUNTIME_DIR": "/run/user/1"}) == [
            "/var/run/docker.sock",
            "/run/user/1/docker.sock",
            "/run/user/1/podman/podman.sock",
            "/run/podman/podman.sock",
        ]

    def test_missing_certificates_are_told(self) -> None:
        with pytest.raises(Invalid, match="DOCKER_CERT_PATH /no/where"):
            discovery.tls("tcp://h:1", {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/no/where"})
        assert discovery.tls("tcp://h:1", {}) is None


class TestSmallThings:
    def test_the_kernel_names_whom_it_killed(self) -> None:
        name = b"a" * 64
        said = b"oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/x,task_memcg=/p/libpod-%s,task=t"
        assert oom.killed(b"3,1,2,-;" + said % name) == name.decode()
        assert oom.killed(b"3,1,2,-;something else " + name) == ""

    @pytest.mark.parametrize(("architecture", "machine"), [("amd64", 62), ("aarch64", 183)])
    def test_the_pause_program_is_an_executable(self, architecture: str, machine: int) -> None:
        program = pause.program(architecture)
        assert program[:4] == b"\x7fELF"
        assert struct.unpack_from("<HH", program, 16) == (2, machine)
        size, memory = struct.unpack_from("<QQ", program, 64 + 32)
        assert size == memory == len(program)
        with tarfile.open(fileobj=io.BytesIO(own_image.archive("pause", program))) as tar:
            assert [(one.name, one.mode) for one in tar] == [("pause", 0o755)]

    def test_another_machine_needs_another_image(self) -> None:
        with pytest.raises(Unsupported, match="pause_image"):
            pause.program("riscv64")

    def test_what_cannot_be_given_is_refused_by_name(self) -> None:
        one = container(
            security=Security(seccomp="profiles/x.json"), resources=Resources(limits={"gpu": 1})
        )
        engine: Any = SimpleNamespace(local=True, podman=True, info={})
        assert [found.field for found in check(workload(one), engine)] == [
            "spec.containers[0].resources",
            "spec.containers[0].securityContext.seccompProfile.localhostProfile",
        ]

    def test_secrets_that_the_process_list_would_show_are_refused(self) -> None:
        pod = workload(
            container("first", Role.INIT, args=("hunter2",), secret_words=("args[0]",)),
            container(command=("a", "hunter2"), secret_words=("command[1]",)),
        )
        engine: Any = SimpleNamespace(local=True, podman=True, info={})
        found = check(pod, engine)
        assert [one.field for one in found] == [
            "spec.initContainers[0].args[0]",
            "spec.containers[0].command[1]",
        ]
        assert "hunter2" not in str(found)


class Told:
    """An engine whose streams answer with these chunks, for ever if wanted."""

    local = podman = False
    type = "docker"
    LOG: Mapping[str, Any] = {"Id": "x", "Config": {"Tty": False}}

    def __init__(self, *chunks: bytes, endless: bool = False, stuck: bool = False) -> None:
        self.chunks = chunks
        self.endless, self.stuck = endless, stuck
        self.content = self
        self.read = 0

    @asynccontextmanager
    async def stream(self, *_: Any, **__: Any) -> AsyncIterator[Told]:
        yield self

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        if self.stuck:
            await asyncio.Event().wait()
        while True:
            for chunk in self.chunks:
                self.read += len(chunk)
                yield chunk
            if not self.endless:
                return


def frame(text: bytes, stream: int = 1) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text


class TestEnds:
    """What is read of files that a container made as long as it liked."""

    @pytest.mark.parametrize("cut", [1, 3, 8, 100])
    def test_a_logs_frames_are_taken_away(self, cut: int) -> None:
        raw = frame(b"hi") + frame(b"", 2) + frame(b"!" * 30, 2) + frame(b"end\n")
        found = Ending(12, framed=True)
        for at in range(0, len(raw), cut):
            found.add(raw[at : at + cut])
        assert found.text == b"!" * 8 + b"end\n"

    async def test_the_last_lines_by_the_api(self) -> None:
        engine: Any = Told(*(frame(b"%d\n" % one) for one in range(9)))
        assert await ending(engine, Told.LOG, 2, 100) == b"7\n8\n"
        plain: Any = Told(b"a\nb", b"c\nd")
        assert await ending(plain, {"Id": "x", "Config": {"Tty": True}}, 2, 100) == b"bc\nd"
        assert await ending(plain, {"Id": "x", "Config": {"Tty": True}}, 9, 3) == b"c\nd"

    async def test_an_endless_answer_is_left(self) -> None:
        engine: Any = Told(frame(b"x" * 60000), endless=True)
        assert await ending(engine, Told.LOG, 80, 2048) == b""
        assert engine.read < 1 << 22

    async def test_the_last_lines_of_a_long_file(self, tmp_path: Path) -> None:
        place = tmp_path / "ctr.log"
        part = b"2026-01-02T03:04:05.6+00:00 stdout P " + b"x" * 8000 + b"\n"
        full = b"2026-01-02T03:04:05.6+00:00 stderr F %d\n"
        engine: Any = SimpleNamespace(local=True, podman=True)
        found = {"Id": "x", "LogPath": str(place)}
        with place.open("wb") as file:
            file.seek(1 << 40)  # As long as a disk, and read in no time.
            file.write(b"\n" + part * 40 + full % 1 + full % 2 + part[:30])
        assert await ending(engine, found, 80, 2048) == b"x" * 2044 + b"1\n2\n"
        assert await ending(engine, found, 1, 2048) == b"2\n"
        place.write_bytes(full % 7)
        assert await ending(engine, found, 80, 2048) == b"7\n"
        place.write_bytes(b"")
        assert await ending(engine, found, 80, 2048) == b""

    async def test_an_exit_waits_for_no_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("adapters.engine.facts._PATIENCE", 0.01)
        engine: Any = Told(stuck=True)
        said = {"Id": "x", "State": {"Status": "exited", "ExitCode": 3}}
        said["State"] |= {"FinishedAt": "2026-01-02T03:04:05Z"}

        async def call(*_: Any) -> Any:
            return said

        engine.call = call
        log: Any = SimpleNamespace()
        one = seen("main", status="exited", **{"logs-as-message": "true"})
        pod = observe.Pod(WHO, seen(), {"main": [one]})
        async with asyncio.timeout(5):
            found = await Facts(engine, Scratch(engine), log).of([pod])
        state = found[one.id].state
        assert isinstance(state, Exit)
        assert (state.code, state.message) == (3, "")

    async def test_a_message_from_another_machine(self) -> None:
        engine: Any = Told(tar({"main.0": (b"x" * 9000 + b"end", 0o644)}))
        assert await Scratch(engine).message(WHO, "p", "main", 0) == "x" * 4093 + "end"

    async def test_an_endless_archive_is_left(self) -> None:
        engine: Any = Told(tar({"main.0": (b"x" * 60000, 0o644)}), endless=True)
        assert await Scratch(engine).message(WHO, "p", "main", 0) == ""
        assert engine.read < 1 << 24
        engine.read = 0
        with pytest.raises(Unavailable, match="too large"):
            await holder.get(engine, WHO, "volume")
        assert engine.read < 1 << 24
