"""Channels to programs in the guest: virtio-serial ports that a guest finds by their names."""

from teleport.machines.arguments.launch import Launch, escaped
from teleport.machines.arguments.places import CHANNELS, slot
from teleport.machines.definition import Definition

AGENT_NAME = "org.qemu.guest_agent.0"  # where qemu-guest-agent looks for it (QEMU's docs/interop/qemu-ga)


def channel_arguments(definition: Definition, launch: Launch) -> list[str]:
    """The guest agent's channel, if there is one, on `launch.agent_socket`."""
    if not definition.machine.guest_agent:
        return []
    socket = f"socket,id=agent-backend,path={escaped(launch.agent_socket)},server=on,wait=off"
    return [
        *("-device", f"virtio-serial-pci,id=channels,addr={slot(CHANNELS)}"),
        *("-chardev", socket if launch.agent_socket else "null,id=agent-backend"),
        *("-device", f"virtserialport,id=agent,bus=channels.0,nr=1,chardev=agent-backend,name={AGENT_NAME}"),
    ]
