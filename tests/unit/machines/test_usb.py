"""USB filters, this host's devices, and where a device is plugged in."""

from pathlib import Path

import pytest

from teleport.machines.arguments.usb import bus_for, free_port, needed_for
from teleport.machines.definition import Definition, Usb
from teleport.machines.usb_filters import UsbDevice, UsbFilter, first_fit
from teleport.machines.usb_host import host_devices

KEYBOARD = UsbDevice(0x046D, 0xC31C, 0x4920, "Logitech", "USB Keyboard", "")


@pytest.mark.parametrize(
    ("filtered", "fits"),
    [
        ({}, True),
        ({"remote": "yes", "vendor_id": "046d", "product_id": "0xC31C", "revision": "4920"}, True),
        ({"manufacturer": "Logitech", "product": "USB Keyboard"}, True),
        ({"remote": "no"}, False),
        ({"active": False}, False),
        ({"vendor_id": "046E"}, False),
        ({"product_id": "0000"}, False),
        ({"serial_number": "1"}, False),
    ],
)
def test_a_filter_fits_when_all_that_it_names_agrees(filtered: dict[str, object], fits: bool) -> None:
    one = UsbFilter(name="f", **filtered)
    assert one.fits_remote(KEYBOARD) is fits
    assert first_fit((UsbFilter(name="other", vendor_id="0001"), one), KEYBOARD) is (one if fits else None)


def test_the_devices_of_this_host(tmp_path: Path) -> None:
    for place, files in {
        "usb1": {"idVendor": "1d6b"},
        "1-1": {"idVendor": "05e3", "idProduct": "0608", "bcdDevice": "8532", "bDeviceClass": "09"},
        "1-1.4": {
            "idVendor": "046d", "idProduct": "c31c", "bcdDevice": "4920", "bDeviceClass": "00", "speed": "1.5",
            "manufacturer": "Logitech", "product": "USB Keyboard",
        },
        "1-1.4:1.0": {"bInterfaceClass": "03"},
        "2-1": {"idVendor": "dead"},
    }.items():  # fmt: skip
        (tmp_path / place).mkdir()
        for name, text in files.items():
            (tmp_path / place / name).write_text(f"{text}\n")
    (tmp_path / "1-1.4" / "1-1.4:1.0" / "driver").mkdir(parents=True)
    (found,) = host_devices(tmp_path)
    assert (found.device, found.place, found.speed, found.in_use) == (KEYBOARD, "1-1.4", "1.5", True)
    assert host_devices(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("controllers", "speed", "bus"),
    [
        ({"xhci": True, "ehci": True, "ohci": True}, "super", "xhci.0"),
        ({"ehci": True, "ohci": True}, "high", "ehci.0"),
        ({"ehci": True, "ohci": True}, "full", "ohci.0"),
        ({"ehci": True}, "low", ""),
        ({"ohci": True}, "high", ""),
        ({}, "full", ""),
    ],
)
def test_a_device_goes_where_its_speed_works(controllers: dict[str, bool], speed: str, bus: str) -> None:
    assert bus_for(Usb(**controllers), speed) == bus
    assert ("--usbxhci on" in needed_for(speed)) and ("--usb on" in needed_for(speed)) == (speed in ("low", "full"))


def test_a_port_that_nothing_else_has() -> None:
    plain = Definition(name="x", uuid="8f3c2a1e-5d0b-4c76-9b1f-0a7d3e6c5b42")
    busy = plain.model_copy(update={"usb": Usb(xhci=True, mouse="usbtablet", keyboard="usb")})
    assert free_port(plain, []) == 6
    assert free_port(busy, [6, 4]) == 5
    assert free_port(busy, [3, 4, 5, 6]) is None
