"""The neutral model between pods and clouds: what to run, and what is true of it. Frozen.

A `Workload` is one attempt at one pod with everything decided: defaults applied, environment and
command expanded, files filled in, sizes in base units. Adapters turn it into their cloud's calls
and report `Observed`. Nothing here knows Kubernetes' JSON or any SDK.

Units: times are seconds since the epoch (float), durations seconds, cpu millicores, memory and
storage bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a workload is. (cluster, uid, attempt) names it everywhere; the rest is for people."""

    cluster: str
    node: str
    namespace: str
    name: str
    uid: str
    attempt: int = 0

    @property
    def key(self) -> Key:
        """What gives every cloud name and idempotency token."""
        return (self.cluster, self.uid, self.attempt)


Key = tuple[str, str, int]
"""(cluster, uid, attempt)."""


class Role(StrEnum):
    """What a container is to its pod."""

    INIT = "init"
    """Runs to its end before the next one starts."""
    SIDECAR = "sidecar"
    """An init container with restartPolicy Always (KEP-753): starts in order, then stays."""
    MAIN = "main"
    EPHEMERAL = "ephemeral"


class RestartPolicy(StrEnum):
    """When a container that has ended runs again."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


class HelperUse(StrEnum):
    """Whether the helper is in a pod's containers (docs/helper.md)."""

    AUTO = "auto"
    """As the backend is configured, or where the pod needs it."""
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class RestartRule:
    """One of a container's own restart rules (KEP-5307); the first that matches decides."""

    restart: bool
    """True for action Restart."""
    codes: frozenset[int]
    negated: bool = False
    """Operator NotIn: the rule matches codes that are not in `codes`."""


@dataclass(frozen=True, slots=True)
class EnvVar:
    """One variable, expanded. A secret one may reach the container and a secret store only."""

    name: str
    value: str = field(repr=False)
    secret: bool = False


LATE: Mapping[str, str] = {
    name: f"\x1apodbridge:{name}\x1a" for name in ("podIP", "podIPs", "hostIP", "hostIPs")
}
"""What stands in values, commands and arguments for what only a running pod's backend knows, where
something in the container fills it in (`bridge.adapter.FillsIn`)."""


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a volume appears in a container."""

    volume: str
    path: str
    sub_path: str = ""
    """Below the volume's root, expanded; empty: the whole volume."""
    read_only: bool = False
    propagation: str = ""
    """mountPropagation: None, HostToContainer, Bidirectional; empty: not asked for."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a container asks for and may use, by Kubernetes' resource names.

    cpu in millicores, memory and ephemeral-storage in bytes, everything else in its own unit.
    """

    requests: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Security:
    """The security context of one container, the pod's merged in. None: not asked for."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool = False
    supplemental_groups: tuple[int, ...] = ()
    fs_group: int | None = None
    read_only_root: bool = False
    no_new_privileges: bool = False
    """allowPrivilegeEscalation: false."""
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    privileged: bool = False
    seccomp: str = ""
    """seccompProfile: RuntimeDefault, Unconfined, or a Localhost profile's path."""
    unmasked_proc: bool = False
    """procMount: Unmasked."""


@dataclass(frozen=True, slots=True)
class ExecAction:
    """A command in the container; exit code 0 is success."""

    command: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class HttpAction:
    """A GET to the pod; a status from 200 to 399 is success."""

    port: int
    """0: the manifest's name is that of no port."""
    path: str = "/"
    scheme: str = "HTTP"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class TcpAction:
    """A connection to the pod; that it opens is success."""

    port: int


@dataclass(frozen=True, slots=True)
class GrpcAction:
    """grpc.health.v1.Health/Check; SERVING is success."""

    port: int
    service: str = ""


@dataclass(frozen=True, slots=True)
class SleepAction:
    """Nothing, for so many seconds."""

    seconds: float


Action = ExecAction | HttpAction | TcpAction | GrpcAction | SleepAction


