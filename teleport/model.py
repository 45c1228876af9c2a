"""The frozen values that the rooms hand to each other: ids, phases, facts, messages and progress. No behaviour, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

# The wire's versions that this build speaks (see proto/teleport/v1/transfer.proto for the rule).
PROTOCOL_OLDEST = 1
PROTOCOL_NEWEST = 1
# Capabilities that this build understands; a peer that *requires* one that is missing here is refused by name.
CAPABILITIES = frozenset({"plan-raw", "plan-shared", "owner-record", "storage-proof", "verify-ram"})


class VmState(Enum):
    """A VM's state as `showvminfo` says it, with VirtualBox's words where they exist (`VMState=`)."""

    POWEROFF = "poweroff"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SAVED = "saved"
    ABORTED = "aborted"
    TELEPORTING = "teleporting"
    TELEPORTING_IN = "teleportingin"
    TELEPORTED = "teleported"
    IN_DOUBT = "indoubt"


class PlanName(Enum):
    """The data paths of `--plan`."""

    AUTO = "auto"
    SHARED = "shared"
    RAW = "raw"


class Stage(Enum):
    """What a person is told a teleport is doing, in order."""

    CHECKING = "checking"
    COPYING = "copying"
    SWITCHING_OVER = "switching over"
    DONE = "done"


class OutcomeKind(Enum):
    """How a teleport ended, with the exit code of commands.md."""

    MOVED = "moved"  # the target runs the guest (0)
    NOT_MOVED = "not-moved"  # refused, failed or cancelled: the guest goes on at the source (1)
    IN_DOUBT = "in-doubt"  # a paused copy is kept at the source (3)
    LOST = "lost"  # the guest is gone as by a power cut (4)
    CHECKED = "checked"  # --dry-run: the whole preflight passed, nothing moved (0)


@dataclass(frozen=True)
class Owner:
    """Who may run a guest: one VM of one home on one host, for one epoch. `vm_uuid` empty means free."""

    host: str
    home: str
    vm_uuid: str
    vm_name: str
    epoch: str

    @property
    def is_free(self) -> bool:
        """Nobody: the guest was shut down cleanly and whoever comes first may start it."""
        return not self.vm_uuid

    def same_vm(self, other: "Owner") -> bool:
        """The same VM of the same home on the same host, whatever the epoch."""
        return (self.host, self.home, self.vm_uuid) == (other.host, other.home, other.vm_uuid)


FREE = Owner(host="", home="", vm_uuid="", vm_name="", epoch="")


class ClaimResult(Enum):
    """The three answers of an owner record: a time-out is UNKNOWN, never "no"."""

    WON = "won"
    LOST = "lost"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class RecordView:
    """The newest generation of an owner record as one read saw it. `generation` 0 with a free owner: nothing written yet."""

    generation: int
    owner: Owner
    started: bool  # the owner noted that it said `cont`


@dataclass(frozen=True)
class GuestIdentity:
    """What the guest sees of a VM's identity; a target takes over the source's. `macs` by NIC number (1-based), e.g. (1, "08:00:27:…")."""

    smbios_uuid: str
    macs: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Fact:
    """One thing that must be the same on both sides.

    `area` groups facts that are compared together ("definition", "machine", "memory", "cpu", "device", "block", "firmware");
    `subject` and `name` say of what and which ("ide.0/disk0", "size"); `value` is text as it is shown in the table;
    `mend` is the option a person would change ("" when none exists).
    """

    area: str
    subject: str
    name: str
    value: str
    mend: str = ""


@dataclass(frozen=True)
class Finding:
    """One row of the preflight's table: what, the value here (the source) and there (the target), and the command that mends it."""

    what: str
    here: str
    there: str
    mend: str = ""


