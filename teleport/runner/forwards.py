"""Forwarded ports of a guest that came from elsewhere: opened once the other QEMU, perhaps on this very host, has let them go."""

import asyncio
from collections.abc import Callable

from teleport.errors import HypervisorError
from teleport.host.guest import QmpGuest
from teleport.machines.arguments.network import forward_commands
from teleport.machines.definition import Definition

_TRIES_SECONDS = 60.0
_PAUSE_SECONDS = 0.2


async def open_forwarded_ports(guest: QmpGuest, definition: Callable[[], Definition], say: Callable[[str], object]) -> None:
    """Opens the forwarded ports of a QEMU that was started without them; says which could not be had. `definition` gives the VM's
    as it is then: a rule that was deleted meanwhile is not opened any more.

    The guest runs meanwhile: a port that stays busy is a word in the log, never the end of a guest, and no other port waits for it.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _TRIES_SECONDS
    closed = dict.fromkeys(forward_commands(definition()), "")
    try:
        while closed:
            for command in tuple(closed):
                said = (await guest.hmp(command)).strip() if command in forward_commands(definition()) else ""
                if said:
                    closed[command] = said
                else:
                    del closed[command]
            if loop.time() > deadline:
                break
            if closed:
                await asyncio.sleep(_PAUSE_SECONDS)
    except HypervisorError:
        return  # it is gone, and its ports with it
    for command, said in closed.items():
        say(f"a forwarded port stays closed: {command.removeprefix('hostfwd_add ')}: {said}")
