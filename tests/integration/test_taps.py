"""Bridged adapters in a network namespace of the test's own: taps come, carry frames under QEMU, and go."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.qemu

# What runs within the namespace. Two VMs on one bridge ask for an address by their boot ROMs: both are heard on the bridge.
INSIDE = """
import socket, subprocess, sys, time
from pathlib import Path
from teleport.errors import HypervisorError
from teleport.host.taps import make_taps, remove_taps
from teleport.machines.adapters import Nic
from teleport.machines.arguments import Launch, qemu_arguments
from teleport.machines.arguments.network import Tap, taps
from teleport.machines.definition import Machine
from tests.unit.machines.cases import definition

folder = Path(sys.argv[1])
for words in (["link", "set", "lo", "up"], ["link", "add", "br0", "type", "bridge"], ["link", "set", "br0", "up"]):
    subprocess.run(["ip", *words], check=True)
machine = Machine(memory_mb=64, boot=("net", "none", "none", "none"))
vms = [
    definition(uuid=f"8f3c2a1e-5d0b-4c76-9b1f-0a7d3e6c5b4{at}", machine=machine,
               nics=(Nic(number=2, attachment="bridged", bridge="br0", model="virtio", mac=f"08:00:27:00:00:0{at}"),))
    for at in range(2)
]
ears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
ears.bind(("br0", 0))
ears.settimeout(60)
qemus = []
for at, vm in enumerate(vms):
    make_taps(taps(vm))
    make_taps(taps(vm))
    launch = Launch(accelerator="tcg", qmp_socket=str(folder / f"q{at}"), oob_socket=str(folder / f"o{at}"))
    qemus.append(subprocess.Popen(["qemu-system-x86_64", *qemu_arguments(vm, launch)]))
try:
    heard = set()
    while not {bytes.fromhex("080027000000"), bytes.fromhex("080027000001")} <= heard:
        heard.add(ears.recv(2048)[6:12])
finally:
    for qemu in qemus:
        qemu.kill()
        qemu.wait()
for vm in vms:
    assert Path("/sys/class/net", taps(vm)[0].name).exists()
    remove_taps(taps(vm))
    remove_taps(taps(vm))
    assert not Path("/sys/class/net", taps(vm)[0].name).exists()
for bridge, said in (("nowhere", "no such interface"), ("lo", "not a bridge")):
    try:
        make_taps([Tap(name="tpfirst", bridge="br0"), Tap(name="tpsecond", bridge=bridge)])
        raise AssertionError(bridge)
    except HypervisorError as error:
        assert said in str(error)
assert not Path("/sys/class/net/tpfirst").exists()
print("heard both")
"""


def test_two_bridged_vms_are_heard_on_the_bridge(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.fail("needs root, to make a network namespace")
    ran = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys && exec "$0" "$@"', sys.executable, "-c", INSIDE,
         str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.stdout.strip() == "heard both", ran.stderr
