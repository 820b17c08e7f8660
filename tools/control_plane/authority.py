"""The cluster's certificate authority, and the kubeconfigs that its certificates make.

Everything is on elliptic curves, which costs microseconds; only the key of service account tokens
is RSA, as it is in real clusters: the API server signs one for each pod, and the bench should pay.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = datetime.timedelta(days=30)
SKEW = datetime.timedelta(minutes=5)
"""How much earlier than now a certificate begins: clocks differ."""
Kubeconfig = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    def write(self, folder: Path, name: str) -> None:
        """As `name`.crt and `name`.key."""
        (folder / f"{name}.crt").write_bytes(self.certificate)
        write_secret(folder / f"{name}.key", self.key)


def write_secret(path: Path, content: bytes) -> None:
    """A file that only its owner reads, from the first moment on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


class Authority:
    """A CA that signs whatever it is asked to."""

    def __init__(self, own: Pair) -> None:
        self.own = own
        self._certificate = x509.load_pem_x509_certificate(own.certificate)
        self._key: Any = serialization.load_pem_private_key(own.key, None)

    @classmethod
    def new(cls, name: str) -> Authority:
        """With a key and a certificate of its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        made = (
            _builder(subject, subject, key.public_key(), LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(_key_id(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(_pair(made, key))

    @classmethod
    def read(cls, folder: Path) -> Authority:
        """What `own.write(folder, "ca")` wrote."""
        return cls(Pair((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes()))

    def client(
        self, name: str, groups: Sequence[str] = (), *, life: datetime.timedelta = LIFE
    ) -> Pair:
        """Proves to the API server who one is: CN is the user, each O a group. A negative life
        makes one that has expired so long ago."""
        return self._issue(name, groups, ExtendedKeyUsageOID.CLIENT_AUTH, (), life)

    def server(self, name: str, hosts: Sequence[str], groups: Sequence[str] = ()) -> Pair:
        """Serves at these names and addresses."""
        return self._issue(name, groups, ExtendedKeyUsageOID.SERVER_AUTH, hosts, LIFE)

    def _issue(
        self,
        name: str,
        groups: Sequence[str],
        purpose: x509.ObjectIdentifier,
        hosts: Sequence[str],
        life: datetime.timedelta,
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        builder = (
            _builder(x509.Name(subject), self._certificate.subject, key.public_key(), life)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(_key_id(key.public_key()), critical=False)
            .add_extension(self._signed_by(), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general(one) for one in hosts])
            builder = builder.add_extension(names, critical=False)
        return _pair(builder.sign(self._key, hashes.SHA256()), key)

    def _signed_by(self) -> x509.AuthorityKeyIdentifier:
        # Python 3.13's ssl refuses a certificate without it.
        public = self._key.public_key()
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)


def _key_id(key: Any) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key)


def signing_keys() -> Pair:
    """For tokens of service accounts: the public half and the private one."""
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Pair(public, _pem(key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Any, life: datetime.timedelta
) -> x509.CertificateBuilder:
    until = datetime.datetime.now(datetime.UTC) + life
    begin = min(until - LIFE, datetime.datetime.now(datetime.UTC) - SKEW)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(until)
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: Any) -> bytes:
    made: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made


def _pair(certificate: x509.Certificate, key: Any) -> Pair:
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def with_certificate(pair: Pair) -> Mapping[str, str]:
    """The user of a kubeconfig who shows this certificate."""
    return {
        "client-certificate-data": base64.b64encode(pair.certificate).decode(),
        "client-key-data": base64.b64encode(pair.key).decode(),
    }


def kubeconfig(server: str, ca: bytes, user: Mapping[str, str]) -> Kubeconfig:
    """One cluster, one user, one context; all of it in the file itself."""
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": dict(user)}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }


def write_kubeconfig(path: Path, content: Kubeconfig) -> Path:
    """As JSON, which every reader of YAML reads; for its owner only."""
    write_secret(path, json.dumps(content, indent=1).encode())
    return path
