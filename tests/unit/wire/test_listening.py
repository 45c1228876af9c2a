"""Which addresses and port a teleporter binds, and what is said when it cannot."""

import asyncio
import socket

import pytest

from teleport.errors import BusyError, UsageError
from teleport.wire.listening import LOOPBACK, choose_port, listening_addresses
from teleport.wire.options import grpc_target, is_loopback, peer_words


def addresses(text: str, *, insecure: bool = False) -> tuple[str, ...]:
    return asyncio.run(listening_addresses(text, insecure=insecure))


def test_what_addresses_mean() -> None:
    assert addresses("") == addresses("localhost") == addresses("LOCALHOST", insecure=True) == LOOPBACK
    assert addresses("", insecure=True) == ("::",)
    assert addresses("127.0.0.2") == ("127.0.0.2",)
    assert addresses("192.0.2.7", insecure=True) == ("192.0.2.7",)


def test_off_loopback_only_when_it_is_said() -> None:
    for outside in ("0.0.0.0", "::", "192.0.2.7"):
        with pytest.raises(UsageError, match="plain text"):
            addresses(outside)


def test_an_address_that_is_none() -> None:
    with pytest.raises(UsageError, match="no such host"):
        addresses("no such host", insecure=True)


def test_a_free_port_is_free_at_every_address() -> None:
    found, port = choose_port(LOOPBACK, 0)
    assert found == LOOPBACK
    assert port > 1023


@pytest.mark.parametrize("address", LOOPBACK)
def test_a_port_that_is_in_use_at_one_of_them(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as other:
        other.bind((address, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BusyError, match=f"teleporter port {port}.*listens at {address}"):
            choose_port(LOOPBACK, port)


def test_an_address_of_another_host() -> None:
    with pytest.raises(UsageError, match="no such address"):
        choose_port(("192.0.2.7",), 6000)
    with pytest.raises(UsageError, match="no such address"):
        choose_port(("192.0.2.7",), 0)


def test_words_for_addresses() -> None:
    assert [is_loopback(one) for one in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1")] == [True] * 4
    assert [is_loopback(one) for one in ("192.0.2.1", "fe80::1%eth0", "::", "0.0.0.0")] == [False] * 4
    assert grpc_target("127.0.0.1", 6000) == "ipv4:127.0.0.1:6000"
    assert grpc_target("fe80::1%eth0", 6000) == "ipv6:[fe80::1%25eth0]:6000"
    assert grpc_target("host.example", 6000) == "dns:///host.example:6000"
    assert peer_words("ipv6:%5B::1%5D:4711") == "[::1]:4711"
    assert peer_words("unix:") == "unix:"
