"""Board, memory, CPU, firmware, graphics, serial ports."""

from teleport.machines.arguments.launch import Launch, escaped
from teleport.machines.arguments.places import VIDEO, slot
from teleport.machines.definition import Definition, Serial

_ON_OFF = {True: "on", False: "off"}
_GRAPHICS = {"vboxvga": "VGA", "vmsvga": "vmware-svga"}


def video_memory_mb(vram_mb: int) -> int:
    """What the guest gets for `--vram`: QEMU rounds up to a power of two, in silence, so we do it where it can be seen."""
    return 1 << (vram_mb - 1).bit_length()


def board_arguments(definition: Definition, launch: Launch) -> list[str]:
    """Everything that is there before any storage and network."""
    machine = definition.machine
    options = {
        "acpi": _ON_OFF[machine.acpi],
        "hpet": _ON_OFF[machine.hpet],
        "usb": "off",
        "vmport": "off",  # VMware's mouse port: neither VirtualBox nor a teleport knows it
        "dump-guest-core": "off",
        "memory-backend": "ram0",
    }
    arguments = [
        *("-nodefaults", "-no-user-config"),
        *("-name", f"guest={escaped(definition.name)},debug-threads=on"),
        *("-machine", ",".join([machine.type, *(f"{key}={value}" for key, value in options.items())])),
        *("-accel", launch.accelerator),
        *("-cpu", _cpu(definition)),
        *("-smp", f"cpus={machine.cpus},sockets=1,cores={machine.cpus},threads=1,maxcpus={machine.cpus}"),
        *("-m", f"size={machine.memory_mb}M"),
        *("-object", _ram(definition, launch)),
        *("-uuid", launch.identity.smbios_uuid if launch.identity else definition.uuid),
        *("-rtc", f"base={'utc' if machine.rtc_utc else 'localtime'}"),
        *("-boot", "menu=off,strict=on"),
        *("-display", "none"),
    ]
    if machine.kernel:
        arguments += ["-kernel", machine.kernel]
    if machine.initrd:
        arguments += ["-initrd", machine.initrd]
    if machine.append:
        arguments += ["-append", machine.append]
    if machine.graphics != "none":
        memory_mb = video_memory_mb(machine.vram_mb)
        device = _GRAPHICS[machine.graphics]
        arguments += ["-device", f"{device},id=video,addr={slot(VIDEO)},vgamem_mb={memory_mb}"]
    return arguments


def _cpu(definition: Definition) -> str:
    """`enforce`: a host that cannot give the guest this CPU refuses, instead of leaving features out in silence."""
    cpu = definition.cpu
    switched_off = {"pae": cpu.pae, "lm": cpu.long_mode, "apic": definition.machine.ioapic}
    return ",".join([cpu.profile, "enforce=on", *(f"{feature}=off" for feature, on in switched_off.items() if not on)])


def _ram(definition: Definition, launch: Launch) -> str:
    """A file backend even for a memfd: `memory-backend-memfd` would be copied by `x-ignore-shared` (architecture.md)."""
    size_bytes = definition.memory_bytes
    if launch.ram_fd is None:
        return f"memory-backend-ram,id=ram0,size={size_bytes}"
    return f"memory-backend-file,id=ram0,size={size_bytes},mem-path=/proc/self/fd/{launch.ram_fd},share=on"


def serial_arguments(definition: Definition) -> list[str]:
    """The UARTs that are on, by number."""
    arguments = []
    for port in sorted(definition.serial, key=lambda each: each.number):
        if not port.enabled:
            continue
        name = f"uart{port.number}"
        arguments += ["-chardev", _chardev(port, f"{name}-backend")]
        device = f"isa-serial,id={name},index={port.number - 1},iobase={port.io_base:#x},irq={port.irq}"
        arguments += ["-device", f"{device},chardev={name}-backend"]
    return arguments


def _chardev(port: Serial, name: str) -> str:
    """A client tries again every second: without a listener the start would fail."""
    path = escaped(port.path)
    host, _, number = path.rpartition(":")
    kind, properties = {
        "disconnected": ("null", ""),
        "file": ("file", f",path={path},append=on"),
        "server": ("socket", f",path={path},server=on,wait=off"),
        "client": ("socket", f",path={path},server=off,reconnect-ms=1000"),
        "tcpserver": ("socket", f",host=127.0.0.1,port={path},server=on,wait=off"),
        "tcpclient": ("socket", f",host={host.strip('[]')},port={number},server=off,reconnect-ms=1000"),
        "device": ("serial", f",path={path}"),
    }[port.mode]
    return f"{kind},id={name}{properties}"
