"""A `Cluster` over the API server: the pods bound to one node, and what the pod loop says of them.

`watch` tells the loop of every pod, and of nothing twice: a change that is the answer to our own
PATCH, and an older one that comes late, are left out. What the loop has not taken yet is replaced
by what is newer, so that a burst costs one step, and memory is bounded by the number of pods.

A status is one strategic merge PATCH of `pods/status`: only what differs, with the UID as its
precondition and annotations in the same call (a node may not PATCH pods themselves). Whatever an
answer seems to say (404, 409, 403: the authoriser forgets a pod with its end), a pod is only gone
after the API server was asked by UID.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from types import TracebackType

from bridge.agent.cluster import Lack, PodEvent
from bridge.agent.request import identity
from bridge.errors import BridgeError, Invalid, NotFound, Unavailable, Unsupported
from bridge.kubelet.admission import Admission
from bridge.kubelet.affinity import AFFINITY
from bridge.kubelet.client import METADATA_LIST, ApiClient, Conflict, Forbidden, escaped
from bridge.kubelet.inbox import Inbox
from bridge.kubelet.node import host_ips
from bridge.kubelet.patches import status_patch
from bridge.kubelet.recorder import Recorder
from bridge.kubelet.references import References, Services, Tokens
from bridge.kubelet.watch import Changed, Listed, ListWatch
from bridge.pods import Manifest
from bridge.pods.conditions import OWNED
from bridge.pods.phase import TERMINAL
from bridge.rpc.v1 import pod_pb2

MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a pod that only shows what some kubelet runs from a file. Never ours to run."""
ENDED = 20_000
"""UIDs that are known to be gone: none ever comes back, so nobody has to ask."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """A pod as we know it, and what the loop knows of that."""

    pod: Manifest
    version: int
    since: float
    given: int = 0
    """The number of what the loop was told of it last."""
    quiet: int = -1
    """A version that the loop has from the answer to its own PATCH."""
    asking: bool = False
    """A PATCH or DELETE of ours is on its way. Until it is answered nobody is told: what the watch
    says may be its work, and whoever sent it takes the answer."""
    untold: bool = False
    """The watch said something in that time."""


class ApiCluster:
    """`bridge.agent.cluster.Cluster`, and the pods that the kubelet's HTTPS API asks for.

    What the API server refuses of these calls is Unavailable, never Invalid or Unsupported: no pod
    fails for it. Use as a context manager: leaving it writes what events there still are and ends
    all watches. `on_references` is called with the UID of a pod whose ConfigMaps, Secrets or tokens
    are not what they were; as long as nobody set it, the loop hears of the pod as MODIFIED.
    `as_node` gives the Node as last heard, None before that; without it nobody asks whether pods
    match the Node.
    """

    def __init__(
        self,
        client: ApiClient,
        cluster: str,
        node: str,
        *,
        api_server: tuple[str, int] | None = None,
        allocatable: Callable[[], Mapping[str, str]] = dict,
        as_node: Callable[[], Manifest | None] | None = None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._told = 0
        """How often the loop was told of a pod."""
        self.id = cluster
        self.node = node
        self.recorder = Recorder(client, node, clock=clock)
        self.on_references: Callable[[str], None] = self._tell_again
        self._client = client
        self._allocatable = allocatable
        self._admission = Admission(allocatable)
        self._as_node = as_node
        self._clock = clock
        self._jitter = jitter
        self._watching = ListWatch(
            client,
            "/api/v1/pods",
            fields=f"spec.nodeName={node}",
            recovered=self._recovered,
            jitter=jitter,
        )
        self._pods: dict[str, _Known] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._inbox = Inbox()
        self._following: asyncio.Task[None] | None = None
        self._listed_once = asyncio.Event()
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._deleting: set[str] = set()
        self._references = References(client, self._references_changed)
        self._services = Services(client, api_server=api_server)
        self._tokens = Tokens(client, self._references_changed, clock=clock, jitter=jitter)

    async def __aenter__(self) -> ApiCluster:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Writes the events that wait, within their limit, and ends what runs in the background."""
        self._tokens.close()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._references.close()
        await self._services.close()
        await self.recorder.close()

    # For the HTTPS API.

    @property
    def problem(self) -> str:
        """Why nothing is heard of pods at the moment; empty: all is well."""
        return self._watching.problem

    async def listed(self, patience: float) -> bool:
        """Whether the pods are known, once they are or that many seconds are over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._listed_once.wait()
        return self._listed_once.is_set()

    def find(self, namespace: str, name: str, uid: str = "") -> Manifest | None:
        """The pod of that name (and UID), as last heard."""
        known = self._pods.get(self._names.get((namespace, name), ""))
        if known is None or (uid and known.pod["metadata"]["uid"] != uid):
            return None
        return known.pod

    def all(self) -> list[Manifest]:
        """Every pod bound to the node, as last heard."""
        return [known.pod for known in self._pods.values()]

    def identity(self, pod: Manifest) -> pod_pb2.PodIdentity:
        """Who the pod is on the wire."""
        return identity(self.id, self.node, pod)

    # Cluster.

    async def watch(self) -> AsyncIterator[PodEvent]:
        """`Cluster.watch`. Goes on by itself while the API server is away."""
        inbox = self._inbox = Inbox()
        for one in self._pods.values():
            one.given, one.quiet = 0, -1
        if self._following is not None:
            # Of an earlier watch that nobody has closed.
            self._following.cancel()
        following = asyncio.create_task(self._follow(inbox), name="watch pods")
        following.add_done_callback(inbox.end)
        self._following = following
        try:
            while True:
                event = await inbox.take()
                if event.type in ("ADDED", "MODIFIED"):
                    known = self._pods.get(event.pod["metadata"]["uid"])
                    if known is None:
                        continue
                    # What a PATCH was answered meanwhile is newer than what waited here.
                    self._told += 1
                    known.given = self._told
                    event = PodEvent(event.type, known.pod)
                yield event
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def exists(self, namespace: str, name: str, uid: str) -> bool:
        """`Cluster.exists`. A UID that the API server has said to be gone needs no other look."""
        if uid in self._gone:
            return False
        # By selector and not by name: a node may GET only pods that the authoriser still knows.
        fields = f"metadata.name={name},spec.nodeName={self.node}"
        found = await self._client.get(
            _pods_of(namespace), {"fieldSelector": fields}, accept=METADATA_LIST
        )
        return any(one["metadata"]["uid"] == uid for one in found.get("items") or ())

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """`Cluster.get`."""
        with _never_permanent():
            if kind == "Service":
                return await self._services.get(namespace, name)
            return await self._references.get(kind, namespace, name)

    async def service_variables(self, pod: Manifest) -> list[tuple[str, str]]:
        """The variables by which the pod's containers find Services, in order."""
        with _never_permanent():
            return await self._services.variables(pod)

    def allocatable(self) -> Mapping[str, str]:
        """`Cluster.allocatable`: what the node says of itself."""
        return self._allocatable()

    def host_ips(self) -> Sequence[str]:
        """`Cluster.host_ips`: those of the Node as last heard."""
        node = self._as_node() if self._as_node is not None else None
        return host_ips(node) if node is not None else ()

    async def refuses(self, pod: Manifest) -> tuple[str, str] | None:
        """`Cluster.refuses`. Unavailable before the Node was heard of."""
        if self._as_node is None:
            return self._admission.refuses(pod, None)
        if (node := self._as_node()) is None:
            raise Unavailable(f"the node {self.node} was not heard of yet")
        refusal = self._admission.refuses(pod, node)
        if refusal == AFFINITY:
            # Its labels may have changed a moment ago: the scheduler may know before we do.
            with _never_permanent():
                node = await self._client.get(f"/api/v1/nodes/{escaped(self.node)}")
            refusal = self._admission.refuses(pod, node)
        return refusal

    def lacks(self, pod: Manifest) -> Lack | None:
        """`Cluster.lacks`."""
        return self._admission.lacks(pod)

    async def patch_status(
        self, pod: Manifest, status: Manifest, annotations: dict[str, str]
    ) -> Manifest | None:
        """`Cluster.patch_status`. Where nothing differs nothing is sent. Unavailable where the
        status of a pod that is there was refused."""
        metadata = pod["metadata"]
        uid = metadata["uid"]
        has = metadata.get("annotations") or {}
        added = {key: value for key, value in annotations.items() if has.get(key) != value}
        changes = status_patch(pod.get("status") or {}, status)
        known = self._pods.get(uid)
        if not changes and not added:
            return known.pod if known is not None else pod
        body: Manifest = {"metadata": {"uid": uid}}
        if added:
            body["metadata"]["annotations"] = added
        if changes:
            body["status"] = changes
        if known is None:
            return await self._patch(pod, body)
        given, known.asking = known.given, True
        answer = None
        try:
            answer = await self._patch(pod, body)
        finally:
            known.asking = False
            self._answered(known, {**pod, "status": status}, answer, given)
        return answer

    async def _patch(self, pod: Manifest, body: Manifest) -> Manifest | None:
        try:
            with _never_permanent(except_for=(Invalid,)):
                path = f"{_pod_path(pod['metadata'])}/status"
                answer = await self._client.patch(path, body)
        except NotFound:
            return None
        except (Conflict, Forbidden, Invalid) as error:
            if not await self._is_there(pod["metadata"]):
                return None
            raise Unavailable(f"the status was refused: {error}") from None
        answer["metadata"].pop("managedFields", None)
        return answer

    async def annotate(self, pod: Manifest, annotations: dict[str, str]) -> Manifest | None:
        """`Cluster.annotate`."""
        return await self.patch_status(pod, pod.get("status") or {}, annotations)

    async def event(
        self, pod: Manifest, kind: str, reason: str, message: str, field: str = ""
    ) -> None:
        """`Cluster.event`: written in the background."""
        self.recorder.record(pod, kind, reason, message, field)

    async def token(self, pod: Manifest, audience: str, seconds: int) -> str:
        """`Cluster.token`: cached, and renewed at 80% of its life or after a day."""
        known = self._pods.get(pod["metadata"]["uid"])
        with _never_permanent():
            since = None if known is None else known.since
            return await self._tokens.get(pod, audience, seconds, since)

    async def delete(self, pod: Manifest) -> None:
        """`Cluster.delete`. One that finalizers hold goes with the last of them: asked once.
        Unavailable where the deletion of a pod that is there was refused."""
        metadata = pod["metadata"]
        uid = metadata["uid"]
        if uid in self._gone or uid in self._deleting:
            return
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": uid},
        }
        known = self._pods.get(uid)
        if known is not None:
            known.asking = True
        try:
            with _never_permanent():
                answer = await self._client.delete(_pod_path(metadata), options)
            if not (answer.get("metadata") or {}).get("finalizers"):
                self._is_gone(uid)
            elif known is not None:
                self._deleting.add(uid)
        except NotFound:
            self._is_gone(uid)
        except (Conflict, Forbidden) as error:
            if await self._is_there(metadata):
                raise Unavailable(f"the deletion was refused: {error}") from None
        finally:
            if known is not None:
                known.asking = False
                if uid not in self._gone:
                    self._answered(known, pod, None, 0)

    # What comes in.

    async def _follow(self, inbox: Inbox) -> None:
        synced = False
        async with aclosing(self._watching.follow()) as changes:
            async for change in changes:
                if isinstance(change, Changed):
                    self._changed(inbox, change)
                    continue
                self._listed(inbox, change, tell_all=not synced)
                self._listed_once.set()
                if not synced:
                    inbox.put("", PodEvent("SYNCED", {}))
                    synced = True

    def _listed(self, inbox: Inbox, listed: Listed, *, tell_all: bool) -> None:
        there = {one["metadata"]["uid"] for one in listed.items}
        for missed in [known.pod for uid, known in self._pods.items() if uid not in there]:
            self._changed(inbox, Changed("DELETED", missed))
        for one in listed.items:
            known = self._pods.get(one["metadata"]["uid"])
            is_news = known is None or _version(one) > known.version
            if tell_all and known is not None and not is_news:
                # Perhaps newer than the list: a PATCH was answered after that was made.
                inbox.put(one["metadata"]["uid"], PodEvent("ADDED", known.pod))
            elif is_news or _version(one) == 0:
                self._changed(inbox, Changed("ADDED", one))

    def _changed(self, inbox: Inbox, change: Changed) -> None:
        pod = change.object
        metadata = pod["metadata"]
        uid = metadata["uid"]
        if change.type == "DELETED":
            self._forget(metadata)
            self._is_gone(uid)
            inbox.put(uid, PodEvent("DELETED", pod))
            return
        if MIRROR in (metadata.get("annotations") or {}) or uid in self._gone:
            return
        version, known = _version(pod), self._pods.get(uid)
        if known is None:
            now = asyncio.get_running_loop().time()
            self._pods[uid] = _Known(pod, version, now)
            self._names[metadata["namespace"], metadata["name"]] = uid
            self._hold(pod, None)
        else:
            if 0 < version < known.version or version == known.quiet:
                return
            self._hold(pod, known.pod)
            known.pod, known.version = pod, version
            if known.asking:
                known.untold = True
                return
        inbox.put(uid, PodEvent(change.type, pod))

    def _answered(
        self, known: _Known, meant: Manifest, answer: Manifest | None, given: int
    ) -> None:
        """The loop takes the answer for the pod, unless it was told something else meanwhile.
        `meant` is the pod as it should be by what was sent."""
        uid = meant["metadata"]["uid"]
        if self._pods.get(uid) is not known:
            return
        version = 0 if answer is None else _version(answer)
        if answer is not None and version >= known.version > 0:
            self._hold(answer, known.pod)
            known.pod, known.version = answer, version
            if known.given == given and _tells_nothing_else(meant, answer):
                known.quiet, known.untold = version, False
                self._inbox.drop(uid)
        if known.untold:
            known.untold = False
            self._inbox.put(uid, PodEvent("MODIFIED", known.pod))

    def _hold(self, pod: Manifest, before: Manifest | None) -> None:
        """Keeps at hand what the pod refers to, as long as it may still run."""
        status = pod.get("status") or {}
        if status.get("phase") in TERMINAL:
            self._release(pod["metadata"]["uid"])
            return
        if before is None or _generation(pod) != _generation(before):
            self._references.hold(pod)
        elif _generation(pod) < 2 or _granted(pod) == _granted(before):
            return
        if "startTime" in status:
            # Admitted, in an earlier life of ours perhaps; or it has something else now.
            self._admission.add(pod, granted=True)

    def _release(self, uid: str) -> None:
        for one in self._admission.remove(uid):
            # As the kubelet has it: a resize that was put off has its turn when a pod ends.
            self._tell_again(one)
        self._references.release(uid)
        self._tokens.release(uid)

    def _forget(self, metadata: Manifest) -> None:
        uid = metadata["uid"]
        self._pods.pop(uid, None)
        self._deleting.discard(uid)
        self._release(uid)
        name = (metadata.get("namespace", "default"), metadata["name"])
        if self._names.get(name) == uid:
            del self._names[name]

    def _is_gone(self, uid: str) -> None:
        self._gone[uid] = None
        if len(self._gone) > ENDED:
            self._gone.popitem(last=False)

    async def _is_there(self, metadata: Manifest) -> bool:
        return await self.exists(
            metadata.get("namespace", "default"), metadata["name"], metadata["uid"]
        )

    # What pods refer to.

    def _references_changed(self, uids: Iterable[str]) -> None:
        for uid in uids:
            if uid in self._pods:
                self.on_references(uid)

    def _recovered(self) -> None:
        """What failed while the API server was away has its turn now, and not when its pauses,
        which have grown to minutes, are over. A step of a pod to which nothing is due is cheap."""
        for uid in self._pods:
            self._tell_again(uid)

    def _tell_again(self, uid: str) -> None:
        if (known := self._pods.get(uid)) is not None:
            # Under a key of its own: newer news of the pod itself does not make up for it.
            self._inbox.put(f"again {uid}", PodEvent("MODIFIED", known.pod))