@dataclass(frozen=True)
class MediumFact:
    """One attached medium as one side sees it, with the proof that both see the same storage.

    `proof_file` is the name of a file that this side wrote into the medium's proof folder and `proof_nonce` a commitment to the
    secret in it (the peer must find it there and answer, see `teleport.preflight.proofs`); for read-only media both are empty
    and `size_bytes`, `identity` (filesystem and inode where meaningful) and `content` (a digest) speak.
    """

    node: str
    kind: str
    format: str
    read_only: bool
    virtual_size_bytes: int
    size_bytes: int
    path: str
    snapshots: tuple[str, ...] = ()
    backing: str = ""
    identity: str = ""
    content: str = ""
    proof_file: str = ""
    proof_nonce: str = ""
    problem: str = ""  # why this side cannot use it ("" when it can)


@dataclass(frozen=True)
class SourceHello:
    """Opens a session. `versions` is an inclusive range; `handle` names an abstract unix socket of the source's network namespace."""

    epoch: str
    versions: tuple[int, int]
    capabilities: frozenset[str]
    required: frozenset[str]
    vm_name: str
    host: str
    software: str
    plan: str
    handle: str = ""
    nonce: str = ""


@dataclass(frozen=True)
class TargetHello:
    """The target's answer: the version it chose, what it can, who it is, and whether it met the source on its own host."""

    version: int
    capabilities: frozenset[str]
    required: frozenset[str]
    vm_name: str
    host: str
    software: str
    same_host: bool = False


@dataclass(frozen=True)
class Proposal:
    """The source's side of the first comparison: settings, media with proofs, the owner record it holds, what it needs.

    `display` is the folder of the front that serves the guest's remote display ("" when nothing does): on one host the target takes
    that front over. `display_moves`: between hosts it ends, instead of following the guest, and the target serves by itself.
    """

    facts: tuple[Fact, ...]
    media: tuple[MediumFact, ...]
    snapshots: tuple[str, ...]
    owner: Owner | None
    generation: int
    memory_bytes: int
    identity: GuestIdentity
    plan: str
    paused: bool
    record_folder_name: str = ""
    display: str = ""
    display_moves: bool = False


@dataclass(frozen=True)
class ProposalAnswer:
    """The target's side: the same from there, its own findings, and its answers to the storage proofs (node, secret that it read)."""

    facts: tuple[Fact, ...]
    media: tuple[MediumFact, ...]
    findings: tuple[Finding, ...]
    proofs: tuple[tuple[str, str], ...] = ()
    owner: Owner | None = None
    record_generation: int = -1  # -1: the target sees no owner record


@dataclass(frozen=True)
class PrepareOrder:
    """What the target needs before it starts its QEMU: the plan, the source's live facts, and the source's answers to the target's
    storage proofs. `verify_ram`: both sides hash RAM in the pause."""

    plan: str
    facts: tuple[Fact, ...] = ()
    proofs: tuple[tuple[str, str], ...] = ()
    verify_ram: bool = False


@dataclass(frozen=True)
class LiveReport:
    """A live machine: what QMP's introspection says of it; the target's comes with its own findings."""

    facts: tuple[Fact, ...]
    findings: tuple[Finding, ...] = ()


class TargetPhase(Enum):
    """The target's word about an epoch, as it travels in every answer."""

    UNKNOWN = "unknown"  # never heard of it
    PREPARED = "prepared"  # QEMU waits or loads; never said cont
    LOADED = "loaded"  # QEMU says completed; still paused
    CLAIMED = "claimed"  # owns the guest
    STARTED = "started"  # runs the guest (ACK)
    ABORTED = "aborted"  # this epoch never ran here and never will (ABORT)
    GAVE_BACK = "gave-back"  # claimed, never said cont, wrote g+2 = source
    LOST = "lost"  # its QEMU died after CONT_INTENT: cannot know whether the guest ran


