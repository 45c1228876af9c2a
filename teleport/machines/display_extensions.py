"""What an installed display extension of somebody else's knows, for the checks that are made when a property is set."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

GROUP = "teleport.vrde"  # of entry points, one an extension (teleport.vrde.extension)


def properties_of(name: str) -> Mapping[str, Any]:
    """The extension's `properties`, empty when none of that name is installed or can be loaded: the display says why when it starts."""
    for each in entry_points(group=GROUP, name=name):
        try:
            found = getattr(each.load(), "properties", {})
        except ImportError:
            continue
        if isinstance(found, Mapping):
            return found
    return {}
