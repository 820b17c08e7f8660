"""What is wrong between a node and its API server, each look by itself: `podbridge doctor`.

Every look is one function. It changes nothing, takes at most `LIMIT` seconds, and gives findings
instead of errors: what was seen, and what to do about it. What may not be looked at is a note and
no problem: whoever keeps a node has fewer rights than whoever wonders about it. Beside these are
`bridge.kubelet.permissions` and `bridge.kubelet.reachability`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import email.utils
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp
from yarl import URL

import bridge
from bridge.agent.provider import ProviderClient
from bridge.errors import BridgeError, NotFound, Unavailable
from bridge.kubelet import lock
from bridge.kubelet.certificates import CLIENT_SIGNER, SERVING_SIGNER
from bridge.kubelet.client import CONNECT, ApiClient, Forbidden, escaped
from bridge.kubelet.credentials import Credentials
from bridge.kubelet.findings import Finding, Level
from bridge.kubelet.node import NEWEST, SKEW, TAINT, NodeSpec, minor_of, why_foreign
from bridge.pods import Manifest
from bridge.rpc.v1 import provider_pb2 as pb

LIMIT = 10.0
"""Seconds that one look may take."""
OPENING = 5.0
"""Seconds that backends may take to become ready, once the provider has answered."""
OLDEST = 30
"""The oldest minor version of Kubernetes that this is made for."""
CLOCK = 10.0
"""Seconds by which clocks may differ before times in statuses mislead people."""
LONGEST = 64 * 1024
"""Bytes of one answer that are read."""

Look = Callable[[], Awaitable[Sequence[Finding]]]


async def bounded(name: str, look: Look, limit: float = LIMIT) -> list[Finding]:
    """The findings of a look, errors included."""
    try:
        async with asyncio.timeout(limit):
            return list(await look())
    except TimeoutError:
        return [Finding(name, "problem", f"no answer within {limit:.0f} seconds")]
    except Forbidden as error:
        words = f"not looked at, because it is not allowed: {error.message}"
        return [Finding(name, "note", words, "look as an administrator: --kubeconfig FILE")]
    except BridgeError as error:
        return [Finding(name, "problem", error.message)]


# The API server.


def version(server: str, git_version: str) -> Finding:
    """Whether this podbridge is made for an API server of that version."""
    said = f"{server} answers: {git_version}"
    minor = minor_of(git_version)
    newest = f"1.{NEWEST}, with which this podbridge was compared last"
    if minor is None:
        return Finding("API server", "note", f"{said}, which tells no minor version")
    if minor < OLDEST:
        words = f"{said}, which is older than 1.{OLDEST}"
        return Finding("API server", "problem", words, "upgrade the cluster")
    if minor > NEWEST + SKEW:
        words = f"{said}, more than {SKEW} minor versions newer than {newest}"
        return Finding("API server", "problem", words, "upgrade podbridge")
    if minor > NEWEST:
        return Finding("API server", "note", f"{said}, newer than {newest}")
    return Finding("API server", "ok", said)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of any kind: kubelets behind an API server speak no JSON."""

    code: int
    date: float | None
    """Seconds since the epoch, cut to whole ones, by the clock over there."""
    body: str

    @property
    def object(self) -> Manifest:
        """The body, where it is an object; else {}."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


async def ask(credentials: Credentials, path: str) -> Answer:
    """GETs a path of the API server. Unavailable where nobody answers."""
    headers = {"Accept": "application/json", "User-Agent": f"podbridge/{bridge.__version__}"}
    if authorization := await credentials.authorization(False):
        headers["Authorization"] = authorization
    url = URL(f"{credentials.server.rstrip('/')}{path}", encoded=True)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(
                url,
                headers=headers,
                ssl=credentials.tls() or True,
                server_hostname=credentials.server_name,
                proxy=credentials.proxy,
                allow_redirects=False,
            ) as response,
        ):
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LONGEST:
                    break
            date = _http_date(response.headers.get("Date"))
            return Answer(response.status, date, bytes(body).decode("utf-8", "replace"))
    except (aiohttp.ClientError, OSError) as error:
        words = f"the API server does not answer: {error or type(error).__name__}"
        raise Unavailable(words) from None


def _http_date(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text or "").timestamp()
    except (ValueError, OverflowError):
        return None


async def clock(
    credentials: Credentials, now: Callable[[], float] = time.time
) -> Sequence[Finding]:
    """Our clock against the API server's."""
    before = now()
    answer = await ask(credentials, "/version")
    after = now()
    if answer.date is None:
        return [Finding("clock", "note", "the API server tells no time")]
    # It is somewhere within that second over there, and between the two moments here.
    behind, ahead = answer.date - after, before - (answer.date + 1)
    if max(behind, ahead) <= CLOCK:
        return [Finding("clock", "ok", f"within {CLOCK:.0f} seconds of the API server's")]
    words = f"{behind:.0f} seconds behind" if behind > 0 else f"{ahead:.0f} seconds ahead of"
    return [
        Finding(
            "clock",
            "problem",
            f"this machine is {words} the API server: certificates and times will be wrong",
            "set the clock of one of them (NTP)",
        )
    ]


