"""Channels to programs in the guest: virtio-serial ports that a guest finds by their names."""

from teleport.machines.arguments.launch import Launch, escaped
from teleport.machines.arguments.places import CHANNELS, slot
from teleport.machines.definition import Definition

AGENT_NAME = "org.qemu.guest_agent.0"  # where qemu-guest-agent looks for it (QEMU's docs/interop/qemu-ga)
CLIPBOARD_NAME = "com.redhat.spice.0"  # where spice-vdagentd looks for it (its --help, Windows' agent too)


def channel_arguments(definition: Definition, launch: Launch) -> list[str]:
    """The channels of the guest's agents, if there are any, on `launch.agent_socket` and `launch.clipboard_socket`.

    The latter is a plain port whose other end is the display's front (`teleport.vrde.clipboard_link`): QEMU's own spice agent, the
    chardev qemu-vdagent, cannot migrate.
    """
    if not definition.machine.guest_agent:
        return []
    return [
        *("-device", f"virtio-serial-pci,id=channels,addr={slot(CHANNELS)}"),
        *_port(1, "agent", AGENT_NAME, launch.agent_socket),
        *_port(2, "clipboard", CLIPBOARD_NAME, launch.clipboard_socket),
    ]


def _port(number: int, identifier: str, name: str, path: str) -> tuple[str, ...]:
    backend = f"{identifier}-backend"
    socket = f"socket,id={backend},path={escaped(path)},server=on,wait=off" if path else f"null,id={backend}"
    device = f"virtserialport,id={identifier},bus=channels.0,nr={number},chardev={backend},name={name}"
    return ("-chardev", socket, "-device", device)
