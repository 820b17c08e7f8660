"""A pod as the contract carries it, made into a neutral `Workload`. Pure.

The manifest is the object as its author or the API server wrote it: nothing is taken for granted
here that only a default would have filled in. What a backend can do of it is not asked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from bridge import quantity
from bridge.errors import Invalid, Violation
from bridge.helper import need
from bridge.pods import Manifest
from bridge.pods.defaults import default_pull_policy
from bridge.pods.environment import expand, expand_text
from bridge.provider.facts import identity_from_wire
from bridge.provider.handlers import action, probe
from bridge.provider.volumes import volumes
from bridge.rpc.v1 import pod_pb2, provider_pb2
from bridge.workload import (
    LATE,
    Container,
    Dns,
    EnvVar,
    HelperUse,
    Mount,
    Port,
    PullCredential,
    Resources,
    RestartPolicy,
    RestartRule,
    Role,
    Security,
    Workload,
)

Request = provider_pb2.CreatePodRequest | provider_pb2.UpdatePodRequest
"""What asks for a pod as it should be."""
Late = Mapping[int, str]
"""Values of late references by `LateReference` number."""

MARKERS: Late = {
    pod_pb2.LATE_REFERENCE_POD_IP: LATE["podIP"],
    pod_pb2.LATE_REFERENCE_POD_IPS: LATE["podIPs"],
    pod_pb2.LATE_REFERENCE_HOST_IP: LATE["hostIP"],
    pod_pb2.LATE_REFERENCE_HOST_IPS: LATE["hostIPs"],
}
"""For who fills in the values by itself."""

LISTS = (
    ("initContainers", Role.INIT),
    ("containers", Role.MAIN),
    ("ephemeralContainers", Role.EPHEMERAL),
)
HOSTNAME_MAX = 63
"""Characters that the kernel leaves for a host's name (the kubelet truncates there too)."""
CLUSTER_DOMAIN = "cluster.local"
"""What a kubelet without --cluster-domain uses in names of pods with a subdomain."""

_NO_ENVIRONMENT = pod_pb2.ContainerEnvironment()


