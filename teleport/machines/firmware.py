"""EFI firmware on this host: where its code is, and each VM's own file of variables.

Debian's ovmf has both, 4 MiB together: `OVMF_CODE_4M.fd` is the same for all, `OVMF_VARS_4M.fd` the template from which each VM
gets a copy. The variables travel with the guest as flash memory; QEMU writes them into the target's file when the guest runs there, and
`teleport.host.firmware_variables` when it arrives paused.
"""

from pathlib import Path

from teleport.errors import HypervisorError
from teleport.machines.arguments.launch import FirmwareFiles
from teleport.machines.definition import Definition
from teleport.machines.files import write_durably

CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
TEMPLATE = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
VARIABLES_FILE = "efi-variables.fd"


def firmware_files(definition: Definition, folder: Path) -> FirmwareFiles | None:
    """What `Launch.firmware` takes; None for a VM with a BIOS. The variables are made in the VM's folder when they are missing.

    Raises HypervisorError when this host has no EFI firmware, StorageError when the file cannot be written.
    """
    if definition.machine.firmware == "bios":
        return None
    if not CODE.exists() or not TEMPLATE.exists():
        raise HypervisorError("EFI firmware", f"{CODE} or {TEMPLATE} is missing", "install Debian's ovmf")
    variables = folder / VARIABLES_FILE
    if not variables.exists():
        write_durably(variables, TEMPLATE.read_bytes())
    return FirmwareFiles(code=str(CODE), variables=str(variables))
