"""Are two URLs that QEMU's own drivers open (iscsi://, nbd://) one disk? Only proof counts: two clones that both sides write to would
lose one side's writes without a sign.

The owner record's folder proves that both sides share *it*, equal content that one disk was copied from the other at some time;
neither says that it is one disk. What does: the same place (server, port, target, LUN), as far as an address means the same place
to both sides; or a name that the LUN bears itself and that was made for it alone, under the same target name.
"""

import ipaddress
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

_PREFIX = "remote:"
_FIELDS = frozenset({"kind", "target", "port", "addresses", "host", "name", "own"})


@dataclass(frozen=True)
class RemoteDisk:
    """One such disk as one side sees it.

    `kind` is "iscsi" or "nbd"; `target` what it is called at the server ("IQN/LUN", an export's name); `addresses` what the server's
    name stands for on this side; `host` this kernel and network namespace, in which loopback addresses mean one place; `name` a
    digest of what the disk calls itself ("" when it doesn't), `own` whether that includes a serial number made for it alone, which
    no clone has by default.
    """

    kind: str
    target: str
    port: int
    addresses: tuple[str, ...]
    host: str
    name: str = ""
    own: bool = False

    @property
    def text(self) -> str:
        """As `MediumFact.identity` carries it."""
        words = {"kind": self.kind, "target": self.target, "port": self.port, "addresses": " ".join(self.addresses)}
        return _PREFIX + urlencode({**words, "host": self.host, "name": self.name, "own": "yes" if self.own else ""})


def remote_disk(identity: str) -> RemoteDisk | None:
    """What the other side's `MediumFact.identity` says; None for anything else."""
    if not identity.startswith(_PREFIX):
        return None
    said = dict(parse_qsl(identity.removeprefix(_PREFIX), keep_blank_values=True))
    if said.keys() != _FIELDS or not (said["port"].isascii() and said["port"].isdigit() and len(said["port"]) <= 5):
        return None
    return RemoteDisk(
        kind=said["kind"],
        target=said["target"],
        port=int(said["port"]),
        addresses=tuple(said["addresses"].split()),
        host=said["host"],
        name=said["name"],
        own=said["own"] == "yes",
    )


def not_one_disk(here: str, there: str) -> str:
    """Why two identities are not proved to be one remote disk, with what would prove it; "" when it is proved."""
    ours, theirs = remote_disk(here), remote_disk(there)
    if ours is None or theirs is None:
        return "one side does not say where it is: attach it as the same URL on both sides"
    if ours.kind != theirs.kind:
        return f"it is attached by {theirs.kind}, not by {ours.kind}: attach it as the same URL on both sides"
    if ours.name and theirs.name and ours.name != theirs.name:
        return "another disk: it calls itself otherwise"
    named = bool(ours.name) and ours.own and theirs.own and _target_name(ours) == _target_name(theirs)
    if _same_place(ours, theirs) or (named and ours.kind == "iscsi" and ours.name == theirs.name):
        return ""
    mend = "attach it by the same address (not loopback) and name on both sides"
    if ours.kind == "iscsi":
        mend += ", or give the LUN a serial number of its own (tgt: scsi_sn) and the same target name"
    return f"not proved to be the same disk, it may be a clone: {mend}"


def _same_place(ours: RemoteDisk, theirs: RemoteDisk) -> bool:
    if (ours.target, ours.port) != (theirs.target, theirs.port):
        return False
    one_host = bool(ours.host) and ours.host == theirs.host
    return any(one_host or _means_the_same_everywhere(address) for address in {*ours.addresses} & {*theirs.addresses})


def _means_the_same_everywhere(address: str) -> bool:
    """Loopback, link-local and unspecified addresses are another machine on every host."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return False
    known = getattr(known, "ipv4_mapped", None) or known
    return not (known.is_loopback or known.is_link_local or known.is_unspecified or known.is_multicast)


def _target_name(disk: RemoteDisk) -> str:
    return disk.target.rpartition("/")[0]
