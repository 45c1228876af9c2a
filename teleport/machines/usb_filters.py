"""Which USB devices a VM takes: its filters (manual, 3.10.1 and 7.1.4). The first active filter that fits a device plugs it in.

Teleport plugs in *remote* devices only: those that a viewer's computer shares (`teleport usb share`). A device of this host would keep
its guest from teleporting.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

from teleport.machines.fields import Line, Name, Part

Remote = Literal["yes", "no", "any"]


def checked_number(value: str) -> str:
    """Four hexadecimal digits as we write them (``046D``), or "" for any. Raises ValueError."""
    digits = value.lower().removeprefix("0x").upper()
    if value and not re.fullmatch(r"[0-9A-F]{4}", digits):
        raise ValueError("is not a number of four hexadecimal digits such as 046D")
    return digits


Number = Annotated[str, AfterValidator(checked_number)]


@dataclass(frozen=True)
class UsbDevice:
    """What is known of a device. Numbers are its descriptors' (revision: BCD); texts are "" when they are not known."""

    vendor_id: int
    product_id: int
    revision: int = 0
    manufacturer: str = ""
    product: str = ""
    serial_number: str = ""

    @property
    def shown(self) -> str:
        """For a person: ``046d:c31c Logitech Keyboard``."""
        return f"{self.vendor_id:04x}:{self.product_id:04x} {self.manufacturer} {self.product}".strip()


class UsbFilter(Part):
    """One filter: every field that is not empty must agree. `remote` no fits only devices of this host, yes only remote ones."""

    name: Name
    active: bool = True
    vendor_id: Number = ""
    product_id: Number = ""
    revision: Number = ""
    manufacturer: Line = ""
    product: Line = ""
    serial_number: Line = ""
    remote: Remote = "any"

    def fits_remote(self, device: UsbDevice) -> bool:
        """Whether it takes that device of a viewer's computer."""
        numbers = ((self.vendor_id, device.vendor_id), (self.product_id, device.product_id), (self.revision, device.revision))
        texts = (
            (self.manufacturer, device.manufacturer),
            (self.product, device.product),
            (self.serial_number, device.serial_number),
        )
        return (
            self.active
            and self.remote != "no"
            and all(not wanted or int(wanted, 16) == number for wanted, number in numbers)
            and all(not wanted or wanted == text for wanted, text in texts)
        )


def first_fit(filters: Sequence[UsbFilter], device: UsbDevice) -> UsbFilter | None:
    """The filter that takes a remote device; None when none does."""
    return next((each for each in filters if each.fits_remote(device)), None)
