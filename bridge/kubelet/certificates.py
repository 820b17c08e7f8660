"""The node's own certificates: asked for, awaited, kept, and replaced before they end.

A node proves who it is to the API server by a client certificate, and the API server knows the
kubelet's API by a serving certificate. Both come from a CertificateSigningRequest (CSR). Requests
for a client certificate are approved by the cluster where it is set up for that; those for serving
certificates by nobody but a person or a controller of the cluster's own. Waiting for that stops no
pod: an event on the node names the command.

A CSR is named by what it asks for and with which key, and the key is kept until there is an answer:
who restarts, or lost an answer, finds the request that is already there. `bridge.kubelet.rotation`
makes the calls.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import os
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bridge.errors import Invalid, Violation
from bridge.pods import Manifest
from bridge.times import rfc3339

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
LONGEST_NAME = 52
"""Characters of a node's name: with `system:node:` the 64 that X.509 gives a common name."""
SELF_SIGNED_LIFE = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, which belong together."""

    certificate: bytes
    """PEM, the own one first, then those between it and the CA."""
    key: bytes = field(repr=False)
    """PEM."""
    not_before: float
    """Seconds since the epoch, as the next."""
    not_after: float
    name: str
    """The common name."""
    organizations: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()
    """DNS names and IP addresses."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a certificate must say."""

    signer: str
    node: str
    hosts: frozenset[str] = frozenset()
    """DNS names and IP addresses."""

    @property
    def name(self) -> str:
        """The common name; the organization is always system:nodes."""
        return f"system:node:{self.node}"

    @property
    def kind(self) -> str:
        """client or serving."""
        return "client" if self.signer == CLIENT_SIGNER else "serving"

    def lacking(self, pair: Pair) -> str:
        """Why another certificate is not this one; empty where it will do."""
        if pair.name != self.name or "system:nodes" not in pair.organizations:
            return f"is for {pair.name or 'nobody'}, not for {self.name} of system:nodes"
        if missing := sorted(self.hosts - pair.hosts):
            return f"is not for {', '.join(missing)}"
        return ""


def client(node: str) -> Wanted:
    """The certificate with which a node calls the API server. Invalid for a name too long."""
    _check_name(node)
    return Wanted(CLIENT_SIGNER, node)


def serving(node: str, dns: tuple[str, ...], ips: tuple[str, ...]) -> Wanted:
    """The certificate of the kubelet's API: whom the API server calls by which name or address.
    Invalid for a name too long."""
    _check_name(node)
    return Wanted(SERVING_SIGNER, node, frozenset((*dns, *map(_ip, ips))))


def _check_name(node: str) -> None:
    if len(node) > LONGEST_NAME:
        words = f"found {len(node)} characters; allowed in a certificate: {LONGEST_NAME}"
        raise Invalid(violations=[Violation("nodes.name", words)])


def _ip(text: str) -> str:
    return str(ipaddress.ip_address(text))


