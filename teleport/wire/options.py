"""gRPC channel options that both sides use, and how gRPC names addresses."""

import ipaddress
from urllib.parse import unquote

SERVICE = "teleport.v1.Transfer"

_MESSAGE_BYTES = 16 << 20  # far above a stream frame (1 MiB) and any table of facts
_METADATA_BYTES = 1 << 20  # a refusal's whole table travels in the trailing metadata; gRPC's own limit is 8 KiB

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_metadata_size", _METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
    ("grpc.http2.max_frame_size", 16777215),  # HTTP/2's limit; measured in stream.md
    ("grpc.use_local_subchannel_pool", 1),  # a TCP connection of its own for each channel
    ("grpc.enable_http_proxy", 0),
    # A link that was cut is tried again soon: the heartbeats decide what silence means, not gRPC's back-off of up to 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A connection whose peer is gone without a word is let go after this (also TCP_USER_TIMEOUT), long after the heartbeats have
    # decided: it frees threads and buffers only.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *CHANNEL_OPTIONS,
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # ... and these pings are allowed
    ("grpc.so_reuseport", 0),  # gRPC would share a port with another process that does the same, silently
)


def is_loopback(address: str) -> bool:
    """Whether bytes to this numeric address never leave the machine."""
    parsed = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def with_port(address: str, port: int) -> str:
    """`address:port`, with IPv6's brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def grpc_target(host: str, port: int) -> str:
    """gRPC's name for a numeric address; a host's name is left for gRPC to resolve."""
    try:
        version = ipaddress.ip_address(host.split("%", maxsplit=1)[0]).version
    except ValueError:
        return f"dns:///{host}:{port}"
    return f"ipv{version}:{with_port(host.replace('%', '%25'), port)}"


def peer_words(peer: str) -> str:
    """gRPC's `ipv6:%5B::1%5D:4711` as people write it: `[::1]:4711`."""
    return unquote(peer.split(":", 1)[1]) if peer.startswith("ipv") else peer
