"""A certificate and its key, given to `ssl` without a file."""

from __future__ import annotations

import os
import ssl


def show(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Has a context show that certificate (PEM, its issuers behind it) with that key (PEM). From
    memory: `ssl` reads only files, and a key must lie in none that others could open."""
    handle = os.memfd_create("certificate")
    try:
        with os.fdopen(os.dup(handle), "wb") as stream:
            stream.write(certificate + key)
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
