"""`intnet`: VMs of this host with the same network name hear each other, and nobody else's frames come there."""

import contextlib
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from teleport.machines.adapters import Nic
from teleport.machines.arguments import Launch, qemu_arguments
from teleport.machines.arguments.network import internal_group
from teleport.machines.definition import Machine
from tests.unit.machines.cases import definition

pytestmark = pytest.mark.qemu


@contextlib.contextmanager
def booting(folder: Path, number: int, network: str) -> Iterator[None]:
    """A VM whose boot ROM asks the network for an address, from the MAC that ends in `number`."""
    vm = definition(
        machine=Machine(memory_mb=64, boot=("net", "none", "none", "none")),
        nics=(Nic(number=1, attachment="intnet", network=network, model="virtio", mac=f"08:00:27:00:00:0{number}"),),
    )
    launch = Launch(accelerator="tcg", qmp_socket=str(folder / f"q{number}"), oob_socket=str(folder / f"o{number}"))
    qemu = subprocess.Popen(["qemu-system-x86_64", *qemu_arguments(vm, launch)])
    try:
        yield
    finally:
        qemu.kill()
        qemu.wait()


def _ears(network: str) -> socket.socket:
    address, port = internal_group(network)
    ears = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ears.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    ears.bind((address, port))
    member = struct.pack("4s4s", socket.inet_aton(address), socket.inet_aton("127.0.0.1"))
    ears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    ears.settimeout(60)
    return ears


def test_vms_of_one_name_hear_each_other(short_folder: Path) -> None:
    lab, mine = f"lab {short_folder.name}", f"mine {short_folder.name}"
    assert internal_group(lab) != internal_group(mine)
    with _ears(lab) as ears, booting(short_folder, 3, mine), booting(short_folder, 1, lab), booting(short_folder, 2, lab):
        heard: set[str] = set()
        while not {"080027000001", "080027000002"} <= heard:
            heard.add(ears.recv(2048)[6:12].hex())
        assert heard == {"080027000001", "080027000002"}
