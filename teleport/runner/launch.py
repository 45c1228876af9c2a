"""From a definition to a live QEMU, through the guardian."""

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from teleport.host.audio import has_microphone
from teleport.host.guest import QmpGuest
from teleport.host.process import find_qemu
from teleport.host.swtpm import Swtpm, find_swtpm, start_swtpm
from teleport.host.taps import open_tap
from teleport.machines import tpm_state
from teleport.machines.arguments import Launch, qemu_arguments
from teleport.machines.arguments.network import taps, unplugged
from teleport.machines.arguments.screens import screen_count
from teleport.machines.arguments.storage import secret_id
from teleport.machines.arguments.usb import records
from teleport.machines.attached import Medium, media, owner_record_folder
from teleport.machines.definition import Definition
from teleport.machines.firmware import firmware_files
from teleport.machines.passwords import password_descriptor
from teleport.machines.store import VmPaths
from teleport.model import AGENT_MARK, CLIPBOARD_MARK, MICROPHONE_MARK, GuestIdentity, Owner, QemuProcess
from teleport.runner.guardian_client import GuardedQemu, GuardianClient
from teleport.runner.ownership import host_identity

ARRIVAL = "arrival-"  # the label of a QEMU that takes in a guest, before its epoch
_AGENT_SOCKET, _CLIPBOARD_SOCKET, _MICROPHONE_SOCKET = "agent.sock", "clipboard.sock", "mic.sock"
_NO_MICROPHONE = (
    "warning: --audioin: the guest records silence, since this host's QEMU has no module for SPICE: "
    "run deploy/set-up (qemu-system-modules-spice), and start the VM anew"
)
_TPM = "tpm"  # the descriptor of its control channel


@dataclass(frozen=True)
class Launched:
    """A QEMU with the folder of its sockets, its stderr and its RAM (None: private)."""

    process: QemuProcess
    folder: Path
    stderr: Path
    ram_fd: int | None
    tpm: Swtpm | None = None  # None: without, or started by a predecessor
    tpm_state: Path | None = None  # of a TPM whose content arrives with the guest


