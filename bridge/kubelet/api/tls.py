"""TLS for the HTTPS API: each handshake meets the certificate and the CAs that hold just then."""

from __future__ import annotations

import ssl

from bridge.errors import Invalid
from bridge.kubelet.certificates import Pair
from bridge.tls import show


def server_context(pair: Pair, client_ca: bytes = b"") -> ssl.SSLContext:
    """What a kubelet's listener shows and asks for: TLS 1.2 or newer, HTTP/1.1 alone, and a client
    certificate of one of the CAs (PEM), which a client may leave out. Without CAs none is asked
    for. Invalid: they are none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Exec and port-forward upgrade the connection: HTTP/2 could not carry them.
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    # A resumed session is one whose certificate nobody verifies anew.
    context.num_tickets = 0
    show(context, pair.certificate, pair.key)
    if client_ca.strip():
        try:
            context.load_verify_locations(cadata=client_ca.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise Invalid("the client CA bundle holds no certificates in PEM") from None
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


class LiveContext(ssl.SSLContext):
    """Stands for the newest context: asyncio keeps one for as long as it listens, and OpenSSL lets
    no CA be taken out of one."""

    current: ssl.SSLContext

    def __new__(cls, current: ssl.SSLContext) -> LiveContext:
        """Stands for `current` until that is replaced."""
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made.current = current
        return made

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """A new connection (`ssl.SSLContext.wrap_bio`)."""
        return self.current.wrap_bio(incoming, outgoing, server_side, server_hostname, session)
