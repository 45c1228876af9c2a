"""`storagectl`: a VM's storage controllers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import click

from teleport.cli.grammar import Verb, one_of, switch, vm_argument, whole_number
from teleport.cli.home import store
from teleport.cli.live import require_changeable
from teleport.errors import UsageError
from teleport.machines.controllers import ADDS, BUSES, chip_names, chip_of
from teleport.machines.definition import Definition
from teleport.machines.options.option import Draft, checked, draft_of


class StorageCtl(Verb):
    """`storagectl`, with the reasons for what it doesn't take."""

    refused: ClassVar = MappingProxyType({"hostiocache": "QEMU's own cache mode is used, which is safe to teleport with"})


@click.command("storagectl", cls=StorageCtl)
@vm_argument()
@click.option("--name", metavar="NAME", required=True, help="The controller's name.")
@click.option("--add", metavar="|".join(ADDS), help="Add one of this kind.")
@click.option("--controller", metavar="CHIP", help=f"Its chip: {', '.join(chip_names())}.")
@click.option("--portcount", metavar="N", help="How many ports can be used.")
@click.option("--bootable", metavar="on|off", help="Whether the guest may boot from its devices.")
@click.option("--rename", metavar="NAME", help="Give it another name.")
@click.option("--replace", is_flag=True, help="With --add: change the controller of that kind, if there is one already.")
@click.option("--remove", is_flag=True, help="Remove it with its attachments.")
def command(vm: str, name: str, **given: Any) -> None:
    """Add, change or remove a storage controller. There is one of each kind."""
    home = store()
    found = home.find(vm)
    require_changeable(found.paths, found.name, "storagectl")
    home.edit(found, lambda definition: changed(definition, name, given))


def changed(definition: Definition, name: str, given: Mapping[str, Any]) -> Definition:
    """The definition with that controller added, changed or removed. Raises UsageError."""
    draft = draft_of(definition)
    draft["controllers"] = list(draft["controllers"])
    if given["remove"]:
        if any(given[each] for each in ("add", "controller", "portcount", "bootable", "rename")):
            raise UsageError("storagectl --remove", "takes no other option")
        draft["controllers"].remove(entry(draft, name))
    elif given["add"]:
        _add(draft, name, given)
    else:
        if not any(given[each] for each in ("controller", "portcount", "bootable", "rename")):
            raise UsageError("storagectl", "nothing to do", "give --add, --remove, --controller, --portcount or --bootable")
        _change(entry(draft, name), given)
    return checked(draft, f"storagectl {name!r}")


def entry(draft: Draft, name: str) -> dict[str, Any]:
    """The draft's controller of that name, or of that bus when no name fits. Raises UsageError."""
    controllers: list[dict[str, Any]] = draft["controllers"]
    for key in ("name", "bus"):
        for each in controllers:
            if each[key] == name:
                return each
    names = ", ".join(repr(each["name"]) for each in controllers)
    hint = f"it has {names}" if names else "it has none: add one by `teleport storagectl`"
    raise UsageError(f"storage controller {name!r}", "the VM has none of that name", hint)


def _add(draft: Draft, name: str, given: Mapping[str, Any]) -> None:
    buses = ADDS[one_of("--add", given["add"], tuple(ADDS))]
    bus = buses[0]
    if given["controller"]:
        bus = _chip(given["controller"]).bus
        if bus not in buses:
            chips = [chip for each in buses for chip in BUSES[each].chips]
            raise UsageError(
                "--controller", f"{given['controller']} is no {given['add']} controller", f"use {' or '.join(chips)}"
            )
    same = next((each for each in draft["controllers"] if each["bus"] == bus), None)
    if same is not None and not given["replace"]:
        raise UsageError(
            f"storagectl {name!r}",
            f"the VM has a {bus} controller already, named {same['name']!r}, and takes one of each kind",
            "use that one, or --remove it first",
        )
    fresh: dict[str, Any] = same or {
        "name": name,
        "bus": bus,
        "chip": BUSES[bus].chips[0],
        "port_count": BUSES[bus].default_ports,
        "attachments": (),
    }
    if same is None:
        draft["controllers"].append(fresh)
    _change(fresh, given)


def _change(controller: dict[str, Any], given: Mapping[str, Any]) -> None:
    if given["controller"]:
        chip = _chip(given["controller"])
        if chip.bus != controller["bus"]:
            raise UsageError(
                "--controller",
                f"{controller['name']!r} is a {controller['bus']} controller, and {chip.name} is for {chip.bus}",
                f"use {' or '.join(BUSES[controller['bus']].chips)}, or add another controller",
            )
        controller["chip"] = chip.name
    if given["portcount"]:
        bus = BUSES[controller["bus"]]
        controller["port_count"] = whole_number("--portcount", given["portcount"], bus.least_ports, bus.most_ports)
    if given["bootable"]:
        controller["bootable"] = switch("--bootable", given["bootable"])
    if given["rename"]:
        controller["name"] = given["rename"]


def _chip(word: str) -> Any:
    try:
        return chip_of(word)
    except KeyError as error:
        reason = str(error.args[0]) if error.args and " " in str(error.args[0]) else "is not a controller that Teleport has"
        raise UsageError("--controller", f"{word!r} {reason}", f"use {', '.join(chip_names())}") from None