class Launcher:
    """Starts (and finds again) the QEMUs of one VM."""

    def __init__(
        self,
        definition: Definition,
        paths: VmPaths,
        guardian: GuardianClient,
        *,
        home: Path,
        runtime: Path,
        accelerator: Literal["kvm", "tcg"],
        say: Callable[[str], None],
    ) -> None:
        self.definition = definition
        self.paths = paths
        self.runtime = runtime
        self._guardian = guardian
        self._home = home
        self._accelerator = accelerator
        self._say = say

    @property
    def record_folder(self) -> Path | None:
        """Where this guest's owner record is."""
        return owner_record_folder(self.definition)

    def owner(self, epoch: str) -> Owner:
        """This VM as an owner record names it."""
        return Owner(
            host=host_identity(),
            home=str(self._home),
            vm_uuid=self.definition.uuid,
            vm_name=self.definition.name,
            epoch=epoch,
        )

    @property
    def own_identity(self) -> GuestIdentity:
        """What the guest sees of this VM when it is started here."""
        macs = tuple((nic.number, nic.mac) for nic in self.definition.nics if nic.attachment != "none")
        return GuestIdentity(smbios_uuid=self.definition.uuid, macs=macs)

    async def start(
        self,
        *,
        label: str,
        identity: GuestIdentity | None = None,
        incoming: bool = False,
        ram_fd: int | None = None,
        prefault: bool = False,
    ) -> Launched:
        """Starts QEMU paused (`-S`: whoever owns the guest says `cont`); `label` names its folder of sockets. Raises HypervisorError."""
        qemu, _ = find_qemu()
        folder = self._folder(label)
        folder.mkdir(mode=0o700, exist_ok=True)
        machine = self.definition.machine
        is_file = machine.ram != "private"
        self.paths.logs.mkdir(parents=True, exist_ok=True)
        stderr = self.paths.logs / f"qemu-{label}.log"
        stderr.unlink(missing_ok=True)
        arguments = qemu_arguments(
            self.definition,
            Launch(
                accelerator=self._accelerator,
                qmp_socket=str(folder / "qmp.sock"),
                oob_socket=str(folder / "oob.sock"),
                ram_fd="{fd:ram}" if is_file else None,
                firmware=firmware_files(self.definition, self.paths.folder),
                identity=identity,
                incoming=incoming,
                paused=True,
                vnc_sockets=self._vnc_sockets(folder),
                agent_socket=str(folder / _AGENT_SOCKET),
                clipboard_socket=str(folder / _CLIPBOARD_SOCKET),
                microphone_socket=await self._microphone_socket(qemu, folder),
                tpm_fd=f"{{fd:{_TPM}}}",
                tap_fds={tap.number: f"{{fd:{tap.name}}}" for tap in taps(self.definition)},
                secret_files={each.node: f"/proc/self/fd/{{fd:{secret_id(each.node)}}}" for each in self._with_password()},
            ),
        )
        with contextlib.ExitStack() as descriptors, contextlib.ExitStack() as unless_spawned:
            fds = {}
            for tap in taps(self.definition):
                descriptor = fds[tap.name] = open_tap(tap)
                descriptors.callback(os.close, descriptor)
            for each in self._with_password():
                descriptor = fds[secret_id(each.node)] = password_descriptor(Path(each.password_file))
                descriptors.callback(os.close, descriptor)
            tpm = state = None
            if machine.tpm != "none":
                state = await asyncio.to_thread(self._tpm_state, label, incoming=incoming)
                log = self.paths.logs / f"swtpm-{label}.log"
                tpm = await asyncio.to_thread(start_swtpm, version=machine.tpm, state=state, log=log)
                descriptors.callback(os.close, tpm.control_fd)
                fds[_TPM] = tpm.control_fd
                unless_spawned.callback(tpm.end)
            process, own_fd = await self._guardian.spawn(
                [qemu, *arguments],
                label=label,
                stderr_path=stderr,
                ram_bytes=self.definition.memory_bytes if is_file else 0,
                ram_fd=ram_fd,
                huge_pages=machine.ram == "hugepages",
                prefault=prefault and is_file,
                fds=fds,
            )
            unless_spawned.pop_all()
        arriving = state if incoming else None
        return Launched(process=process, folder=folder, stderr=stderr, ram_fd=own_fd, tpm=tpm, tpm_state=arriving)

    async def _microphone_socket(self, qemu: str, folder: Path) -> str:
        if not records(self.definition):
            return ""
        if not await asyncio.to_thread(has_microphone, qemu):
            self._say(_NO_MICROPHONE)
            return ""
        return str(folder / _MICROPHONE_SOCKET)

    def require_tpm(self) -> None:
        """Before this VM starts a guest of its own: its TPM is here. Raises StateError, HypervisorError."""
        if self.definition.machine.tpm != "none":
            find_swtpm()
            tpm_state.require_here(self.paths.folder, name=self.definition.name)

    def _tpm_state(self, label: str, *, incoming: bool) -> Path:
        if not incoming:
            return tpm_state.own(self.paths.folder)
        # a saved state's QEMU has the same label each time, and its TPM may be the VM's own by now
        name = label if label.startswith(ARRIVAL) else f"{label}-{secrets.token_hex(4)}"
        return tpm_state.arriving(self.paths.folder, name)

    def adopt_tpm(self, launched: Launched) -> None:
        """The guest that arrived is about to run: its TPM is the VM's own. Raises StorageError."""
        if launched.tpm_state:
            tpm_state.adopt(launched.tpm_state)

    def _with_password(self) -> tuple[Medium, ...]:
        return tuple(each for each in media(self.definition) if each.password_file)

    def found(self, qemu: GuardedQemu) -> Launched:
        """A QEMU that the guardian still holds."""
        label = qemu.process.label
        arriving = self.paths.folder / tpm_state.FOLDER / label
        return Launched(
            process=qemu.process,
            folder=self._folder(label),
            stderr=self.paths.logs / f"qemu-{label}.log",
            ram_fd=qemu.ram_fd,
            tpm_state=arriving if label.startswith(ARRIVAL) and arriving.is_dir() else None,
        )

    def screens(self, launched: Launched) -> tuple[str, ...]:
        """Where this QEMU serves the guest's screens, as the display's front wants to know it, the channels of the guest's agents, and the
        way into its sound card; () without graphics."""
        screens = tuple(f"unix:{path}" for path in self._vnc_sockets(launched.folder))
        channels = (
            f"{AGENT_MARK}unix:{launched.folder / _AGENT_SOCKET}",
            f"{CLIPBOARD_MARK}unix:{launched.folder / _CLIPBOARD_SOCKET}",
        )
        microphone = f"{MICROPHONE_MARK}unix:{launched.folder / _MICROPHONE_SOCKET}"
        return (
            (
                *screens,
                *(channels if self.definition.machine.guest_agent else ()),
                *([microphone] if "-spice" in launched.process.argv else ()),
            )
            if screens
            else ()
        )

    def _vnc_sockets(self, folder: Path) -> tuple[str, ...]:
        return tuple(str(folder / f"vnc{number}") for number in range(1, screen_count(self.definition) + 1))

    async def connect(self, launched: Launched) -> QmpGuest:
        """Its monitors. Raises HypervisorError with QEMU's last words when it died at once."""
        guest = await QmpGuest.connect(
            launched.folder / "qmp.sock", launched.folder / "oob.sock", launched.process, launched.stderr
        )
        for nic in unplugged(self.definition):
            await guest.execute("set_link", name=nic, up=False)
        return guest

    async def forget(self, launched: Launched) -> None:
        """Lets a dead QEMU's RAM and sockets go, and the TPM of a guest that did not get here."""
        await self._guardian.forget(launched.process)
        shutil.rmtree(launched.folder, ignore_errors=True)
        if launched.tpm:
            launched.tpm.end()
        if launched.tpm_state:
            await asyncio.to_thread(tpm_state.drop, launched.tpm_state)

    def _folder(self, label: str) -> Path:
        return self.runtime / label
