"""The guest's screens: the graphics card, a further card for each further screen, and where QEMU serves their pictures."""

from teleport.machines.arguments.launch import Launch, escaped
from teleport.machines.arguments.places import MORE_VIDEO, VIDEO, slot
from teleport.machines.arguments.usb import SOUND, has_sound
from teleport.machines.definition import Definition, Machine

_CARDS = {"vboxvga": "VGA", "vmsvga": "vmware-svga", "virtio": "virtio-vga"}


def video_memory_mb(vram_mb: int) -> int:
    """What the guest gets for `--vram`: QEMU rounds up to a power of two, in silence, so we do it where it can be seen."""
    return 1 << (vram_mb - 1).bit_length()


def screen_count(definition: Definition) -> int:
    """How many screens the guest has: `--monitorcount`, or 0 without graphics."""
    return definition.vrde.monitors if definition.machine.graphics != "none" else 0


def screen_arguments(definition: Definition, launch: Launch) -> list[str]:
    """The cards, then one VNC server a screen on `launch.vnc_sockets`, whether the remote display is on or not: it can be switched
    on at any time, and a guest that arrives with viewers always finds something to show them."""
    count = screen_count(definition)
    if not count:
        return []
    arguments = ["-device", _card(definition.machine)]
    memory_mb = video_memory_mb(definition.machine.vram_mb)
    for function in range(count - 1):
        # eight functions of one slot, so that screens take no other device's place
        place = f"addr={slot(MORE_VIDEO)}.{function}{',multifunction=on' if function == 0 else ''}"
        arguments += ["-device", f"secondary-vga,id={_screen(function + 2)},{place},vgamem_mb={memory_mb}"]
    for number, path in enumerate(launch.vnc_sockets[:count], 1):
        which = f",display={_screen(number)}" if count > 1 else ""
        which += f",audiodev={SOUND}" if has_sound(definition) and definition.audio.output else ""
        # force-shared: a second viewer never throws out the first, whatever it asks for
        arguments += ["-vnc", f"unix:{escaped(path)},share=force-shared{which}"]
    return arguments


def _screen(number: int) -> str:
    """The device's id."""
    return "video" if number == 1 else f"video{number}"


def _card(machine: Machine) -> str:
    device = f"{_CARDS[machine.graphics]},id={_screen(1)},addr={slot(VIDEO)}"
    if machine.graphics == "virtio":  # its frame buffers are in the guest's RAM
        return f"{device},max_hostmem={max(machine.vram_mb, 64) << 20}"
    return f"{device},vgamem_mb={video_memory_mb(machine.vram_mb)}"
