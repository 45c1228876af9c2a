"""Media that are no file of this host: URLs of LUNs and NFS exports, which QEMU reaches with drivers of its own, and block devices.

A medium is written as one word in the definition: an absolute path, ``iscsi://[user@]server[:port]/target/lun``,
``nfs://server/path`` or ``nbd://server[:port]/export``. A password never stands in it; the attachment names the file that holds it.

QEMU's image locks prove nothing on any of these, and nothing can be put beside them: a VM that writes to one needs a folder for
its owner record (machines.md, "Fences").
"""

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

ISCSI_PORT = 3260
NBD_PORT = 10809
_HIGHEST_LUN = 255  # QEMU's iscsi driver takes one byte
_INITIATOR = "iqn.2008-11.org.linux-kvm:teleport"
_TARGET = re.compile(r"(iqn\.\d{4}-\d{2}\.|eui\.|naa\.)[^\s/,\x00-\x1f]+", re.IGNORECASE)


@dataclass(frozen=True)
class IscsiLun:
    """One LUN of one iSCSI target. `user` "" is no CHAP."""

    server: str
    target: str
    lun: int = 0
    port: int = ISCSI_PORT
    user: str = ""

    def __post_init__(self) -> None:
        _check_server(self.server)
        if not _TARGET.fullmatch(self.target):
            raise ValueError(f"{self.target!r} is not an iSCSI name such as iqn.2026-11.org.example:disk")
        if not 0 <= self.lun <= _HIGHEST_LUN:
            raise ValueError(f"the LUN must be from 0 to {_HIGHEST_LUN}")
        if not 1 <= self.port <= 65535:
            raise ValueError("the port must be from 1 to 65535")

    @property
    def url(self) -> str:
        """As the definition has it."""
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        port = "" if self.port == ISCSI_PORT else f":{self.port}"
        return f"iscsi://{user}{_bracketed(self.server)}{port}/{quote(self.target, safe=':.-')}/{self.lun}"

    def node(self, *, initiator: str, secret: str = "") -> dict[str, object]:
        """QEMU's protocol node; `secret` is the id of the object with the password."""
        return {
            "driver": "iscsi",
            "transport": "tcp",
            "portal": f"{_bracketed(self.server)}:{self.port}",
            "target": self.target,
            "lun": self.lun,
            "initiator-name": f"{_INITIATOR}-{initiator}",
            **({"user": self.user} if self.user else {}),
            **({"password-secret": secret} if secret else {}),
        }


@dataclass(frozen=True)
class NfsFile:
    """One file of one NFS server, by its path there. QEMU's driver asks the server's portmapper (port 111) for the rest."""

    server: str
    path: str

    def __post_init__(self) -> None:
        _check_server(self.server)
        if not PurePosixPath(self.path).is_absolute() or self.path.endswith("/"):
            raise ValueError("an NFS medium is nfs://server/path/of/the/image")

    @property
    def url(self) -> str:
        """As the definition has it."""
        return f"nfs://{_bracketed(self.server)}{quote(self.path, safe='/:.,-_+~')}"

    def node(self) -> dict[str, object]:
        """QEMU's protocol node."""
        return {"driver": "nfs", "server": {"type": "inet", "host": self.server}, "path": self.path}


@dataclass(frozen=True)
class NbdExport:
    """One export of one NBD server, without TLS: for networks of one's own."""

    server: str
    export: str = ""
    port: int = NBD_PORT

    def __post_init__(self) -> None:
        _check_server(self.server)
        if not 1 <= self.port <= 65535:
            raise ValueError("the port must be from 1 to 65535")

    @property
    def url(self) -> str:
        """As the definition has it."""
        port = "" if self.port == NBD_PORT else f":{self.port}"
        return f"nbd://{_bracketed(self.server)}{port}/{quote(self.export, safe='/:.,-_+~')}"

    def node(self) -> dict[str, object]:
        """QEMU's protocol node."""
        server = {"type": "inet", "host": self.server, "port": str(self.port)}
        return {"driver": "nbd", "server": server, "export": self.export}


Remote = IscsiLun | NfsFile | NbdExport


def is_url(medium: str) -> bool:
    """Whether QEMU reaches it by a driver of its own."""
    return "://" in medium


def is_device(medium: str) -> bool:
    """Whether it is a block device of this host: those are named by a path in /dev."""
    return medium.startswith("/dev/")


def needs_owner_folder(medium: str) -> bool:
    """Whether nothing can be put beside it."""
    return is_url(medium) or is_device(medium)


def parse(url: str) -> Remote:
    """The medium behind a URL. Raises ValueError with the reason."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from None
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r}: options behind a ? or # are not taken")
    if parts.password is not None:
        raise ValueError("a password must not stand in a URL, name the file that holds it")
    server = parts.hostname or ""
    if parts.scheme == "nfs":
        if port or parts.username:
            raise ValueError("an NFS medium has neither a port nor a user: nfs://server/path")
        return NfsFile(server=server, path=unquote(parts.path))
    if parts.scheme == "nbd" and not parts.username:
        return NbdExport(server=server, export=unquote(parts.path).removeprefix("/"), port=port or NBD_PORT)
    if parts.scheme == "iscsi":
        words = parts.path.strip("/").split("/")
        if len(words) != 2 or not words[1].isdigit():
            raise ValueError("an iSCSI medium is iscsi://server/target/lun")
        user = unquote(parts.username or "")
        return IscsiLun(server=server, target=unquote(words[0]), lun=int(words[1]), port=port or ISCSI_PORT, user=user)
    raise ValueError(f"{parts.scheme}:// is not a kind of storage that can be attached: use iscsi://, nfs://, nbd:// or a file")


def _check_server(server: str) -> None:
    if not re.fullmatch(r"[0-9A-Za-z._-]+|[0-9A-Fa-f:.]+(%[0-9A-Za-z]+)?", server):
        raise ValueError(f"{server!r} is not the name or address of a server")


def _bracketed(server: str) -> str:
    return f"[{server}]" if ":" in server else server


def canonical(medium: str) -> str:
    """A medium as the definition writes it. Raises ValueError."""
    return parse(medium).url if is_url(medium) else medium


def protocol_node(medium: str, *, initiator: str, secret: str = "") -> dict[str, object]:
    """QEMU's node for what lies below the image format: a file, a block device, or a driver of its own.

    `initiator` makes this VM's iSCSI name; `secret` is the id of the object with the password. A block device is opened past the
    host's page cache, which another host doesn't share.
    """
    if not is_url(medium):
        device: dict[str, object] = {"driver": "host_device", "filename": medium, "cache": {"direct": True}}
        return device if is_device(medium) else {"driver": "file", "filename": medium}
    remote = parse(medium)
    return remote.node(initiator=initiator, secret=secret) if isinstance(remote, IscsiLun) else remote.node()


def tool_words(medium: str, *, image_format: str, initiator: str, secret_file: str = "") -> list[str]:
    """How `qemu-img` and `qemu-io` are told of a medium behind a URL: the secret's object, if one is needed, and the image's name.

    `image_format` "" is probed. `secret_file` holds the bare password; it never stands in a command line.
    """
    secret = ["--object", f"secret,id=password,file={secret_file}"] if secret_file else []
    node = protocol_node(medium, initiator=initiator, secret="password" if secret_file else "")
    if image_format:
        return [*secret, f"json:{json.dumps({'driver': image_format, 'file': node})}"]
    return [*secret, f"json:{json.dumps(node)}" if isinstance(parse(medium), IscsiLun) else medium]
