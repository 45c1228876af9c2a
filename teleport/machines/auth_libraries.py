"""The names of authentication libraries (`--vrdeauthlibrary`, `setproperty vrdeauthlibrary`), checked when they are set."""

from pathlib import Path

from teleport.errors import UsageError

BUILT_IN = ("VBoxAuth", "VBoxAuthSimple")
GROUP = "teleport.vrde.auth"  # of entry points, one a library


def named(what: str, value: str) -> str:
    """A library as it is kept: a built-in one, an installed one's name, or a module's absolute path, from the current folder.

    Raises UsageError for what is none of these.
    """
    if any(ord(character) < 0x20 for character in value):
        raise UsageError(what, f"{value!r} is not the name or path of a library")
    for name in BUILT_IN:
        if value.lower() in (name.lower(), f"{name.lower()}.so"):
            return name
    if "/" in value or value.endswith(".py"):
        return existing_file(what, value)
    from importlib.metadata import entry_points  # noqa: PLC0415 - 10 ms, for a library that is neither built in nor a path

    if value and entry_points(group=GROUP, name=value):
        return value
    raise UsageError(
        what,
        f"{value!r} is neither {' nor '.join(BUILT_IN)}, nor an installed library",
        "a module of one's own is named by its path",
    )


def existing_file(what: str, value: str) -> str:
    """The absolute path of a file, from the current folder. Raises UsageError."""
    if any(ord(character) < 0x20 for character in value):
        raise UsageError(what, f"{value!r} is not the path of a file")
    path = Path(value).absolute()
    if not path.is_file():
        raise UsageError(what, f"there is no file {path}")
    return str(path)
