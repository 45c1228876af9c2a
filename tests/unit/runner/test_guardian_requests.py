"""The guardian's requests through its client, with small programs in QEMU's place."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from teleport.errors import ProtocolError, StateError, StorageError, UnreachableError
from teleport.host.process import ProcessWatch, start_ticks
from teleport.model import QemuProcess
from teleport.runner.guardian import Guardian
from teleport.runner.guardian_client import GuardianClient

Scenario = Callable[[GuardianClient, Guardian], Awaitable[None]]


def with_guardian(folder: Path, scenario: Scenario) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        guardian = Guardian(folder, folder, ())
        client = GuardianClient(theirs)
        ours.setblocking(False)
        with ours:
            serving = asyncio.create_task(guardian.serve(ours))
            try:
                await scenario(client, guardian)
            finally:
                client.close()
                await serving
                for qemu in guardian.qemus:
                    await qemu.watch.kill()
                    qemu.reap()
                    if qemu.ram_fd is not None:
                        os.close(qemu.ram_fd)

    asyncio.run(run())


async def dead(process: QemuProcess) -> None:
    watch = ProcessWatch(process)
    await watch.wait()
    watch.close()


def test_a_program_gets_exactly_its_descriptors(tmp_path: Path) -> None:
    async def scenario(client: GuardianClient, guardian: Guardian) -> None:
        read_end, write_end = os.pipe()
        inherited = os.dup2(write_end, 200, inheritable=True)  # as a careless starter leaves them
        script = "echo {fd:note} {fd:ram} >&2; echo got >&{fd:note}; exec ls /proc/self/fd >&2"
        process, ram_fd = await client.spawn(
            ["bash", "-c", script], label="guest", stderr_path=tmp_path / "stderr", ram_bytes=1 << 20, fds={"note": write_end}
        )
        os.close(write_end)
        os.close(inherited)
        assert await asyncio.to_thread(os.read, read_end, 10) == b"got\n"
        assert await asyncio.to_thread(os.read, read_end, 10) == b""  # the guardian kept none of its own
        os.close(read_end)
        await dead(process)
        numbers, *seen = (tmp_path / "stderr").read_text().splitlines()
        expected = {"0", "1", "2", *numbers.split()}
        assert expected < set(seen)
        assert len(set(seen) - expected) == 1  # that of ls itself
        assert ram_fd is not None
        (known,) = await client.list_qemus()
        assert known.ram_fd is not None
        assert os.fstat(known.ram_fd).st_ino == os.fstat(ram_fd).st_ino
        os.close(known.ram_fd)
        os.close(ram_fd)

    with_guardian(tmp_path, scenario)


def test_a_session_of_its_own_and_default_signals(tmp_path: Path) -> None:
    async def scenario(client: GuardianClient, guardian: Guardian) -> None:
        script = f"{sys.executable} -c 'import os; print(os.getsid(0) == os.getppid())'; kill -PIPE $$; sleep 600"
        process, _ = await client.spawn(["sh", "-c", script], label="guest", stderr_path=tmp_path / "stderr")
        await dead(process)
        assert (tmp_path / "stderr").read_text() == "True\n"
        (known,) = await client.list_qemus()
        assert not known.alive
        assert known.status is not None
        assert os.WTERMSIG(known.status) == signal.SIGPIPE

    with_guardian(tmp_path, scenario)


def test_the_living_are_neither_forgotten_nor_finished(tmp_path: Path) -> None:
    async def scenario(client: GuardianClient, guardian: Guardian) -> None:
        process, _ = await client.spawn(["sleep", "600"], label="guest", stderr_path=tmp_path / "stderr")
        with pytest.raises(StateError, match="still lives"):
            await client.forget(process)
        with pytest.raises(StateError, match="still lives"):
            await client.finish(0)
        os.kill(process.pid, signal.SIGKILL)
        await dead(process)
        await client.forget(process)
        assert await client.list_qemus() == ()
        assert start_ticks(process.pid) is None
        await client.finish(3)
        assert guardian.finish_code == 3

    with_guardian(tmp_path, scenario)


def test_what_cannot_be_started_says_so_in_its_stderr(tmp_path: Path) -> None:
    async def scenario(client: GuardianClient, guardian: Guardian) -> None:
        process, _ = await client.spawn(["/no/such/qemu"], label="guest", stderr_path=tmp_path / "stderr")
        await dead(process)
        assert "No such file" in (tmp_path / "stderr").read_text()
        with pytest.raises(StorageError, match="No such file"):
            await client.spawn(["true"], label="guest", stderr_path=tmp_path / "missing" / "stderr")

    with_guardian(tmp_path, scenario)


def test_requests_do_not_mix_when_one_is_cancelled(tmp_path: Path) -> None:
    async def scenario(client: GuardianClient, guardian: Guardian) -> None:
        first = asyncio.ensure_future(client.list_qemus())
        await asyncio.sleep(0)
        first.cancel()
        process, _ = await client.spawn(["sleep", "600"], label="second", stderr_path=tmp_path / "stderr")
        assert [known.process for known in await client.list_qemus()] == [process]

    with_guardian(tmp_path, scenario)


def test_a_guardian_that_goes_is_noticed(tmp_path: Path) -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client = GuardianClient(theirs)
        asking = asyncio.ensure_future(client.list_qemus())
        await asyncio.sleep(0)
        ours.close()
        await client.wait_gone()
        for request in (asking, client.ready()):
            with pytest.raises(UnreachableError):
                await request
        await client.forget(QemuProcess(pid=1, start_ticks=1, label="guest"))  # it went with the guardian
        client.close()

    asyncio.run(scenario())


def test_nonsense_is_answered(tmp_path: Path) -> None:
    async def scenario(client: GuardianClient, guardian: Guardian) -> None:
        with pytest.raises(ProtocolError, match="unknown"):
            await client._ask({"op": "dance"})
        with pytest.raises(StorageError, match="KeyError"):
            await client._ask({"op": "forget"})

    with_guardian(tmp_path, scenario)


def test_an_agent_without_a_guardian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELEPORT_GUARDIAN_FD", raising=False)
    with pytest.raises(UnreachableError, match="startvm"):
        GuardianClient.from_environment()
