"""The guest and its outside listener on stock QEMU: what they see must be true before they may judge ours."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.harness.bare import BareQemu
from tests.harness.guest import GuestConsole, GuestImage, Load, guest_image
from tests.harness.native import native_migrate
from tests.harness.ticker import FileTail

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def image() -> GuestImage:
    return guest_image()


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_a_guest_works_and_says_so(image: GuestImage, machine: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True, timeout=30)
    extra = [
        "-blockdev", f"driver=qcow2,node-name=d0,file.driver=file,file.filename={disk}", "-device", "virtio-blk-pci,drive=d0",
        "-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0",
    ]  # fmt: skip
    with BareQemu(image, machine=machine, load=Load(disk=True), extra=extra) as qemu, GuestConsole(qemu.endpoint) as console:
        assert "disk=/dev/vda" in console.wait_ready()
        console.ask("PING there", "PONG there")
        first = console.check("first")
        assert first.ok, first
        sequence = console.disk()
        assert console.disk() > sequence
        assert console.net()
        second = console.check("second")
        assert second.ok, second
        assert second.digest == first.digest
        assert second.written_mb > first.written_mb, "the rewriter stands still"
        assert console.continuity().is_whole, console.continuity()
        assert not console.corruption
        console.ask("POWEROFF", "BYE")
        qemu.process.wait(timeout=20)


@pytest.mark.parametrize("what", ["resident", "rewriter"])
def test_a_broken_byte_is_found(image: GuestImage, what: str) -> None:
    with BareQemu(image) as qemu, GuestConsole(qemu.endpoint) as console:
        console.wait_ready()
        assert console.check("before").ok
        if what == "rewriter":
            console.ask("LOAD off", "LOAD off")
        console.ask(f"BREAK {what}", f"BROKEN {what}")
        check = console.check("after")
        assert not check.ok
        assert check.bad == {"resident": "resident.0", "rewriter": "chunk.0"}[what]
        assert console.corruption


def test_the_rewriter_itself_finds_a_lost_page(image: GuestImage) -> None:
    with BareQemu(image) as qemu, GuestConsole(qemu.endpoint) as console:
        console.wait_ready()
        # An old state of one page, as a dirty page that was lost on the way would leave it; nobody asks for a check.
        console.run("dd if=/work/chunk.1 of=/work/chunk.0 bs=4096 skip=7 seek=7 count=1 conv=notrunc")
        console.wait_for(r"CORRUPT chunk\.0 .*", 30)


def test_a_stock_migration_keeps_the_count(image: GuestImage) -> None:
    with (
        BareQemu(image, name="source") as source,
        BareQemu(image, name="target", incoming=True, prefault=True) as target,
        GuestConsole(source.endpoint, target.endpoint) as console,
    ):
        console.wait_ready()
        before = console.check("before")
        result = native_migrate(source, target, console)
        assert console.active == "target"
        assert result.continuity.endpoints == ("source", "target")
        assert result.continuity.is_whole, result.continuity
        after = console.check("after")
        assert after.ok, after
        assert after.digest == before.digest
        assert after.written_mb >= before.written_mb


def test_a_stale_resume_shows_as_a_repeated_count(image: GuestImage) -> None:
    """Both run: what must never be, made on purpose, so that we know that it would be seen."""
    with (
        BareQemu(image, name="source") as source,
        BareQemu(image, name="target", incoming=True) as target,
        GuestConsole(source.endpoint, target.endpoint) as console,
    ):
        console.wait_ready()
        result = native_migrate(source, target, console)
        assert result.continuity.is_whole, result.continuity
        source.qmp("cont")
        target_tick = console.last_tick
        assert target_tick is not None
        console.wait_for_tick(20, endpoint="source", after_counter=result.continuity.gap_before.counter, count=20)
        assert console.continuity().repeated


def test_a_pause_is_measured_from_outside_in_a_file(image: GuestImage, tmp_path: Path) -> None:
    """A serial line into a file (uartmode file), the other way to listen; nobody can ask there, so the guest checks unasked."""
    said = tmp_path / "ttyS1"
    with BareQemu(image, load=Load(check_s=1), serial_file=said) as qemu, GuestConsole(FileTail(said)) as console:
        console.wait_ready()
        console.wait_for("CHECKED ok .*", 30)
        begun = time.monotonic()
        qemu.qmp("stop")
        stopped = time.monotonic()
        time.sleep(0.3)  # the pause that is to be measured
        resumed = time.monotonic()
        counter = console.last_tick
        assert counter is not None
        qemu.qmp("cont")
        console.wait_for_tick(20, after_counter=counter.counter, count=50)
        seen = console.continuity(begun)
        assert seen.is_whole, seen
        # The listener looks at a file every 2 ms.
        assert seen.gap_ms >= (resumed - stopped) * 1000 - 5
        # From outside the guest lost that time, by its own clock it did not.
        assert seen.gap_after.guest_ms - seen.gap_before.guest_ms < seen.gap_ms
