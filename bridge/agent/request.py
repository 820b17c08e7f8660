"""From a pod as the cluster has it to the contract's requests: what it refers to is fetched and
put in, so that the provider needs no cluster."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.agent.cluster import Cluster
from bridge.pods import Manifest
from bridge.pods.defaults import CONTAINER_LISTS
from bridge.pods.environment import bad_sub_path, build, references
from bridge.pods.files import content, is_filled, token_projections
from bridge.rpc.v1 import pod_pb2
from bridge.rpc.v1 import provider_pb2 as pb
from bridge.times import parse_rfc3339
from bridge.workload import Waiting

PLACED_ON = "podbridge.io/placed-on"
"""Annotation: the backend that a pod was placed on. Ours to write, as the attempt is; where an
author wants a pod to run is another annotation."""
ATTEMPT = "podbridge.io/attempt"
"""Annotation: the attempt that runs there."""

Request = pb.CreatePodRequest | pb.UpdatePodRequest

TOKEN_SECONDS = 3600
"""How long a projected token lives where the pod does not say."""


def missing(request: pb.CreatePodRequest) -> str:
    """What the pod refers to and is not there; empty where nothing is missing."""
    words = {one.not_ready.message for one in request.environment if one.HasField("not_ready")}
    return "; ".join(sorted(words))


def identity(cluster: str, node: str, pod: Manifest) -> pod_pb2.PodIdentity:
    """Who a pod of that cluster's node is on the wire."""
    metadata = pod["metadata"]
    return pod_pb2.PodIdentity(
        cluster=cluster,
        node=node,
        namespace=metadata.get("namespace", "default"),
        name=metadata["name"],
        uid=metadata["uid"],
        attempt=_attempt(pod),
    )


def is_daemons(pod: Manifest) -> bool:
    """Whether the pod is a DaemonSet's."""
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(one.get("controller") and one.get("kind") == "DaemonSet" for one in owners)


