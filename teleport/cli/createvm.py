"""`createvm`: a new VM with the defaults of its guest's operating system."""

from pathlib import Path
from uuid import UUID, uuid4

import click

from teleport.cli.grammar import Verb, file_path
from teleport.cli.home import store
from teleport.errors import UsageError
from teleport.machines import ostypes
from teleport.machines.definition import Definition
from teleport.machines.options.network import new_mac
from teleport.machines.options.option import checked, draft_of


@click.command("createvm", cls=Verb)
@click.option("--name", metavar="NAME", required=True, help="The VM's name.")
@click.option("--ostype", metavar="ID", help="The guest's operating system (`list ostypes`); it sets fitting defaults.")
@click.option("--uuid", metavar="UUID", help="The VM's UUID; a fresh one if not given.")
@click.option("--basefolder", metavar="FOLDER", help="Where the VM's folder goes.")
@click.option(
    "--like", metavar="NAME|UUID", help="Make a twin of that VM: the same hardware and media, for a teleport between them."
)
@click.option("--register", is_flag=True, help="Add it to the list of VMs at once.")
def command(
    *, name: str, ostype: str | None, uuid: str | None, basefolder: str | None, like: str | None, register: bool
) -> None:
    """Make a new VM. Without --register its settings file must be given to `registervm` later."""
    if like is not None and ostype is not None:
        raise UsageError("createvm", "--like takes everything from that VM, also the OS type", "leave --ostype out")
    definition = _twin(like, name) if like is not None else _fresh(name, ostype or ostypes.DEFAULT)
    if uuid is not None:
        definition = _with_uuid(definition, uuid)
    folder: Path | None = None
    if basefolder is not None:
        folder = file_path("--basefolder", basefolder)
    paths = store().create(definition, base_folder=folder, register=register)
    click.echo(f"Virtual machine {definition.name!r} is created{' and registered' if register else ''}.")
    click.echo(f"UUID: {definition.uuid}")
    click.echo(f"Settings file: '{paths.definition}'")


def _fresh(name: str, word: str) -> Definition:
    kind = ostypes.os_type(word)
    nic = {"number": 1, "attachment": "nat", "model": kind.nic_model, "mac": new_mac()}
    draft = {"name": name, "uuid": str(uuid4()), "ostype": kind.id, "machine": kind.machine().model_dump(), "nics": [nic]}
    return checked(draft, "createvm")


def _twin(like: str, name: str) -> Definition:
    draft = draft_of(store().find(like).definition)
    draft |= {"name": name, "uuid": str(uuid4()), "nics": [each | {"mac": new_mac()} for each in draft["nics"]]}
    draft["teleporter"] = {}
    return checked(draft, "createvm")


def _with_uuid(definition: Definition, word: str) -> Definition:
    try:
        uuid = str(UUID(word))
    except ValueError:
        raise UsageError("--uuid", f"{word!r} is not a UUID", f"write it like {definition.uuid}") from None
    return checked(draft_of(definition) | {"uuid": uuid}, "createvm")
