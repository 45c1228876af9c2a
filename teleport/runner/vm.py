"""What the two halves of an agent share: the VM that runs here, and what a person asked of a teleport."""

from dataclasses import dataclass
from pathlib import Path

from teleport.host.guest import QmpGuest
from teleport.machines.definition import Definition
from teleport.machines.store import VmPaths
from teleport.model import GuestIdentity, Owner
from teleport.runner.display import Display
from teleport.runner.ownership import Record
from teleport.runner.usb import RemoteUsb


@dataclass
class RunningVm:
    """One VM with a live QEMU. `generation` is the one of the owner record that this VM holds; `ram_fd` is None for private RAM."""

    definition: Definition
    paths: VmPaths
    runtime: Path
    guest: QmpGuest
    ram_fd: int | None
    identity: GuestIdentity
    record: Record
    generation: int
    me: Owner
    display: Display
    usb: RemoteUsb


@dataclass(frozen=True)
class TeleportOrder:
    """`controlvm N teleport`, as it was asked for. 0 for `max_bandwidth_bytes_per_second` is no limit."""

    host: str
    port: int
    plan: str = "auto"
    max_downtime_ms: int = 250
    timeout_seconds: float = 10.0
    max_bandwidth_bytes_per_second: int = 0
    insecure: bool = False
    dry_run: bool = False
    verify_ram: bool = False
    move_display: bool = False
