import asyncio
import socket
from pathlib import Path

import pytest

from teleport.errors import HypervisorError
from teleport.host.pipe import UnixListener, connect_unix


def test_both_ends_are_blocking_and_carry_bytes(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "stream"
        path.touch()  # a leftover of a crash is in nobody's way
        with UnixListener(path) as listener:
            near, far = await asyncio.gather(asyncio.to_thread(connect_unix, path), listener.accept())
        assert not path.exists()
        with near, far:
            assert near.getblocking()
            assert far.getblocking()
            assert far.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > 208 * 1024
            near.sendall(b"stream")
            assert far.recv(10) == b"stream"

    asyncio.run(scenario())


def test_a_qemu_that_does_not_come(tmp_path: Path) -> None:
    async def scenario() -> None:
        with UnixListener(tmp_path / "stream") as listener, pytest.raises(HypervisorError, match="did not connect"):
            await listener.accept(timeout_seconds=0.01)

    asyncio.run(scenario())


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(HypervisorError, match="107 bytes"):
        UnixListener(tmp_path / ("x" * 108))
    with pytest.raises(HypervisorError, match="No such file"):
        UnixListener(tmp_path / "missing" / "stream")
    with pytest.raises(HypervisorError, match="No such file"):
        connect_unix(tmp_path / "nobody")
