"""The guest's TPM: QEMU's front of a swtpm that the runner has started."""

from teleport.machines.arguments.launch import Launch
from teleport.machines.definition import Definition


def tpm_arguments(definition: Definition, launch: Launch) -> list[str]:
    """Version 2.0 speaks CRB on ich9, as new machines do; everything else TIS, which every system with a TPM driver knows."""
    machine = definition.machine
    if machine.tpm == "none":
        return []
    if launch.tpm_fd is None:
        raise ValueError("a TPM needs Launch.tpm_fd")
    model = "tpm-crb" if (machine.tpm, machine.chipset) == ("2.0", "ich9") else "tpm-tis"
    return [
        *("-chardev", f"socket,id=tpm-backend,fd={launch.tpm_fd}"),
        *("-tpmdev", "emulator,id=tpm0,chardev=tpm-backend"),
        *("-device", f"{model},id=tpm,tpmdev=tpm0"),
    ]
