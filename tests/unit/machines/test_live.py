"""What a machine that runs can become, and what is refused by name."""

from typing import Any

import pytest

from teleport.errors import StateError
from teleport.machines.adapters import Forward, Nic
from teleport.machines.definition import Definition
from teleport.machines.drives import Attachment
from teleport.machines.live import DrivePlace, LiveChange, live_change
from tests.unit.machines.cases import controller, definition, drive

NIC = Nic(number=1, attachment="nat", mac="08:00:27:00:00:01")
RULE = Forward(name="ssh", host_port=2222, guest_port=22)
CD = Attachment(port=1, device=0, type="dvddrive")
FLOPPY = Attachment(port=0, device=0, type="fdd", medium="/f.img", format="raw")
MACHINE = definition(
    nics=(NIC,),
    controllers=(
        controller("ide", drive(0, 0, "hdd", "/d.qcow2", "qcow2"), CD),
        controller("floppy", FLOPPY),
    ),
)


def _with_nic(**fields: Any) -> Definition:
    return MACHINE.model_copy(update={"nics": (NIC.model_copy(update=fields),)})


def _with_drives(*drives: Attachment) -> Definition:
    ide, floppy = MACHINE.controllers
    return MACHINE.model_copy(update={"controllers": (ide.model_copy(update={"attachments": drives}), floppy)})


@pytest.mark.parametrize(
    ("after", "change"),
    [
        (MACHINE, LiveChange()),
        (_with_nic(attachment="intnet", network="lab"), LiveChange(plugs=(1,))),
        (_with_nic(attachment="null"), LiveChange(plugs=(1,))),
        (_with_nic(attachment="bridged", bridge="br0", cable=False), LiveChange(plugs=(1,))),
        (_with_nic(cable=False), LiveChange(cables=(1,))),
        (_with_nic(forwards=(RULE,)), LiveChange(cables=(1,))),
        (_with_nic(bridge="br0"), LiveChange(cables=(1,))),  # the name of a bridge that it is not on
        (
            _with_drives(drive(0, 0, "hdd", "/d.qcow2", "qcow2"), CD.model_copy(update={"medium": "/a.iso", "format": "raw"})),
            LiveChange(drives=(DrivePlace("ide", 1, 0),)),
        ),
    ],
)
def test_what_can_change(after: Definition, change: LiveChange) -> None:
    assert live_change(MACHINE, after) == change


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (_with_nic(attachment="none"), "cannot leave a running machine"),
        (_with_nic(model="virtio"), "its model and address"),
        (_with_nic(mac="08:00:27:00:00:02"), "its model and address"),
        (MACHINE.model_copy(update={"nics": (NIC, NIC.model_copy(update={"number": 2}))}), "no adapter 2"),
        (_with_drives(drive(0, 0, "hdd", "/other.qcow2", "qcow2"), CD), "only the media of CD and floppy drives"),
        (_with_drives(CD), "a drive cannot leave"),
        (_with_drives(drive(0, 0, "hdd", "/d.qcow2", "qcow2")), "--medium emptydrive"),
        (_with_drives(drive(0, 0, "hdd", "/d.qcow2", "qcow2"), CD, CD.model_copy(update={"device": 1})), "cannot be added"),
        (MACHINE.model_copy(update={"controllers": MACHINE.controllers[:1]}), "cannot leave"),
        (MACHINE.model_copy(update={"ostype": "Debian_64"}), "as it was started"),
        (MACHINE.model_copy(update={"owner_folder": "/shared"}), "as it was started"),
    ],
)
def test_what_only_a_machine_that_is_off_can_become(after: Definition, said: str) -> None:
    with pytest.raises(StateError, match=said):
        live_change(MACHINE, after)
