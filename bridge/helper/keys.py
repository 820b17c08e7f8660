"""Keys of the helpers and their tunnel, all from one secret of the provider's. Pure.

Whoever has the secret (a provider after its restart, a replica of it) makes the same keys and the
same certificate authority: nothing has to be kept or agreed on. What was given to one pod tells
nothing of the secret or of another pod's keys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bridge.workload import Key

SECRET_LENGTH = 32
"""Bytes of the provider's secret, at least."""
SERVER_NAME = "provider.podbridge.internal"
"""What the provider's certificate is for, wherever it listens."""
SCHEME = "podbridge"
EARLY = timedelta(hours=1)
"""How far a pod's clock may be behind the provider's."""
_WORD = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
"""What a cluster and a UID may be, so that they stand in a URI as they are."""
_NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""RFC 5280, 4.1.2.5: no well-defined expiration date."""
_ALWAYS = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key (PKCS#8), both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


def pod_key(secret: bytes, pod: Key) -> bytes:
    """The 32 bytes by which a pod's helpers know one another (`Settings.key`). ValueError."""
    return _derived(secret, "pod key", *_words(pod))


class Authority:
    """The certificate authority of one secret: its key and certificate are always the same."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._key = Ed25519PrivateKey.from_private_bytes(_derived(secret, "tunnel authority"))
        self._name = _name("podbridge tunnel")
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key(), _ALWAYS, _NEVER)
            .serial_number(_serial(_derived(secret, "tunnel authority's serial")))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(_identifier(self._key.public_key()), critical=False)
            .sign(self._key, None)
        )

    @property
    def certificate(self) -> bytes:
        """PEM."""
        return self._certificate.public_bytes(Encoding.PEM)

    def server(self, now: datetime, lifetime: timedelta) -> Pair:
        """The provider's own, for `SERVER_NAME`, with a new key each time."""
        return self._signed(
            Ed25519PrivateKey.generate(),
            _name("podbridge provider"),
            x509.DNSName(SERVER_NAME),
            ExtendedKeyUsageOID.SERVER_AUTH,
            (now - EARLY, now + lifetime),
        )

    def client(self, pod: Key, now: datetime, lifetime: timedelta) -> Pair:
        """A pod's, from an hour before `now` until `lifetime` after it; the same for the same
        arguments. ValueError where the pod's identity cannot stand in a URI."""
        return self._signed(
            Ed25519PrivateKey.from_private_bytes(_derived(self._secret, "pod", *_words(pod))),
            _name("podbridge helper"),
            x509.UniformResourceIdentifier(uri_of(pod)),
            ExtendedKeyUsageOID.CLIENT_AUTH,
            (now - EARLY, now + lifetime),
        )

    def _signed(
        self,
        key: Ed25519PrivateKey,
        subject: x509.Name,
        name: x509.GeneralName,
        purpose: x509.ObjectIdentifier,
        valid: tuple[datetime, datetime],
    ) -> Pair:
        start, end = (one.astimezone(UTC).replace(microsecond=0) for one in valid)
        public = key.public_key()
        serial = _derived(
            self._secret, "serial", public.public_bytes_raw().hex(), str(start), str(end)
        )
        certificate = (
            _builder(subject, self._name, public, start, end)
            .serial_number(_serial(serial))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(_identifier(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, None)
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Pair(certificate.public_bytes(Encoding.PEM), private)


def uri_of(pod: Key) -> str:
    """`podbridge://<cluster>/<uid>/<attempt>`. ValueError where that cannot be."""
    return f"{SCHEME}://{'/'.join(_words(pod))}"


def pod_of(certificate: bytes) -> Key:
    """The pod that a verified certificate (DER) is for. ValueError where it is for none."""
    names = (
        x509.load_der_x509_certificate(certificate)
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    if len(list(names)) != 1:
        raise ValueError("not one name")
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    scheme, _, rest = uri.partition("://")
    cluster, uid, attempt = rest.split("/")
    pod = (cluster, uid, int(attempt))
    if scheme != SCHEME or uri_of(pod) != uri:
        raise ValueError("not a pod's name")
    return pod


def _words(pod: Key) -> Sequence[str]:
    cluster, uid, attempt = pod
    if not (_WORD.fullmatch(cluster) and _WORD.fullmatch(uid) and attempt >= 0):
        raise ValueError("a cluster and a UID are letters, digits, dots, dashes and underscores")
    return cluster, uid, str(attempt)


def _derived(secret: bytes, purpose: str, *words: str) -> bytes:
    if len(secret) < SECRET_LENGTH:
        raise ValueError(f"a secret of {len(secret)} bytes is shorter than {SECRET_LENGTH}")
    info = "\0".join(("podbridge helper 1", purpose, *words)).encode()
    return HKDF(SHA256(), length=32, salt=None, info=info).derive(secret)


def _serial(derived: bytes) -> int:
    # RFC 5280, 4.1.2.2: positive, at most 20 bytes.
    return int.from_bytes(derived[:19], "big") or 1


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _identifier(key: Ed25519PublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return made.not_valid_before(start).not_valid_after(end)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
