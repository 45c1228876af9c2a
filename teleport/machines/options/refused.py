"""Options of `modifyvm` that VirtualBox has and Teleport doesn't take, each with its reason: nothing is accepted and ignored."""

from collections.abc import Mapping
from types import MappingProxyType

from teleport.machines.options.network import NOT_HERE

_HOST = "QEMU decides this by itself on every host"
_ADDITIONS = "it needs VirtualBox's Guest Additions in the guest"
_CPU = "the CPU that the guest sees is what --cpu-profile and --cpuid-set make of it"
_CARD = "QEMU's network cards have no such setting"
_NAT = "nat is QEMU's own network here, always 10.0.2.0/24, with its own DNS and no files to boot from"
_CPUS_STAY = "a VM keeps its CPUs while it runs: --cpus, while it is off"
_SCREEN_3D = "a guest that draws by this host's graphics card could not move: QEMU refuses to migrate it"
_LPT = "a parallel port is hardware of one host and could not move with the guest: --uart1 is a serial port that can"
_NO_WINDOW = "VMs have no window and no manager here"

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("hwvirtex", "nestedpaging", "vtxvpid", "vtxux", "largepages", "hwvirtexexcl"), _HOST),
        **dict.fromkeys(("paravirtprovider", "biosapic"), _HOST),
        **dict.fromkeys(("nested-hw-virt", "x2apic", "triplefaultreset"), _CPU),
        **dict.fromkeys(("accelerate3d", "accelerate2dvideo"), _SCREEN_3D),
        **dict.fromkeys(("pagefusion", "guestmemoryballoon"), "a guest has the memory that --memory says, all the time"),
        "draganddrop": _ADDITIONS,
        **dict.fromkeys(("groups", "iconfile", "defaultfrontend"), _NO_WINDOW),
        "snapshotfolder": "snapshots lie beside the disks that they are of",
        "audiocodec": "QEMU's sound cards have one codec each: --audiocontroller",
        "usbcardreader": "usb storage is a controller here: storagectl --add usb",
        "usbrename": "USB controllers have no names here",
        **dict.fromkeys(("nictrace", "nictracefile"), "tcpdump on the bridge sees what a bridged adapter sends"),
        **dict.fromkeys(("nicspeed", "nicbootprio", "nicpromisc", "nicbandwidthgroup"), _CARD),
        **dict.fromkeys(("hostonlyadapter", "hostonlynet"), NOT_HERE["hostonly"]),
        **dict.fromkeys(("nat-network", "natnetwork"), NOT_HERE["natnetwork"]),
        **dict.fromkeys(("nicgenericdrv", "nicproperty"), NOT_HERE["generic"]),
        **dict.fromkeys(("natnet", "natsettings", "natdnspassdomain", "natdnsproxy", "natdnshostresolver", "natbindip"), _NAT),
        **dict.fromkeys(("nataliasmode", "nattftpprefix", "nattftpfile", "nattftpserver"), _NAT),
        **dict.fromkeys(("lptmode", "lpt"), _LPT),
        **dict.fromkeys(("cpuhotplug", "plugcpu", "unplugcpu"), _CPUS_STAY),
        "cpuexecutioncap": "the host limits a process: systemd's CPUQuota for whoever starts the VM",
        "synthcpu": "use --cpu-profile to name a model",
    }
)
