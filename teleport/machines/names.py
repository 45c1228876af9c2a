"""A VM's name → the name of its folder: safe for any filesystem and shell, the same name for the same VM, readable where it can be.

The name itself stands in the definition; a folder's name is only read back for a definition that cannot be read.
"""

import hashlib
from urllib.parse import unquote

_PLAIN = frozenset(" ._-")
_LONGEST_BYTES = 120  # leaves room below the usual 255 for suffixes of files made beside it
_KEPT_BYTES = 96


def folder_name(name: str) -> str:
    """Letters and digits stay, everything else is percent-encoded; what gets too long is cut and told apart by a hash."""
    pieces = [_encoded(character, at_edge=at in (0, len(name) - 1)) for at, character in enumerate(name)]
    text = "".join(pieces)
    if len(text.encode()) <= _LONGEST_BYTES:
        return text
    kept = ""
    for piece in pieces:
        if len((kept + piece).encode()) > _KEPT_BYTES:
            break
        kept += piece
    return f"{kept}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def name_of_folder(folder: str) -> str:
    """The VM's name as far as its folder tells."""
    return unquote(folder)


def _encoded(character: str, *, at_edge: bool) -> str:
    if character.isalnum() or (character in _PLAIN and not at_edge):
        return character
    return "".join(f"%{byte:02X}" for byte in character.encode())
