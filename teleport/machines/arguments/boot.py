"""The boot order: `bootindex` for each device, from 1 (0 is a directly booted kernel's)."""

from teleport.machines.controllers import Bus
from teleport.machines.definition import BootDevice, Definition

_CLASS: dict[str, BootDevice] = {"hdd": "disk", "dvddrive": "dvd", "fdd": "floppy"}
Place = tuple[Bus, int, int]  # bus, port, device


def boot_indexes(definition: Definition) -> dict[Place, int]:
    """`bootindex` of the drives: the classes in the order of `--boot1..4`, within one class in the controllers' order."""
    order: list[BootDevice] = [each for each in definition.machine.boot if each != "none"]
    ranked: list[tuple[int, Place]] = []
    for controller in definition.ordered_controllers():
        for each in controller.ordered() if controller.bootable else ():
            if _CLASS[each.type] in order:
                rank = order.index(_CLASS[each.type])
                ranked.append((rank, (controller.bus, each.port, each.device)))
    positions = sorted(range(len(ranked)), key=lambda at: (ranked[at][0], at))
    # Ranks leave gaps, so that the network's own index fits between them.
    return {ranked[at][1]: _index(ranked[at][0], number) for number, at in enumerate(positions)}


def network_boot_index(definition: Definition) -> int | None:
    """`bootindex` of the first adapter, when the machine may boot from the network."""
    order = [each for each in definition.machine.boot if each != "none"]
    return _index(order.index("net"), 0) if "net" in order else None


def _index(rank: int, number: int) -> int:
    return 1 + 1000 * rank + number