@contextmanager
def _never_permanent(except_for: tuple[type[BridgeError], ...] = ()) -> Iterator[None]:
    """What the API server says of our calls is no reason to fail a pod."""
    try:
        yield
    except (Invalid, Unsupported) as error:
        if isinstance(error, except_for):
            raise
        raise Unavailable(str(error)) from None


def _pods_of(namespace: str) -> str:
    return f"/api/v1/namespaces/{escaped(namespace)}/pods"


def _pod_path(metadata: Manifest) -> str:
    return f"{_pods_of(metadata.get('namespace', 'default'))}/{escaped(metadata['name'])}"


def _version(pod: Manifest) -> int:
    """The resourceVersion as a number; 0 where it is none, and nothing can be said of its age."""
    with contextlib.suppress(ValueError):
        return int(pod["metadata"].get("resourceVersion") or 0)
    return 0


def _generation(pod: Manifest) -> int:
    return int(pod["metadata"].get("generation") or 0)


def _granted(pod: Manifest) -> list[Manifest | None]:
    """What a resize of a pod has given to its containers."""
    status = pod.get("status") or {}
    lists = (status.get("initContainerStatuses"), status.get("containerStatuses"))
    return [one.get("allocatedResources") for found in lists for one in found or ()]


def _tells_nothing_else(meant: Manifest, answer: Manifest) -> bool:
    """Whether an answer to a PATCH is what was meant, and says nothing that others did."""
    old, new = meant["metadata"], answer["metadata"]
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "labels"):
        if old.get(key) != new.get(key):
            return False
    if not (old.get("annotations") or {}).keys() <= (new.get("annotations") or {}).keys():
        return False
    return meant["spec"] == answer["spec"] and _foreign(meant) == _foreign(answer)


def _foreign(pod: Manifest) -> dict[str, object]:
    """Conditions that others write: a pod's readiness may wait for one."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return {one["type"]: one.get("status") for one in conditions if one["type"] not in OWNED}
