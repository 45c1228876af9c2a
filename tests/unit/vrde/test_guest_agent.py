"""What is said of a guest whose agent is silent, or talks nonsense; real agents are in tests/integration/vrde/test_accounts.py."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from teleport.errors import UnreachableError
from teleport.vrde import guest_agent
from teleport.vrde.endpoint import BUFFER_BYTES, UnixEndpoint
from teleport.vrde.guest_agent import GuestAgent
from teleport.vrde.login import Login

NONSENSE = b"\xff{}\n\xff[]\n\xff1\n\xffx\n\xff" + b"[" * 60000 + b"\n"


@pytest.mark.parametrize(
    ("answer", "said"), [(b"", "says nothing"), (NONSENSE, "says nothing"), (b"x" * (BUFFER_BYTES + 1), "does not answer")]
)
def test_a_silent_agent_is_said_to_be_missing(
    answer: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_agent, "FIRST_ANSWER_SECONDS", 0.1)
    path = tmp_path / "agent.sock"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            writer.write(answer)
            await reader.read()

    async def body() -> None:
        async with await asyncio.start_unix_server(talk, path):
            with pytest.raises(UnreachableError, match=said):
                await GuestAgent(UnixEndpoint(str(path))).check(Login("john", "secret"))
            await asyncio.sleep(0.01)  # lets the other end see the end

    asyncio.run(body())


def test_a_channel_that_breaks_off_is_said(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))

        async def body() -> None:
            with pytest.raises(UnreachableError):
                await GuestAgent(UnixEndpoint(str(path))).check(Login("john", "secret"))

        asyncio.run(body())
