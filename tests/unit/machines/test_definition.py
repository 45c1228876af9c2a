import pytest
from pydantic import ValidationError

from teleport.machines.adapters import Nic
from teleport.machines.definition import Cpu, Definition, Machine, Serial, Teleporter
from teleport.machines.text import describe
from tests.unit.machines.cases import UUID, cases, controller, definition, drive


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"machine": {"memory": 512}}, "machine.memory: there is no such setting"),
        ({"machine": {"memory_mb": "512"}}, "machine.memory_mb: '512': input should be a valid integer"),
        ({"machine": {"memory_mb": 3}}, "greater than or equal to 4"),
        ({"machine": {"chipset": "q35"}}, "'piix3' or 'ich9'"),
        ({"machine": {"boot": ["disk"]}}, "machine.boot"),
        ({"machine": {"kernel": "vmlinuz"}}, "'vmlinuz' must be an absolute path"),
        ({"machine": {"append": "quiet"}}, "--kernel"),
        ({"machine": {"cpus": 2, "ioapic": False}}, "--ioapic on"),
        ({"machine": {"chipset": "ich9", "acpi": False}}, "always has ACPI"),
        ({"cpu": {"profile": "host"}}, "another CPU on every host"),
        ({"cpu": {"profile": "Nehalm"}}, "did you mean Nehalem"),
        ({"uuid": "4711"}, "uuid: '4711' is not a UUID"),
        ({"name": " "}, "must not be empty"),
        ({"name": "a\nb"}, "control characters"),
        ({"name": "a\ud800"}, "UTF-8"),
        ({"nics": [{"number": 9}]}, "nics.1.number"),
        ({"nics": [{"number": 1, "attachment": "nat"}]}, "--macaddress1 auto"),
        ({"nics": [{"number": 1, "mac": "01:00:00:00:00:00"}]}, "multicast"),
        ({"nics": [{"number": 1}, {"number": 1}]}, "two nics 1"),
        ({"serial": [{"number": 1, "mode": "file"}]}, "needs a path"),
        ({"serial": [{"number": 1, "mode": "file", "path": "x"}]}, "absolute"),
        (
            {"serial": [{"number": 1, "enabled": True}, {"number": 2, "enabled": True}]},
            "two serial ports at I/O base 0x3f8",
        ),
        ({"teleporter": {"password": "a", "password_file": "/b"}}, "keep one of them"),
        ({"vrde": {"ports": "99999"}}, "--vrdeport"),
        ({"vrde": {"enabled": True}, "machine": {"graphics": "none"}}, "--graphicscontroller"),
        ({"format": 2}, "format"),
        ({"surprise": 1}, "surprise: there is no such setting"),
    ],
)
def test_nonsense_is_refused_with_its_place_and_reason(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Definition.model_validate({"name": "S", "uuid": UUID} | settings)
    assert said in describe(caught.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: controller("sata", drive(6, 0, "hdd", "/a", "raw")), "port must be from 0 to 5"),
        (lambda: controller("sata", drive(0, 1, "hdd", "/a", "raw")), "device must be from 0 to 0"),
        (lambda: controller("ide", drive(0, 0, "dvddrive"), drive(0, 0, "dvddrive")), "taken twice"),
        (lambda: controller("virtio-blk", drive(0, 0, "dvddrive")), "takes hdd"),
        (lambda: controller("sata", port_count=7), "from 1 to 6"),
        (lambda: controller("sata", chip="PIIX4"), "no sata controller"),
        (lambda: drive(0, 0, "hdd"), "needs a medium"),
        (lambda: drive(0, 0, "dvddrive", "/a", "qcow2"), "image is raw"),
        (lambda: drive(0, 0, "hdd", "/a"), "go together"),
        (
            lambda: definition(controllers=(controller("sata"), controller("sata", name="other"))),
            "two controllers of bus sata",
        ),
        (
            lambda: definition(
                controllers=(controller("sata", drive(0, 0, "hdd", "/a", "raw"), drive(1, 0, "hdd", "/a", "raw")),)
            ),
            "medium /a",
        ),
    ],
)
def test_storage_that_cannot_be_is_refused(make: object, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make()
    assert said in describe(caught.value)


def test_a_definition_does_not_change() -> None:
    with pytest.raises(ValidationError):
        definition().name = "T"


def test_machine_types_are_pinned() -> None:
    assert Machine(version="10.0").type == "pc-i440fx-10.0"
    assert Machine(version="10.1", chipset="ich9").type == "pc-q35-10.1"


def test_spellings_become_one() -> None:
    assert Cpu(profile="nehalem").profile == "Nehalem"
    assert Nic(number=1, mac="080027AABBCC").mac == "08:00:27:aa:bb:cc"
    assert definition(uuid=UUID.upper()).uuid == UUID


def test_what_is_not_listed_is_not_there() -> None:
    vm = definition()
    assert vm.nic(3).attachment == "none"
    assert vm.serial_port(2) == Serial(number=2)
    assert vm.teleporter == Teleporter()
    assert vm.memory_bytes == 128 << 20


def test_every_case_is_a_definition_of_its_own() -> None:
    every = cases("/m")
    assert len({case.model_dump_json() for case in every.values()}) == len(every)
