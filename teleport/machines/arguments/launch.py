"""What one start of QEMU adds to the definition: things of this host and this moment, never seen by the guest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from teleport.model import GuestIdentity


@dataclass(frozen=True)
class FirmwareFiles:
    """EFI firmware on this host: its code, read only, and this VM's own file of variables (`teleport.machines.firmware`)."""

    code: str
    variables: str


@dataclass(frozen=True)
class Launch:
    """One start of one VM's QEMU.

    `ram_fd` is a descriptor that QEMU inherits and that holds exactly the definition's `memory_bytes` (a memfd): the guest's
    RAM, shared (or the runner's token for one); None for private RAM. `identity` is what the guest sees of another VM, whose
    guest arrives here; `firmware` is needed for firmware efi alone. `paused` starts without running (`incoming` does so
    anyway, and waits for `migrate-incoming`). `vnc_sockets` are where QEMU serves the guest's screens, one each, in a folder of mode
    0700 (its VNC asks for no password), and `agent_socket` and `clipboard_socket` in it are the channels of the
    guest's agents, `microphone_socket` the way into its sound card ("": this host's QEMU has none). `secret_files` maps a drive's node to
    where QEMU reads its medium's password. `tpm_fd` is the control channel of the guest's swtpm, needed with a TPM alone, and `tap_fds`
    are the taps of the bridged adapters by number.
    """

    accelerator: Literal["kvm", "tcg"]
    qmp_socket: str
    oob_socket: str
    ram_fd: int | str | None = None
    firmware: FirmwareFiles | None = None
    identity: GuestIdentity | None = None
    incoming: bool = False
    paused: bool = False
    vnc_sockets: tuple[str, ...] = ()
    agent_socket: str = ""
    clipboard_socket: str = ""
    microphone_socket: str = ""
    tpm_fd: int | str | None = None
    tap_fds: Mapping[int, int | str] = field(default_factory=dict)
    secret_files: Mapping[str, str] = field(default_factory=dict)

    def mac(self, number: int, own: str) -> str:
        """The MAC address of adapter `number`: the arriving guest's, or the VM's own."""
        return dict(self.identity.macs).get(number, own) if self.identity else own


def escaped(value: str) -> str:
    """A value within one of QEMU's `key=value,…` options: commas are doubled."""
    return value.replace(",", ",,")
