"""Tap interfaces on bridges, for bridged adapters: made before QEMU starts, removed after it ended.

They are persistent while the VM runs, so that a QEMU which outlives its agent keeps its network. Needs the right to change this
host's network (CAP_NET_ADMIN). Requests and flags: linux/if_tun.h, linux/sockios.h, linux/if.h.
"""

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from teleport.errors import HypervisorError
from teleport.machines.arguments.network import Tap

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCGIFINDEX = 0x8913, 0x8914, 0x8933
_SIOCBRADDIF = 0x89A2
_IFF_UP = 0x1
_NETWORK_FOLDER = Path("/sys/class/net")


def make_taps(taps: Iterable[Tap]) -> None:
    """Makes each tap and puts it on its bridge, up. One that is there already is used again.

    Raises HypervisorError: no such bridge, or not the right to do it; then none of them is left.
    """
    made: list[Tap] = []
    try:
        for tap in taps:
            made.append(tap)
            _make(tap)
    except BaseException:
        remove_taps(made)
        raise


def remove_taps(taps: Iterable[Tap]) -> None:
    """Removes each tap that is there. One that a process has open stays, also after that process."""
    for tap in taps:
        if (_NETWORK_FOLDER / tap.name).exists():
            with contextlib.suppress(OSError), _opened(tap.name) as descriptor:
                fcntl.ioctl(descriptor, _TUNSETPERSIST, 0)


def _make(tap: Tap) -> None:
    what = f"bridge {tap.bridge!r}"
    if not (_NETWORK_FOLDER / tap.bridge).exists():
        raise HypervisorError(
            what, "this host has no such interface", "`ip link` names them; `modifyvm … --bridgeadapterN` chooses"
        )
    if not (_NETWORK_FOLDER / tap.bridge / "bridge").exists():
        raise HypervisorError(what, "is not a bridge", "make one: `ip link add br0 type bridge`, and put the interface on it")
    try:
        with _opened(tap.name) as descriptor:
            fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            _join(control, tap)
            _set_up(control, tap.name)
    except OSError as error:
        hint = "run as root, or give the runner CAP_NET_ADMIN" if error.errno in (errno.EPERM, errno.EACCES) else ""
        raise HypervisorError(f"tap on {what}", error.strerror or str(error), hint) from error


@contextlib.contextmanager
def _opened(name: str) -> Iterator[int]:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
        yield descriptor
    finally:
        os.close(descriptor)


def _join(control: socket.socket, tap: Tap) -> None:
    index = fcntl.ioctl(control, _SIOCGIFINDEX, struct.pack("16si20x", tap.name.encode(), 0))
    number = struct.unpack("16si20x", index)[1]
    try:
        fcntl.ioctl(control, _SIOCBRADDIF, struct.pack("16si20x", tap.bridge.encode(), number))
    except OSError as error:
        if error.errno != errno.EBUSY or not (_NETWORK_FOLDER / tap.bridge / "brif" / tap.name).exists():
            raise


def _set_up(control: socket.socket, name: str) -> None:
    flags = struct.unpack("16sH22x", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0)))[1]
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP))
