"""The certificate of the server: azure-identity asks no authority that has none."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bridge.tls import show

_LIFE = timedelta(days=30)


def serving(host: str) -> tuple[ssl.SSLContext, bytes]:
    """What a server at that host shows, and the certificate (PEM) by which it is known: its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _signed(key, host).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    show(context, certificate, private)
    return context, certificate


def _signed(key: ec.EllipticCurvePrivateKey, host: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "podbridge simulate azure")])
    now, public = datetime.now(UTC), key.public_key()
    known = x509.SubjectKeyIdentifier.from_public_key(public)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName(_names(host)), False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        # From here on what strict clients ask of an issuer: Python 3.13 is one by default.
        .add_extension(_usage(), True)
        .add_extension(known, False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known), False)
        .sign(key, hashes.SHA256())
    )


def _names(host: str) -> list[x509.GeneralName]:
    """The host, and this machine's own names."""
    addresses = {"127.0.0.1", "::1"}
    names = {"localhost"}
    try:
        addresses.add(str(ipaddress.ip_address(host)))
    except ValueError:
        names.add(host)
    return [
        *(x509.DNSName(one) for one in sorted(names)),
        *(x509.IPAddress(ipaddress.ip_address(one)) for one in sorted(addresses)),
    ]


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
