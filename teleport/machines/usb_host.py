"""The USB devices of this computer, as Linux shows them in sysfs (Documentation/ABI/testing/sysfs-bus-usb)."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from teleport.machines.usb_filters import UsbDevice

SYSFS = Path("/sys/bus/usb/devices")
_DEVICE = re.compile(r"[0-9]+-[0-9.]+")  # BUS-PORT.PORT; root hubs are usbN, interfaces have a colon
_HUB_CLASS = "09"


@dataclass(frozen=True)
class HostDevice:
    """One device here: what it is, where (BUS-PORT), its speed in Mbit/s as Linux writes it, whether a driver has it."""

    device: UsbDevice
    place: str
    speed: str
    in_use: bool
    address: str

    @property
    def uuid(self) -> str:
        """A name that stays as long as it is plugged in there."""
        return str(uuid5(NAMESPACE_URL, f"usb:{self.address}:{self.device.vendor_id:04x}:{self.device.product_id:04x}"))


def _text(folder: Path, name: str) -> str:
    with contextlib.suppress(OSError):
        return (folder / name).read_text(errors="replace").strip()
    return ""


def host_devices(sysfs: Path = SYSFS) -> tuple[HostDevice, ...]:
    """All but hubs, by their place. Empty on a host without USB."""
    found = []
    for folder in sorted(sysfs.glob("*")):
        if not _DEVICE.fullmatch(folder.name) or _text(folder, "bDeviceClass") == _HUB_CLASS:
            continue
        try:
            numbers = [int(_text(folder, name), 16) for name in ("idVendor", "idProduct", "bcdDevice")]
        except ValueError:
            continue  # unplugged while we look
        texts = [_text(folder, name) for name in ("manufacturer", "product", "serial")]
        drivers = list(folder.glob(f"{folder.name}:*/driver"))
        found.append(
            HostDevice(
                device=UsbDevice(numbers[0], numbers[1], numbers[2], texts[0], texts[1], texts[2]),
                place=folder.name,
                speed=_text(folder, "speed"),
                in_use=bool(drivers),
                address=str(folder.resolve()),
            )
        )
    return tuple(found)
