"""Board, memory, CPU, firmware, serial ports."""

import json

from teleport.machines.arguments.launch import Launch, escaped
from teleport.machines.cpus import leaf_features, portable_features, signature
from teleport.machines.definition import Definition, Serial

_ON_OFF = {True: "on", False: "off"}


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
    firmware = _firmware(definition, launch)
    if firmware:
        options |= {"pflash0": "efi-code", "pflash1": "efi-variables"}
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
        *firmware,
    ]
    if machine.kernel:
        arguments += ["-kernel", machine.kernel]
    if machine.initrd:
        arguments += ["-initrd", machine.initrd]
    if machine.append:
        arguments += ["-append", machine.append]
    return arguments


def _firmware(definition: Definition, launch: Launch) -> list[str]:
    """EFI's code and variables as flash memory. A start without their files is a mistake of the program, not of a person."""
    if definition.machine.firmware == "bios":
        return []
    if launch.firmware is None:
        raise ValueError("firmware efi needs Launch.firmware")
    nodes = (("efi-code", launch.firmware.code, True), ("efi-variables", launch.firmware.variables, False))
    arguments = []
    for name, path, read_only in nodes:
        file = {"driver": "file", "node-name": f"{name}-file", "filename": path, "read-only": read_only}
        node = {"driver": "raw", "node-name": name, "read-only": read_only, "file": file}
        arguments += ["-blockdev", json.dumps(node, separators=(",", ":"), ensure_ascii=False)]
    return arguments


def _cpu(definition: Definition) -> str:
    """The model and what differs from it. `enforce`: a host that cannot give the guest this CPU refuses, instead of leaving
    features out in silence."""
    cpu = definition.cpu
    features = portable_features(cpu.portability_level) | leaf_features(cpu.cpuid)
    switched_off = {"pae": cpu.pae, "lm": cpu.long_mode, "apic": definition.machine.ioapic}
    features |= {name: False for name, on in switched_off.items() if not on}
    identity = [f"{name}={value}" for name, value in signature(cpu.cpuid).items()]
    return ",".join([cpu.profile, "enforce=on", *identity, *(f"{name}={_ON_OFF[on]}" for name, on in features.items())])


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
