"""The one table of a VM's options.

From it come `modifyvm`'s parser, help and completion, `showvminfo` in both forms, the comparison of the two ends of a teleport
(`teleport.machines.settings`) and the command reference. A new option is one row here and its field in the definition.
"""

import re

from teleport.machines.options import board, devices, network, remote, serial
from teleport.machines.options.option import Option
from teleport.machines.options.refused import REFUSED

__all__ = ["OPTIONS", "REFUSED", "find", "option"]

OPTIONS: tuple[Option, ...] = (*board.OPTIONS, *devices.OPTIONS, *network.OPTIONS, *serial.OPTIONS, *remote.OPTIONS)
_BY_NAME = {name: option for option in OPTIONS for name in (option.name, *option.also)}


def option(name: str) -> Option:
    """The row of that name. Raises KeyError."""
    return _BY_NAME[name]


def find(word: str) -> tuple[Option, int] | None:
    """``nic1`` → (the row "nic", 1); None for a word that is no option, or a number that it doesn't have."""
    if word in _BY_NAME and not _BY_NAME[word].most:
        return _BY_NAME[word], 0
    match = re.fullmatch(r"(.*[^0-9])([1-9][0-9]?)", word)
    if match and match[1] in _BY_NAME and int(match[2]) in _BY_NAME[match[1]].numbers and _BY_NAME[match[1]].most:
        return _BY_NAME[match[1]], int(match[2])
    return None
