"""The provider's end of the helpers' tunnels: what runs in clouds' containers, within reach.

    messages   what a helper says, parsed; pure
    http2      one connection: HTTP/2's client over a transport, with bounded memory
    channel    a command, a container's streams or a connection, as `bridge.adapter.Channel`
    link       one helper: its requests and their errors
    server     `Tunnels`: the listener, who is connected, and the calls of an adapter

A helper connects; the roles then turn, and it is the server of HTTP/2. docs/helper.md has the
protocol. A helper is not trusted with more than its own pod.
"""

from bridge.helper.tunnel.server import (
    Connected,
    Event,
    Lost,
    NotConnected,
    Pod,
    Reported,
    Tunnels,
)

__all__ = ["Connected", "Event", "Lost", "NotConnected", "Pod", "Reported", "Tunnels"]
