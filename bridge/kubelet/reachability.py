"""Whether the API server reaches a node's HTTPS API, and with what certificate that one answers.

Only the API server knows the first: it is asked to pass on a call (`nodes/NAME/proxy`), over the
way that logs and exec take, with the certificates of logs and exec. To a loopback address it passes
on nothing, for fear of its own services; there a line of a pod's log is asked for instead. The
certificate is seen from here, which need not be where the API server is.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from bridge.kubelet.alive import at as _at
from bridge.kubelet.client import ApiClient, escaped
from bridge.kubelet.diagnosis import LIMIT, Answer, ask
from bridge.kubelet.findings import Finding
from bridge.pods import Manifest
from bridge.times import rfc3339

SOON = timedelta(hours=24)
"""Before a certificate's end at which whatever should have renewed it has failed."""

_REASONS = (
    (
        r"certificate|x509|tls:",
        "it does not verify the certificate that is shown",
        "approve the node's request (kubectl get csr), or configure nodes[].serving",
    ),
    (
        r"connection refused",
        "connection refused: nobody listens there",
        "see the log of podbridge up, and whether nodes[].address is this machine's own",
    ),
    (
        r"timeout|timed out|deadline exceeded",
        "no answer in time",
        "a firewall or a missing route: open the port from the API server to the node's address",
    ),
    (
        r"no route to host|network is unreachable|no such host",
        "there is no way to that address",
        "configure nodes[].address: one that the API server can reach",
    ),
)
"""Of Go's words for what went wrong: ours, and what to do."""


def endpoint(node: Manifest) -> tuple[str, int]:
    """Where a Node says that its API is; ("", 0): it does not."""
    status = node.get("status") or {}
    addresses = {one.get("type"): one.get("address") for one in status.get("addresses") or ()}
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or 0
    return str(addresses.get("InternalIP") or ""), int(port)


async def reached(
    client: ApiClient, name: str, address: str, port: int, limit: float = LIMIT - 1
) -> Sequence[Finding]:
    """Whether the API server reaches the node's API there. It gives up after 30 seconds itself.
    Errors of the call."""
    at = _at(address, port)
    try:
        async with asyncio.timeout(limit):
            path = f"/api/v1/nodes/{escaped(name)}/proxy/healthz"
            answer = await ask(client.credentials, path)
            if "address not allowed" in str(answer.object.get("message")):
                return [await _by_log(client, name, at)]
    except TimeoutError:
        return [_unreached(name, at, "timeout")]
    return [judged(answer, name, at)]


async def _by_log(client: ApiClient, name: str, at: str) -> Finding:
    """The same by the log of any pod there."""
    fields = {"fieldSelector": f"spec.nodeName={name}", "limit": "1"}
    pods = (await client.get("/api/v1/pods", fields)).get("items") or []
    if not pods:
        words = f"whether the API server reaches {at} was not tried: no pod is on the node"
        return Finding(f"API of {name}", "note", words, "look again when there is one")
    own, container = pods[0]["metadata"], pods[0]["spec"]["containers"][0]["name"]
    path = f"/api/v1/namespaces/{escaped(own['namespace'])}/pods/{escaped(own['name'])}/log"
    query = f"container={escaped(container)}&tailLines=1&limitBytes=1"
    return judged_log(await ask(client.credentials, f"{path}?{query}"), name, at)


def judged_log(answer: Answer, name: str, at: str) -> Finding:
    """What the answer for a pod's log means. The API server puts the node's own refusals into its
    words, with the same code. Pure."""
    message = str(answer.object.get("message") or answer.body.strip()[:300])
    unseen = "cannot get resource" in message or message.startswith('pods "')
    if answer.code == 200 or (answer.code in (400, 404) and not unseen):
        # There may be no log yet: the node was there to say so.
        return Finding(f"API of {name}", "ok", f"the API server reaches {at}")
    if answer.code in (401, 403) and not unseen:
        return judged(Answer(answer.code, None, message), name, at)
    if unseen:
        return judged(Answer(403, None, answer.body), name, at)
    return _unreached(name, at, message)


