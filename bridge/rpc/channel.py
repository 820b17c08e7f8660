"""How both sides of the contract speak gRPC: options, addresses, TLS, and the contract's number.

The numbers, and why:
- keep-alive: a ping after 20 s of silence, given up after 10 s, so that a dead peer is noticed well
  within a node's grace of 40 s; the server accepts pings from 10 s apart.
- messages: at most 16 MiB each way. A pod is at most 1.5 MiB in etcd, its ConfigMaps and Secrets
  1 MiB each; gRPC's default of 4 MiB would refuse pods that Kubernetes accepts.
- deadlines: 30 s for a unary call: the provider answers before it has done the work.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc

from bridge.addresses import is_local
from bridge.errors import Invalid, Violation

CONTRACT = 1
"""The number of the contract that this code speaks."""
CONTRACT_KEY = "podbridge-contract"
"""The metadata key under which both sides say theirs."""

UNARY_DEADLINE = 30.0
"""Seconds."""
MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes."""

_COMMON = [
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A frame of a byte stream, 32 KiB, in one HTTP/2 frame rather than in three.
    ("grpc.http2.max_frame_size", 64 * 1024),
]
CLIENT_OPTIONS = [
    *_COMMON,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),
    # Proxies in the environment are for the web, not for a provider.
    ("grpc.enable_http_proxy", 0),
]
SERVER_OPTIONS = [
    *_COMMON,
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    # Without this a second provider on the same port would silently share its calls.
    ("grpc.so_reuseport", 0),
]


@dataclass(frozen=True, slots=True)
class Tls:
    """In PEM: the authority that the other side's certificate must come from, and ours."""

    ca: bytes
    cert: bytes
    key: bytes = field(repr=False)


def require_tls(address: str, tls: Tls | None) -> None:
    """Refuses plain text off this host."""
    if address.startswith(("/", "./", "~")):
        words = (
            f"found {address}; allowed: unix:///PATH or HOST:PORT; did you mean unix://{address}?"
        )
        raise Invalid(violations=[Violation("address", words)])
    if tls is None and not is_local(address):
        raise Invalid(
            violations=[
                Violation(
                    "provider.tls",
                    f"needed for {address}: without mutual TLS only a unix socket or a loopback"
                    " address is allowed",
                )
            ]
        )


def client_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """What a client shows and trusts."""
    return grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert)


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """What a server shows, and whom it lets in: only clients with a certificate of `ca`."""
    return grpc.ssl_server_credentials([(tls.key, tls.cert)], tls.ca, require_client_auth=True)


CONTRACT_METADATA = ((CONTRACT_KEY, str(CONTRACT)),)
"""What each call and each answer carries."""


def contract_problem(theirs: str | bytes | None) -> str:
    """Why the other side's contract number will not do; empty where it will, or says none."""
    if theirs is None or theirs == CONTRACT_METADATA[0][1]:
        return ""
    text = theirs.decode() if isinstance(theirs, bytes) else theirs
    if text.isdecimal() and abs(int(text) - CONTRACT) <= 1:
        return ""
    return (
        f"contract {text!r} is not spoken here: this side speaks {CONTRACT} and accepts"
        f" {CONTRACT - 1} to {CONTRACT + 1}; update the older side"
    )