@dataclass(frozen=True, slots=True)
class Probe:
    """What is asked of a running container again and again. Durations in seconds."""

    action: Action
    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace: float | None = None
    """The probe's own terminationGracePeriodSeconds; None: the pod's."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port that a container says it listens on."""

    number: int
    protocol: str = "TCP"
    name: str = ""
    host_port: int = 0
    """The port of the host that leads here; 0: none."""
    host_ip: str = ""
    """The host's address at which it does; empty: every one."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container, ready to start. `command` and `args` as Kubernetes means them: an empty
    `command` is the image's entry point, an empty `args` with it the image's arguments."""

    name: str
    role: Role
    image: str
    command: tuple[str, ...] = field(default=(), repr=False)
    args: tuple[str, ...] = field(default=(), repr=False)
    secret_words: tuple[str, ...] = ()
    """Which of them hold a Secret's value, as fields: `command[2]`, `args[0]`. A backend that can
    read them back has no secret channel there, and refuses them."""
    env: tuple[EnvVar, ...] = ()
    working_dir: str = ""
    mounts: tuple[Mount, ...] = ()
    resources: Resources = Resources()
    restart_policy: RestartPolicy = RestartPolicy.ALWAYS
    """The container's own where it has one, else the pod's."""
    restart_rules: tuple[RestartRule, ...] = ()
    security: Security = Security()
    ports: tuple[Port, ...] = ()
    image_pull_policy: str = "IfNotPresent"
    termination_message_path: str = "/dev/termination-log"
    logs_as_message: bool = False
    """terminationMessagePolicy FallbackToLogsOnError."""
    stop_signal: str = ""
    """Empty: the image's own, else SIGTERM."""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    startup_probe: Probe | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    post_start: Action | None = None
    pre_stop: Action | None = None
    resize_restarts: frozenset[str] = frozenset()
    """Resources (cpu, memory) whose change restarts the container (resizePolicy)."""


@dataclass(frozen=True, slots=True)
class EmptyDir:
    """An empty volume that lives as long as the pod."""

    name: str
    memory: bool = False
    """medium Memory: what is written counts as memory."""
    size_limit: int | None = None
    """Bytes; None: no limit."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a volume. `path` is relative, with `/`, never with `..`."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o644
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Files:
    """A volume that Kubernetes fills (configMap, secret, downwardAPI, projected)."""

    name: str
    files: tuple[File, ...] = ()
    revision: str = ""
    """Changes when the content does."""

    @property
    def is_unknown(self) -> bool:
        """Whether something that belongs there is missing, so that nobody can say what it is."""
        return not self.revision and not self.files


@dataclass(frozen=True, slots=True)
class HostPath:
    """A file or folder of the machine that runs the pod."""

    name: str
    path: str
    type: str = ""
    """As Kubernetes' hostPath.type: what must be there, or is made. Empty: not looked at."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim: what it means is for the backend's configuration."""

    name: str
    claim: str
    """The claim's name, in the pod's namespace."""
    read_only: bool = False


Volume = EmptyDir | Files | HostPath | Claim


@dataclass(frozen=True, slots=True)
class Dns:
    """How names are resolved: dnsPolicy and dnsConfig."""

    policy: str = "ClusterFirst"
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[tuple[str, str | None], ...] = ()
    """(name, value); None: an option without one."""


@dataclass(frozen=True, slots=True)
class PullCredential:
    """A login for one registry."""

    registry: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Workload:
    """One attempt at one pod, ready to run.

    `containers` holds init containers and sidecars in their order, then the main ones, then the
    ephemeral ones.
    """

    identity: Identity
    containers: tuple[Container, ...]
    volumes: tuple[Volume, ...] = ()
    restart_policy: RestartPolicy = RestartPolicy.ALWAYS
    generation: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    subdomain: str = ""
    host_aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(address, names)."""
    dns: Dns = Dns()
    sysctls: tuple[tuple[str, str], ...] = ()
    """(name, value)."""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_processes: bool = False
    """shareProcessNamespace: the pod's containers see one another's processes."""
    grace: float = 30.0
    """terminationGracePeriodSeconds."""
    start_time: float | None = None
    """status.startTime as Kubernetes recorded it: what the deadline counts from."""
    deadline: float | None = None
    """activeDeadlineSeconds: seconds after `start_time`; None: none."""
    hard_stop: float | None = None
    """Seconds after a container's start at which the backend ends it even if nobody asks: what
    bounds the bill when we are gone. None: the backend has no way."""
    pull_credentials: tuple[PullCredential, ...] = ()
    helper: HelperUse = HelperUse.AUTO
    """What the pod's annotation `podbridge.io/helper` says."""
    service_account: str = ""
    """Its name, in the pod's namespace; empty: the author named none."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels of the node that it was meant for."""

    def paths(self) -> Iterator[tuple[str, Container]]:
        """Each container with its place in the manifest: `spec.initContainers[0]`."""
        counts: dict[str, int] = {}
        for one in self.containers:
            kind = _LISTS.get(one.role, "containers")
            counts[kind] = number = counts.get(kind, -1) + 1
            yield f"spec.{kind}[{number}]", one

    def container(self, name: str) -> Container:
        """The container of that name; KeyError where there is none."""
        for one in self.containers:
            if one.name == name:
                return one
        raise KeyError(name)


