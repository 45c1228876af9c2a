"""Where everything sits on the first PCI bus: one plan for both chipsets, so that no device's place depends on another's.

Slot 0 is the host bridge; on `pc` slot 1 is PIIX3 (ISA, IDE), on `q35` slot 0x1f is ICH9 (ISA, AHCI, SMBus).
"""

from typing import Final

VIDEO: Final = 0x02
SATA: Final = 0x03  # on pc; q35 has its own AHCI
SCSI: Final = 0x04
SAS: Final = 0x05
VIRTIO_SCSI: Final = 0x06
AUDIO: Final = 0x07
VIRTIO_BLK_FIRST: Final = 0x08  # ports 0-7
NIC_FIRST: Final = 0x10  # adapters 1-8
OHCI: Final = 0x18
EHCI: Final = 0x19
XHCI: Final = 0x1A
MORE_VIDEO: Final = 0x1B  # screens 2-8, one function each
CHANNELS: Final = 0x1D  # virtio-serial
IDE: Final = 0x1E  # on q35; pc has its own PIIX3 IDE


def slot(number: int) -> str:
    """A slot as QEMU's `addr` takes it."""
    return f"{number:#x}"
