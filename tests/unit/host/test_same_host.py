import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from teleport.errors import HypervisorError, ProtocolError, UnreachableError
from teleport.host.fd_messages import send
from teleport.host.process import start_ticks
from teleport.host.ram import create_ram
from teleport.host.same_host import HandleClient, HandleServer
from teleport.model import QemuProcess


@pytest.fixture
def ram() -> Iterator[int]:
    fd = create_ram(1 << 20)
    yield fd
    os.close(fd)


def name() -> str:
    return f"teleport-test-{secrets.token_hex(8)}"


def test_ram_goes_one_way_and_the_process_the_other(ram: int) -> None:
    async def scenario() -> None:
        server = HandleServer(name(), "nonce", ram_fd=ram)
        await server.start()
        client = await HandleClient.connect(server.name, "nonce")
        theirs = await client.fetch_ram()
        try:
            assert server.met
            assert os.fstat(theirs).st_ino == os.fstat(ram).st_ino
            assert not os.get_inheritable(theirs)
        finally:
            os.close(theirs)
        with pytest.raises(HypervisorError, match="never said which process"):
            await server.kill_target()
        child = subprocess.Popen(  # noqa: ASYNC220 - a millisecond
            [sys.executable, "-c", "import time; time.sleep(600)"]
        )
        process = QemuProcess(pid=child.pid, start_ticks=start_ticks(child.pid) or 0, label="incoming")
        try:
            await client.give_process(process)
            assert await server.target_process() == process
            client.close()  # the agent may die: the source still can
            await asyncio.gather(server.kill_target(), server.kill_target())
            assert start_ticks(child.pid) is None
        finally:
            child.kill()
            child.wait()
        await server.kill_target()  # dead and reaped
        server.close()

    asyncio.run(scenario())


def test_without_memory_given_there_is_nothing_to_kill(ram: int) -> None:
    async def scenario() -> None:
        server = HandleServer(name(), "nonce", ram_fd=ram)
        await server.start()
        await server.kill_target()
        assert not server.met
        server.close()

    asyncio.run(scenario())


def test_who_does_not_know_the_nonce_gets_nothing(ram: int) -> None:
    async def scenario() -> None:
        server = HandleServer(name(), "nonce", ram_fd=ram)
        await server.start()
        with pytest.raises(UnreachableError):
            await HandleClient.connect(server.name, "another")
        assert not server.met
        good = await HandleClient.connect(server.name, "nonce")  # and the next is served
        good.close()
        server.close()

    asyncio.run(scenario())


def test_a_server_that_does_not_know_the_nonce_is_not_believed() -> None:
    async def scenario() -> None:
        address = name()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(b"\0" + address.encode())
            listener.listen(1)

            def impostor() -> None:
                connection, _ = listener.accept()
                with connection:
                    send(connection, {"challenge": "00"})
                    connection.recv(1000)
                    send(connection, {"proof": "00"})

            with pytest.raises(ProtocolError, match="does not know this session"):
                await asyncio.gather(asyncio.to_thread(impostor), HandleClient.connect(address, "nonce"))

    asyncio.run(scenario())


def test_another_name_or_network_namespace_is_another_host(ram: int) -> None:
    async def scenario() -> None:
        with pytest.raises(UnreachableError, match="refused"):
            await HandleClient.connect(name(), "nonce")
        server = HandleServer(name(), "nonce", ram_fd=ram)
        await server.start()
        with pytest.raises(HypervisorError, match="in use"):
            await HandleServer(server.name, "nonce", ram_fd=ram).start()
        if os.geteuid() == 0:
            program = f"import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(b'\\0' + {server.name.encode()!r})"
            elsewhere = await asyncio.to_thread(
                subprocess.run,
                ["unshare", "--net", sys.executable, "-c", program],
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert b"ConnectionRefusedError" in elsewhere.stderr
        server.close()

    asyncio.run(scenario())


def test_a_request_that_makes_no_sense_is_refused(ram: int) -> None:
    async def scenario() -> None:
        server = HandleServer(name(), "nonce", ram_fd=None)
        await server.start()
        client = await HandleClient.connect(server.name, "nonce")
        with pytest.raises(ProtocolError, match="cannot do ram"):
            await client.fetch_ram()
        client.close()
        server.close()

    asyncio.run(scenario())