def _attempt(pod: Manifest) -> int:
    """The recorded attempt; 0 where what stands there is none."""
    text = (pod["metadata"].get("annotations") or {}).get(ATTEMPT, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


Version = tuple[object, ...]
"""What of a pod, when it changes, the provider has to be told."""


def version(pod: Manifest) -> Version:
    """The pod's generation (its spec, where the API server counts none: before 1.33), and what of
    its metadata its volumes show, which changes no generation."""
    metadata = pod["metadata"]
    generation = metadata.get("generation")
    counted = generation if generation else json.dumps(pod["spec"], sort_keys=True)
    in_volumes = any(map(_shows_metadata, pod["spec"].get("volumes") or ()))
    if not in_volumes and not any(map(_names_metadata, _containers(pod))):
        return (counted,)
    annotations = metadata.get("annotations") or {}
    foreign = {key: value for key, value in annotations.items() if key not in (PLACED_ON, ATTEMPT)}
    return (counted, metadata.get("labels") or {}, foreign)


def _shows_metadata(volume: Manifest) -> bool:
    sources = (volume.get("projected") or {}).get("sources") or ()
    return any("downwardAPI" in one for one in (volume, *sources))


def _containers(pod: Manifest) -> list[Manifest]:
    return [one for group in CONTAINER_LISTS for one in pod["spec"].get(group) or ()]


def _names_metadata(container: Manifest) -> bool:
    """Whether its environment has a label or an annotation: as it is when a run begins."""
    sources = (one.get("valueFrom") or {} for one in container.get("env") or ())
    paths = (str((one.get("fieldRef") or {}).get("fieldPath", "")) for one in sources)
    return any(one.startswith(("metadata.labels", "metadata.annotations")) for one in paths)


class Builder:
    """Builds requests; fetches what pods refer to, one object at a time."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.skipped: dict[str, tuple[str, ...]] = {}
        """By UID: words about names in envFrom that no variable may have, to be told."""
        self.kept: dict[str, str] = {}
        """By UID: why volumes stay as they are in the last update, to be told."""

    async def create(
        self, pod: Manifest, who: pod_pb2.PodIdentity, started: float
    ) -> pb.CreatePodRequest:
        """`CreatePod`, with what Kubernetes recorded. `started` is status.startTime. Where a thing
        that the pod refers to is missing its containers say so (`not_ready`). Raises as
        `Cluster.get` and `Cluster.token`."""
        request = pb.CreatePodRequest(
            pod=who,
            manifest=json.dumps(pod).encode(),
            generation=pod["metadata"].get("generation", 0),
            recorded=recorded(pod, started),
        )
        pulls, failures, unfilled = await self._fill(pod, request)
        request.pull_credentials.extend(pulls)
        failures = _bad_sub_paths(pod, request) | failures
        if unfilled:
            failures = _all_wait(request, unfilled)
        _mark(request, failures)
        return request

    async def update(
        self, pod: Manifest, who: pod_pb2.PodIdentity, *, filled: bool
    ) -> pb.UpdatePodRequest:
        """`UpdatePod`. What containers refer to and is not there (any more) holds back their own
        next start only. `filled`: every volume was there once; what is missing of one now holds
        back nothing but that volume, and `kept` says so. Raises as `create`."""
        request = pb.UpdatePodRequest(
            pod=who,
            manifest=json.dumps(pod).encode(),
            generation=pod["metadata"].get("generation", 0),
        )
        _, failures, unfilled = await self._fill(pod, request)
        if unfilled and filled:
            self.kept[who.uid] = "; ".join(one.message for one in unfilled)
        elif unfilled:
            failures = _all_wait(request, unfilled)
        _mark(request, failures)
        return request

    async def _fill(
        self, pod: Manifest, request: Request
    ) -> tuple[list[pod_pb2.ImagePullCredential], dict[str, Waiting], list[Waiting]]:
        """Puts in what the pod refers to; what is missing is told by container, and of volumes."""
        namespace = pod["metadata"].get("namespace", "default")
        found: dict[tuple[str, str, str], Manifest | None] = {}
        for kind, name, _ in references(pod):
            found[kind, namespace, name] = await self._cluster.get(kind, namespace, name)
        tokens = {
            json.dumps(one, sort_keys=True): await self._cluster.token(
                pod, one.get("audience", ""), one.get("expirationSeconds", TOKEN_SECONDS)
            )
            for one in token_projections(pod)
        }

        def objects(kind: str, namespace: str, name: str) -> Manifest | None:
            return found.get((kind, namespace, name))

        def token(projection: Manifest) -> str | None:
            return tokens.get(json.dumps(projection, sort_keys=True))

        services = await self._cluster.service_variables(pod)
        allocatable = self._cluster.allocatable()
        failures: dict[str, Waiting] = {}
        unfilled: list[Waiting] = []
        for group in ("initContainers", "containers", "ephemeralContainers"):
            for container in pod["spec"].get(group) or ():
                built = build(pod, container, objects, allocatable=allocatable, services=services)
                request.environment.append(built.environment)
                if built.skipped:
                    uid = pod["metadata"]["uid"]
                    told = (*self.skipped.get(uid, ()), *built.skipped)
                    self.skipped[uid] = tuple(dict.fromkeys(told))
                if built.failure is not None:
                    failures[container["name"]] = built.failure
        for volume in pod["spec"].get("volumes") or ():
            if not is_filled(volume):
                continue
            filled = content(pod, volume, objects, tokens=token, allocatable=allocatable)
            if isinstance(filled, Waiting):
                unfilled.append(filled)
                filled = pod_pb2.VolumeContent(volume=volume["name"])
            request.volumes.append(filled)
        return _pull_credentials(pod, found), failures, unfilled


def _all_wait(request: Request, unfilled: Sequence[Waiting]) -> dict[str, Waiting]:
    """As the kubelet has it: no container starts before every volume is there."""
    return {one.container: unfilled[-1] for one in request.environment}


def _mark(request: Request, failures: Mapping[str, Waiting]) -> None:
    for environment in request.environment:
        if (waiting := failures.get(environment.container)) is not None:
            environment.not_ready.reason = waiting.reason
            environment.not_ready.message = waiting.message


def _bad_sub_paths(pod: Manifest, request: pb.CreatePodRequest) -> dict[str, Waiting]:
    """By container."""
    environments = {one.container: one for one in request.environment}
    found = {}
    for group in ("initContainers", "containers"):
        for container in pod["spec"].get(group) or ():
            waiting = bad_sub_path(container, environments[container["name"]])
            if waiting is not None:
                found[container["name"]] = waiting
    return found


def recorded(pod: Manifest, started: float) -> pod_pb2.Recorded:
    """What Kubernetes' own record says of a pod."""
    annotations = pod["metadata"].get("annotations") or {}
    record = pod_pb2.Recorded(
        backend=annotations.get(PLACED_ON, ""),
        attempt=_attempt(pod),
        start_time=Timestamp(seconds=int(started)),
    )
    status = pod.get("status") or {}
    if text := status.get("startTime"):
        record.start_time.FromSeconds(int(parse_rfc3339(text)))
    for group in ("initContainerStatuses", "containerStatuses"):
        for one in status.get(group) or ():
            name = one["name"]
            record.restart_counts[name] = one.get("restartCount", 0)
            state = one.get("state") or {}
            if "running" in state or one.get("lastState"):
                record.started = True
            if "running" in state:
                record.running.add(
                    container=name,
                    container_id=one.get("containerID", ""),
                    started=one.get("started") is not False,
                    ready=bool(one.get("ready")),
                )
            if ended := state.get("terminated"):
                record.started = True
                record.ended.append(
                    pod_pb2.EndedContainer(container=name, terminated=_terminated(ended))
                )
    return record


def _terminated(ended: Manifest) -> pod_pb2.Terminated:
    wire = pod_pb2.Terminated(
        exit_code=ended.get("exitCode", 0),
        signal=ended.get("signal", 0),
        reason=ended.get("reason", ""),
        message=ended.get("message", ""),
        container_id=ended.get("containerID", ""),
    )
    if text := ended.get("startedAt"):
        wire.started_at.FromSeconds(int(parse_rfc3339(text)))
    if text := ended.get("finishedAt"):
        wire.finished_at.FromSeconds(int(parse_rfc3339(text)))
    return wire


def _pull_credentials(
    pod: Manifest, found: Mapping[tuple[str, str, str], Manifest | None]
) -> list[pod_pb2.ImagePullCredential]:
    namespace = pod["metadata"].get("namespace", "default")
    credentials = []
    for reference in pod["spec"].get("imagePullSecrets") or ():
        secret = found.get(("Secret", namespace, reference.get("name", "")))
        for registry, login in _docker_auths(secret or {}).items():
            username, password = _login(login)
            credentials.append(
                pod_pb2.ImagePullCredential(registry=registry, username=username, password=password)
            )
    return credentials


def _docker_auths(secret: Manifest) -> Mapping[str, Manifest]:
    """Logins by registry; what is none is left out."""
    data = secret.get("data") or {}
    try:
        if text := data.get(".dockerconfigjson"):
            auths = json.loads(base64.b64decode(text)).get("auths") or {}
        elif text := data.get(".dockercfg"):
            auths = json.loads(base64.b64decode(text))
        else:
            return {}
    except (ValueError, AttributeError):
        # The kubelet, too, pulls without a secret that it cannot read.
        return {}
    if not isinstance(auths, dict):
        return {}
    return {registry: login for registry, login in auths.items() if isinstance(login, dict)}


def _login(login: Manifest) -> tuple[str, str]:
    if text := _text(login, "auth"):
        try:
            username, _, password = base64.b64decode(text).decode().partition(":")
        except (ValueError, binascii.Error):
            return "", ""
        return username, password
    return _text(login, "username"), _text(login, "password")


def _text(login: Manifest, key: str) -> str:
    value = login.get(key)
    return value if isinstance(value, str) else ""
