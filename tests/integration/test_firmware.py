"""EFI variables go with the guest, also with one that arrives paused and never runs at the target."""

from collections.abc import Callable
from pathlib import Path

import pytest

from teleport.machines.firmware import TEMPLATE, VARIABLES_FILE
from tests.harness.home import Home
from tests.harness.host import Host

pytestmark = pytest.mark.qemu
MARK = b"a variable of the source's guest"


def variables(host: Host) -> Path:
    return Path(host.home.info(host.name)["CfgFile"]).parent / VARIABLES_FILE


def test_a_guest_that_arrives_paused_and_is_powered_off_loses_no_variable(
    home: Home, second_home: Home, blank: Callable[..., Host]
) -> None:
    source, target = blank("S", home), blank("T", second_home)
    for host in (source, target):
        host.run("modifyvm", host.name, "--firmware", "efi")
    store = bytearray(TEMPLATE.read_bytes())
    store[-len(MARK) :] = MARK
    variables(source).write_bytes(store)
    source.start()
    source.run("controlvm", "S", "pause")
    here = variables(source).read_bytes()
    port = target.wait_for_teleport()
    source.teleport(port)
    assert target.state == "paused"
    assert variables(target).read_bytes() == here
    assert here.endswith(MARK)
    target.run("controlvm", "T", "poweroff")
    assert variables(target).read_bytes() == here
