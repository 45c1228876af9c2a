"""Ports of this host that a guest needs are tried before it leaves."""

import socket
from collections.abc import Iterator

import pytest

from teleport.machines.adapters import Forward, Nic
from teleport.machines.definition import Definition, Serial
from teleport.preflight.resources import port_findings
from teleport.runner.host_ports import port_wishes
from tests.unit.machines.cases import definition


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of both protocols that somebody has."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        port = int(tcp.getsockname()[1])
        udp.bind(("127.0.0.1", port))
        yield port


def _vm(port: int) -> Definition:
    forwards = (
        Forward(name="my web", host_address="127.0.0.1", host_port=port, guest_port=80),
        Forward(name="dns", protocol="udp", host_port=port, guest_port=53),
    )
    serial = Serial(number=2, enabled=True, io_base=0x2F8, irq=3, mode="tcpserver", path=str(port))
    return definition(
        name="T 1", nics=(Nic(number=1, attachment="nat", mac="08:00:27:00:00:01", forwards=forwards),), serial=(serial,)
    )


def test_ports_that_somebody_has_are_found_each_with_what_frees_the_vm_of_it(taken: int) -> None:
    findings = port_findings(port_wishes(_vm(taken), source_is_here=False))
    assert [each.what for each in findings] == ["uartmode2 port", "natpf1 my web port", "natpf1 dns port"]
    assert [each.mend for each in findings] == [
        "teleport modifyvm 'T 1' --uartmode2 disconnected",
        "teleport modifyvm 'T 1' --natpf1 delete 'my web'",
        "teleport modifyvm 'T 1' --natpf1 delete dns",
    ]
    assert all("in use" in each.there for each in findings)


def test_forwarded_ports_may_be_the_sources_own_on_its_host(taken: int) -> None:
    findings = port_findings(port_wishes(_vm(taken), source_is_here=True))
    assert [each.what for each in findings] == ["uartmode2 port"]


def test_free_ports_are_nothing_to_speak_of(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = int(probe.getsockname()[1])
    assert free != taken
    assert port_findings(port_wishes(_vm(free), source_is_here=False)) == ()