async def who(client: ApiClient) -> tuple[Finding, str]:
    """Who we are to the API server, and the user's name; empty: not known."""
    kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    source = client.credentials.source
    try:
        answer = await client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", kind)
    except NotFound:
        return Finding("identity", "note", f"{source}: this API server cannot tell"), ""
    name = str(((answer.get("status") or {}).get("userInfo") or {}).get("username") or "")
    if name in ("", "system:anonymous"):
        words = f"{source}: the API server does not know us"
        return Finding("identity", "problem", words, "give the kubeconfig a user"), name
    return Finding("identity", "ok", f"{name} ({source})"), name


# The node.


def node(there: Manifest | None, spec: NodeSpec) -> list[Finding]:
    """The Node object; None: there is none."""
    look = f"node {spec.name}"
    if there is None:
        return [Finding(look, "problem", "there is none", "podbridge up makes it")]
    if spec.cluster and (foreign := why_foreign(there, spec)):
        advice = "choose another name: nodes[].name, or --node"
        return [Finding(look, "problem", f"it {foreign}", advice)]
    status = there.get("status") or {}
    conditions = {one.get("type"): one for one in status.get("conditions") or ()}
    ready = conditions.get("Ready") or {}
    since = ready.get("lastTransitionTime")
    found = []
    if ready.get("status") == "True":
        taints = [one.get("key") for one in there["spec"].get("taints") or ()]
        tainted = "tainted" if TAINT["key"] in taints else "takes all pods"
        found.append(Finding(look, "ok", f"Ready since {since}; {tainted}"))
    elif ready.get("status") == "Unknown":
        words = f"nobody has told of it since {ready.get('lastHeartbeatTime')}"
        found.append(Finding(look, "problem", words, "start podbridge up, or see its log"))
    else:
        words = ready.get("message") or ready.get("reason") or "no reason is told"
        found.append(Finding(look, "problem", f"not Ready since {since}: {words}"))
    for kind, one in conditions.items():
        if kind != "Ready" and one.get("status") == "True":
            found.append(Finding(look, "problem", f"{kind}: {one.get('message')}"))
    if there["spec"].get("unschedulable"):
        words = "cordoned: it gets no new pods"
        found.append(Finding(look, "note", words, f"kubectl uncordon {spec.name}"))
    return found


async def find_node(client: ApiClient, name: str) -> Manifest | None:
    """The Node; None: there is none. Errors of the call."""
    try:
        return await client.get(f"/api/v1/nodes/{escaped(name)}")
    except NotFound:
        return None


async def lease(credentials: Credentials, name: str) -> list[Finding]:
    """Who keeps the node, and how long ago that was said; by the API server's clock."""
    look = f"lease of {name}"
    path = f"/apis/coordination.k8s.io/v1/namespaces/{lock.NAMESPACE}/leases/{escaped(name)}"
    answer = await ask(credentials, path)
    if answer.code == 404:
        return [Finding(look, "problem", "there is none: nobody keeps the node", "podbridge up")]
    if answer.code != 200:
        return [_refused(look, answer)]
    spec = answer.object.get("spec") or {}
    holder = str(spec.get("holderIdentity") or "")
    if not holder:
        words = "handed over, and nobody has taken it"
        return [Finding(look, "problem", words, "start podbridge up, or see its log")]
    try:
        renewed = datetime.fromisoformat(str(spec.get("renewTime"))).timestamp()
    except ValueError:
        return [Finding(look, "problem", f"held by {holder}, with a renewTime that is no time")]
    age = max(0.0, (answer.date or time.time()) - renewed)
    said = f"held by {holder}, renewed {age:.0f} seconds ago"
    if age > lock.DURATION:
        advice = "start podbridge up, or see its log: another replica takes it after 25 seconds"
        return [Finding(look, "problem", said, advice)]
    return [Finding(look, "ok", said)]


