"""Tap interfaces on bridges, for bridged adapters.

One lives as long as somebody has it open: first whoever made it, then QEMU, which gets the descriptor. So it goes with its QEMU,
however that ends, and stays with one that outlives its agent. Needs the right to change this host's network (CAP_NET_ADMIN).
Requests and flags: linux/if_tun.h, linux/sockios.h, linux/if.h.
"""

import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

from teleport.errors import HypervisorError
from teleport.machines.arguments.network import Tap

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCGIFINDEX = 0x8913, 0x8914, 0x8933
_SIOCBRADDIF = 0x89A2
_IFF_UP = 0x1
_NETWORK_FOLDER = Path("/sys/class/net")


def open_tap(tap: Tap) -> int:
    """Makes the tap and puts it on its bridge, up; the descriptor is the caller's to close, and the tap goes with its last copy.

    Raises HypervisorError: no such bridge, not the right to do it, or a QEMU that has the tap; then nothing is left of it.
    """
    what = f"bridge {tap.bridge!r}"
    if not (_NETWORK_FOLDER / tap.bridge).exists():
        raise HypervisorError(
            what, "this host has no such interface", "`ip link` names them; `modifyvm … --bridgeadapterN` chooses"
        )
    if not (_NETWORK_FOLDER / tap.bridge / "bridge").exists():
        raise HypervisorError(what, "is not a bridge", "make one: `ip link add br0 type bridge`, and put the interface on it")
    descriptor = -1
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", tap.name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            _join(control, tap)
            _set_up(control, tap.name)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        hint = "run as root, or give the runner CAP_NET_ADMIN" if error.errno in (errno.EPERM, errno.EACCES) else ""
        raise HypervisorError(f"tap on {what}", error.strerror or str(error), hint) from error
    return descriptor


def _join(control: socket.socket, tap: Tap) -> None:
    index = fcntl.ioctl(control, _SIOCGIFINDEX, struct.pack("16si20x", tap.name.encode(), 0))
    number = struct.unpack("16si20x", index)[1]
    fcntl.ioctl(control, _SIOCBRADDIF, struct.pack("16si20x", tap.bridge.encode(), number))


def _set_up(control: socket.socket, name: str) -> None:
    flags = struct.unpack("16sH22x", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0)))[1]
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP))