@dataclass(frozen=True)
class TargetReport:
    """What the target says of an epoch: its phase, QEMU's own words when it failed, and where the guest runs now.

    `display_taken`: it takes over the source's display front with the guest. Otherwise `display_screens` are where the source's front
    finds the guest's screens from now on (one endpoint a screen, with a secret; () when nothing there can show them), and `display`
    says where the target serves the display itself.
    """

    phase: TargetPhase
    reason: str = ""
    qemu_pid: int = 0
    ram_digest: str = ""
    cont_monotonic_ns: int = 0  # CLOCK_MONOTONIC at the target when `cont` was answered; comparable on one host only
    display: str = ""
    display_taken: bool = False
    display_screens: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class MigrationInfo:
    """QEMU's query-migrate, the parts that we use. Bytes and milliseconds; `status` is QEMU's word."""

    status: str
    error: str = ""
    total_bytes: int = 0
    transferred_bytes: int = 0
    remaining_bytes: int = 0
    dirty_pages_per_second: int = 0
    page_bytes: int = 4096
    rounds: int = 0
    throughput_bits_per_second: int = 0
    expected_downtime_ms: int = 0
    downtime_ms: int = 0
    total_ms: int = 0


@dataclass(frozen=True)
class Progress:
    """One line of progress. `percent` never goes back; None for `eta_seconds` means not known; `converging` False says so."""

    stage: Stage
    percent: int
    round: int = 0
    sent_bytes: int = 0
    remaining_bytes: int = 0
    rate_bytes_per_second: float = 0.0
    dirty_bytes_per_second: float = 0.0
    eta_seconds: float | None = None
    converging: bool = True
    plan: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a teleport ended and what was measured.

    `migrate_ms` is from QEMU's `migrate` at the source to `cont` at the target: the data path and the handover, without the preflight.
    `downtime_ms` is from the guest's stop to that `cont`. Between hosts, whose clocks are not compared, both end when the target's word
    arrived. 0 where it was not measured: for a guest that arrives paused, and by an agent that took up another one's teleport.
    """

    kind: OutcomeKind
    message: str = ""
    plan: str = ""
    target: str = ""
    target_vm: str = ""
    target_qemu_pid: int = 0
    sent_bytes: int = 0
    total_ms: float = 0.0
    downtime_ms: float = 0.0
    ram_verified: str = ""
    display: str = ""
    migrate_ms: float = 0.0


# Before the endpoints of what else the guest has for its viewers, which stand behind those of the guest's screens.
AGENT_MARK = "agent@"  # qemu-guest-agent
CLIPBOARD_MARK = "clipboard@"  # spice-vdagent
MICROPHONE_MARK = "microphone@"  # the way into its sound card


@dataclass(frozen=True)
class DisplayOrder:
    """What a display's front is started with.

    `folder` (mode 0700) is its own, `keys` keeps certificates; `settings` are the definition's as
    `teleport.machines.vrde.to_dict` writes them; `screens` are endpoints of VNC servers, one a screen,
    then (after `AGENT_MARK`, `CLIPBOARD_MARK`, `MICROPHONE_MARK`) those of the guest's agents and sound card, if the VM has them.
    """

    vm_name: str
    folder: str
    keys: str
    settings: Mapping[str, object]
    screens: tuple[str, ...]


REMOTE_USB = "remote-usb-"  # begins the ids of QEMU's devices that are a viewer's: they come and go, and never travel


@dataclass(frozen=True)
class SharedUsb:
    """A USB device that a viewer's computer shares, as the display's front lists it.

    `name` is unique, `socket` where QEMU reaches its end of usbredir, `connected` whether one has; `speed` is low, full, high or super.
    Numbers are the device's descriptors', texts "" when they are not known; `client` is the viewer's address.
    """

    name: str
    socket: str
    client: str
    speed: str
    connected: bool
    vendor_id: int
    product_id: int
    revision: int
    manufacturer: str
    product: str
    serial_number: str


@dataclass(frozen=True)
class DisplayStatus:
    """A front that serves: the port it is bound to (0: none for viewers), where, whose screens, how many viewers, and facts worth
    showing such as `fingerprint`."""

    port: int
    addresses: tuple[str, ...]
    screens: tuple[str, ...]
    viewers: int
    extension: str
    details: Mapping[str, str]


@dataclass(frozen=True)
class QemuProcess:
    """A QEMU that a guardian started: enough to find the very same process again (`start_ticks` is field 22 of /proc/PID/stat)."""

    pid: int
    start_ticks: int
    label: str
    ram_bytes: int = 0
    argv: tuple[str, ...] = field(default=(), repr=False)