_LISTS = {
    Role.INIT: "initContainers",
    Role.SIDECAR: "initContainers",
    Role.EPHEMERAL: "ephemeralContainers",
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A container that does not run now: a CamelCase reason, and a message for people."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """A container that runs."""

    started_at: float


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container's run ended. A code that is not known is 137, ContainerStatusUnknown."""

    code: int
    finished_at: float
    reason: str = "Completed"
    """Completed, Error, OOMKilled, StartError, ContainerStatusUnknown."""
    signal: int = 0
    """0: it exited by itself."""
    message: str = ""
    started_at: float | None = None
    container_id: str = ""


State = Waiting | Running | Exit


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One container as its backend sees it."""

    name: str
    state: State
    restart: int = 0
    """Which run this is: 0 is the first."""
    previous: Exit | None = None
    """How the run before this one ended."""
    container_id: str = ""
    """`<type>://<id>`; empty: it never started."""
    image: str = ""
    """The image as this run asked for it; empty: unknown, or of no meaning here."""
    image_id: str = ""
    """The image as resolved, with its digest; empty: unknown."""
    started: bool | None = None
    """Startup probe passed; None: whether it runs."""
    ready: bool | None = None
    """Readiness probe passes; None: whether it runs."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell of a pod that its state does not show: an event, in the kubelet's words."""

    at: float
    """When (epoch seconds)."""
    reason: str
    message: str
    container: str = ""
    """Empty: the pod itself."""
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """One workload as its backend sees it, whole."""

    identity: Identity
    containers: tuple[ContainerState, ...] = ()
    ended: bool = False
    """Nothing of it runs, nor will again unless somebody starts a container of it."""
    pod_ips: tuple[str, ...] = ()
    host_ips: tuple[str, ...] = ()
    accepted_at: float | None = None
    reason: str = ""
    """Why the whole workload waits or failed; empty: nothing beyond its containers."""
    message: str = ""
    failed: bool = False
    """It failed as a whole for `reason`, whatever its containers' codes say."""
    disrupted: bool = False
    """Infrastructure took it away."""
    notices: tuple[Notice, ...] = ()
    """What befell its containers, where the backend sees to probes and hooks itself: the newest
    few, told each time anew. Of one container each is later than the one before."""

    def container(self, name: str) -> ContainerState | None:
        """The state of that container, or None where the backend has none."""
        for one in self.containers:
            if one.name == name:
                return one
        return None
