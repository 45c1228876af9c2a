"""A guest with a TPM 2.0, in huge pages: what the TPM holds goes where the guest goes, and is nowhere twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import tpm
from tests.harness.guest import Load
from tests.harness.host import Host
from tests.harness.scene import Scene, kill_hard, until

pytestmark = pytest.mark.qemu

LOAD = Load(resident_mb=4, rewrite_mb=4, dirty_mb_s=2, disk=True)
MEMORY_MB = 96
_POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """This host sets aside huge pages for two of our guests more."""
    before = int(_POOL.read_text())
    _POOL.write_text(str(before + MEMORY_MB))
    assert int(_POOL.read_text()) == before + MEMORY_MB
    yield
    _POOL.write_text(str(before))


def _swtpms(*hosts: Host) -> list[str]:
    return [command for host in hosts for command in host.home.processes().values() if "swtpm" in command.split()[0]]


def _states(host: Host, which: str = "*") -> list[Path]:
    """The contents of TPMs that this VM has; the one that is its own is `current`."""
    return list((host.home.folder / "machines").glob(f"*/tpm/{which}/tpm2-00.permall"))


def _page_kb(pid: int) -> str:
    """The size of the pages of this QEMU's guest memory (proc(5), smaps)."""
    _, _, mapping = Path(f"/proc/{pid}/smaps").read_text().partition("memfd:teleport-ram")
    return mapping.partition("KernelPageSize:")[2].split()[0]


def test_a_tpm_goes_with_its_guest(huge_pages: None) -> None:
    with Scene(load=LOAD, memory_mb=MEMORY_MB, options=("--tpm-type", "2.0", "--ram", "hugepages")) as scene:
        console = scene.console
        tpm.extend(console)
        tpm.store(console)
        was = tpm.pcr(console)
        assert set(was) != {"0"}
        assert _page_kb(scene.here.home.qemus()[0]) == "2048"

        scene.here.run("controlvm", "S", "savestate")
        until(lambda: not _swtpms(scene.here), "a swtpm outlived its QEMU")
        scene.here.start()
        _is_whole(scene, was)

        # it fails when the target has just made it its own: the guest and its TPM go on here
        scene.there.run("modifyvm", "T", "--ram", "shared")
        port = scene.wait_there()
        scene.arm(scene.there, "journal.append@2=raise:full")
        ran = scene.here.run("controlvm", "S", "teleport", "--host", "localhost", "--port", port, check=False)
        assert ran.code == 1, ran
        assert "full" in ran.err
        scene.arm(scene.there, "")
        _is_whole(scene, was)

        assert scene.here.teleport(port)["plan"] == "raw"
        scene.swap()
        _is_whole(scene, was)

        # alone, the VM that it left does not start with an empty TPM
        ran = scene.there.run("startvm", "S", "--type", "headless", check=False)
        assert ran.code == 1, ran
        assert "went with its guest to VM 'T'" in ran.err

        # an agent that is killed has a successor, which finds the guest's TPM
        for agent in scene.agents(scene.here):
            kill_hard(agent)
        until(lambda: scene.here.state == "running", "no successor")
        _is_whole(scene, was)

        assert scene.move()["plan"] == "raw"  # into huge pages
        assert _page_kb(scene.here.home.qemus()[0]) == "2048"
        _is_whole(scene, was)

        scene.here.run("controlvm", "S", "poweroff")
        assert tpm.SECRET in _states(scene.here, "current")[0].read_bytes()  # NVRAM outlives the power
        assert "has not left it" in scene.here.run("startvm", "S", "--new-tpm", check=False).err

        # ... unless somebody says that it should
        scene.there.run("modifyvm", "T", "--teleporter", "off")
        assert "--new-tpm" in scene.there.run("startvm", "T", check=False).err
        scene.there.run("startvm", "T", "--new-tpm")
        assert tpm.SECRET not in _states(scene.there, "current")[0].read_bytes()
        scene.there.run("controlvm", "T", "poweroff")


def _is_whole(scene: Scene, pcr: str) -> None:
    last = scene.console.last_tick  # where the guest ticks is where the console speaks to it
    scene.console.wait_for_tick(60, endpoint=scene.here.name, after_counter=last.counter if last else -1)
    assert tpm.pcr(scene.console) == pcr
    assert tpm.stored(scene.console)
    until(lambda: len(_swtpms(scene.here, scene.there)) == 1, "two swtpms, or none")
    assert len(_states(scene.here, "current")) == 1
    assert _states(scene.there) == []
