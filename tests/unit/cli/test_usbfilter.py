"""`usbfilter`, `list usbhost`, and what `usb share` refuses."""

import json
from pathlib import Path

import pytest

from tests.unit.cli.run_cli import Cli


@pytest.fixture
def vm(cli: Cli) -> Cli:
    cli.ok("createvm", "--name", "VM", "--register")
    return cli


def test_filters_are_added_changed_shown_and_removed(vm: Cli) -> None:
    vm.ok("usbfilter", "add", "0", "--target", "VM", "--name", "second", "-remote", "any")
    vm.ok("usbfilter", "add", "0", "--target", "VM", "--name", "first", "--vendorid", "0x046d", "--productid", "c31c",
          "--manufacturer", "Logitech", "--remote", "YES", "--active", "no")  # fmt: skip
    shown = vm.ok("showvminfo", "VM", "--machinereadable").splitlines()
    for line in (
        'USBFilterActive1="off"', 'USBFilterName1="first"', 'USBFilterVendorId1="046D"', 'USBFilterProductId1="C31C"',
        'USBFilterManufacturer1="Logitech"', 'USBFilterRemote1="yes"', 'USBFilterName2="second"', 'USBFilterRemote2="any"',
    ):  # fmt: skip
        assert line in shown
    vm.ok("usbfilter", "modify", "0", "--target", "VM", "--name", "1st", "--vendorid", "", "--active", "yes")
    first = vm.store.find("VM").definition.usb_filters[0]
    assert (first.name, first.vendor_id, first.product_id, first.active) == ("1st", "", "C31C", True)
    vm.ok("usbfilter", "remove", "0", "--target", "VM")
    assert [each.name for each in vm.store.find("VM").definition.usb_filters] == ["second"]
    assert "plugs nothing in" in vm("usbfilter", "modify", "0", "--target", "VM", "--remote", "no").err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("add", "1", "--target", "VM", "--name", "x"), "is not a number from 0 to 0"),
        (("add", "0", "--target", "VM", "--name", "x", "--vendorid", "46d"), "four hexadecimal digits"),
        (("add", "0", "--target", "VM", "--name", "x", "--remote", "maybe"), "yes, no, any"),
        (("add", "0", "--target", "VM", "--name", "x", "--action", "hold"), "only filters of the host"),
        (("add", "0", "--target", "VM", "--name", "x", "--maskedinterfaces", "1"), "given to the guest whole"),
        (("add", "0", "--target", "global", "--name", "x"), "takes no device from it"),
        (("remove", "0", "--target", "VM"), "has no USB filters"),
        (("modify", "0", "--target", "VM"), "nothing to do"),
    ],
)
def test_what_is_refused_is_said_why(vm: Cli, words: tuple[str, ...], why: str) -> None:
    ran = vm("usbfilter", *words)
    assert ran.code == 2
    assert why in ran.err
    assert vm.store.find("VM").definition.usb_filters == ()


def test_two_filters_of_one_name_are_refused(vm: Cli) -> None:
    vm.ok("usbfilter", "add", "0", "--target", "VM", "--name", "x")
    assert "two USB filters named x" in vm("usbfilter", "add", "0", "--target", "VM", "--name", "x").err


def test_the_hosts_devices_are_listed_and_only_known_ones_shared(cli: Cli, tmp_path: Path) -> None:
    assert isinstance(json.loads(cli.ok("list", "usbhost", "--json")), list)
    for words, why in (
        (("046d", "--to", "h"), "is not VENDOR:PRODUCT"),
        (("046d:c31c", "--to", "h:0"), "is not HOST:PORT"),
        (("046d:c31c", "--to", "h", "--fingerprint", "12"), "64 hexadecimal digits"),
        (("046d:c31c", "--to", "h", "--passwordfile", str(tmp_path / "none")), "cannot be read"),
    ):
        assert why in cli("usb", "share", *words).err
