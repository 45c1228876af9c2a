"""What the verbs about images share: words for kinds and formats, and who uses an image."""

import shlex
from pathlib import Path

import click

from teleport.cli.grammar import file_path, one_of
from teleport.cli.home import store
from teleport.errors import UsageError
from teleport.machines import media
from teleport.machines.store import StoredVm

KINDS = ("disk", "dvd", "floppy")
VARIANTS = ("Standard", "Fixed")


def named_medium(words: tuple[str, ...], verb: str) -> Path:
    """``[disk|dvd|floppy] FILE`` as VBoxManage takes it. Raises UsageError."""
    if len(words) == 2:
        one_of(verb, words[0], KINDS)
    elif len(words) != 1:
        raise UsageError(verb, "name one image", f"`teleport {verb} [disk|dvd|floppy] FILE`")
    return file_path(verb, words[-1])


def format_of(word: str) -> media.Format:
    """VirtualBox's or QEMU's name of a format. Raises UsageError."""
    if word.lower() in media.FORMATS.values():
        return next(name for name in media.FORMATS.values() if name == word.lower())
    return media.FORMATS[one_of("--format", word, tuple(media.FORMATS))]


def variant_of(words: str) -> media.Variant:
    """`--variant`. Raises UsageError."""
    return "fixed" if one_of("--variant", words, VARIANTS) == "Fixed" else "standard"


def users_of(path: Path) -> list[StoredVm]:
    """The VMs that have this image attached."""
    return [
        vm
        for vm in store().all()
        if isinstance(vm, StoredVm)
        and any(is_same_file(each.medium, path) for controller in vm.definition.controllers for each in controller.attachments)
    ]


def is_same_file(medium: str, path: Path) -> bool:
    """Whether a definition's medium is that file, also through a link."""
    return bool(medium) and (medium == str(path) or Path(medium).resolve() == path.resolve())


def warn_of_format(path: Path, image_format: str) -> None:
    """A word about formats that QEMU cannot migrate."""
    if image_format not in media.MIGRATABLE:
        word = media.format_word(image_format)
        click.echo(
            f"teleport: warning: QEMU cannot teleport a VM that writes to {word}: "
            f"`teleport modifymedium {shlex.quote(str(path))} --format QCOW2` converts it",
            err=True,
        )
