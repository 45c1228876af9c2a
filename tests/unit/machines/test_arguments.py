"""The argument lists are pinned: a change of one is a change of machines that people run, and of those they teleport to."""

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from teleport.machines.adapters import Nic
from teleport.machines.arguments import FirmwareFiles, Launch, qemu_arguments
from teleport.machines.arguments.storage import ide_switches
from teleport.machines.attached import media, owner_record_folder
from teleport.machines.definition import Audio
from teleport.model import GuestIdentity
from tests.unit.machines.cases import UUID, cases, controller, definition, drive

GOLDEN = Path(__file__).parent / "golden"
CASES = cases("/media")
LAUNCH = Launch(
    accelerator="tcg",
    qmp_socket="/run/qmp.sock",
    oob_socket="/run/oob.sock",
    ram_fd=7,
    paused=True,
    firmware=FirmwareFiles("/fw/code.fd", "/fw/vars.fd"),
    agent_socket="/run/agent.sock",
    clipboard_socket="/run/clipboard.sock",
    microphone_socket="/run/microphone.sock",
    tpm_fd=8,
    tap_fds={1: 9},
    vnc_sockets=("/run/vnc1", "/run/vnc2", "/run/vnc3"),
)


@pytest.mark.parametrize("name", CASES)
def test_arguments_are_as_they_were(name: str) -> None:
    """TELEPORT_UPDATE_GOLDEN=1 writes what they are now, to be looked at in the diff."""
    file = GOLDEN / f"{name}.args"
    text = "\n".join(qemu_arguments(CASES[name], LAUNCH)) + "\n"
    if os.environ.get("TELEPORT_UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


def test_no_golden_list_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.glob("*.args")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_order_in_which_it_was_put_together_does_not_matter(name: str) -> None:
    case = CASES[name]
    shuffled = case.model_copy(
        update={
            "controllers": tuple(
                each.model_copy(update={"attachments": each.attachments[::-1]}) for each in case.controllers[::-1]
            ),
            "nics": case.nics[::-1],
            "serial": case.serial[::-1],
        }
    )
    assert qemu_arguments(shuffled, LAUNCH) == qemu_arguments(case, LAUNCH)


def _after(arguments: list[str], option: str) -> list[str]:
    return [value for flag, value in pairwise(arguments) if flag == option]


def test_a_target_takes_over_what_the_guest_sees_of_the_source() -> None:
    nics = (Nic(number=2, attachment="nat", mac="08:00:27:00:00:02"), Nic(number=3, attachment="nat", mac="08:00:27:00:00:03"))
    other = GuestIdentity(smbios_uuid="11111111-2222-3333-4444-555555555555", macs=((2, "08:00:27:aa:bb:cc"),))
    arguments = qemu_arguments(definition(nics=nics), replace(LAUNCH, identity=other, incoming=True))
    assert _after(arguments, "-uuid") == [other.smbios_uuid]
    assert "mac=08:00:27:aa:bb:cc" in " ".join(arguments)
    assert "mac=08:00:27:00:00:02" not in " ".join(arguments)
    assert "mac=08:00:27:00:00:03" in " ".join(arguments)
    assert "-S" in arguments
    assert _after(arguments, "-incoming") == ["defer"]
    assert _after(qemu_arguments(definition(), LAUNCH), "-uuid") == [UUID]


@pytest.mark.parametrize(("case", "lines"), [("ich9-efi", 3), ("ich9-ide", 0), ("piix3-efi", 0), ("ich9-scsi", 0)])
def test_ide_is_switched_on_where_the_firmware_does_not(case: str, lines: int) -> None:
    vm = CASES[case]
    if case.endswith("efi"):
        vm = vm.model_copy(update={"controllers": (controller("ide", drive(0, 0, "hdd", "/d/i.raw", "raw")),)})
    assert len(ide_switches(vm)) == lines


def test_a_host_without_a_microphone_starts_the_same_card() -> None:
    case = CASES["ich9-microphone"]
    assert "-spice" in qemu_arguments(case, LAUNCH)
    silent = case.model_copy(update={"audio": case.audio.model_copy(update={"input": False})})
    without = qemu_arguments(case, replace(LAUNCH, microphone_socket=""))
    assert without == qemu_arguments(silent, LAUNCH)
    assert _after(without, "-device") == _after(qemu_arguments(case, LAUNCH), "-device")
    for driver, card in (("none", "ac97"), ("null", "sb16")):
        deaf = case.model_copy(update={"audio": Audio(driver=driver, controller=card, input=True)})
        assert "-spice" not in qemu_arguments(deaf, LAUNCH)


def test_ram_is_the_runners_memfd_or_qemus_own() -> None:
    assert _after(qemu_arguments(definition(), LAUNCH), "-object") == [
        "memory-backend-file,id=ram0,size=134217728,mem-path=/proc/self/fd/7,share=on"
    ]
    assert _after(qemu_arguments(definition(), replace(LAUNCH, ram_fd=None)), "-object") == [
        "memory-backend-ram,id=ram0,size=134217728"
    ]


def test_media_come_in_controller_order_with_the_files_of_a_direct_boot() -> None:
    vm = definition(
        controllers=(
            controller("virtio-blk", drive(0, 0, "hdd", "/d/v.raw", "raw")),
            controller("sata", drive(3, 0, "hdd", "/d/s.qcow2", "qcow2"), drive(0, 0, "dvddrive")),
        )
    )
    direct = vm.model_copy(update={"machine": vm.machine.model_copy(update={"kernel": "/boot/k", "initrd": "/boot/i"})})
    assert [(each.node, each.kind, each.path, each.read_only) for each in media(direct)] == [
        ("sata-0-0", "dvddrive", "", True),
        ("sata-3-0", "hdd", "/d/s.qcow2", False),
        ("virtio-blk-0-0", "hdd", "/d/v.raw", False),
        ("", "kernel", "/boot/k", True),
        ("", "initrd", "/boot/i", True),
    ]
    assert owner_record_folder(vm) == Path("/d/s.qcow2.teleport")
    assert owner_record_folder(vm.model_copy(update={"owner_folder": "/shared/owner"})) == Path("/shared/owner")
    assert owner_record_folder(definition()) is None
