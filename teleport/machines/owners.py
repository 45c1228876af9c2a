"""A look at an owner record by whoever must not write it: who owns the guest now (`teleport.host.owner_record` is the writer)."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teleport.errors import StorageError

_GENERATION = re.compile(r"(\d{14})\.owner")


def owner_now(folder: Path) -> Mapping[str, Any]:
    """The newest generation's owner (`host`, `home`, `vm_uuid`, `vm_name`, `epoch`; all empty when it is free); {} without a record.

    Raises StorageError when it cannot be read.
    """
    try:
        newest = max((path for path in folder.iterdir() if _GENERATION.fullmatch(path.name)), default=None)
        if newest is None:
            return {}
        file = newest / "owner" if newest.is_dir() else newest  # a folder where the storage has no links
        owner: Mapping[str, Any] = json.loads(file.read_bytes())["owner"]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError(f"owner record {folder}", error.strerror or str(error), "look at the shared storage") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"owner record {folder}", "damaged: it does not say whose the guest is") from error
    return owner
