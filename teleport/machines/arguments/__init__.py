"""A definition → QEMU's arguments: one pure function, golden-tested, with an explicit place for every device.

The same definition gives the same machine on any host, whatever the order in which it was put together. What maps to what:

| setting | QEMU | module |
|---|---|---|
| `--chipset piix3`, `ich9` | `-machine pc-i440fx-VERSION`, `pc-q35-VERSION` | `board` |
| `--memory`, `--ram` | `-m`, `memory-backend-file` on the runner's memfd, or `memory-backend-ram` | `board` |
| `--cpus`, `--cpu-profile`, `--pae`, `--longmode`, `--ioapic` | `-smp`, `-cpu MODEL,enforce=on,…` | `board` |
| `--graphicscontroller vboxvga`, `vmsvga`, `--monitorcount` | `VGA`, `vmware-svga`, `virtio-vga`, `secondary-vga`; `-vnc` | `screens` |
| `--firmware efi` | OVMF as `pflash0`, the VM's own variables as `pflash1` | `board` |
| `--cpuid-portability-level`, `--cpuid-set` | `-cpu MODEL,…,FEATURE=on|off`, `family=`, … (`cpus`) | `board` |
| `--usb`, `--usbehci`, `--usbxhci`, `--mouse`, `--keyboard` | `pci-ohci`, `usb-ehci`, `qemu-xhci`, `usb-tablet`, `usb-kbd` | `usb` |
| `--audio null`, `--audiocontroller`, `--audioout` | `AC97`, `intel-hda`, `sb16`; `-vnc …,audiodev=` | `usb`, `screens` |
| `--audioin` | `-audiodev spice`, `-spice` on a socket for the display's front | `usb` |
| `--uartN` | `isa-serial` and a chardev | `serial` |
| `--tpm-type` | `-tpmdev emulator` on the runner's swtpm; `tpm-tis`, or `tpm-crb` for 2.0 on ich9 | `tpm` |
| `--guest-agent` | `virtio-serial-pci`, `virtserialport` and a chardev | `channels` |
| `--nicN`, `--nictypeN`, `--natpfN`, `--bridgeadapterN`, `--intnetN` | `-netdev user`, `tap`, `socket` on a hub with a NIC | `network` |
| `storagectl`, `storageattach` | a controller, `-blockdev`, and a drive of the same name, e.g. `sata-0-0` | `storage` |
| `--bootN` | `bootindex` of the devices, `-boot strict=on` | `boot` |

PCI slots (both chipsets, bus `pci.0` or `pcie.0`) are in `places`.
"""

from teleport.machines.arguments.board import board_arguments, serial_arguments
from teleport.machines.arguments.channels import channel_arguments
from teleport.machines.arguments.launch import FirmwareFiles, Launch, escaped
from teleport.machines.arguments.network import network_arguments
from teleport.machines.arguments.screens import screen_arguments
from teleport.machines.arguments.storage import storage_arguments
from teleport.machines.arguments.tpm import tpm_arguments
from teleport.machines.arguments.usb import sound_arguments, usb_arguments
from teleport.machines.definition import Definition

__all__ = ["FirmwareFiles", "Launch", "qemu_arguments"]


def qemu_arguments(definition: Definition, launch: Launch) -> list[str]:
    """What to start `qemu-system-x86_64` with (without its own name). Total and deterministic for every valid definition."""
    return [
        *board_arguments(definition, launch),
        *screen_arguments(definition, launch),
        *usb_arguments(definition),
        *storage_arguments(definition, launch),
        *network_arguments(definition, launch),
        *sound_arguments(definition, launch),
        *serial_arguments(definition),
        *channel_arguments(definition, launch),
        *tpm_arguments(definition, launch),
        *_monitors(launch),
        *(["-S"] if launch.paused or launch.incoming else []),
        *(["-incoming", "defer"] if launch.incoming else []),
    ]


def _monitors(launch: Launch) -> list[str]:
    """Two QMP sockets: the main one, and one that stays usable out of band when the main one is stuck."""
    return [
        "-chardev",
        f"socket,id=qmp,path={escaped(launch.qmp_socket)},server=on,wait=off",
        *("-mon", "chardev=qmp,mode=control"),
        "-chardev",
        f"socket,id=oob,path={escaped(launch.oob_socket)},server=on,wait=off",
        *("-mon", "chardev=oob,mode=control"),
    ]
