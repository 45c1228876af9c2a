"""gRPC channel options that both sides use, and which addresses are whose."""

import ipaddress

SERVICE = "teleport.v1.Transfer"

# Large frames carry the stream (16 MiB is HTTP/2's limit); the rest keeps one process's channels apart and finds a used port.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.http2.max_frame_size", 16777215),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0))


def is_loopback(address: str) -> bool:
    """Whether bytes to this numeric address never leave the machine."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def grpc_target(address: str, port: int) -> str:
    """gRPC's name for a numeric address."""
    return f"ipv6:[{address}]:{port}" if ":" in address else f"ipv4:{address}:{port}"
