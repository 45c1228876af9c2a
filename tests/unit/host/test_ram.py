import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from teleport.errors import HypervisorError
from teleport.host.ram import create_ram, populate, resident_bytes


def test_ram_is_empty_until_populated_and_cannot_change_its_size() -> None:
    fd = create_ram(65 << 20)
    try:
        assert resident_bytes(fd) == 0
        os.pwrite(fd, b"kept", 4096)
        asyncio.run(populate(fd))
        assert resident_bytes(fd) == 65 << 20
        assert os.pread(fd, 4, 4096) == b"kept"
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 1 << 20)
    finally:
        os.close(fd)


def test_huge_pages_that_are_not_there_are_said_so_before_anything_runs() -> None:
    before = {each.name for each in Path("/proc/self/fd").iterdir()}
    with pytest.raises(
        HypervisorError, match=r"524288 huge pages of 2 MiB are needed, \d+ are free.*sysctl vm.nr_hugepages=\d+"
    ):
        create_ram(1 << 40, huge_pages=True)
    assert {each.name for each in Path("/proc/self/fd").iterdir()} == before


def test_huge_pages_are_reserved_at_once_and_given_back() -> None:
    pool = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
    before = int((pool / "nr_hugepages").read_text())
    (pool / "nr_hugepages").write_text(str(before + 2))
    try:
        fd = create_ram(4 << 20, huge_pages=True)
        try:
            assert int((pool / "resv_hugepages").read_text()) >= 2
            asyncio.run(populate(fd))
            assert resident_bytes(fd) == 4 << 20
        finally:
            os.close(fd)
    finally:
        (pool / "nr_hugepages").write_text(str(before))


def test_populating_can_be_cancelled() -> None:
    async def scenario() -> None:
        fd = create_ram(1 << 40)  # never there in full
        try:
            work = asyncio.ensure_future(populate(fd))
            await asyncio.sleep(0)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert resident_bytes(fd) < 1 << 32
        finally:
            os.close(fd)

    asyncio.run(scenario())


def test_memory_that_is_not_there_is_said_so() -> None:
    program = """
import asyncio, resource
from teleport.errors import HypervisorError
from teleport.host.ram import create_ram, populate
async def scenario():
    await asyncio.to_thread(int)  # the thread is there before the limit
    resource.setrlimit(resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
    try:
        await populate(fd)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
fd = create_ram(1 << 30)
try:
    asyncio.run(scenario())
except HypervisorError as error:
    assert "1024 MiB: Cannot allocate memory" in str(error), error
else:
    raise AssertionError("populated")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
