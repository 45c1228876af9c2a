"""`usbfilter`: which USB devices of viewers' computers a VM takes (manual, 7.1.4)."""

import json
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, ClassVar

import click

from teleport.cli.grammar import Verb, complete_vm, one_of, whole_number
from teleport.cli.home import store
from teleport.cli.life import Life
from teleport.cli.live import live_state
from teleport.cli.running import connect
from teleport.errors import UsageError
from teleport.machines.definition import Definition
from teleport.machines.options.option import Draft, checked, draft_of
from teleport.machines.store import StoredVm

MOST_FILTERS = 64
_YES_NO = ("yes", "no")
_TEXTS = {  # option → field, what it takes
    "vendorid": ("vendor_id", "XXXX"),
    "productid": ("product_id", "XXXX"),
    "revision": ("revision", "XXXX"),
    "manufacturer": ("manufacturer", "TEXT"),
    "product": ("product", "TEXT"),
    "serialnumber": ("serial_number", "TEXT"),
}


class UsbFilterVerb(Verb):
    """With the reasons for what it doesn't take."""

    refused: ClassVar = MappingProxyType(
        {
            "action": "only filters of the host (--target global) have an action; a VM's filter plugs the device in",
            "maskedinterfaces": "a device is given to the guest whole",
        }
    )


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, (_, metavar) in reversed(_TEXTS.items()):
        command = click.option(f"--{name}", name, metavar=metavar, help="Only devices with this one; empty: any.")(command)
    for name, words, about in (
        ("remote", "yes|no|any", "Devices of viewers' computers (yes), of this host (no), or both."),
        ("active", "yes|no", "Whether the filter counts."),
    ):
        command = click.option(f"--{name}", name, metavar=words, help=about)(command)
    return command


_target = click.option("--target", required=True, metavar="NAME|UUID", shell_complete=complete_vm, help="The VM.")


@click.group("usbfilter")
def command() -> None:
    """Add, change or remove a filter for USB devices that viewers share.

    The first filter that fits a device plugs it into the guest. For a VM that runs it counts at once, for devices that are not plugged
    in yet.
    """


@command.command("add", cls=UsbFilterVerb)
@click.argument("index")
@_target
@click.option("--name", required=True, metavar="NAME", help="What it is called.")
@_options
def _add(*, index: str, target: str, **given: str | None) -> None:
    """Add a filter before the one at INDEX (0: the first)."""

    def change(draft: Draft) -> None:
        filters = draft["usb_filters"]
        if len(filters) >= MOST_FILTERS:
            raise UsageError("usbfilter add", f"a VM has {MOST_FILTERS} at most", "remove one first")
        filters.insert(whole_number("usbfilter add", index, 0, len(filters)), _fields(given))

    _edit(target, "usbfilter add", change)
    _warn(given)


@command.command("modify", cls=UsbFilterVerb)
@click.argument("index")
@_target
@click.option("--name", metavar="NAME", help="Another name.")
@_options
def _modify(*, index: str, target: str, **given: str | None) -> None:
    """Change the filter at INDEX."""

    def change(draft: Draft) -> None:
        _at(draft, "usbfilter modify", index).update(_fields(given))

    if not _fields(given):
        raise UsageError("usbfilter modify", "nothing to do", "`teleport usbfilter modify --help` lists the options")
    _edit(target, "usbfilter modify", change)
    _warn(given)


@command.command("remove", cls=UsbFilterVerb)
@click.argument("index")
@_target
def _remove(*, index: str, target: str) -> None:
    """Remove the filter at INDEX."""
    _edit(target, "usbfilter remove", lambda draft: draft["usb_filters"].remove(_at(draft, "usbfilter remove", index)))


def _at(draft: Draft, what: str, index: str) -> dict[str, Any]:
    filters: list[dict[str, Any]] = draft["usb_filters"]
    if not filters:
        raise UsageError(what, "the VM has no USB filters", "usbfilter add makes one")
    return filters[whole_number(what, index, 0, len(filters) - 1)]


def _fields(given: dict[str, str | None]) -> dict[str, Any]:
    fields: dict[str, Any] = {_TEXTS[name][0]: given[name] for name in _TEXTS if given[name] is not None}
    if given["name"] is not None:
        fields["name"] = given["name"]
    if given["active"] is not None:
        fields["active"] = one_of("--active", given["active"], _YES_NO) == "yes"
    if given["remote"] is not None:
        fields["remote"] = one_of("--remote", given["remote"] or "any", ("yes", "no", "any"))
    return fields


def _warn(given: dict[str, str | None]) -> None:
    if given["remote"] and given["remote"].lower() == "no":
        click.echo(
            "teleport: warning: a filter with --remote no plugs nothing in: devices of the VM's own host are left to it, since a guest "
            "that has one could not teleport; `teleport usb share` makes one a remote device",
            err=True,
        )


def _edit(target: str, what: str, change: Callable[[Draft], None]) -> None:
    if target.lower() == "global":
        raise UsageError(f"{what} --target global", "filters of the host are not known here: Teleport takes no device from it")
    home = store()
    vm = home.find(target)

    def changed(definition: Definition) -> Definition:
        draft = draft_of(definition)
        draft["usb_filters"] = list(draft["usb_filters"])
        change(draft)
        return checked(draft, what)

    _tell(vm, home.edit(vm, changed))


def _tell(vm: StoredVm, wanted: Definition) -> None:
    """To the VM's runner, if one lives."""
    if live_state(vm.paths, vm.name).life is Life.NOTHING:
        return
    with connect(vm) as control:
        control.execute("usbfilters", json.dumps([each.model_dump() for each in wanted.usb_filters]))