def pair_of(certificate: bytes, key: bytes, source: str) -> Pair:
    """A pair from PEM. Invalid, which never shows a key, where it is none."""
    from cryptography import x509  # noqa: PLC0415 - slow
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - slow
    from cryptography.x509.oid import NameOID  # noqa: PLC0415 - slow

    try:
        chain = x509.load_pem_x509_certificates(certificate)
        leaf = chain[0]
    except (ValueError, IndexError):
        raise _wrong(source, "holds no certificate in PEM") from None
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        raise _wrong(source, "holds no key in PEM that needs no password") from None
    if private.public_key() != leaf.public_key():
        raise _wrong(source, "certificate and key do not belong together")
    names = [str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    hosts: set[str] = set()
    with contextlib.suppress(x509.ExtensionNotFound):
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts.update(found.get_values_for_type(x509.DNSName))
        hosts.update(map(str, found.get_values_for_type(x509.IPAddress)))
    encoding = serialization.Encoding.PEM
    return Pair(
        b"".join(one.public_bytes(encoding) for one in chain),
        private.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
        names[0] if names else "",
        tuple(str(one.value) for one in groups),
        frozenset(hosts),
    )


def _wrong(source: str, words: str) -> Invalid:
    return Invalid(violations=[Violation("", words, source)])


def check_life(pair: Pair, source: str, now: float) -> None:
    """Invalid for a pair that is over, or has not begun."""
    if now >= pair.not_after:
        raise _wrong(source, f"the certificate expired at {rfc3339(pair.not_after)}")
    if now < pair.not_before:
        raise _wrong(
            source,
            f"the certificate begins at {rfc3339(pair.not_before)}, and it is"
            f" {rfc3339(now)} here: is the clock right?",
        )


def new_key() -> bytes:
    """A private key in PEM: P-256, as the kubelet makes it."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - slow
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - slow

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def self_signed(name: str, dns: tuple[str, ...], ips: tuple[str, ...]) -> Pair:
    """A serving certificate that nobody can verify, which most API servers do not try to."""
    from cryptography import x509  # noqa: PLC0415 - slow
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - slow
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415 - slow

    key = new_key()
    private: Any = serialization.load_pem_private_key(key, None)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + SELF_SIGNED_LIFE)
        .add_extension(x509.SubjectAlternativeName(_alternatives({name, *dns}, ips)), False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(private, hashes.SHA256())
    )
    return pair_of(built.public_bytes(serialization.Encoding.PEM), key, "our own certificate")


def _alternatives(dns: set[str], ips: tuple[str, ...]) -> list[Any]:
    from cryptography import x509  # noqa: PLC0415 - slow

    return [
        *(x509.DNSName(one) for one in sorted(dns)),
        *(x509.IPAddress(ipaddress.ip_address(one)) for one in sorted(ips)),
    ]


def signing_request(wanted: Wanted, key: bytes) -> Manifest:
    """The CertificateSigningRequest, named by what it asks for."""
    from cryptography import x509  # noqa: PLC0415 - slow
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - slow
    from cryptography.x509.oid import NameOID  # noqa: PLC0415 - slow

    private: Any = serialization.load_pem_private_key(key, None)
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
                x509.NameAttribute(NameOID.COMMON_NAME, wanted.name),
            ]
        )
    )
    if wanted.hosts:
        ips = tuple(one for one in wanted.hosts if _is_ip(one))
        alternatives = _alternatives(set(wanted.hosts) - set(ips), ips)
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
    text = builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashlib.sha256(public)
    for part in (wanted.signer, wanted.name, *sorted(wanted.hosts)):
        digest.update(b"\0" + part.encode())
    usage = "client auth" if wanted.signer == CLIENT_SIGNER else "server auth"
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": f"podbridge-{wanted.kind}-{digest.hexdigest()[:32]}"},
        "spec": {
            "request": base64.b64encode(text).decode(),
            "signerName": wanted.signer,
            # Without "key encipherment": that is for RSA keys only.
            "usages": ["digital signature", usage],
        },
    }


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class Store:
    """One pair, and the key of a request that is under way, in a folder of the node's own."""

    def __init__(self, folder: Path, kind: str) -> None:
        """`kind` is client or serving."""
        self.path = folder / f"{kind}.pem"
        """The certificate, those above it, and the key, in one file: replaced at once."""
        self._pending = folder / f"{kind}.pending.key"

    def load(self) -> Pair | None:
        """The pair, as old as it may be; None: there is none. Invalid where a file is none."""
        content = _read(self.path)
        return None if content is None else pair_of(content, content, str(self.path))

    def save(self, pair: Pair) -> None:
        """Keeps the pair, readable by its owner only. Invalid where that cannot be."""
        _write(self.path, pair.certificate + pair.key)
        self.forget()

    def pending(self) -> bytes:
        """The key to ask with: the one of a request that is under way, or a new one. Invalid where
        it can be neither read nor kept."""
        key = _read(self._pending)
        if key is not None:
            with contextlib.suppress(ValueError, TypeError):
                from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - slow

                serialization.load_pem_private_key(key, None)
                return key
        key = new_key()
        _write(self._pending, key)
        return key

    def forget(self) -> None:
        """The request is over: the next one has another key."""
        self._pending.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _wrong(str(path), f"cannot be read: {error.strerror}") from None


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made with mode 0600, and never seen half.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            # Whatever it was, Ctrl-C too: no key lies about.
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _wrong(str(path), f"cannot be written: {error.strerror}") from None
