"""QmpGuest against real QEMUs: run states, migration, refusals, death, a stuck main loop."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from teleport.errors import HypervisorError, StateError
from teleport.host.guest import QmpGuest
from teleport.host.mode_hint import hint_size
from teleport.host.monitors import QemuGoneError, QemuStuckError
from teleport.host.pipe import UnixListener
from teleport.host.process import start_ticks
from teleport.model import QemuProcess
from tests.integration.tiny_qemu import SOURCE_CAPABILITIES, TARGET_CAPABILITIES, migrate, tiny_qemu

pytestmark = pytest.mark.qemu


def test_run_states_and_events(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tiny_qemu(tmp_path, "one") as guest:
            events = guest.events("STOP", "RESUME", "SHUTDOWN")
            await guest.stop()
            assert await guest.status() == "paused"
            await guest.cont()
            assert await guest.status() == "running"
            await guest.quit()
            seen = [event["event"] async for event in events]
            assert seen == ["STOP", "RESUME", "SHUTDOWN"]
            assert not guest.alive

    asyncio.run(scenario())


def test_a_size_is_handed_to_a_card_that_can_tell_its_guest(tmp_path: Path) -> None:
    async def scenario() -> None:
        screens = ("-device", "virtio-gpu-pci,id=second", "-vnc", f"unix:{tmp_path}/v1,share=force-shared")
        async with tiny_qemu(tmp_path, "one", *screens, "-vnc", f"unix:{tmp_path}/v2,display=second") as guest:
            await hint_size(guest, screen=1, width=800, height=600)
            with pytest.raises(StateError, match="--graphicscontroller virtio"):
                await hint_size(guest, screen=0, width=800, height=600)
            with pytest.raises(StateError, match="no screen 2"):
                await hint_size(guest, screen=2, width=800, height=600)

    asyncio.run(scenario())


def test_a_guest_moves_and_runs_at_the_target(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tiny_qemu(tmp_path, "source") as source, tiny_qemu(tmp_path, "target", "-S", "-incoming", "defer") as target:
            await migrate(source, target, tmp_path / "stream")
            info = await source.migration()
            assert info.total_bytes > 64 << 20
            assert info.transferred_bytes > 0
            assert await source.status() == "postmigrate"
            await target.activate_disks()
            await target.cont()
            await target.announce()
            assert await target.status() == "running"

    asyncio.run(scenario())


def test_cont_is_never_said_to_a_qemu_that_still_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tiny_qemu(tmp_path, "target", "-S", "-incoming", "defer") as target:
            with pytest.raises(HypervisorError, match="still waits"):
                await target.cont()
            assert await target.status() == "inmigrate"

    asyncio.run(scenario())


def test_cont_carries_qemu_s_refusal_of_an_image_lock(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M"], check=True)
    drive = (
        "-blockdev",
        f"driver=qcow2,node-name=disk0,file.driver=file,file.filename={disk}",
        "-device",
        "virtio-blk-pci,drive=disk0",
    )

    async def scenario() -> None:
        async with (
            tiny_qemu(tmp_path, "source", *drive) as source,
            tiny_qemu(tmp_path, "target", *drive, "-S", "-incoming", "defer") as target,
        ):
            await migrate(source, target, tmp_path / "stream")
            await target.activate_disks()
            await target.cont()
            with pytest.raises(HypervisorError, match='Failed to get "write" lock'):
                await source.cont()
            await target.kill()
            await source.activate_disks()
            await source.cont()

    asyncio.run(scenario())


def test_a_failed_load_leaves_its_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        smaller = ("-global", "VGA.vgamem_mb=8")
        async with (
            tiny_qemu(tmp_path, "source") as source,
            tiny_qemu(tmp_path, "target", "-S", "-incoming", "defer", *smaller) as target,
        ):
            await source.configure_migration(SOURCE_CAPABILITIES, {})
            await target.configure_migration(TARGET_CAPABILITIES, {})
            await target.migrate_incoming(f"unix:{tmp_path}/stream")
            await source.migrate(f"unix:{tmp_path}/stream")
            assert await target.wait_migration() == "failed"
            assert "load of migration failed" in (await target.migration()).error
            assert "vga.vram" in target.last_words()
            assert await source.wait_migration("pre-switchover") == "failed"
            assert await source.status() == "running"

    asyncio.run(scenario())


def test_cancel_lets_the_source_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tiny_qemu(tmp_path, "source") as source, tiny_qemu(tmp_path, "target", "-S", "-incoming", "defer") as target:
            await source.configure_migration(SOURCE_CAPABILITIES, {})
            await target.migrate_incoming(f"unix:{tmp_path}/stream")
            await source.migrate(f"unix:{tmp_path}/stream")
            await source.wait_migration("pre-switchover")
            await source.migrate_cancel()
            assert await source.wait_migration() == "cancelled"
            await source.cont()

    asyncio.run(scenario())


def test_yank_breaks_a_migration_that_nobody_reads(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)  # accepted, and never read from

        writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_unix_server(swallow, str(tmp_path / "stream"))
        async with server, tiny_qemu(tmp_path, "source") as source:
            await source.yank()  # nothing to break: nothing happens
            await source.configure_migration({"events": True}, {})
            await source.migrate(f"unix:{tmp_path}/stream")
            await source.wait_migration("active")
            await source.yank()
            assert await source.wait_migration() == "failed"
            assert await source.status() == "running"
            for writer in writers:  # the server's end waits for them, since Python 3.12
                writer.close()

    asyncio.run(scenario())


def test_yank_frees_a_switchover_whose_connection_stalled(tmp_path: Path) -> None:
    """In state device QEMU writes with its big lock held: the main monitor is stuck, the out-of-band one answers."""

    async def scenario() -> None:
        with UnixListener(tmp_path / "stream") as listener:
            async with tiny_qemu(tmp_path, "source") as source:
                # Slow rounds and a switchover that is believed to be fast: nearly all memory is left for the switchover.
                await source.configure_migration(
                    {"events": True, "pause-before-switchover": True},
                    {"max-bandwidth": 1 << 20, "avail-switchover-bandwidth": 1 << 40},
                )
                await source.migrate(f"unix:{tmp_path}/stream")
                connection = await listener.accept()
                with connection:
                    connection.setblocking(False)
                    reading = asyncio.ensure_future(read_all(connection))
                    assert await source.wait_migration("pre-switchover") == "pre-switchover"
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                    continuing = asyncio.ensure_future(source.migrate_continue())  # its answer may come only after the yank
                    with pytest.raises(QemuStuckError, match="main loop is stuck"):
                        while True:
                            await source.execute("query-status", timeout_seconds=1.0)
                    ending = asyncio.ensure_future(source.wait_migration())
                    await source.yank()
                    assert await ending == "failed"
                    await continuing
                    assert await source.status() == "running"

    async def read_all(connection: socket.socket) -> None:
        while await asyncio.get_running_loop().sock_recv(connection, 1 << 20):
            pass

    asyncio.run(scenario())


def test_a_stopped_qemu_is_reported_as_stuck(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tiny_qemu(tmp_path, "one") as guest:
            os.kill(guest.process.pid, signal.SIGSTOP)
            with pytest.raises(QemuStuckError, match="no answer within"):
                await guest.execute("query-status", timeout_seconds=0.2)
            os.kill(guest.process.pid, signal.SIGCONT)
            assert await guest.status() == "running"  # the late answer to the first question confuses nobody

    asyncio.run(scenario())


def test_death_is_seen_and_ends_everything_that_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with tiny_qemu(tmp_path, "one") as guest:
            events = guest.events()
            waiting = asyncio.ensure_future(guest.wait_migration("active"))
            await asyncio.sleep(0)
            await guest.kill()
            assert await guest.wait_dead() == ""
            with pytest.raises(QemuGoneError):
                await waiting
            with pytest.raises(QemuGoneError, match="no last words"):
                await guest.status()
            async for _ in events:
                pass
            await guest.kill()  # again: nothing happens

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario())
    assert not [record for record in caplog.records if record.name.startswith("qemu")]


def test_a_qemu_that_cannot_start_says_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(QemuGoneError, match="nosuchdevice"):
            async with tiny_qemu(tmp_path, "one", "-device", "nosuchdevice"):
                pass

    asyncio.run(scenario())


def test_a_monitor_that_is_taken_is_said_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tiny_qemu(tmp_path, "one") as guest:
            with pytest.raises(HypervisorError, match="did not answer on its monitor"):
                await QmpGuest.connect(
                    tmp_path / "one.qmp", tmp_path / "one.oob", guest.process, tmp_path / "one.stderr", timeout_seconds=0.3
                )
            assert await guest.status() == "running"

    asyncio.run(scenario())


def test_a_descriptor_is_passed_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        read_end, write_end = os.pipe()
        try:
            async with tiny_qemu(tmp_path, "one") as guest:
                await guest.give_fd("pipe", write_end)
                os.close(write_end)
                await guest.execute("closefd", fdname="pipe")
                assert await asyncio.to_thread(os.read, read_end, 1) == b""  # ours and QEMU's end are both closed
        finally:
            os.close(read_end)

    asyncio.run(scenario())


def test_screendump_and_the_human_monitor(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tiny_qemu(tmp_path, "one") as guest:
            await guest.screendump(tmp_path / "screen.png")
            assert (tmp_path / "screen.png").read_bytes().startswith(b"\x89PNG")
            assert "ram0" in await guest.hmp("info ramblock")

    asyncio.run(scenario())


def test_a_pid_that_went_to_somebody_else_is_dead(tmp_path: Path) -> None:
    async def scenario() -> None:
        ticks = start_ticks(os.getpid())
        assert ticks is not None
        stranger = QemuProcess(pid=os.getpid(), start_ticks=ticks + 1, label="gone")
        with pytest.raises(QemuGoneError):
            await QmpGuest.connect(tmp_path / "no.qmp", tmp_path / "no.oob", stranger, tmp_path / "no.stderr")

    asyncio.run(scenario())