def judged(answer: Answer, name: str, at: str) -> Finding:
    """What the API server's answer means. Pure."""
    look = f"API of {name}"
    said = answer.body.strip()[:300]
    status = answer.object
    if answer.code == 200:
        return Finding(look, "ok", f"the API server reaches {at}")
    if status.get("kind") == "Status":
        message = str(status.get("message") or said)
        if answer.code == 403:
            words = f"whether the API server reaches {at} was not tried: {message}"
            advice = "look as an administrator: --kubeconfig FILE"
            return Finding(look, "note", words, advice)
        return _unreached(name, at, message)
    if answer.code == 401:
        words = _broken(f"{at} does not know the API server: {said}")
        advice = "cluster.client_ca: the CA of the API server's --kubelet-client-certificate"
        return Finding(look, "problem", words, advice)
    if answer.code == 403:
        words = _broken(f"{at} refuses the API server: {said}")
        advice = (
            "bind the user of the API server's --kubelet-client-certificate to the ClusterRole"
            " system:kubelet-api-admin"
        )
        return Finding(look, "problem", words, advice)
    words = f"the API server reaches {at}, which answers {answer.code}: {said}"
    return Finding(look, "problem", words)


def _broken(why: str) -> str:
    return f"logs and exec will not work: {why}; pods still run"


def _unreached(name: str, at: str, message: str) -> Finding:
    known = (rest for pattern, *rest in _REASONS if re.search(pattern, message, re.IGNORECASE))
    words, advice = next(known, (message, "see the log of podbridge up"))
    why = _broken(f"the API server cannot reach {at} ({words})")
    return Finding(f"API of {name}", "problem", why, advice)


async def certificate(
    name: str, address: str, port: int, now: Callable[[], float] = time.time
) -> Sequence[Finding]:
    """The certificate that the node's API shows, as seen from here."""
    look, at = f"certificate of {name}", _at(address, port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # It is looked at, not trusted: nothing is sent.
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(LIMIT / 2):
            _, writer = await asyncio.open_connection(address, port, ssl=context)
    except (OSError, TimeoutError) as error:
        why = "no answer" if isinstance(error, TimeoutError) else error
        words = f"{at} cannot be reached from here, where the API server need not be ({why})"
        return [Finding(look, "note", words)]
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return [described(shown or b"", look, address, now())]


def described(shown: bytes, look: str, address: str, now: float) -> Finding:
    """What is to be said of a certificate in DER. Pure."""
    from cryptography import x509  # noqa: PLC0415 - slow

    try:
        found = x509.load_der_x509_certificate(shown)
    except ValueError:
        return Finding(look, "problem", "what is shown is no certificate")
    end = found.not_valid_after_utc.timestamp()
    if now >= end:
        words = f"expired at {rfc3339(end)}: an API server that verifies refuses it"
        return Finding(look, "problem", words, "replace it, or restart podbridge up")
    if address not in _addresses(found):
        words = f"is not for {address}: an API server that verifies refuses it"
        return Finding(look, "problem", words, "another certificate, or another nodes[].address")
    if now >= end - SOON.total_seconds():
        words = f"ends at {rfc3339(end)}, and nobody has renewed it"
        return Finding(look, "problem", words, "kubectl get csr: is a request waiting?")
    if found.issuer == found.subject:
        words = f"self-signed, until {rfc3339(end)}: an API server that verifies refuses it"
        advice = "approve the node's request (kubectl get csr), or configure nodes[].serving"
        return Finding(look, "note", words, advice)
    return Finding(look, "ok", f"until {rfc3339(end)}, by {found.issuer.rfc4514_string()}")


def _addresses(found: object) -> set[str]:
    from cryptography import x509  # noqa: PLC0415 - slow

    assert isinstance(found, x509.Certificate)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(one) for one in names.get_values_for_type(x509.IPAddress)}