def translate(
    request: Request,
    manifest: Manifest,
    *,
    start_time: float | None,
    late: Late | None = None,
    domain: str = CLUSTER_DOMAIN,
) -> Workload:
    """The workload that a request asks for.

    `manifest` is `request.manifest` parsed. `start_time` is status.startTime, None before there is
    one. Variables that wait for a late reference which `late` lacks are left out (`late_fields`
    names them). An update carries no pull credentials: the workload then has none. Raises Invalid
    with every field that cannot be read.
    """
    violations: list[Violation] = []
    try:
        spec = manifest.get("spec") or {}
        policy = _policy(spec.get("restartPolicy"), "spec", violations)
        containers = _containers(request, spec, policy, late, violations)
        workload = _workload(
            request,
            manifest,
            containers,
            policy=policy,
            start_time=start_time,
            domain=domain,
            violations=violations,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        from bridge.pods import schema  # noqa: PLC0415 - only a manifest of the wrong shape pays

        if wrong := schema.check(manifest, "Pod"):
            raise Invalid(violations=wrong) from error
        raise
    if violations:
        raise Invalid(violations=violations)
    return workload


def late_fields(manifest: Manifest) -> list[str]:
    """Where a manifest refers to what only a running pod's backend knows (its addresses).

    Concrete paths: `spec.containers[0].env[2].valueFrom.fieldRef`.
    """
    return [
        f"spec.{kind}[{index}].env[{at}].valueFrom.fieldRef"
        for kind, _ in LISTS
        for index, container in enumerate(manifest.get("spec", {}).get(kind) or ())
        for at, entry in enumerate(container.get("env") or ())
        if ((entry.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath") in _LATE
    ]


_LATE = frozenset({"status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs"})


def _policy(value: Any, path: str, violations: list[Violation]) -> RestartPolicy:
    try:
        return RestartPolicy(value or "Always")
    except ValueError:
        words = f'found "{value}"; allowed: {", ".join(RestartPolicy)}'
        violations.append(Violation(f"{path}.restartPolicy", words))
        return RestartPolicy.NEVER


def _helper(annotations: Mapping[str, str], violations: list[Violation]) -> HelperUse:
    said = annotations.get(need.ANNOTATION, HelperUse.AUTO)
    try:
        return HelperUse(said)
    except ValueError:
        words = f'found "{said}"; allowed: {", ".join(HelperUse)}'
        violations.append(Violation(f"metadata.annotations[{need.ANNOTATION}]", words))
        return HelperUse.AUTO


def _containers(
    request: Request,
    spec: Manifest,
    policy: RestartPolicy,
    late: Late | None,
    violations: list[Violation],
) -> tuple[Container, ...]:
    environments = {one.container: one for one in request.environment}
    out = []
    for kind, role in LISTS:
        for index, container in enumerate(spec.get(kind) or ()):
            path = f"spec.{kind}[{index}]"
            environment = environments.get(container["name"])
            if environment is None:
                environment = _NO_ENVIRONMENT
                if container.get("env") or container.get("envFrom"):
                    words = f'the request carries no environment of "{container["name"]}"'
                    violations.append(Violation(path, words))
            making = _Making(path, spec, policy, violations)
            out.append(making.container(container, role, environment, late))
    return tuple(out)


def _workload(
    request: Request,
    manifest: Manifest,
    containers: tuple[Container, ...],
    *,
    policy: RestartPolicy,
    start_time: float | None,
    domain: str,
    violations: list[Violation],
) -> Workload:
    spec = manifest.get("spec") or {}
    metadata = manifest.get("metadata") or {}
    hostname, subdomain = _names(spec, request.pod.name, request.pod.namespace, domain)
    credentials = (
        _credentials(request.pull_credentials)
        if isinstance(request, provider_pb2.CreatePodRequest)
        else ()
    )
    grace = spec.get("terminationGracePeriodSeconds")
    deadline = spec.get("activeDeadlineSeconds")
    return Workload(
        identity=identity_from_wire(request.pod),
        containers=containers,
        volumes=volumes(spec, request.volumes, violations),
        restart_policy=policy,
        generation=request.generation,
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        helper=_helper(metadata.get("annotations") or {}, violations),
        hostname=hostname,
        subdomain=subdomain,
        host_aliases=tuple(
            (alias["ip"], tuple(alias.get("hostnames") or ()))
            for alias in spec.get("hostAliases") or ()
        ),
        dns=_dns(spec),
        sysctls=tuple(
            (one["name"], one["value"])
            for one in (spec.get("securityContext") or {}).get("sysctls") or ()
        ),
        host_network=bool(spec.get("hostNetwork")),
        host_pid=bool(spec.get("hostPID")),
        host_ipc=bool(spec.get("hostIPC")),
        share_processes=bool(spec.get("shareProcessNamespace")),
        grace=30.0 if grace is None else float(grace),
        start_time=start_time,
        deadline=None if deadline is None else float(deadline),
        pull_credentials=credentials,
        service_account=spec.get("serviceAccountName") or spec.get("serviceAccount") or "",
        node_selector=spec.get("nodeSelector") or {},
    )


_NO_DNS = Dns()


def _dns(spec: Manifest) -> Dns:
    policy, own = spec.get("dnsPolicy") or "ClusterFirst", spec.get("dnsConfig") or {}
    if not own and policy == _NO_DNS.policy:
        return _NO_DNS
    return Dns(
        policy,
        tuple(own.get("nameservers") or ()),
        tuple(own.get("searches") or ()),
        tuple((one["name"], one.get("value")) for one in own.get("options") or ()),
    )


def _credentials(given: Iterable[pod_pb2.ImagePullCredential]) -> tuple[PullCredential, ...]:
    return tuple(PullCredential(one.registry, one.username, one.password) for one in given)


def _names(spec: Manifest, name: str, namespace: str, domain: str) -> tuple[str, str]:
    """(hostname, subdomain) as the kubelet's GeneratePodHostNameAndDomain has them.

    The subdomain comes whole (`sub.namespace.svc.cluster.local`). With setHostnameAsFQDN the
    hostname does; where it is then too long Kubernetes refuses to start the pod, not to truncate.
    """
    if override := spec.get("hostnameOverride"):
        return _truncated(override), ""
    hostname = _truncated(spec.get("hostname") or name)
    subdomain = spec.get("subdomain")
    if not subdomain:
        return hostname, ""
    whole = f"{subdomain}.{namespace}.svc.{domain}"
    if spec.get("setHostnameAsFQDN"):
        hostname = f"{hostname}.{whole}"
        if len(hostname) > HOSTNAME_MAX + 1:
            words = f'found "{hostname}" as the whole name; allowed: at most 64 characters'
            raise Invalid(violations=[Violation("spec.setHostnameAsFQDN", words)])
    return hostname, whole


def _truncated(hostname: str) -> str:
    return hostname if len(hostname) <= HOSTNAME_MAX else hostname[:HOSTNAME_MAX].rstrip("-.")


class _Making:
    """Makes one container; `path` is its place in the manifest."""

    __slots__ = ("_path", "_policy", "_spec", "_violations")

    def __init__(
        self, path: str, spec: Manifest, policy: RestartPolicy, violations: list[Violation]
    ) -> None:
        self._path = path
        self._spec = spec
        self._policy = policy
        self._violations = violations

    def container(
        self,
        given: Manifest,
        role: Role,
        environment: pod_pb2.ContainerEnvironment,
        late: Late | None,
    ) -> Container:
        expanded = expand(environment, given.get("command") or (), given.get("args") or (), late)
        own = given.get("restartPolicy")
        if role is Role.INIT and own == "Always":
            role = Role.SIDECAR
        policy = _policy(own, self._path, self._violations) if own else self._policy
        # Rules count only beside a policy of the container's own (KEP-5307).
        rules = given.get("restartPolicyRules") if own else None
        lifecycle = given.get("lifecycle") or {}
        return Container(
            name=given["name"],
            role=role,
            image=given.get("image") or "",
            command=expanded.command,
            args=expanded.args,
            secret_words=(
                *(f"command[{index}]" for index in expanded.secret_command),
                *(f"args[{index}]" for index in expanded.secret_args),
            ),
            env=expanded.env,
            working_dir=given.get("workingDir") or "",
            mounts=self._mounts(
                given,
                expanded.env,
                expanded.missing,
                waits=environment.HasField("not_ready"),
            ),
            resources=self._resources(given.get("resources")),
            restart_policy=RestartPolicy.NEVER if role is Role.EPHEMERAL else policy,
            restart_rules=_rules(rules) if rules else (),
            security=_security(self._spec.get("securityContext"), given.get("securityContext")),
            ports=tuple(
                Port(
                    port["containerPort"],
                    port.get("protocol") or "TCP",
                    port.get("name") or "",
                    port.get("hostPort") or 0,
                    port.get("hostIP") or "",
                )
                for port in given.get("ports") or ()
            ),
            image_pull_policy=given.get("imagePullPolicy")
            or default_pull_policy(given.get("image") or ""),
            termination_message_path=given.get("terminationMessagePath") or "/dev/termination-log",
            logs_as_message=given.get("terminationMessagePolicy") == "FallbackToLogsOnError",
            stop_signal=lifecycle.get("stopSignal") or "",
            stdin=bool(given.get("stdin")),
            stdin_once=bool(given.get("stdinOnce")),
            tty=bool(given.get("tty")),
            startup_probe=probe(given, "startupProbe"),
            liveness_probe=probe(given, "livenessProbe"),
            readiness_probe=probe(given, "readinessProbe"),
            post_start=action(given, lifecycle.get("postStart")),
            pre_stop=action(given, lifecycle.get("preStop")),
            resize_restarts=frozenset(
                one["resourceName"]
                for one in given.get("resizePolicy") or ()
                if one.get("restartPolicy") == "RestartContainer"
            ),
        )

    def _mounts(
        self, given: Manifest, env: tuple[EnvVar, ...], missing: tuple[str, ...], *, waits: bool
    ) -> tuple[Mount, ...]:
        """`waits`: the container starts only once it was asked for again, with all its values."""
        out = []
        known = {volume["name"] for volume in self._spec.get("volumes") or ()}
        for index, mount in enumerate(given.get("volumeMounts") or ()):
            where = f"{self._path}.volumeMounts[{index}]"
            if mount["name"] not in known:
                words = f'found "{mount["name"]}"; allowed: the name of one of spec.volumes'
                self._violations.append(Violation(f"{where}.name", words))
            sub = mount.get("subPath") or ""
            if expression := mount.get("subPathExpr"):
                where = f"{where}.subPathExpr"
                sub = "" if waits else self._expression(expression, env, missing, where)
            else:
                where = f"{where}.subPath"
            if sub and (sub.startswith("/") or ".." in sub.split("/")):
                words = "found an absolute path or one with ..; allowed: a path below the volume"
                self._violations.append(Violation(where, words))
            read_only = bool(mount.get("readOnly"))
            propagation = mount.get("mountPropagation") or ""
            out.append(Mount(mount["name"], mount["mountPath"], sub, read_only, propagation))
        return tuple(out)

    def _expression(
        self, expression: str, env: tuple[EnvVar, ...], missing: tuple[str, ...], where: str
    ) -> str:
        expanded = expand_text(expression, env)
        unset = [name for name in expanded.missing if name not in missing]
        if unset:
            words = f"no value for {', '.join(unset)}: each must be a variable of the container"
            self._violations.append(Violation(where, words))
        if expanded.secret:
            words = "refers to a secret value, which must not become part of a path"
            self._violations.append(Violation(where, words))
        return expanded.text

    def _resources(self, given: Manifest | None) -> Resources:
        if not given:
            return _NO_RESOURCES
        limits = self._amounts(given.get("limits"), "limits")
        requests = self._amounts(given.get("requests"), "requests")
        return Resources(requests={**limits, **requests}, limits=limits)

    def _amounts(self, given: Manifest | None, kind: str) -> dict[str, int]:
        out = {}
        for name, value in (given or {}).items():
            try:
                out[name] = _amount(name, value)
            except ValueError as error:
                where = f"{self._path}.resources.{kind}[{name}]"
                self._violations.append(Violation(where, f"bad quantity: {error}"))
        return out


_NO_RESOURCES = Resources()


@lru_cache(maxsize=1024)
def _amount(name: str, value: Any) -> int:
    return quantity.millicores(value) if name == "cpu" else quantity.as_int(value)


def _rules(given: list[Manifest]) -> tuple[RestartRule, ...]:
    """The rules in order. Those that restart all containers never reach a backend: the capability
    tables refuse their action."""
    out = []
    for rule in given:
        if codes := rule.get("exitCodes"):
            out.append(
                RestartRule(
                    restart=rule.get("action") == "Restart",
                    codes=frozenset(codes.get("values") or ()),
                    negated=codes.get("operator") == "NotIn",
                )
            )
    return tuple(out)


_NO_SECURITY = Security()


def _security(pod: Manifest | None, own: Manifest | None) -> Security:
    """The container's security context over the pod's (securitycontext.DetermineEffective...)."""
    if not pod and not own:
        return _NO_SECURITY
    pod, own = pod or {}, own or {}

    def merged(name: str) -> Any:
        value = own.get(name)
        return pod.get(name) if value is None else value

    capabilities = own.get("capabilities") or {}
    return Security(
        run_as_user=merged("runAsUser"),
        run_as_group=merged("runAsGroup"),
        run_as_non_root=bool(merged("runAsNonRoot")),
        supplemental_groups=tuple(pod.get("supplementalGroups") or ()),
        fs_group=pod.get("fsGroup"),
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        add_capabilities=tuple(capabilities.get("add") or ()),
        drop_capabilities=tuple(capabilities.get("drop") or ()),
        privileged=bool(own.get("privileged")),
        seccomp=_seccomp(merged("seccompProfile")),
        unmasked_proc=own.get("procMount") == "Unmasked",
    )


def _seccomp(profile: Manifest | None) -> str:
    kind: str = (profile or {}).get("type") or ""
    return (profile or {}).get("localhostProfile") or "" if kind == "Localhost" else kind