def _refused(look: str, answer: Answer) -> Finding:
    words = str(answer.object.get("message") or f"the API server answered {answer.code}")
    if answer.code == 403:
        words = f"not looked at, because it is not allowed: {words}"
        return Finding(look, "note", words, "look as an administrator: --kubeconfig FILE")
    return Finding(look, "problem", words)


async def requests(client: ApiClient, name: str) -> list[Finding]:
    """Certificate requests of the node that wait for somebody."""
    look = f"certificate requests of {name}"
    path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    signers = (CLIENT_SIGNER, SERVING_SIGNER)
    lists = await asyncio.gather(
        *(client.list(path, {"fieldSelector": f"spec.signerName={one}"}) for one in signers)
    )
    found = []
    for (items, _), signer in zip(lists, signers, strict=True):
        for one in items:
            if (one.get("status") or {}).get("conditions") or not _is_of(one, name):
                continue
            own = one["metadata"]
            # Whether the API server minds is seen where it is asked for a call to the node.
            level: Level = "note"
            what = "an API server that verifies brings no logs and exec until then; pods run"
            if signer == CLIENT_SIGNER:
                level, what = "problem", "the node waits for it"
            words = f"{own['name']} waits since {own.get('creationTimestamp')}: {what}"
            advice = f"kubectl certificate approve {own['name']}"
            found.append(Finding(look, level, words, advice))
    return found or [Finding(look, "ok", "none waits for approval")]


def _is_of(request: Manifest, node: str) -> bool:
    """Whether it asks for a certificate of that node."""
    from cryptography import x509  # noqa: PLC0415 - slow
    from cryptography.x509.oid import NameOID  # noqa: PLC0415 - slow

    try:
        text = base64.b64decode(str((request.get("spec") or {}).get("request")))
        subject = x509.load_pem_x509_csr(text).subject
    except (ValueError, binascii.Error):
        return False
    names = [one.value for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return f"system:node:{node}" in names


async def metrics(client: ApiClient) -> list[Finding]:
    """Whether `kubectl top` has somebody to ask."""
    look = "metrics-server"
    try:
        await client.get("/apis/metrics.k8s.io/v1beta1")
    except NotFound:
        return [Finding(look, "note", "not there: kubectl top will not work, all else will")]
    except Unavailable as error:
        return [Finding(look, "note", f"kubectl top will not work: {error.message}")]
    return [Finding(look, "ok", "there")]


# The provider.


async def provider(client: ProviderClient, cluster: str, node_: str) -> list[Finding]:
    """The provider's answer, and its backends. Errors of the call."""
    offer = await _offer(client, pb.WatchNodeRequest(cluster=cluster, node=node_))
    found = []
    said = f"answers: {offer.provider_version or 'no version is told'}"
    if offer.provider_version and offer.provider_version != bridge.__version__:
        words = f"{said}; this is {bridge.__version__}"
        found.append(Finding("provider", "note", words))
    else:
        found.append(Finding("provider", "ok", said))
    for one in offer.backends:
        look = f"backend {one.name}"
        if one.ready:
            found.append(Finding(look, "ok", f"ready ({one.type})"))
        else:
            words = f"takes no pods ({one.type}): {one.message or 'no reason is told'}"
            found.append(Finding(look, "problem", words))
    if not offer.backends:
        advice = "configure backends where the provider runs"
        found.append(Finding("provider", "problem", "it has no backends", advice))
    return found


async def _offer(client: ProviderClient, request: pb.WatchNodeRequest) -> pb.WatchNodeResponse:
    """The first offer in which all backends are ready; else the last one within `OPENING`."""
    last: pb.WatchNodeResponse | None = None
    offers: Any = client.watch_node(request)
    async with aclosing(offers):
        async for one in offers:
            last = one
            break
        try:
            async with asyncio.timeout(OPENING):
                while last is not None and not all(one.ready for one in last.backends):
                    last = await anext(offers)
        except (TimeoutError, StopAsyncIteration):
            pass
    if last is None:
        raise Unavailable("the provider tells of nothing")
    return last
