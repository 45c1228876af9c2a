"""Guest operating systems by VirtualBox's ids, with the defaults that a new VM gets from them.

Ids, descriptions and memory sizes are VirtualBox 6.1's (`VBoxManage list ostypes`), so that its users' scripts go on working. The
adapter is one that QEMU has and the guest knows without help: PCnet where VirtualBox says Am79C973 or 82543GC.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from teleport.errors import UsageError
from teleport.machines.adapters import NicModel
from teleport.machines.definition import BootDevice, Chipset, Machine

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "Other": "Other",
        "Windows": "Microsoft Windows",
        "Linux": "Linux",
        "Solaris": "Solaris",
        "BSD": "BSD",
        "OS2": "IBM OS/2",
        "MacOS": "Mac OS X",
    }
)
_BOOT: tuple[BootDevice, ...] = ("floppy", "dvd", "disk", "none")


@dataclass(frozen=True)
class OsType:
    """One kind of guest and what fits it."""

    id: str
    family: str
    description: str
    memory_mb: int
    vram_mb: int = 16
    nic_model: NicModel = "82540EM"
    chipset: Chipset = "piix3"
    rtc_utc: bool = False
    hpet: bool = False

    @property
    def family_description(self) -> str:
        """The family in words."""
        return FAMILIES[self.family]

    @property
    def is_64_bit(self) -> bool:
        """Whether it needs a 64-bit CPU."""
        return self.id.endswith("_64")

    def machine(self) -> Machine:
        """The board of a new VM."""
        return Machine(
            chipset=self.chipset,
            memory_mb=self.memory_mb,
            vram_mb=self.vram_mb,
            rtc_utc=self.rtc_utc,
            hpet=self.hpet,
            boot=_BOOT,
        )


def _old(id_: str, description: str, memory_mb: int, family: str = "Other") -> OsType:
    return OsType(id_, family, description, memory_mb, vram_mb=4, nic_model="Am79C970A")


def _windows(id_: str, description: str, memory_mb: int, vram_mb: int = 16, nic_model: NicModel = "82540EM") -> OsType:
    return OsType(id_, "Windows", description, memory_mb, vram_mb=vram_mb, nic_model=nic_model)


def _unix(family: str, id_: str, description: str, memory_mb: int) -> OsType:
    return OsType(
        id_, family, description, memory_mb, rtc_utc=family == "Linux" or id_ in ("Solaris11_64", "NetBSD", "NetBSD_64")
    )


def _both(family: str, id_: str, name: str, memory_mb: tuple[int, int]) -> tuple[OsType, OsType]:
    narrow, wide = memory_mb
    return _unix(family, id_, f"{name} (32-bit)", narrow), _unix(family, f"{id_}_64", f"{name} (64-bit)", wide)


def _mac(id_: str, description: str) -> OsType:
    return OsType(id_, "MacOS", description, 2048, nic_model="82545EM", chipset="ich9", rtc_utc=True, hpet=True)


_PCNET: NicModel = "Am79C970A"
_ALL = (
    _old("Other", "Other/Unknown", 64),
    _old("Other_64", "Other/Unknown (64-bit)", 64),
    _old("Windows31", "Windows 3.1", 32, "Windows"),
    _old("Windows95", "Windows 95", 64, "Windows"),
    _old("Windows98", "Windows 98", 64, "Windows"),
    _old("WindowsMe", "Windows ME", 128, "Windows"),
    _old("WindowsNT3x", "Windows NT 3.x", 64, "Windows"),
    _windows("WindowsNT4", "Windows NT 4", 128, nic_model=_PCNET),
    _windows("Windows2000", "Windows 2000", 168, nic_model=_PCNET),
    _windows("WindowsXP", "Windows XP (32-bit)", 192, nic_model=_PCNET),
    _windows("WindowsXP_64", "Windows XP (64-bit)", 512),
    _windows("Windows2003", "Windows 2003 (32-bit)", 512, nic_model=_PCNET),
    _windows("Windows2003_64", "Windows 2003 (64-bit)", 512),
    _windows("WindowsVista", "Windows Vista (32-bit)", 512),
    _windows("WindowsVista_64", "Windows Vista (64-bit)", 512),
    _windows("Windows2008", "Windows 2008 (32-bit)", 1024),
    _windows("Windows2008_64", "Windows 2008 (64-bit)", 2048),
    _windows("Windows7", "Windows 7 (32-bit)", 1024),
    _windows("Windows7_64", "Windows 7 (64-bit)", 2048),
    _windows("Windows8", "Windows 8 (32-bit)", 1024, 128),
    _windows("Windows8_64", "Windows 8 (64-bit)", 2048, 128),
    _windows("Windows81", "Windows 8.1 (32-bit)", 1024, 128),
    _windows("Windows81_64", "Windows 8.1 (64-bit)", 2048, 128),
    _windows("Windows2012_64", "Windows 2012 (64-bit)", 2048, 128),
    _windows("Windows10", "Windows 10 (32-bit)", 1024, 128),
    _windows("Windows10_64", "Windows 10 (64-bit)", 2048, 128),
    _windows("Windows2016_64", "Windows 2016 (64-bit)", 2048, 128),
    _windows("Windows2019_64", "Windows 2019 (64-bit)", 2048, 128),
    _windows("WindowsNT", "Other Windows (32-bit)", 512, nic_model=_PCNET),
    _windows("WindowsNT_64", "Other Windows (64-bit)", 512),
    OsType("Linux22", "Linux", "Linux 2.2", 64, 4, _PCNET, rtc_utc=True),
    OsType("Linux24", "Linux", "Linux 2.4 (32-bit)", 128, nic_model=_PCNET, rtc_utc=True),
    _unix("Linux", "Linux24_64", "Linux 2.4 (64-bit)", 128),
    *_both("Linux", "Linux26", "Linux 2.6 / 3.x / 4.x", (512, 1024)),
    *_both("Linux", "ArchLinux", "Arch Linux", (1024, 1024)),
    *_both("Linux", "Debian", "Debian", (1024, 1024)),
    *_both("Linux", "Fedora", "Fedora", (1024, 1024)),
    *_both("Linux", "Gentoo", "Gentoo", (1024, 1024)),
    *_both("Linux", "Mandriva", "Mandriva", (1024, 1024)),
    *_both("Linux", "Oracle", "Oracle", (1024, 1024)),
    *_both("Linux", "RedHat", "Red Hat", (1024, 1024)),
    *_both("Linux", "OpenSUSE", "openSUSE", (1024, 1024)),
    *_both("Linux", "Turbolinux", "Turbolinux", (384, 384)),
    *_both("Linux", "Ubuntu", "Ubuntu", (1024, 1024)),
    *_both("Linux", "Xandros", "Xandros", (256, 256)),
    *_both("Linux", "Linux", "Other Linux", (256, 512)),
    *_both("Solaris", "Solaris", "Oracle Solaris 10 5/09 and earlier", (768, 1536)),
    *_both("Solaris", "OpenSolaris", "Oracle Solaris 10 10/09 and later", (768, 1536)),
    _unix("Solaris", "Solaris11_64", "Oracle Solaris 11 (64-bit)", 1536),
    *_both("BSD", "FreeBSD", "FreeBSD", (1024, 1024)),
    *_both("BSD", "OpenBSD", "OpenBSD", (1024, 1024)),
    *_both("BSD", "NetBSD", "NetBSD", (1024, 1024)),
    _old("OS2Warp3", "OS/2 Warp 3", 48, "OS2"),
    _old("OS2Warp4", "OS/2 Warp 4", 64, "OS2"),
    _old("OS2Warp45", "OS/2 Warp 4.5", 128, "OS2"),
    _old("OS2eCS", "eComStation", 256, "OS2"),
    _old("OS21x", "OS/2 1.x", 8, "OS2"),
    _old("OS2", "Other OS/2", 96, "OS2"),
    _mac("MacOS", "Mac OS X (32-bit)"),
    _mac("MacOS_64", "Mac OS X (64-bit)"),
    _mac("MacOS106", "Mac OS X 10.6 Snow Leopard (32-bit)"),
    _mac("MacOS106_64", "Mac OS X 10.6 Snow Leopard (64-bit)"),
    _mac("MacOS107_64", "Mac OS X 10.7 Lion (64-bit)"),
    _mac("MacOS108_64", "Mac OS X 10.8 Mountain Lion (64-bit)"),
    _mac("MacOS109_64", "Mac OS X 10.9 Mavericks (64-bit)"),
    _mac("MacOS1010_64", "Mac OS X 10.10 Yosemite (64-bit)"),
    _mac("MacOS1011_64", "Mac OS X 10.11 El Capitan (64-bit)"),
    _mac("MacOS1012_64", "macOS 10.12 Sierra (64-bit)"),
    _mac("MacOS1013_64", "macOS 10.13 High Sierra (64-bit)"),
    _old("DOS", "DOS", 32),
    _old("Netware", "Netware", 512),
    _old("L4", "L4", 64),
    _old("QNX", "QNX", 512),
)
OS_TYPES: Mapping[str, OsType] = MappingProxyType({each.id: each for each in _ALL})
DEFAULT = "Other"
_BY_WORD = {word.lower(): each for each in _ALL for word in (each.description, each.id)}


def os_type(word: str) -> OsType:
    """The type by id or description, whatever the case. Raises UsageError."""
    found = _BY_WORD.get(word.lower())
    if found is None:
        near = difflib.get_close_matches(word.lower(), _BY_WORD, n=3)
        meant = f"did you mean {' or '.join(dict.fromkeys(_BY_WORD[each].id for each in near))}? " if near else ""
        raise UsageError(f"OS type {word!r}", "there is none of that name", f"{meant}`teleport list ostypes` names them")
    return found
