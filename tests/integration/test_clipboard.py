"""The shared clipboard by the real commands: xfreerdp on one side, a real spice-vdagentd in the guest on the other, and a teleport."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.harness.desktop import MEMORY_MB, Desktop, desktop_initrd
from tests.harness.guest import GuestConsole, Load
from tests.harness.home import Home
from tests.harness.host import Host
from tests.harness.namespaces import Cable
from tests.harness.scene import until
from tests.integration.vrde.desk import Viewer, xfreerdp

pytestmark = pytest.mark.qemu
DISPLAY = ("--vrdeport", "43600-43649", "--vrdeaddress", "127.0.0.1", "--vrde", "on", "--vrdemulticon", "on")
CLIPBOARD = ("--guest-agent", "on", "--clipboard", "bidirectional")
LOAD = Load(resident_mb=2, rewrite_mb=2, dirty_mb_s=1)


class Person:
    """Who sits at a viewer, and copies and pastes there."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self._environment = {**os.environ, "DISPLAY": viewer.x.display}

    def copy(self, text: str) -> None:
        command = ["xclip", "-selection", "clipboard", "-i"]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, input=text.encode(), env=self._environment, check=True, timeout=10, **silent)

    def paste(self) -> str:
        command = ["timeout", "4", "xclip", "-selection", "clipboard", "-o"]
        return subprocess.run(command, env=self._environment, capture_output=True, check=False).stdout.decode()


def test_text_goes_both_ways_and_still_does_after_a_teleport_to_another_host(short_folder: Path) -> None:
    people: list[Person] = []
    with Cable() as cable:
        near, far = Home("s", enter=cable.near.enter), Home("t", enter=cable.far.enter)
        source, target = Host("S", near), Host("T", far)
        try:
            for host in (source, target):
                options = ("--initrd", str(desktop_initrd()), *CLIPBOARD)
                host.define(load=LOAD, memory_mb=MEMORY_MB, disk=short_folder / "disk.qcow2", options=options)
            source.run("modifyvm", "S", *DISPLAY)
            with GuestConsole(source.endpoint, target.endpoint) as console:
                source.start()
                port = int(near.info("S")["vrdeport"])
                for _ in range(2):
                    people.append(Person(Viewer(short_folder, *cable.near.enter, *xfreerdp(port, "/clipboard"))))
                ann, ben = people
                console.wait_ready(120)
                desktop = Desktop(console)
                desktop.begin()
                try:
                    _both_ways(desktop, ann, ben, "before")
                    _switched_off_and_on(source, desktop, ann)
                    source.teleport(target.wait_for_teleport("--insecure"), "--insecure", host="10.77.0.2")
                    assert [each.viewer.process.poll() for each in people] == [None, None]
                    _both_ways(desktop, ben, ann, "after")
                except AssertionError:
                    print(desktop.log())
                    raise
                target.run("controlvm", "T", "poweroff")
        except BaseException as error:
            raise AssertionError(f"{error}\n{near.logs()}\n{far.logs()}") from error
        finally:
            for each in people:
                each.viewer.end()
            for home in (near, far):
                home.end()


def _both_ways(desktop: Desktop, one: Person, other: Person, when: str) -> None:
    one.copy(f"grüße {when} ☃\nsecond line")
    until(lambda: desktop.paste() == f"grüße {when} ☃ second line", "the viewer's text is not in the guest", 30)
    assert not other.paste().startswith(f"grüße {when}"), "one viewer's text went to the other"
    desktop.copy(f"from the guest {when}")
    for each in (one, other):
        until(lambda each=each: each.paste() == f"from the guest {when}", "the guest's text is not at the viewer", 30)


def _switched_off_and_on(host: Host, desktop: Desktop, person: Person) -> None:
    """By the property, by its older spelling, and one way by the mode."""
    older = ("setextradata", host.name, "VRDP/Feature/Client/DisableClipboard")
    newer = ("controlvm", host.name, "vrdeproperty")
    off_and_on = (
        ((*newer, "Client/DisableClipboard=1"), (*newer, "Client/DisableClipboard=")),
        ((*older, "1"), older),
    )
    for number, (off, on) in enumerate(off_and_on):
        host.run(*off)
        until(lambda: not person.paste(), "what the guest had copied can still be pasted")
        person.copy(f"unheard {number}")
        assert "unheard" not in desktop.paste()
        desktop.copy(f"unseen {number}")
        assert person.paste() == f"unheard {number}"
        host.run(*on)
        person.copy(f"heard {number}")
        until(lambda number=number: desktop.paste() == f"heard {number}", "the empty value does not switch it on", 30)
        desktop.copy(f"seen {number}")
        until(lambda number=number: person.paste() == f"seen {number}", "the empty value does not switch it on", 30)
    host.run("controlvm", host.name, "clipboard", "mode", "guesttohost")
    desktop.copy("out")
    until(lambda: person.paste() == "out", "the guest's text does not get out", 30)
    person.copy("not in")
    assert "not in" not in desktop.paste()
    host.run("controlvm", host.name, "clipboard", "mode", "bidirectional")
