"""A guest that people reach over the network is reached after its teleport: through forwarded ports, on a bridge, and by another VM."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.guest import REPOSITORY, GuestConsole, Load
from tests.harness.home import Home
from tests.harness.host import Host
from tests.harness.scene import Scene, kill_hard, until

pytestmark = pytest.mark.qemu

LOAD = Load(resident_mb=1)
MEMORY_MB = 112
_BRIDGED = ("--nic2", "bridged", "--nictype2", "virtio", "--bridgeadapter2", "br0")
_FIRST_PORT, _SECOND_PORT, _BUSY_PORT, _GUEST_PORT, _UDP_PORT = 8001, 8002, 8003, 7, 8004
_HOST, _GUEST = "10.79.0.1", "10.79.0.2"
_INTNET_GUEST, _INTNET_NEIGHBOUR = "10.80.0.1", "10.80.0.2"
_RARP = 0x8035
_ECHO = f"busybox nc -ll -p {_GUEST_PORT} -e /bin/busybox cat >/dev/null 2>&1 </dev/null &"
_ON_BRIDGE = f"busybox ip address add {_GUEST}/24 dev eth1 && busybox ip link set eth1 up && cat /sys/class/net/eth1/address"


# Nobody listens there: the guest's own word that a datagram came.
_DATAGRAMS = "busybox awk '/^Udp:/ {got = $3} END {print got}' /proc/net/snmp"


def test_a_guest_is_reached_by_its_forwarded_port_and_on_its_bridge_after_the_move() -> None:
    if os.geteuid():
        pytest.fail("needs root, to make a network namespace")
    ran = subprocess.run(
        # However this test ends, nothing of its process namespace lives on. The shell stays there: it reaps.
        ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
         "sh", "-c", 'mount -t sysfs sysfs /sys && "$0" "$@"; exit $?', sys.executable, "-c",
         f"from {__name__} import journey; journey()"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"


def journey() -> None:
    """There and back in a network namespace of our own, where all ports and interface names are free."""
    for words in ("link set lo up", "link add br0 type bridge", f"address add {_HOST}/24 dev br0", "link set br0 up"):
        subprocess.run(["ip", *words.split()], check=True, timeout=10)
    with contextlib.closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_RARP))) as ears:
        ears.bind(("br0", _RARP))
        ears.settimeout(30)
        rules = ("--natpf1", _rule("web", _FIRST_PORT), "--natpf1", _rule("datagrams", _UDP_PORT, "udp"))
        with (
            Scene(load=LOAD, memory_mb=MEMORY_MB, options=(*_BRIDGED, *_on_lab(3), *rules)) as scene,
            _neighbour(scene.here.home) as neighbour,
        ):
            _set_rules(scene.there, web=_SECOND_PORT)
            scene.console.run(f"busybox ip address add {_INTNET_GUEST}/24 dev eth2 && busybox ip link set eth2 up")
            _meet(scene, neighbour)
            _hears_datagrams(scene)
            scene.console.run(_ECHO)
            mac = scene.console.run(_ON_BRIDGE)
            until(lambda: _echoes("127.0.0.1", _FIRST_PORT), "the forwarded port leads nowhere")
            with socket.create_connection((_GUEST, _GUEST_PORT), 30) as visitor:
                assert _answers(visitor)
                first_tap = _only_tap()
                assert _learned(mac) == {first_tap}

                scene.move()
                heard = bytes(6)
                while heard != bytes.fromhex(mac.replace(":", "")):
                    heard = ears.recv(2048)[6:12]  # QEMU's own word, as a guest whose driver cannot announce itself needs it
                until(lambda: _taps() and first_tap not in _taps(), "the source's tap stays")
                second_tap = _only_tap()
                assert _learned(mac) == {second_tap}
                assert _answers(visitor)
                _meet(scene, neighbour)
                until(lambda: _echoes("127.0.0.1", _SECOND_PORT), "the target's forwarded port leads nowhere")
                _hears_datagrams(scene)
                assert not _echoes("127.0.0.1", _FIRST_PORT)

                # Back, with a rule for the very port that the other QEMU on this host still has while the guest arrives, behind
                # one for a port that somebody else has.
                _set_rules(scene.there, busy=_BUSY_PORT, web=_SECOND_PORT)
                with socket.create_server(("127.0.0.1", _BUSY_PORT)):
                    scene.move()
                    until(lambda: _echoes("127.0.0.1", _SECOND_PORT), "the port that the source let go leads nowhere")
                until(lambda: _echoes("127.0.0.1", _BUSY_PORT), "the port that somebody else let go leads nowhere")
                until(lambda: _taps() == {first_tap}, "the tap of the way back is missing, or the other one stays")
                assert _answers(visitor)
                _meet(scene, neighbour)
            for pid in scene.here.home.processes():  # all at once: QEMU and both halves of its runner
                kill_hard(pid)
            until(lambda: not _taps(), "a tap stays after its QEMU")
            assert scene.here.run("list", "runningvms").out == ""


def _on_lab(number: int) -> tuple[str, ...]:
    return f"--nic{number}", "intnet", f"--nictype{number}", "virtio", f"--intnet{number}", "lab"


@contextlib.contextmanager
def _neighbour(home: Home) -> Iterator[GuestConsole]:
    """Another VM on the internal network, which stays where it is."""
    vm = Host("B", home)
    vm.define(load=LOAD, memory_mb=MEMORY_MB, options=_on_lab(2))
    with GuestConsole(vm.endpoint) as console:
        vm.start()
        console.wait_ready(120)
        console.run(f"busybox ip address add {_INTNET_NEIGHBOUR}/24 dev eth1 && busybox ip link set eth1 up")
        yield console


def _meet(scene: Scene, neighbour: GuestConsole) -> None:
    """Both VMs of the internal network hear the other one answer."""
    for asker, other in ((neighbour, _INTNET_GUEST), (scene.console, _INTNET_NEIGHBOUR)):
        asker.run(f"busybox ping -c 1 -w 20 {other}")


def _hears_datagrams(scene: Scene) -> None:
    def came() -> bool:
        speaker.sendto(b"a word", ("127.0.0.1", _UDP_PORT))
        return scene.console.run(_DATAGRAMS) != before

    before = scene.console.run(_DATAGRAMS)
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as speaker:
        until(came, "no datagram comes through the forwarded port")


def _rule(name: str, port: int, protocol: str = "tcp") -> str:
    return f"{name},{protocol},127.0.0.1,{port},,{_GUEST_PORT}"


def _set_rules(host: Host, **ports: int) -> None:
    """These instead of `web`, in this order."""
    rules = (word for name, port in ports.items() for word in ("--natpf1", _rule(name, port)))
    host.run("modifyvm", host.name, "--natpf1", "delete", "web", *rules)


def _echoes(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), 5) as connection:
        return _answers(connection)
    return False


def _answers(connection: socket.socket) -> bool:
    connection.settimeout(30)
    connection.sendall(b"a word\n")
    return connection.recv(64) == b"a word\n"


def _taps() -> set[str]:
    """The ports of the bridge; all of them were made by Teleport."""
    return {each.name for each in Path("/sys/class/net/br0/brif").iterdir()}


def _only_tap() -> str:
    (tap,) = _taps()
    return tap


def _learned(mac: str) -> set[str]:
    """Where the bridge sends frames for this address."""
    told = subprocess.run(["bridge", "-json", "fdb", "show", "br", "br0"], capture_output=True, check=True, timeout=10)
    return {each["ifname"] for each in json.loads(told.stdout) if each["mac"] == mac}
