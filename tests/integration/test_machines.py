"""Every kind of machine starts under real QEMU without a word on stderr, is the same on a second host, and moves there."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from teleport.host.guest import QmpGuest
from teleport.host.process import start_ticks
from teleport.host.swtpm import start_swtpm
from teleport.host.taps import open_tap
from teleport.machines.arguments import Launch, qemu_arguments
from teleport.machines.arguments.network import taps
from teleport.machines.definition import Definition
from teleport.machines.firmware import firmware_files
from teleport.model import GuestIdentity, QemuProcess
from teleport.preflight.compare import compare_facts
from tests.unit.machines.cases import cases

pytestmark = pytest.mark.qemu
# A bridged adapter needs a bridge and the right to use it: tests/integration/test_taps.py.
NAMES = tuple(name for name in cases("/media") if "bridged" not in name)
OTHER_UUID = "5a1d8f7e-0000-4000-8000-000000000001"


@pytest.fixture
def media(short_folder: Path) -> Path:
    """A folder with the images that the cases name."""
    for name, image_format in (("disk.qcow2", "qcow2"), ("a,b.raw", "raw"), ("cd.iso", "raw"), ("floppy.img", "raw")):
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", image_format, str(short_folder / name), "1474560"], check=True, timeout=30
        )
    return short_folder


@contextlib.asynccontextmanager
async def running(definition: Definition, folder: Path, **launch: object) -> AsyncIterator[tuple[QmpGuest, Path]]:
    """That machine under QEMU; dead and reaped at the end. Yields its monitor and its stderr file."""
    name = "target" if launch.get("incoming") else "source"
    own = folder / f"vm-{name}"
    own.mkdir()
    ram = os.memfd_create(name)
    os.ftruncate(ram, definition.memory_bytes)
    version = definition.machine.tpm
    tpm = None if version == "none" else start_swtpm(version=version, state=own, log=own / "log")
    tap_fds = {tap.number: open_tap(tap) for tap in taps(definition)}
    sockets = Launch(
        accelerator="tcg",
        qmp_socket=str(folder / f"{name}.qmp"),
        oob_socket=str(folder / f"{name}.oob"),
        ram_fd=ram,
        firmware=firmware_files(definition, own),
        tpm_fd=tpm.control_fd if tpm else None,
        tap_fds=tap_fds,
        **launch,
    )
    stderr = folder / f"{name}.stderr"
    with stderr.open("wb") as file:
        child = subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond, and pass_fds as production does
            ["qemu-system-x86_64", *qemu_arguments(definition, sockets)],
            stderr=file,
            stdin=subprocess.DEVNULL,
            pass_fds=(ram, *tap_fds.values(), *([tpm.control_fd] if tpm else [])),
        )
    for descriptor in tap_fds.values():
        os.close(descriptor)
    try:
        ticks = start_ticks(child.pid)
        assert ticks is not None, stderr.read_text()
        process = QemuProcess(pid=child.pid, start_ticks=ticks, label=name, ram_bytes=definition.memory_bytes)
        guest = await QmpGuest.connect(folder / f"{name}.qmp", folder / f"{name}.oob", process, stderr)
        try:
            yield guest, stderr
        finally:
            await guest.close()
    finally:
        os.close(ram)
        if tpm:
            os.close(tpm.control_fd)
        if child.poll() is None:
            child.kill()
        await asyncio.get_running_loop().run_in_executor(None, child.wait)


async def _moves(definition: Definition, folder: Path) -> None:
    identity = GuestIdentity(definition.uuid, tuple((nic.number, nic.mac) for nic in definition.nics))
    twin = definition.model_copy(
        update={
            "name": "T",
            "uuid": OTHER_UUID,
            "nics": tuple(nic.model_copy(update={"mac": f"08:00:27:ff:ff:0{nic.number}"}) for nic in definition.nics),
            "serial": tuple(
                port.model_copy(update={"path": f"{port.path}-t"}) if port.path else port for port in definition.serial
            ),
        }
    )
    async with (
        running(definition, folder) as (source, source_stderr),
        running(twin, folder, incoming=True, identity=identity) as (target, target_stderr),
    ):
        assert await source.status() == "running"
        differences = compare_facts(await source.facts(), await target.facts(), mend_vm="T")
        assert not differences
        await source.configure_migration({"events": True, "return-path": True}, {})
        await target.configure_migration({"events": True, "return-path": True, "late-block-activate": True}, {})
        uri = f"unix:{folder}/stream"
        await target.migrate_incoming(uri)
        await source.migrate(uri)
        assert await source.wait_migration("completed") == "completed", (
            f"{await source.migration()}\n{await target.migration()}\n{target_stderr.read_text()}"
        )
        assert await target.wait_migration("completed") == "completed"
        await target.activate_disks()
        await target.cont()
        assert await target.status() == "running"
        for stderr in (source_stderr, target_stderr):
            assert [
                line for line in stderr.read_text().splitlines() if "is not connected to host network" not in line
            ] == []  # NIC `null`


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_and_moves(name: str, media: Path) -> None:
    asyncio.run(asyncio.wait_for(_moves(cases(str(media))[name], media), 90))
