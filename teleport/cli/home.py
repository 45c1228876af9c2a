"""The home that the command works on."""

import os

from teleport.machines.store import Store, home_folder


def store() -> Store:
    """The VMs of `TELEPORT_HOME` (or the XDG state folder)."""
    return Store(home_folder(os.environ))
